"""What the Load button starts. No Qt."""

from __future__ import annotations

from napari_msp.ui.background import Control
from napari_msp.ui.harmonizing.prediction_layers import colour_fa_in_slabs
from napari_msp.ui.layers import LayerData, make_layer, mask_layer, scan_layers
from napari_msp.ui.loading.load import load_scan
from napari_msp.ui.loading.scan_choice import Findings


def load_layers(findings: Findings, with_mask: bool, control: Control) -> list[LayerData]:
    """Load a scan that was found ready, and give its layers from the bottom up.

    Raises
    ------
    UserError
        When a file cannot be used after all.
    Cancelled
        Soon after it was cancelled.
    """
    assert findings.scan is not None
    choice, say = findings.choice, control.say
    record = load_scan(
        findings.scan, choice.b_value, findings.mask, choice.bval, choice.bvec, say=say
    )
    say("Making maps")
    layers = scan_layers(record, colour_fa_in_slabs(record.image, control.check))
    if with_mask:
        layers.append(mask_layer(record))
        make_layer(
            layers[-1]
        )  # the first of a session compiles code: better here than in the window
    return layers
