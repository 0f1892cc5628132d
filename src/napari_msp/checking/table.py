"""The measurements of each scan as a table: on a terminal, as CSV, as JSON."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.checking.quality import ScanQuality
from napari_msp.checking.summary import Finding, ScanComparison, ScanSummary
from napari_msp.data.gradients import GradientTable
from napari_msp.errors import PYTHON, Advice, UserError, Words
from napari_msp.files import refuse_unwritable, write_json, write_text
from napari_msp.formatting import counted, csv_text, padded, shown
from napari_msp.signal.fitting import condition_number, supported_order
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count

Triple = tuple[float, float, float]

FORMATS = (".csv", ".json")

Row = Mapping[str, Any]
"""A scan's row: a value for each of `COLUMNS`, None if not measured or not applicable."""

COLUMNS = tuple(
    """subject platform voxel_xyz_mm shape_xyz b0_volumes b_value directions sh_order condition
    shell_directions shell_sh_order shell_condition mask_voxels mask_ml snr noise noise_from cnr ndc
    ndc_whole dropped_slices worst_volume worst_slice worst_depth moved_volumes moved_volume
    moved_mm moved_degrees framewise_mean_mm framewise_max_mm ghost wrap dice shift_mm shift_voxels
    shift_xyz_voxels rotation_degrees displacement_voxels correlation flags""".split()  # noqa: SIM905 - forty words, not forty lines
)
"""Column names in the order of the files; see `scan_row`."""


def unusable_row(subject: str, platform: str) -> Row:
    """Return the row of a scan that could not be opened."""
    named = {"subject": subject, "platform": platform, "flags": ("unusable",)}
    return dict.fromkeys(COLUMNS) | named


def scan_row(scan: ScanSummary, b_value: float | None, findings: Sequence[Finding]) -> Row:
    """Return the row of a scan.

    Parameters
    ----------
    b_value
        The input platform's b-value in s/mm²; None: the lowest shell.
    findings
        All findings of the dataset; those on the scan or its platform give its flags.

    Returns
    -------
    voxel_xyz_mm, shape_xyz
        Spacing and number of voxels, in closest-canonical order.
    b_value, directions
        b-value in s/mm² and number of directions of the shell nearest to the input's b-value.
    sh_order
        Highest SH order that the scheme supports.
    condition
        Condition number of the SH design matrix at order 6; None with too few directions.
    shell_directions, shell_sh_order, shell_condition
        The same for every shell, by its b-value.
    snr
        Mean b=0 signal inside the mask over the noise of one volume.
    noise, noise_from
        That noise in scanner units, and its source: repeated "b=0" volumes, or the "residuals" of a
        shell's fit.
    ndc, ndc_whole
        Neighbouring-DWI correlation in the mask, and over the whole image.
    dropped_slices, worst_volume, worst_slice, worst_depth
        Number of slices that dropped out, and the worst one, counted from 0 as stored; the depth is
        the share of signal that is missing.
    moved_volumes, moved_volume, moved_mm, moved_degrees
        Number of volumes that moved relative to the others of their shell, and the worst one.
    framewise_mean_mm, framewise_max_mm
        Framewise displacement (Power 2012).
    ghost, wrap
        Signal in the background, as shares of the brain's, see `background`.
    dice
        Overlap of its mask with the input's, on the input's lattice.
    shift_mm, shift_voxels, shift_xyz_voxels
        Distance of the brain's centre from the input's: in mm, in voxels of the input, and its
        parts to the right, front and top.
    rotation_degrees
        Rotation of the head relative to the input's.
    displacement_voxels
        Mean distance by which shift and rotation move the brain, in voxels of the input.
    correlation
        Correlation of both scans when aligned.
    flags
        Findings in a word or two each; the findings have the details.
    """
    lattice, places = scan.lattice.canonical, (scan.name, scan.where, scan.platform)
    flags = [finding.flag for finding in findings if finding.flag and finding.where in places]
    known = {
        "subject": scan.subject,
        "platform": scan.platform,
        "voxel_xyz_mm": _triple(lattice.voxel_sizes),
        "shape_xyz": lattice.shape,
        "b0_volumes": len(scan.gradients.b0_volumes),
        "mask_voxels": scan.mask_voxels,
        "mask_ml": scan.mask_ml,
        "flags": tuple(dict.fromkeys(flags)),
        **_scheme(scan.gradients, b_value),
        **({} if scan.quality is None else _quality(scan.quality)),
        **({} if scan.comparison is None else _place(scan.comparison)),
    }
    return dict.fromkeys(COLUMNS) | known


def _scheme(gradients: GradientTable, b_value: float | None) -> dict[str, Any]:
    nearest = gradients.nearest_shell(0.0 if b_value is None else b_value)
    if nearest is None:
        return {}
    of_shells: dict[str, dict[str, Any]] = {"directions": {}, "sh_order": {}, "condition": {}}
    for shell in gradients.shells:
        name, directions = f"{shell.b_value:.0f}", gradients.directions[shell.volumes]
        enough = len(directions) >= coefficient_count(ORDER)
        of_shells["directions"][name] = len(directions)
        of_shells["sh_order"][name] = supported_order(directions)
        of_shells["condition"][name] = condition_number(directions, ORDER) if enough else None
    own = {what: values[f"{nearest.b_value:.0f}"] for what, values in of_shells.items()}
    every = {f"shell_{what}": values for what, values in of_shells.items()}
    return {"b_value": nearest.b_value, **own, **every}


def _quality(quality: ScanQuality) -> dict[str, Any]:
    found: dict[str, Any] = {
        "cnr": {f"{b_value:.0f}": value for b_value, value in quality.cnr.items()},
        "dropped_slices": len(quality.dropped),
        "moved_volumes": len(quality.moved),
        "framewise_mean_mm": quality.framewise,
        "framewise_max_mm": quality.framewise_most,
    }
    for name in ("snr", "noise", "noise_from", "ndc", "ndc_whole", "ghost", "wrap"):
        found[name] = getattr(quality, name)
    for worst in quality.dropped[:1]:
        found |= {"worst_volume": worst.volume, "worst_slice": worst.slice}
        found["worst_depth"] = worst.depth
    for far in quality.moved[:1]:
        found |= {"moved_volume": far.volume, "moved_mm": far.shift, "moved_degrees": far.turn}
    return found


def _place(comparison: ScanComparison) -> dict[str, Any]:
    numbers: dict[str, Any] = {**comparison.numbers}
    if (shift := comparison.shift) is not None:
        numbers |= {"shift_voxels": float(np.linalg.norm(shift))}
        numbers |= {"shift_xyz_voxels": _triple(shift)}
    return numbers


def _triple(values: FloatArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


# --- On a terminal ---------------------------------------------------------------------------

WIDTH = 100
"""Characters per line, unless the terminal has its own width."""

NARROWEST = 60
"""Characters per line below which nothing is squeezed: the terminal breaks the lines."""

LEAST_FLAGS = 16
"""Characters that flags need beside the numbers; with less room they continue below."""

BENEATH = "      "

Printed = Mapping[str, Callable[[Row], str]]
"""Headings and contents of a table's columns on the terminal."""

PLACE: Printed = {
    "subject": lambda row: row["subject"],
    "cond": lambda row: _of_shells(row["shell_condition"], _condition),
    "ml": lambda row: shown(row["mask_ml"], ".0f"),
    "Dice": lambda row: shown(row["dice"], ".2f"),
    "shift": lambda row: shown(row["shift_voxels"], ".2f"),
    "right": lambda row: _component(row, 0),
    "front": lambda row: _component(row, 1),
    "up": lambda row: _component(row, 2),
    "turn": lambda row: shown(row["rotation_degrees"], ".1f"),
    "away": lambda row: shown(row["displacement_voxels"], ".2f"),
    "r": lambda row: shown(row["correlation"], ".2f"),
}

PLACE_LEGEND = """\
cond: condition number at SH order 6, of each shell. ml: size of the mask.
Against {input}: Dice of the masks; shift of the brain's centre and its parts, in voxels of
{input}; turn in degrees; away: how far both move the brain on average, in voxels of {input};
r: correlation when aligned.
"""

QUALITY: Printed = {
    "subject": lambda row: row["subject"],
    "NDC": lambda row: shown(row["ndc"], ".2f"),
    "SNR": lambda row: shown(row["snr"], ".1f") + ("*" if row["noise_from"] == "residuals" else ""),
    "CNR": lambda row: _of_shells(row["cnr"], lambda cnr: shown(cnr, ".2f")),
    "slices": lambda row: shown(row["dropped_slices"], ".0f"),
    "moved": lambda row: shown(row["moved_volumes"], ".0f"),
    "FD": lambda row: shown(row["framewise_mean_mm"], ".2f"),
    "ghost": lambda row: _percent(row["ghost"]),
    "wrap": lambda row: _percent(row["wrap"]),
    "flags": lambda row: ", ".join(row["flags"]),
}

QUALITY_LEGEND = """\
NDC: correlation of neighbouring directions in the mask. SNR: of one b=0 volume, noise from repeated
b=0 volumes (*: there are none, from the residuals of a shell's fit). CNR: of each shell, predicted
signal's deviation over the residuals'. slices: that dropped out. moved: volumes in which
the head lies 0.5 mm and a quarter of a voxel or more from its median place in their shell (as a
rigid move: eddy currents' distortion counts, too). FD: mean framewise displacement in mm. ghost,
wrap: in the background of b=0, in % of the signal; –: too little background is in the image.
"""


def table_text(rows: Sequence[Row], input_platform: str, width: int = WIDTH) -> str:
    """Write the rows for a terminal, grouped by platform and protocol: how good each scan is.

    Above that, if there are several, how they lie relative to the input. A scan whose protocol
    differs from those of its platform has its own heading.
    """
    text, width = [], max(width, NARROWEST)
    if len(rows) > 1 and input_platform:
        place = PLACE_LEGEND.format(input=input_platform)
        text += [*_table(rows, PLACE, _protocol, width), "", *_paragraphs(place, width), ""]
        text += ["Is the scan any good?", ""]
        text += _table(rows, QUALITY, lambda row: row["platform"], width)
    else:
        text += _table(rows, QUALITY, _protocol, width)
    return "\n".join([*text, "", *_paragraphs(QUALITY_LEGEND, width), ""])


def _paragraphs(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _table(
    rows: Sequence[Row], columns: Printed, heading: Callable[[Row], str], width: int
) -> list[str]:
    """Lay out one table, each group of rows under its heading."""
    groups: dict[str, list[list[str]]] = {}
    for row in sorted(rows, key=lambda row: row["platform"]):
        groups.setdefault(heading(row), []).append([give(row) for give in columns.values()])
    lines = [list(columns), *(cells for group in groups.values() for cells in group)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    flagged = "flags" in columns
    text = _line(list(columns), widths, width, flagged)
    for name, group in groups.items():
        text += [
            *_paragraphs(name, width),
            *(line for cells in group for line in _line(cells, widths, width, flagged)),
        ]
    return text


def _protocol(row: Row) -> str:
    """Write the platform, and what its scans should have in common."""
    shape = "–" if row["shape_xyz"] is None else " × ".join(map(str, row["shape_xyz"]))
    orders = row["shell_sh_order"] or {}
    shells = [
        f"{counted(count, 'direction')} at b = {b_value}, good for SH order {orders[b_value]}"
        for b_value, count in (row["shell_directions"] or {}).items()
    ]
    return (
        f"{row['platform'] or 'scan'}: {_sizes(row['voxel_xyz_mm'])} mm, {shape} voxels, "
        f"{shown(row['b0_volumes'], '.0f')} b=0, {'; '.join(shells) or 'no directions'}"
    )


def _of_shells(
    values: Mapping[str, float | None] | None, write: Callable[[float | None], str]
) -> str:
    """Write the value of each shell, lowest b-value first."""
    return "/".join(write(each) for each in (values or {}).values()) or "–"


def _condition(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 1e4 else ">1e4"


def _line(cells: Sequence[str], widths: Sequence[int], width: int, flagged: bool) -> list[str]:
    """Write a name on the left and numbers on the right; long flags, the last, continue below.

    Numbers are never broken, however narrow the terminal.
    """
    filled = padded(cells, widths)
    if not flagged:
        return ["  " + "  ".join(filled)]
    lead, flags = "  " + "  ".join(filled[:-1]), cells[-1]
    beside = " " * (len(lead) + 2)
    fits = width - len(beside) >= min(len(flags), LEAST_FLAGS)
    indent = beside if fits else BENEATH
    said = textwrap.wrap(flags, width - len(indent), break_on_hyphens=False) if flags else []
    if fits and said:
        lead += "  " + said.pop(0)
    return [lead, *(indent + each for each in said)]


# --- In files --------------------------------------------------------------------------------


def check_table_name(path: str | Path) -> None:
    """Refuse a file to which the table cannot be written: before the work, not after."""
    path = Path(path)
    if path.suffix not in FORMATS:
        problem = f"must end in {' or '.join(FORMATS)}"
        raise UserError(problem, path, "path", Advice("choose one of them"))
    refuse_unwritable(path)


def write_table(
    path: str | Path,
    rows: Sequence[Row],
    findings: Sequence[Finding],
    input_platform: str,
    words: Words = PYTHON,
) -> None:
    """Write the rows with full precision as CSV, or as JSON with the findings, atomically."""
    check_table_name(path)
    if Path(path).suffix == ".csv":
        write_text(path, table_csv(rows))
        return
    told = [
        {"severity": e.severity, "where": e.where, "message": e.message(words), "flag": e.flag}
        for e in findings
    ]
    write_json(path, {"input": input_platform, "scans": list(rows), "findings": told})


def table_csv(rows: Sequence[Row]) -> str:
    """Write the rows with full precision; a field is empty for None.

    Headers are `COLUMNS`, with one column for each of x, y and z.
    """
    axes = {name: "xyz" if "xyz" in name else ("",) for name in COLUMNS}
    header = [name.replace("xyz", axis) for name in COLUMNS for axis in axes[name]]
    lines = ([cell for name in COLUMNS for cell in _cells(name, row[name])] for row in rows)
    return csv_text(header, lines)


def _cells(name: str, value: Any) -> Iterator[Any]:
    if "xyz" in name:
        yield from value or (None, None, None)
    elif name == "flags":
        yield "; ".join(value)
    elif isinstance(value, Mapping):
        known = {key: "" if each is None else f"{each:.6g}" for key, each in value.items()}
        yield "; ".join(f"{key}: {text}" for key, text in known.items())
    else:
        yield value


def _percent(share: float | None) -> str:
    return shown(share and 100 * share, ".1f")


def _component(row: Row, axis: int) -> str:
    return shown(row["shift_xyz_voxels"] and row["shift_xyz_voxels"][axis], "+.2f")


def _sizes(sizes: Triple | None) -> str:
    """Write one size for isotropic voxels, three for others."""
    if sizes is None:
        return "–"
    written = [f"{size:.2f}" for size in sizes]
    return written[0] if len(set(written)) == 1 else " × ".join(written)
