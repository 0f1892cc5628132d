"""Figures of the site effect: biases by region, Bland-Altman plots, who is told right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from napari_msp.evaluation.figures.curves import COLOURS
from napari_msp.evaluation.figures.layout import INK, PAPER, SOFT_INK, plain_figure, tidy
from napari_msp.evaluation.proof.agreement import LIMITS
from napari_msp.evaluation.statistics import FOR_INTERVAL, Interval
from napari_msp.formatting import NumberFormat, number

Bias = tuple[float, Interval | None]
"""In percent, with its interval."""

GRID = "#e3e7ec"

OF_ROLES = {"before": INK, "floor": "#9aa4ae", "noise-free": "#c9cfd5"}
"""Colours of what is no method; a trivial predictor has a hollow marker."""

WIDEST = 34
"""Characters of a row's name in a figure."""


def _colours(roles: Mapping[str, str]) -> dict[str, str]:
    others = [row for row, role in roles.items() if role not in OF_ROLES]
    free = {row: COLOURS[number % len(COLOURS)] for number, row in enumerate(others)}
    return {row: OF_ROLES.get(role) or free[row] for row, role in roles.items()}


def _marker(colour: str, role: str) -> dict[str, Any]:
    return {"color": colour, "markerfacecolor": PAPER if role == "trivial" else colour}


def bias_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Bias]]], roles: Mapping[str, str]
) -> Figure:
    """Draw biases by region, one panel a quantity, one colour a row.

    Parameters
    ----------
    panels
        By quantity, region and row.
    roles
        Of each row, in the order of the legend.
    """
    colours = _colours(roles)
    regions = list(dict.fromkeys(region for panel in panels.values() for region in panel))
    height = 0.9 + len(regions) * (0.18 + 0.13 * len(roles)) + 0.22 * ((len(roles) + 3) // 4)
    figure = plain_figure(2.0 + 2.3 * len(panels), height)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    step = 0.8 / max(1, len(roles))
    for one, (title, panel) in zip(axes, panels.items(), strict=True):
        reach = _reach(panel, roles)
        one.set_xlim(-reach, reach)
        one.axvline(0, color=SOFT_INK, linewidth=0.8)
        for place, region in enumerate(regions):
            if place % 2:
                one.axhspan(place - 0.5, place + 0.5, color="#f5f7f9", zorder=0)
            for position, (row, role) in enumerate(roles.items()):
                if row not in panel.get(region, {}):
                    continue
                bias, interval = panel[region][row]
                at = place - 0.4 + step * (position + 0.5)
                if abs(bias) > reach:  # a trivial predictor would squeeze all others
                    mark = ">" if bias > 0 else "<"
                    (end,) = one.plot(np.sign(bias) * reach, at, mark, color=colours[row])
                    end.set(markerfacecolor=PAPER, markersize=5, clip_on=False)
                    continue
                if interval is not None:
                    one.plot(interval, [at, at], color=colours[row], linewidth=1.3)
                one.plot(bias, at, "o", markersize=4.5, **_marker(colours[row], role))
        one.set_title(title, color=INK, fontsize=10, parse_math=False)
        one.set_xlabel("bias [%]", color=INK, fontsize=9)
        one.grid(True, axis="x", color=GRID, linewidth=0.6)
        tidy(one)
    axes[0].set_yticks(range(len(regions)), [_short(region) for region in regions])
    for label in axes[0].get_yticklabels():
        label.set_parse_math(False)
    axes[0].set_ylim(len(regions) - 0.5, -0.5)
    _legend(figure, colours, roles)
    return figure


def _reach(panel: Mapping[str, Mapping[str, Bias]], roles: Mapping[str, str]) -> float:
    """Give how far a panel reaches: to every row but the trivial ones."""
    ends = [
        abs(end)
        for by_row in panel.values()
        for row, (bias, interval) in by_row.items()
        if roles.get(row) != "trivial"
        for end in (bias, *(interval or ()))
    ]
    return 1.1 * max(ends, default=1.0) or 1.0


def _legend(figure: Figure, colours: Mapping[str, str], roles: Mapping[str, str]) -> None:
    marks = [
        figure.axes[0].plot(
            [], [], "o", markersize=5, label=_short(row), **_marker(colours[row], role)
        )[0]
        for row, role in roles.items()
    ]
    columns = max(1, int(figure.get_figwidth() / 2.2))
    legend = figure.legend(
        handles=marks, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def bland_altman_figure(
    pairs: Mapping[tuple[str, str], Sequence[tuple[float, float]]], label: str, unit: str
) -> Figure:
    """Draw Bland-Altman plots: regions in rows, what is compared in columns, one scale a region.

    Parameters
    ----------
    pairs
        A row's value and the target's of each subject, by region and row.
    label, unit
        Of the quantity.
    """
    regions = list(dict.fromkeys(region for region, _ in pairs))
    rows = list(dict.fromkeys(row for _, row in pairs))
    every = [value for each in pairs.values() for pair in each for value in pair]
    display = NumberFormat.of(every)
    scale = 10.0**display.exponent
    figure = plain_figure(1.0 + 2.1 * len(rows), 0.7 + 1.75 * len(regions))
    grid = figure.subplots(len(regions), len(rows), squeeze=False, sharex="row", sharey="row")
    for line, region in enumerate(regions):
        for column, row in enumerate(rows):
            axes = grid[line, column]
            _bland_altman(axes, np.array(pairs.get((region, row), ()), dtype=float) / scale)
            if line == 0:
                axes.set_title(_short(row), color=INK, fontsize=9, parse_math=False)
        grid[line, 0].set_ylabel(_short(region), color=INK, fontsize=9, parse_math=False)
    named = f"{label} [{display.unit(unit)}]" if display.unit(unit) else label
    figure.supxlabel(f"mean of row and target's scan: {named}", color=INK, fontsize=9)
    figure.supylabel("row minus target's scan", color=INK, fontsize=9)
    return figure


def _bland_altman(axes: Axes, pairs: np.ndarray) -> None:
    axes.axhline(0, color=SOFT_INK, linewidth=0.6)
    tidy(axes)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if len(pairs) == 0:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", fontsize=8)
        return
    means, differences = pairs.mean(axis=1), pairs[:, 0] - pairs[:, 1]
    axes.plot(means, differences, "o", color=COLOURS[0], markersize=4, alpha=0.85)
    bias = float(differences.mean())
    axes.axhline(bias, color=COLOURS[3], linewidth=1.2)
    if len(pairs) >= FOR_INTERVAL:
        reach = LIMITS * float(differences.std(ddof=1))
        for limit in (bias - reach, bias + reach):
            axes.axhline(limit, color=COLOURS[3], linewidth=0.9, linestyle=(0, (4, 3)))


def people_figure(
    points: Mapping[str, tuple[float, float]], chance: float, roles: Mapping[str, str]
) -> Figure:
    """Draw each row's median bias beside the share of subjects that it lets be told right.

    Parameters
    ----------
    points
        Bias in percent and share, by row.
    chance
        Share that guessing gives.
    roles
        Of each row.
    """
    colours = _colours(roles)
    figure = plain_figure(9.0, 3.0 + 0.22 * ((len(roles) + 3) // 4))
    axes = figure.subplots()
    axes.axhline(chance, color=SOFT_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(
        1.0, chance, " chance", color=SOFT_INK, fontsize=8, va="center",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    for row, (bias, rate) in points.items():
        size, above = (12, 2) if roles[row] in ("floor", "noise-free") else (8, 3)
        style = _marker(colours[row], roles[row])
        axes.plot(bias, rate, "o", markersize=size, zorder=above, clip_on=False, **style)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_yticks(
        [0, 0.25, 0.5, 0.75, 1], [f"{number(100 * y, 0)} %" for y in (0, 0.25, 0.5, 0.75, 1)]
    )
    axes.set_xlabel(
        "site effect: median |bias| over regions and quantities [%]", color=INK, fontsize=9
    )
    axes.set_ylabel("subjects told right", color=INK, fontsize=9)
    axes.grid(True, color=GRID, linewidth=0.6)
    tidy(axes)
    _legend(figure, {row: colours[row] for row in points}, {row: roles[row] for row in points})
    return figure


def _short(name: str) -> str:
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"
