"""Harmonize one scan of every subject of a dataset."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Unpack

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.cohort.cluster import Cluster, open_cluster
from napari_msp.cohort.jobs import CohortResult, Job, Poll, Task, run_task
from napari_msp.cohort.scans import (
    ask_model,
    by_platform,
    check_platform,
    choose_scan,
    find_scans,
)
from napari_msp.cohort.table import Table
from napari_msp.errors import PYTHON, Advice, Cancelled, UserError, Words
from napari_msp.options import Options, OptionSettings


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
    tell: Callable[[str], None] | None = None,
    cancelled: Poll | None = None,
    job: Job | None = None,
    words: Words = PYTHON,
    **settings: Unpack[OptionSettings],
) -> list[CohortResult]:
    """Harmonize one scan of each subject of a BIDS dataset.

    Results go to `<out_dir>/sub-<label>/[ses-<label>/]dwi/`; `cohort.tsv` in `out_dir` says what
    became of each subject and is updated as it runs. Scans that an earlier run finished are
    skipped: those of which image, gradient table, mask, model and options are the same.

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
        Address of a running Dask scheduler, such as "tcp://host:8786", in place of `workers`. Its
        workers must see both folders and the model by the same paths; each does one scan at a time.
    options, **settings, gradients
        As for `harmonize_to_folder`, on the CPU unless another device is named. Several workers on
        one GPU share its memory.
    force
        Harmonize finished scans again.
    review_maps
        Write small maps for a review too, see `inference.review_maps`.
    progress
        Called with each result, the number of results and their total, in order of completion.
    tell
        Gets what a person should know of a scheduler, in words: who works, where to watch.
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
        Dask is missing, its scheduler does not answer or a worker of it cannot do the work.
        What is wrong with one scan stands in its result.
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
    with ExitStack() as stack:
        cluster: Cluster | None = None
        if scheduler is not None:  # before all else: it may not be there
            seen = (bids_dir, model)
            cluster = stack.enter_context(
                open_cluster(workers, scheduler, seen, tell or _say_nothing)
            )
        scans = {
            subject: by_platform(subject, paths, run)
            for subject, paths in find_scans(bids_dir, participants, sessions).items()
        }
        if platform is not None:
            check_platform(bids_dir, platform, scans)
        asked = ask_model(model, target, platform, scans, check=job is None)
        if asked.platform is not None and platform is None:
            check_platform(bids_dir, asked.platform, scans)
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
        tasks: list[Task] = []
        settled: list[CohortResult] = []
        for subject, found in scans.items():
            try:
                dwi = choose_scan(bids_dir, subject, found, asked.platform)
            except UserError as error:
                settled.append(CohortResult(subject, "", "failed", 0.0, error))
                continue
            inside = dwi.relative_to(bids_dir)
            scan, folder = inside.as_posix(), out_dir / inside.parent
            tasks.append(
                Task(job, subject, scan, dwi, model, asked.targets, folder, passed, asked.kind)
            )
        if cluster is None and workers > 1 and tasks:
            few = min(workers, len(tasks))
            cluster = stack.enter_context(open_cluster(few, None, (), _say_nothing))
        describe_derivative(out_dir, out_dir, HARMONIZED, bids_dir)
        table, results = Table(out_dir, words), list[CohortResult]()
        running = _run_here(tasks, cancelled) if cluster is None else cluster.run(tasks, cancelled)
        try:
            for result in chain(settled, running):
                results.append(result)
                table.add(result)
                if progress is not None:
                    progress(result, len(results), len(settled) + len(tasks))
        finally:
            if results:
                table.write()
    return sorted(results, key=lambda result: result.subject)


def _run_here(tasks: Sequence[Task], cancelled: Poll | None) -> Iterator[CohortResult]:
    for task in tasks:
        if cancelled is not None and cancelled():
            raise Cancelled
        yield run_task(task, cancelled)


def _say_nothing(_: str) -> None:
    pass
