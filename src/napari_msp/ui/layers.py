"""Build napari layers: the only file that does.

Data are shown in closest-canonical order with a diagonal affine (an axis-permuted affine can abort
the viewer), every layer with units and axis labels, and the true affine kept in its metadata.
"""

from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.data.orientation import CanonicalGrid
from napari_msp.signal.maps import sh_average, squared_error
from napari_msp.signal.sh_image import SHImage

LayerData = tuple[Any, dict[str, Any], str]
"""napari's layer data tuple."""

AXES = ("S", "P", "L")
"""Where indices grow: slices upwards, rows to the back, columns to the patient's left, so that a
head is seen as in Fig. 3 and by radiologists, from its feet."""


def sh_average_layer(owner: str, image: SHImage, limits: tuple[float, float]) -> LayerData:
    """Show the SH average in grey; `owner` is "<subject> <platform or model>"."""
    options = {"colormap": "gray", "contrast_limits": limits}
    return _layer(f"{owner} · SH average", sh_average(image), image.lattice, options)


def error_layer(
    owner: str, values: FloatArray, truth: FloatArray, on: SHImage, mask: MaskArray, limit: float
) -> LayerData:
    """Show the squared error of a map beside it, averaged over channels where it has several."""
    error = squared_error(values, truth, mask)
    options = {"colormap": "inferno", "contrast_limits": (0.0, limit)}
    return _layer(f"{owner} · MSE", error, on.lattice, options)


def _layer(name: str, values: FloatArray, lattice: Lattice, options: dict[str, Any]) -> LayerData:
    grid = CanonicalGrid(lattice.shape, lattice.affine)
    canonical = grid.to_canonical(values)
    # From right-anterior-superior to superior-posterior-left.
    shown = np.flip(np.moveaxis(canonical, (0, 1, 2), (2, 1, 0)), axis=(1, 2))
    sizes = lattice_sizes(grid)
    metadata = {"affine": lattice.affine.tolist()}
    return (
        shown,
        {
            "name": name,
            "scale": sizes[::-1],
            "units": ("mm",) * 3,
            "axis_labels": AXES,
            "metadata": metadata,
            **options,
        },
        "image",
    )


def lattice_sizes(grid: CanonicalGrid) -> tuple[float, float, float]:
    """Voxel sizes in mm along right, anterior and superior."""
    x, y, z = np.linalg.norm(grid.affine[:3, :3], axis=0)
    return float(x), float(y), float(z)
