"""Build napari layers: the only file that does.

Data are shown in closest-canonical order with a diagonal affine (an axis-permuted affine can abort
the viewer), every layer with units and axis labels, and the true affine kept in its metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import AnyArray, FloatArray, MaskArray
from napari_msp.data.lattice import CanonicalGrid, Lattice
from napari_msp.signal.maps import colour_fa, sh_average
from napari_msp.ui.records import KEY, Record, Shown

LayerData = tuple[Any, dict[str, Any], str]
"""napari's layer data tuple."""

AXES = ("S", "P", "L")
"""Where indices grow: slices upwards, rows to the back, columns to the patient's left, so that a
head is seen as in Fig. 3 and by radiologists, from its feet."""


@dataclass(frozen=True)
class Look:
    """How a quantity is shown.

    Attributes
    ----------
    colormap
        A napari colormap; even in brightness, so readable without colour vision.
    window
        Percentiles of the in-mask values that become the contrast limits.
    """

    colormap: str
    window: tuple[float, float]


MASK_COLOUR = (0.34, 0.71, 0.91, 1.0)
"""Sky blue: seen on grey and among the colours of colour FA, also without colour vision."""

LOOKS: Mapping[str, Look] = {
    "b0": Look("gray", (1, 99.5)),
    "SH average": Look("gray", (1, 99)),
    "MSE": Look("inferno", (0, 98)),
    "SH MSE": Look("inferno", (0, 98)),
    "disagreement": Look("viridis", (0, 98)),
    "disagreement of order 0": Look("viridis", (0, 98)),
    "expected SH MSE": Look("viridis", (0, 98)),
    "mask": Look("gray", (0, 100)),
}
"""By quantity; "colour FA" is in colours of its own."""


def scan_layers(record: Record, colours: FloatArray | None = None) -> list[LayerData]:
    """Give b0, colour FA (see `image_layers`) and SH average of a scan; only the last is seen."""
    acquisition = record.acquisition
    b0 = [] if acquisition is None else [map_layer(record, "b0", acquisition.b0, visible=False)]
    return [*b0, *image_layers(record, colours)]


def image_layers(record: Record, colours: FloatArray | None = None) -> list[LayerData]:
    """Give colour FA (hidden) and SH average of any record, the SH average on top.

    Parameters
    ----------
    record
        What is shown.
    colours
        (X, Y, Z, 3) colour FA where it was made already.
    """
    colours = colour_fa(record.image) if colours is None else colours
    return [
        map_layer(record, "colour FA", colours, visible=False),
        map_layer(record, "SH average", sh_average(record.image)),
    ]


def mask_layer(record: Record) -> LayerData:
    """Show a record's mask."""
    from napari.utils.colormaps import CyclicLabelColormap

    values, options, _ = map_layer(record, "mask", record.image.mask.astype(np.uint8))
    shared = ("name", "scale", "translate", "units", "axis_labels", "metadata")
    # A colormap by label would take napari a second to compile.
    colours = CyclicLabelColormap([(0, 0, 0, 0), MASK_COLOUR])
    look = {"colormap": colours, "opacity": 0.8}
    return values, {key: options[key] for key in shared} | look, "labels"


def make_layer(data: LayerData) -> Any:
    """Make napari's layer; a mask as an outline, not to be painted on, which data cannot say."""
    from napari.layers import Labels, Layer

    layer = Layer.create(*data)
    if isinstance(layer, Labels):
        layer.contour = 1
        layer.editable = False
    return layer


def map_layer(
    record: Record,
    quantity: str,
    values: FloatArray,
    *,
    lattice: Lattice | None = None,
    mask: MaskArray | None = None,
    limits: tuple[float, float] | None = None,
    name: str | None = None,
    view: str = "",
    visible: bool = True,
    **options: Any,
) -> LayerData:
    """Show a map of a record.

    Parameters
    ----------
    record
        Whose map it is.
    quantity
        Last part of the layer's name; a key of `LOOKS`, or "colour FA".
    values
        (X, Y, Z), or (X, Y, Z, 3) for colours in [0, 1]; in stored order.
    lattice, mask
        Where the values lie and count; None: the record's own.
    limits
        Contrast limits; None: the quantity's percentiles inside the mask.
    name
        Of the layer; None: "<owner> · <quantity>".
    view, visible
        As for `Shown` and for napari.
    options
        More of napari's image options, put over these.
    """
    lattice = record.image.lattice if lattice is None else lattice
    mask = record.image.mask if mask is None else mask
    grid_sizes = lattice.canonical.voxel_sizes
    chosen: dict[str, Any] = {
        "name": f"{record.owner} · {quantity}" if name is None else name,
        "scale": tuple(float(size) for size in grid_sizes[::-1]),
        "translate": corner(lattice),
        "units": ("mm",) * 3,
        "axis_labels": AXES,
        "metadata": {
            "affine": lattice.affine.tolist(),
            "shape": lattice.shape,
            KEY: Shown(record, quantity, view),
        },
        "visible": visible,
    }
    if values.ndim == 4:
        chosen |= {"rgb": True}
    else:
        look = LOOKS.get(quantity, LOOKS["SH average"])
        chosen |= {
            "colormap": look.colormap,
            "contrast_limits": limits or window_of(values[mask], look.window),
        }
    return to_shown(values, lattice), chosen | options, "image"


def fits(layer: Any, cell: LayerData) -> bool:
    """Tell whether a layer can take other contents: same shape, and colours of the same kind."""
    data, options, _ = cell
    colormap = options.get("colormap")
    return bool(
        layer.rgb == bool(options.get("rgb"))
        and layer.data.shape == data.shape
        and (layer.rgb or layer.colormap.name == getattr(colormap, "name", colormap))
    )


def refill(layer: Any, cell: LayerData, before: LayerData | None = None) -> None:
    """Give a layer other contents that fit it: making a new one takes a tenth of a second.

    Parameters
    ----------
    before
        What it was made from. Where that has the same contrast, the layer's own, which a person may
        have changed, is kept.
    """
    data, options, _ = cell
    limits = options.get("contrast_limits")
    if limits is not None and (before is None or limits != before[1].get("contrast_limits")):
        layer.contrast_limits = limits
    layer.scale, layer.translate = options["scale"], options["translate"]
    layer.metadata, layer.name = options["metadata"], options["name"]
    layer.data = data


def to_shown(values: AnyArray, lattice: Lattice) -> AnyArray:
    """Reorder (X, Y, Z, …) from stored order to that of `AXES`."""
    canonical = _grid(lattice).to_canonical(values)
    shown: AnyArray = np.flip(np.moveaxis(canonical, (0, 1, 2), (2, 1, 0)), axis=(1, 2))
    return shown


def from_shown(data: AnyArray, lattice: Lattice) -> AnyArray:
    """Reorder a layer's data to the stored order of its lattice; undoes `to_shown`."""
    canonical = np.moveaxis(np.flip(data, axis=(1, 2)), (2, 1, 0), (0, 1, 2))
    stored: AnyArray = _grid(lattice).to_stored(canonical)
    return stored


def lattice_shown(data: AnyArray, options: Mapping[str, Any]) -> Lattice | None:
    """Give the lattice that a layer was made on; None when it does not lie there any longer."""
    metadata = options["metadata"]
    lattice = Lattice(metadata["shape"], np.asarray(metadata["affine"], dtype=float))
    whole = data.shape[:3] == lattice.canonical.shape[::-1]
    there = (
        np.allclose(options["scale"], lattice.canonical.voxel_sizes[::-1])
        and np.allclose(options["translate"], corner(lattice), atol=1e-3)
        and np.allclose(options.get("rotate", np.eye(3)), np.eye(3))
        and np.allclose(options.get("shear", 0), 0)
        and np.allclose(options.get("affine", np.eye(4)), np.eye(4))
    )
    return lattice if whole and there else None


def stored_index(position: tuple[float, float, float], lattice: Lattice) -> tuple[int, ...] | None:
    """Give the stored voxel at a viewer position (mm along S, P, L); None beyond the lattice."""
    sizes = lattice.canonical.voxel_sizes[::-1]
    shown = np.round((np.asarray(position) - corner(lattice)) / sizes).astype(int)
    shape = np.array(lattice.canonical.shape)[::-1]
    if (shown < 0).any() or (shown >= shape).any():
        return None
    right, anterior, superior = shape[2] - 1 - shown[2], shape[1] - 1 - shown[1], shown[0]
    canonical = lattice.canonical.affine @ [right, anterior, superior, 1]
    voxel = np.round(np.linalg.inv(lattice.affine) @ canonical)[:3]
    return tuple(int(each) for each in voxel)


def corner(lattice: Lattice) -> tuple[float, float, float]:
    """Give where a layer's first voxel lies, in mm along `AXES` of the grid.

    Lattices with parallel axes, of whatever spacing, fall into place on each other.
    """
    canonical = lattice.canonical
    cosines = canonical.affine[:3, :3] / canonical.voxel_sizes
    first = canonical.affine[:3, 3] @ cosines
    last = first + (np.array(canonical.shape) - 1) * canonical.voxel_sizes
    return float(first[2]), float(-last[1]), float(-last[0])


def window_of(values: FloatArray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Give contrast limits, of which the lower is always below the upper."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(values, percentiles))
    return (low, high) if high > low else (low, low + 1.0)


def _grid(lattice: Lattice) -> CanonicalGrid:
    return CanonicalGrid(lattice.shape, lattice.affine)
