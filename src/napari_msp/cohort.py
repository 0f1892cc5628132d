"""Harmonize many subjects, one after another or on Dask; a bad one does not stop the others."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from napari_msp.bids import NIFTI_SUFFIXES, nifti_stem
from napari_msp.errors import Cancelled, UserError
from napari_msp.files import read_json, sha256, write_json, write_text

ALL_TARGETS = "all"

TABLE = "cohort.tsv"

DESCRIPTION = "dataset_description.json"


SCHEDULER_PATIENCE = 10.0
"""Seconds within which a scheduler must answer."""

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
    message
        Why it failed or was skipped, and what the job warned of, on one line.
    """

    subject: str
    scan: str
    status: Literal["done", "skipped", "failed"]
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class _Task:
    """One scan's job, small enough to send to another machine."""

    subject: str
    scan: str
    dwi: Path
    model: Path
    targets: tuple[str, ...]
    out: Path
    options: dict[str, Any] = field(default_factory=dict)


def run_cohort(
    bids_dir: str | Path,
    out_dir: str | Path,
    model: str | Path,
    target: str | Sequence[str],
    *,
    participants: Sequence[str] | None = None,
    platform: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
    gradients: str = "target",
    tile: int | None = None,
    resample: bool = False,
    rescale_b_value: bool = False,
    force: bool = False,
    progress: Callable[[CohortResult, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    job: Job | None = None,
) -> list[CohortResult]:
    """Harmonize one scan of each subject of a BIDS dataset.

    Results go to `<out_dir>/sub-<label>/[ses-<label>/]dwi/`; `cohort.tsv` in `out_dir` says what
    became of each subject and is brought up to date after each one. Scans that the same model
    finished in an earlier run are skipped.

    Parameters
    ----------
    bids_dir
        Dataset with scans `sub-*[/ses-*]/dwi/*_dwi.nii[.gz]`.
    out_dir
        Derivative dataset; made when missing.
    model
        Model file; every worker must be able to read it, and both folders.
    target
        Platform(s) to predict; "all": all that the model knows.
    participants
        Subjects with or without "sub-"; None: all.
    platform
        The `<ses>_<acq>` to harmonize. None: the only scan of a subject, or the one on the model's
        input platform where there are several.
    workers
        Processes on this machine; 1 runs in this process, without Dask.
    scheduler
        Address of a running Dask scheduler, such as "tcp://host:8786", in place of `workers`.
    device, gradients, tile, resample, rescale_b_value
        As for `harmonize_to_folder`. Several workers on one GPU share its memory.
    force
        Harmonize finished scans again.
    progress
        Called with each result, the number of results and their total, in order of completion.
    cancelled
        Polled between scans; without Dask also inside the job.
    job
        In place of `harmonize_to_folder`.

    Returns
    -------
    list of CohortResult
        Ordered by subject.

    Raises
    ------
    UserError
        When there is nothing to harmonize, a participant is unknown, the model cannot be used,
        Dask is missing or its scheduler does not answer. What is wrong with one scan is told in
        its result.
    Cancelled
        When `cancelled` said so; finished scans are kept.
    """
    # Absolute, as a worker may stand in another folder.
    bids_dir, out_dir, model = (Path(path).resolve() for path in (bids_dir, out_dir, model))
    if workers < 1:
        raise UserError(f"--workers {workers}: give at least 1")
    if not model.is_file():
        raise UserError(f"{model}: there is no such file; give a model")
    scans = _find_scans(bids_dir, participants)
    targets, platform = _ask_model(model, target, platform, scans, check=job is None)
    if scheduler is None and job is None:  # a scheduler's workers may have other devices
        from napari_msp.device import choose_device

        choose_device(device)
    options = {
        "device": device,
        "gradients": gradients,
        "tile": tile,
        "resample": resample,
        "rescale_b_value": rescale_b_value,
        "force": force,
        # The derivative is one dataset, described once at its root and not in each folder.
        "describe": False,
    }
    tasks: list[_Task] = []
    results: list[CohortResult] = []
    for subject, paths in scans.items():
        try:
            dwi = _choose_scan(bids_dir, subject, paths, platform)
        except UserError as error:
            results.append(CohortResult(subject, "", "failed", 0.0, str(error)))
            continue
        inside = dwi.parent.relative_to(bids_dir)
        scan = dwi.relative_to(bids_dir).as_posix()
        task = _Task(subject, scan, dwi, model, targets, out_dir / inside, options)
        if not force and _finished(task):
            message = "finished earlier by this model; --force does it again"
            results.append(CohortResult(subject, scan, "skipped", 0.0, message))
        else:
            tasks.append(task)

    _describe(out_dir)
    total = len(results) + len(tasks)
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(result, done, total)
    if scheduler is not None or workers > 1:
        running = _run_on_dask(tasks, job, workers, scheduler, cancelled)
    else:
        running = _run_here(tasks, job, cancelled)
    _write_table(out_dir, results)
    for result in running:
        results.append(result)
        _write_table(out_dir, results)
        if progress is not None:
            progress(result, len(results), total)
    return sorted(results, key=lambda result: result.subject)


# --- What there is to do ---------------------------------------------------------------------


def _find_scans(bids_dir: Path, participants: Sequence[str] | None) -> dict[str, list[Path]]:
    """Give the scans of each subject asked for, subjects in order."""
    if not bids_dir.is_dir():
        raise UserError(f"{bids_dir}: there is no such folder; give a BIDS dataset")
    scans: dict[str, list[Path]] = {
        folder.name: [] for folder in sorted(bids_dir.glob("sub-*/")) if folder.is_dir()
    }
    if participants is not None:
        wanted = {f"sub-{name.removeprefix('sub-')}" for name in participants}
        unknown = ", ".join(sorted(wanted - set(scans)))
        if unknown:
            raise UserError(f"{bids_dir}: holds no {unknown}; choose among its subjects")
        scans = {subject: paths for subject, paths in scans.items() if subject in wanted}
    for subject, paths in scans.items():
        for inside in ("dwi", "ses-*/dwi"):
            for suffix in NIFTI_SUFFIXES:
                paths += sorted((bids_dir / subject).glob(f"{inside}/{subject}*_dwi{suffix}"))
    if not any(scans.values()):
        raise UserError(f"{bids_dir}: holds no scan named sub-*_dwi.nii.gz; give a BIDS dataset")
    return scans


def _ask_model(
    model: Path,
    target: str | Sequence[str],
    platform: str | None,
    scans: dict[str, list[Path]],
    check: bool,
) -> tuple[tuple[str, ...], str | None]:
    """Give the targets, and the platform where a subject has several scans to choose from."""
    targets = (target,) if isinstance(target, str) else tuple(target)
    everything = targets == (ALL_TARGETS,)
    several = platform is None and any(len(paths) > 1 for paths in scans.values())
    if everything or several or check:
        from napari_msp.model_file import load_model

        known = load_model(model)
        targets = tuple(known.targets) if everything else targets
        for each in targets:
            known.single(each)  # a mistyped target is one error, not one a subject
        platform = known.card.input if several else platform
    return targets, platform


def _choose_scan(bids_dir: Path, subject: str, paths: list[Path], platform: str | None) -> Path:
    if platform is not None:
        session, _, protocol = platform.partition("_")
        paths = [
            path
            for path in paths
            if {f"ses-{session}", f"acq-{protocol}"} <= set(nifti_stem(path).split("_"))
        ]
    if not paths:
        what = "DWI" if platform is None else f"DWI on {platform}"
        raise UserError(f"{bids_dir / subject}: holds no {what}; add one or choose --platform")
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"{bids_dir / subject}: holds several DWI ({names}); choose --platform")
    return paths[0]


def _finished(task: _Task) -> bool:
    """Tell whether this model has written every target of a scan."""
    bare = nifti_stem(task.dwi).removesuffix("_dwi")
    for target in task.targets:
        label = "".join(character for character in target if character.isalnum())
        sidecars = task.out.glob(f"{bare}_desc-{label}[A-Z]*_dwi.json")
        if not any(_made_by(sidecar, task.model) for sidecar in sidecars):
            return False
    return True


def _made_by(sidecar: Path, model: Path) -> bool:
    try:
        made_by = read_json(sidecar).get("Model")
    except UserError:
        return False
    image = sidecar.with_suffix(".nii.gz")
    if not image.exists() or not isinstance(made_by, dict) or made_by.get("File") != model.name:
        return False
    # A model trained anew under an old name is another model.
    digest = made_by.get("Sha256")
    return digest is None or digest == sha256(model)


# --- Doing it --------------------------------------------------------------------------------


def _run_task(
    task: _Task, job: Job | None, cancelled: Callable[[], bool] | None = None
) -> CohortResult:
    """Harmonize one scan; whatever goes wrong becomes its result."""
    options = dict(task.options)
    work: Job
    if job is None:
        from napari_msp.inference.outputs import harmonize_to_folder

        work = harmonize_to_folder
    else:
        work = job
    if cancelled is not None:
        options["cancelled"] = cancelled
    status: Literal["done", "failed"] = "done"
    error = ""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        # What is doubtful about a scan belongs in its row: a worker's log is read by nobody.
        warnings.simplefilter("always", UserWarning)
        try:
            work(task.dwi, task.model, task.targets, task.out, **options)
        except Cancelled:
            raise
        except UserError as mistake:
            status, error = "failed", str(mistake)
        except Exception as failure:  # whatever it is, it must not stop the other subjects
            status, error = "failed", f"{type(failure).__name__}: {failure}"
    doubts = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    lines = ([error] if error else []) + list(dict.fromkeys(doubts))
    message = " ".join("; ".join(lines).split())
    return CohortResult(task.subject, task.scan, status, time.perf_counter() - start, message)


def _run_here(
    tasks: list[_Task], job: Job | None, cancelled: Callable[[], bool] | None
) -> Iterator[CohortResult]:
    for task in tasks:
        if cancelled is not None and cancelled():
            raise Cancelled
        yield _run_task(task, job, cancelled)


def _run_on_dask(
    tasks: list[_Task],
    job: Job | None,
    workers: int,
    scheduler: str | None,
    cancelled: Callable[[], bool] | None,
) -> Iterator[CohortResult]:
    try:
        dask: Any = import_module("distributed")
    except ImportError as error:
        raise UserError(
            "--workers, --scheduler: Dask is not installed; run pip install 'napari-msp[cohort]'"
        ) from error
    if not tasks:
        return
    if scheduler is not None:
        cluster = None
        try:
            client = dask.Client(scheduler, timeout=SCHEDULER_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(
                f"--scheduler {scheduler}: does not answer; start one with `dask scheduler`, or "
                "use --workers"
            ) from error
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
        of_future = {client.submit(_run_task, task, job, pure=False): task for task in tasks}
        for future in dask.as_completed(list(of_future), loop=client.loop):
            if cancelled is not None and cancelled():
                raise Cancelled
            lost = future.exception()
            if lost is None:
                yield future.result()
            else:  # the worker itself died, for want of memory for instance
                task = of_future[future]
                message = " ".join(f"the worker was lost ({lost})".split())
                yield CohortResult(task.subject, task.scan, "failed", 0.0, message)
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


# --- Telling it ------------------------------------------------------------------------------


def _describe(out_dir: Path) -> None:
    """Make the derivative dataset's description, unless there is one."""
    if not (out_dir / DESCRIPTION).exists():
        from napari_msp.inference.provenance import derivative_description

        write_json(out_dir / DESCRIPTION, derivative_description("harmonized scans"))


def _write_table(out_dir: Path, results: list[CohortResult]) -> None:
    lines = ["participant_id\tscan\tstatus\tseconds\tmessage"]
    for result in sorted(results, key=lambda result: result.subject):
        row = asdict(result) | {"seconds": f"{result.seconds:.1f}"}
        lines.append("\t".join(value or "n/a" for value in row.values()))
    write_text(out_dir / TABLE, "\n".join(lines) + "\n")
