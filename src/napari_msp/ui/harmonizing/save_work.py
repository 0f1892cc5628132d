"""Write predictions that are in memory as files. No Qt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from napari_msp.errors import UserError
from napari_msp.ui.background import Control, Step
from napari_msp.ui.records import Record


@dataclass(frozen=True, eq=False)
class SaveRequest:
    """What is to be written where.

    Attributes
    ----------
    records
        Predictions made here.
    folder
        Made when it is missing.
    gradients
        Directions of the DWI: "target", "input" or a .bvec file.
    force
        Replace files that are there.
    """

    records: tuple[Record, ...]
    folder: Path
    gradients: str
    force: bool = False


@dataclass(frozen=True)
class Saved:
    """How it went.

    Attributes
    ----------
    written
        The DWI of each prediction.
    in_the_way
        DWIs that exist already; nothing was written then.
    """

    written: tuple[Path, ...] = ()
    in_the_way: tuple[Path, ...] = ()


def save_all(request: SaveRequest, control: Control) -> Saved:
    """Write each prediction's DWI, SH images and maps, see `napari-msp harmonize`.

    Nothing is written when any file is in the way, unless it is forced. Reports `Step`.

    Raises
    ------
    UserError
        When a scan has no file, the folder cannot be written to, or the table cannot be used.
    """
    from napari_msp.inference.outputs import save_prediction

    targets = _targets(request)
    in_the_way = tuple(path for path in targets if path.exists())
    if in_the_way and not request.force:
        return Saved(in_the_way=in_the_way)
    for done, (record, path) in enumerate(zip(request.records, targets, strict=True)):
        control.check()
        control.report(Step(f"Writing {record.owner}", done, len(targets)))
        assert record.prediction is not None
        save_prediction(
            record.prediction,
            path.parent,
            gradients=request.gradients,
            force=request.force,
        )
    return Saved(written=targets)


def _targets(request: SaveRequest) -> tuple[Path, ...]:
    """Name the DWI of each; models of one kind write into folders of their own."""
    from napari_msp.bids import prediction_stem

    stems = []
    for record in request.records:
        scan = record.source.acquisition if record.source else None
        if scan is None or scan.path is None or not (record.prediction and record.model):
            raise UserError(
                f"{record.owner}: its scan has no file to be named after; save the scan first"
            )
        stems.append(prediction_stem(scan.path, record.prediction.target, record.model.kind))
    alike = max(Counter(stems).values(), default=1) > 1
    paths = tuple(
        (request.folder / _folder_name(record.label) if alike else request.folder)
        / f"{stem}_dwi.nii.gz"
        for record, stem in zip(request.records, stems, strict=True)
    )
    for path, count in Counter(paths).items():
        if count > 1:
            raise UserError(f"{path}: {count} predictions have this name; save them one at a time")
    return paths


def _folder_name(label: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in label)
