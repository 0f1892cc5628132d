"""Review in a real viewer: by keys alone, the right head, and every rating on the disk."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel

from napari_msp.review.rating_table import read_ratings
from napari_msp.ui.review.keys import BEYOND_NAPARI, REBOUND, all_keys
from reviewed import AFFINE, WORST, folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("reviewed") / "predictions")


@pytest.fixture
def predictions(pristine, tmp_path):
    import shutil

    return shutil.copytree(pristine, tmp_path / "predictions")


@pytest.fixture
def review(open_widget):
    return open_widget("Review")


@pytest.fixture
def settle(review, qtbot):
    def wait():
        session = review.session
        qtbot.wait_until(lambda: review.canvas.shown is session.current)
        qtbot.wait_until(lambda: not review.canvas.ahead.busy)
        qtbot.wait(20)

    return wait


@pytest.fixture
def begin(review, qtbot, settle):
    """Open a folder as a person does."""

    def begin(path, rater="anna", blind=False, roles=False):
        review.form.folder.choose(path)
        review.form.rater.setText(rater)
        review.form.blind.setChecked(blind)
        review.form.roles.setChecked(roles)
        qtbot.mouseClick(review.form.button, Qt.LeftButton)
        qtbot.wait_until(lambda: review.session is not None)
        settle()
        return review

    return begin


@pytest.fixture
def opened(begin, predictions):
    return begin(predictions)


@pytest.fixture
def press(review, settle):
    """Press a key where the focus is when one reviews: in the list."""

    def press(*keys):
        for key in keys:
            QTest.keyClick(review.list.table, key)
            if review.session is not None:
                settle()

    return press


@pytest.fixture
def press_on_canvas(viewer, settle):
    def press(*keys):
        for key in keys:
            QTest.keyClick(viewer.window._qt_viewer.canvas.native, key)
            settle()

    return press


def table(predictions, rater="anna"):
    known = read_ratings(predictions / "review" / f"rater-{rater}_ratings.tsv")
    return {key.partition("/")[0]: each for key, each in known.items()}


def names(review):
    return [" ".join(layer.name.split()) for layer in review.canvas.grid.layers]


def test_the_canvas_takes_the_keys_of_the_list(viewer, opened, press_on_canvas):
    """One window for all: opening one takes longer than to look."""
    check_the_riskiest_is_shown_first_as_in_figure_3(opened)
    check_the_canvas_takes_the_same_keys(viewer, opened, press_on_canvas)
    check_no_key_is_taken_from_napari_unsaid(viewer, opened)


def check_the_riskiest_is_shown_first_as_in_figure_3(opened):
    assert opened.session.current.subject == "sub-03"
    assert names(opened) == [
        "sub-03 ge_st · SH average",
        "sub-03 MSP prisma_st · SH average",
        "sub-03 ge_st · b=0 with the mask",
        "sub-03 MSP prisma_st · expected error",
    ]
    assert opened.progress.text() == "0 of 9 rated"
    first = [opened.list.model.rows[0][column].text for column in range(5)]
    assert first[1:3] == ["sub-03", "prisma_st"]
    assert first[4] == "SNR low"
    assert opened.list.table.isColumnHidden(2)  # one target is named with every prediction
    assert "low" in opened.judging.known.text()


def test_all_are_rated_by_keys_alone(viewer, opened, press, predictions, qtbot):
    opened.canvas.grid.layers[1].visible = False
    press("F")
    assert opened.message.text.startswith("Not rated: sub-03 → prisma_st is not seen: its layers")
    opened.canvas.grid.layers[1].visible = True
    viewer.canvas.grid.enabled = False
    press("F")
    assert "napari’s grid is off" in opened.message.text
    viewer.canvas.grid.enabled = True
    viewer.layers.remove(opened.canvas.grid.layers[1])
    press("F")
    assert "were deleted" in opened.message.text
    assert opened.canvas.judged  # they are drawn anew
    check_nothing_is_rated_behind_another_tab(viewer, opened, qtbot)
    check_keys_do_not_reach_a_persons_own_layer(viewer, opened, qtbot)
    assert not (predictions / "review" / "rater-anna_ratings.tsv").exists()
    press("5", Qt.Key_Return)
    assert opened.judging.writing
    QTest.keyClicks(opened.judging.note, "Pd 5 cut off")  # letters that are keys elsewhere
    QTest.keyClick(opened.judging.note, Qt.Key_Return)
    press("F")
    rated = table(predictions)["sub-03"]
    assert (rated.verdict, rated.tags, rated.note) == ("fail", ("mask",), "Pd 5 cut off")
    for count in range(2, 10):
        press("P" if count < 9 else "D")
        assert len(table(predictions)) == count  # on the disk after every key
    assert opened.progress.text() == "9 of 9 rated"
    assert "All listed predictions are rated" in opened.message.text
    press(Qt.Key_Up)
    assert opened.message.text == ""  # of the prediction before
    press(Qt.Key_Backspace)
    assert opened.progress.text() == "8 of 9 rated"
    assert list(table(predictions).values())[-1].verdict is not None
    press("D")
    assert (
        sorted(each.verdict for each in table(predictions).values())
        == ["doubtful"] + ["fail"] + ["pass"] * 7
    )


def check_the_canvas_takes_the_same_keys(viewer, opened, press_on_canvas):
    before = opened.session.current
    press_on_canvas("N")
    assert opened.session.row == 1
    press_on_canvas("B", "P")
    assert opened.session.state(before) == "pass"
    press_on_canvas(Qt.Key_Backspace)
    assert opened.session.current is before
    assert opened.session.state(before) == "unrated"
    press_on_canvas("2")  # would let the image be turned, but for us
    assert opened.session.tags_of(before) == ("motion",)
    assert all(layer.mode == "pan_zoom" for layer in opened.canvas.grid.layers)
    viewer.layers.selection.clear()
    press_on_canvas("F")
    assert opened.session.state(before) == "fail"


def check_no_key_is_taken_from_napari_unsaid(viewer, opened):
    from napari._app_model import get_app_model
    from napari.utils.key_bindings import coerce_keybinding

    ours = {coerce_keybinding(key) for key in all_keys() if key not in BEYOND_NAPARI}
    taken = {coerce_keybinding(key) for key in REBOUND}
    opened.leave()
    viewer.add_image(np.zeros((3, 4, 5)))
    chain = set(viewer.window._qt_viewer._key_map_handler.keymap_chain)
    menus = {str(rule.keybinding) for rule in get_app_model().keybindings}
    assert len(chain) > 20
    assert ours & chain == taken
    assert len(menus) > 5
    assert not {str(key) for key in ours} & menus
    assert {str(key) for key in chain} > {str(key) for key in taken}


def test_closing_gives_keys_and_layers_back(viewer, review, begin, predictions):
    viewer.add_image(np.zeros((3, 4, 5)), name="mine")
    viewer.bind_key("P", lambda _: None)
    before = dict(viewer.keymap)
    begin(predictions)
    assert dict(viewer.keymap) != before
    assert not viewer.layers["mine"].visible
    viewer.window.remove_dock_widget(review.parent())
    assert dict(viewer.keymap) == before
    assert [layer.name for layer in viewer.layers] == ["mine"]
    assert viewer.layers["mine"].visible
    events = viewer.dims.events.order, viewer.layers.selection.events.active
    listening = [each[0]() for event in events for each in event.callbacks if type(each) is tuple]
    assert listening
    assert review.canvas not in listening


@pytest.mark.slow
def test_what_is_seen(viewer, opened, press, qtbot):
    """One window for all: opening one takes longer than to look."""
    check_the_status_line_is_of_what_is_seen(viewer, opened, press, qtbot)
    check_values_are_those_of_the_subject(opened, press)
    check_contrast_is_one_for_all(opened, press)
    check_the_worst_voxel_is_gone_to(viewer, opened, press)
    press("U", "B")
    opened.go_to(opened.session.rows[0])
    check_flicker_changes_places_while_the_key_is_held(viewer, opened)
    check_maps_in_turn(opened, press)
    check_place_and_plane_stay_from_head_to_head(viewer, opened, press)


def check_nothing_is_rated_behind_another_tab(viewer, opened, qtbot):
    canvas, entry = viewer.window._qt_viewer.canvas.native, opened.session.current
    viewer.window.add_dock_widget(QLabel("in front"), tabify=True).raise_()
    qtbot.wait_until(lambda: opened.visibleRegion().isEmpty())
    QTest.keyClick(canvas, "F")
    assert opened.session.current is entry
    assert opened.message.text == "F did nothing: the review was out of sight."
    qtbot.wait_until(lambda: not opened.visibleRegion().isEmpty())


def check_keys_do_not_reach_a_persons_own_layer(viewer, opened, qtbot):
    points = viewer.add_points(np.zeros((2, 3)), name="lesion")
    points.selected_data = {0, 1}
    viewer.layers.selection.active = points
    qtbot.wait_until(lambda: viewer.layers.selection.active in opened.canvas.grid.layers)
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key_Backspace)
    assert len(points.data) == 2
    assert opened.message.text == "There is nothing to take back."
    for each in opened.canvas.grid.layers:  # by a person
        viewer.layers.remove(each)
    viewer.layers.selection.active = points
    qtbot.wait_until(lambda: viewer.layers.selection.active is None)
    assert opened.message.text == "Leave the review to see “lesion”."
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key_Backspace)
    assert len(points.data) == 2
    viewer.layers.remove(points)
    opened.canvas.draw()


def check_the_status_line_is_of_what_is_seen(viewer, opened, press, qtbot):
    viewer.mouse_over_canvas = True
    viewer.cursor.position = viewer.dims.point
    for key in ("N", "N", "B"):
        press(key)
        subject = opened.session.current.subject
        qtbot.wait_until(lambda of=subject: of in str(viewer.status))
    viewer.mouse_over_canvas = False


def check_values_are_those_of_the_subject(opened, press):
    def check():
        number = int(opened.canvas.shown.subject[-2:])
        scan, prediction, b0, doubt = (
            np.asarray(layer.data) for layer in opened.canvas.grid.layers
        )
        assert np.nanmax(scan) == pytest.approx(0.5, abs=0.002)
        assert np.nanmax(prediction) == pytest.approx(0.5 + number / 100, abs=0.002)
        assert np.isnan(scan).sum() == np.isnan(b0).sum() > 100  # the outline
        assert np.nanmax(doubt) == pytest.approx(5e-3, rel=0.02)

    check()
    press("N", "N", "N")
    assert opened.canvas.shown.subject != "sub-03"
    check()
    press("B")
    check()


def check_contrast_is_one_for_all(opened, press):
    limits = [layer.contrast_limits for layer in opened.canvas.grid.layers]
    press("N", "N")
    assert [layer.contrast_limits for layer in opened.canvas.grid.layers] == limits
    assert limits[0] == limits[1]


def check_place_and_plane_stay_from_head_to_head(viewer, opened, press):
    press("C", Qt.Key_Right, Qt.Key_Right)
    assert opened.canvas.grid.plane == "coronal"
    point, zoom = viewer.dims.point, viewer.scene.camera.zoom
    viewer.scene.camera.zoom = 2 * zoom
    press("N")
    assert opened.canvas.grid.plane == "coronal"
    assert viewer.dims.point == point
    assert viewer.scene.camera.zoom == 2 * zoom


def check_the_worst_voxel_is_gone_to(viewer, opened, press):
    press("W")
    x, y, z = AFFINE[:3, :3] @ WORST
    assert viewer.dims.point[-3:] == pytest.approx((z, -y, -x))
    assert "expected error" in opened.message.text


def check_flicker_changes_places_while_the_key_is_held(viewer, opened):
    canvas = viewer.window._qt_viewer.canvas.native
    before = names(opened)
    QTest.keyPress(canvas, "H")
    assert names(opened) == [before[1], before[0], *before[2:]]
    assert np.nanmax(opened.canvas.grid.layers[0].data) == pytest.approx(0.53, abs=0.002)
    QTest.keyRelease(canvas, "H")
    assert names(opened) == before


def check_maps_in_turn(opened, press):
    press("M")
    assert names(opened)[0] == "sub-03 ge_st · colour FA"
    assert opened.canvas.grid.layers[0].rgb
    press("M")
    assert names(opened)[0] == "sub-03 ge_st · FA"
    assert np.nanmax(opened.canvas.grid.layers[0].data) == pytest.approx(0.5, abs=0.005)
    press("M")
    assert names(opened)[0] == "sub-03 ge_st · SH average"


@pytest.mark.slow
def test_blind_tells_neither_names_nor_sides(begin, predictions, press):
    review = begin(predictions, blind=True, roles=True)
    seen = " ".join(
        [
            *names(review),
            review.judging.title.text(),
            review.judging.known.text(),
            *(cell.text + cell.tip for row in review.list.model.rows for cell in row),
            review.viewer.canvas.overlays["napari_msp_legend"].text,
        ]
    )
    for word in ("sub-", "ge_st", "prisma", "MSP", "input", "SNR"):
        assert word not in seen
    assert len(review.list.model.headers) == 2
    first, second = names(review)[:2]
    assert first.endswith("A · SH average")
    assert second.endswith("B · SH average")
    press("P")
    assert all(each.blind for each in table(predictions).values())


@pytest.mark.slow
def test_what_is_not_seen_yet_is_not_rated(opened, predictions):
    from napari_msp.ui.review.keys import key_of

    opened.canvas.shown = None
    opened.act("pass")
    assert key_of("pass") == "P"
    assert "is not seen yet" in opened.message.text
    assert not (predictions / "review" / "rater-anna_ratings.tsv").exists()


@pytest.mark.slow
def test_a_damaged_map_is_said_and_the_rest_goes_on(review, predictions, qtbot, press, settle):
    (bad,) = predictions.glob("review/maps/sub-03/*Msp_model-sh_param-average_dwimap.nii.gz")
    bad.write_bytes(bad.read_bytes()[:-30])
    review.form.folder.choose(predictions)
    review.form.rater.setText("anna")
    qtbot.mouseClick(review.form.button, Qt.LeftButton)
    qtbot.wait_until(lambda: "cannot be read" in review.message.text)
    QTest.keyClick(review.list.table, "F")  # that it cannot be seen is a reason
    qtbot.wait_until(lambda: len(table(predictions)) == 1)
    assert review.session.current.subject != "sub-03"
    settle()
    press("P")
    assert len(table(predictions)) == 2
    settle()
    assert any(layer.visible for layer in review.canvas.grid.layers)
    review.go_to(review.session.review["sub-03/ses-ge/dwi/" + bad.name.partition("_model")[0]])
    assert not any(layer.visible for layer in review.canvas.grid.layers)  # another head's
    QTest.keyClick(review.list.table, "P")
    assert table(predictions)["sub-03"].verdict == "fail"
    press("N")
    assert all(layer.visible for layer in review.canvas.grid.layers)


@pytest.mark.slow
def test_a_folder_without_predictions_is_refused_in_words(review, tmp_path, qtbot):
    review.form.folder.choose(tmp_path)
    review.form.rater.setText("anna")
    qtbot.mouseClick(review.form.button, Qt.LeftButton)
    qtbot.wait_until(lambda: "no prediction" in review.form.rows.said("folder"))
    assert review.session is None


@pytest.mark.slow
def test_the_list_is_narrowed_and_the_next_one_follows(opened, press, qtbot):
    opened.list.states.setCurrentIndex(1)
    opened.list.states.activated.emit(1)
    assert len(opened.session.rows) == 9
    press("P", "P")
    assert len(opened.session.rows) == 7
    assert opened.session.row == 0
    QTest.keyClicks(opened.list.text, "sub-0")
    assert len(opened.session.rows) == 7
    QTest.keyClicks(opened.list.text, "9")
    assert [each.subject for each in opened.session.rows] == ["sub-09"]
