"""Build napari layers, which only this file does, and read back what a layer shows.

Layers lie as `viewer_axes` says, have units and axis labels, and keep the true affine as metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_msp.arrays import AnyArray, FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.formatting import numbered
from napari_msp.inference.prediction import Prediction
from napari_msp.scan import Scan
from napari_msp.signal.maps import DISAGREEMENT_COLOURS, ERROR_COLOURS, MAPS
from napari_msp.ui.reading import abandonable
from napari_msp.ui.viewer_axes import AXES, corner, sizes_shown, to_shown

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_msp.evaluation.regions import Regions

KEY = "napari_msp"
"""Key of a layer's metadata that holds what the layer shows."""

REGION_NAMES = "napari_msp region names"
"""Key of a Labels layer's metadata that holds the names by label."""

LayerData = tuple[Any, dict[str, Any], str]
"""napari's layer data tuple."""

Look = tuple[str, tuple[float, float]]
"""A napari colormap, and the percentiles of the in-mask values that become the contrast limits."""

MASK_COLOUR = (0.34, 0.71, 0.91, 1.0)
"""Sky blue: visible on grey and among the colours of colour FA, also without colour vision."""

MAP_TITLES = tuple(each.title for each in MAPS.values())

FIRST_MAPS = tuple(MAPS[name].title for name in ("sh_average", "colour_fa"))
"""Titles of the maps that are shown unless others are chosen."""

ERROR, DOUBT = (ERROR_COLOURS, (0, 98)), (DISAGREEMENT_COLOURS, (0, 98))

LOOKS: Mapping[str, Look] = {
    **{each.title: ("gray", (1, 99)) for each in MAPS.values()},
    **{each.error_title: ERROR for each in MAPS.values()},
    "b0": ("gray", (1, 99.5)),
    "SH MSE": ERROR,
    "disagreement": DOUBT,
    "disagreement of order 0": DOUBT,
    "expected SH MSE": ERROR,
    "expected error": ERROR,
}
"""Looks by quantity; maps in colours have their own colours."""


@dataclass(frozen=True, eq=False)
class Shown:
    """The contents of one layer, kept in the layer's metadata, so that no registry is needed.

    When the layers of a scan are deleted, nothing else remembers it.

    Attributes
    ----------
    scan
        Scan whose map it is.
    quantity
        The map, such as "SH average"; last part of the layer's name.
    view
        Name of the view that made the layer and may replace it; "" for the user's layers.
    alpha
        α of equation (1) in what is shown; None: the prediction's own, or a scan that has none.
    """

    scan: Scan
    quantity: str
    view: str = ""
    alpha: float | None = None

    @property
    def seen(self) -> Scan:
        """The scan as it is shown; a prediction is mixed at its α only when asked for."""
        if self.alpha is None or not is_prediction(self.scan):
            return self.scan
        return self.scan.at_alpha(self.alpha)


def shown_by(layer: Layer) -> Shown | None:
    """Return what a layer shows; None for a layer that is not the plugin's."""
    shown = layer.metadata.get(KEY)
    return shown if isinstance(shown, Shown) else None


def is_ours(layer: Layer) -> bool:
    """Return whether the plugin made a layer, with or without a scan behind it."""
    return KEY in layer.metadata


def shown_in(data: LayerData) -> Shown:
    """Return what one of the plugin's layers will show."""
    shown: Shown = data[1]["metadata"][KEY]
    return shown


def scans_of(layers: Iterable[Layer]) -> list[Scan]:
    """Return the scans behind layers, each once, in the order of the layers.

    A file that was opened twice is one scan, unless it was opened with another mask or table.
    """
    return unique_scans(shown.scan for shown in filter(None, map(shown_by, layers)))


def unique_scans(scans: Iterable[Scan]) -> list[Scan]:
    """Return each scan once: of those that are the same, see `same_scan`, the first."""
    found: dict[int, Scan] = {}
    for scan in scans:
        if id(scan) not in found and same_among(scan, found.values()) is None:
            found[id(scan)] = scan
    return list(found.values())


def same_among(scan: Scan, scans: Iterable[Scan]) -> Scan | None:
    """Return the same scan, see `same_scan`, among others; None where there is none."""
    return next((each for each in scans if same_scan(scan, each)), None)


def showing(layers: Iterable[Layer], data: LayerData) -> Layer | None:
    """Return the layer that shows the same map of the same scan, see `scans_of`; or None."""
    wanted = shown_in(data)
    for layer in layers:
        shown = shown_by(layer)
        if shown is None or (shown.view, shown.quantity) != (wanted.view, wanted.quantity):
            continue
        if same_scan(shown.scan, wanted.scan):
            return layer
    return None


def not_shown(layers: Iterable[Layer], wanted: Sequence[LayerData]) -> list[LayerData]:
    """Return the layers that are not shown yet; make the others as visible as asked for.

    A file that is opened again is one scan.
    """
    missing = []
    for data in wanted:
        known = showing(layers, data)
        if known is None:
            missing.append(data)
        else:
            known.visible = data[1]["visible"]
    return missing


def same_scan(scan: Scan, other: Scan) -> bool:
    """Return whether two scans are one, or were read from one file in the same way."""
    if scan is other:
        return True
    one, two = scan.acquisition, other.acquisition
    if one is None and two is None:
        return scan.path is not None and scan.path == other.path and _is_same_image(scan, other)
    if one is None or two is None or one.path is None or one.path != two.path:
        return False
    return scan.b_value == other.b_value and all(
        np.array_equal(first, second)
        for first, second in (
            (one.gradients.b_values, two.gradients.b_values),
            (one.gradients.directions, two.gradients.directions),
            (one.mask, two.mask),
            (one.b0, two.b0),
        )
    )


def _is_same_image(scan: Scan, other: Scan) -> bool:
    """Return whether two SH images are identical: the file may have been rewritten since."""
    ones, twos = scan.by_shell() or {0: scan}, other.by_shell() or {0: other}
    return ones.keys() == twos.keys() and all(
        np.array_equal(ones[each].sh.coefficients, twos[each].sh.coefficients)
        and np.array_equal(ones[each].sh.mask, twos[each].sh.mask)
        for each in ones
    )


def source_of(scan: Scan) -> Scan:
    """Return the scan that a prediction was made from here; any other scan itself."""
    return scan.source or scan if is_prediction(scan) else scan


def same_source(one: Prediction, other: Prediction) -> bool:
    """Return whether two predictions were made from one scan."""
    first, second = one.source, other.source
    return first is second or (
        first is not None and second is not None and same_scan(first, second)
    )


def is_prediction(scan: Scan) -> TypeGuard[Prediction]:
    """Return whether a scan was predicted in this session, not read from a file."""
    return isinstance(scan, Prediction)


def made_here(scan: Scan) -> TypeGuard[Prediction]:
    """Return whether a scan was predicted in this session by a model that is at hand."""
    return is_prediction(scan) and scan.model is not None


class Owned(Protocol):
    """A scan, loaded or not, with its subject and name."""

    @property
    def owner(self) -> str:
        """Subject and name, such as "sub-01 ge_st"."""


AnyOwned = TypeVar("AnyOwned", bound=Owned)


_NUMBERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Numbers of scans that share a name, by what they were read from, in the order they were shown.

The viewer's layers say which scans are open, so no list of them is kept."""


def tell_apart(scans: Sequence[Scan]) -> None:
    """Give new scans of a viewer that share a name their numbers; numbers given before stay.

    A scan that was opened twice has one number. A scan that comes after others were closed never
    gets a lower number than one that is still open.
    """
    for scan in scans:
        if _read_from(scan) in _NUMBERS:
            continue
        others = [each for each in scans if each is not scan and each.owner == scan.owner]
        taken = [_NUMBERS.get(_read_from(each), 0) for each in others]
        same = (number for number, each in zip(taken, others, strict=True) if same_scan(scan, each))
        _NUMBERS[_read_from(scan)] = next(filter(None, same), max(taken, default=0) + 1)


def apart(scan: Scan) -> str:
    """Return what tells a scan, and predictions of it, from another of its name: "" or " (2)"."""
    number = _NUMBERS.get(_read_from(source_of(scan)), 1)
    return f" ({number})" if number > 1 else ""


def _read_from(scan: Scan) -> object:
    """Return what all shells of a scan have in common."""
    return scan if scan.acquisition is None else scan.acquisition


def named_apart(layers: Iterable[Layer], wanted: Sequence[LayerData]) -> list[LayerData]:
    """Return layers to add, named so that scans of one name can be told apart."""
    coming = [source_of(shown_in(data).scan) for data in wanted]
    sources = [source_of(scan) for scan in scans_of(layers)]
    tell_apart(list(dict.fromkeys([*sources, *coming])))
    named = []
    for data, options, kind in wanted:
        shown: Shown = options["metadata"][KEY]
        named.append((data, options | {"name": layer_name(shown.scan, shown.quantity)}, kind))
    return named


def layer_name(scan: Scan, quantity: str) -> str:
    """Return the name of a scan's layer, such as "sub-01 ge_st (2) · SH average"."""
    return f"{scan.owner}{apart(scan)} · {quantity}"


def titled(scans: Iterable[AnyOwned]) -> dict[str, AnyOwned]:
    """Return scans by a title of their own, such as "sub-01 ge_st" or "sub-01 ge_st (2)"."""
    return numbered(
        (scan.owner + (apart(scan) if isinstance(scan, Scan) else ""), scan) for scan in scans
    )


def scan_layers(
    scan: Scan, maps: Collection[str] = FIRST_MAPS, check: Callable[[], None] = lambda: None
) -> list[LayerData]:
    """Return b0 (of a DWI, hidden) and maps of a scan from the bottom up; only the last is visible.

    Parameters
    ----------
    scan
        Scan to show.
    maps
        Titles of maps in `MAPS`; none: the first of them. All maps come through SH, so that scans
        and predictions compare alike.
    check
        Called ten times a second while tensors are fitted; may raise to end the work.
    """
    acquisition = scan.acquisition
    layers = [] if acquisition is None else [map_layer(scan, "b0", acquisition.b0, visible=False)]
    known = list(MAPS.values())
    wanted = [each for each in reversed(known) if each.title in maps] or known[:1]
    for each in wanted:
        values = abandonable(partial(scan.maps("sh").__getitem__, each.name), check)
        shown = each.shown(values)
        layers.append(map_layer(scan, each.title, shown, visible=each is wanted[-1]))
    return layers


def mask_layer(scan: Scan) -> LayerData:
    """Return a Labels layer of a scan's mask."""
    from napari.utils.colormaps import CyclicLabelColormap

    values, options, _ = map_layer(scan, "mask", scan.sh.mask.astype(np.uint8))
    del options["contrast_limits"]  # Labels layers have none
    # A colormap by label would take napari a second to compile.
    colours = CyclicLabelColormap([(0, 0, 0, 0), MASK_COLOUR])
    return values, options | {"colormap": colours, "opacity": 0.8}, "labels"


def make_layer(data: LayerData) -> Any:
    """Make napari's layer; masks get an outline and cannot be painted on, which data cannot say."""
    from napari.layers import Labels, Layer

    layer = Layer.create(*data)
    if isinstance(layer, Labels):
        layer.contour = 1
        layer.editable = False
    return layer


def map_layer(
    scan: Scan,
    quantity: str,
    values: FloatArray,
    *,
    lattice: Lattice | None = None,
    mask: MaskArray | None = None,
    limits: tuple[float, float] | None = None,
    name: str | None = None,
    view: str = "",
    alpha: float | None = None,
    visible: bool = True,
    **options: Any,
) -> LayerData:
    """Return the layer of a scan's map.

    Parameters
    ----------
    scan
        Scan whose map it is.
    quantity
        Last part of the layer's name, such as "SH average"; selects the look in `LOOKS`.
    values
        Values, (X, Y, Z), or (X, Y, Z, 3) for colours in [0, 1]; in stored order.
    lattice, mask
        Lattice of the values and mask of those that count; None: the scan's own.
    limits
        Contrast limits; None: the quantity's percentiles inside the mask.
    name
        Name of the layer; None: that of `layer_name`.
    view, alpha, visible
        See `Shown`, and napari for `visible`.
    **options
        More of napari's image options, which override these.
    """
    return lattice_layer(
        layer_name(scan, quantity) if name is None else name,
        quantity,
        values,
        scan.sh.lattice if lattice is None else lattice,
        scan.sh.mask if mask is None else mask,
        limits=limits,
        visible=visible,
        about={KEY: Shown(scan, quantity, view, alpha)},
        **options,
    )


def lattice_layer(
    name: str,
    quantity: str,
    values: NDArray[Any],
    lattice: Lattice,
    mask: MaskArray,
    *,
    limits: tuple[float, float] | None = None,
    visible: bool = True,
    about: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> LayerData:
    """Return a layer of values on a lattice, whether or not a scan is behind them.

    Parameters
    ----------
    name
        Name of the layer.
    quantity, values, lattice, mask, limits, visible, **options
        See `map_layer`.
    about
        More entries for the layer's metadata.
    """
    chosen: dict[str, Any] = {
        "name": name,
        "scale": tuple(float(size) for size in sizes_shown(lattice)),
        "translate": tuple(float(each) for each in corner(lattice)),
        "units": ("mm",) * 3,
        "axis_labels": AXES,
        "metadata": {
            "affine": lattice.affine.tolist(),
            "shape": lattice.shape,
            KEY: None,
            **about,
        },
        "visible": visible,
    }
    if values.ndim == 4:
        # napari would stretch colours to each image's own maximum, which differs between cells.
        chosen |= {"rgb": True, "contrast_limits": (0.0, 1.0)}
    else:
        colormap, window = LOOKS.get(quantity, LOOKS["SH average"])
        limits = limits or window_of(values[mask], window)
        chosen |= {"colormap": colormap, "contrast_limits": limits}
    return to_shown(values, lattice), chosen | options, "image"


def labels_layer(name: str, regions: Regions, **options: Any) -> LayerData:
    """Return a Labels layer of regions; its metadata hold their names."""
    where, labels = regions.lattice, regions.labels
    data, chosen, _ = lattice_layer(name, "", labels, where, labels > 0, limits=(0, 1), **options)
    del chosen["contrast_limits"], chosen["colormap"]  # Labels layers have their own
    chosen["metadata"][REGION_NAMES] = dict(regions.names)
    return np.ascontiguousarray(data), chosen | {"opacity": 0.5}, "labels"


def fits(layer: Any, cell: LayerData) -> bool:
    """Return whether a layer can take other contents: of any shape, with colours of one kind."""
    _, options, _ = cell
    colormap = options.get("colormap")
    return bool(
        layer.rgb == bool(options.get("rgb"))
        and (layer.rgb or layer.colormap.name == getattr(colormap, "name", colormap))
    )


def refill(layer: Any, cell: LayerData, before: LayerData | None = None) -> None:
    """Replace a layer's contents by others that fit it: a new layer takes a tenth of a second.

    Parameters
    ----------
    before
        Contents that it was made from. Where these have the same contrast, the layer keeps its own,
        which the user may have changed.
    """
    data, options, _ = cell
    limits = options.get("contrast_limits")
    if limits is not None and (before is None or limits != before[1].get("contrast_limits")):
        layer.contrast_limits = limits
    for name in ("scale", "translate"):  # setting either redraws the layer, even if unchanged
        if not np.array_equal(getattr(layer, name), options[name]):
            setattr(layer, name, options[name])
    layer.metadata, layer.name = options["metadata"], options["name"]
    if layer.data is not data:  # else the window would be redrawn for nothing
        layer.data = data


def lattice_of(layer: Layer) -> Lattice | None:
    """Return the lattice of one of the plugin's layers; None for others and for moved ones."""
    if not is_ours(layer):
        return None
    names = ("metadata", "scale", "translate", "rotate", "shear", "affine")
    return lattice_shown(layer.data, {name: getattr(layer, name) for name in names})


def lattice_shown(data: AnyArray, options: Mapping[str, Any]) -> Lattice | None:
    """Return the lattice that a layer was made on; None if the layer no longer lies there."""
    metadata = options["metadata"]
    lattice = Lattice(metadata["shape"], np.asarray(metadata["affine"], dtype=float))
    there = (
        data.shape[:3] == lattice.canonical.shape[::-1]
        and np.allclose(options["scale"], sizes_shown(lattice))
        and np.allclose(options["translate"], corner(lattice), atol=1e-3)
        and np.allclose(options.get("rotate", np.eye(3)), np.eye(3))
        and np.allclose(options.get("shear", 0), 0)
        and np.allclose(options.get("affine", np.eye(4)), np.eye(4))
    )
    return lattice if there else None


def window_of(values: FloatArray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return contrast limits, of which the lower is always below the upper."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(each) for each in np.percentile(values, percentiles))
    return (low, high) if high > low else (low, low + 1.0)
