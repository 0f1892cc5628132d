"""What a network predicts while it learns, read from a run's previews. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_msp.learning.events import Previewed
from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage, read_sh
from napari_msp.ui.background import Control
from napari_msp.ui.diagram.parts import TITLES
from napari_msp.ui.layers import LayerData, map_layer
from napari_msp.ui.loading.load import load_scan
from napari_msp.ui.records import Record

QUANTITY = "SH average"

VIEW = "train"
"""Marks layers that later previews refresh."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A preview that was read.

    Attributes
    ----------
    image
        The prediction.
    layer
        Its SH average, with the contrast of the truth where that was asked for.
    truth
        The truth's; None where it was not asked for.
    """

    event: Previewed
    image: SHImage
    layer: LayerData
    truth: LayerData | None


def read_picture(event: Previewed, subject: str, truth: Path | None, control: Control) -> Picture:
    """Read a preview, and the scan that it is to become.

    Raises
    ------
    UserError
        When either cannot be read.
    """
    control.check()
    image = read_sh(Path(event.path))
    shown = limits = None
    if truth is not None:
        scan = load_scan(truth, image.b_value)
        shown = map_layer(scan, QUANTITY, sh_average(scan.image))
        limits = shown[1]["contrast_limits"]
    record = Record(subject, f"{event.target} while learning", image)
    layer = map_layer(record, QUANTITY, sh_average(image), limits=limits, view=VIEW)
    return Picture(event, image, layer, shown)


def how_far(event: Previewed) -> str:
    """Say how far the network of a preview has come, such as "prisma_st: untrained"."""
    if event.epoch == 0:
        return f"{event.target}: untrained"
    kind = event.phase.split(" ")[0]
    return f"{event.target}: {TITLES.get(kind, kind)}, epoch {event.epoch}, step {event.step}"
