"""Harmonize one scan of every subject of a dataset, here or on Dask.

`jobs` processes one scan unless that is done, `cluster` runs jobs on workers, and `table` records
the results.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from napari_msp.bids import (
    HARMONIZED,
    MRTRIX_SUFFIXES,
    describe_derivative,
    platform_of,
    refuse_among_scans,
)
from napari_msp.cohort.cluster import Cluster, connected, own_workers
from napari_msp.cohort.jobs import (
    CohortResult,
    How,
    Task,
    harmonize_scan,
    has_predictions,
    run_task,
)
from napari_msp.cohort.table import CohortSummary, CohortTable, summarise_cohort
from napari_msp.data import dataset
from napari_msp.data.companions import PassedOver
from napari_msp.data.dataset import SCAN_NAMES, scans_in
from napari_msp.errors import Advice, Change, Choose, Poll, UserError, reporter, stop_if
from napari_msp.identity import CopiedScan, Person, copies, file_digest
from napari_msp.options import Options, OptionSettings, several, with_settings
from napari_msp.packaged import model_path

if TYPE_CHECKING:
    from napari_msp.model_file import Model

__all__ = ["CohortResult", "CohortSummary", "run_cohort", "summarise_cohort"]


def run_cohort(
    bids_dir: str | Path,
    out_dir: str | Path,
    model: "Model | str | Path",
    target: str | Sequence[str],
    *,
    participants: str | Iterable[str] | None = None,
    sessions: str | Iterable[str] | None = None,
    platform: str | None = None,
    run: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    options: Options | None = None,
    gradients: str = "target",
    force: bool = False,
    review_maps: bool = True,
    progress: Callable[[CohortResult, int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
    cancelled: Poll | None = None,
    **settings: Unpack[OptionSettings],
) -> list[CohortResult]:
    """Harmonize one scan of each subject of a BIDS dataset.

    Results go to `<out_dir>/sub-<label>/[ses-<label>/]dwi/`. `cohort.tsv` in `out_dir` records the
    result for each scan and target and is updated as it runs; rows of others, such as another
    session or target, stay. Scans that an earlier run finished with the same image, gradient table,
    mask, model and options are skipped.

    Parameters
    ----------
    bids_dir
        Dataset with scans `sub-*[/ses-*]/dwi/*_dwi`, raw or a pipeline's derivatives. Images that
        are no scans of their own (a `dir-PA` with only b=0) are ignored, see
        `data.dataset.choose_scan`.
    out_dir
        Derivative dataset; created if missing.
    model
        Model file; every worker must be able to read it, and both folders.
    target
        Platform(s) to predict; "all": all that the model knows.
    participants
        Subjects with or without "sub-"; None: all.
    sessions
        Sessions whose scans may be taken, with or without "ses-"; None: all.
    platform
        The `<ses>_<acq>` to harmonize. None: a subject's only scan, or if there are several, the
        one on the model's input platform.
    run
        Number of the scan to use, where one was repeated.
    workers
        Number of processes on this machine; 1 uses only this process, without Dask.
    scheduler
        Address of a running Dask scheduler, such as "tcp://host:8786", instead of `workers`. Its
        workers must see both folders and the model by the same paths; each does one scan at a time.
    options, **settings, gradients
        As for `harmonize_to_folder`, on the CPU unless another device is named. Several workers on
        one GPU share its memory.
    force
        Whether to harmonize finished scans again.
    review_maps
        Whether to write small maps for a review too, see `inference.review_maps`.
    progress
        Function called with each result, the number of results and their total, as they complete.
    tell
        Function that is given messages about workers on Dask: who they are, where to watch them.
    cancelled
        Function polled between scans; without Dask also inside the job.

    Returns
    -------
    list of CohortResult
        Results ordered by subject.

    Raises
    ------
    UserError
        When there is nothing to harmonize, a participant is unknown, the model cannot be used,
        Dask is missing, its scheduler does not answer or a worker of it cannot do the work.
        Problems with one scan are in its result.
    Cancelled
        When `cancelled` said so; finished scans are kept.
    """
    options = with_settings(options or Options(device="cpu"), settings)
    tell = reporter(tell, None)
    # Absolute, as a worker may run in another folder.
    bids_dir, out_dir, model = Path(bids_dir).resolve(), Path(out_dir).resolve(), _file_of(model)
    if workers < 1:
        raise UserError(f"{workers} is too few", field="workers", remedy=Advice("give at least 1"))
    refuse_among_scans(bids_dir, out_dir, "out_dir")
    with ExitStack() as stack:
        cluster: Cluster | None = None
        if scheduler is not None:  # before all else, as it may not be there
            cluster = stack.enter_context(connected(scheduler, (bids_dir, model), tell))
        found = {
            subject: _by_platform(subject, paths, run)
            for subject, paths in _find_scans(bids_dir, participants, sessions).items()
        }
        from napari_msp.device import choose_device
        from napari_msp.inference.prepare import tell_unfit
        from napari_msp.model_file import kept_model

        known = kept_model(model)
        targets = _targets(known, target)
        scans, without = _choose_scans(bids_dir, found, platform, known.card.input, targets)
        if scheduler is None:  # the scheduler's workers may have other devices
            choose_device(options.device)
        how = How(options, str(gradients), force, review_maps)
        tasks = _tasks(scans, targets, model, bids_dir, out_dir, how)
        if cluster is None and workers > 1 and tasks:
            cluster = stack.enter_context(own_workers(min(workers, len(tasks)), tell))
        _tell_copies(tasks)
        tell_unfit(known, scans.values(), bids_dir.name)
        describe_derivative(out_dir, out_dir, HARMONIZED, bids_dir)
        running = _run_here(tasks, cancelled) if cluster is None else cluster.run(tasks, cancelled)
        results = _recorded(chain(without, running), len(found), CohortTable(out_dir), progress)
    return sorted(results, key=lambda result: result.subject)


def _recorded(
    results: Iterable[CohortResult],
    total: int,
    table: CohortTable,
    progress: Callable[[CohortResult, int, int], None] | None,
) -> list[CohortResult]:
    """Write the table and report each result as they come; the table is kept if the run ends."""
    done = list[CohortResult]()
    try:
        for result in results:
            done.append(result)
            table.add(result)
            if progress is not None:
                progress(result, len(done), total)
    finally:
        if done:
            table.write()
    return done


def _file_of(model: "Model | str | Path") -> Path:
    """Return a model's file, for workers to read."""
    if not isinstance(model, str | Path):
        if model.path is None:
            problem = "is in memory, where workers cannot read it"
            raise UserError(problem, model.name, "model", Advice("save it, and give its file"))
        model = model.path
    path = model_path(model).resolve()
    if not path.is_file():
        raise UserError("there is no such file", path, "model", Advice("give a model"))
    return path


def _tasks(
    scans: Mapping[str, Path],
    targets: tuple[str, ...],
    model: Path,
    bids_dir: Path,
    out_dir: Path,
    how: How,
) -> list[Task]:
    """Make the task of each subject's scan; its predictions go to the same place in `out_dir`."""
    from napari_msp.inference.outputs import check_gradients
    from napari_msp.model_file import kept_model

    check_gradients(how.gradients)
    kind = kept_model(model).kind
    places = {subject: dwi.relative_to(bids_dir) for subject, dwi in scans.items()}
    return [
        Task(
            job=harmonize_scan,
            subject=subject,
            scan=place.as_posix(),
            dwi=scans[subject],
            model=model,
            targets=targets,
            out=out_dir / place.parent,
            how=how,
            kind=kind,
        )
        for subject, place in places.items()
    ]


def _run_here(tasks: Sequence[Task], cancelled: Poll | None) -> Iterator[CohortResult]:
    for task in tasks:
        stop_if(cancelled)
        yield run_task(task, cancelled)


def _tell_copies(tasks: Sequence[Task]) -> None:
    """Warn of subjects with the same scan, unless all of them are finished.

    Only NIfTI files of the same size are compared, by their first volumes. Unreadable ones are left
    out: their own jobs report that.
    """
    sizes: dict[int, list[Task]] = {}
    for task in tasks:
        with suppress(OSError):
            if not task.dwi.name.endswith(MRTRIX_SUFFIXES):  # always of one size, and read whole
                sizes.setdefault(task.dwi.stat().st_size, []).append(task)
    for group in sizes.values():
        if len(group) > 1 and not all(map(has_predictions, group)):
            people = {
                task.scan: Person(scans=frozenset({file_digest(task.dwi)} - {""})) for task in group
            }
            for copy, scan in copies(people):
                warnings.warn(CopiedScan(f"is the same image as {scan}", copy), stacklevel=3)


# --- Which scans -----------------------------------------------------------------------------

ALL_TARGETS = "all"


def _find_scans(
    bids_dir: Path,
    participants: str | Iterable[str] | None,
    sessions: str | Iterable[str] | None,
) -> dict[str, list[Path]]:
    """Return the scans of each subject asked for, in the order of subjects."""
    if not bids_dir.is_dir():
        raise UserError("there is no such folder", bids_dir, remedy=Advice("give a BIDS dataset"))
    scans: dict[str, list[Path]] = {
        folder.name: [] for folder in sorted(bids_dir.glob("sub-*/")) if folder.is_dir()
    }
    if participants is not None:
        wanted = {f"sub-{name.removeprefix('sub-')}" for name in several(participants)}
        unknown = ", ".join(sorted(wanted - set(scans)))
        if unknown:
            choice = Choose("participants", tuple(scans))
            raise UserError(f"has no {unknown}", bids_dir, "participants", choice)
        scans = {subject: paths for subject, paths in scans.items() if subject in wanted}
    labels = None if sessions is None else [name.removeprefix("ses-") for name in several(sessions)]
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
        groups.setdefault(platform_of(path), []).append(path)
    found: Found = {}
    for platform, group in groups.items():
        try:
            what = f"{subject} on {platform}" if platform else subject
            scan, others = dataset.choose_scan(group, what, run)
        except UserError as error:
            found[platform] = error
        else:
            for path, why in others.items():
                warnings.warn(PassedOver(f"left out, as it {why}", path), stacklevel=3)
            if scan is not None:
                found[platform] = scan
    return found


def _targets(model: "Model", asked: str | Sequence[str]) -> tuple[str, ...]:
    """Return the targets asked for; a mistyped one is one error, not one per subject."""
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    targets = tuple(model.targets) if names == (ALL_TARGETS,) else names
    for each in targets:
        model.single(each)
    return targets


def _choose_scans(
    bids_dir: Path,
    found: Mapping[str, Found],
    platform: str | None,
    usual: str,
    targets: tuple[str, ...],
) -> tuple[dict[str, Path], list[CohortResult]]:
    """Return the scan to use of each subject, and results for subjects without one.

    Parameters
    ----------
    platform, usual
        The platform, or None; then `usual` is chosen if a subject has scans on several.

    Raises
    ------
    UserError
        When no subject was scanned on the platform.
    """
    if platform is None and any(len(scans) > 1 for scans in found.values()):
        platform = usual
    known = sorted({each for scans in found.values() for each in scans})
    if platform is not None and platform not in known:
        choice = Choose("platform", tuple(known))
        raise UserError(f"has no scan on {platform}", bids_dir, "platform", choice)
    scans, without = dict[str, Path](), list[CohortResult]()
    for subject, by_platform in found.items():
        try:
            scans[subject] = _choose_scan(bids_dir / subject, by_platform, platform)
        except UserError as error:
            without.append(CohortResult(subject, "", targets, "failed", 0.0, error))
    return scans, without


def _choose_scan(folder: Path, found: Found, platform: str | None) -> Path:
    """Return the scan to use of a subject, or raise why there is none."""
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
    raise UserError(problem, folder, "platform", known)
