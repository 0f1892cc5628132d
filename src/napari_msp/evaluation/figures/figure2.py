"""Figure 2 of the paper: the direction-averaged image of one subject on each platform."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Give, UserError
from napari_msp.evaluation.figures.grid import WINDOW
from napari_msp.evaluation.figures.layout import Block, Panel, Row, Scale, draw_blocks
from napari_msp.evaluation.figures.slices import PLANES, Nearest, Slice, choose_slice
from napari_msp.scan import ScanLike, as_scan
from napari_msp.signal.maps import direction_average
from napari_msp.signal.sh_image import SHImage

TITLE = "Direction-averaged signal"

PIXELS = 4
"""Pixels along the edge of the smallest voxel, so that each platform shows its own voxels."""


def figure2(
    scans: Mapping[str, ScanLike], *, axis: str = "axial", slice_index: int | None = None
) -> Figure:
    """Draw one subject on each platform: one position, one contrast, each in its own voxels.

    Parameters
    ----------
    scans
        By platform, co-registered; the first one, usually the input, sets the slice.
    axis
        "axial", "coronal" or "sagittal".
    slice_index
        Of the first image, in closest-canonical order; None: the slice that shows most. The others
        are cut at the same position in mm.

    Raises
    ------
    UserError
        When there is no image, or the slice has no brain.
    """
    if not scans:
        problem = "Figure 2 needs the scan of at least one platform"
        raise UserError(problem, field="scans", remedy=Give("scans", "one"))
    images = {name: as_scan(scan).image for name, scan in scans.items()}
    slab = _slab(images, axis, slice_index)
    averages, masks = {}, {}
    for name, image in images.items():
        nearest = Nearest.between(image.lattice, slab)
        masks[name] = nearest.take(image.mask)
        averages[name] = np.where(masks[name], nearest.take(direction_average(image)), np.nan)
    view = choose_slice(np.any(list(masks.values()), axis=0), slab, axis, 0)
    low, high = np.nanpercentile(np.stack(list(averages.values())), WINDOW)
    panels: list[Panel | None] = [
        Panel(name, _title(name, images[name]), _shades(view, averages[name], low, high))
        for name in images
    ]
    scale = Scale(float(low), float(high), "gray", "mean S/S0", "both")
    return draw_blocks([Block(TITLE, [Row("image", panels, scale)])], view)


def _slab(images: Mapping[str, SHImage], axis: str, index: int | None) -> Lattice:
    """Lay fine pixels over one slice of the first image: a lattice one voxel thick."""
    first = next(iter(images.values()))
    view = choose_slice(first.mask, first.lattice, axis, index)
    canonical = first.lattice.canonical
    smallest = min(float(image.lattice.voxel_sizes.min()) for image in images.values())
    parts = np.maximum(1, np.ceil(PIXELS * canonical.voxel_sizes / smallest - 1e-3)).astype(int)
    # A voxel is cut into whole pixels, whose outermost centres lie half a pixel inside its faces.
    start = (1 / parts - 1) / 2
    normal = PLANES[axis].normal
    parts[normal], start[normal] = 1, view.index
    to_voxels = np.diag([*(1 / parts), 1.0])
    to_voxels[:3, 3] = start
    shape = np.array(canonical.shape) * parts
    shape[normal] = 1
    x, y, z = (int(count) for count in shape)
    return Lattice((x, y, z), canonical.affine @ to_voxels)


def _shades(view: Slice, average: FloatArray, low: float, high: float) -> FloatArray:
    shades: FloatArray = np.clip((view.cut(average) - low) / (high - low), 0, 1)
    return np.nan_to_num(shades)


def _title(name: str, image: SHImage) -> str:
    sizes = dict.fromkeys(f"{size:.3g}" for size in image.lattice.canonical.voxel_sizes)
    return f"{name} · {' × '.join(sizes)} mm"
