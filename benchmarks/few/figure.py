"""Curves of error against steps and against seconds."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from few.goals import Row, Table, error
from few.methods import CLOSED, METHODS
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
        for method in METHODS:
            those = [row for row in table.of(method, target) if row["set"] == table.sets[0]]
            if not those:
                continue
            values = [1e5 * error([row], target) for row in those]
            if method in CLOSED:
                for axes in (by_steps, by_seconds):
                    axes.axhline(values[0], color="0.6", linewidth=0.8)
                    axes.annotate(
                        method,
                        (1, values[0]),
                        xycoords=("axes fraction", "data"),
                        ha="right",
                        va="bottom",
                        fontsize=7,
                        color="0.4",
                    )
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
            axes.set_xscale("symlog", linthresh=10)
            axes.set_xlim(left=0)
            axes.set_yscale("log")
            axes.set_xlabel(words)
        by_steps.set_ylabel(f"{target}: SH MSE × 10⁵")
    panels[0][0].legend(fontsize=7, loc="best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
