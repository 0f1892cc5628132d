"""Validation curves of every method, and whether they are flat at the end."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from napari_msp.evaluation.figures.layout import plain_figure, tidy
from napari_msp.formatting import power_of_ten

Curve = Sequence[tuple[int, float]]
"""Steps done and error, in order."""

LAST_PART = 0.2
"""Share of the steps, at the end, over which a curve is judged flat or not (our choice)."""

FLAT = 2.0
"""Largest change in percent over `LAST_PART` of a curve that is called flat (our choice)."""

COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#7f3c8d",
    "#637939", "#a50f15", "#393b79", "#7f7f7f", "#00838f", "#b8860b",
)  # fmt: skip
"""Colours of curves, first Okabe and Ito's, which differ without full colour vision too."""

INK, SOFT = "#1d232b", "#5b6672"

HIGHLIGHT = "MSP"
"""Method that is drawn thick and dark."""


def curves_figure(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw validation errors over training steps, one column per target.

    Curves are above; below is how many percent each still changes over the last fifth of its
    steps, by the straight line through these points. The names there are the legend. `curves` are
    (step, error) by target and method, errors above 0; a method has one colour everywhere.
    """
    methods = list(dict.fromkeys(method for by_method in curves.values() for method in by_method))
    if not methods:
        raise ValueError("there are no curves to draw")
    others = [name for name in methods if name != HIGHLIGHT]
    colours = {HIGHLIGHT: INK, **dict(zip(others, cycle(COLOURS), strict=False))}
    errors = [e for by_method in curves.values() for each in by_method.values() for _, e in each]
    exponent = math.floor(math.log10(min(errors))) - 1
    below = 0.5 + 0.2 * len(methods)
    height = 2.9 + 0.9 + below
    figure = plain_figure(1.7 + 3.0 * len(curves), height)
    axes = figure.subplots(2, len(curves), squeeze=False, height_ratios=(2.9, below))
    for column, (target, by_method) in enumerate(curves.items()):
        _draw_curves(axes[0, column], by_method, colours, 10.0**exponent)
        axes[0, column].set_title(target, color=INK, fontsize=10, parse_math=False)
        _draw_changes(axes[1, column], by_method, methods, colours)
        axes[1, column].set_yticks(range(len(methods)), [""] * len(methods))
    unit = f"{power_of_ten(exponent)} SH units²".strip()
    axes[0, 0].set_ylabel(f"validation error ({unit})", color=INK, fontsize=9)
    axes[1, 0].set_yticklabels(methods)
    for label, method in zip(axes[1, 0].get_yticklabels(), methods, strict=True):
        label.set(color=colours[method], fontweight="bold", parse_math=False)
    reach = max(2 * FLAT, *(abs(end) for axis in axes[1] for end in axis.dataLim.intervalx))
    for axis in axes[1]:
        axis.set_xlim(-1.1 * reach, 1.1 * reach)
    return figure


def change_at_end(curve: Curve) -> float | None:
    """Return the change over the last fifth of the steps in percent of the error there.

    It follows the straight line through the points of the last fifth, or the last two if there
    are fewer. Negative while the error still falls; None for fewer than two points.
    """
    if len(curve) < 2:
        return None
    steps, errors = np.array(curve, dtype=float).T
    part = max(2, int(np.sum(steps >= (1 - LAST_PART) * steps[-1])))
    slope = np.polyfit(steps[-part:], errors[-part:], 1)[0]
    return float(100 * slope * LAST_PART * steps[-1] / errors[-part:].mean())


def _draw_curves(
    axes: Axes, by_method: Mapping[str, Curve], colours: Mapping[str, str], unit: float
) -> None:
    for method, curve in by_method.items():
        width, above = (2.4, 3) if method == HIGHLIGHT else (1.3, 2)
        steps, errors = zip(*((step, error / unit) for step, error in curve), strict=True)
        (line,) = axes.plot(steps, errors, color=colours[method], linewidth=width, zorder=above)
        line.set(marker="o" if len(curve) == 1 else "", gid=method)
    axes.set_yscale("log")
    # Round numbers, not powers: the curves of one target seldom span a factor of ten.
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    tidy(axes, INK, SOFT, x="step", grid="both")


def _draw_changes(
    axes: Axes, by_method: Mapping[str, Curve], methods: Sequence[str], colours: Mapping[str, str]
) -> None:
    axes.axvspan(-FLAT, FLAT, color="#e6ebf0", zorder=0)
    for row, method in enumerate(methods):
        change = change_at_end(by_method.get(method, ()))
        if change is not None:
            axes.plot([0, change], [row, row], color=colours[method], linewidth=1.5)
            axes.plot(change, row, "o", color=colours[method], markersize=5)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    label = f"change over the last {LAST_PART:.0%} of steps [%]\n(grey: within ±{FLAT:g})"
    tidy(axes, INK, SOFT, x=label, grid="x")
