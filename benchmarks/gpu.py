"""Everything about a GPU at once, in under ten minutes: one table.

    python benchmarks/gpu.py [--device cuda] [--out benchmarks/gpu.md]
    python benchmarks/gpu.py --device cpu --smoke      # a small form, for machines without one

Measures the prediction of a whole brain of 2.4 mm at 1.2 mm, with its transfers, in float32 and in
half precision, and how far the latter is off; where its time goes; whether `torch.compile` pays;
and training of the MSP at full width with the paper's preset. Without a GPU it says so, and the
exit status is 2.
"""

import argparse
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import fullsize

from napari_msp.data.phantom.simulate import simulate
from napari_msp.inference.harmonize import predict_targets
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import PreparedInput, UnlikeTraining, prepare_input
from napari_msp.learning.events import Event, Step
from napari_msp.learning.train import train
from napari_msp.model_file import Model
from napari_msp.networks.layers import Width
from napari_msp.options import Options, Precision

Row = tuple[str, str, str]

FINE = "connectom_sa"

GOAL = 1.0
"""Seconds for a whole brain, with transfers."""

HALF = 1e-3
"""What half precision may be off by, in SH units."""

HEAD = """\
# On a GPU

`python benchmarks/gpu.py --out benchmarks/gpu.md` measured all of it, in under ten minutes.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="small: seconds, on a CPU too")
    parser.add_argument("--out", type=Path, help="write the table there as well, in Markdown")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu.py: this machine has no GPU that torch knows; nothing was measured "
              "(--device cpu --smoke runs a small form)", file=sys.stderr)  # fmt: skip
        return 2
    device = torch.device(options.device)
    rows: list[Row] = [("machine", described(device), "")]
    width: Width = 0.05 if options.smoke else "paper"
    known = fullsize.model("msp", fullsize.TWO, width)
    prepared = prepare_input(known, fullsize.head(9 if options.smoke else 61))
    repeats = 2 if options.smoke else 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikeTraining)  # nothing was trained
        for part in (inference, where_time_goes, compiled, tiles):
            rows += guarded(part, known, prepared, device, repeats)
    rows += guarded(training, device, width, options.smoke)
    table = "\n".join(f"| {' | '.join(row)} |" for row in (("what", "measured", "goal"), *rows))
    table = table.replace("\n", "\n| --- | --- | --- |\n", 1)
    print(table)
    if options.out:
        options.out.write_text(f"{HEAD}{table}\n", encoding="utf-8")
    return 0


def guarded(part: Callable[..., list[Row]], *given: Any) -> list[Row]:
    """Measure one part; one that fails is a row that says so, and hides no other."""
    try:
        return part(*given)
    except Exception as error:
        return [(part.__name__, f"failed: {type(error).__name__}: {error}".splitlines()[0], "")]


def described(device: torch.device) -> str:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{name}; Python {platform.python_version()}, torch {torch.__version__}"


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Give the median, all work of the device done, after a call that does not count."""
    times = []
    for _ in range(repeats + 1):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- Prediction ------------------------------------------------------------------------------


def predicted(
    model: Model, prepared: PreparedInput, device: torch.device, precision: Precision
) -> list[Prediction]:
    options = Options(device=str(device), precision=precision)
    return list(predict_targets(model, prepared, model.targets, options))


def predict_fine(
    model: Model, prepared: PreparedInput, device: torch.device, **settings: Any
) -> Prediction:
    """Predict the target of finer voxels."""
    options = Options(device=str(device), **settings)
    return next(predict_targets(model, prepared, [FINE], options))


def inference(
    model: Model, prepared: PreparedInput, device: torch.device, repeats: int
) -> list[Row]:
    """Time a whole brain in both precisions; say how far the quicker one is off."""
    rows: list[Row] = []
    edge, goal = prepared.image.mask.shape[0], f"{GOAL:g} s"
    gave: dict[Precision, Prediction] = {}
    for precision in ("float32", "float16"):
        name: Precision = precision

        def fine(name: Precision = name) -> None:
            gave[name] = predict_fine(model, prepared, device, precision=name)

        took = seconds(fine, device, repeats)
        rows.append((f"{edge}³ of 2.4 mm → 1.2 mm, {name}, with transfers", f"{took:.3f} s", goal))
        took = seconds(partial(predicted, model, prepared, device, name), device, repeats)
        rows.append((f"the same, both targets, {name}", f"{took:.3f} s", ""))
    exact, rounded = (gave[name].sh for name in ("float32", "float16"))
    off = np.abs(exact.coefficients - rounded.coefficients)
    said = f"{off.max():.1e} at most, {np.sqrt(np.square(off).mean()):.1e} rms, SH units"
    rows.append(("float16 off float32 by", said, f"{HALF:g}"))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        predict_fine(model, prepared, device)
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        rows.append(("GPU memory at most, float32", f"{peak:.2f} GiB", ""))
    return rows


def bare(model: Model, prepared: PreparedInput, device: torch.device) -> tuple[Any, torch.Tensor]:
    """Give the network for all targets, and what it reads, on the device."""
    [network] = model.together(model.targets)
    channels = model.standardisation(model.card.input).apply(prepared.image)
    x = torch.from_numpy(channels).permute(3, 0, 1, 2)[None].to(device)
    return network.to(device), x.contiguous(memory_format=torch.channels_last_3d)


def where_time_goes(
    model: Model, prepared: PreparedInput, device: torch.device, repeats: int
) -> list[Row]:
    """Time the network alone by layout and precision, the transfers, and the costliest kernels."""
    network, x = bare(model, prepared, device)
    rows: list[Row] = []

    def call(x: torch.Tensor, dtype: torch.dtype | None = None) -> Any:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=bool(dtype)):
            return network(x)

    try:
        for layout, given in (("channels last", x), ("channels first", x.contiguous())):
            for name, dtype in (("float32", None), ("float16", torch.float16)):
                took = seconds(partial(call, given, dtype), device, repeats)
                rows.append((f"network alone, {layout}, {name}", f"{took:.3f} s", ""))
        back = torch.empty((28, *(2 * n - 1 for n in x.shape[2:])), device=device)
        took = seconds(lambda: back.cpu(), device, repeats)
        rows.append(("one fine image back, unpinned", f"{took:.3f} s", ""))
        if device.type == "cuda":
            place = torch.empty(back.shape, pin_memory=True)
            took = seconds(lambda: place.copy_(back, non_blocking=True), device, repeats)
            rows.append(("one fine image back, pinned", f"{took:.3f} s", ""))
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profile:
            call(x)
            wait(device)
        field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        events = sorted(profile.key_averages(), key=lambda e: -getattr(e, field, 0))
        whole = sum(getattr(each, field, 0) for each in events) or 1
        for each in events[:5]:
            share = getattr(each, field, 0) / whole
            rows.append((f"of it `{each.key[:60]}`", f"{share:.0%}", ""))
    finally:
        network.to("cpu")
    return rows


def compiled(
    model: Model, prepared: PreparedInput, device: torch.device, repeats: int
) -> list[Row]:
    """Say whether `torch.compile` (with CUDA graphs) pays, and what it costs at first."""
    if device.type != "cuda":
        return [("torch.compile", "left out: for a GPU", "")]
    network, x = bare(model, prepared, device)
    try:
        quick: Callable[..., Any] = torch.compile(network, mode="reduce-overhead")

        def call() -> None:
            with torch.inference_mode():
                quick(x)

        began = time.perf_counter()
        call()
        wait(device)
        first = time.perf_counter() - began
        took = seconds(call, device, repeats)
        return [("network alone, compiled", f"{took:.3f} s, at first {first:.0f} s", "")]
    finally:
        network.to("cpu")


def tiles(model: Model, prepared: PreparedInput, device: torch.device, repeats: int) -> list[Row]:
    """Time the same in tiles: what a GPU with little memory would do."""
    edge = max(4, prepared.image.mask.shape[0] // 2)
    took = seconds(
        lambda: predict_fine(model, prepared, device, tile=edge),
        device,
        min(repeats, 2),
    )
    return [(f"in tiles of {edge}³", f"{took:.3f} s", "")]


# --- Training --------------------------------------------------------------------------------


def training(device: torch.device, width: Width, smoke: bool) -> list[Row]:
    """Time steps of the paper's preset: single networks, then MSPs."""
    times: dict[str, list[float]] = {}
    throughput: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Step):
            times.setdefault(event.phase, []).append(time.perf_counter())
            throughput[event.phase] = event.throughput

    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "heads", subjects=2, size="tiny", noise_free=False)
        train(
            Path(folder) / "heads",
            Path(folder) / "m.safetensors",
            device=str(device),
            progress=note,
            kind="msp",
            preset="paper",
            targets=list(fullsize.TWO),
            width=width,
            steps=2 if smoke else 60,
            unison_steps=2 if smoke else 60,
            voxels_per_head=12 if smoke else 2000,
        )
    rows: list[Row] = []
    for phase, when in times.items():
        steps = np.diff(when)[len(when) // 4 :] if len(when) > 2 else np.diff(when)
        said = f"{1000 * float(np.median(steps)):.1f} ms a step" if len(steps) else "one step"
        rows.append((f"training, paper preset, {phase}", said, ""))
    return rows


if __name__ == "__main__":
    sys.exit(main())
