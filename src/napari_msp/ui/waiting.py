"""Work that napari waits for: what opens a file or sample data must give the layers at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from qtpy.QtCore import Qt, QThread, Signal
from qtpy.QtWidgets import QApplication, QDialog, QVBoxLayout, QWidget

from napari_msp.ui.background import Control, Step
from napari_msp.ui.widgets.progress import ProgressRow

PATIENCE = 0.3
"""Seconds for which nothing is shown."""

Result = TypeVar("Result")


def wait_for(work: Callable[[Control], Result], words: str) -> Result:
    """Do work in a thread while a dialog tells how far it is and offers to cancel it.

    The window is repainted meanwhile but takes no input, so nothing is started twice. Where there
    is no window the work is simply done.

    Parameters
    ----------
    work
        Reports a `Step` now and then.
    words
        What is shown first.

    Raises
    ------
    Cancelled
        When it was cancelled; and whatever the work raises.
    """
    window = _window()
    if window is None:
        return work(Control(lambda: False, lambda told: None))
    dialog = _Waiting(words, window)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, Control(lambda: dialog.cancelled, dialog.told.emit))
        future.add_done_callback(lambda _: dialog.ended.emit())
        wait([future], PATIENCE)
        if not future.done():
            dialog.exec()
    dialog.deleteLater()
    return future.result()


class _Waiting(QDialog):
    """Closes when the work has ended, by itself or because it was cancelled."""

    told = Signal(object)
    ended = Signal()

    def __init__(self, words: str, window: QWidget) -> None:
        super().__init__(window)
        self.cancelled = False
        self.setWindowTitle("MSP Harmonization")
        self.setWindowModality(Qt.ApplicationModal)
        self.setMinimumWidth(420)
        self.row = ProgressRow()
        self.row.start(words)
        QVBoxLayout(self).addWidget(self.row)
        self.row.cancel_wanted.connect(self._cancel)
        self.told.connect(self._show_step)
        self.ended.connect(self.accept)

    def reject(self) -> None:
        """Let Escape and the close button cancel the work; the dialog waits for its end."""
        self.row.request_cancel()

    def _cancel(self) -> None:
        self.cancelled = True

    def _show_step(self, step: Step) -> None:
        if step.total:
            self.row.report(step.done, step.total, step.words)
        else:
            self.row.tell(step.words)


def _window() -> Any:
    """Give the window to wait in; None without one, or in a thread that is not the window's."""
    application = QApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return None
    windows = [each for each in application.topLevelWidgets() if each.isVisible()]
    return application.activeWindow() or next(iter(windows), None)
