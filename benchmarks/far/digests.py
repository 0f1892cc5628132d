"""What the sets were when they were frozen, in few digits that every processor agrees on."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from far.sets import Scan

KEPT = Path(__file__).with_name("digests.json")
"""Digest of every head, by set."""


def digest(scans: Iterable[Scan]) -> str:
    """Fingerprint a head: what every volume of every scan is on average, to three digits.

    Bytes would not do: `exp` differs in the last bit between processors.
    """
    hashed = hashlib.sha256()
    for scan in scans:
        for line in _lines(scan):
            hashed.update(line.encode())
    return hashed.hexdigest()[:12]


def _lines(scan: Scan) -> Iterator[str]:
    yield f"{scan.scanner.name} {scan.lattice.shape} {int(scan.mask.sum()) // 100}"
    for images in (scan.dwi, scan.noise_free):
        inside = images[scan.mask]
        yield " ".join(f"{mean:.2e}" for mean in inside.mean(axis=0, dtype=float))
        yield " ".join(f"{mean:.2e}" for mean in inside.std(axis=0, dtype=float))
    yield " ".join(f"{value:.3f}" for value in np.round(scan.table.directions, 3).ravel() + 0.0)
