"""Write files so that a reader never meets half of one."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_msp.errors import Advice, UserError

if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` that becomes `path` when the block ends well.

    The temporary name keeps the suffix (writers choose the format by it) and starts with a dot
    (globs pass it over). When the block raises, nothing is left behind and an older file under
    the same name stays as it was.

    Parameters
    ----------
    path
        Final name. Missing parent folders are made.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    _refuse_folder(path)
    with _workshop(path.parent, path) as folder:
        temporary = folder / f"partial{suffix}"
        yield temporary
        # Some writers keep files to their owner; others in the lab must read them as any file.
        usual = folder / "usual"
        usual.touch()
        temporary.chmod(usual.stat().st_mode)
        temporary.replace(path)


@contextmanager
def staged_folder(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder whose files move into `folder` together when the block ends well.

    For jobs that write several files: a failure half-way leaves none of them.

    Parameters
    ----------
    folder
        Where the files shall stand; made when missing, its other files stay.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    """
    folder = Path(folder)
    with _workshop(folder, folder) as stage:
        yield stage
        files = sorted(stage.iterdir())
        for path in files:  # before the first one is moved
            _refuse_folder(folder / path.name)
        for path in files:
            path.replace(folder / path.name)


@contextmanager
def _workshop(folder: Path, wanted: Path) -> Iterator[Path]:
    """Give a hidden folder inside `folder` that is gone afterwards, as are parents made in vain.

    Parameters
    ----------
    folder
        Made when missing; taken away again when the block leaves it empty.
    wanted
        What is being written, for the message.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    except OSError as error:
        raise _unwritable(wanted, error) from error
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        for each in missing:
            with suppress(OSError):  # not empty: something was written
                each.rmdir()


def refuse_unwritable(path: str | Path) -> None:
    """Refuse a file that could not be written in the end: before hours of work, not after.

    Raises
    ------
    UserError
        When it is a folder, or its own folder cannot be written to.
    """
    path = Path(path)
    _refuse_folder(path)
    with _workshop(path.parent, path):
        pass


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            "is a folder where a file is to be", path, remedy=Advice("choose another name")
        )


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write here ({error.strerror})",
        path,
        remedy=Advice("choose a folder that you may write to"),
    )


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends well.

    For whole datasets: the name appears only when everything is in it.

    Parameters
    ----------
    folder
        Must not exist, or be empty.

    Raises
    ------
    UserError
        When it contains something, or cannot be written.
    """
    folder = Path(folder)
    refuse_occupied(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        stage.chmod(0o755)  # mkdtemp makes it private
        yield stage
        stage.replace(folder)  # replaces an empty folder, and nothing else
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def refuse_occupied(folder: str | Path) -> None:
    """Refuse a folder that contains something already, or a file of that name.

    Raises
    ------
    UserError
        When it does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            "exists and is not empty", folder, remedy=Advice("give a new folder or remove it first")
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder` while the block runs.

    The system lifts the lock when the process dies.

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
            raise UserError(
                "another process works in it", folder, remedy=Advice("wait, or stop it")
            ) from error
        yield
    finally:
        os.close(file)


def sha256(path: str | Path) -> str:
    """Give the SHA-256 digest of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_REPAIR = Advice("repair or replace it")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` atomically, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        When the file is missing, is not JSON, or contains something other than an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", path, remedy=Advice("check the path")
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"is not valid JSON ({error})", path, remedy=_REPAIR) from error
    if not isinstance(content, dict):
        raise UserError("must be a JSON object", path, remedy=_REPAIR)
    return content


def versions_of(*packages: str) -> dict[str, str]:
    """Give the version of Python, of napari-msp and of other packages, by name."""
    names = ("napari-msp", *packages)
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}
