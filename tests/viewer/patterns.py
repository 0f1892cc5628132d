"""Made-up heads with a square in a corner of their own, and where things are on the canvas."""

from functools import cache
from itertools import permutations, product
from types import MappingProxyType

import numpy as np

from napari_msp.data.gradients import GradientTable
from napari_msp.inference.prediction import Prediction
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import fitting_matrix, spread_directions

ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
"""All 48 ways to store a head, as nibabel writes them."""

SHAPE = (16, 20, 5)
SIZE = 4.0
"""mm."""

CORNERS = {"front right": (1, 1), "front left": (0, 1), "back right": (1, 0), "back left": (0, 0)}
"""Whether a square lies at high x and at high y: axes run to the right and to the front."""

B_VALUE = 1200.0


@cache
def tissue(kind: str) -> np.ndarray:
    """(28,) SH coefficients of fibres along x, y or z, or of water that moves alike everywhere."""
    directions = spread_directions(60)
    fibre = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}.get(kind, (0, 0, 0))
    along = np.square(directions @ np.array(fibre, dtype=float))
    least = {"bright": 0.2e-3, "middle": 0.4e-3}.get(kind, 0.7e-3)
    signal = np.exp(-B_VALUE * (least + 1.2e-3 * along))
    return (fitting_matrix(directions, 6, 1e-4) @ signal).astype(np.float32)


def head(corner: str | None = None, square: str = "bright", rest: str = "dark", scale: int = 1):
    """An SH image: a box of a head in which one corner holds another tissue than the rest."""
    shape = tuple(n * scale for n in SHAPE)
    mask = np.zeros(shape, dtype=bool)
    mask[scale:-scale, scale:-scale] = True
    coefficients = np.where(mask[..., None], tissue(rest), 0).astype(np.float32)
    if corner is not None:
        high_x, high_y = CORNERS[corner]
        size = 4 * scale
        x = slice(-scale - size, -scale) if high_x else slice(scale, scale + size)
        y = slice(-scale - size, -scale) if high_y else slice(scale, scale + size)
        coefficients[x, y] = tissue(square)
    affine = np.diag([SIZE / scale] * 3 + [1.0])
    # Voxels of both scales fill the same box.
    affine[:3, 3] = -np.array(SHAPE) * SIZE / 2 + SIZE / scale / 2
    return SHImage(coefficients, affine, mask, B_VALUE)


def named(image: SHImage, platform: str, subject: str = "sub-01") -> Scan:
    """An SH image as a scan."""
    return Scan(given_sh=image, given_subject=subject, given_platform=platform)


def measured(platform: str, corner: str, subject: str = "sub-01", **options) -> Scan:
    """What was scanned on a platform: a square in a corner."""
    return named(head(corner, **options), platform, subject)


def predicted(
    label: str,
    corner: str,
    source: Scan | None = None,
    model=None,
    branches=MappingProxyType({}),
    square: str = "bright",
) -> Prediction:
    """What a model made: its first stage has a square in `corner`, each branch one in its own."""
    first = head(corner, square)
    outputs = {platform: head(where) for platform, where in branches.items()}
    mean = np.mean([each.coefficients for each in (first, *outputs.values())], axis=0)
    spread = np.std([each.coefficients[..., 0] for each in (first, *outputs.values())], axis=0)
    return Prediction(
        given_sh=SHImage(mean.astype(np.float32), first.affine, first.mask, B_VALUE),
        given_subject="sub-01",
        provenance=Provenance(target="prisma_st", input="ge_st", title=label),
        given_first_stage=first if branches else None,
        # As large in every order, so as large over all.
        given_disagreement=np.repeat(spread[..., None], 4, axis=-1).astype(np.float32)
        if branches
        else None,
        b0=np.zeros(SHAPE, dtype=np.float32),
        target="prisma_st",
        gradients=GradientTable(np.full(60, B_VALUE), spread_directions(60)),
        given_branches=outputs,
        model=model,
        source=source,
    )


def axial(values: np.ndarray) -> np.ndarray:
    """Cut the middle of (X, Y, Z, …) out as a radiologist looks at it, cropped to the mask.

    Front is on top, the patient's left at the right; x runs to the right and y to the front.
    """
    scale = values.shape[0] // SHAPE[0]
    middle = values[::-1, ::-1, (values.shape[2] - 1) // 2]
    return np.swapaxes(middle, 0, 1)[scale:-scale, scale:-scale]


class Canvas:
    """Cells of a grid on the screen.

    Parameters
    ----------
    viewer
        In grid mode.
    picture
        (rows, columns, 3) of the canvas in [0, 1].
    """

    def __init__(self, viewer, picture: np.ndarray) -> None:
        self.viewer, self.picture = viewer, picture
        self.rows, self.columns = viewer.canvas.grid.actual_shape(viewer.layers)

    def cell(self, row: int, column: int) -> np.ndarray:
        """Pixels of one cell."""
        top, left, height, width = self._box(row, column)
        return self.picture[round(top) : round(top + height), round(left) : round(left + width)]

    def seen(self, row: int, column: int, image: SHImage) -> np.ndarray:
        """(rows, columns, 3) colours at the middle of every voxel that `axial` gives."""
        top, left, height, width = self._box(row, column)
        camera = self.viewer.scene.camera
        _, down, across = camera.center
        border = image.mask.shape[0] // SHAPE[0]
        x, y = (np.arange(border, n - border) for n in image.mask.shape[:2])
        # In the viewer rows run to the back and columns to the left, in mm.
        behind = -(image.affine[1, 3] + image.affine[1, 1] * y[::-1])
        leftwards = -(image.affine[0, 3] + image.affine[0, 0] * x[::-1])
        i = top + height / 2 + (behind - down) * camera.zoom
        j = left + width / 2 + (leftwards - across) * camera.zoom
        return self.picture[np.floor(i).astype(int)[:, None], np.floor(j).astype(int)[None]]

    def _box(self, row: int, column: int) -> tuple[float, float, float, float]:
        height, width = self.picture.shape[:2]
        gap = self.viewer.canvas.grid.spacing
        tall = (height - gap * (self.rows - 1)) / self.rows
        wide = (width - gap * (self.columns - 1)) / self.columns
        return row * (tall + gap), column * (wide + gap), tall, wide


def grey(image: SHImage, limits: np.ndarray) -> np.ndarray:
    """(rows, columns) as an axial slice of the SH average must look in a window."""
    low, high = limits
    values = np.where(axial(image.mask), axial(sh_average(image)), 0)
    return np.clip((values - low) / (high - low), 0, 1)


def window(truth: SHImage) -> np.ndarray:
    """The contrast of a truth: 1st to 99th percentile in its mask."""
    return np.percentile(sh_average(truth)[truth.mask], (1, 99))
