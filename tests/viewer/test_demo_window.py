"""The demo's window: Fig. 3 of its models, with the widget that made it beside."""

from pathlib import Path

import numpy as np
from patterns import Canvas
from qtpy.QtWidgets import QDockWidget

from napari_msp.demo import DemoResult, DemoTarget
from napari_msp.provenance import Provenance
from napari_msp.scan_sources import load_scan
from napari_msp.signal.sh_image import write_sh
from napari_msp.ui.compare.widget import Compare
from napari_msp.ui.sample_data import open_demo


def test_the_demo_opens_as_figure_3(viewer, heads, tmp_path, qtbot, pixels):
    scan, truth = (
        next(heads.glob(f"sub-01/ses-{platform}/dwi/*_dwi.nii.gz")) for platform in ("ge", "prisma")
    )
    predictions = {}
    for model, source in (("DIQT", scan), ("MSP", truth)):
        predictions[model] = tmp_path / f"sub-01_rec-{model.lower()}_dwimap.nii.gz"
        by = Provenance("prisma_st", "ge_st", title=model)
        write_sh(predictions[model], load_scan(source).sh, by.to_sidecar())
    target = DemoTarget("prisma_st", truth, predictions, Path(), Path())
    open_demo(viewer, DemoResult(scan, [target]))
    docks = viewer.window._qt_window.findChildren(QDockWidget)
    (compare,) = (each for dock in docks for each in dock.findChildren(Compare))
    qtbot.wait_until(lambda: not compare.comparing.running, timeout=20_000)
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "sub-01 prisma_st · SH average",
        "sub-01 DIQT · SH average",
        "sub-01 MSP · SH average",
        "sub-01 ge_st · SH average",
        "sub-01 DIQT · MSE",
        "sub-01 MSP · MSE",
    ]
    canvas = Canvas(viewer, pixels())
    # The made-up MSP is the truth itself: equal pictures, and no error.
    image = load_scan(truth).sh
    seen, predicted = canvas.seen(0, 0, image), canvas.seen(0, 2, image)
    assert seen.std() > 0.1
    assert np.abs(seen - predicted).mean() < 0.01
    assert canvas.seen(1, 1, image).max() > 0.5
    beside_letters = canvas.seen(1, 2, image)[1:-1, 1:-1]
    assert beside_letters.max() < 0.03  # the lowest of inferno
