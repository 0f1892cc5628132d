"""Save what a comparison shows: the figure for a page, and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_msp.evaluation.metrics import Metrics, numbers_csv
from napari_msp.files import write_text
from napari_msp.ui.background import Latest
from napari_msp.ui.compare.compared import Compared

FIGURES = "PNG, for a screen (*.png);;PDF, for print (*.pdf);;SVG, to be edited (*.svg)"
NUMBERS = "CSV (*.csv)"


class Saving(QObject):
    """Asks for a name and writes the file in a thread.

    Attributes
    ----------
    saved : Path
        The file is there.
    failed : UserError
        It is not.
    """

    saved = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._window = parent
        self._work = Latest(self)
        self._work.done.connect(self.saved)
        self._work.failed.connect(self.failed)

    def figure(self, compared: Compared, shown: str, plane: str, index: int) -> None:
        """Save Figure 3 of one slice, see `save_figure`."""
        name = f"{_stem(compared)}_{plane}-{index}.png"
        self._save(
            "Save figure", name, FIGURES, partial(save_figure, compared, shown, plane, index)
        )

    def numbers(self, compared: Compared, measured: Mapping[str, Metrics]) -> None:
        """Save the table with full precision."""
        truth = "" if compared.truth is None else compared.truth.owner
        self._save(
            "Save numbers",
            f"{_stem(compared)}_errors.csv",
            NUMBERS,
            lambda path: write_text(path, numbers_csv(measured, truth)),
        )

    def _save(self, title: str, name: str, kinds: str, write: Callable[[Path], None]) -> None:
        chosen, kind = QFileDialog.getSaveFileName(self._window, title, name, kinds)
        if not chosen:
            return
        path = Path(chosen)
        if not path.suffix:
            path = path.with_suffix(kind.rpartition("*")[2].rstrip(")"))

        def work(control: object) -> Path:
            write(path)
            return path

        self._work.ask(work)


def save_figure(compared: Compared, shown: str, plane: str, index: int, path: Path) -> None:
    """Draw and write Figure 3 of one slice, in the format of the path's suffix.

    Parameters
    ----------
    compared
        What is compared.
    shown
        Name of a map that is added to those of the paper.
    plane, index
        Which slice.
    path
        Ends in .png, .pdf or .svg.

    Raises
    ------
    UserError
        For another suffix, a slice without brain, or a folder that cannot be written to.
    """
    from napari_msp.evaluation.figures.figure3 import SHOWN, draw_figure3
    from napari_msp.evaluation.figures.page import check_format, write_figure

    check_format(path)
    figure = draw_figure3(
        compared.titled(),
        compared.scan_maps,
        maps=tuple(dict.fromkeys((*SHOWN, shown))),
        axis=plane,
        slice_index=index,
        disagreement={
            compared.title(name): values for name, values in compared.disagreement.items()
        },
    )
    write_figure(path, figure)


def _stem(compared: Compared) -> str:
    subjects = [scan.subject for scan in compared.predictions.values()]
    names = [compared.title(name).replace(" ", "-") for name in compared.predictions]
    return "_".join([subjects[0], *names])
