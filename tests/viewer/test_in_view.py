"""Heads come into view, and stay there when the canvas gets another size."""

import gc
from dataclasses import replace
from weakref import ref

import numpy as np
from patterns import head, named
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication

from napari_msp.learning.events import Previewed
from napari_msp.signal.maps import sh_average
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.docks import letter
from napari_msp.ui.layers import make_layer, map_layer
from napari_msp.ui.shared import shared_by
from napari_msp.ui.train.preview_layers import (
    ANOTHER_HEAD,
    VIEW,
    PreviewGrid,
    PreviewLayers,
    PreviewPicture,
)
from napari_msp.ui.train.run_view import RunView


def shown(shift=(0.0, 0.0, 0.0), **options):
    """A layer of a head that lies some mm to the right, in front and above."""
    image, affine = head(), head().affine.copy()
    affine[:3, 3] += shift
    scan = named(replace(image, affine=affine), "ge_st")
    return make_layer(map_layer(scan, "SH average", sh_average(scan.sh), **options))


def test_a_head_that_the_slice_misses_is_gone_to(model, qtbot):
    letter(model)
    model.add_layer(shown())
    here = model.dims.point
    model.add_layer(shown((4, 0, 0)))
    model.add_layer(shown((0, 0, 500), visible=False))
    qtbot.wait(1)
    assert model.dims.point == here
    there = model.add_layer(shown((0, 0, 60)))
    qtbot.wait_until(lambda: model.dims.point != here)
    low, high = there.extent.world[:, 0]
    assert low <= model.dims.point[0] <= high
    assert model.dims.point[1:] == here[1:]
    centre = model.scene.camera.center
    model.add_layer(shown((5000, 0, 60)))
    qtbot.wait_until(lambda: model.scene.camera.center != centre)


def test_what_happened_while_somebody_had_the_canvas_is_caught_up_with(model, qtbot):
    letter(model)
    model.add_layer(shown())
    qtbot.wait(1)
    here, zoom = model.dims.point, model.scene.camera.zoom
    shared_by(model).take("the review")
    model.canvas.size = tuple(np.array(model.canvas.size) // 2)
    there = model.add_layer(shown((0, 0, 60)))
    qtbot.wait(1)
    assert (model.dims.point, model.scene.camera.zoom) == (here, zoom)
    shared_by(model).release()
    low, high = there.extent.world[:, 0]
    assert low <= model.dims.point[0] <= high
    assert model.scene.camera.zoom < zoom


def test_a_head_that_comes_ends_the_grid_of_previews(model):
    grid = shared_by(model).one(PreviewGrid)
    preview = model.add_layer(shown())
    for somebody in ("the review", ""):
        shared_by(model).take(somebody)
        grid.lay_out()
        model.add_layer(shown(visible=False))
        model.add_image(np.ones((4, 30, 30)))
        come = model.add_layer(shown())
        assert model.canvas.grid.enabled == grid.laid_out == bool(somebody)
        assert preview.visible == bool(somebody)
    assert [each for each in model.layers if each.visible] == [come]


def test_pictures_of_a_run_make_way_for_a_head_to_its_end(model, qtbot):
    def learn(target):
        layer = map_layer(named(head(), target), "SH average", sh_average(head()), view=VIEW)
        event = Previewed(f"shresnet {target}", 0, 0, target, "no.nii.gz")
        previews._plan(PreviewPicture(event, head(), layer, None))
        qtbot.wait_until(lambda: not previews._changes.busy)

    told, run, view = [], QObject(), RunView()
    qtbot.addWidget(view)
    previews = PreviewLayers(model, "sub-01", {}, run)
    previews.kept_out.connect(told.append)
    previews.kept_out.connect(view.say_unseen)
    learn("prisma_st")
    come = model.add_layer(shown())
    for target in ("prisma_st", "prisma_sa"):
        learn(target)
        assert [each for each in model.layers if each.visible] == [come]
        assert told == [ANOTHER_HEAD]
        assert "A head was opened" in view.unseen.text
    previews.finish()
    assert (told, view.unseen.text) == ([ANOTHER_HEAD, ""], "")
    previews.stop()
    previews = PreviewLayers(model, "sub-01", {}, run)  # of the next run
    learn("prisma_st")
    assert not come.visible
    previews.stop()


def test_a_viewer_that_nobody_has_is_forgotten():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    letter(viewer)
    crosshair_of(viewer)
    viewer.add_layer(shown())
    known = ref(viewer)
    del viewer
    QApplication.sendPostedEvents()
    gc.collect()
    assert known() is None


def test_a_head_that_was_fitted_is_fitted_to_another_canvas(model, qtbot):
    letter(model)
    model.add_layer(shown())
    qtbot.wait(1)
    zoom = model.scene.camera.zoom
    model.canvas.size = tuple(np.array(model.canvas.size) // 2)
    assert model.scene.camera.zoom < zoom
    model.scene.camera.zoom = 3.0
    model.canvas.size = tuple(np.array(model.canvas.size) * 3)
    assert model.scene.camera.zoom == 3.0
