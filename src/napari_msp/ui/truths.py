"""Scans of the same head on other platforms: possible truths, each read and fitted once."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from napari_msp.scan import Scan, load_scan

_KNOWN: WeakValueDictionary[tuple[Path, int, float | None], Scan] = WeakValueDictionary()
"""By file, when it was written, and shell; as long as somebody keeps the scan."""

_READING = Lock()


def sibling_of(scan: Scan, platform: str, b_value: float | None = None) -> Scan:
    """Give the scan of the same head on another platform, with SH fitted to it.

    What Harmonize has read Compare does not read again. Its voxels are let go, as they are large.

    Parameters
    ----------
    scan
        With a sibling there.
    platform
        Key of `scan.siblings`.
    b_value
        Shell of a sibling that has several, in s/mm².

    Raises
    ------
    UserError
        When it cannot be read, or has no such shell.
    """
    path = scan.siblings[platform]
    key = (path, path.stat().st_mtime_ns if path.exists() else 0, b_value)
    with _READING:
        known = _KNOWN.get(key)
        if known is None:
            known = _KNOWN[key] = Scan(given_sh=load_scan(path, b_value).sh, path=path)
        return known
