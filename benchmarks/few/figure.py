"""Curves of error against steps and against seconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from few.goals import Row, Table, error
from few.methods import METHODS
from napari_msp.files import atomic_path

LINES = {"nothing": "--", "base": "-", "wide base": "-"}
"""By what the weights begin as."""

COLOURS = {
    "SHResNet": "tab:blue",
    "MSP": "tab:red",
    "MSP of own first stages": "tab:purple",
    "DIQT": "tab:green",
    "wide SHResNet": "tab:orange",
}


CLOSE = 1.08
"""Ratio of two levels below which they are named together."""


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Draw what does not learn by steps; names that would lie on each other in one line."""
    together: list[tuple[float, list[str]]] = []
    for method, value in sorted(levels.items(), key=lambda each: -each[1]):
        axes.axhline(value, color="0.6", linewidth=0.8)
        if together and together[-1][0] / value < CLOSE:
            together[-1][1].append(method)
        else:
            together.append((value, [method]))
    for value, methods in together:
        axes.annotate(
            " / ".join(methods),
            (1, value),
            xytext=(-3, 2),
            textcoords="offset points",
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color="0.4",
        )
    if levels:
        axes.set_ylim(top=1.15 * max(levels.values()))


def draw_curves(rows: Iterable[Row], path: Path) -> None:
    """Draw a row of panels a target: noise-free SH MSE of what the curves have so far.

    Nothing is drawn where nothing was trained. Rules that are learned in closed form are level.
    """
    table = Table(rows, "curves")
    targets = [t for t in table.targets if any(r["steps"] and t in r["errors"] for r in table.rows)]
    if not targets:
        return
    figure = Figure(figsize=(10, 3.4 * len(targets)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(targets), 2, sharey="row", squeeze=False)
    for (by_steps, by_seconds), target in zip(panels, targets, strict=True):
        level: dict[str, float] = {}
        for method in METHODS:
            those = [row for row in table.of(method, target) if row["set"] == table.sets[0]]
            if not those:
                continue
            values = [1e5 * error([row], target) for row in those]
            if not METHODS[method].trained:
                level[method] = values[0]
                continue
            style = {
                "color": COLOURS.get(method.split(", ")[0], "black"),
                "linestyle": LINES[METHODS[method].start],
                "marker": "o",
                "markersize": 3,
            }
            for axes, times in (
                (by_steps, [row["steps"] for row in those]),
                (by_seconds, [table.together(row)[0] for row in those]),
            ):
                axes.plot(times, values, label=method, **style)
        for axes, words in (
            (by_steps, "steps a target"),
            (by_seconds, "seconds of one core, all targets"),
        ):
            axes.set_xscale("symlog", linthresh=30, linscale=0.5)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(axis="y", color="0.92")
            axes.set_axisbelow(True)
            axes.set_xlabel(words)
            _draw_levels(axes, level)
        by_steps.set_ylabel(f"{target}: SH MSE × 10⁵")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=4)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
