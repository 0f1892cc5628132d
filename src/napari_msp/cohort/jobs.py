"""Job of one scan: run unless its results already exist, with every problem reported."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from napari_msp.bids import is_dwi, read_sidecar
from napari_msp.errors import PYTHON, Cancelled, Doubt, Overwrite, Poll, UserError, Words, every
from napari_msp.files import sha256, version_of
from napari_msp.foreign_errors import explain
from napari_msp.image_files import ImageFile, changed_files, lost_files
from napari_msp.options import Options
from napari_msp.provenance import Provenance

Job = Callable[..., object]
"""Function that processes one scan, called like `harmonize_to_folder`, with (dwi, model, targets,
out) and options by name; the model is a path. Dask must be able to pickle it."""

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class CohortResult:
    """Result of one scan.

    Attributes
    ----------
    scan
        The image, relative to the input dataset; empty if the subject has none.
    targets
        Platforms to predict.
    status
        "done", "skipped" (finished by an earlier run) or "failed".
    seconds
        Time that this run took for the targets that were left.
    doubts
        Warnings given when it was harmonized.
    earlier
        Targets that an earlier run finished, with the warnings given then.
    """

    subject: str
    scan: str
    targets: tuple[str, ...]
    status: Status
    seconds: float
    reason: UserError | None = None
    doubts: tuple[Doubt, ...] = ()
    earlier: Mapping[str, tuple[Doubt, ...]] = field(default_factory=dict)

    def message(self, words: Words = PYTHON) -> str:
        """Return reason and doubts on one line, in a front end's words."""
        reasons = [] if self.reason is None else [self.reason.phrase(words)]
        doubts = (each.beside(self.scan) for each in self.doubts)  # its row has the scan
        return " ".join("; ".join([*reasons, *doubts]).split())

    def on(self, target: str) -> "CohortResult":
        """Return the result for one target."""
        if target not in self.earlier:
            return self
        doubts = self.earlier[target]
        return replace(self, status="skipped", seconds=0.0, reason=None, doubts=doubts)


@dataclass(frozen=True)
class How:
    """How all scans of a cohort are harmonized: keywords of `harmonize_to_folder`."""

    options: Options
    gradients: str = "target"
    force: bool = False
    review_maps: bool = True


@dataclass(frozen=True)
class Task:
    """Job of one scan, small enough to send to another machine."""

    job: Job
    subject: str
    scan: str
    dwi: Path
    model: Path
    targets: tuple[str, ...]
    out: Path
    how: How
    kind: str

    def failed(self, reason: UserError) -> CohortResult:
        """Return the result of a job that could not be done."""
        return CohortResult(self.subject, self.scan, self.targets, "failed", 0.0, reason)


def run_task(task: Task, cancelled: Poll | None = None) -> CohortResult:
    """Harmonize one scan unless that is done; every error becomes part of the result."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        # Doubts about a scan belong in its row: nobody reads a worker's log.
        warnings.simplefilter("always", UserWarning)
        left, status, reason = _done(task, cancelled)
    seconds = time.perf_counter() - start
    earlier = _kept_doubts(task, [each for each in task.targets if each not in left])
    doubts = tuple(dict.fromkeys(_doubts(task, caught) if left else chain(*earlier.values())))
    return CohortResult(
        task.subject, task.scan, task.targets, status, seconds, reason, doubts, earlier
    )


def _done(task: Task, cancelled: Poll | None) -> tuple[tuple[str, ...], Status, UserError | None]:
    """Run what is left to do; return the targets of that, the status, and why it failed."""
    left = task.targets
    try:
        left = tuple(task.targets if task.how.force else unfinished(task))
        if left:
            # The derivative is one dataset, described once at its root.
            more = {**vars(task.how), "describe": False, "cancelled": cancelled}
            task.job(task.dwi, task.model, left, task.out, **more)
    except Cancelled:
        raise
    except Exception as failure:  # whatever it is, it must not stop the other subjects
        if not (_is_occupied(failure) and _finished_meanwhile(task)):
            return left, "failed", explain(failure)
        left = ()
    return left, "done" if left else "skipped", None


def _is_occupied(failure: Exception) -> bool:
    """Return whether a job failed because its files exist already."""
    remedies = every(failure.remedy) if isinstance(failure, UserError) else ()
    return any(isinstance(each, Overwrite) for each in remedies)


def _finished_meanwhile(task: Task) -> bool:
    """Return whether another run has made the same, as can happen if two start at once."""
    with suppress(Exception):  # if it may differ, the job's own failure is reported
        return not task.how.force and not [*unfinished(task)]
    return False


def _doubts(task: Task, caught: Iterable[warnings.WarningMessage]) -> Iterator[Doubt]:
    """Yield a job's warnings about its scan, except what `run_cohort` said once about its model.

    Warnings about another scan, such as the target's own for a review's maps, do not count.
    """
    from napari_msp.inference.prepare import NotForScans, Rescaled

    for warned in (each.message for each in caught if isinstance(each.message, UserWarning)):
        doubt = warned if isinstance(warned, Doubt) else Doubt(str(warned))
        about = doubt.subject
        of_another = about is not None and is_dwi(about) and Path(about) != task.dwi
        once = isinstance(doubt, NotForScans | Rescaled)  # the sidecar has the latter
        if not once and not of_another:
            yield doubt


def _kept_doubts(task: Task, targets: Sequence[str]) -> dict[str, tuple[Doubt, ...]]:
    """Return the warnings given when finished predictions were made, by target, as `_doubts`."""
    if not targets:
        return {}
    from napari_msp.inference.prepare import unfit_for
    from napari_msp.model_file import kept_model

    said_once = unfit_for(kept_model(task.model), task.dwi)
    kept = {each: _prediction(task, each) for each in targets}
    return {
        target: tuple(each for each in found[1].warnings if each not in said_once)
        for target, found in kept.items()
        if found is not None
    }


def harmonize_scan(
    dwi: Path, model: Path, targets: tuple[str, ...], out: Path, **options: Any
) -> None:
    """Harmonize one scan into a folder: a cohort's job unless another is given."""
    from napari_msp.inference.outputs import harmonize_to_folder
    from napari_msp.model_file import kept_model

    harmonize_to_folder(dwi, kept_model(model), targets, out, **options)


# --- What is finished ------------------------------------------------------------------------


def _difference(wanted: Provenance, made: Provenance) -> str:
    """Describe how a prediction was made otherwise than it is wanted; empty if it was not."""
    if (wanted.model_file, wanted.model_sha256) != (made.model_file, made.model_sha256):
        return f"by another model ({made.model_file})"
    own, other = ({**each.options, "Gradients": each.gradients} for each in (wanted, made))
    if own != other:
        changed = [name for name in own if own[name] != other.get(name)]
        return f"with other options ({', '.join(changed) or 'more of them'})"
    names = {"Image": "image", "Gradients": "gradient table", "Mask": "mask"}
    for name in {**wanted.checksums, **made.checksums}:
        if wanted.checksums.get(name) != made.checksums.get(name):
            return f"from another {names.get(name, 'table of directions')}"
    return ""


def unfinished(task: Task) -> Iterator[str]:
    """Yield the targets of a task that are not yet predicted.

    A prediction is finished if its image exists and was made by the same model, with the same
    options, from an image, a gradient table and a mask with the same checksums.

    Raises
    ------
    UserError
        When one exists that was made otherwise: only a person can judge its worth.
    """
    wanted: Provenance | None = None
    for target in task.targets:
        there = _prediction(task, target)
        if there is None:
            yield target
            continue
        image, made = there
        again = Overwrite("make it again")
        if changed := changed_files(image):
            problem = "is not as large as when it was written"
            raise UserError(problem, image.with_name(changed[0]), None, again)
        wanted = wanted or _to_be_made(task)
        if how := _difference(wanted, made):
            raise UserError(f"exists already, made {how}", image, None, again)


def has_predictions(task: Task) -> bool:
    """Return whether files of all targets exist and stay, without reading scans."""
    there = (_prediction(task, target) is not None for target in task.targets)
    return not task.how.force and all(there)


def _prediction(task: Task, target: str) -> tuple[Path, Provenance] | None:
    """Return a target's prediction and its provenance; None if it is not complete."""
    image = ImageFile.predicted(task.dwi, target, task.kind).at(task.out)
    if not image.exists() or lost_files(image):
        return None
    try:
        made = Provenance.from_sidecar(read_sidecar(image))
    except UserError:
        return None
    return None if made is None else (image, made)


def _to_be_made(task: Task) -> Provenance:
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.inference.outputs import checksums

    options, gradients = task.how.options, task.how.gradients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubts are reported when the scan is harmonized
        acquisition = load_acquisition(task.dwi, b0_threshold=options.b0_threshold)
    return Provenance(
        target="",
        input="",
        model_file=task.model.name,
        model_sha256=_digest_as_of(task.model, version_of(task.model)),
        gradients=gradients,
        checksums=checksums(acquisition, gradients),
        options=options.recorded(),
    )


@lru_cache(maxsize=4)
def _digest_as_of(model: Path, version: tuple[int, ...]) -> str:
    return sha256(model)
