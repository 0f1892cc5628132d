"""Open napari with the demo's result, laid out like the paper's Fig. 3."""

from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.demo import DemoResult, DemoTarget
from napari_msp.demo_head import SUBJECT
from napari_msp.evaluation.sources import read_source
from napari_msp.signal.maps import sh_average, squared_error
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.layers import LayerData, map_layer, window_of
from napari_msp.ui.records import Record

SHOWN = "prisma_st"
"""Target that is opened; the figures show all of them."""


def show_demo(result: DemoResult) -> None:
    """Open the viewer and wait until it is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-msp: a simulated head, harmonized"), result)
    napari.run()


def open_demo(viewer: Any, result: DemoResult) -> None:
    """Add the layers of one target to a viewer, in a grid of two rows.

    | ground truth | DIQT        | MSP        |
    | input scan   | MSE of DIQT | MSE of MSP |
    """
    chosen = next((each for each in result.targets if each.target == SHOWN), result.targets[0])
    layers = figure_layers(result, chosen)
    for data, options, _ in layers:
        viewer.add_image(data, **options).name_overlay.visible = True
    grid = viewer.canvas.grid
    grid.enabled = True
    grid.shape = (2, len(layers) // 2)
    viewer.reset_view()


def figure_layers(result: DemoResult, target: DemoTarget) -> list[LayerData]:
    """Give the cells row by row."""
    truth = Record(SUBJECT, target.target, read_source(target.truth).image)
    scan = Record(SUBJECT, "ge_st", read_source(result.scan).image)
    predictions = [
        Record(SUBJECT, name, read_source(path).image) for name, path in target.predictions.items()
    ]
    true_map, mask = sh_average(truth.image), truth.image.mask
    limits = window_of(true_map[mask], (1, 99))
    errors = [
        squared_error(_on(sh_average(each.image), each.image, truth.image), true_map, mask)
        for each in predictions
    ]
    limit = float(np.percentile(np.concatenate([error[mask] for error in errors]), 98))
    images = [
        map_layer(each, "SH average", sh_average(each.image), limits=limits)
        for each in (truth, *predictions, scan)
    ]
    maps = [
        map_layer(each, "MSE", error, lattice=truth.image.lattice, mask=mask, limits=(0.0, limit))
        for each, error in zip(predictions, errors, strict=True)
    ]
    return [*images, *maps]


def _on(values: FloatArray, image: SHImage, truth: SHImage) -> FloatArray:
    """Reorder a map of `image` as `truth` is stored; their canonical voxels are the same."""
    return truth.grid.to_stored(image.grid.to_canonical(values))
