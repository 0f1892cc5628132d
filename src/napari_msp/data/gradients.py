"""Gradient tables: reading, writing, frames and shells; `table_doubts` contradicts them."""

import codecs
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import read_sidecar
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, Choose, Give, UserError
from napari_msp.files import unreadable, write_text
from napari_msp.formatting import counted

B0_MAXIMUM = 50.0
"""Largest b-value in s/mm² that counts as b=0 unless another is asked for (our choice; covers
scanners that write 5 or 50)."""

LARGEST_B0 = 200.0
"""Largest b-value that may be asked to count as b=0 (our choice: a tenth of the signal is gone)."""

SHELL_GAP = 80.0
"""b-values closer than this (s/mm²) to a neighbour share its shell (MRtrix3's default)."""

SHELL_REACH = 0.05
"""Volumes of a shell lie within this share of its mean b-value, or `SHELL_GAP` (our choice)."""

ROUNDING = 0.01
"""By how much two decimals may change the length of a b-vector: no b-value is scaled by it."""

NORM_TOLERANCE = 0.1
"""Lengths this far from 1 are taken for parts of a gradient only where all others are 1 (ours)."""

LOW_B_VALUES = 0.2
"""Share of the highest b-value up to which low ones are likely to be b=0 (our choice)."""

DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?(e[-+]?\d+)?", re.IGNORECASE)
"""A number as some countries write it."""

MOST_WITHOUT_DIRECTION = 0.25
"""Share of the weighted volumes that may lack a direction; more is a faulty table (our choice)."""

Table = str | Path | FloatArray
"""b-values or b-vectors: a text file, or an array of what it would contain."""


@dataclass(frozen=True, eq=False)
class Shell:
    """Volumes of (nearly) one b-value, as indices along the image's last axis.

    Attributes
    ----------
    b_value
        Mean b-value of its volumes in s/mm².
    lowest, highest
        b-values of its volumes in s/mm²; None: all have its mean.
    """

    b_value: float
    volumes: IntArray
    lowest: float | None = None
    highest: float | None = None

    def __repr__(self) -> str:
        return f"<Shell of {counted(len(self.volumes), 'volume')} at b = {self.b_value:.0f} s/mm²>"

    @property
    def name(self) -> int:
        """What it is called: its mean b-value, rounded to 50 s/mm²."""
        return shell_name(self.b_value)

    @property
    def chained(self) -> str:
        """That b-values run on from one to the next, so that it is no shell; empty where it is."""
        low = self.b_value if self.lowest is None else self.lowest
        high = self.b_value if self.highest is None else self.highest
        reach = max(self.b_value - low, high - self.b_value)
        if reach <= max(SHELL_GAP, SHELL_REACH * self.b_value):
            return ""
        return f"b-values run from {low:.0f} to {high:.0f} s/mm² without a gap and are no shell"


def shell_name(b_value: float) -> int:
    """Round a b-value to 50 s/mm²: what a shell is called.

    >>> shell_name(1195.0)
    1200
    """
    return int(b_value / 50 + 0.5) * 50


@dataclass(frozen=True, eq=False, repr=False)
class GradientTable:
    """b-values and directions of the volumes of one acquisition.

    Attributes
    ----------
    b_values
        (N,) in s/mm².
    directions
        (N, 3) unit vectors in scanner (RAS+) axes; zero where b is 0, and for volumes that are
        means over directions. Volumes that count as b=0 and are weighted (b = 50) have theirs.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0.
    scaled
        Smallest and largest squared length of a b-vector, where b-values were multiplied by them.
    uneven
        Smallest and largest length, where these were taken to mean nothing, see `length_scales`.
    """

    b_values: FloatArray
    directions: FloatArray
    b0_threshold: float = B0_MAXIMUM
    scaled: tuple[float, float] | None = None
    uneven: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.directions.shape != (len(self.b_values), 3):
            raise ValueError(
                f"directions must have shape ({len(self.b_values)}, 3), not {self.directions.shape}"
            )

    def __len__(self) -> int:
        return len(self.b_values)

    def __str__(self) -> str:
        own = round(self.b0_weighting)
        counts = [f"{len(self.b0_volumes)} at b = {f'{own} (as b = 0)' if own else 0}"]
        counts += [f"{len(shell.volumes)} at b = {shell.b_value:.0f}" for shell in self.shells]
        return f"{' + '.join(counts)} s/mm²"

    def __repr__(self) -> str:
        return f"<GradientTable of {self}>"

    def nearest_shell(self, b_value: float) -> Shell | None:
        """Give the shell whose b-value is nearest; None where there is no shell."""
        return min(self.shells, key=lambda shell: abs(shell.b_value - b_value), default=None)

    @cached_property
    def b0_volumes(self) -> IntArray:
        """Indices of the volumes that count as b=0."""
        return np.flatnonzero(self.b_values <= self.b0_threshold)

    @property
    def b0_weighting(self) -> float:
        """Mean b-value of the volumes that count as b=0, in s/mm²."""
        return float(self.b_values[self.b0_volumes].mean()) if len(self.b0_volumes) else 0.0

    @property
    def without_direction(self) -> IntArray:
        """Indices of weighted volumes without a direction, such as trace images."""
        weighted = self.b_values > self.b0_threshold
        return np.flatnonzero(weighted & ~self.directions.any(axis=1))

    def taken(self, volumes: IntArray) -> "GradientTable":
        """Give the rows of some volumes."""
        return replace(self, b_values=self.b_values[volumes], directions=self.directions[volumes])

    @cached_property
    def shells(self) -> list[Shell]:
        """The shells above b=0, lowest b-value first; of volumes that have a direction."""
        weighted = np.flatnonzero((self.b_values > self.b0_threshold) & self.directions.any(axis=1))
        ordered = weighted[np.argsort(self.b_values[weighted], kind="stable")]
        gaps = np.flatnonzero(np.diff(self.b_values[ordered]) > SHELL_GAP) + 1
        return [
            Shell(
                float(self.b_values[group].mean()),
                np.sort(group),
                float(self.b_values[group].min()),
                float(self.b_values[group].max()),
            )
            for group in np.split(ordered, gaps)
            if len(group)
        ]


def image_to_scanner_axes(vectors: FloatArray, affine: FloatArray) -> FloatArray:
    """Turn FSL b-vectors into scanner (RAS+) axes.

    FSL writes b-vectors along the image's axes and, when the affine has a positive determinant,
    with the first component negated.

    Parameters
    ----------
    vectors
        (N, 3) as in a .bvec file.
    affine
        (4, 4) voxel-to-scanner affine of the image.
    """
    along_axes = np.array(vectors, dtype=float)
    if np.linalg.det(affine[:3, :3]) > 0:
        along_axes[:, 0] *= -1
    return along_axes @ direction_cosines(affine).T


def scanner_to_image_axes(vectors: FloatArray, affine: FloatArray) -> FloatArray:
    """Turn scanner (RAS+) directions into FSL b-vectors; undoes `image_to_scanner_axes`."""
    along_axes = np.array(vectors, dtype=float) @ direction_cosines(affine)
    if np.linalg.det(affine[:3, :3]) > 0:
        along_axes[:, 0] *= -1
    return along_axes


def read_gradients(
    bval: Table,
    bvec: Table,
    affine: FloatArray,
    volumes: int | None = None,
    b0_threshold: float | None = None,
) -> GradientTable:
    """Read an FSL gradient table into scanner axes; lengths that code b-values scale them.

    Parameters
    ----------
    bval, bvec
        Text files, or arrays as in them: (N,) b-values in s/mm², and b-vectors along
        the image's axes as three rows or three columns. One file as both: MRtrix3's table.
    affine
        (4, 4) affine of the image that the table belongs to.
    volumes
        Number of volumes of that image, checked when given.
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
        problem = f"b-values reach {b_values.max():g}, as in {unit}; they are read in s/mm²"
        remedy = Advice(f"{OTHER_UNITS[unit]}, if so")
        raise UserError(problem, _name(bval, "b-values"), "bval", remedy)
    scales = length_scales(vectors, b_values, threshold)
    scaled, uneven = None, _uneven(vectors, b_values, threshold) if scales is None else None
    if scales is not None:
        b_values, scaled = b_values * scales, (float(scales.min()), float(scales.max()))
        vectors = vectors / np.sqrt(np.where(scales > 0, scales, 1.0))[:, None]
    units = _unit(vectors, b_values, threshold, _name(bvec, "b-vectors"))
    directions = image_to_scanner_axes(units, affine)
    return GradientTable(b_values, directions, threshold, scaled, uneven)


def length_scales(
    vectors: FloatArray, b_values: FloatArray, b0_threshold: float
) -> FloatArray | None:
    """Give what b-values are multiplied by, where the lengths of b-vectors code them.

    Scanners play a lower shell as the highest one with shorter gradients, and some tables say just
    that: one b-value, and lengths below 1. What is felt is b·|g|², as MRtrix3 reads any table whose
    lengths are off by 0.5 %. Here two decimals' rounding is none, and lengths far from 1 are
    refused (by `_unit`) unless they are parts of one b-value that other volumes have whole. Lengths
    on both sides of 1 mean nothing, as where an affine registration turned the vectors; nor do
    those about 1 that would make no shells of what is one.

    Returns
    -------
    (N,) |g|², 1 where there is no direction; None where lengths mean nothing.
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
    blurred = any(s.chained for s in GradientTable(b_values * scales, vectors, b0_threshold).shells)
    return None if blurred and not parts else scales


def _uneven(
    vectors: FloatArray, b_values: FloatArray, b0_threshold: float
) -> tuple[float, float] | None:
    """Give the least and the largest length of b-vectors; None where all are 1 but for rounding."""
    lengths = np.linalg.norm(vectors, axis=1)
    lengths = lengths[(b_values > b0_threshold) & (lengths > 0)]
    if not (np.abs(lengths - 1) > ROUNDING).any():
        return None
    return float(lengths.min()), float(lengths.max())


MOST_IN_OTHER_UNITS = 12.0
"""Largest b-value in ms/µm² that somebody may have measured in a brain (our choice)."""


LARGEST_B_VALUE = 100_000.0
"""Largest b-value in s/mm² that is believed: more than any scanner can do (our choice)."""

OTHER_UNITS = {"ms/µm²": "multiply them by 1000", "s/m²": "divide them by 1,000,000"}
"""Units in which b-values may be given instead of s/mm², and what helps."""


def other_unit(b_values: FloatArray) -> str:
    """Name the unit that b-values are in, if it is not s/mm²; else empty.

    In ms/µm² they are small, and yet as different as b=0 and shells are; in s/m² impossibly large.
    """
    most = b_values.max(initial=0)
    if most > LARGEST_B_VALUE:
        return "s/m²"
    several = (b_values > most / 10).sum() >= LEAST_WEIGHTED
    small = 0 < most <= MOST_IN_OTHER_UNITS and several and b_values.min() < most / 10
    return "ms/µm²" if small else ""


LEAST_WEIGHTED = 6
"""Directions that a tensor needs: with fewer volumes it is no scan whose units matter."""


def check_b0_threshold(value: float | None) -> float:
    """Give the threshold that was asked for, or the usual one.

    Raises
    ------
    UserError
        When it is no b-value, or so large that a tenth of the signal would be gone.
    """
    if value is None:
        return B0_MAXIMUM
    if not 0 <= value <= LARGEST_B0:  # written so that nan is refused, too
        problem = f"must lie between 0 and {LARGEST_B0:.0f} s/mm², not {value:g}"
        raise UserError(problem, field="b0_threshold")
    return float(value)


def wanted_b_values(b_value: float | Sequence[float]) -> list[float]:
    """Give the b-values that were asked for: one or several, in any type of numbers."""
    wanted = [float(each) for each in np.atleast_1d(b_value)]
    if not wanted:
        raise UserError("no b-value is given", field="b_value", remedy=Give("b_value", "one"))
    return wanted


def stated_b0(path: Path) -> float | None:
    """Give the b-value of b=0 images above the usual that an image's sidecar states, if any."""
    try:
        value = read_sidecar(path).get("BValueOfB0")
    except UserError:  # what says nothing states nothing
        return None
    if isinstance(value, int | float) and B0_MAXIMUM < value <= LARGEST_B0:
        return float(value)
    return None


def likely_b0(b_values: FloatArray) -> MaskArray:
    """Return which volumes are likely to be b=0 by their scanner's own reckoning, as b = 60 is."""
    return np.asarray(b_values <= min(LOW_B_VALUES * b_values.max(initial=0), LARGEST_B0))


def _wrong_count(name: str, count: int, volumes: int) -> UserError:
    """Say that a table and its image do not belong together, and what that usually is."""
    problem = f"has {counted(count, 'b-value')} but the image has {counted(volumes, 'volume')}"
    remedy = "give the table that belongs to this image"
    if volumes == count + 1:
        remedy += ", or take out the volume too many: scanners append a trace or ADC image"
    elif count == 3 * volumes:
        remedy += ": these are as many as b-vectors have, are the two exchanged?"
    elif volumes == count - 1:
        remedy += ": a volume was taken out, or lost, and its row was not"
    return UserError(problem, name, "bval", Advice(remedy))


def read_b_values(bval: Table, bvec: Table) -> FloatArray:
    """Read the b-values of a table alone, see `read_gradients`.

    Returns
    -------
    (N,) in s/mm².
    """
    if _is_mrtrix(bval, bvec):
        return _mrtrix_table(bval, np.eye(4))[0]
    return np.atleast_1d(_numbers(bval, "bval").ravel())


def write_gradients(table: GradientTable, bval: Path, bvec: Path, affine: FloatArray) -> None:
    """Write a table as FSL's two files (b-vectors as three rows) for an image with `affine`."""
    write_table(table.b_values, scanner_to_image_axes(table.directions, affine), bval, bvec)


def write_table(b_values: FloatArray, vectors: FloatArray, bval: Path, bvec: Path) -> None:
    """Write (N,) b-values and (N, 3) b-vectors along an image's axes as FSL's two files."""
    write_text(bval, " ".join(f"{value:g}" for value in b_values) + "\n")
    rows = vectors.T + 0.0  # no "-0" in the file
    write_text(bvec, "".join(" ".join(f"{x:.8f}" for x in row) + "\n" for row in rows))


def _name(table: Table, otherwise: str) -> str:
    return str(table) if isinstance(table, str | Path) else otherwise


def _is_mrtrix(bval: Table, bvec: Table) -> bool:
    """Return whether both are one file, and so MRtrix3's table."""
    files = (bval, bvec)
    return all(isinstance(each, str | Path) for each in files) and str(bval) == str(bvec)


def _mrtrix_table(path: Table, affine: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Read MRtrix3's table as b-values and FSL b-vectors: x, y, z in scanner axes, and b, a row."""
    table = np.atleast_2d(_numbers(path, "bval"))
    rows, columns = table.shape
    if rows == 1 and columns > 4:  # one of FSL's two files, given as both
        remedy = Advice("give the b-vectors: 3 rows (or columns), one number for each volume")
        raise UserError(_has_rows(table), _name(path, "table"), "bvec", remedy)
    if rows > 1 and (columns == 3 or (rows == 3 and columns > 4)):
        remedy = Advice("give the b-values: one number for each volume")
        raise UserError(_has_rows(table), _name(path, "table"), "bval", remedy)
    if columns < 4:
        problem = "is no table of x, y, z and b in each row"
        raise UserError(problem, _name(path, "table"), "bval", Advice("give FSL's two files"))
    return table[:, 3], scanner_to_image_axes(table[:, :3], affine)


def _has_rows(table: FloatArray) -> str:
    return f"has {counted(table.shape[0], 'row')} of {counted(table.shape[1], 'number')}"


def _numbers(table: Table, field: str) -> FloatArray:
    """Read a table of numbers, however they are separated and whatever marks the file's start."""
    if not isinstance(table, str | Path):
        try:
            return np.asarray(table, dtype=float)
        except (ValueError, TypeError) as error:
            remedy = Advice("correct it")
            raise UserError(f"is not a table of numbers ({error})", field, field, remedy) from error
    try:
        raw = Path(table).read_bytes()
        utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf_16 else "utf-8-sig")
        apart = text.split()
        if len(apart) > 1 and "," in text and all(map(DECIMAL_COMMA.fullmatch, apart)):
            raise ValueError("its numbers have decimal commas: write points")
        lines = text.translate(str.maketrans(",;", "  ")).splitlines()
        rows = filter(None, (line.partition("#")[0].split() for line in lines))
        for number, (before, own) in enumerate(pairwise(map(len, rows)), start=2):
            if own != before:
                raise ValueError(f"row {number} has {own} numbers, the one before {before}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file: its count is wrong, which is said
            return np.loadtxt(lines, ndmin=1)
    except OSError as error:
        raise unreadable(table, error, field) from error
    except ValueError as error:
        remedy = Advice("correct it")
        raise UserError(f"is not a table of numbers ({error})", table, field, remedy) from error


def _unit(vectors: FloatArray, b_values: FloatArray, b0_threshold: float, name: str) -> FloatArray:
    """Give unit directions for weighted volumes and zeros for those of b = 0.

    A few weighted volumes may have none: scanners append means over directions as such. Those that
    count as b=0 may have one.
    """
    weighted = b_values > b0_threshold
    lengths = np.linalg.norm(vectors, axis=1)
    means = weighted & (lengths == 0)
    low = means & likely_b0(b_values)
    # In a table without b=0 they are the b=0 volumes, rather.
    if weighted.all() or means.sum() > MOST_WITHOUT_DIRECTION * weighted.sum():
        means = low
    if _shift(lengths, weighted):
        means = np.zeros_like(weighted)  # rows on the wrong volumes, which leave none at b=0
    wrong = weighted & ~means & ~(np.abs(lengths - 1) <= NORM_TOLERANCE)
    if wrong.any():
        volume = int(np.flatnonzero(wrong)[0])
        if np.isnan(lengths[volume]):
            problem = f"volume {volume} has b = {b_values[volume]:g} and no direction that is known"
            remedy = Advice("take the volume out of image and table")
            raise UserError(problem, name, "bvec", remedy)
        problem = (
            f"volume {volume} has b = {b_values[volume]:g} but a direction of length "
            f"{lengths[volume]:.3g}"
        )
        raise UserError(problem, name, "bvec", _remedy_for(lengths, weighted))
    low = (b_values > 0) & ~weighted & (np.abs(lengths - 1) <= NORM_TOLERANCE)
    directed = (weighted & ~means) | low
    units = np.zeros_like(vectors, dtype=float)
    units[directed] = vectors[directed] / lengths[directed, None]
    return units


def _shift(lengths: FloatArray, weighted: MaskArray) -> int:
    """Give by how many volumes b-vectors are off when only a shift puts those without on b=0."""
    missing = lengths == 0
    if missing.sum() != (~weighted).sum() or np.array_equal(missing, ~weighted):
        return 0
    shifts = (-1, 1, -2, 2, -3, 3)
    return next((by for by in shifts if np.array_equal(np.roll(~missing, -by), weighted)), 0)


def _remedy_for(lengths: FloatArray, weighted: MaskArray) -> Advice:
    """Say what helps against lengths that do not fit the b-values."""
    by = _shift(lengths, weighted)
    if not by:
        return Advice(
            "b-vectors must have unit length; where their lengths code b-values, give b·|g|² and "
            "unit vectors, as MRtrix3's mrconvert -export_grad_fsl writes them"
        )
    count = "one volume" if abs(by) == 1 else f"{abs(by)} volumes"
    way = "forward" if by > 0 else "back"
    return Advice(f"the b-vectors are shifted by {count} {way} against the b-values: move them")


# --- Choosing shells -------------------------------------------------------------------------

B_VALUE_TOLERANCE = 0.05
"""Relative difference of b-values that still counts as the same shell (our choice)."""


def same_shell(b_value: float, other: float) -> bool:
    """Return whether a b-value is that of a shell at another one: within 5 % of that."""
    return abs(b_value - other) <= B_VALUE_TOLERANCE * other


def chosen_shell(table: GradientTable, b_value: float | None, name: str) -> Shell:
    """Choose a shell of a table, called `name` in errors; see `Acquisition.shell`."""
    shells = table.shells
    if not shells:
        raise UserError("has no diffusion-weighted volume", name, remedy=Advice("give a DWI"))
    known = ", ".join(f"{shell.b_value:.0f}" for shell in shells)
    choose = Choose("b_value", tuple(round(shell.b_value) for shell in shells))
    if b_value is None:
        if len(shells) > 1:
            raise UserError(f"has several shells (b = {known})", name, "b_value", choose)
        return _a_shell(shells[0], table, name)
    nearest = table.nearest_shell(b_value)
    assert nearest is not None
    # A shell's name, which is its mean rounded, will do. Also refuses nan and infinity.
    if not same_shell(b_value, nearest.b_value) and b_value != nearest.name:
        problem = f"has no shell near b = {b_value:.0f} (it has {known})"
        raise UserError(problem, name, "b_value", choose)
    return _a_shell(nearest, table, name)


def chosen_shells(
    table: GradientTable, b_values: float | Sequence[float] | None, name: str
) -> list[Shell]:
    """Choose shells, lowest b-value first; see `Acquisition.shells`."""
    if b_values is None:
        if not table.shells:
            chosen_shell(table, None, name)  # raises, with the reason
        return [_a_shell(shell, table, name) for shell in table.shells]
    wanted = wanted_b_values(b_values)
    chosen = [chosen_shell(table, each, name) for each in wanted]
    chosen.sort(key=lambda shell: shell.b_value)
    for one, other in pairwise(chosen):
        if one.name == other.name:
            remedy = Choose("b_value", tuple(each.name for each in table.shells))
            raise UserError(f"b = {one.name} was given twice", name, "b_value", remedy)
    return chosen


def _a_shell(shell: Shell, table: GradientTable, name: str) -> Shell:
    """Refuse a group of b-values that is no shell."""
    if shell.chained:
        remedy = Advice(f"give a scan whose shells lie more than {SHELL_GAP:.0f} s/mm² apart")
        if table.scaled is not None:
            scaled = "the lengths of its b-vectors made them so"
            remedy = Advice(f"{scaled}: if they mean nothing, give unit b-vectors")
        raise UserError(f"its {shell.chained}", name, "bval", remedy)
    return shell
