"""Numbers that sidecars lack: measured from the files once, and kept in `review/measures.json`.

Predictions of earlier versions have none in their sidecars; errors and alignment need the truth,
which `harmonize` does not ask for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from napari_msp.alignment.registration import brain_image, estimate_displacement
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.companions import look_for_mask
from napari_msp.data.masks import volume_of
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Poll, Progress, UserError, reporter, stop_if
from napari_msp.evaluation.line_up import line_up
from napari_msp.files import reserved, stamp_of, write_json
from napari_msp.image_files import COEFFICIENTS, ImageFile
from napari_msp.inference.review_making import mean_of, median_of
from napari_msp.review.measures import MEASURED, Kept, nothing_of, read_kept, still_known
from napari_msp.review.predictions import FOLDER, Entry, Review, place_in
from napari_msp.scan_sources import load_scan
from napari_msp.signal.maps import squared_error
from napari_msp.signal.noise import signal_to_noise

Opened = Callable[[Path], Acquisition]
"""Function that reads a scan."""


def unmeasured(review: Review) -> int:
    """Count predictions of which `measure` can measure more than is known."""
    kept = read_kept(review.folder / FOLDER)
    return sum(bool(_wanted(entry, kept)) for entry in review.entries)


def measure(
    review: Review,
    *,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> Review:
    """Measure what is not yet known, and store it with the folder after each prediction.

    Parameters
    ----------
    progress
        Function called with an entry's name, how many are done and how many there are.
    cancelled
        Function polled between predictions and while heads are aligned.

    Returns
    -------
    Review
        The same with more numbers, sorted anew. Failed measurements are among its problems.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    Cancelled
        When `cancelled` said so; finished measurements are kept.
    """
    kept = read_kept(review.folder / FOLDER)
    todo = [entry for entry in review.entries if _wanted(entry, kept)]
    found: dict[str, dict[str, float]] = {}
    problems = list(review.problems)
    opened = lru_cache(maxsize=1)(load_acquisition)  # a subject's predictions follow each other
    report = reporter(progress, cancelled)
    for done, entry in enumerate(todo):
        report(f"measuring {entry.name}", done, len(todo))
        measured, failures = _measured(entry, _wanted(entry, kept), opened, cancelled)
        found[entry.key] = measured.numbers
        problems += failures
        _keep(review.folder, entry, measured)
    return replace(review, problems=tuple(problems)).with_numbers(found)


def _wanted(entry: Entry, kept: Mapping[str, Kept]) -> list[str]:
    """Return the keys of numbers that are not known and can be measured."""
    given_up = _known(entry, kept).failed
    wanted = [key for key, of in _MEASURED.items() if key not in entry.numbers and of[0](entry)]
    return [key for key in wanted if key not in given_up]


def _known(entry: Entry, kept: Mapping[str, Kept]) -> Kept:
    now = nothing_of(entry.prediction, entry.scan, entry.truth)
    return still_known(kept.get(entry.key), now)


def _keep(folder: Path, entry: Entry, measured: Kept) -> None:
    place = place_in(folder)
    with reserved(place, wait=True):
        kept = read_kept(place)
        known = _known(entry, kept)
        added = {
            "masks": known.masks | measured.masks,
            "hash": entry.prediction_hash,
            "numbers": known.numbers | measured.numbers,
            "failed": tuple(sorted({*known.failed, *measured.failed})),
        }
        kept[entry.key] = known.model_copy(update=added)
        write_json(place / MEASURED, {key: each.model_dump() for key, each in kept.items()})


def _measured(
    entry: Entry, wanted: list[str], opened: Opened, cancelled: Poll | None
) -> tuple[Kept, Iterable[UserError]]:
    """Measure one prediction; return failures too, once for each file that cannot be read."""
    numbers: dict[str, float] = {}
    problems: dict[str, UserError] = {}
    poll = partial(stop_if, cancelled)
    for key in wanted:
        try:
            value = _MEASURED[key][1](entry, opened, poll)
        except UserError as error:
            problems[error.phrase()] = error
        else:
            if value is not None and np.isfinite(value):
                numbers[key] = float(f"{value:.6g}")
    failed = tuple(key for key in wanted if key not in numbers)
    return Kept(numbers=numbers, failed=failed, masks=_masks(entry)), problems.values()


def _masks(entry: Entry) -> dict[str, tuple[str, int, int]]:
    """Return path and stamp of the masks through which scan and truth were seen."""
    found: dict[str, tuple[str, int, int]] = {}
    for what, path in (("scan", entry.scan), ("truth", entry.truth)):
        if path is None:
            continue
        try:
            mask = look_for_mask(path).path
        except UserError:  # reported where it is measured
            continue
        if mask is not None and (stamp := stamp_of(mask)) is not None:
            size, time = stamp
            found[what] = (str(mask), size, time)
    return found


def _snr(entry: Entry, opened: Opened, _: object) -> float | None:
    assert entry.scan is not None
    return signal_to_noise(opened(entry.scan))


def _mask_file(entry: Entry) -> Path:
    return ImageFile(entry.stem, "mask").at(entry.prediction.parent)


def _mask(entry: Entry) -> tuple[MaskArray, FloatArray]:
    """Return the prediction's mask and its affine."""
    path = _mask_file(entry)
    image = open_nifti(path)
    return read_voxels(image, path) > 0, image.affine


def _maps(entry: Entry, parameter: str) -> list[Path]:
    """Return the files of a map, one for each shell."""
    return [*ImageFile(entry.stem, parameter).in_shells(entry.prediction.parent).values()]


def _largest(entry: Entry, parameter: str, middle: Callable[[FloatArray], float]) -> float:
    """Return the mean or median of a map over the mask, for the shell where it is largest."""
    mask, _ = _mask(entry)
    return max(
        middle(read_voxels(open_nifti(path), path)[mask]) for path in _maps(entry, parameter)
    )


def _error(entry: Entry, opened: Opened, poll: Callable[[], None]) -> float:
    """Return the mean squared error of SH coefficients, for the worst shell."""
    assert entry.truth is not None
    truth, errors = load_scan(entry.truth), []
    for path in _maps(entry, COEFFICIENTS):
        poll()
        prediction = load_scan(path)
        true = truth.at_shell(prediction.b_value)
        lined = line_up(true, {"prediction": prediction})
        error = squared_error(lined.predictions["prediction"].image, lined.reference, lined.mask)
        errors.append(float(error[lined.mask].mean(dtype=float)))
    return max(errors)


def _displacement(entry: Entry, opened: Opened, poll: Callable[[], None]) -> float:
    """Return how far the truth lies from the prediction's scan, in mm."""
    assert entry.scan is not None
    assert entry.truth is not None
    fixed, moving = opened(entry.scan), load_acquisition(entry.truth)
    shell = fixed.shells()[0]
    near = min(moving.shells(), key=lambda each: abs(each.b_value - shell.b_value))
    found = estimate_displacement(brain_image(fixed, shell), brain_image(moving, near), poll=poll)
    return found.mean


Measuring = Callable[[Entry, Opened, Callable[[], None]], float | None]

_MEASURED: Mapping[str, tuple[Callable[[Entry], bool], Measuring]] = {
    "snr": (lambda entry: entry.scan is not None, _snr),
    "mask_ml": (
        lambda entry: _mask_file(entry).is_file(),
        lambda entry, *_: volume_of(*_mask(entry)),
    ),
    "disagreement": (
        lambda entry: bool(_maps(entry, "disagreement0")),
        lambda entry, *_: _largest(entry, "disagreement0", mean_of),
    ),
    "expected_error_median": (
        lambda entry: bool(_maps(entry, "expectederror")),
        lambda entry, *_: _largest(entry, "expectederror", median_of),
    ),
    "displacement": (
        lambda entry: entry.scan is not None and entry.truth is not None,
        _displacement,
    ),
    "error": (lambda entry: entry.truth is not None and bool(_maps(entry, COEFFICIENTS)), _error),
}
"""By measure: whether an entry has the necessary files, and the function that measures it."""
