"""What the widgets of one viewer share: who has its canvas, and what a form said last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Shared(QObject):
    """Of one viewer; see `shared_by`.

    Attributes
    ----------
    changed
        Somebody took the canvas, or it is free again.
    owner
        Who has the canvas to itself, such as "the review"; "" while nobody has.
    last
        What a form said when it was used last, by the page of its widget.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.owner = ""
        self.last: dict[str, Any] = {}

    def take(self, owner: str) -> None:
        """Give the canvas to somebody."""
        self.owner = owner
        self.changed.emit()

    def release(self) -> None:
        """Let others have the canvas, once it is as it was before."""
        self.take("")


_KNOWN: WeakKeyDictionary[Viewer, Shared] = WeakKeyDictionary()


def shared_by(viewer: Viewer) -> Shared:
    """Give what all widgets of a viewer share."""
    if viewer not in _KNOWN:
        _KNOWN[viewer] = Shared()
    return _KNOWN[viewer]
