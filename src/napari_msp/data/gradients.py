"""Gradient tables: reading, writing, frames and shells."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, UserError
from napari_msp.files import write_text

B0_MAXIMUM = 50.0
"""Largest b-value in s/mm² that counts as b=0 (our choice; covers scanners that write 5 or 50)."""

SHELL_GAP = 80.0
"""b-values closer than this (s/mm²) to a neighbour share its shell (MRtrix3's default)."""

SHELL_REACH = 0.05
"""Volumes of a shell lie within this share of its mean b-value, or `SHELL_GAP` (our choice)."""

NORM_TOLERANCE = 0.1
"""A b-vector this far from unit length is an error, less is rounding (our choice)."""

Table = str | Path | FloatArray
"""b-values or b-vectors: a text file, or an array of what it would contain."""


@dataclass(frozen=True, eq=False)
class Shell:
    """Volumes of (nearly) one b-value.

    Attributes
    ----------
    b_value
        Mean b-value of its volumes in s/mm².
    volumes
        Their indices along the image's last axis.
    lowest, highest
        b-values of its volumes in s/mm²; None: all have its mean.
    """

    b_value: float
    volumes: IntArray
    lowest: float | None = None
    highest: float | None = None

    def __repr__(self) -> str:
        return f"<Shell of {len(self.volumes)} volumes at b = {self.b_value:.0f} s/mm²>"

    @property
    def name(self) -> int:
        """What it is called: its mean b-value, rounded to 50 s/mm²."""
        return shell_name(self.b_value)

    @property
    def chained(self) -> bool:
        """Whether b-values run on from one to the next, so that it is no shell."""
        low = self.b_value if self.lowest is None else self.lowest
        high = self.b_value if self.highest is None else self.highest
        reach = max(self.b_value - low, high - self.b_value)
        return reach > max(SHELL_GAP, SHELL_REACH * self.b_value)


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
        (N, 3) unit vectors in scanner (RAS+) axes; zero for b=0 volumes.
    """

    b_values: FloatArray
    directions: FloatArray

    def __post_init__(self) -> None:
        if self.directions.shape != (len(self.b_values), 3):
            raise ValueError(
                f"directions must have shape ({len(self.b_values)}, 3), not {self.directions.shape}"
            )

    def __len__(self) -> int:
        return len(self.b_values)

    def __str__(self) -> str:
        counts = [f"{len(self.b0_volumes)} at b = 0"]
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
        return np.flatnonzero(self.b_values <= B0_MAXIMUM)

    @cached_property
    def shells(self) -> list[Shell]:
        """The shells above b=0, lowest b-value first."""
        weighted = np.flatnonzero(self.b_values > B0_MAXIMUM)
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
    bval: Table, bvec: Table, affine: FloatArray, volumes: int | None = None
) -> GradientTable:
    """Read an FSL gradient table into scanner axes.

    Parameters
    ----------
    bval, bvec
        Text files, or arrays as in them: (N,) b-values in s/mm², and b-vectors along
        the image's axes as three rows or three columns.
    affine
        (4, 4) affine of the image that the table belongs to.
    volumes
        Number of volumes of that image, checked when given.

    Raises
    ------
    UserError
        When a file is missing or malformed, or the counts differ.
    """
    b_values = np.atleast_1d(_numbers(bval, "bval").ravel())
    vectors = np.atleast_2d(_numbers(bvec, "bvec"))
    count = len(b_values)
    if volumes is not None and count != volumes:
        problem = f"has {count} b-values but the image has {volumes} volumes"
        remedy = Advice("give the table that belongs to this image")
        raise UserError(problem, _name(bval, "b-values"), "bval", remedy)
    if vectors.shape == (3, count):
        vectors = vectors.T
    if vectors.shape != (count, 3):
        problem = f"has {vectors.shape[0]} rows of {vectors.shape[1]} numbers"
        remedy = Advice(f"give 3 rows (or columns) of {count}, one for each b-value")
        raise UserError(problem, _name(bvec, "b-vectors"), "bvec", remedy)
    if not np.isfinite(b_values).all() or (b_values < 0).any():
        problem = "b-values must be finite and not negative"
        raise UserError(problem, _name(bval, "b-values"), "bval", Advice("correct the table"))
    units = _unit(vectors, b_values, _name(bvec, "b-vectors"))
    return GradientTable(b_values, image_to_scanner_axes(units, affine))


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


def _numbers(table: Table, field: str) -> FloatArray:
    if not isinstance(table, str | Path):
        return np.asarray(table, dtype=float)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file: its count is wrong, which is said
            return np.loadtxt(table, ndmin=1)
    except OSError as error:
        raise UserError(
            "cannot be read", table, field, Advice("give the gradient table's path")
        ) from error
    except ValueError as error:
        raise UserError(
            f"is not a table of numbers ({error})", table, field, Advice("correct it")
        ) from error


def _unit(vectors: FloatArray, b_values: FloatArray, name: str) -> FloatArray:
    """Give unit directions for weighted volumes and zeros for b=0 ones."""
    weighted = b_values > B0_MAXIMUM
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = weighted & ~(np.abs(lengths - 1) <= NORM_TOLERANCE)
    if wrong.any():
        volume = int(np.flatnonzero(wrong)[0])
        problem = (
            f"volume {volume} has b = {b_values[volume]:g} but a direction of length "
            f"{lengths[volume]:.3g}"
        )
        raise UserError(problem, name, "bvec", Advice("b-vectors must have unit length"))
    units = np.zeros_like(vectors, dtype=float)
    units[weighted] = vectors[weighted] / lengths[weighted, None]
    return units
