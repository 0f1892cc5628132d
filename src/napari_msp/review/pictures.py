"""Small pictures of predictions: input, prediction and its uncertainty, in three planes each.

All of a cohort are cut through the middle of the brain along scanner axes, at one scale and with
one contrast, so that they can be compared at a glance. They are drawn from the small maps that
`cohort` and `harmonize` write, which are made if they are missing.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import map_coordinates

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import scanner_points
from napari_msp.errors import Poll, Progress, UserError, reporter
from napari_msp.inference.review_making import open_review_maps
from napari_msp.inference.review_maps import ReviewImage, ReviewMaps
from napari_msp.review.predictions import Entry, Review
from napari_msp.signal.maps import DISAGREEMENT_COLOURS, ERROR_COLOURS

PIXEL = 2.0
"""Size of a picture's pixel in mm (our choice): about a voxel of most scans."""

FIELD = (168.0, 200.0, 160.0)
"""Part of the head shown from right to left, front to back and top to bottom, in mm: enough for an
adult's brain. A larger one is drawn smaller."""

MARGIN = 4.0
"""Margin around the mask in mm."""

QUALITY = 76
"""Quality of the WebP pictures, of 100 (our choice: a picture of 4 × 3 planes takes 12 kB)."""

BRIGHTEST = 99.5
"""Percentile of the SH average in the mask that is white, the median over predictions."""

BRIGHTEST_ERROR = 99.0
"""The same for the uncertainty of a prediction, over predictions of one kind."""

COLOURS = {"expected error": ERROR_COLOURS, "disagreement": DISAGREEMENT_COLOURS}
"""Colour maps, the same as in the window."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Planes of a prediction before contrast is known, and the values to be white; nan: none.

    Of each image, by name, axial, coronal and sagittal plane lie side by side: (H, W) numbers, or
    (H, W, 3) colours in [0, 1]; 0 outside of it.
    """

    planes: Mapping[str, FloatArray]
    bright: float = float("nan")
    bright_error: float = float("nan")
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PredictionPicture:
    """One prediction's WebP, empty if nothing could be drawn, and the names of what it shows."""

    image: bytes = b""
    width: int = 0
    height: int = 0
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The image as a data URI."""
        return f"data:image/webp;base64,{base64.b64encode(self.image).decode()}"


def draw_all(
    review: Review,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> dict[str, PredictionPicture]:
    """Draw every prediction of a folder.

    Parameters
    ----------
    progress
        Function called with an entry's name, how many are done and how many there are.
    cancelled
        Function polled between predictions.

    Returns
    -------
    Pictures by the entries' keys; if one cannot be drawn, its notes say why.
    """
    cuts: dict[str, Cut] = {}
    report = reporter(progress, cancelled)
    for number, entry in enumerate(review.entries):
        report(f"picture of {entry.name}", number, len(review.entries))
        cuts[entry.key] = cut_entry(entry, cancelled)
    white = _median([cut.bright for cut in cuts.values()])
    drawn: dict[str, PredictionPicture] = {}
    for entries in review.kinds.values():
        white_error = _median([cuts[entry.key].bright_error for entry in entries])
        for entry in entries:
            drawn[entry.key] = draw(cuts.pop(entry.key), white, white_error)
    return drawn


def cut_entry(entry: Entry, cancelled: Poll | None = None) -> Cut:
    """Cut one prediction's maps, which are made if they are missing or stale.

    Of several shells the first is cut; its notes say which.
    """
    try:
        maps, _ = open_review_maps(entry.made_from, cancelled=cancelled)
    except UserError as error:
        return Cut({}, notes=(error.phrase(),))
    return cut(maps)


def cut(maps: ReviewMaps) -> Cut:
    """Cut the maps of a prediction through the middle of its brain."""
    grids = _grids(maps.prediction)
    images = (("input", maps.scan), ("prediction", maps.prediction), ("truth", maps.truth))
    planes = {
        name: _sampled(image.average, image.lattice.affine, grids)
        for name, image in images
        if image is not None
    }
    of, coloured = maps.prediction.lattice.affine, maps.prediction.colour / np.float32(255)
    channels = [_sampled(coloured[..., each], of, grids) for each in range(3)]
    planes["colour FA"] = np.stack(channels, axis=-1)
    bright_error = float("nan")
    if maps.uncertainty is not None and maps.uncertainty_name is not None:
        planes[maps.uncertainty_name] = _sampled(maps.uncertainty, of, grids)
        bright_error = _percentile(maps.uncertainty[maps.prediction.mask], BRIGHTEST_ERROR)
    inside = maps.prediction.average[maps.prediction.mask]
    return Cut(planes, _percentile(inside, BRIGHTEST), bright_error, maps.notes)


Grid = tuple[FloatArray, tuple[int, int]]
"""(N, 3) points in scanner coordinates, and the shape (rows, columns) that they fill."""


def _grids(image: ReviewImage) -> list[Grid]:
    """Return three planes through the middle of a brain, in radiological view."""
    mask = image.mask if image.mask.any() else np.ones(image.mask.shape, dtype=bool)
    points = scanner_points(mask, image.lattice.affine)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    scale = _scale(float(((high - low + 2 * MARGIN) / FIELD).max()))
    right, front, top = (
        (np.arange(round(size / PIXEL)) - (round(size / PIXEL) - 1) / 2) * PIXEL * scale
        for size in FIELD
    )
    # The patient's right is on the left, front at the top or on the left.
    return [
        _plane(middle, (1, front[::-1]), (0, right[::-1])),
        _plane(middle, (2, top[::-1]), (0, right[::-1])),
        _plane(middle, (2, top[::-1]), (1, front[::-1])),
    ]


def _scale(needed: float) -> float:
    """Choose one of few scales, so that brains of a cohort share one: slabs are drawn larger.

    >>> _scale(0.83), _scale(0.2), _scale(1.3)
    (1.0, 0.25, 1.3)
    """
    return next((each for each in (0.25, 0.5, 1.0) if needed <= each), needed)


def _plane(middle: FloatArray, down: tuple[int, FloatArray], along: tuple[int, FloatArray]) -> Grid:
    rows, columns = np.meshgrid(down[1], along[1], indexing="ij")
    points = np.tile(middle, (rows.size, 1))
    points[:, down[0]] += rows.ravel()
    points[:, along[0]] += columns.ravel()
    return points, (rows.shape[0], rows.shape[1])


def _sampled(values: FloatArray, affine: FloatArray, grids: Sequence[Grid]) -> FloatArray:
    """Interpolate an image linearly on the planes, and put them side by side."""
    height = max(rows for _, (rows, _) in grids)
    whole = []
    for points, (rows, columns) in grids:
        voxels = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T)
        plane = map_coordinates(values, voxels, order=1, cval=0.0, output=np.float32)
        above = (height - rows) // 2
        padded = np.zeros((height, columns), dtype=np.float32)
        padded[above : above + rows] = plane.reshape(rows, columns)
        whole.append(padded)
    return np.concatenate(whole, axis=1).astype(np.float16)


def _percentile(values: FloatArray, share: float) -> float:
    return float(np.percentile(values, share)) if values.size else float("nan")


def _median(values: Sequence[float]) -> float:
    known = [each for each in values if np.isfinite(each)]
    return float(np.median(known)) if known else float("nan")


# --- Drawing ----------------------------------------------------------------------------------


def draw(of: Cut, white: float, white_error: float) -> PredictionPicture:
    """Draw a prediction: all its planes in one strip.

    `white` and `white_error` end the scales of SH average and uncertainty; black is 0.
    """
    from PIL import Image, ImageDraw

    if not of.planes:
        return PredictionPicture(notes=of.notes)
    painted = [_painted(*each, white, white_error) for each in of.planes.items()]
    strip = Image.fromarray(np.concatenate(painted, axis=1))
    pen = ImageDraw.Draw(strip)
    width = painted[0].shape[1]
    axial = round(FIELD[0] / PIXEL)
    for number in range(len(painted)):
        for left in (0, axial):  # axial and coronal planes
            pen.text((number * width + left + 1, 0), "R", fill=(150, 150, 150))
    stream = io.BytesIO()
    strip.save(stream, "WEBP", quality=QUALITY, method=4)
    names = tuple(of.planes)
    return PredictionPicture(stream.getvalue(), strip.width, strip.height, names, of.notes)


def _painted(name: str, planes: FloatArray, white: float, white_error: float) -> FloatArray:
    """Return (H, W, 3) uint8 colours."""
    values = planes.astype(np.float32)
    if values.ndim == 3:
        shown = values
    elif name in COLOURS:
        scaled = np.clip(values / white_error if white_error > 0 else values * 0, 0, 1)
        shown = _lut(COLOURS[name])[np.rint(255 * scaled).astype(int)]
        shown[values == 0] = 0  # outside the mask
    else:
        grey = np.clip(values / white if white > 0 else values * 0, 0, 1)
        shown = np.repeat(grey[..., None], 3, axis=-1)
    return np.asarray(np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8))


@cache
def _lut(name: str) -> FloatArray:
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.arange(256))[:, :3].astype(np.float32))
