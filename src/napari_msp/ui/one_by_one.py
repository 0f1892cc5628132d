"""Changes of the window one at a time: what was drawn is seen, and what was typed is heard."""

from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer, Signal

BREATH = 20
"""Milliseconds for the window between two changes (our choice)."""


class OneByOne(QObject):
    """Does things in the window's own thread, with a pause before each.

    Parameters
    ----------
    parent
        When it is destroyed nothing more is done.
    pause
        Milliseconds.

    Signals
    -------
    rested
        Everything is done.
    """

    rested = Signal()

    def __init__(self, parent: QObject, pause: int = BREATH) -> None:
        super().__init__(parent)
        self._steps: deque[Callable[[], object]] = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(pause)
        self._timer.timeout.connect(self._do_one)

    @property
    def busy(self) -> bool:
        """Whether something is still to be begun."""
        return bool(self._steps)

    def add(self, *steps: Callable[[], object]) -> None:
        """Do these after all that wait already."""
        self._steps.extend(steps)
        if self._steps:
            self._timer.start()

    def drop(self) -> None:
        """Do none of those that wait."""
        self._timer.stop()
        self._steps.clear()

    def _do_one(self) -> None:
        self._steps.popleft()()
        if not self._steps:
            self._timer.stop()
            self.rested.emit()
