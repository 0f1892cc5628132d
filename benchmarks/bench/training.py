"""Training beside the same networks fed by a TorchIO queue, and beside the paper's patches."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.comparing import Comparison, Setting, Sides, Subject, Table
from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.simulate import simulate
from napari_msp.learning import optimisation as optimising
from napari_msp.learning import sampling
from napari_msp.learning.distributed import ALONE
from napari_msp.learning.heads import Study, prepare_study
from napari_msp.learning.loop import TrainingRun
from napari_msp.learning.optimisation import Optimisation
from napari_msp.learning.sampling import Batch, Sampler
from napari_msp.learning.schedule import learning_rate
from napari_msp.learning.settings import training_settings
from napari_msp.learning.validation import validate

TARGET = "prisma_st"
CPU = torch.device("cpu")
SECONDS = (10, 20, 40, 80)
"""Of training, after which the error is measured."""

ABOUT = """\
Simulated heads (`simulate --size tiny`), one thing a row: steps of a SHResNet of full width that
learns prisma_st. *TorchIO's queue* feeds the same network, loss and optimiser with crops of the
same size around in-mask voxels; its images were standardised beforehand and it turns nothing,
which spares it work. What feeds a step is all that differs: loading is 1.7 % of a step of ours, so
a quicker one can gain no more; why ours is behind by another 2.5 % is not known. *A patch a voxel*
is the paper's recipe, 12 patches of 11³ a step, through the same code. Of steps, voxels in the loss
are counted: one of a patch takes the arithmetic that one of a crop takes, so ten times as many a
second cannot be, and what is gained comes from cubes that hold more of the brain. A pass of that
recipe centres a patch on every voxel of the mask, and so learns each hundreds of times; a pass of
ours covers each about once. What counts in the end is the error after seconds of either.
"""


@cache
def study(folder: Path, kind: str = "shresnet", targets: tuple[str, ...] = (TARGET,)) -> Study:
    """Prepare two heads to learn from and one to judge by, made where there are none."""
    if not (folder / "heads").exists():
        simulate(folder / "heads", subjects=3, size="tiny", noise_free=False)
    heads = open_dataset(folder / "heads")
    given = {"kind": kind, "targets": targets, "start_from": "nothing", "held_out": ["sub-03"]}
    return prepare_study(heads, training_settings(heads, **given), True)


def run_of(setting: Setting, **changes: Any) -> TrainingRun:
    """Give a run of the study with other settings; full width, where nothing else is said."""
    return _run(setting, study(setting.folder), **changes)


def _run(setting: Setting, known: Study, **changes: Any) -> TrainingRun:
    settings = known.settings.model_copy(update={"width": "paper", "seed": 0, **changes})
    here = replace(known, settings=settings)
    return TrainingRun(here, setting.folder / "none.safetensors", CPU, lambda _: None)


class Queue:
    """TorchIO's queue in the place of our sampler.

    Parameters
    ----------
    run
        Whose heads, statistics and crops.
    """

    steps_per_epoch = 1

    def __init__(self, run: TrainingRun) -> None:
        import torchio as tio

        known = run.study
        subjects = []
        for head in known.heads:
            truth, mask = head.targets[TARGET], torch.from_numpy(head.input.mask)
            both = mask & torch.from_numpy(truth.mask)
            images = [
                torch.from_numpy(known.standardisation[name].apply(image)).movedim(-1, 0)
                for name, image in ((known.settings.input, head.input), (TARGET, truth))
            ]
            subjects.append(
                tio.Subject(
                    input=tio.ScalarImage(tensor=images[0] * mask),
                    target=tio.ScalarImage(tensor=images[1] * both),
                    inside=tio.LabelMap(tensor=both[None].to(torch.uint8)),
                    centres=tio.LabelMap(tensor=mask[None].to(torch.uint8)),
                )
            )
        edge = min(run.recipe.patch, *(n for head in known.heads for n in head.input.mask.shape))
        sampler = tio.WeightedSampler(edge, "centres")
        self._queue = tio.Queue(tio.SubjectsDataset(subjects), 64, 16, sampler, num_workers=0)
        self._loader = tio.SubjectsLoader(self._queue, batch_size=run.recipe.batch, num_workers=0)
        self._batches = iter(self._loader)

    def batch(self, phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        """Take the next batch out of the queue."""
        found = next(self._batches, None)
        if found is None:
            self._batches = iter(self._loader)
            found = next(self._batches)
        values = {name: found[name]["data"] for name in ("input", "target", "inside")}
        masks = {TARGET: values["inside"].bool()}
        return Batch(
            values["input"].float(), {TARGET: values["target"].float()}, masks, {TARGET: 0}
        )


def steps_of(run: TrainingRun, sampler: Any = None) -> Optimisation:
    """Give the optimisation of a run's last phase, fed by its own sampler or another."""
    network = run.networks.of(run.networks.phases[-1])
    return Optimisation(
        network, 0, sampler or run.sampler, run.recipe, run.weights, run.device, ALONE
    )


def supervised(run: TrainingRun, sampler: Sampler | Queue, steps: int) -> float:
    """Count the in-mask target voxels of some steps."""
    return float(sum(sampler.batch(0, step).masks[TARGET].sum() for step in range(steps)))


@contextmanager
def beside_queue(setting: Setting) -> Iterator[Sides]:
    steps = 4 if setting.quick else 12
    first, second = run_of(setting), run_of(setting)
    queue = Queue(second)
    ours, theirs = steps_of(first), steps_of(second, queue)
    work = supervised(first, first.sampler, 40) / 40, supervised(second, queue, 40) / 40
    yield Sides(
        lambda: [ours.step(step) for step in range(steps)],
        lambda: [theirs.step(step) for step in range(steps)],
        work=(work[0] * steps, work[1] * steps),
    )


@contextmanager
def beside_patches(pass_: bool, setting: Setting) -> Iterator[Sides]:
    """Count voxels in the loss; or, of a pass, those that are done with: centres of patches."""
    steps = 3 if setting.quick else 6
    first, second = run_of(setting), run_of(setting, preset="paper", held_out=("sub-03",))
    ours, theirs = steps_of(first), steps_of(second)
    counted = supervised(first, first.sampler, 40) / 40
    repeated = second.recipe.batch if pass_ else supervised(second, second.sampler, 40) / 40
    yield Sides(
        lambda: [ours.step(step) for step in range(steps)],
        lambda: [theirs.step(step) for step in range(steps)],
        work=(counted * steps, repeated * steps),
    )


# --- Error against seconds -------------------------------------------------------------------


def errors(setting: Setting) -> Sequence[Sequence[str]]:
    """Train each way for a while; measure a head that is not learned from now and then."""
    ways: dict[str, Callable[[], tuple[TrainingRun, Optimisation]]] = {
        "ours": lambda: _way(run_of(setting)),
        "fed by TorchIO's queue": lambda: _way(queued := run_of(setting), Queue(queued)),
        "a patch a voxel": lambda: _way(run_of(setting, preset="paper", held_out=("sub-03",))),
    }
    return [[name, *_course(*way(), setting.quick)] for name, way in ways.items()]


def _way(run: TrainingRun, sampler: Queue | None = None) -> tuple[TrainingRun, Optimisation]:
    return run, steps_of(run, sampler)


def _course(run: TrainingRun, optimisation: Optimisation, quick: bool) -> list[str]:
    """Give the errors after each time; the rate falls over all of it, as in a run."""
    times = [each / 8 for each in SECONDS] if quick else SECONDS
    began, paused, step, found = time.perf_counter(), 0.0, 0, []
    pace = 0.0
    for end in times:
        while time.perf_counter() - began - paused < end:
            planned = max(step + 1, round(times[-1] / pace)) if pace else 1000
            rate = learning_rate(run.recipe, min(step, planned - 1), planned, planned)
            optimisation.step(step, rate=rate)
            step += 1
            pace = (time.perf_counter() - began - paused) / step
        stopped = time.perf_counter()
        error = validate(run.study, optimisation.network, CPU)[TARGET].error
        found.append(f"{1e5 * error:.1f}")
        paused += time.perf_counter() - stopped
    return [*found, f"{step}"]


# --- Where the time of a step goes -----------------------------------------------------------


def parts(setting: Setting) -> Sequence[Sequence[str]]:
    """Profile steps of networks of full width."""
    kinds = {"SHResNet": "shresnet", "DIQT": "diqt", "MSP of two targets": "msp"}
    return [[name, *_parts(setting, kind)] for name, kind in kinds.items()]


def _parts(setting: Setting, kind: str) -> list[str]:
    targets = (TARGET, "connectom_sa") if kind == "msp" else (TARGET,)
    measured = _run(setting, study(setting.folder, kind, targets))
    learning = steps_of(measured)
    learning.step(0)
    with ExitStack() as watched:
        for place, name, called in (
            (measured.sampler, "batch", "loading"),
            (sampling.Symmetry, "__call__", "rotations"),
            (optimising, "masked_error", "losses"),
            (torch.nn.utils, "clip_grad_norm_", "clipping"),
        ):
            recorded = _recorded(called, getattr(place, name))
            watched.enter_context(patch.object(place, name, recorded))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            began = time.perf_counter()
            steps = 1 if setting.quick else 3
            for step in range(1, steps + 1):
                learning.step(step)
            whole = time.perf_counter() - began
    shares = dict.fromkeys(PARTS, 0.0)
    for event in profiled.key_averages():
        inclusive, own = (1e-6 * t for t in (event.cpu_time_total, event.self_cpu_time_total))
        key = event.key
        if key in shares:
            shares[key] += inclusive
        elif key.startswith("Optimizer.step"):
            shares["clipping"] += inclusive
        elif "batch_norm" in key:
            shares["batch norm"] += own
        elif "conv" in key and not key.startswith("autograd::"):
            shares["convolutions"] += own
    shares["rest"] = whole - sum(shares.values()) + shares["rotations"]  # which loading has
    said = [f"{100 * seconds / whole:.1f}" for seconds in shares.values()]
    return [f"{1000 * whole / steps:,.0f}", *said]


PARTS = ("loading", "rotations", "convolutions", "batch norm", "losses", "clipping")


def _recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a profiler see a function under a name."""

    @wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        with record_function(name):
            return function(*given, **named)

    return called


SUBJECT = Subject(
    name="training",
    about=ABOUT,
    comparisons=[
        Comparison(
            name="steps of SHResNet",
            peer="TorchIO's queue",
            prepare=beside_queue,
            goal=1.2,
            unit="target voxels",
            needs=("torchio",),
            repeats=5,
        ),
        Comparison(
            name="steps of SHResNet",
            peer="a patch a voxel",
            prepare=partial(beside_patches, False),
            goal=10,
            unit="target voxels",
            repeats=5,
        ),
        Comparison(
            name="a pass of SHResNet",
            peer="a patch a voxel",
            prepare=partial(beside_patches, True),
            unit="voxels",
            repeats=3,
        ),
    ],
    tables=[
        Table(
            name="SH MSE (× 1e5) of a head that is not learned from, after seconds of training",
            columns=("", *map(str, SECONDS), "steps in all"),
            rows=errors,
            needs=("torchio",),
        ),
        Table(
            name="Where the time of a step goes, full width, in %",
            columns=(
                "",
                "ms a step",
                "loading",
                "of it rotations",
                "convolutions",
                "batch norm",
                "losses, forward",
                "clipping and Adam",
                "ReLU, sums and all else",
            ),
            rows=parts,
        ),
    ],
)
