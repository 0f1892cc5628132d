"""Write files so that no reader ever sees half of one; list files; identify their versions.

New files are made in hidden folders beside their destination. Folders left by killed processes are
removed by the next one that writes there: a lock shows whether a folder is still in use.
"""

import errno
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from napari_msp.errors import Advice, Doubt, UserError
from napari_msp.foreign_errors import unreadable

if sys.platform == "win32":
    import msvcrt

    def _take(file: int, wait: bool = False) -> None:
        msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: int, wait: bool = False) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


HIDDEN, OWNER = ".napari-msp-", "owner"
"""Beginning of hidden folders' names, and the file in each that its owner keeps locked."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Error numbers of a disk without room."""

HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""Error numbers of a lock that another process holds."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` that becomes `path` when the block succeeds.

    The temporary name keeps the suffix (writers choose the format by it) and starts with a dot
    (globs skip it). If the block raises, nothing is left behind and an older file of the same name
    stays as it was.

    Parameters
    ----------
    path
        Final name. Missing parent folders are created.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    _refuse_folder(path)
    hidden: AbstractContextManager[Path] = _hidden_folder(path.parent, path)
    if any(each.match(f"{HIDDEN}*.tmp") for each in path.parents):
        # A hidden parent needs no hidden folder inside: some disks take 7 ms to remove one.
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = nullcontext(path.parent)
    with hidden as folder:
        name = f".{uuid.uuid4().hex}"
        temporary, usual = folder / f"{name}{suffix}", folder / f"{name}.usual"
        try:
            yield temporary
            # Some writers make files private; others in the lab must be able to read them.
            usual.touch()
            temporary.chmod(usual.stat().st_mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            usual.unlink(missing_ok=True)


@contextmanager
def staged_folder(
    folder: str | Path, last: str = "", replaced: Callable[[str], bool] | None = None
) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` together when the block succeeds.

    For jobs that write several files: a failure half-way leaves none of them.

    Parameters
    ----------
    folder
        Destination of the files; created if missing; its other files stay.
    last
        Ending of files that move after all others, older ones of their names being removed first:
        if one exists, so do the others, even if the process is killed while files move.
    replaced
        Whether an older file of this name is removed, even if nothing replaces it.
    """
    folder = Path(folder)
    with _stage(folder, folder) as stage:
        yield stage
        at_last = [path for path in sorted(stage.iterdir()) if last and path.name.endswith(last)]
        files = [path for path in sorted(stage.iterdir()) if path not in at_last] + at_last
        for path in files:  # before the first one is moved
            _refuse_folder(folder / path.name)
        for path in at_last:
            (folder / path.name).unlink(missing_ok=True)
        if replaced is not None:
            for path in [*folder.iterdir()]:
                if replaced(path.name) and path.is_file():
                    path.unlink()
        for path in files:
            path.replace(folder / path.name)


@contextmanager
def _stage(folder: Path, wanted: Path | None) -> Iterator[Path]:
    """Yield an empty folder in a hidden one, see `_hidden_folder`; it may be moved elsewhere."""
    with _hidden_folder(folder, wanted) as hidden:
        stage = hidden / "made"
        stage.mkdir()
        yield stage


@contextmanager
def _hidden_folder(folder: Path, wanted: Path | None) -> Iterator[Path]:
    """Yield a temporary hidden folder inside `folder`, with its owner's file in it.

    Parents that were created in vain are removed, as is what killed processes left in `folder`.

    Parameters
    ----------
    folder
        Parent folder, created if missing; removed again if the block leaves it empty.
    wanted
        The file or folder being written, for messages; None if nothing is to remain.
    """
    with _not_made_for_nothing(folder), ExitStack() as afterwards:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            hidden = Path(tempfile.mkdtemp(prefix=HIDDEN, suffix=".tmp", dir=folder))
            afterwards.callback(shutil.rmtree, hidden, ignore_errors=True)
            afterwards.callback(os.close, _own(hidden))
        except OSError as error:
            raise _unwritable(wanted or folder, error) from error
        try:
            yield hidden
        except OSError as error:
            # Other errors while something is written name a file of their own; an error of copying
            # names the copy second.
            if error.errno in FULL and _is_about(error.filename2 or error.filename, hidden):
                raise _unwritable(wanted or folder, error) from error
            raise
        except UserError as error:  # about something inside, under a temporary name
            if wanted and error.subject is not None and _is_about(error.subject, hidden):
                raise type(error)(error.problem, wanted, error.field, error.remedy) from error
            raise


@contextmanager
def _not_made_for_nothing(folder: Path) -> Iterator[None]:
    """Remove a folder and its parents if the block created them and left them empty."""
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
    except OSError as error:  # a name is too long
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        for each in missing:
            with suppress(OSError):  # not empty: something was written
                each.rmdir()


def _is_about(name: object, folder: Path) -> bool:
    """Return whether an error's file is in a folder, or the error names none (as in writing)."""
    return not isinstance(name, str | bytes) or Path(os.fsdecode(name)).is_relative_to(folder)


def _own(hidden: Path) -> int:
    """Lock a hidden folder for this process's lifetime, and record this machine in it."""
    file = os.open(hidden / OWNER, os.O_RDWR | os.O_CREAT, 0o644)
    with suppress(OSError):  # a file system without locks: nothing will show that it is abandoned
        _take(file, wait=True)
        os.write(file, "\n".join(sorted(_machine())).encode())
    return file


def _remove_abandoned(folder: Path) -> None:
    """Remove hidden folders whose owners were killed.

    Only those made by a process on this machine: over a network, locks of other machines may not be
    visible. An owner that has not recorded its machine is just starting.
    """
    for hidden in folder.glob(f"{HIDDEN}*.tmp"):
        with suppress(OSError):  # it is locked, or already gone
            file = os.open(hidden / OWNER, os.O_RDWR)
            try:
                _take(file)
                owner = set(os.read(file, 4096).decode(errors="replace").splitlines())
            finally:
                os.close(file)
            if owner & _machine():
                shutil.rmtree(hidden, ignore_errors=True)


@cache
def _machine() -> frozenset[str]:
    """Return identifiers that only processes of this machine share: running system and machine.

    Containers have their own host names but share a system; a restarted machine has another
    system.
    """
    found = set()
    for what, path in (("system", "/proc/sys/kernel/random/boot_id"), ("host", "/etc/machine-id")):
        with suppress(OSError):
            if said := Path(path).read_text(encoding="ascii").strip():
                found.add(f"{what} {said}" + f" {platform.node()}" * (what == "host"))
    if not found:
        found.add(f"host {uuid.getnode()} {platform.node()}")
    return frozenset(found)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty temporary folder of the system for the duration of the block."""
    with _stage(Path(tempfile.gettempdir()), None) as folder:
        yield folder


def refuse_unwritable(path: str | Path) -> None:
    """Refuse a file that could not be written: before hours of work, not after."""
    path = Path(path)
    _refuse_folder(path)
    with _hidden_folder(path.parent, path):
        pass


def refuse_unwritable_folder(folder: str | Path) -> None:
    """Refuse a folder that cannot be written into, by its own name, not that of a file in it."""
    with _hidden_folder(Path(folder), None):
        pass


def _refuse_folder(path: Path) -> None:
    try:
        there = path.is_dir()
    except OSError as error:  # its name is too long
        raise _unwritable(path, error) from error
    if there:
        raise UserError(
            "is a folder, but should be a file", path, remedy=Advice("choose another name")
        )


def _unwritable(path: Path, error: OSError) -> UserError:
    if error.errno in FULL:
        return no_room(path, error.strerror)
    if error.errno == errno.ENAMETOOLONG:
        remedy = Advice("shorten what it begins with, such as the scan's name")
        return UserError(f"the name {path.name} is too long", path.parent, remedy=remedy)
    link = next((each for each in (path, path.parent) if each.is_symlink()), None)
    if error.errno == errno.EEXIST and link is not None:
        remedy = Advice("create its target, or choose another folder")
        return UserError("is a broken link", link, remedy=remedy)
    remedy = Advice("choose a folder that you may write to")
    return UserError(f"cannot write here ({error.strerror})", path, remedy=remedy)


def no_room(path: str | Path, reason: str | None) -> UserError:
    """Return the error for a disk without room."""
    return UserError(
        f"cannot be written ({reason})",
        path,
        remedy=Advice("free some space, or choose a folder on another disk"),
    )


@contextmanager
def new_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block succeeds.

    For whole datasets: the name appears only when the folder is complete.

    Parameters
    ----------
    folder
        Folder that must not exist, or be empty.
    replace
        Whether it may contain something, which is removed once the new folder is in place; the
        caller must know what it is.

    Warns
    -----
    UserWarning
        When part of the old folder could not be removed, saying where that part is now.
    """
    folder = Path(folder)
    folder = folder.resolve() if folder.is_symlink() else folder
    if not replace:
        refuse_occupied(folder)
    with _stage(folder.parent, folder) as stage:
        yield stage
        older = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
        try:
            if replace and folder.exists():
                folder.replace(older)
            stage.replace(folder)  # replaces an empty folder, and nothing else
        except OSError as error:
            if older.exists():
                older.replace(folder)
            raise _unwritable(folder, error) from error
        shutil.rmtree(older, ignore_errors=True)
        if older.exists():
            said = "the earlier contents could not be removed completely; remove them yourself"
            warnings.warn(Doubt(said, older), stacklevel=4)


def refuse_occupied(folder: str | Path) -> None:
    """Refuse a folder that already contains something, or a file of that name."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            "exists and is not empty", folder, remedy=Advice("give a new folder or remove it first")
        )


def _opened_lock(lock: Path) -> int:
    """Open a lock file; another user's, in a shared folder, can only be read."""
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as refused:
        try:
            return os.open(lock, os.O_RDONLY)
        except OSError:  # there is none, and none may be created
            raise refused from None


@contextmanager
def reserved(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from working on the same file, or in a folder, during the block.

    A hidden file beside the file, or in the folder, is locked; the system unlocks it when the
    process dies. On a disk without locks there is no protection.

    Parameters
    ----------
    path
        A file, or an existing folder; folders created in vain are removed again.
    wait
        Whether to wait for the other process, for work that takes moments.

    Raises
    ------
    UserError
        When another process is at work, and `wait` is false.
    """
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    with _not_made_for_nothing(lock.parent):
        file = _taken(lock, path, wait)
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()
            os.close(file)


def _taken(lock: Path, path: Path, wait: bool) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = _opened_lock(lock)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            _take(file, wait)
        except OSError as error:
            if wait or error.errno not in HELD:
                return file
            os.close(file)
            remedy = Advice("wait, stop it, or choose another name")
            raise UserError("another process is working on it", path, remedy=remedy) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), lock.stat()):
                return file
        os.close(file)  # its holder has removed it meanwhile


def walk(folder: str | Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk a folder like `os.walk`, also through linked folders; loops are avoided.

    A study is often a farm of links. Folders removed from the list are not entered.
    """
    above: dict[Path, frozenset[tuple[int, int]]] = {}
    for here, folders, names in os.walk(folder, followlinks=True):
        place = Path(here)
        inside = above.pop(place, frozenset()) | {_identity(place)}
        folders[:] = sorted(each for each in folders if _identity(place / each) not in inside)
        yield place, folders, sorted(names)
        above.update((place / each, inside) for each in folders)


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted by name; empty if it does not exist.

    Raises
    ------
    UserError
        When it may not be listed: its content must not count as missing.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def files_under(folder: str | Path, pattern: str = "*") -> list[Path]:
    """List all files in a folder and its subfolders whose names fit; see `walk`."""
    found = (
        place / name for place, _, names in walk(folder) for name in fnmatch.filter(names, pattern)
    )
    return sorted(path for path in found if path.is_file())


def _identity(folder: Path) -> tuple[int, int]:
    try:
        about = folder.stat()
    except OSError:  # a link to nowhere
        return -1, -1
    return about.st_dev, about.st_ino


def version_of(path: str | Path) -> tuple[int, ...]:
    """Identify this version of a file, for as long as this process runs.

    The system's own change time also detects a copy that kept size and time, such as by `cp -p`. On
    Windows it is the creation time, which stays if such a copy overwrites a file. Empty without a
    file: its reader reports the error.
    """
    try:
        about = Path(path).stat()
    except OSError:
        return ()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def sha256(path: str | Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp_of(path: Path) -> list[int] | None:
    """Return a file's size and modification time, a stamp valid on any machine; None if missing."""
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def state_of(paths: Iterable[Path]) -> str:
    """Return a digest of files' names, sizes and modification times."""
    state = hashlib.sha256()
    for path in paths:
        about = path.stat()
        state.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` to `path` atomically, as UTF-8.

    Bytes in file names that are not UTF-8 are written as `\udcff`, which JSON reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` atomically, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of napari-msp and of other packages by name."""
    names = ("napari-msp", *packages)
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}
