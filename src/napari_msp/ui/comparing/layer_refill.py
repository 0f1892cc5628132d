"""Give a layer other contents; making a new one takes the window a tenth of a second."""

from __future__ import annotations

from typing import Any

from napari_msp.ui.layers import LayerData


def fits(layer: Any, cell: LayerData) -> bool:
    """Tell whether a layer can take a cell: same shape, colours, and contrast at first."""
    data, options, _ = cell
    colormap = options.get("colormap")
    return bool(
        layer.rgb == bool(options.get("rgb"))
        and layer.data.shape == data.shape
        and (layer.rgb or layer.colormap.name == getattr(colormap, "name", colormap))
    )


def refill(layer: Any, cell: LayerData, before: LayerData) -> None:
    """Put a cell into a layer that it fits.

    Parameters
    ----------
    before
        The cell that it held; where the contrast is the same, that of a person is kept.
    """
    data, options, _ = cell
    limits = options.get("contrast_limits")
    if limits != before[1].get("contrast_limits"):
        layer.contrast_limits = limits
    layer.scale, layer.translate = options["scale"], options["translate"]
    layer.metadata, layer.name = options["metadata"], options["name"]
    layer.data = data
