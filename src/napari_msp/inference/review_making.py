"""Making of the data for reviews of predictions: small maps, and numbers that cost little.

Maps are made from memory during writing, or from files later; `review_maps` stores them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.masks import volume_of
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, Poll, UserError, stop_if
from napari_msp.image_files import COEFFICIENTS, ImageFile, map_beside
from napari_msp.inference.review_maps import (
    MadeFrom,
    ReviewImage,
    ReviewMaps,
    UncertaintyName,
    Without,
    has_review_maps,
    parameter_of,
    read_review_maps,
    write_review_maps,
)
from napari_msp.provenance import Provenance, source_path
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.maps import Maps
from napari_msp.signal.noise import signal_to_noise

if TYPE_CHECKING:
    from napari_msp.inference.prediction import Prediction


MEASURES_FIELD = "Measures"
"""Section of a prediction's sidecar."""


def maps_of_prediction(
    prediction: Prediction, truth: Scan | Without | None = None, cancelled: Poll | None = None
) -> dict[int | None, ReviewMaps]:
    """Make the maps of a prediction in memory, by shell; the key is None for a single shell.

    Parameters
    ----------
    prediction
        Result of `harmonize`.
    truth
        The target platform's scan of the same head, if there is one.
    """
    parts = prediction.by_shell()
    made: dict[int | None, ReviewMaps] = {}
    for shell, part in parts.items():
        name: UncertaintyName = "disagreement"
        uncertainty = part.disagreement
        if part.expected_error is not None:
            name, uncertainty = "expected error", part.expected_error
        sure = None if uncertainty is None else (name, uncertainty)
        own = shell if len(parts) > 1 else None
        made[own] = _maps(part.maps("sh"), prediction.source, truth, sure, cancelled)
    return made


def make_review_maps(files: MadeFrom, cancelled: Poll | None = None) -> Path:
    """Make the maps of a prediction from its files, and write them.

    Parameters
    ----------
    files
        The prediction, its DWI or its SH image; the scan, if None as its sidecar says; and the
        target platform's scan of the same head, if None the one in the scan's dataset.

    Returns
    -------
    Path of their sidecar, see `write_review_maps`.

    Raises
    ------
    UserError
        When the SH image is missing or cannot be read. An unreadable scan or truth is left out, and
        the maps' `notes` say why.
    Cancelled
        When `cancelled()` was true.
    """
    scan, truth, inside = files.scan, files.truth, files.prediction.parent
    image = ImageFile(files.stem, COEFFICIENTS)
    sources = image.in_shells(inside)
    if not sources:
        remedy = Advice("give a prediction")
        raise UserError("there is no such file", image.at(inside), remedy=remedy)
    made_by = load_scan(next(iter(sources.values()))).provenance
    if scan is None:
        uri = made_by.sources[0] if made_by and made_by.sources else ""
        scan = source_path(uri, files.dataset) or Without(not_there(uri))
    measured = open_beside(scan)
    if truth is None and isinstance(measured, Scan) and made_by is not None:
        truth = measured.siblings.get(made_by.target)
    known = open_beside(truth)
    maps: dict[int | None, ReviewMaps] = {
        shell: _maps(load_scan(file).maps("sh"), measured, known, _uncertainty(file), cancelled)
        for shell, file in sources.items()
    }
    files = replace(files, scan=scan, truth=truth)
    return write_review_maps(files, maps, about=about_prediction(made_by))


def open_review_maps(
    files: MadeFrom, shell: int | None = None, cancelled: Poll | None = None
) -> tuple[ReviewMaps, bool]:
    """Read the maps of a prediction, making them first if they are missing or stale.

    Parameters
    ----------
    files
        Files that the maps are made from.
    shell
        Shell, if there are several; None: the first.

    Returns
    -------
    maps : ReviewMaps
    made : bool
        Whether they were made by this call.
    """
    made = not has_review_maps(files)
    if made:
        make_review_maps(files, cancelled)
    return read_review_maps(files, shell), made


def not_there(uri: str) -> str:
    """Return a text that the scan named by a prediction's sidecar is not found."""
    return f"the scan it was predicted from was not found ({uri or 'no name'})"


def open_beside(path: Path | Without | None) -> Scan | Without | None:
    """Open a scan that is shown beside a prediction; why it is left out, if it cannot be read."""
    if path is None or isinstance(path, Without):
        return path
    try:
        return load_scan(path)
    except UserError as error:
        return Without(f"{path.name} is left out: {error.problem}")


def _uncertainty(coefficients: Path) -> tuple[UncertaintyName, FloatArray] | None:
    names: tuple[UncertaintyName, ...] = ("expected error", "disagreement")
    for name in names:
        path = map_beside(coefficients, parameter_of(name))
        if path is not None and path.exists():
            return name, read_voxels(open_nifti(path), path)
    return None


def about_prediction(made: Provenance | None) -> dict[str, Any]:
    """Describe the model and the software version that made a prediction."""
    if made is None:
        return {}
    model = {"File": made.model_file, "Sha256": made.model_sha256, "Title": made.title}
    return {"Target": made.target, "Model": model, "Sources": list(made.sources)}


def _maps(
    maps: Maps,
    scan: Scan | Without | None,
    truth: Scan | Without | None,
    uncertainty: tuple[UncertaintyName, FloatArray] | None,
    cancelled: Poll | None,
) -> ReviewMaps:
    """Assemble the review maps of one shell."""
    image = maps.image
    shown = (
        _image_at(scan, image.rescaled_from or image.b_value, cancelled),
        _image_at(truth, image.b_value, cancelled),
    )
    scan_image, truth_image = (each if isinstance(each, ReviewImage) else None for each in shown)
    stop_if(cancelled)
    acquisition = scan.acquisition if isinstance(scan, Scan) and scan_image is not None else None
    name, values = (None, None) if uncertainty is None else uncertainty
    return ReviewMaps(
        scan_image,
        review_image(maps),
        truth_image,
        values,
        name,
        None if acquisition is None else acquisition.b0,
        tuple(each.why for each in shown if isinstance(each, Without) and each.why),
    )


def _image_at(
    scan: Scan | Without | None, b_value: float | None, cancelled: Poll | None
) -> ReviewImage | Without | None:
    """Return the review image of a scan's shell, or why there is none."""
    stop_if(cancelled)
    if not isinstance(scan, Scan):
        return scan
    try:
        return review_image(scan.at_shell(b_value).maps("sh"))
    except UserError as error:
        name = scan.path.name if scan.path is not None else scan.owner
        return Without(f"{name} is left out: {error.problem}")


def review_image(maps: Maps) -> ReviewImage:
    """Take the review image from the maps of an image."""
    image = maps.image
    affine = np.asarray(image.affine)
    return ReviewImage.of(maps["sh_average"], maps["colour_fa"], image.mask, affine)


def mean_of(values: FloatArray) -> float:
    """Return the mean, summed in double precision."""
    return float(values.mean(dtype=float))


def median_of(values: FloatArray) -> float:
    """Return the median."""
    return float(np.median(values))


def measures(prediction: Prediction) -> dict[str, float]:
    """Return the measures stored in a prediction's sidecar; unknown ones are left out.

    They are the SNR of one b=0 volume of the scan; the volume of the prediction's mask in ml; the
    deviation of the scan's mean signal from the training subjects', in their deviations; and over
    the mask the mean disagreement of order 0, in SH units, and the median of the expected error, in
    SH units²: a few voxels unlike the calibration data would dominate a mean. Of several shells the
    largest value is taken, of the mean signal the most distant. (Earlier sidecars have the mean
    error as `ExpectedError`, which is not read: a review measures the median again.)
    """
    found: dict[str, float | None] = {}
    acquisition = None if prediction.source is None else prediction.source.acquisition
    if acquisition is not None:
        found["SNR"] = signal_to_noise(acquisition)
    parts = list(prediction.by_shell().values())
    image = parts[0].sh
    found["MaskVolume"] = volume_of(image.mask, image.affine)
    shifts = [part.mean_signal for part in parts if part.mean_signal is not None]
    found["MeanSignalDeviation"] = max(shifts, key=abs, default=None)
    for name, middle, values in (
        ("DisagreementOfOrder0", mean_of, [part.order_0_disagreement for part in parts]),
        ("ExpectedErrorMedian", median_of, [part.expected_error for part in parts]),
    ):
        middles = [
            middle(each[part.sh.mask])
            for each, part in zip(values, parts, strict=True)
            if each is not None and part.sh.mask.any()
        ]
        found[name] = max(middles, default=None)
    return {
        name: float(f"{value:.6g}")
        for name, value in found.items()
        if value is not None and np.isfinite(value)
    }
