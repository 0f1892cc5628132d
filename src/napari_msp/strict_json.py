"""JSON read strictly: what anybody may have touched, a note, a card or a plan.

Python's own reader takes the last of two values that one name has, numbers that JSON does not know,
and runs out of stack or into its limit of digits with errors of their own.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

LARGEST = 50_000_000
"""Bytes beyond which nothing is believed to be a note, a card or a plan."""

DEEPEST = 64
"""Levels of lists and objects in each other; nothing of ours has more than 10."""

MOST_DIGITS = 20
"""Of a whole number, as 2⁶⁴ has."""

NotFinite = Literal["refuse", "keep", "missing"]
"""What becomes of NaN and Infinity: an error, numbers as they are, or None."""

_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""No file's name can have these; U+DC80 to U+DCFF stand for bytes that are no UTF-8."""


def parse_json(content: str | bytes, not_finite: NotFinite = "refuse") -> Any:
    """Read JSON strictly.

    Parameters
    ----------
    content
        Bytes may be UTF-8, with or without a byte-order mark, UTF-16 or UTF-32.
    not_finite
        What becomes of numbers that are not finite.

    Raises
    ------
    ValueError
        When it is no JSON, too large, too deep, has a number too large, a name that stands for two
        values, or a text that is none. The reason is said in brackets after "is not valid JSON".
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
            raise ValueError(f"{_short(text)} has a character that no text has")
    return read


_TOO_DEEP = f"more than {DEEPEST} lists or objects are in each other"


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
    """Give every text, names among them, level by level."""
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
