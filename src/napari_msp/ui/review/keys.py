"""The keys of a review: what each does, and which of napari's own they replace.

No Qt here. Keys are written as napari and Qt both read them, such as "Shift+Right".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MOST_TAGS = 10
"""Number of tags that have a key: the digits, 0 for the tenth."""


@dataclass(frozen=True)
class KeyCommand:
    """A command that a key runs.

    Attributes
    ----------
    name
        Name in the code.
    keys
        Keys that run it; buttons name the first.
    words
        Text that says what it does.
    group
        Heading under which the sheet of keys lists it.
    held
        Whether releasing the key ends it.
    """

    name: str
    keys: tuple[str, ...]
    words: str
    group: str
    held: bool = False


MOVE, JUDGE, LOOK = "Move", "Judge", "Look"

COMMANDS: tuple[KeyCommand, ...] = (
    KeyCommand("next", ("Down", "N"), "next in the list", MOVE),
    KeyCommand("previous", ("Up", "B"), "previous in the list", MOVE),
    KeyCommand("next unrated", ("U",), "next unrated prediction", MOVE),
    KeyCommand("find", ("/",), "find predictions by name or note", MOVE),
    KeyCommand("pass", ("P",), "pass: can be used", JUDGE),
    KeyCommand("doubtful", ("D",), "doubtful", JUDGE),
    KeyCommand("fail", ("F",), "fail: cannot be used", JUDGE),
    KeyCommand("note", ("Enter",), "write a note; Enter keeps it, Escape drops it", JUDGE),
    KeyCommand("undo", ("Backspace", "Ctrl+Z"), "take the last rating back", JUDGE),
    KeyCommand("report", ("Shift+R",), "write a page of the review, and open it", JUDGE),
    KeyCommand(
        "site effect", ("Shift+E",), "how far predictions are from scans on the target", JUDGE
    ),
    KeyCommand("flicker", ("H",), "while held: swap input and prediction", LOOK, True),
    KeyCommand("swap", ("Shift+H",), "swap them until you press it again", LOOK),
    KeyCommand("map", ("M",), "next map: SH average, colour FA, FA", LOOK),
    KeyCommand("shell", ("Shift+B",), "next b-value, if predictions have several", LOOK),
    KeyCommand("axial", ("A",), "axial plane", LOOK),
    KeyCommand("coronal", ("C",), "coronal plane", LOOK),
    KeyCommand("sagittal", ("S",), "sagittal plane", LOOK),
    KeyCommand("slice up", ("Right",), "next slice", LOOK),
    KeyCommand("slice down", ("Left",), "previous slice", LOOK),
    KeyCommand("worst", ("W",), "go to the voxel with the largest expected error", LOOK),
    KeyCommand("outline", ("L",), "outline of the mask, or none", LOOK),
    KeyCommand("keys", ("?", "F1"), "show these keys", LOOK),
)
"""Commands in the order of the sheet. Digits set tags, see `tag_keys`."""

WRITING = {*(each.name for each in COMMANDS if each.group == JUDGE), "tag"}
"""Commands refused while the widget that would confirm them is hidden."""

REBOUND: Mapping[str, str] = {
    "Left": "they step through slices in napari, too; here also from the table",
    "Right": "as Left",
    "1": "in napari it lets you move and zoom images, which you can here anyway",
    "2": "in napari it lets you turn and stretch an image, which would tear the cells apart",
    "C": "in napari it fits the contrast to one slice; here it is the same for all subjects",
}
"""Keys that napari uses while images are selected, and why the review takes them."""


STEPS = {each.name for each in COMMANDS if each.group != LOOK}
"""Commands that move on or judge; they clear the last message."""

BEYOND_NAPARI = {"?"}
"""Keys that napari's canvas cannot report; other keys do the same there."""


def tag_keys(tags: Mapping[str, str] | list[str]) -> dict[str, str]:
    """Return the tags by the keys that set them, for the first ten.

    >>> tag_keys(["ringing", "motion"])
    {'1': 'ringing', '2': 'motion'}
    """
    return {str(number % 10): tag for number, tag in enumerate(list(tags)[:MOST_TAGS], start=1)}


def key_of(name: str) -> str:
    """Return the key that buttons name for a command."""
    return next(command.keys[0] for command in COMMANDS if command.name == name)


def all_keys() -> dict[str, str]:
    """Return the command of every key that may be taken, including those of tags."""
    known = {key: command.name for command in COMMANDS for key in command.keys}
    return known | {str(number): "tag" for number in range(10)}


def sheet(tags: Mapping[str, str]) -> str:
    """Return all keys on one sheet, as HTML; those of tags with what each tag means."""
    rows: list[str] = []
    for group in dict.fromkeys(command.group for command in COMMANDS):
        rows.append(_heading(group))
        rows += [_line(each.keys, each.words) for each in COMMANDS if each.group == group]
    rows.append(_heading("Tags: set, or take away"))
    rows += [_line((key,), _meaning(tag, tags[tag])) for key, tag in tag_keys(list(tags)).items()]
    rows.append(_heading("Keys of napari’s that do something else here"))
    rows += [_line((key,), why) for key, why in REBOUND.items()]
    return f"<table cellspacing='0' cellpadding='2'>{''.join(rows)}</table>"


def _meaning(tag: str, meaning: str) -> str:
    return f"{tag}: {meaning}" if meaning else tag


def _heading(text: str) -> str:
    return f"<tr><td colspan='2'><br><b>{escape(text)}</b></td></tr>"


def _line(keys: tuple[str, ...], words: str) -> str:
    shown = " or ".join(escape(key) for key in keys)
    key = f"<td style='white-space: nowrap'><b>{shown}</b>&nbsp;&nbsp;</td>"
    return f"<tr>{key}<td>{escape(words)}</td></tr>"


class TakenKeys:
    """Keys of a viewer's canvas while a review has them; afterwards they do what they did before.

    napari asks the selected layer first, then the viewer: the keys are bound to both. Other layers
    keep theirs.

    Parameters
    ----------
    viewer
        Viewer whose canvas it is.
    act
        Called with a key, and whether it was pressed or released.
    """

    def __init__(self, viewer: Any, act: Callable[[str, bool], object]) -> None:
        self._viewer = viewer
        self._before: dict[str, Any] = {}
        held = {key for command in COMMANDS if command.held for key in command.keys}
        self._bound = {
            key: _hold(key, act) if key in held else _press(key, act)
            for key in all_keys()
            if key not in BEYOND_NAPARI
        }

    def take(self, layers: Sequence[Any]) -> None:
        """Take the keys of the viewer and of our own layers, which are removed with them."""
        if not self._before:
            for key, bound in self._bound.items():
                self._before[key] = self._viewer.bind_key(key, bound, overwrite=True)
        for layer in layers:
            if not layer.keymap:
                for key, bound in self._bound.items():
                    layer.bind_key(key, bound, overwrite=True)

    def release(self) -> None:
        """Restore the viewer's keys."""
        for key, before in self._before.items():
            self._viewer.bind_key(key, before, overwrite=True)
        self._before.clear()


def _press(key: str, act: Callable[[str, bool], object]) -> Callable[[Any], None]:
    def pressed(_: Any) -> None:
        act(key, True)

    return pressed


def _hold(key: str, act: Callable[[str, bool], object]) -> Callable[[Any], Iterator[None]]:
    def pressed(_: Any) -> Iterator[None]:
        act(key, True)
        yield
        act(key, False)

    return pressed
