"""What a layer shows: records that travel in a layer's metadata, so that no registry is needed.

Delete the layers of a scan and nothing else remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.signal.sh_image import SHImage

if TYPE_CHECKING:
    from napari_msp.data.acquisition import Acquisition
    from napari_msp.inference.harmonize import Prediction
    from napari_msp.model_file import Model

KEY = "napari_msp"
"""Where a layer's metadata hold what it shows."""


@dataclass(frozen=True, eq=False)
class Record:
    """An SH image with a name: a scan, or what a model predicted from one.

    Attributes
    ----------
    subject
        Such as "sub-01"; the file's stem where it names none.
    name
        The platform of a scan ("ge_st"), or a prediction's model and target ("MSP prisma_st").
    image
        In stored order.
    acquisition
        Of a scan.
    siblings
        Scans of the same subject on other platforms, by platform: possible truths.
    label
        A prediction's model alone, such as "MSP".
    model, prediction
        Of a prediction made here; its kept stages are in `prediction`.
    source
        The scan that a prediction was made from.
    """

    subject: str
    name: str
    image: SHImage
    acquisition: Acquisition | None = None
    siblings: Mapping[str, Path] = field(default_factory=dict)
    label: str = ""
    model: Model | None = None
    prediction: Prediction | None = None
    source: Record | None = None

    @property
    def owner(self) -> str:
        """First part of the layers' names, such as "sub-01 ge_st"."""
        return f"{self.subject} {self.name}".strip()


@dataclass(frozen=True, eq=False)
class Shown:
    """What one layer shows.

    Attributes
    ----------
    record
        Whose map it is.
    quantity
        The map, such as "SH average"; last part of the layer's name.
    view
        The view that made the layer and may replace it; empty for layers of the user's.
    """

    record: Record
    quantity: str
    view: str = ""


def shown_by(layer: Any) -> Shown | None:
    """Give what a layer shows; None for a layer of somebody else's."""
    shown = layer.metadata.get(KEY)
    return shown if isinstance(shown, Shown) else None


def titled(records: Iterable[Record]) -> dict[str, Record]:
    """Give each record a title of its own."""
    titles: dict[str, Record] = {}
    for record in records:
        title, number = record.owner, 2
        while title in titles:
            title, number = f"{record.owner} ({number})", number + 1
        titles[title] = record
    return titles


def records_of(layers: Iterable[Any]) -> list[Record]:
    """Give the record behind every layer, each once, in the order of the layers."""
    found = {id(shown.record): shown.record for layer in layers if (shown := shown_by(layer))}
    return list(found.values())
