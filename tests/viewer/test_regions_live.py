"""Regions that are painted over a comparison: numbers follow, and every cell shows them."""

import numpy as np
from patterns import SIZE, Canvas, measured, predicted
from qtpy.QtWidgets import QApplication

from napari_msp.errors import UserError
from napari_msp.signal.maps import MAPS, sh_average
from napari_msp.ui.compare.compared import mixed
from napari_msp.ui.compare.regions_tab import PAINT
from napari_msp.ui.layers import make_layer, map_layer


def test_numbers_follow_the_brush(viewer, open_widget, qtbot, pixels):
    truth, scan = measured("prisma_st", "front left"), measured("ge_st", "back left")
    made = [predicted("MSP", "front right", scan)]
    for each in (truth, scan, *made):
        viewer.add_layer(make_layer(map_layer(each, "SH average", sh_average(each.sh))))
    compare = open_widget("Compare")
    compare.compare_predictions(made)
    qtbot.wait_until(lambda: not compare.comparing.running)
    regions, layers = compare.regions, list(compare.grid.layers)
    compare.tabs.setCurrentIndex(4)
    zoom = viewer.scene.camera.zoom
    regions.new.click()
    drawn = viewer.layers.selection.active
    assert drawn.visible
    assert not viewer.canvas.grid.enabled
    assert [each for each in layers if each.visible] == layers[:1]  # truth, to paint on
    assert drawn.mode == "paint"
    drawn.brush_size = 1
    viewer.scene.camera.zoom *= 5
    # Rows run to the back, columns to the left: truth's square is at the left and in front.
    for row in range(1, 5):
        for column in range(11, 15):
            drawn.paint((2, row, column), 3)

    def rows():
        found = regions.numbers
        return {} if found is None else {i: t.rows[0] for (i, _), t in found.tables.items()}

    qtbot.wait_until(lambda: "MSP" in rows() and rows()["MSP"].voxels == 16)
    values = {name: each.mean for name, each in rows().items()}
    bright, dark = (sh_average(truth.sh)[at] for at in ((1, 18, 2), (8, 8, 2)))
    np.testing.assert_allclose(values["truth prisma_st"], bright, rtol=1e-5)
    np.testing.assert_allclose([values["MSP"], values["input ge_st"]], dark, rtol=1e-5)
    np.testing.assert_allclose(rows()["MSP"].error, bright - dark, rtol=1e-4)
    assert rows()["MSP"].volume == 16 * SIZE**3
    assert (regions.words.text(), regions.words.isVisible()) == (PAINT, True)  # beside numbers
    # The histogram takes the height that is free: what is scrolled to has its least height.
    assert regions.histogram.geometry().bottom() < regions.height()
    is_scrolled = regions.height() > regions.parentWidget().height()
    assert not is_scrolled or regions.histogram.height() == regions.histogram.minimumHeight()
    regions.restyle()
    axes = [regions.histogram.getAxis(side) for side in ("left", "bottom")]
    assert [each.autoSIPrefixScale for each in axes] == [1, 1]  # a new theme scales no numbers
    regions.table.copy()
    assert QApplication.clipboard().text().count("\n") == 1 + 3
    # While other images are measured, those of before are greyed and cannot be saved.
    assert regions.save.isEnabled()
    shown = compare.comparing.compared
    changed = shown.with_prediction("MSP", truth.sh, mixed(0.3))
    regions.follow(changed, MAPS["sh_average"])
    assert "MSP" in rows()
    assert not regions.save.isEnabled()
    assert not regions.table.isEnabled()  # nor copied, as keys do not reach it
    qtbot.wait_until(regions.save.isEnabled)
    assert regions.table.isEnabled()
    np.testing.assert_allclose(rows()["MSP α=0.30"].mean, bright, rtol=1e-5)
    drawn.paint((2, 6, 8), 3)
    assert not regions.save.isEnabled()
    assert regions.table.isEnabled()
    drawn.paint((2, 6, 8), 0)
    regions.follow(shown, MAPS["sh_average"])
    qtbot.wait_until(regions.save.isEnabled)
    # Back in the comparison all cells show where it is, and no others.
    regions.draw.setChecked(False)
    assert viewer.canvas.grid.enabled
    assert (drawn.mode, drawn.visible) == ("pan_zoom", False)
    assert not regions.words.isVisible()
    assert viewer.scene.camera.zoom == zoom  # not that of the one image
    assert all(each.visible for each in compare.grid.layers)
    canvas = Canvas(viewer, pixels())
    for column in (0, 1):
        coloured = np.ptp(canvas.seen(0, column, truth.sh), axis=-1) > 0.1
        assert coloured[:4, -4:].any()
        assert not coloured[5:].any()
    # Close by, with the region across the left edge of each cell: the one before shows none of it.
    camera, (_, wide) = viewer.scene.camera, viewer.canvas.viewbox_size(viewer.layers)
    camera.zoom = 8.0
    row, column = drawn.data_to_world((2, 2.5, 12.5))[1:]
    camera.center = (0.0, row, column + wide / 2 / camera.zoom)
    canvas = Canvas(viewer, pixels())
    coloured = [np.ptp(canvas.cell(0, column), axis=-1) > 0.1 for column in (0, 1)]
    assert coloured[1][:, :40].any()
    assert not coloured[0][:, -60:].any()
    # Where one draws, other labels take the brush, and the plane may be turned.
    regions.draw.setChecked(True)
    regions.new.click()
    other = viewer.layers.selection.active
    assert other is not drawn
    assert (drawn.mode, drawn.visible) == ("pan_zoom", False)
    assert (other.mode, other.visible) == ("paint", True)
    assert regions.words.text() == PAINT
    regions.labels.setCurrentIndex(1)
    assert (drawn.mode, drawn.visible) == ("paint", True)
    assert (other.mode, other.visible) == ("pan_zoom", False)
    # Another map brings the comparison back, and nobody is told to paint any longer.
    compare.form.maps.setCurrentText("FA")
    qtbot.wait_until(lambda: not regions.draw.isChecked())
    assert viewer.canvas.grid.enabled
    assert (drawn.mode, drawn.visible) == ("pan_zoom", False)
    assert not regions.words.isVisible()
    regions.draw.setChecked(True)
    compare.grid.turn_to("coronal")
    regions.draw.setChecked(False)
    assert not compare.grid.fit.moved
    check_a_low_window_cuts_no_name(viewer, compare, qtbot)
    regions._fail(UserError("is amiss"))
    compare.leave()
    assert regions.message.text == ""
    assert drawn in viewer.layers
    check_labels_below_the_cells_may_be_deleted_with_them(viewer, compare, made, qtbot)


def check_labels_below_the_cells_may_be_deleted_with_them(viewer, compare, made, qtbot):
    compare.compare_predictions(made)
    compare.regions.labels.setCurrentIndex(1)
    qtbot.wait_until(compare.regions.save.isEnabled)
    drawn = compare.regions._layer
    viewer.layers.move(viewer.layers.index(drawn), 0)  # as if it had been opened before all else
    assert compare.grid.active
    assert viewer.layers[0] is drawn
    viewer.layers.clear()  # from above: it goes last
    qtbot.wait_until(lambda: not compare.grid.active)
    assert compare.regions.labels.count() == 1  # none


def check_a_low_window_cuts_no_name(viewer, compare, qtbot):
    viewer.window._qt_window.resize(1089, 629)
    table, page = compare.regions.table, compare.tabs.currentWidget()
    qtbot.wait_until(lambda: compare.regions.save.isEnabled())
    qtbot.wait_until(lambda: page.viewport().width() == compare.regions.width())
    items = [table.item(row, 0) for row in range(table.rowCount())]
    assert [each.text() for each in items] == ["label 3", "truth prisma_st", "input ge_st", "MSP"]
    for item in items:
        letters = table.fontMetrics().horizontalAdvance(item.text())
        assert table.visualItemRect(item).width() > letters, item.text()
    table.selectRow(0)
    compare.regions.table.copy()
    assert QApplication.clipboard().text().count("\n") == 1 + 3  # all of the region
    table.selectRow(3)
    compare.regions.table.copy()
    (_, copied, _) = QApplication.clipboard().text().split("\n")
    assert "MSP" in copied
