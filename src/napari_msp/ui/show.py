"""Open napari with the demo's result, laid out as the paper's Fig. 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msp.scan import Scan, load_scan
from napari_msp.ui.harmonize.form import first_target
from napari_msp.ui.layers import make_layer, scan_layers
from napari_msp.ui.preferences import PLUGIN

if TYPE_CHECKING:
    import napari

    from napari_msp.demo import DemoResult


def show_demo(result: DemoResult) -> None:
    """Open the viewer and wait until it is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-msp: a simulated head, harmonized"), result)
    napari.run()


def open_demo(viewer: napari.Viewer, result: DemoResult) -> None:
    """Add the scan and the predictions of one target, and compare them with the truth."""
    scan, predictions = demo_scans(result)
    for each in (scan, *predictions):
        for data in scan_layers(each):
            viewer.add_layer(make_layer(data))
    _, compare = viewer.window.add_plugin_dock_widget(PLUGIN, "Compare")
    compare.compare_predictions(predictions)


def demo_scans(result: DemoResult) -> tuple[Scan, list[Scan]]:
    """Give the scan, and what each model predicts from it for one target."""
    scan = load_scan(result.scan)
    (shown,) = first_target([each.target for each in result.targets], scan.platform)
    chosen = next(each for each in result.targets if each.target == shown)
    return scan, [load_scan(path) for path in chosen.predictions.values()]
