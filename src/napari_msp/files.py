"""Write files so that a reader never meets half of one."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_msp.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise UserError(
            f"{path}: cannot write here ({error.strerror}); choose a folder you may write to"
        ) from error
    try:
        temporary = folder / f"partial{suffix}"
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write here ({error.strerror}); choose a folder you may write to"
        ) from error
    try:
        yield stage
        for path in sorted(stage.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends well.

    For whole datasets: the name appears only when everything is in it.

    Parameters
    ----------
    folder
        Must not exist, or be empty.

    Raises
    ------
    UserError
        When it holds something, or cannot be written.
    """
    folder = Path(folder)
    refuse_occupied(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write here ({error.strerror}); choose a folder you may write to"
        ) from error
    try:
        stage.chmod(0o755)  # mkdtemp makes it private
        yield stage
        stage.replace(folder)  # replaces an empty folder, and nothing else
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder that holds something already, or a file of that name.

    Raises
    ------
    UserError
        With the mend.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty; give a new folder or remove it first")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` atomically, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        When the file is missing, is not JSON, or holds something other than an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); mend or replace it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object; mend or replace it")
    return content
