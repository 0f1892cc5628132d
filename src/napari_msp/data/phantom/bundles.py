"""Named white-matter bundles as fans of curves in template space."""

from dataclasses import dataclass
from functools import lru_cache

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
"""The density of the densest fifth of a bundle counts as that of its core (our choice)."""


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


def _guides(*curves: tuple[tuple[float, float, float], ...]) -> FloatArray:
    return np.array(curves, dtype=float)


# Control points were read off the template's sections beside the atlases of Catani 2012
# and Oishi 2011, and moved until the colour-FA looked like a head's: our choice.
BUNDLES: tuple[Bundle, ...] = (
    Bundle(
        "forceps minor",
        _guides(
            ((0, 27, -1), (10, 33, -2), (18, 42, -4), (20, 52, -4), (20, 60, -2)),
            ((0, 29, 6), (11, 34, 7), (19, 42, 8), (22, 52, 9), (22, 62, 9)),
            ((0, 27, 13), (12, 31, 15), (19, 40, 19), (22, 50, 23), (22, 58, 26)),
        ),
        spread=2.2,
        streamlines=450,
        strength=1.5,
        coherence=0.93,
        commissural=True,
    ),
    Bundle(
        "callosum, body",
        _guides(
            ((0, 21, 19), (10, 24, 23), (18, 28, 30), (21, 33, 40), (20, 37, 50)),
            ((0, 10, 24), (11, 12, 28), (19, 14, 37), (22, 16, 48), (18, 18, 60)),
            ((0, -3, 26), (11, -3, 30), (20, -4, 40), (23, -5, 54), (18, -6, 66)),
            ((0, -15, 26), (11, -16, 30), (20, -18, 41), (24, -20, 54), (18, -22, 68)),
            ((0, -26, 24), (12, -28, 28), (21, -32, 38), (25, -37, 52), (20, -41, 66)),
            ((0, -33, 20), (13, -37, 25), (22, -44, 34), (26, -52, 44), (22, -58, 56)),
        ),
        spread=2.4,
        streamlines=900,
        strength=1.5,
        coherence=0.93,
        commissural=True,
    ),
    Bundle(
        "callosum, lateral fibres",
        _guides(
            ((0, 16, 22), (14, 18, 27), (26, 20, 29), (36, 22, 27), (44, 24, 24)),
            ((0, 4, 25), (14, 4, 31), (27, 4, 34), (40, 4, 33), (50, 4, 30)),
            ((0, -8, 26), (14, -9, 32), (28, -10, 38), (41, -10, 41), (52, -10, 40)),
            ((0, -20, 25), (14, -22, 31), (28, -25, 37), (41, -28, 40), (52, -30, 40)),
            ((0, -31, 21), (15, -35, 26), (28, -40, 30), (40, -44, 33), (50, -48, 34)),
        ),
        spread=3.5,
        streamlines=700,
        strength=0.8,
        commissural=True,
    ),
    Bundle(
        "forceps major",
        _guides(
            ((0, -37, 15), (12, -43, 18), (23, -54, 21), (24, -68, 22), (16, -82, 22)),
            ((0, -39, 11), (12, -45, 12), (22, -56, 12), (22, -72, 10), (14, -88, 8)),
            ((0, -38, 8), (12, -45, 8), (22, -57, 6), (21, -73, 2), (14, -88, -2)),
        ),
        spread=2.2,
        streamlines=450,
        strength=1.5,
        coherence=0.93,
        commissural=True,
    ),
    Bundle(
        "tapetum",
        _guides(
            ((0, -36, 17), (15, -40, 21), (28, -44, 15), (33, -46, 2), (36, -44, -10)),
            ((0, -37, 14), (16, -45, 18), (29, -54, 12), (34, -58, 0), (38, -58, -10)),
        ),
        spread=1.8,
        streamlines=250,
        strength=0.8,
        commissural=True,
    ),
    Bundle(
        "corticospinal tract",
        _guides(
            ((5, -26, -52), (7, -22, -32), (15, -16, -12), (23, -15, 6), (25, -19, 24),
             (21, -24, 44), (9, -32, 68)),
            ((6, -26, -52), (8, -21, -32), (17, -15, -12), (24, -13, 6), (26, -17, 24),
             (29, -21, 42), (36, -24, 62)),
            ((7, -26, -52), (9, -20, -32), (18, -14, -12), (24, -10, 6), (27, -13, 24),
             (35, -12, 36), (50, -8, 44)),
        ),
        spread=2.4,
        streamlines=600,
        strength=1.3,
        coherence=0.92,
    ),
    Bundle(
        "anterior corona radiata",
        _guides(
            ((8, -10, 3), (13, 2, 5), (18, 15, 9), (23, 30, 16), (26, 44, 22)),
            ((9, -10, 5), (15, 1, 8), (19, 12, 15), (24, 22, 27), (28, 32, 40)),
            ((12, -12, 5), (20, -4, 8), (23, 3, 19), (25, 9, 36), (26, 12, 56)),
        ),
        spread=2.6,
        streamlines=600,
        strength=0.7,
        coherence=0.88,
    ),
    Bundle(
        "posterior corona radiata",
        _guides(
            ((16, -20, 2), (23, -22, 10), (26, -26, 24), (27, -33, 42), (26, -38, 62)),
            ((16, -22, 2), (24, -26, 10), (28, -34, 22), (29, -46, 36), (28, -56, 50)),
        ),
        spread=2.6,
        streamlines=450,
    ),
    Bundle(
        "cingulum",
        _guides(
            ((6, 24, -8), (8, 37, 4), (9, 32, 19), (9, 18, 30), (9, 0, 35), (9, -18, 36),
             (9, -34, 31), (11, -46, 20), (15, -46, 4), (22, -36, -8), (25, -20, -18)),
        ),
        spread=2.0,
        streamlines=350,
        strength=2.5,
        coherence=0.92,
    ),
    Bundle(
        "arcuate fasciculus",
        _guides(
            ((48, 14, 16), (41, 2, 24), (37, -16, 29), (37, -34, 28), (41, -47, 14),
             (47, -42, 0), (52, -28, -8)),
            ((44, 18, 24), (38, 4, 29), (35, -16, 32), (36, -36, 31), (42, -51, 16),
             (50, -46, 0), (56, -34, -6)),
        ),
        spread=2.6,
        streamlines=450,
        strength=1.2,
    ),
    Bundle(
        "superior longitudinal fasciculus",
        _guides(
            ((30, 30, 32), (29, 12, 38), (30, -10, 40), (32, -34, 40), (36, -56, 40)),
            ((40, 18, 28), (36, 4, 33), (35, -14, 35), (38, -34, 35), (46, -50, 36)),
        ),
        spread=2.4,
        streamlines=400,
    ),
    Bundle(
        "inferior longitudinal fasciculus",
        _guides(
            ((22, -92, -4), (33, -74, -6), (41, -54, -8), (43, -32, -12), (41, -12, -22),
             (38, 4, -34)),
            ((28, -88, 10), (37, -72, 4), (42, -54, -2), (45, -32, -8), (44, -14, -18),
             (42, 2, -30)),
        ),
        spread=2.4,
        streamlines=400,
    ),
    Bundle(
        "inferior fronto-occipital fasciculus",
        _guides(
            ((20, -90, 2), (31, -72, 3), (37, -48, 3), (37, -24, -4), (33, -2, -6),
             (28, 18, -5), (24, 38, 0), (24, 54, 4)),
            ((24, -84, 14), (34, -68, 10), (38, -48, 7), (38, -24, 0), (34, -2, -2),
             (29, 20, 0), (28, 38, 10), (30, 50, 16)),
        ),
        spread=2.2,
        streamlines=450,
        strength=1.2,
        coherence=0.92,
    ),
    Bundle(
        "optic radiation",
        _guides(
            ((22, -25, -3), (32, -20, -6), (37, -32, -4), (34, -54, 0), (25, -74, 0),
             (12, -88, -2)),
            ((22, -26, -1), (31, -29, 2), (35, -40, 6), (32, -58, 8), (24, -76, 9),
             (13, -90, 8)),
        ),
        spread=2.0,
        streamlines=400,
        strength=1.2,
        coherence=0.92,
    ),
    Bundle(
        "uncinate fasciculus",
        _guides(
            ((34, 6, -32), (35, 6, -20), (32, 10, -11), (26, 22, -10), (20, 36, -10),
             (16, 48, -8)),
        ),
        spread=2.2,
        streamlines=250,
    ),
    Bundle(
        "frontal aslant tract",
        _guides(
            ((10, 8, 60), (20, 10, 46), (31, 12, 32), (41, 14, 20), (48, 16, 12)),
            ((10, 20, 54), (19, 21, 42), (29, 22, 30), (38, 24, 18), (46, 26, 8)),
        ),
        spread=2.6,
        streamlines=300,
        strength=0.8,
        coherence=0.88,
    ),
    Bundle(
        "fornix",
        _guides(
            ((2, 4, -6), (2, 3, 4), (2, -4, 14), (4, -16, 18), (10, -28, 15),
             (19, -34, 6), (26, -28, -6)),
        ),
        spread=1.2,
        streamlines=150,
        strength=1.5,
    ),
    Bundle(
        "middle cerebellar peduncle",
        _guides(
            ((0, -16, -30), (10, -18, -30), (19, -28, -32), (24, -42, -36), (24, -56, -38)),
            ((0, -16, -38), (10, -18, -39), (20, -29, -40), (25, -43, -42), (24, -58, -44)),
        ),
        spread=2.6,
        streamlines=400,
        strength=1.3,
        coherence=0.92,
        commissural=True,
    ),
)  # fmt: skip
"""Every bundle that the phantom has, described on the right side."""


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
        Length of streamline in a mm³ of the bundle's core, in mm.
    """

    middle: FloatArray
    piece: FloatArray
    core_length: float


@lru_cache(maxsize=64)
def streamlines_of(number: int) -> Streamlines:
    """Draw the streamlines of `BUNDLES[number]` on both sides.

    The same for all subjects; subjects differ by their deformation.
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
    """Give (points, streamlines, 3); a commissural bundle's run from hemisphere to hemisphere."""
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
