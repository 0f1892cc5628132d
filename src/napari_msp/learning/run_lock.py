"""One process at a time in a folder. The system lifts the lock when the process dies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_msp.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others out of `folder` while the block runs.

    Raises
    ------
    UserError
        When another process is in it.
    """
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _take(file)
        except OSError as error:
            raise UserError(f"{folder}: another process works in it; wait, or stop it") from error
        yield
    finally:
        os.close(file)
