"""How long to train: held-out error against steps for each kind, and both presets at equal time.

    python benchmarks/presets.py HEADS [--seconds 240] [--out benchmarks/results]
    python benchmarks/presets.py HEADS --steps 750 [--heads-used 1 4] [--kinds KIND ...]

HEADS is a dataset of `napari-msp simulate`. By seconds its last subject is held out. The paper's
recipe runs on a few hundred in-mask voxels a head, the fast one on dense crops. Both runs are
stopped after the same training time (validation is not counted), one after the other.

By steps its last two subjects are judged by, and the fast preset learns from the first one, or the
first four: along half a cosine, as where the length is given, and at a rate that is held and falls
in the last fifth, as where validation subjects end a run. There the error of the averaged weights
at any step is about that of a run that ends there. Curves that are in the table are not drawn anew,
so that the command can be interrupted and given again.
"""

import argparse
import csv
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_msp.data.dataset import open_dataset
from napari_msp.formatting import counted
from napari_msp.learning.events import Event, Started, Validated, kind_and_targets
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.networks.registry import single_kinds, title

VOXELS_PER_HEAD = 200
JUDGES = 2
POINTS = 15
SCHEDULES = {"cosine": None, "held": 1_000}
"""Patience of each: one that never runs out, so that lengths are equal."""
TARGETS = ("prisma_st", "connectom_sa")

Curve = list[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--width", type=float, default=0.28)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=0, help="of a curve; 0: by seconds")
    parser.add_argument("--heads-used", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--kinds", nargs="+", default=[*single_kinds(), "msp"])
    parser.add_argument("--target", default="prisma_st")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--crop", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.steps:
        by_steps(options)
        return
    held_out = open_dataset(options.heads).subjects[-1]
    curves = {
        (target, preset): learning_curve(options, preset, target, held_out)
        for target in TARGETS
        for preset in ("paper", "fast")
    }
    write_csv(curves, options.out / "presets.csv")
    draw(curves, options.out / "presets.png")
    for target in TARGETS:
        paper, fast = curves[target, "paper"][-1][1], curves[target, "fast"][-1][1]
        print(f"{target}: paper {paper:.2e}, fast {fast:.2e}, ratio {paper / fast:.2f}")


def learning_curve(
    options: argparse.Namespace, preset: Literal["paper", "fast"], target: str, held_out: str
) -> Curve:
    """Train until the time is up; give (seconds, held-out SH MSE) after each epoch."""
    epochs = 10_000 if preset == "paper" else fast_epochs(options, target, held_out)
    settings = TrainingSettings(
        start_from="nothing",
        kind="shresnet",
        preset=preset,
        targets=(target,),
        held_out=(held_out,),
        width=options.width,
        epochs=epochs,
        voxels_per_head=VOXELS_PER_HEAD if preset == "paper" else None,
    )
    return run(options, settings, options.seconds)


def fast_epochs(options: argparse.Namespace, target: str, held_out: str) -> int:
    """Measure how many epochs fit: the fast schedule falls to 0 at its end, so it must know."""
    settings = TrainingSettings(
        start_from="nothing",
        kind="shresnet",
        targets=(target,),
        held_out=(held_out,),
        width=options.width,
        epochs=4,
    )
    seconds = run(options, settings, float("inf"))[-1][0] / 4
    return max(1, int(options.seconds / seconds))


def run(options: argparse.Namespace, settings: TrainingSettings, seconds: float) -> Curve:
    """Train, stopping when the steps have taken `seconds`."""
    curve: Curve = []
    ends = time.perf_counter() + seconds

    def follow(event: Event) -> None:
        nonlocal ends
        if isinstance(event, Started):
            ends = time.perf_counter() + seconds
        if isinstance(event, Validated):
            (error,) = event.errors.values()  # of the one target
            curve.append((event.seconds, error))
            # The clock of the run leaves validation out, so the deadline moves with it.
            ends = time.perf_counter() + seconds - event.seconds

    with TemporaryDirectory() as folder:
        train(
            options.heads,
            Path(folder) / "model.safetensors",
            settings,
            device="cpu",
            progress=follow,
            cancelled=lambda: time.perf_counter() > ends,
        )
    return curve


def write_csv(curves: dict[tuple[str, str], Curve], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["target", "preset", "seconds", "held_out_sh_mse"])
        for (target, preset), curve in curves.items():
            writer.writerows([target, preset, f"{t:.1f}", f"{e:.6e}"] for t, e in curve)


def draw(curves: dict[tuple[str, str], Curve], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, target in zip(figure.subplots(1, len(TARGETS), sharey=True), TARGETS, strict=True):
        for preset in ("paper", "fast"):
            seconds, errors = zip(*curves[target, preset], strict=True)
            axes.plot(seconds, errors, label=preset, linewidth=2, marker=".")
        axes.set(title=target, xlabel="training time (s)", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("held-out SH MSE")
    figure.axes[0].legend(frameon=False)
    figure.suptitle(f"Presets at equal time, {torch.get_num_threads()} CPU threads", fontsize=11)
    figure.savefig(path, dpi=150)


# --- Error against steps ----------------------------------------------------------------------


def by_steps(options: argparse.Namespace) -> None:
    """Draw the curves that are missing, and the figure of all."""
    table = options.out / "steps.csv"
    for kind in options.kinds:
        for heads in options.heads_used:
            for schedule in SCHEDULES:
                of_which = (kind, heads, schedule)
                if not any(row[:3] == of_which for row in read_steps(table)):
                    curve = steps_curve(options, *of_which)
                    with table.open("a", newline="") as file:
                        csv.writer(file).writerows((*of_which, n, f"{e:.6e}") for n, e in curve)
                    print(*of_which, f"{curve[-1][1]:.3e}", flush=True)
    draw_steps(read_steps(table), options.out / "steps.png", options.target)


Row = tuple[str, int, str, int, float]
"""Kind, heads, schedule, step and error."""


def steps_curve(
    options: argparse.Namespace, kind: str, heads: int, schedule: str
) -> list[tuple[int, float]]:
    """Give (step, SH MSE on the judges) of the phase whose network is the model."""
    subjects = open_dataset(options.heads).subjects
    judges = tuple(subjects[-JUDGES:])
    settings = TrainingSettings(
        start_from="nothing",
        kind=kind,
        targets=(options.target,) if kind != "msp" else (),
        subjects=(*subjects[:heads], *judges),
        validation=judges,
        width=options.width,
        batch=options.batch,
        crop=options.crop,
        steps=options.steps,
        steps_per_epoch=-(-options.steps // POINTS),
        patience=SCHEDULES[schedule],
    )
    curve: list[tuple[int, float]] = []

    def follow(event: Event) -> None:
        if not isinstance(event, Validated) or kind_and_targets(event.phase)[0] != kind:
            return
        if options.target in event.validation and event.epoch:
            step = min(options.steps, event.epoch * (settings.steps_per_epoch or 1))
            curve.append((step, event.validation[options.target]))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        train(options.heads, path, settings, device="cpu", progress=follow)
    return curve


def read_steps(table: Path) -> list[Row]:
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return [(k, int(n), how, int(step), float(e)) for k, n, how, step, e in csv.reader(file)]


def draw_steps(rows: list[Row], path: Path, target: str) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    counts = sorted({row[1] for row in rows})
    for axes, heads in zip(
        figure.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts, strict=True
    ):
        for number, kind in enumerate(dict.fromkeys(row[0] for row in rows)):
            for schedule, dashes in zip(SCHEDULES, ("--", "-"), strict=True):
                points = [
                    (row[3], 1e5 * row[4]) for row in rows if row[:3] == (kind, heads, schedule)
                ]
                if points:
                    look = {"color": f"C{number}", "linestyle": dashes, "marker": "."}
                    name = f"{title(kind)}, {schedule}"
                    axes.plot(*zip(*points, strict=True), label=name, linewidth=1.5, **look)
        axes.set(title=f"{counted(heads, 'head')}", xlabel="steps", yscale="log")
        for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatted("{x:.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("held-out SH MSE (10⁻⁵)")
    figure.axes[-1].legend(frameon=False)
    figure.suptitle(f"{target}: averaged weights", fontsize=11)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
