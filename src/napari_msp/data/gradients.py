"""Gradient tables, their reference frames and shells; `gradient_files` reads and writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, Choose, Give, UserError
from napari_msp.formatting import counted

B0_MAXIMUM = 50.0
"""Largest b-value in s/mm² that counts as b=0 by default (our choice; covers scanners that write 5
or 50)."""

LARGEST_B0 = 200.0
"""Largest b-value that may be chosen as b=0 (our choice: a tenth of the signal is gone)."""

SHELL_GAP = 80.0
"""b-values closer than this (s/mm²) to a neighbour share its shell (MRtrix3's default)."""

SHELL_REACH = 0.05
"""Volumes of a shell lie within this share of its mean b-value, or `SHELL_GAP` (our choice)."""


LOW_B_VALUES = 0.2
"""Share of the highest b-value up to which low ones are likely to be b=0 (our choice)."""


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

    def __str__(self) -> str:
        return f"b = {self.b_value:.0f} s/mm², {counted(len(self.volumes), 'direction')}"

    @property
    def name(self) -> int:
        """The shell's name: its mean b-value, rounded to 50 s/mm²."""
        return shell_name(self.b_value)

    @property
    def chained(self) -> str:
        """Text if b-values continue from one to the next, so that this is no shell; else empty."""
        low = self.b_value if self.lowest is None else self.lowest
        high = self.b_value if self.highest is None else self.highest
        reach = max(self.b_value - low, high - self.b_value)
        if reach <= max(SHELL_GAP, SHELL_REACH * self.b_value):
            return ""
        return f"b-values run from {low:.0f} to {high:.0f} s/mm² without a gap and form no shell"


def shell_name(b_value: float) -> int:
    """Round a b-value to 50 s/mm², which names a shell.

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
        (N,) b-values in s/mm².
    directions
        (N, 3) unit vectors in scanner (RAS+) axes; zero where b is 0, and for volumes that are
        means over directions. Volumes that count as b=0 and are weighted (b = 50) have theirs.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0.
    scaled
        Smallest and largest squared length of a b-vector if b-values were multiplied by these.
    uneven
        Smallest and largest length if lengths were ignored, see `length_scales`.
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
        """Return the shell with the nearest b-value; None without a shell."""
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
        """Return the table's rows of some volumes."""
        return replace(self, b_values=self.b_values[volumes], directions=self.directions[volumes])

    @cached_property
    def shells(self) -> list[Shell]:
        """The shells above b=0, lowest b-value first, of volumes with a direction."""
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


def wanted_b_values(b_value: float | Sequence[float]) -> list[float]:
    """Return the b-values asked for as a list: one or several, of any number type."""
    wanted = [float(each) for each in np.atleast_1d(b_value)]
    if not wanted:
        raise UserError("no b-value is given", field="b_value", remedy=Give("b_value", "one"))
    return wanted


def likely_b0(b_values: FloatArray) -> MaskArray:
    """Return which volumes the scanner likely regards as b=0, such as b = 60."""
    return np.asarray(b_values <= min(LOW_B_VALUES * b_values.max(initial=0), LARGEST_B0))


# --- Choosing shells -------------------------------------------------------------------------

B_VALUE_TOLERANCE = 0.05
"""Relative difference of b-values that still counts as the same shell (our choice)."""


def same_shell(b_value: float, other: float) -> bool:
    """Return whether two b-values are of one shell: within 5 % of the second."""
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
    # A shell's name, its rounded mean, is accepted, too. Also refuses nan and infinity.
    if not same_shell(b_value, nearest.b_value) and b_value != nearest.name:
        problem = f"has no shell near b = {b_value:.0f} (it has {known})"
        raise UserError(problem, name, "b_value", choose)
    return _a_shell(nearest, table, name)


def chosen_shells(
    table: GradientTable, b_values: float | Sequence[float] | None, name: str
) -> list[Shell]:
    """Choose shells, lowest b-value first; see `Acquisition.shells`."""
    if b_values is None and table.shells:
        return [_a_shell(shell, table, name) for shell in table.shells]
    wanted = [None] if b_values is None else wanted_b_values(b_values)
    chosen = [chosen_shell(table, each, name) for each in wanted]
    chosen.sort(key=lambda shell: shell.b_value)
    for one, other in pairwise(chosen):
        if one.name == other.name:
            remedy = Choose("b_value", tuple(each.name for each in table.shells))
            raise UserError(f"b = {one.name} was given twice", name, "b_value", remedy)
    return chosen


def _a_shell(shell: Shell, table: GradientTable, name: str) -> Shell:
    """Return a shell; refuse a group of b-values that is none."""
    if shell.chained:
        remedy = Advice(f"give a scan whose shells lie more than {SHELL_GAP:.0f} s/mm² apart")
        if table.scaled is not None:
            scaled = "this comes from the lengths of its b-vectors"
            remedy = Advice(f"{scaled}: if those have no meaning, give unit b-vectors")
        raise UserError(f"its {shell.chained}", name, "bval", remedy)
    return shell
