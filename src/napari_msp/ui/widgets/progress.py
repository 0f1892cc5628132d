"""Progress of work, the time left, and a way to cancel it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from qtpy.QtCore import QRect, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QProgressBar,
    QPushButton,
    QStyle,
    QStyleOptionProgressBar,
    QStylePainter,
    QWidget,
)

from napari_msp.ui.widgets.form import in_row, stacked
from napari_msp.ui.widgets.message import Sentences

State = Literal["idle", "running", "cancelling", "ended"]

TICK = 1000
"""Milliseconds between counts of the time left."""

MINUTE = 60

BUSY_STEP, BUSY_ROUND, BUSY_PART = 200, 2.0, 0.25
"""Milliseconds between two places of a bar that counts nothing, seconds for one way across, and
the part's share of the width."""


class Bar(QProgressBar):
    """A bar that goes to and fro, in few steps, while nothing is counted.

    Qt's own would have the whole window, canvas and all, composed anew thirty times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setTextVisible(True)
        self.setAlignment(Qt.AlignCenter)
        self._steps = QTimer(self, interval=BUSY_STEP, timeout=self.update)

    def setRange(self, low: int, high: int) -> None:  # noqa: N802 - Qt's name
        """Count from one number to another; where both are the same nothing is counted."""
        super().setRange(low, high)
        if low == high:
            self._steps.start()
        else:
            self._steps.stop()

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw a part of a full bar where nothing is counted."""
        if self.minimum() != self.maximum():
            super().paintEvent(event)
            return
        option, painter = QStyleOptionProgressBar(), QStylePainter(self)
        self.initStyleOption(option)
        painter.drawControl(QStyle.CE_ProgressBarGroove, option)
        way, part = time.monotonic() / BUSY_ROUND % 2, round(BUSY_PART * self.width())
        left = round(min(way, 2 - way) * (self.width() - part))
        option.rect = QRect(left, 0, part, self.height())
        option.minimum, option.maximum, option.progress = 0, 1, 1
        painter.drawControl(QStyle.CE_ProgressBarContents, option)


class ProgressRow(QWidget):
    """A bar, a Cancel button and text: no room while idle, and only text after the end.

    Its `words` may be placed elsewhere, where they have more room.

    Call `start`, then `report` as often as there is something to report, then `end`. Cancel asks by
    `cancel_wanted` and waits for `end`.

    Parameters
    ----------
    cancel, cancelling, means
        Text of the button before and after it was pressed, and what it does.

    Attributes
    ----------
    state
        Present state of the work.
    said
        Emitted when the text of a beginning or an end is to be seen.
    """

    cancel_wanted = Signal()
    said = Signal()

    def __init__(
        self,
        *,
        cancel: str = "Cancel",
        cancelling: str = "Cancelling …",
        means: str = "Stops the work; nothing half-made is left",
    ) -> None:
        super().__init__()
        self._texts = cancel, cancelling
        self.state: State = "idle"
        self._history: list[tuple[float, int]] = []
        self._total = 0
        self._left: float | None = None
        self.words = Sentences()
        self.bar = Bar()
        self.cancel = QPushButton(cancel)
        self.cancel.setAccessibleDescription(means)
        self.cancel.clicked.connect(self.request_cancel)
        self._clock = QTimer(self, interval=TICK, timeout=self._show_time_left)
        row = in_row(self.bar, self.cancel)
        row.setStretch(0, 1)
        stacked(self, row, self.words)  # so texts of several lines do not move the button
        self.end()

    def start(self, words: str) -> None:
        """Begin; until the first report the bar only says that something goes on."""
        self._count_nothing()
        self.cancel.setText(self._texts[0])
        self.cancel.setEnabled(True)
        self._enter("running", words)
        self.said.emit()

    def _count_nothing(self) -> None:
        self._history, self._total, self._left = [], 0, None
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.setAccessibleDescription("")

    def report(
        self, done: int, total: int, words: str | None = None, seconds_left: float | None = None
    ) -> None:
        """Show how far the work is; ignored unless it is going on.

        Parameters
        ----------
        done, total
            Pieces of work.
        words
            Text in place of that shown now.
        seconds_left
            Time left, where the work knows it better than the pace of these reports says.
        """
        if self.state not in ("running", "cancelling"):
            return
        if self._history and done < self._history[-1][1]:
            self._history.clear()  # another count has begun
        self._history[1:] = [(time.monotonic(), done)]  # the first and the last are enough
        self._total, self._left = total, seconds_left
        self.bar.setRange(0, max(total, 1))
        self.bar.setValue(min(done, total))
        if self.state == "running" and words is not None:
            self._show_words(words)
        self._show_time_left()

    def show_step(self, words: str, done: int = 0, total: int = 0) -> None:
        """Show what is done now, and how far it is where that can be counted."""
        if total:
            self.report(done, total, words)
        elif self.state == "running":
            if self._history:  # the counted work is done
                self._count_nothing()
            self._show_words(words)

    def end(self, words: str = "") -> None:
        """Stop with a last text; without one become idle."""
        self._enter("ended" if words else "idle", words)
        if words:
            self.said.emit()

    def request_cancel(self) -> None:
        """Ask by `cancel_wanted`, once, while the work goes on."""
        if self.state != "running":
            return
        self.cancel.setEnabled(False)
        self.cancel.setText(self._texts[1])
        self._enter("cancelling", self.words.text())
        self.cancel_wanted.emit()

    def _enter(self, state: State, words: str) -> None:
        self.state = state
        busy = state in ("running", "cancelling")
        if busy:
            self._clock.start()
        else:
            self._clock.stop()
            self.bar.setRange(0, 1)  # a bar without a range would keep moving
            self.bar.reset()
        self.bar.setVisible(busy)
        self.cancel.setVisible(busy)
        self._show_words(words)
        self.setVisible(busy or (state == "ended" and self.isAncestorOf(self.words)))

    def _show_words(self, words: str) -> None:
        self.words.setText(words)
        self.words.setVisible(bool(words))
        self.bar.setAccessibleName(words)

    def _show_time_left(self) -> None:
        seconds = self._left
        if seconds is None:
            seconds = seconds_left(self._history, self._total, time.monotonic())
        left = "" if self.state == "cancelling" else time_left(seconds)
        self.bar.setFormat(f"%p %  ·  {left}" if left else "%p %")
        self.bar.setAccessibleDescription(left)


def seconds_left(history: Sequence[tuple[float, int]], total: int, now: float) -> float | None:
    """Estimate the seconds that are left.

    Parameters
    ----------
    history
        Times in seconds and pieces done, from the beginning of the work; times may have any zero.
    total
        Number of all pieces.
    now
        Present time; the time since the last report counts as work.

    Returns
    -------
    Seconds, never negative; None before anything was done since the first report.
    """
    if not history:
        return None
    (began, done_before), (latest, done) = history[0], history[-1]
    if done <= done_before or latest <= began:
        return None
    pace = (latest - began) / (done - done_before)
    return max(0.0, pace * (total - done) - (now - latest))


def time_left(seconds: float | None) -> str:
    """Return a duration in everyday words.

    >>> time_left(3), time_left(23), time_left(170), time_left(5000)
    ('a few seconds left', 'about 25 s left', 'about 3 min left', 'about 1 h 25 min left')
    >>> time_left(None)
    ''
    """
    if seconds is None:
        return ""
    if seconds < 7.5:
        return "a few seconds left"
    if seconds < 55:
        step = 5 if seconds < 27.5 else 10
        return f"about {step * round(seconds / step)} s left"
    minutes = max(1, round(seconds / MINUTE))
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(5 * round(seconds / MINUTE / 5), 60)
    return f"about {hours} h {minutes} min left" if minutes else f"about {hours} h left"
