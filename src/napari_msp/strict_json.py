"""Strict reading of JSON that anybody may have edited: a note, a card or a plan.

Python's own reader takes the last of two values with the same name, accepts numbers that JSON does
not have, and fails with its own errors on deep nesting or long numbers.
"""

import json
import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from napari_msp.errors import Advice, UserError
from napari_msp.foreign_errors import unreadable

_REPAIR = Advice("repair or replace it")

LARGEST = 50_000_000
"""Largest size in bytes of a credible note, card or plan."""

DEEPEST = 64
"""Largest depth of nested lists and objects; nothing of ours has more than 10."""

LONGEST_LABEL = 500
"""Largest number of characters of a model's label."""

MOST_DIGITS = 20
"""Largest number of digits of a whole number, as 2⁶⁴ has."""

NotFinite = Literal["refuse", "keep", "missing"]
"""How NaN and Infinity are treated: an error, kept as numbers, or None."""

_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""Characters that no file name can have; U+DC80 to U+DCFF stand for bytes that are not UTF-8."""


def read_json(path: str | Path, *, foreign: bool = False) -> dict[str, Any]:
    """Read a JSON object, see `parse_json`.

    Parameters
    ----------
    foreign
        Whether other programs may have written it: non-finite numbers then count as missing, like
        null.

    Raises
    ------
    UserError
        When the file cannot be read, is not JSON, or contains something other than an object.
    """
    content = read_whole(path, LARGEST)
    try:
        read = parse_json(content, "missing" if foreign else "refuse")
    except ValueError as error:
        raise UserError(f"is not valid JSON ({error})", path, remedy=_REPAIR) from error
    if not isinstance(read, dict):
        raise UserError("must be a JSON object", path, remedy=_REPAIR)
    return read


def read_whole(path: str | Path, largest: int) -> bytes:
    """Read a file of at most so many bytes."""
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would block
            raise UserError("is not a file", path, remedy=Advice("check the path"))
        if found.st_size > largest:
            problem = f"is larger than {largest // 1_000_000} MB"
            raise UserError(problem, path, remedy=_REPAIR)
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def parse_json(content: str | bytes, not_finite: NotFinite = "refuse") -> Any:
    """Read JSON strictly.

    Parameters
    ----------
    content
        Text, or bytes in UTF-8 (with or without byte-order mark), UTF-16 or UTF-32.
    not_finite
        How numbers that are not finite are treated.

    Raises
    ------
    ValueError
        When it is not JSON, is too large or too deep, has too large a number, a name with two
        values, or an invalid text. The reason follows in brackets after "is not valid JSON".
    """
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1_000_000} MB")

    def real(text: str) -> float | None:
        value = float(text)
        if math.isfinite(value) or not_finite == "keep":
            return value
        if not_finite == "refuse":
            raise ValueError("a number in it is not finite")
        return None

    if isinstance(content, bytes):
        content = content.decode(json.detect_encoding(content))
    try:
        read = json.loads(
            content,
            parse_int=_whole,
            parse_float=real,
            parse_constant=real,
            object_pairs_hook=_each_once,
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    for text in _texts(read):
        if _NO_TEXT.search(text):
            raise ValueError(f"{_short(text)} has a character that is not allowed")
    return read


_TOO_DEEP = f"more than {DEEPEST} lists or objects are nested"


def one_line(text: str) -> str:
    """Return a text that terminals and windows can show in a line or two, unchanged.

    Raises
    ------
    ValueError
        When it is too long or has control characters, such as those that colour a terminal.
    """
    if len(text) > LONGEST_LABEL or not text.isprintable():
        raise ValueError(f"must be up to {LONGEST_LABEL} printable characters, in one line")
    return text


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1 or not -(2**64) < int(text) < 2**64:
        raise ValueError(f"a number of {len(text.lstrip('-'))} digits is too large")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise ValueError(f"{_short(name)} stands for two values")
    return found


def _texts(read: Any) -> Iterator[str]:
    """Yield all texts, including names, level by level."""
    level = [read]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                yield each
            elif isinstance(each, dict):
                yield from each
                below += each.values()
            elif isinstance(each, list):
                below += each
        if not below:
            return
        level = below
    raise ValueError(_TOO_DEEP)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:39] + "…")
