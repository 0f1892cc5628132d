"""Work that a user sees and can stop, and reading scans as such work, each truth once. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from napari_msp.checking.b_vectors import doubts_of
from napari_msp.data.acquisition import Acquisition
from napari_msp.errors import Cancelled
from napari_msp.files import version_of
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import check_given_shells, unfit_for_sh
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count
from napari_msp.ui.phrasing import LOAD_WORDS

POLL = 0.1
"""Seconds between checks on work that cannot be interrupted."""

Result = TypeVar("Result")

Say = Callable[[str], None]
"""Takes what is being done, in words; whatever it raises ends the work."""

_Key = tuple[Path, tuple[int, ...], float | None, float | None]

_KNOWN: WeakValueDictionary[_Key, Scan] = WeakValueDictionary()
"""Scans by file, its version, shell and b=0 threshold, while they are in use."""

_READING = Lock()


class Report(NamedTuple):
    """A report of progress.

    Attributes
    ----------
    words
        Text such as "Reading sub-01_dwi.nii.gz".
    done, total
        Pieces of work; a total of 0 where they cannot be counted.
    """

    words: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Control:
    """The means by which work reports and is cancelled; it calls them in the worker thread.

    Attributes
    ----------
    cancelled
        Returns whether the work is asked to stop.
    report
        Takes a report of the work, such as a `Report`.
    """

    cancelled: Callable[[], bool]
    report: Callable[[Any], None]

    def check(self) -> None:
        """End the work here if it was cancelled.

        Raises
        ------
        Cancelled
            If it was; the work must let it through.
        """
        if self.cancelled():
            raise Cancelled

    def say(self, words: str) -> None:
        """Report what is done now, and end the work here if it was cancelled."""
        self.check()
        self.report(Report(words))


Work = Callable[[Control], Any]


def abandonable(work: Callable[[], Result], check: Callable[[], None]) -> Result:
    """Do work that cannot be interrupted, such as reading a file, until `check` raises.

    It has a thread of its own, in which it then goes on to its end with its result discarded; it
    does not keep the program from ending.

    Parameters
    ----------
    work
        The work; whatever it raises is raised here.
    check
        Called ten times a second; raises when the result is no longer wanted.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not future.done():
        wait([future], POLL)
        check()
    return future.result()


def read_scan(scan: Scan, say: Say) -> Scan:
    """Read a scan's voxels, make its mask and fit SH to it, which else happens on demand.

    Returns
    -------
    The scan; doubts about its table, as `check` finds them, are among its acquisition's doubts.
    """
    acquisition = scan.acquisition
    if acquisition is None:
        return scan
    check_given_shells(acquisition, scan.shell)  # raises at once for a shell that cannot be used
    say(f"Reading {acquisition.name if scan.path is None else scan.path.name}")
    _ = acquisition.voxels
    if not acquisition.has_mask:
        say("Making a brain mask")
    _ = acquisition.mask
    say("Comparing gradients with fibres")
    if found := [finding.message(LOAD_WORDS) for finding in doubts_of(acquisition)]:
        scan = replace(scan, acquisition=acquisition.doubted(found))
    say("Fitting spherical harmonics")
    _ = scan.sh
    return scan


def usual_shell(acquisition: Acquisition) -> float | None:
    """Return the shell that is shown unasked: the lowest with enough directions for networks.

    Returns
    -------
    Its b-value in s/mm². If none has enough, that of the shell with most directions among those
    that allow maps; None if no shell does, so that using it raises the reason.
    """
    table = acquisition.given_gradients
    unfit = unfit_for_sh(table)
    shells = [each for each in table.shells if each.name not in unfit]
    enough = [each for each in shells if len(each.volumes) >= coefficient_count(ORDER)]
    if not enough:
        enough = sorted(shells, key=lambda each: -len(each.volumes))
    return enough[0].b_value if enough else None


def sibling_of(scan: Scan, platform: str, b_value: float | None = None) -> Scan:
    """Return the scan of the same head on another platform, with SH fitted to it.

    A sibling that Harmonize has read is not read again by Compare. Its voxels are released, as they
    are large.

    Parameters
    ----------
    scan
        Scan that has the sibling.
    platform
        Key of `scan.siblings`.
    b_value
        Shell of a sibling that has several, in s/mm².

    Raises
    ------
    UserError
        If the sibling cannot be read, or has no such shell.
    """
    path = scan.siblings[platform]
    own = scan.acquisition
    threshold = None if own is None else own.given_gradients.b0_threshold
    key = (path, version_of(path), b_value, threshold)
    with _READING:
        known = _KNOWN.get(key)
        if known is None:
            read = load_scan(path, b_value, b0_threshold=threshold)
            known = _KNOWN[key] = Scan(given_sh=read.sh, path=path)
        return known
