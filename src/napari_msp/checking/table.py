"""The rows of all scans for reading, for spreadsheets and for programs."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from napari_msp.checking.findings import Finding
from napari_msp.checking.rows import ScanRow
from napari_msp.errors import UserError
from napari_msp.files import refuse_unwritable, write_json, write_text

FORMATS = (".csv", ".json")

COLUMNS: Mapping[str, Callable[[ScanRow], str]] = {
    "subject": lambda row: row.subject,
    "cond": lambda row: "–" if row.condition is None else f"{row.condition:.3g}",
    "ml": lambda row: _number(row.mask_ml, 0),
    "SNR": lambda row: _number(row.snr, 1),
    "Dice": lambda row: _number(row.dice, 2),
    "shift": lambda row: _number(row.shift_voxels, 2),
    "right": lambda row: _component(row, 0),
    "front": lambda row: _component(row, 1),
    "up": lambda row: _component(row, 2),
    "turn": lambda row: _number(row.rotation_degrees, 1),
    "away": lambda row: _number(row.displacement_voxels, 2),
    "r": lambda row: _number(row.correlation, 2),
    "flags": lambda row: ", ".join(row.flags),
}
"""Heading and content of the columns on the terminal."""

LEGEND = """\
cond: condition number at SH order 6. ml: size of the mask. SNR: of b=0 inside the mask.
Against {input}: Dice of the masks; shift of the brain's centre and its parts, in voxels of
{input}; turn in degrees; away: how far both move the brain on average, in voxels of {input};
r: correlation when aligned.
"""


def table_text(rows: Sequence[ScanRow], input_platform: str) -> str:
    """Write the rows for a terminal, together by platform and protocol.

    A scan whose protocol differs from those of its platform stands under a heading of its own.
    """
    groups: dict[str, list[list[str]]] = {}
    for row in sorted(rows, key=lambda row: row.platform):
        groups.setdefault(_protocol(row), []).append([give(row) for give in COLUMNS.values()])
    lines = [list(COLUMNS), *(cells for group in groups.values() for cells in group)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"  {_line(list(COLUMNS), widths)}"]
    for protocol, group in groups.items():
        text += [protocol, *(f"  {_line(cells, widths)}" for cells in group)]
    return "\n".join([*text, "", LEGEND.format(input=input_platform)])


def _protocol(row: ScanRow) -> str:
    """Write the platform, and what its scans should have in common."""
    shape = "–" if row.shape_xyz is None else " × ".join(map(str, row.shape_xyz))
    return (
        f"{row.platform}: {_sizes(row.voxel_xyz_mm)} mm, {shape} voxels, "
        f"{_number(row.b0_volumes, 0)} b=0, {_number(row.directions, 0)} directions at "
        f"b = {_number(row.b_value, 0)}, good for SH order {_number(row.sh_order, 0)}"
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names and flags to the left, numbers to the right."""
    last = len(cells) - 1
    return "  ".join(
        cell.ljust(width) if index in (0, last) else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def check_table_name(path: Path) -> None:
    """Refuse a file that the table cannot be written to: before the work, not after.

    Raises
    ------
    UserError
        When it is neither CSV nor JSON by its name, or cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--table {path}: must end in {' or '.join(FORMATS)}; choose one of them")
    refuse_unwritable(path)


def write_table(
    path: Path, rows: Sequence[ScanRow], findings: Sequence[Finding], input_platform: str
) -> None:
    """Write the rows with full precision as CSV, or as JSON with the findings, atomically.

    Raises
    ------
    UserError
        See `check_table_name`.
    """
    check_table_name(path)
    if path.suffix == ".csv":
        write_text(path, table_csv(rows))
    else:
        content = {
            "input": input_platform,
            "scans": [asdict(row) for row in rows],
            "findings": [asdict(finding) for finding in findings],
        }
        write_json(path, content)


def table_csv(rows: Sequence[ScanRow]) -> str:
    """Write the rows with full precision; a field is empty where there is no number.

    Headers are the fields of `ScanRow`, with one column for each of x, y and z.
    """
    names = [field.name for field in fields(ScanRow)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        name.replace("xyz", axis) for name in names for axis in ("xyz" if "xyz" in name else ("",))
    )
    for row in rows:
        writer.writerow(cell for name in names for cell in _cells(name, getattr(row, name)))
    return stream.getvalue()


def _cells(name: str, value: Any) -> Iterator[Any]:
    if "xyz" in name:
        yield from value or ("", "", "")
    elif name == "flags":
        yield "; ".join(value)
    else:
        yield "" if value is None else value


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _component(row: ScanRow, axis: int) -> str:
    return "–" if row.shift_xyz_voxels is None else f"{row.shift_xyz_voxels[axis]:+.2f}"


def _sizes(sizes: tuple[float, float, float] | None) -> str:
    """Write one size for isotropic voxels, three for others."""
    if sizes is None:
        return "–"
    told = [f"{size:.2f}" for size in sizes]
    return told[0] if len(set(told)) == 1 else " × ".join(told)
