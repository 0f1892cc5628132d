"""Time and memory of a prediction beyond its memory budget, each measured in a process of its own.

PYTHONPATH=benchmarks python -m bench.beyond KIND EDGE GIB
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from bench import fullsize
from bench.comparing import Setting
from napari_msp.inference.prepare import prepare_input
from napari_msp.inference.stages import GridPrediction, predict_on_grid
from napari_msp.options import Options

WIDTH = 0.28
"""Of the packaged models."""

PAUSE = 0.005
"""Seconds between two looks at the memory."""


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@contextmanager
def highest(found: list[int]) -> Iterator[None]:
    """Note the most memory that is taken while the block runs, beyond what was there before."""
    before, ended = resident(), threading.Event()

    def look() -> None:
        while not ended.wait(PAUSE):
            found[0] = max(found[0], resident() - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def measure(kind: str, edge: int, gib: float) -> tuple[float, int, float, float]:
    """Give processor seconds, tiles, MB taken, and MB of input and result."""
    targets = fullsize.TWO if kind == "msp" else ("connectom_sa",)
    model = fullsize.model(kind, targets, WIDTH)
    image = prepare_input(model, fullsize.head(edge)).image
    source = model.standardisation("ge_st")
    known = {target: model.standardisation(target) for target in targets}
    cpu, options = torch.device("cpu"), Options(device="cpu", memory=gib)
    tiles, most = [0], [0]

    def progress(_: int, total: int) -> None:
        tiles[0] = total

    [network] = model.together(targets)
    with highest(most):
        began = time.process_time()
        found = predict_on_grid(
            network,
            image,
            source,
            known,
            device=cpu,
            options=options,
            progress=progress,
        )
        took = time.process_time() - began
    size = image.coefficients.nbytes + sum(_bytes(each) for each in found.values())
    return took, tiles[0], most[0] / 1e6, size / 1e6


def _bytes(found: GridPrediction) -> int:
    size = found.prediction.coefficients.nbytes
    size += 0 if found.first_stage is None else found.first_stage.coefficients.nbytes
    return size + (0 if found.disagreement is None else found.disagreement.nbytes)


def table(setting: Setting) -> Sequence[Sequence[str]]:
    """Predict a head and one of eight times the voxels within the same budget."""
    edges, gib = ((24, 48), 0.25) if setting.quick else ((48, 96), 2.0)
    rows = []
    for kind in ("msp", "diqt"):
        for edge in edges:
            given = [kind, str(edge), str(gib)]
            done = subprocess.run(
                [sys.executable, "-m", "bench.beyond", *given],
                capture_output=True,
                text=True,
                check=True,
            )
            took, tiles, taken, size = (float(each) for each in done.stdout.split())
            beyond = taken - size - gib * 2**30 / 1e6
            share = f"{max(beyond, 0) / size:.0%}"
            rows.append([f"{kind}, {edge}³", f"{took:.2f}", f"{tiles:.0f}", f"{taken:.0f}",
                         f"{size:.0f}", share])  # fmt: skip
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
