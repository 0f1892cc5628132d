"""Train a model from travelling heads: to a file, as a run with its own folder, or in no step."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from napari_msp.data.dataset import TravellingHeads, as_dataset
from napari_msp.errors import (
    Advice,
    Cancelled,
    Choose,
    Give,
    Overwrite,
    Poll,
    Resume,
    UserError,
    either,
)
from napari_msp.files import refuse_unwritable, reserved
from napari_msp.learning.checkpoint import START_ANEW
from napari_msp.learning.distributed import launched
from napari_msp.learning.events import (
    Event,
    EventHandler,
    EventLog,
    Failed,
    Finished,
    Stopped,
    Validated,
    phase_name,
)
from napari_msp.learning.heads import Study, prepare_study
from napari_msp.learning.loop import TrainingRun
from napari_msp.learning.phases import TrainedNetworks, describe_run, make_model
from napari_msp.learning.runs import RunFolder, checkpoint_path
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings, put_over, training_settings
from napari_msp.learning.start_matching import describe_start, match_platforms
from napari_msp.learning.starts import Start, StartDoubt, read_start
from napari_msp.learning.validation import validate
from napari_msp.model_file import check_model_name, save_model
from napari_msp.options import several


def train(
    dataset: str | Path | TravellingHeads,
    out: str | Path,
    settings: TrainingSettings | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    progress: EventHandler | None = None,
    cancelled: Poll | None = None,
    previews: str | Path | None = None,
    **values: Any,
) -> Path | None:
    """Train a model and write it.

    A checkpoint is kept beside `out` after every epoch and when the run is stopped; it is removed
    once the model is written.

    Processes that a launcher such as torchrun started together train together, each computing a
    share of every step, with the same result as one. Only the first one writes and calls
    `progress`.

    Parameters
    ----------
    dataset
        Travelling heads, or their BIDS folder.
    out
        Model file to write, ending in .safetensors.
    settings
        Settings of the training.
    device
        "auto", "cpu", "cuda" or "mps".
    resume
        Whether to continue from the checkpoint beside `out`.
    force
        Whether to replace a model, and to start again if there is a checkpoint; with `resume` only
        if that cannot be continued, with a warning, and it is moved aside (several processes
        refuse instead).
    progress
        Called with every event.
    cancelled
        Polled before every step, and within validation; True ends the run with a checkpoint.
        Without steps to do it is polled before every scan, and nothing is kept.
    previews
        Folder for predictions of the first held-out subject, rewritten with every validation. The
        untrained network is then validated too. None are made without steps to do.
    **values
        Fields of `TrainingSettings`, such as ``kind="msp", width=0.2``, which override those of
        `settings`. ``start_from`` is "nothing", "base" or the path of a model, and
        ``start_from_target={"trio": "prisma_st"}`` states which of its platforms a target begins
        as.

    Returns
    -------
    The model's path, or None when the run was stopped.

    Raises
    ------
    UserError
        When data, settings or checkpoint cannot be used.
    """
    report = progress or _say_nothing
    stopped = cancelled or (lambda: False)
    out = Path(out)
    began = perf_counter()
    check_model_name(out)
    try:
        with launched() as processes, ExitStack() as alone:
            if not processes.first:
                report = _say_nothing
            with processes.agreeing():
                where = processes.device(device)
                refuse_unwritable(out)
                if processes.first:
                    alone.enter_context(reserved(out))
                replaces = force or out.exists()
                if not force:
                    _refuse_finished(out) if resume else _refuse_occupied(out)
                wanted = ({} if settings is None else settings.model_dump()) | values
                subjects = several(wanted.get("subjects") or ())
                heads = as_dataset(dataset, wanted.get("run"), only=subjects)
                heads.tell()
                if values or settings is None:
                    given = {} if settings is None else settings.model_dump(exclude_unset=True)
                    settings = training_settings(heads, **put_over(given, values))
                if settings.b0_threshold is not None:
                    heads = replace(heads, b0_threshold=settings.b0_threshold)
                settings, start = read_start(settings, heads)
                _refuse_idle(settings, processes.count)
            # Seeding is for this run only: the caller's random numbers are not affected.
            with torch.random.fork_rng([where] if where.type == "cuda" else []):
                if settings.steps == 0:
                    known = (heads, settings, start, out, where, report, stopped)
                    return processes.by_first(partial(_write_untrained, *known))
                with processes.agreeing():
                    study = prepare_study(heads, settings, start.per_order)
                    study, start = match_platforms(start, study, where)
                folder = None if previews is None else Path(previews)
                run = TrainingRun(
                    study, out, where, report, folder, start, began, processes, replaces
                )
                return run.run(resume, stopped, anew=force)
    except Exception as error:
        report(Failed.of(error))
        raise


def run_in_folder(
    folder: RunFolder,
    *,
    resume: bool = False,
    progress: EventHandler | None = None,
    cancelled: Poll | None = None,
) -> Path | None:
    """Train as the folder says, and write every event into it.

    Parameters
    ----------
    resume
        Whether to continue from the checkpoint. Without one the run starts again either way.
    progress, cancelled
        As for `train`.

    Returns
    -------
    The model's path, or None when the run was stopped.

    Raises
    ------
    UserError
        As from `train`, and when the run is finished, is executed by another process, or was
        stopped and `resume` is not given.
    """
    with reserved(folder.path):
        if folder.model_path.exists():
            raise UserError(
                "is finished", folder.path, "folder", Advice("start another run in a new folder")
            )
        going_on = folder.resumable
        if going_on and not resume:
            raise UserError(
                "the run was stopped",
                folder.checkpoint_path,
                "resume",
                either(Resume(), Advice("delete this file to start over")),
            )
        if not going_on:
            folder.events_path.unlink(missing_ok=True)
            shutil.rmtree(folder.previews, ignore_errors=True)
        with EventLog(folder.events_path) as log:

            def report(event: Event) -> None:
                log.write(event)
                if progress is not None:
                    progress(event)

            return train(
                folder.dataset,
                folder.model_path,
                folder.settings,
                device=folder.device,
                resume=going_on,
                progress=report,
                cancelled=cancelled,
                previews=folder.previews,
            )


def _say_nothing(event: Event) -> None:
    """Ignore the event: the first process reports."""


def _refuse_idle(settings: TrainingSettings, processes: int) -> None:
    """Refuse fewer examples than processes."""
    batch = recipe_for(settings).batch
    if settings.steps != 0 and batch < processes:
        problem = f"{batch} examples a step are too few for {processes} processes"
        raise UserError(problem, field="batch", remedy=Give("batch", f"at least {processes}"))


def _refuse_finished(out: Path) -> None:
    """Refuse to continue a finished model."""
    if out.exists() and not checkpoint_path(out).exists():
        raise UserError("is finished", out, "resume", Overwrite("train again"))


def _refuse_occupied(out: Path) -> None:
    """Refuse to overwrite hours of another run."""
    if out.exists():
        raise UserError("exists already", out, "out", Overwrite())
    if checkpoint_path(out).exists():
        raise UserError(
            "a run was stopped here", checkpoint_path(out), "out", either(Resume(), START_ANEW)
        )


# --- Without training -------------------------------------------------------------------------
#
# Statistics of a platform need no pairs: any people scanned on it will do. But differences between
# two groups of people (age, illness, head motion) are then mistaken for differences between their
# scanners.

FEW = 5
"""Number of people per platform below which statistics are reported as based on few people."""


def _write_untrained(
    dataset: TravellingHeads,
    settings: TrainingSettings,
    start: Start,
    out: Path,
    device: torch.device,
    report: EventHandler,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Write a model with a start's weights and a dataset's statistics.

    Parameters
    ----------
    dataset
        People scanned on any of the platforms; nobody need be scanned on two.
    settings, start
        Result of `read_start`.
    device
        Device for testing it on those who were scanned on both input and target.
    cancelled
        Polled before every scan and before the file is written.

    Returns
    -------
    `out`; None if it was stopped, which leaves nothing, as starting again takes little time.

    Raises
    ------
    UserError
        When there is nothing to start from, nobody was scanned on a platform, or it is not known
        what a target begins as.

    Warns
    -----
    StartDoubt
        When statistics are based on few people, or on different people for input and target.
    """
    if start.loaded is None:
        problem = "must be at least 1, as there is no model to start from"
        raise UserError(problem, field="steps", remedy=Give("start_from", "a model"))
    try:
        study = prepare_study(dataset, settings, start.per_order, False, cancelled)
    except Cancelled:
        _tell_stopped(out, report)
        return None
    study, start = match_platforms(start, study, device)
    for target in study.scales:
        if target not in start.platforms:
            problem = f"has no network that {target} can begin as, and no step is trained"
            remedy = Choose("targets", tuple(start.platforms))
            raise UserError(problem, start.name, "targets", remedy)
    doubts = tuple(_doubts(study))
    for words in doubts:
        warnings.warn(words, StartDoubt, stacklevel=3)
    start = replace(start, doubts=start.doubts + doubts)
    networks = TrainedNetworks(study.settings, study.scales, study.standardisation, start)
    finished = networks.to(device).finished()
    report(describe_run(study, networks, start, device, phases=[], steps=0, resumed_at=0))
    paired = {target: network for target, network in finished.items() if study.paired(target)}
    report(describe_start(start, study, paired, device))
    phase = phase_name(study.settings.kind, *study.scales)
    errors = {
        target: validate(study, network, device)[target].error
        for target, network in finished.items()
        if study.judged(target)
    }
    if errors:
        report(Validated(phase, 0, 0, 0.0, errors))
    if cancelled():
        _tell_stopped(out, report)
        return None
    run = {
        "held_out_sh_mse": {phase: errors} if errors else {},
        "statistics": {platform: len(those) for platform, those in study.scanned.items()},
        "steps": 0,
        "seconds": 0.0,
        "device": str(device),
        "start": start.ancestry(),
    }
    save_model(out, make_model(study, finished, run))
    report(Finished(str(out), 0.0, errors))
    return out


def _tell_stopped(out: Path, report: EventHandler) -> None:
    """Report that it was stopped; resuming starts again."""
    report(Stopped(0, str(checkpoint_path(out))))


def _doubts(study: Study) -> Iterator[str]:
    """Yield doubts about the people whose statistics are used."""
    scanned, source = study.scanned, study.settings.input
    few = [f"{platform} {len(those)}" for platform, those in scanned.items() if len(those) < FEW]
    if few:
        yield f"statistics come from few people ({', '.join(few)})"
    others = [each for each, those in scanned.items() if set(those) != set(scanned[source])]
    if others:
        yield (
            f"different people were scanned on {source} and {', '.join(others)}: differences "
            "between people count as scanner effects"
        )
