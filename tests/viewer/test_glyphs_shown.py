"""Glyphs over a comparison's cells: where their voxels are, and never of another slice or image."""

import numpy as np
from patterns import SIZE, Canvas, head, measured, named, predicted
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_msp.signal.maps import sh_average
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.layers import make_layer, map_layer


def test_glyphs_lie_on_their_voxels(viewer, open_widget, qtbot, pixels):
    scan = measured("ge_st", "back left")
    made = [predicted("MSP", "front left", scan, square="z")]
    truth = named(head("front left", "x", rest="z"), "prisma_st")
    for each in (truth, scan, *made):
        viewer.add_layer(make_layer(map_layer(each, "SH average", sh_average(each.sh))))
    compare = open_widget("Compare")
    compare.compare_predictions(made)
    qtbot.wait_until(lambda: not compare.comparing.running)
    crosshair_of(viewer).put((0.0, -28.0, 20.0))  # in the square at the front and the left
    crosshair_of(viewer).show(False)

    def drawn():
        glyphs = compare.glyphs
        qtbot.wait_until(lambda: glyphs.count > 0 and not glyphs.drawing)
        qtbot.wait(50)
        canvas = Canvas(viewer, pixels())
        cells = (canvas.seen(0, column, truth.sh) for column in (0, 1))
        return [np.where(np.ptp(each, axis=-1) > 0.15, each.argmax(axis=-1), -1) for each in cells]

    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_window.activateWindow()
    QTest.keyClick(canvas, Qt.Key_Q)
    assert compare.form.glyph_kind == "odf"
    of_truth, of_msp = drawn()
    # Fibres along z are seen from their end, in the middle of their voxel: blue.
    assert (of_truth[:8, 5:-4] == 2).all()
    assert (of_msp[:4, -4:] == 2).all()
    assert (of_msp[4:8, 3:-4] == -1).all()  # nothing has a direction there
    assert (of_truth[-4:] == -1).all()  # too far from the crosshair
    assert "glyphs: ODF" in viewer.canvas.overlays["napari_msp_legend"].text
    # Truth in place of the prediction, as long as the key is held.
    QTest.keyPress(canvas, Qt.Key_G)
    np.testing.assert_array_equal(*drawn())
    QTest.keyRelease(canvas, Qt.Key_G)
    np.testing.assert_array_equal(drawn()[1], of_msp)
    # Another slice is never seen under the glyphs of this one.
    compare.grid.step(1)
    assert compare.glyphs.count == 0
    np.testing.assert_array_equal(drawn()[0], of_truth)
    # Of fibres to the left and right, the ends are red: half a voxel aside.
    canvas = Canvas(viewer, pixels())
    aside = round(SIZE * viewer.scene.camera.zoom * 0.3)
    canvas.picture = np.roll(canvas.picture, aside, axis=1)
    ends = canvas.seen(0, 0, truth.sh)[:4, -4:]
    assert (ends[..., 0] > 1.5 * ends[..., 1:].max(axis=-1)).all()
    viewer.layers.clear()  # as a person does to begin with something else
    qtbot.wait_until(lambda: not compare.grid.active)
    assert compare.glyphs.count == 0
