"""Named white-matter bundles as fans of curves in template space."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from scipy.interpolate import CubicSpline

from napari_msp.arrays import FloatArray

STEP = 1.8
"""Greatest length of a piece of streamline, in mm: below the grid on which they are counted."""

DRIFT = 0.4
"""How far a streamline wanders within its bundle, relative to the bundle's spread (our choice)."""

CORE_CELL = 3.0
"""Side in mm of the cubes in which a bundle's own density is counted."""

CORE_PERCENTILE = 80.0
"""Percentile of a bundle's density that counts as its core's: the densest fifth (our choice)."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A fan of streamlines between neighbouring guide curves.

    Attributes
    ----------
    guides
        (G, P, 3) control points in MNI mm, right hemisphere. Streamlines run along the second
        axis and fill the sheet that the guides span; a single guide gives a cord.
    spread
        Thickness: standard deviation in mm of the streamlines' distance from the sheet.
    strength
        Weight where bundles cross.
    coherence
        Mean squared cosine between fibres and their mean direction: 1 is perfectly parallel, 1/3
        isotropic. In vivo orientation dispersion gives 0.8 to 0.95 (Zhang 2012).
    commissural
        The guides start in the mid-sagittal plane and continue in the other hemisphere.
    """

    name: str
    guides: FloatArray
    spread: float
    streamlines: int
    strength: float = 1.0
    coherence: float = 0.9
    commissural: bool = False


def _read_bundles() -> tuple[Bundle, ...]:
    resource = files("napari_msp.data.phantom").joinpath("assets", "bundles.json")
    read = json.loads(resource.read_text(encoding="utf-8"))
    return tuple(Bundle(**{**each, "guides": np.array(each["guides"], float)}) for each in read)


# Control points were read off the template's sections beside the atlases of Catani 2012
# and Oishi 2011, and moved until the colour-FA looked like a head's: our choice.
BUNDLES = _read_bundles()
"""All bundles of the phantom, described on the right side."""


@dataclass(frozen=True, eq=False)
class Streamlines:
    """All streamlines of a bundle, cut into short pieces.

    Attributes
    ----------
    middle
        (3, N) float32 middles of the pieces in MNI mm.
    piece
        (3, N) float32 vectors from their first to their last point in mm.
    core_length
        Streamline length in mm per mm³ of the bundle's core.
    """

    middle: FloatArray
    piece: FloatArray
    core_length: float


@lru_cache(maxsize=64)
def streamlines_of(number: int) -> Streamlines:
    """Draw the streamlines of `BUNDLES[number]` on both sides.

    They are the same for all subjects, who differ by their deformation.
    """
    bundle = BUNDLES[number]
    rng = np.random.default_rng([5, number])
    curves = _right_side(bundle, rng)
    if not bundle.commissural:
        left = _right_side(bundle, rng) * np.array([-1.0, 1.0, 1.0])
        curves = np.concatenate([curves, left], axis=1)
    middle = ((curves[1:] + curves[:-1]) / 2).reshape(-1, 3).T.astype(np.float32)
    piece = np.diff(curves, axis=0).reshape(-1, 3).T.astype(np.float32)

    low = middle.min(axis=1, keepdims=True)
    cells = ((middle - low) / CORE_CELL).astype(int)
    flat = np.ravel_multi_index(tuple(cells), tuple(cells.max(axis=1) + 1))
    length = np.bincount(flat, np.linalg.norm(piece, axis=0))
    core = float(np.percentile(length[length > 0], CORE_PERCENTILE)) / CORE_CELL**3
    return Streamlines(middle, piece, core)


def _right_side(bundle: Bundle, rng: np.random.Generator) -> FloatArray:
    """Return (points, streamlines, 3); commissural streamlines run between the hemispheres."""
    guides = bundle.guides
    if bundle.commissural:
        mirrored = guides[:, :0:-1] * np.array([-1.0, 1.0, 1.0])
        guides = np.concatenate([mirrored, guides], axis=1)
    count, controls = len(guides), guides.shape[1]
    position = rng.uniform(0, count - 1, bundle.streamlines)
    lower = np.clip(position.astype(int), 0, max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    share = (position - lower)[:, None, None]
    sheet = (1 - share) * guides[lower] + share * guides[upper]
    # A constant offset gives the bundle its thickness, a drifting one its interweaving.
    offset = rng.normal(0, bundle.spread, (bundle.streamlines, 1, 3))
    drift = rng.normal(0, DRIFT * bundle.spread, (bundle.streamlines, controls, 3))
    spline = CubicSpline(np.linspace(0, 1, controls), sheet + offset + drift, axis=1)
    longest = np.linalg.norm(np.diff(guides, axis=1), axis=-1).sum(axis=1).max()
    points: FloatArray = spline(np.linspace(0, 1, int(longest / STEP) + 2))
    return points.transpose(1, 0, 2)
