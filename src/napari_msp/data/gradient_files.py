"""Gradient tables in files, FSL's two or MRtrix3's one: read, checked for mistakes, written."""

import codecs
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import read_sidecar
from napari_msp.data.companions import MRTRIX_TABLES, find_gradients
from napari_msp.data.gradients import (
    B0_MAXIMUM,
    LARGEST_B0,
    SHELL_GAP,
    GradientTable,
    image_to_scanner_axes,
    likely_b0,
    scanner_to_image_axes,
)
from napari_msp.errors import Advice, Give, UserError, either
from napari_msp.files import write_text
from napari_msp.foreign_errors import unreadable
from napari_msp.formatting import counted

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable as DipyGradientTable

Table = str | Path | FloatArray
"""b-values or b-vectors: a text file, or an array of what it would contain."""

ROUNDING = 0.01
"""Change of a b-vector's length by rounding to two decimals, for which no b-value is scaled."""

LIKE_B = 2000.0
"""b-value in s/mm² at which it is judged whether lengths blur a shell (our choice)."""

NORM_TOLERANCE = 0.1
"""Distance of lengths from 1 from which they count as parts of a gradient only if all others are 1
(our choice)."""

MOST_WITHOUT_DIRECTION = 0.25
"""Share of weighted volumes that may lack a direction; more means a faulty table (our choice)."""

DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?(e[-+]?\d+)?", re.IGNORECASE)
"""A number with a decimal comma."""

Given = TypeVar("Given")
"""A gradient table as it was given, or None."""

LINEAR = 0.05
"""Largest ratio of a b-tensor's other eigenvalues to its largest in linear encoding (ours)."""

MOST_IN_OTHER_UNITS = 12.0
"""Largest b-value in ms/µm² that is plausible for a brain (our choice)."""

LARGEST_B_VALUE = 100_000.0
"""Largest b-value in s/mm² that is believed: more than any scanner reaches (our choice)."""

OTHER_UNITS = {"ms/µm²": "multiply them by 1000", "s/m²": "divide them by 1,000,000"}
"""Units in which b-values may be given instead of s/mm², and the remedy for each."""

LEAST_WEIGHTED = 6
"""Directions that a tensor needs: with fewer volumes the image is no scan whose units matter."""


def read_gradients(
    bval: Table,
    bvec: Table,
    affine: FloatArray,
    volumes: int | None = None,
    b0_threshold: float | None = None,
) -> GradientTable:
    """Read an FSL gradient table into scanner axes; b-vector lengths that code b-values scale them.

    Parameters
    ----------
    bval, bvec
        Text files, or arrays like theirs: (N,) b-values in s/mm², and b-vectors along
        the image's axes as three rows or three columns. One file as both: MRtrix3's table.
    affine
        (4, 4) affine of the image that the table belongs to.
    volumes
        Number of volumes of that image, checked if given.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: `B0_MAXIMUM`.
    """
    threshold = check_b0_threshold(b0_threshold)
    if _is_mrtrix(bval, bvec):
        b_values, vectors = _mrtrix_table(bval, affine)
    else:
        b_values, vectors = read_b_values(bval, bvec), np.atleast_2d(_numbers(bvec, "bvec"))
    count = len(b_values)
    if volumes is not None and count != volumes:
        raise _wrong_count(_name(bval, "b-values"), count, volumes)
    if vectors.shape == (3, count):
        vectors = vectors.T
    if vectors.shape != (count, 3):
        remedy = Advice(f"give 3 rows (or columns) of {count}, one for each b-value")
        raise UserError(_has_rows(vectors), _name(bvec, "b-vectors"), "bvec", remedy)
    if not np.isfinite(b_values).all() or (b_values < 0).any():
        problem = "b-values must be finite and not negative"
        raise UserError(problem, _name(bval, "b-values"), "bval", Advice("correct the table"))
    if unit := other_unit(b_values):
        problem = f"b-values go up to {b_values.max():g}, which looks like {unit} instead of s/mm²"
        remedy = Advice(f"if so, {OTHER_UNITS[unit]}")
        raise UserError(problem, _name(bval, "b-values"), "bval", remedy)
    scales = length_scales(vectors, b_values, threshold)
    scaled = uneven = None
    lengths = np.linalg.norm(vectors, axis=1)
    lengths = lengths[(b_values > threshold) & (lengths > 0)]
    if scales is None and (np.abs(lengths - 1) > ROUNDING).any():
        uneven = float(lengths.min()), float(lengths.max())
    elif scales is not None:
        b_values, scaled = b_values * scales, (float(scales.min()), float(scales.max()))
        vectors = vectors / np.sqrt(np.where(scales > 0, scales, 1.0))[:, None]
    units = _unit(vectors, b_values, threshold, _name(bvec, "b-vectors"))
    directions = image_to_scanner_axes(units, affine)
    return GradientTable(b_values, directions, threshold, scaled, uneven)


def read_b_values(bval: Table, bvec: Table) -> FloatArray:
    """Read the b-values of a table alone, see `read_gradients`.

    Returns
    -------
    (N,) b-values in s/mm².
    """
    if _is_mrtrix(bval, bvec):
        return _mrtrix_table(bval, np.eye(4))[0]
    return np.atleast_1d(_numbers(bval, "bval", in_rows=False).ravel())


def check_b0_threshold(value: float | None) -> float:
    """Return the threshold that was asked for, or the usual one.

    Raises
    ------
    UserError
        When it is not a b-value, or so large that a tenth of the signal would be gone.
    """
    if value is None:
        return B0_MAXIMUM
    if not 0 <= value <= LARGEST_B0:  # written so that nan is refused, too
        problem = f"must lie between 0 and {LARGEST_B0:.0f} s/mm², not {value:g}"
        raise UserError(problem, field="b0_threshold")
    return float(value)


def stated_b0(path: Path) -> float | None:
    """Return the raised b-value of b=0 images that an image's sidecar states, if any."""
    try:
        value = read_sidecar(path).get("BValueOfB0")
    except UserError:  # an unreadable sidecar states nothing
        return None
    if isinstance(value, int | float) and B0_MAXIMUM < value <= LARGEST_B0:
        return float(value)
    return None


def other_unit(b_values: FloatArray) -> str:
    """Return the unit of b-values if it is not s/mm²; else empty.

    In ms/µm² they are small, yet b=0 and shells differ as usual; in s/m² they are impossibly large.
    """
    most = b_values.max(initial=0)
    if most > LARGEST_B_VALUE:
        return "s/m²"
    several = (b_values > most / 10).sum() >= LEAST_WEIGHTED
    small = 0 < most <= MOST_IN_OTHER_UNITS and several and b_values.min() < most / 10
    return "ms/µm²" if small else ""


def _wrong_count(name: str, count: int, volumes: int) -> UserError:
    """Return the error that a table and its image do not belong together, with the usual cause."""
    problem = f"has {counted(count, 'b-value')} but the image has {counted(volumes, 'volume')}"
    remedy = "give the table that belongs to this image"
    if volumes == count + 1:
        remedy += ", or remove the extra volume: scanners append a trace or ADC image"
    elif count == 3 * volumes:
        remedy += ": that many numbers are in its b-vectors, were the two files swapped?"
    elif volumes == count - 1:
        remedy += ": a volume was removed or lost, but its row was not"
    return UserError(problem, name, "bval", Advice(remedy))


def _name(table: Table, otherwise: str) -> str:
    return str(table) if isinstance(table, str | Path) else otherwise


def _has_rows(table: FloatArray) -> str:
    return f"has {counted(table.shape[0], 'row')} of {counted(table.shape[1], 'number')}"


def _is_mrtrix(bval: Table, bvec: Table) -> bool:
    """Return whether both are one file, and so MRtrix3's table."""
    files = (bval, bvec)
    return all(isinstance(each, str | Path) for each in files) and str(bval) == str(bvec)


def _mrtrix_table(path: Table, affine: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Read an MRtrix3 table (rows of x, y, z, in scanner axes, and b) as b-values and b-vectors."""
    table = np.atleast_2d(_numbers(path, "bval"))
    rows, columns = table.shape
    if rows == 1 and columns > 4:  # one of FSL's two files, given as both
        remedy = Advice("give the b-vectors: 3 rows (or columns), one number for each volume")
        raise UserError(_has_rows(table), _name(path, "table"), "bvec", remedy)
    if rows > 1 and (columns == 3 or (rows == 3 and columns > 4)):
        remedy = Advice("give the b-values: one number for each volume")
        raise UserError(_has_rows(table), _name(path, "table"), "bval", remedy)
    if columns < 4:
        problem = "is not a table with x, y, z and b in each row"
        remedy = Advice("give FSL's .bval and .bvec files")
        raise UserError(problem, _name(path, "table"), "bval", remedy)
    return table[:, 3], scanner_to_image_axes(table[:, :3], affine)


def _numbers(table: Table, field: str, *, in_rows: bool = True) -> FloatArray:
    """Read a table of numbers with any separator and any byte order mark.

    If it has no rows, lines may break anywhere.
    """
    if not isinstance(table, str | Path):
        try:
            return np.asarray(table, dtype=float)
        except (ValueError, TypeError) as error:
            remedy = Advice("correct the file")
            raise UserError(f"is not a table of numbers ({error})", field, field, remedy) from error
    try:
        raw = Path(table).read_bytes()
        utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf_16 else "utf-8-sig")
        apart = text.replace(";", " ").split()
        if len(apart) > 1 and "," in text and all(map(DECIMAL_COMMA.fullmatch, apart)):
            raise ValueError("its numbers have decimal commas: use points")
        lines = text.translate(str.maketrans(",;", "  ")).splitlines()
        if not in_rows:
            lines = [" ".join(line.partition("#")[0] for line in lines)]
        rows = filter(None, (line.partition("#")[0].split() for line in lines))
        for number, (before, own) in enumerate(pairwise(map(len, rows)), start=2):
            if own != before:
                raise ValueError(f"row {number} has {own} numbers, the row before {before}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an empty file: its wrong count is reported
            return np.loadtxt(lines, ndmin=1)
    except OSError as error:
        raise unreadable(table, error, field) from error
    except ValueError as error:
        remedy = Advice("correct the file")
        raise UserError(f"is not a table of numbers ({error})", table, field, remedy) from error


def b0_only(image: str | Path) -> bool:
    """Return whether an image's table has no direction: it serves a correction, and is not a scan.

    False if there is no readable table, or if its b-values are in other units, which reading it
    refuses.
    """
    try:
        files = find_gradients(image)
        b = read_b_values(files.bval, files.bvec)
    except UserError:
        return False
    return bool((b <= B0_MAXIMUM).all()) and not other_unit(b)


def one_table(bval: Given, bvec: Given) -> tuple[Given, Given]:
    """Return both tables; an MRtrix3 table, which holds both, may be given as either."""
    for given in (bval, bvec):
        if isinstance(given, str | Path) and str(given).lower().endswith(MRTRIX_TABLES):
            return given, given
    return bval, bvec


def is_plain(table: Path) -> bool:
    """Return whether a table is plain text as BIDS demands: ASCII, numbers separated by blanks."""
    content = table.read_bytes()
    return content.isascii() and not set(b",;") & set(content)


def from_dipy(table: "DipyGradientTable", name: str) -> tuple[FloatArray, FloatArray]:
    """Return the (N,) b-values and (N, 3) b-vectors of a DIPY table.

    Raises
    ------
    UserError
        When volumes are weighted along more than one direction.
    """
    if table.btens is None:
        return table.bvals, table.bvecs
    weights = np.linalg.eigvalsh(table.btens[~table.b0s_mask])  # the largest last
    several = int((np.abs(weights[:, 1]) > LINEAR * weights[:, 2]).sum())
    if several:
        problem = f"has {several} volumes of planar, spherical or other b-tensors"
        remedy = Advice("give only the volumes of linear encoding, and their table")
        raise UserError(problem, name, remedy=remedy)
    return table.bvals, table.bvecs


def existing_table(given: Table | None, beside: Path | None, field: str, name: str) -> Table:
    """Return a gradient table that exists: the given one, else the file beside the image."""
    table = beside if given is None else given
    if table is None:
        raise UserError(f"has no {field}", name, field, Give(field))
    if isinstance(table, str | Path) and not Path(table).exists():
        remedy = either(Advice("put it next to the image"), Give(field))
        raise UserError("is missing", table, field, remedy)
    return table


# --- Lengths of b-vectors ----------------------------------------------------------------------


def length_scales(
    vectors: FloatArray, b_values: FloatArray, b0_threshold: float
) -> FloatArray | None:
    """Return the factors of b-values if the lengths of b-vectors code them.

    Scanners play a lower shell as the highest one with shorter gradients, and some tables state
    just that: one b-value, and lengths below 1. The b-value felt is b·|g|², as MRtrix3 reads any
    table whose lengths are off by 0.5 %. Here rounding to two decimals is ignored, and lengths far
    from 1 are refused (by `_unit`) unless they are parts of one b-value that other volumes have in
    full. Lengths on both sides of 1 are ignored, as an affine registration makes them; so are
    lengths near 1 that would blur a shell.

    Returns
    -------
    (N,) |g|², 1 without a direction; None if lengths are ignored.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    directed = (b_values > b0_threshold) & (lengths > 0)
    off = np.abs(lengths[directed] - 1)
    if not (off > ROUNDING).any():
        return None
    if lengths[directed].min() < 1 - ROUNDING and lengths[directed].max() > 1 + ROUNDING:
        return None  # a part cannot exceed the whole
    several = LEAST_WEIGHTED <= (off > ROUNDING).sum() < len(off)
    one_b = np.ptp(b_values[directed]) <= SHELL_GAP
    parts = several and one_b and lengths[directed].max() <= 1 + ROUNDING
    if not parts and off.max() > NORM_TOLERANCE:
        return None
    scales = np.where(directed, lengths**2, 1.0)
    if (b_values > b0_threshold).all():
        scales[lengths == 0] = 0  # b=0 is then no gradient of the one b-value
    # By lengths alone, as if all shells had one b: scans of one scheme are read alike.
    blurred = any(
        part.chained
        for shell in GradientTable(b_values, vectors, b0_threshold).shells
        for part in GradientTable(LIKE_B * scales[shell.volumes], vectors[shell.volumes]).shells
    )
    return None if blurred and not parts else scales


def _unit(vectors: FloatArray, b_values: FloatArray, b0_threshold: float, name: str) -> FloatArray:
    """Return unit directions for weighted volumes and zeros for those of b = 0.

    A few weighted volumes may lack one: scanners append means over directions like that. Volumes
    that count as b=0 may have one.
    """
    weighted = b_values > b0_threshold
    lengths = np.linalg.norm(vectors, axis=1)
    means = weighted & (lengths == 0)
    low = means & likely_b0(b_values)
    # In a table without b=0 they are rather the b=0 volumes.
    if weighted.all() or means.sum() > MOST_WITHOUT_DIRECTION * weighted.sum():
        means = low
    if _shift(lengths, weighted):
        means = np.zeros_like(weighted)  # misplaced rows, which leave no volume at b=0
    wrong = weighted & ~means & ~(np.abs(lengths - 1) <= NORM_TOLERANCE)
    if wrong.any():
        volume = int(np.flatnonzero(wrong)[0])
        which = f"volume {volume} has b = {b_values[volume]:g}"
        if np.isnan(lengths[volume]):
            remedy = Advice("remove the volume from image and table")
            raise UserError(f"{which} but no known direction", name, "bvec", remedy)
        problem = f"{which} but a direction of length {lengths[volume]:.3g}"
        raise UserError(problem, name, "bvec", _remedy_for(lengths, weighted))
    low = (b_values > 0) & ~weighted & (np.abs(lengths - 1) <= NORM_TOLERANCE)
    directed = (weighted & ~means) | low
    units = np.zeros_like(vectors, dtype=float)
    units[directed] = vectors[directed] / lengths[directed, None]
    return units


def _shift(lengths: FloatArray, weighted: MaskArray) -> int:
    """Return the shift of b-vectors in volumes, if undoing it puts the missing on b=0; else 0."""
    missing = lengths == 0
    if missing.sum() != (~weighted).sum() or np.array_equal(missing, ~weighted):
        return 0
    shifts = (-1, 1, -2, 2, -3, 3)
    return next((by for by in shifts if np.array_equal(np.roll(~missing, -by), weighted)), 0)


def _remedy_for(lengths: FloatArray, weighted: MaskArray) -> Advice:
    """Return the remedy for lengths that do not fit the b-values."""
    by = _shift(lengths, weighted)
    if not by:
        return Advice(
            "b-vectors must have unit length; if their lengths code b-values, give b·|g|² and "
            "unit vectors, as MRtrix3's mrconvert -export_grad_fsl writes them"
        )
    moved = shift_in_words(by)
    return Advice(f"the b-vectors are shifted by {moved} against the b-values: move them")


def shift_in_words(by: int) -> str:
    """Write how far and in which direction rows are off their volumes."""
    count = "one volume" if abs(by) == 1 else f"{abs(by)} volumes"
    return f"{count} {'forward' if by > 0 else 'back'}"


# --- Writing ------------------------------------------------------------------------------------


def write_gradients(table: GradientTable, bval: Path, bvec: Path, affine: FloatArray) -> None:
    """Write a table as FSL's two files (b-vectors as three rows) for an image with `affine`."""
    write_table(table.b_values, scanner_to_image_axes(table.directions, affine), bval, bvec)


def write_table(b_values: FloatArray, vectors: FloatArray, bval: Path, bvec: Path) -> None:
    """Write (N,) b-values and (N, 3) b-vectors along an image's axes as FSL's two files."""
    write_text(bval, " ".join(f"{value:g}" for value in b_values) + "\n")
    rows = vectors.T + 0.0  # no "-0" in the file
    write_text(bvec, "".join(" ".join(f"{x:.8f}" for x in row) + "\n" for row in rows))
