"""The report on an alignment: each scan before and after, as a table and a page with pictures."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader

from napari_msp.alignment.registration import BrainImage
from napari_msp.arrays import FloatArray
from napari_msp.checking.summary import Finding, ScanComparison
from napari_msp.data.lattice import resample
from napari_msp.files import write_text
from napari_msp.formatting import aligned, counted, csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT, TABLE = "align.html", "align.csv"


@dataclass(frozen=True, eq=False)
class AlignedScan:
    """A scan that was aligned to the input's head, or could not be.

    Attributes
    ----------
    image
        The written DWI, relative to the new dataset; None if the scan was left out.
    before, after
        Comparisons with the input, as `check` measures them; None for the input itself, and if they
        could not be measured.
    clipped
        Share of in-mask samples that were negative after interpolation; None without one.
    kept_energy
        Energy of each SH order after interpolation over that before, in the mask; empty without
        one.
    pictures
        PNG of the heads before and after; empty for the input.
    """

    subject: str
    platform: str
    image: Path | None
    before: ScanComparison | None = None
    after: ScanComparison | None = None
    clipped: float | None = None
    kept_energy: Mapping[int, float] = field(default_factory=dict)
    pictures: bytes = b""

    @property
    def name(self) -> str:
        """Subject and platform, such as "sub-01 ge_st"."""
        return f"{self.subject} {self.platform}"


@dataclass(frozen=True, eq=False)
class Alignment:
    """An aligned dataset: its folder, its scans, and doubts about them."""

    out: Path
    input_platform: str
    scans: tuple[AlignedScan, ...]
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        moved = [scan for scan in self.scans if scan.after is not None]
        scans = counted(len(moved), "scan")
        return f"<Alignment of {scans} with {self.input_platform} in {self.out}>"

    @property
    def report(self) -> Path:
        """Path of the page that shows all scans before and after."""
        return self.out / REPORT


# --- Table ------------------------------------------------------------------------------------

COLUMNS = ("shift_mm", "rotation_degrees", "displacement_voxels", "correlation", "dice")
"""Measures against the input, see `Comparison.numbers`."""

LEAST_TOLD = 0.05
"""Smallest distance in voxels that is reported: the remaining motion is measured like the motion
itself, and smaller values say nothing (its true median was 0.02 on simulated heads)."""


def distance_text(voxels: float) -> str:
    """Write how far a head is away, no finer than can be measured."""
    return f"{voxels:.2f}" if voxels >= LEAST_TOLD else f"<{LEAST_TOLD:.2f}"


def table_csv(scans: Iterable[AlignedScan]) -> str:
    """Write a row per scan with full precision; a field is empty for None."""
    names = [f"{name}_{when}" for when in ("before", "after") for name in COLUMNS]
    header = ["subject", "platform", "image", *names, "clipped_share"]
    rows = (
        [scan.subject, scan.platform, scan.image, *_numbers(scan), scan.clipped] for scan in scans
    )
    return csv_text(header, rows)


def table_text(alignment: Alignment) -> str:
    """Write the table for a terminal."""
    heading = ["scan", "shift", "turn", "away", "r", "Dice"]
    heading += ["→ shift", "turn", "away", "r", "Dice"]
    lines = [heading, *([scan.name, *_written(scan)] for scan in alignment.scans)]
    legend = LEGEND.format(input=alignment.input_platform)
    return "\n".join([*aligned(lines), "", *(_kept_text(alignment.scans)), legend])


LEGEND = """\
Against {input}, before → after: shift in mm, turn in degrees; away: how far both move the brain on
average, in voxels of {input}; r: correlation when aligned; Dice of the masks.
"""


def _numbers(scan: AlignedScan) -> list[float | None]:
    known = ({} if of is None else of.numbers for of in (scan.before, scan.after))
    return [numbers.get(name) for numbers in known for name in COLUMNS]


def _written(scan: AlignedScan) -> list[str]:
    if scan.image is None:
        return ["left out", *["–"] * (2 * len(COLUMNS) - 1)]
    forms = 2 * ["{:.2f}".format, "{:.2f}".format, distance_text, "{:.3f}".format, "{:.3f}".format]
    numbers = zip(forms, _numbers(scan), strict=True)
    return ["–" if value is None else form(value) for form, value in numbers]


def kept_energy(scans: Sequence[AlignedScan]) -> dict[str, dict[int, float]]:
    """Return, by platform, the median over subjects of each SH order's energy after interpolation.

    It is relative to that before: interpolation removes fine detail and noise.
    """
    platforms = list(dict.fromkeys(scan.platform for scan in scans if scan.kept_energy))
    kept: dict[str, dict[int, float]] = {}
    for platform in platforms:
        of = [scan.kept_energy for scan in scans if scan.platform == platform and scan.kept_energy]
        orders = sorted(set.intersection(*(set(each) for each in of)))
        kept[platform] = {order: float(np.median([each[order] for each in of])) for order in orders}
    return kept


def _kept_text(scans: Sequence[AlignedScan]) -> list[str]:
    lines = [
        f"  {platform}: " + ", ".join(f"l = {order}: {share:.2f}" for order, share in kept.items())
        for platform, kept in kept_energy(scans).items()
    ]
    return ["SH energy left by the interpolation, of 1:", *lines, ""] if lines else []


# --- Pictures ---------------------------------------------------------------------------------

SQUARE = 15.0
"""Edge of the checkerboard's squares in mm (our choice)."""

GAP = 6.0
"""Gap between pictures, in mm of the head."""

WIDTH, TITLE = 11.0, 0.3
"""Width of the figure and height of the line above it, in inches."""

VIEWS = ((2, 0, 1), (1, 0, 2), (0, 1, 2))
"""Axial, coronal and sagittal views: RAS axes through the slice, along rows and along columns."""


def heads_figure(fixed: BrainImage, before: BrainImage, after: BrainImage) -> bytes:
    """Draw a scan with the input's head, before and after: checkerboards and edges, as PNG.

    It shows the mean diffusivity times b, which looks alike on all platforms. Checkerboard squares
    alternate between both scans; the lines are the input's edges drawn over the scan.
    """
    from matplotlib.figure import Figure

    inside = fixed.lattice.to_canonical(fixed.mask)
    box = tuple(
        slice(max(0, int(where.min()) - 2), int(where.max()) + 3) for where in np.nonzero(inside)
    )
    lattice = fixed.lattice.canonical
    head, *scans = (
        each[box]
        for each in (
            fixed.lattice.to_canonical(fixed.values),
            *(resample(each.values, each.lattice, lattice) for each in (before, after)),
        )
    )
    high = float(np.percentile(head[inside[box]], 97))
    centre = np.rint(np.argwhere(inside[box]).mean(axis=0)).astype(int)
    sizes = lattice.voxel_sizes
    x, y, z = (float(each) for each in head.shape * sizes)
    # Size of each panel in mm: axial at the left, coronal above sagittal beside it.
    width, height = x + GAP + max(x, y), max(y, 2 * z + GAP)
    places = (0.0, height - y), (x + GAP, height - z), (x + GAP, height - 2 * z - GAP)
    figure = Figure(figsize=(WIDTH, WIDTH * height / width + TITLE), dpi=90, facecolor="black")
    figure.set_layout_engine("constrained")
    for (row, column), axis in np.ndenumerate(figure.subplots(2, 2)):
        for (through, across, up), (left, bottom) in zip(VIEWS, places, strict=True):
            # The patient's left is on the right, front and top are at the top.
            still, moving = (
                np.take(each, centre[through], axis=through).T[::-1, ::-1]
                for each in (head, scans[column])
            )
            edges = sizes[[up, across]]
            tall, wide = edges * still.shape
            extent = (left, left + wide, bottom, bottom + tall)
            _draw(axis, still, moving, high, extent, None if row else edges)
        axis.set(xlim=(0, width), ylim=(0, height), aspect="equal")
        axis.set_title("" if row else ("before", "after")[column], color="white", loc="left")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black")
    return stream.getvalue()


def _draw(
    axis: "Axes",
    still: FloatArray,
    moving: FloatArray,
    high: float,
    extent: tuple[float, float, float, float],
    squares: FloatArray | None,
) -> None:
    """Draw one view: a checkerboard with voxels of these sizes in mm, or edges over the scan."""
    axis.set_axis_off()
    shown = moving if squares is None else np.where(_board(still.shape, squares), still, moving)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=high, extent=extent)
    if squares is None:
        levels, colour = [0.3 * high, 0.75 * high], "#ff9f1c"
        axis.contour(still, levels, colors=colour, linewidths=0.8, origin="upper", extent=extent)


def _board(shape: tuple[int, ...], sizes: FloatArray) -> FloatArray:
    rows, columns = (
        np.floor(np.arange(count) * size / SQUARE).astype(int)
        for count, size in zip(shape, sizes, strict=True)
    )
    return np.asarray((rows[:, None] + columns[None, :]) % 2 == 0)


# --- Page -------------------------------------------------------------------------------------


def write_report(folder: Path, alignment: Alignment) -> None:
    """Write the table and the page, which needs no other file."""
    write_text(folder / TABLE, table_csv(alignment.scans))
    write_text(folder / REPORT, report_html(alignment))


def report_html(alignment: Alignment) -> str:
    """Fill in the page, align.html beside this file."""
    page = Environment(loader=PackageLoader(__package__, "."), autoescape=True)
    after = [scan.after for scan in alignment.scans if scan.after is not None]
    away = [each.distance for each in after if each.distance is not None]
    return page.get_template("align.html").render(
        alignment=alignment,
        rows=[(scan.subject, scan.platform, _written(scan)) for scan in alignment.scans],
        kept=kept_energy(alignment.scans),
        legend=LEGEND.format(input=alignment.input_platform),
        away=away,
        laid=counted(len(away), "scan"),
        median=distance_text(float(np.median(away))) if away else "",
        worst=distance_text(max(away)) if away else "",
        pictures=[
            (scan.name, base64.b64encode(scan.pictures).decode("ascii"))
            for scan in alignment.scans
            if scan.pictures
        ],
    )
