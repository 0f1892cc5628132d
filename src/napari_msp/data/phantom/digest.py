"""A fingerprint of what the phantom simulates, to show that it was not touched meanwhile."""

import hashlib

import numpy as np

from napari_msp.data.phantom.scan import Scan, simulate_subject


def phantom_digest() -> str:
    """Fingerprint the first tiny head of seed 0 on all platforms.

    Bytes of the images would not do: `exp` and the BLAS differ in the last bit between processors.
    Hashed are instead three significant digits of the mean of every volume inside the mask, with
    and without noise, and the gradient tables to three decimals. That many numbers see a change of
    one part in ten thousand in some of them, and rounding errors, which are ten thousand times
    smaller and average out, in none (our choice).

    Returns
    -------
    Twelve hexadecimal digits.
    """
    hashed = hashlib.sha256()
    for scan in simulate_subject(0, size="tiny", seed=0):
        for line in _lines(scan):
            hashed.update(line.encode())
    return hashed.hexdigest()[:12]


def _lines(scan: Scan) -> list[str]:
    """Write down, in few digits, what a scan is."""
    lines = [f"{scan.platform.name} {scan.lattice.shape} {int(scan.mask.sum()) / 100:.0f}"]
    for images in (scan.dwi, scan.noise_free):
        lines += [f"{mean:.2e}" for mean in images[scan.mask].mean(axis=0, dtype=float)]
    table = np.column_stack([scan.table.b_values, scan.table.directions])
    # Adding 0 turns -0.000 into 0.000.
    lines += [" ".join(f"{value:.3f}" for value in row) for row in np.round(table, 3) + 0.0]
    return lines
