"""Open napari with the demo's result, laid out as the paper's Fig. 3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from napari_msp.demo import DemoResult
from napari_msp.ui.layers import image_layers, scan_layers
from napari_msp.ui.loading.load import load_scan, load_sh
from napari_msp.ui.preferences import PLUGIN
from napari_msp.ui.records import Record

SHOWN = "prisma_st"
"""Target that is opened; the figures show all of them."""


def show_demo(result: DemoResult) -> None:
    """Open the viewer and wait until it is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-msp: a simulated head, harmonized"), result)
    napari.run()


def open_demo(viewer: Any, result: DemoResult) -> None:
    """Add the scan and the predictions of one target, and compare them with the truth."""
    from napari.layers import Layer

    scan, predictions = demo_records(result)
    for layer in [*scan_layers(scan), *(each for p in predictions for each in image_layers(p))]:
        viewer.add_layer(Layer.create(*layer))
    _, compare = viewer.window.add_plugin_dock_widget(PLUGIN, "Compare")
    compare.compare_predictions(predictions)


def demo_records(result: DemoResult) -> tuple[Record, list[Record]]:
    """Give the scan, and what each model predicts from it."""
    chosen = next((each for each in result.targets if each.target == SHOWN), result.targets[0])
    scan = load_scan(result.scan)
    return scan, [
        replace(
            load_sh(path),
            name=f"{model} {chosen.target}",
            label=model,
            siblings=scan.siblings,
            source=scan,
        )
        for model, path in chosen.predictions.items()
    ]
