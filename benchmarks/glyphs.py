"""How many glyphs are drawn in a second, at the sizes that the viewer asks for.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/glyphs.py

A comparison of truth, input and two predictions shows 900 of them.
"""

import time

import numpy as np

from napari_msp.signal.glyphs import draw_glyphs
from napari_msp.ui.compare.glyphs import EDGES

COUNT, TIMES = 900, 3


def main() -> None:
    """Print a line for each size."""
    random = np.random.default_rng(0)
    series = random.normal(0, 0.05, (COUNT, 28)).astype(np.float32)
    series[:, 0] += 1
    view = np.diag([-1.0, -1.0, -1.0])
    for edge in EDGES:
        began = time.perf_counter()
        draw_glyphs(series[:1], "odf", view, edge)
        first = time.perf_counter() - began
        seconds = []
        for _ in range(TIMES):
            began = time.process_time()
            draw_glyphs(series, "odf", view, edge)
            seconds.append(time.process_time() - began)
        rate = COUNT / min(seconds)
        print(f"{edge} pixels: {rate:.0f} glyphs a second of a core, the first after {first:.2f} s")


if __name__ == "__main__":
    main()
