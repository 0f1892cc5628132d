"""Figures of the site effect: biases by region, Bland-Altman plots, and identification."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from napari_msp.evaluation.figures.curves import COLOURS
from napari_msp.evaluation.figures.layout import INK, PAPER, SOFT_INK, plain_figure, tidy
from napari_msp.evaluation.proof.agreement import LIMITS
from napari_msp.evaluation.proof.pages import PageFigure
from napari_msp.evaluation.proof.site_effect_numbers import SiteEffects, role_of
from napari_msp.evaluation.proof.values import QUANTITIES, quantity_key
from napari_msp.evaluation.statistics import FOR_INTERVAL, Interval
from napari_msp.formatting import NumberFormat, number

Bias = tuple[float, Interval | None]
"""Bias in percent, with its interval."""

OF_ROLES = {"before": INK, "floor": "#6f7a85", "noise-free": "#9aa4ae"}
"""Colours of rows that are not methods; a trivial predictor has a hollow marker."""

MARKERS = {"floor": "s", "noise-free": "D"}
"""Markers of rows drawn in grey, distinct in print; all others are discs."""

WIDEST = 34
"""Longest name of a row in a figure, in characters."""

SHOWN = ("fa", "md", "rish0", "rish2", "fa_signal", "md_signal")
"""Quantities in the figure of biases."""

DRAWN = ("fa", "md", "fa_signal", "md_signal")
"""Quantities with Bland-Altman plots."""

MOST_BIASES = 12
"""Number of regions in a figure of biases, the largest ones."""


def drawings(found: Sequence[SiteEffects], several: bool) -> Iterator[PageFigure]:
    """Draw every figure of the page; if there are `several` datasets, figures name them."""
    for each in found:
        end = f"{each.dataset}_{each.column}" if several else each.column
        end = quantity_key(end.replace(" ", "_"), each.through)
        named, enough = each.named(several), len(each.subjects) >= FOR_INTERVAL
        points = {
            row: (bias, known.right_unbiased / known.subjects)
            for row in each.rows
            if (bias := each.middle(row, "bias_percent")) is not None
            and (known := each.identified.get(row)) is not None
        }
        if points:
            yield PageFigure(
                f"people_{end}",
                f"{named}: site effect (median bias) and how many subjects are told right when "
                "biases are taken away. Good is top left; the trivial predictors show that left "
                "alone is easy.",
                _people_figure(points, 1 / len(each.subjects), each.roles),
            )
        drawn = {QUANTITIES[key].label: _biases(each, key) for key in SHOWN}
        drawn = {label: panel for label, panel in drawn.items() if panel}
        if drawn:
            yield PageFigure(
                f"bias_{end}",
                f"{named}: bias by region in percent of the target's mean"
                f"{', with 95 % intervals' * enough}.",
                _bias_figure(drawn, each.roles),
            )
        for key in DRAWN:
            pairs = {
                (region, row): each.pairs(row, (region, key))
                for region in each.largest(key)
                for row in each.rows
                if role_of(row) != "trivial"  # whose distances would squeeze all others
            }
            if any(len(pair) > 1 for pair in pairs.values()):
                yield PageFigure(
                    f"bland_altman_{QUANTITIES[key].map}_{end}",
                    f"{named}: Bland-Altman plots of {QUANTITIES[key].label}. One point a subject; "
                    f"lines are the bias{' and the 95 % limits of agreement' * enough}.",
                    _bland_altman_figure(pairs, key),
                )


def _biases(each: SiteEffects, key: str) -> dict[str, dict[str, Bias]]:
    """Return the biases of a quantity by region and row, in percent."""
    found: dict[str, dict[str, Bias]] = {}
    shown = each.largest(key, MOST_BIASES)
    for effect in each.effects:
        of, bias = effect.agreement, effect.agreement.bias_percent
        if effect.quantity == key and effect.region in shown and bias is not None:
            found.setdefault(effect.region, {})[effect.row] = bias, of.interval_percent
    return found


def _colours(roles: Mapping[str, str]) -> dict[str, str]:
    others = [row for row, role in roles.items() if role not in OF_ROLES]
    free = {row: COLOURS[number % len(COLOURS)] for number, row in enumerate(others)}
    return {row: OF_ROLES.get(role) or free[row] for row, role in roles.items()}


def _marker(colour: str, role: str) -> dict[str, Any]:
    face = PAPER if role == "trivial" else colour
    marker = MARKERS.get(role, "o")
    return {"color": colour, "linestyle": "none", "marker": marker, "markerfacecolor": face}


def _bias_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Bias]]], roles: Mapping[str, str]
) -> Figure:
    """Draw biases by quantity, region and row: one panel per quantity, one colour per row."""
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
                one.plot(bias, at, markersize=4.5, **_marker(colours[row], role))
        one.set_title(title, color=INK, fontsize=10, parse_math=False)
        tidy(one, x="bias [%]", grid="x")
    axes[0].set_yticks(range(len(regions)), [_short(region) for region in regions])
    for label in axes[0].get_yticklabels():
        label.set_parse_math(False)
    axes[0].set_ylim(len(regions) - 0.5, -0.5)
    _legend(figure, colours, roles)
    return figure


def _reach(panel: Mapping[str, Mapping[str, Bias]], roles: Mapping[str, str]) -> float:
    """Return the limit of a panel's axis, from every row but the trivial ones."""
    ends = [
        abs(end)
        for by_row in panel.values()
        for row, (bias, interval) in by_row.items()
        if roles.get(row) != "trivial"
        for end in (bias, *(interval or ()))
    ]
    return 1.1 * max(ends, default=1.0) or 1.0


def _legend(figure: Figure, colours: Mapping[str, str], roles: Mapping[str, str]) -> None:
    plot = figure.axes[0].plot
    marks = [
        plot([], [], markersize=5, label=_short(row), **_marker(colours[row], role))[0]
        for row, role in roles.items()
    ]
    columns = max(1, int(figure.get_figwidth() / 2.2))
    legend = figure.legend(
        handles=marks, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _bland_altman_figure(
    pairs: Mapping[tuple[str, str], Sequence[tuple[float, float]]], key: str
) -> Figure:
    """Draw Bland-Altman plots: regions in rows, compared rows in columns, one scale per region.

    `pairs` holds each subject's value in a row and on the target, by region and row.
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
    label, unit = QUANTITIES[key].label, display.unit(QUANTITIES[key].unit)
    named = f"{label} [{unit}]" if unit else label
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


def _people_figure(
    points: Mapping[str, tuple[float, float]], chance: float, roles: Mapping[str, str]
) -> Figure:
    """Draw each row's median bias in percent against the share of subjects that are identified."""
    colours = _colours(roles)
    figure = plain_figure(9.0, 3.0 + 0.22 * ((len(roles) + 3) // 4))
    axes = figure.subplots()
    axes.axhline(chance, color=SOFT_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(
        1.0, chance, " chance", color=SOFT_INK, fontsize=8, va="center",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    for row, (bias, rate) in points.items():
        above = 2 if roles[row] in MARKERS else 3
        style = _marker(colours[row], roles[row])
        axes.plot(bias, rate, markersize=8, zorder=above, clip_on=False, **style)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_yticks(ticks, [f"{number(100 * tick, 0)} %" for tick in ticks])
    median = "site effect: median |bias| over regions and quantities [%]"
    tidy(axes, x=median, y="subjects told right", grid="both")
    _legend(figure, {row: colours[row] for row in points}, {row: roles[row] for row in points})
    return figure


def _short(name: str) -> str:
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"
