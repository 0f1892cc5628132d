"""Three planes through the crosshair: the right slices, letters, and clicks that move it."""

from dataclasses import replace

import numpy as np
import pytest
from patterns import SHAPE, SIZE, head, measured, named, predicted
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.compared import mixed
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.layers import make_layer, map_layer


@pytest.fixture
def compare(viewer, open_widget, qtbot):
    truth, scan = measured("prisma_st", "front right"), measured("ge_st", "back left")
    made = predicted("MSP", "front left", scan)
    for each in (truth, scan, made):
        values = sh_average(each.sh)
        viewer.add_layer(make_layer(map_layer(each, "SH average", values)))
    return beside_each_other(open_widget("Compare"), made, qtbot)


def beside_each_other(widget, made, qtbot):
    """Compare a prediction, and turn to its planes."""
    widget.compare_predictions([made])
    qtbot.wait_until(lambda: not widget.comparing.running)
    widget.tabs.setCurrentWidget(widget.tabs.widget(3))
    qtbot.wait(50)
    return widget


def letters(view):
    return view._sides.left + view._sides.right + view._sides.top + view._sides.bottom


def grey(view):
    image = view._image
    pixels = np.array(
        [
            [image.pixelColor(x, y).red() for x in range(image.width())]
            for y in range(image.height())
        ]
    )
    return pixels / 255


def test_planes_follow_the_crosshair_and_move_it(viewer, compare, qtbot):
    """One comparison for both: to make it takes longer than to look."""
    check_planes_cut_where_the_crosshair_is(viewer, compare, qtbot)
    check_a_choice_is_kept_when_its_title_changes(compare, qtbot)
    check_a_click_moves_the_crosshair_of_all(viewer, compare, qtbot)


def check_planes_cut_where_the_crosshair_is(viewer, compare, qtbot):
    planes = compare.planes
    assert planes.image.currentText() == "truth prisma_st"
    assert planes.beside.currentText() == "MSP"
    # The middle of the square at the right and in front, in mm along S, P and L.
    crosshair_of(viewer).put((0.0, -28.0, -20.0))
    qtbot.wait(100)
    truth, made = planes.views
    assert [letters(view) for view in truth.values()] == ["RLAP", "RLSI", "APSI"]
    whole = {"axial": SHAPE[1::-1], "coronal": SHAPE[2::-2], "sagittal": SHAPE[:0:-1]}
    for plane, view in truth.items():
        seen = grey(view)
        assert seen.shape == tuple(whole[plane])
        down, right = view._cross
        i, j = int(down * seen.shape[0]), int(right * seen.shape[1])
        assert seen[i, j] > 0.9  # the truth's square is there
        assert grey(made[plane])[i, j] < 0.3  # the prediction's is on the other side
    # In the coronal plane the square stands at the screen's left: the patient's right.
    assert truth["coronal"]._cross[1] < 0.5


def check_a_choice_is_kept_when_its_title_changes(compare, qtbot):
    planes, shown = compare.planes, compare.comparing.compared
    cells = compare.comparing.maps["sh_average"].cells
    # One before it in the list, to which a lost choice would fall.
    both = {"DIQT": shown.comparison.predictions["MSP"], **shown.comparison.predictions}
    shown = replace(
        shown,
        predictions={"DIQT": shown.predictions["MSP"], **shown.predictions},
        comparison=replace(shown.comparison, predictions=both),
    )
    for part in (mixed(0.22), mixed(0.5), None):
        image = shown.comparison.predictions["MSP"].image
        planes.follow(shown.with_prediction("MSP", image, part), cells)
        assert planes.image.currentText() == "truth prisma_st"
        assert planes.beside.currentText() == f"MSP {part.words}" if part else "MSP"
    planes.beside.setCurrentText("nothing")
    planes.follow(shown, cells)
    assert planes.beside.currentText() == "nothing"
    # What is gone is not replaced by what is seen already.
    planes.image.setCurrentText("MSP")
    planes.beside.setCurrentText("truth prisma_st")
    without = replace(shown, truth=None, comparison=replace(shown.comparison, truth=None))
    planes.follow(without, cells)
    assert planes.image.currentText() == "MSP"
    assert planes.beside.currentText() == "DIQT"
    planes.image.setCurrentText("input ge_st")
    planes.follow(shown, cells)
    planes.image.setCurrentText("truth prisma_st")
    planes.beside.setCurrentText("MSP")


def check_a_click_moves_the_crosshair_of_all(viewer, compare, qtbot):
    view = compare.planes.views[0]["axial"]
    box = view._box()
    spot = QPoint(round(box.left() + 0.75 * box.width()), round(box.top() + 0.25 * box.height()))
    QTest.mouseClick(view, Qt.LeftButton, pos=spot)
    qtbot.wait(50)
    _, behind, left = crosshair_of(viewer).point
    assert crosshair_of(viewer).shown
    assert left == pytest.approx(0.25 * SHAPE[0] * SIZE, abs=SIZE)
    assert behind == pytest.approx(-0.25 * SHAPE[1] * SIZE, abs=SIZE)
    compare.leave()
    assert view._sides is None


def test_a_click_in_the_lower_row_is_meant_in_its_own_image(viewer, open_widget, qtbot):
    whole, part = head("front right"), np.s_[6:, 3:]
    affine = whole.affine.copy()
    affine[:3, 3] += [6 * SIZE, 3 * SIZE, 0]  # nothing of what is to the left and behind
    cropped = SHImage(whole.coefficients[part], affine, whole.mask[part], whole.b_value)
    scan = measured("ge_st", "back left")
    made, truth = predicted("MSP", "front left", scan), named(cropped, "prisma_st")
    for each in (truth, scan, made):
        viewer.add_layer(make_layer(map_layer(each, "SH average", sh_average(each.sh))))
    planes = beside_each_other(open_widget("Compare"), made, qtbot).planes
    planes.image.setCurrentText("input ge_st")
    planes.beside.setCurrentText("truth prisma_st")
    assert planes.views[0]["axial"]._size != planes.views[1]["axial"]._size
    for views in planes.views:
        for view in views.values():
            view.clicked.emit(0.3, 0.3)
            qtbot.wait(50)
            # Slices are whole: half of one, of five.
            assert view._cross == pytest.approx((0.3, 0.3), abs=0.11)
