"""What the Show button starts: lay both quantities out and measure, the asked-for one first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from napari_msp.evaluation.figures.grid import QUANTITIES, Cells
from napari_msp.evaluation.metrics import Metrics
from napari_msp.ui.background import Control
from napari_msp.ui.comparing.sheet import Sheet, figure_sheet
from napari_msp.ui.comparing.work import Compared, Question, line_records_up


@dataclass(frozen=True, eq=False)
class Drawn:
    """One quantity is ready to be shown.

    Attributes
    ----------
    compared
        What is compared.
    cells
        Its cells.
    sheet
        Their layers.
    """

    compared: Compared
    cells: Cells
    sheet: Sheet


@dataclass(frozen=True, eq=False)
class Measured:
    """The global errors are ready, by prediction; there are none without truth."""

    metrics: Mapping[str, Metrics]


def ask(question: Question, quantity: str, control: Control) -> None:
    """Read, line up, draw and measure; see `draw`.

    Raises
    ------
    UserError
        As `line_records_up`.
    """
    draw(line_records_up(question, control.say), quantity, control)


def draw(
    compared: Compared,
    quantity: str,
    control: Control,
    before: Mapping[str, Cells] | None = None,
    known: Mapping[str, Metrics] | None = None,
) -> None:
    """Report a `Drawn` for each quantity, then what was `Measured`.

    Parameters
    ----------
    compared
        What is compared.
    quantity
        Drawn first.
    before
        Cells by quantity whose contrast and scale are kept, so that a change shows.
    known
        Measurements that still hold.
    """
    say = control.say
    for each in sorted(QUANTITIES, key=lambda name: name != quantity):
        say(f"Computing {each}")
        shown = compared.cells(each)
        if before is not None and each in before:
            shown = replace(shown, window=before[each].window, limit=before[each].limit)
        control.report(Drawn(compared, shown, figure_sheet(compared, shown)))
    metrics: dict[str, Metrics] = {}
    for name in compared.predictions:
        say(f"Measuring {name}")
        found = (known or {}).get(name) or compared.measured(name)
        if found is not None:
            metrics[name] = found
    control.report(Measured(metrics))
