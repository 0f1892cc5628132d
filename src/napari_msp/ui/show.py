"""Open napari with the demo's result, laid out like the paper's Fig. 3."""

from typing import Any

import numpy as np

from napari_msp.demo import SUBJECT, DemoResult, DemoTarget
from napari_msp.evaluation.sources import read_source
from napari_msp.signal.maps import sh_average
from napari_msp.ui.layers import LayerData, error_layer, sh_average_layer

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
    truth = read_source(target.truth).image
    scan = read_source(result.scan).image
    predictions = {name: read_source(path).image for name, path in target.predictions.items()}
    true_map = sh_average(truth)
    low, high = np.percentile(true_map[truth.mask], [1, 99])
    limits = (float(low), float(high))
    maps = {name: _on(sh_average(image), image, truth) for name, image in predictions.items()}
    errors = [np.square(each - true_map)[truth.mask] for each in maps.values()]
    limit = float(np.percentile(np.concatenate(errors), 98))
    return [
        sh_average_layer(f"{SUBJECT} {target.target}", truth, limits),
        *(sh_average_layer(f"{SUBJECT} {n}", image, limits) for n, image in predictions.items()),
        sh_average_layer(f"{SUBJECT} ge_st", scan, limits),
        *(
            error_layer(f"{SUBJECT} {name}", values, true_map, truth, truth.mask, limit)
            for name, values in maps.items()
        ),
    ]


def _on(values: Any, image: Any, truth: Any) -> Any:
    """Reorder a map of `image` as `truth` is stored; their canonical voxels are the same."""
    return truth.grid.to_stored(image.grid.to_canonical(values))
