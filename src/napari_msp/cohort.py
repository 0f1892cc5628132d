"""Harmonize many subjects, one after another or on Dask; a bad one does not stop the others."""

import csv
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Unpack

from napari_msp.bids import (
    HARMONIZED,
    Provenance,
    describe_derivative,
    entities,
    platform_name,
    prediction_stem,
)
from napari_msp.data.beside import PassedOver
from napari_msp.data.dataset import SCAN_NAMES, choose_scan, scans_in
from napari_msp.errors import (
    PYTHON,
    Advice,
    Cancelled,
    Change,
    Choose,
    Give,
    Install,
    Overwrite,
    RunJob,
    Unexpected,
    UserError,
    Words,
    either,
    explain,
)
from napari_msp.files import read_json, sha256, write_text
from napari_msp.formatting import counted
from napari_msp.options import Options, OptionSettings

ALL_TARGETS = "all"

TABLE = "cohort.tsv"

SCHEDULER_PATIENCE = 10.0
"""Seconds within which a scheduler must answer."""

Poll = Callable[[], bool]

Job = Callable[..., object]
"""What is done to one scan: called as `harmonize_to_folder` is, with (dwi, model, targets, out) and
options by name. Dask must be able to pickle it."""


@dataclass(frozen=True)
class CohortResult:
    """What became of one scan.

    Attributes
    ----------
    subject
        Such as "sub-01".
    scan
        The image relative to the input dataset; empty when the subject has none.
    status
        "done", "skipped" (finished by an earlier run) or "failed".
    seconds
        Wall time of its job.
    reason
        Why it failed or was skipped.
    doubts
        What the job warned of.
    """

    subject: str
    scan: str
    status: Literal["done", "skipped", "failed"]
    seconds: float
    reason: UserError | None = None
    doubts: tuple[str, ...] = ()

    def message(self, words: Words = PYTHON) -> str:
        """Say reason and doubts on one line, in a front end's words."""
        reasons = [] if self.reason is None else [self.reason.phrase(words)]
        return " ".join("; ".join([*reasons, *self.doubts]).split())


@dataclass(frozen=True)
class _Task:
    """One scan's job, small enough to send to another machine."""

    job: Job
    subject: str
    scan: str
    dwi: Path
    model: Path
    targets: tuple[str, ...]
    out: Path
    options: dict[str, Any]


def run_cohort(
    bids_dir: str | Path,
    out_dir: str | Path,
    model: str | Path,
    target: str | Sequence[str],
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    platform: str | None = None,
    run: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    options: Options | None = None,
    gradients: str = "target",
    force: bool = False,
    review_maps: bool = True,
    progress: Callable[[CohortResult, int, int], None] | None = None,
    cancelled: Poll | None = None,
    job: Job | None = None,
    words: Words = PYTHON,
    **settings: Unpack[OptionSettings],
) -> list[CohortResult]:
    """Harmonize one scan of each subject of a BIDS dataset.

    Results go to `<out_dir>/sub-<label>/[ses-<label>/]dwi/`; `cohort.tsv` in `out_dir` says what
    became of each subject and is updated after each one. Scans that the same model
    finished in an earlier run are skipped.

    Parameters
    ----------
    bids_dir
        Dataset with scans `sub-*[/ses-*]/dwi/*_dwi`, raw or a pipeline's derivatives. What is no
        scan of its own (a `dir-PA` of b=0 alone) is passed over, see `data.dataset.choose_scan`.
    out_dir
        Derivative dataset; made when missing.
    model
        Model file; every worker must be able to read it, and both folders.
    target
        Platform(s) to predict; "all": all that the model knows.
    participants
        Subjects with or without "sub-"; None: all.
    sessions
        Sessions whose scans may be taken, with or without "ses-"; None: all.
    platform
        The `<ses>_<acq>` to harmonize. None: the only scan of a subject, or the one on the model's
        input platform where there are several.
    run
        Which one, where a scan was repeated.
    workers
        Processes on this machine; 1 runs in this process, without Dask.
    scheduler
        Address of a running Dask scheduler, such as "tcp://host:8786", in place of `workers`.
    options, **settings, gradients
        As for `harmonize_to_folder`, on the CPU unless another device is named. Several workers on
        one GPU share its memory.
    force
        Harmonize finished scans again.
    review_maps
        Write small maps for a review too, see `inference.review_maps`.
    progress
        Called with each result, the number of results and their total, in order of completion.
    cancelled
        Polled between scans; without Dask also inside the job.
    job
        In place of `harmonize_to_folder`.
    words
        In which the table says why a scan failed.

    Returns
    -------
    list of CohortResult
        Ordered by subject.

    Raises
    ------
    UserError
        When there is nothing to harmonize, a participant is unknown, the model cannot be used,
        Dask is missing or its scheduler does not answer. What is wrong with one scan stands in
        its result.
    Cancelled
        When `cancelled` said so; finished scans are kept.
    """
    options = replace(options or Options(device="cpu"), **settings)
    # Absolute, as a worker may stand in another folder.
    bids_dir, out_dir, model = (Path(path).resolve() for path in (bids_dir, out_dir, model))
    if workers < 1:
        raise UserError(f"{workers} is too few", field="workers", remedy=Advice("give at least 1"))
    if not model.is_file():
        raise UserError("there is no such file", model, "model", Advice("give a model"))
    scans = {
        subject: _by_platform(subject, paths, run)
        for subject, paths in _find_scans(bids_dir, participants, sessions).items()
    }
    if platform is not None:
        _check_platform(bids_dir, platform, scans)
    targets, wanted = _ask_model(model, target, platform, scans, check=job is None)
    if wanted is not None and platform is None:
        _check_platform(bids_dir, wanted, scans)
    if job is None:
        from napari_msp.device import choose_device
        from napari_msp.inference.outputs import check_gradients, harmonize_to_folder

        check_gradients(gradients)
        job = harmonize_to_folder
        if scheduler is None:  # whose workers may have other devices
            choose_device(options.device)
    # The derivative is one dataset, described once at its root and not in each folder.
    passed = {
        "options": options,
        "gradients": gradients,
        "force": force,
        "describe": False,
        "review_maps": review_maps,
    }
    tasks: list[_Task] = []
    settled: list[CohortResult] = []
    for subject, found in scans.items():
        try:
            dwi = _choose_scan(bids_dir, subject, found, wanted)
        except UserError as error:
            settled.append(CohortResult(subject, "", "failed", 0.0, error))
            continue
        inside = dwi.relative_to(bids_dir)
        scan, folder = inside.as_posix(), out_dir / inside.parent
        task = _Task(job, subject, scan, dwi, model, targets, folder, passed)
        if not force and _finished(task):
            reason = UserError("finished earlier by this model", remedy=Overwrite("do it again"))
            settled.append(CohortResult(subject, scan, "skipped", 0.0, reason))
        else:
            tasks.append(task)

    describe_derivative(out_dir, out_dir, HARMONIZED, bids_dir)
    if scheduler is not None or workers > 1:
        running = _run_on_dask(tasks, workers, scheduler, cancelled)
    else:
        running = _run_here(tasks, cancelled)
    results: list[CohortResult] = []
    for result in chain(settled, running):
        results.append(result)
        _write_table(out_dir, results, words)
        if progress is not None:
            progress(result, len(results), len(settled) + len(tasks))
    return sorted(results, key=lambda result: result.subject)


# --- What there is to do ---------------------------------------------------------------------


def _find_scans(
    bids_dir: Path, participants: Sequence[str] | None, sessions: Sequence[str] | None
) -> dict[str, list[Path]]:
    """Give the scans of each subject asked for, subjects in order."""
    if not bids_dir.is_dir():
        raise UserError("there is no such folder", bids_dir, remedy=Advice("give a BIDS dataset"))
    scans: dict[str, list[Path]] = {
        folder.name: [] for folder in sorted(bids_dir.glob("sub-*/")) if folder.is_dir()
    }
    if participants is not None:
        wanted = {f"sub-{name.removeprefix('sub-')}" for name in participants}
        unknown = ", ".join(sorted(wanted - set(scans)))
        if unknown:
            choice = Choose("participants", tuple(scans))
            raise UserError(f"has no {unknown}", bids_dir, "participants", choice)
        scans = {subject: paths for subject, paths in scans.items() if subject in wanted}
    labels = None if sessions is None else [name.removeprefix("ses-") for name in sessions]
    for subject, paths in scans.items():
        for session in ["ses-*"] if labels is None else [f"ses-{label}" for label in labels]:
            paths += scans_in(bids_dir, subject, session)
    if not any(scans.values()):
        what = f"of session {', '.join(labels)}" if labels else f"named {SCAN_NAMES}"
        remedy = Change("sessions", "other") if labels else Advice("give a BIDS dataset")
        raise UserError(f"has no scan {what}", bids_dir, "sessions" if labels else None, remedy)
    return scans


Found = dict[str, Path | UserError]
"""Scans of a subject by platform, or why none can be chosen."""


def _by_platform(subject: str, paths: Sequence[Path], run: int | None) -> Found:
    """Choose a scan of each platform; a platform without one is left out."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_platform(path), []).append(path)
    found: Found = {}
    for platform, group in groups.items():
        try:
            what = f"{subject} on {platform}" if platform else subject
            scan, others = choose_scan(group, what, run)
        except UserError as error:
            found[platform] = error
        else:
            for path, why in others.items():
                warnings.warn(f"{path}: passed over, as it {why}", PassedOver, stacklevel=3)
            if scan is not None:
                found[platform] = scan
    return found


def _ask_model(
    model: Path,
    target: str | Sequence[str],
    platform: str | None,
    scans: dict[str, Found],
    check: bool,
) -> tuple[tuple[str, ...], str | None]:
    """Give the targets, and the platform where a subject has several scans to choose from."""
    targets = (target,) if isinstance(target, str) else tuple(target)
    everything = targets == (ALL_TARGETS,)
    several = platform is None and any(len(found) > 1 for found in scans.values())
    if everything or several or check:
        from napari_msp.model_file import load_model

        known = load_model(model)
        targets = tuple(known.targets) if everything else targets
        for each in targets:
            known.single(each)  # a mistyped target is one error, not one a subject
        platform = known.card.input if several else platform
    return targets, platform


def _check_platform(bids_dir: Path, platform: str, scans: dict[str, Found]) -> None:
    """Refuse at once a platform on which nobody was scanned."""
    known = sorted({platform for found in scans.values() for platform in found})
    if platform not in known:
        raise UserError(
            f"no scan is on {platform}", bids_dir, "platform", Choose("platform", tuple(known))
        )


def _choose_scan(bids_dir: Path, subject: str, found: Found, platform: str | None) -> Path:
    known = Choose("platform", tuple(sorted(found)))
    if platform is not None:
        found = {each: scan for each, scan in found.items() if each == platform}
    if len(found) == 1:
        [scan] = found.values()
        if isinstance(scan, UserError):
            raise scan
        return scan
    where = "" if platform is None else f" on {platform}"
    problem = f"has several DWI{where} ({', '.join(found)})" if found else f"has no DWI{where}"
    raise UserError(problem, bids_dir / subject, "platform", known)


def _platform(scan: Path) -> str:
    named = entities(scan)
    return platform_name(named.get("ses", ""), named.get("acq", ""))


def _finished(task: _Task) -> bool:
    """Return whether this model has written every target of a scan."""
    return all(
        any(
            _made_by(sidecar, task.model)
            for sidecar in task.out.glob(f"{prediction_stem(task.dwi, target, '')}[A-Z]*_dwi.json")
        )
        for target in task.targets
    )


def _made_by(sidecar: Path, model: Path) -> bool:
    try:
        made = Provenance.from_sidecar(read_json(sidecar))
    except UserError:
        return False
    if made is None or made.model_file != model.name or not sidecar.with_suffix(".nii.gz").exists():
        return False
    # A model trained anew under an old name is another model.
    return made.model_sha256 in (None, sha256(model))


# --- Doing it --------------------------------------------------------------------------------


def _run_task(task: _Task, cancelled: Poll | None = None) -> CohortResult:
    """Harmonize one scan; whatever goes wrong becomes its result."""
    options = task.options if cancelled is None else task.options | {"cancelled": cancelled}
    reason: UserError | None = None
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        # What is doubtful about a scan belongs in its row: a worker's log is read by nobody.
        warnings.simplefilter("always", UserWarning)
        try:
            task.job(task.dwi, task.model, task.targets, task.out, **options)
        except Cancelled:
            raise
        except Exception as failure:  # whatever it is, it must not stop the other subjects
            reason = explain(failure)
    seconds = time.perf_counter() - start
    said = (
        str(each.message).removeprefix(f"{task.dwi}: ")
        for each in caught
        if issubclass(each.category, UserWarning)
    )
    doubts = tuple(dict.fromkeys(said))
    status: Literal["done", "failed"] = "done" if reason is None else "failed"
    return CohortResult(task.subject, task.scan, status, seconds, reason, doubts)


def _run_here(tasks: list[_Task], cancelled: Poll | None) -> Iterator[CohortResult]:
    for task in tasks:
        if cancelled is not None and cancelled():
            raise Cancelled
        yield _run_task(task, cancelled)


def _run_on_dask(
    tasks: list[_Task],
    workers: int,
    scheduler: str | None,
    cancelled: Poll | None,
) -> Iterator[CohortResult]:
    try:
        dask: Any = import_module("distributed")
    except ImportError as error:
        problem = "several processes need Dask, which is not installed"
        raise UserError(problem, field="workers", remedy=Install("cohort")) from error
    if not tasks:
        return
    if scheduler is not None:
        cluster = None
        try:
            client = dask.Client(scheduler, timeout=SCHEDULER_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            remedy = either(Advice("start one with `dask scheduler`"), Give("workers", "a number"))
            raise UserError("does not answer", scheduler, "scheduler", remedy) from error
    else:
        threads = max(1, (os.cpu_count() or 1) // workers)
        # One job a worker at a time: a job is as large as a brain, and torch has its own threads.
        cluster = dask.LocalCluster(
            n_workers=min(workers, len(tasks)),
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        client = dask.Client(cluster, set_as_default=False)
    try:
        # Not pure: a job writes files, so a result that Dask remembers is no reason to skip it.
        of_future = {client.submit(_run_task, task, pure=False): task for task in tasks}
        for future in dask.as_completed(list(of_future), loop=client.loop):
            if cancelled is not None and cancelled():
                raise Cancelled
            lost = future.exception()
            if lost is None:
                yield future.result()
            else:  # the worker itself died, for want of memory for instance
                task = of_future[future]
                reason = Unexpected(f"the worker was lost ({lost})")
                yield CohortResult(task.subject, task.scan, "failed", 0.0, reason)
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


@dataclass(frozen=True)
class CohortSummary:
    """What became of the subjects of a cohort.

    Attributes
    ----------
    done, skipped, failed
        Subjects by the status of their scan; with what is said about each.
    doubtful
        Subjects that were harmonized with a warning, and what it says.
    """

    done: dict[str, str]
    skipped: dict[str, str]
    failed: dict[str, str]

    @property
    def doubtful(self) -> dict[str, str]:
        """Subjects that were harmonized, but with a warning."""
        return {subject: said for subject, said in self.done.items() if said}

    def lines(self) -> Iterator[str]:
        """Say it for people: the counts, then each subject that wants a look."""
        yield (
            f"{counted(len(self.done), 'subject')} harmonized ({len(self.doubtful)} with a "
            f"warning), {len(self.skipped)} finished earlier, {len(self.failed)} failed"
        )
        for what, subjects in (("failed", self.failed), ("warning", self.doubtful)):
            for subject, said in subjects.items():
                yield f"{subject} {what}: {said}"


def summarise_cohort(out_dir: str | Path) -> CohortSummary:
    """Read what became of a cohort's subjects from the table in its folder.

    Parameters
    ----------
    out_dir
        Where `run_cohort` wrote.

    Raises
    ------
    UserError
        When there is no such table, or it is damaged.
    """
    table = Path(out_dir) / TABLE
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        statuses: dict[str, dict[str, str]] = {"done": {}, "skipped": {}, "failed": {}}
        for row in rows:
            said = "" if row["message"] == "n/a" else row["message"]
            statuses[row["status"]][row["participant_id"]] = said
    except FileNotFoundError as error:
        remedy = RunJob("cohort", "harmonize the participants first")
        raise UserError("has no table of a cohort", out_dir, "out_dir", remedy) from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        remedy = RunJob("cohort", "harmonize the participants again")
        raise UserError("is no table of a cohort", table, "out_dir", remedy) from error
    return CohortSummary(**statuses)


def _write_table(out_dir: Path, results: list[CohortResult], words: Words) -> None:
    lines = ["participant_id\tscan\tstatus\tseconds\tmessage"]
    for each in sorted(results, key=lambda result: result.subject):
        row = (each.subject, each.scan, each.status, f"{each.seconds:.1f}", each.message(words))
        lines.append("\t".join(value or "n/a" for value in row))
    write_text(out_dir / TABLE, "\n".join(lines) + "\n")
