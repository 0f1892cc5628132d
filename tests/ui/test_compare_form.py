"""The form of Compare, without a viewer."""

import pytest
from qtpy.QtCore import QPoint, Qt

from napari_msp.ui.compare.form import SIGNED, CompareForm
from napari_msp.ui.widgets.form import CheckList

TRUTHS = ("sub-01 ge_st", "sub-01 prisma_st (on disk)")
PREDICTIONS = ("sub-01 DIQT prisma_st", "sub-01 MSP prisma_st", "sub-01 ge_st", "a", "b")


@pytest.fixture
def form(qtbot):
    made = CompareForm()
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def offered(form):
    form.offer(TRUTHS, PREDICTIONS, TRUTHS[:1])
    return form


def test_an_empty_form_says_what_is_missing_and_shows_nothing(form):
    assert "harmonize" in form.rows.said("predictions")
    assert not form.show_button.isEnabled()
    assert not form.leave_button.isEnabled()
    assert (form.truth, form.predictions, form.scan) == ("", [], "")


def test_what_is_chosen_can_be_read(offered):
    offered.choose(TRUTHS[1], PREDICTIONS[:2])
    assert offered.truth == TRUTHS[1]
    assert offered.predictions == list(PREDICTIONS[:2])
    assert offered.show_button.isEnabled()
    offered.scans.setCurrentIndex(1)
    assert offered.scan is None
    offered.scans.setCurrentIndex(2)
    assert offered.scan == TRUTHS[0]
    offered.choose_truth("gone")
    assert offered.truth == ""


def test_what_has_no_sign_is_said_to_be_squared(offered):
    offered.maps.setCurrentText("colour FA")
    assert offered.rows.said("errors") == ""
    offered.errors.setCurrentText(SIGNED)
    assert "squared error is shown" in offered.rows.said("errors")
    offered.maps.setCurrentText("FA")
    assert offered.rows.said("errors") == ""


def test_a_choice_that_the_picture_is_not_of_is_marked(offered):
    offered.choose("", PREDICTIONS[:1])
    offered.mark_drawn(offered.asked)
    assert offered.show_button.text() == "Sh&ow"
    offered.truths.setCurrentIndex(2)
    assert offered.show_button.text() == "Sh&ow this choice"
    assert offered.show_button.font().bold()
    offered.truths.setCurrentIndex(0)
    offered.scans.setCurrentIndex(1)
    assert offered.show_button.text() == "Sh&ow this choice"
    offered.mark_drawn(None)
    assert offered.show_button.text() == "Sh&ow"


def test_names_that_differ_at_their_ends_look_different_in_a_narrow_box(offered):
    names = [f"sub-{'VeryLongName' * 5} {platform}_st" for platform in ("ge", "prisma")]
    offered.offer(names, (), ())
    offered.truths.resize(150, 30)
    looks = []
    for name in names:
        offered.choose_truth(name)
        looks.append(offered.truths.grab().toImage())
    assert looks[0] != looks[1]


def test_five_predictions_are_one_too_many(offered):
    offered.choose("", PREDICTIONS)
    assert "at most 4" in offered.rows.said("predictions")
    assert not offered.show_button.isEnabled()
    offered.choose("", PREDICTIONS[:4])
    assert offered.rows.said("predictions") == ""
    assert offered.show_button.isEnabled()


def test_a_scan_compared_with_itself_is_pointed_out(offered):
    offered.choose(TRUTHS[0], [TRUTHS[0]])
    assert "with itself" in offered.rows.said("predictions")
    assert offered.show_button.isEnabled()


def test_choices_stay_while_others_come_and_go(offered):
    offered.choose(TRUTHS[1], PREDICTIONS[:2])
    offered.offer((*TRUTHS, "sub-02 ge_st"), (*PREDICTIONS, "c"), TRUTHS[:1])
    assert offered.truth == TRUTHS[1]
    assert offered.predictions == list(PREDICTIONS[:2])
    offered.offer(TRUTHS[:1], PREDICTIONS[1:], ())
    assert offered.truth == ""
    assert offered.predictions == [PREDICTIONS[1]]


def test_map_and_plane_are_told(offered, qtbot):
    with qtbot.wait_signal(offered.map_changed) as told:
        qtbot.keyClick(offered.maps, Qt.Key_Down)
    assert told.args == ["colour_fa"]
    assert offered.map_name == "colour_fa"
    assert not offered.errors.isEnabled()
    offered.show_active(True)
    with qtbot.wait_signal(offered.plane_changed) as told:
        qtbot.keyClick(offered.planes, Qt.Key_Down)
    assert told.args == ["coronal"]
    with qtbot.assert_not_emitted(offered.plane_changed):
        offered.show_plane("sagittal")
    assert offered.planes.currentText() == "sagittal"


def test_only_a_person_picks_a_truth(offered, qtbot):
    with qtbot.assert_not_emitted(offered.truths.activated):
        offered.choose_truth(TRUTHS[1])
    offered.truths.setFocus()
    with qtbot.wait_signal(offered.truths.activated):
        qtbot.keyClick(offered.truths, Qt.Key_Up)
    assert offered.truth == TRUTHS[0]


def test_all_of_it_is_reached_with_the_tab_key_and_named(offered, qtbot):
    offered.choose(TRUTHS[1], PREDICTIONS[:1])
    offered.show_active(True)
    entries = [
        offered.predictions_list,
        offered.truths,
        offered.scans,
        offered.maps,
        offered.errors,
        offered.glyphs,
        offered.planes,
        offered.show_button,
        offered.leave_button,
    ]
    entries[0].setFocus()
    for entry in entries[1:]:
        qtbot.keyClick(offered.focusWidget(), Qt.Key_Tab)
        assert offered.focusWidget() is entry
    for entry in entries[:5]:
        assert entry.accessibleName()
        assert entry.toolTip()


def test_a_shell_is_chosen_only_where_there_are_several(offered, qtbot):
    assert offered.shell is None
    assert not offered.shells.isVisibleTo(offered)
    offered.offer(TRUTHS, PREDICTIONS, (), (1200, 3000))
    assert offered.shells.isVisibleTo(offered)
    assert offered.shell == 1200
    with qtbot.assertNotEmitted(offered.shell_changed):
        offered.choose_shell(3000)
    offered.offer(TRUTHS, PREDICTIONS, (), (700, 1200, 3000))
    assert offered.shell == 3000
    with qtbot.waitSignal(offered.shell_changed):
        offered.shells.activated.emit(0)
    offered.offer(TRUTHS, PREDICTIONS, (), (1200,))
    assert offered.shell is None


def test_a_click_on_a_name_ticks_it_as_one_on_its_box_does(qtbot):
    names = CheckList()
    qtbot.addWidget(names)
    names.resize(200, 60)
    names.show()
    names.set_names(["prisma_st", "connectom_sa"], ["prisma_st"])
    place = names.visualItemRect(names.item(1))
    on_the_box = QPoint(place.left() + place.height() // 2, place.center().y())
    for where in (place.center(), on_the_box):
        for ticked in (["prisma_st", "connectom_sa"], ["prisma_st"]):
            qtbot.mouseClick(names.viewport(), Qt.LeftButton, pos=where)
            assert names.checked == ticked, where
    qtbot.keyClick(names, Qt.Key_Space)
    assert names.checked == ["prisma_st", "connectom_sa"]


def test_the_plane_stands_beside_the_glyphs_where_both_can_be_read(form, qtbot):
    def beside():
        return form.planes.mapTo(form, QPoint()).y() == form.glyphs.mapTo(form, QPoint()).y()

    form.resize(420, 500)
    qtbot.wait_until(beside, timeout=5000)
    font = form.font()
    font.setPointSize(24)
    form.setFont(font)
    form.resize(430, 500)
    qtbot.wait_until(lambda: not beside(), timeout=5000)
    assert form.planes.mapTo(form, QPoint()).x() == form.glyphs.mapTo(form, QPoint()).x()
