"""Held-out error of both presets against training time: same network, heads, threads and time.

    python benchmarks/presets.py HEADS [--seconds 240] [--out benchmarks/results]

HEADS is a dataset of `napari-msp simulate`; its last subject is held out. The paper's recipe runs
on a few hundred in-mask voxels a head, the fast one on dense crops. Both runs are stopped after the
same training time (validation is not counted), one after the other.
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
from napari_msp.learning.events import Event, Started, Validated
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train

VOXELS_PER_HEAD = 200
TARGETS = ("prisma_st", "connectom_sa")

Curve = list[tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--width", type=float, default=0.28)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    held_out = open_dataset(options.heads).subjects[-1]
    curves = {
        (target, preset): learning_curve(options, preset, target, held_out)
        for target in TARGETS
        for preset in ("paper", "fast")
    }
    options.out.mkdir(parents=True, exist_ok=True)
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
        kind="shresnet", targets=(target,), held_out=(held_out,), width=options.width, epochs=4
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
            on_event=follow,
            stop_requested=lambda: time.perf_counter() > ends,
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


if __name__ == "__main__":
    main()
