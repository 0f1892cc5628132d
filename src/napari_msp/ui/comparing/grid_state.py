"""How the viewer was before a comparison took it over, so that it can be again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCALE_BAR = ("visible", "position", "gridded", "box", "font_size", "length")


@dataclass(frozen=True, eq=False)
class GridState:
    """What a comparison changes of a viewer.

    Attributes
    ----------
    active
        The selected layer.
    grid, camera, dims, scale_bar
        Values by attribute.
    background
        Override of the canvas colour.
    """

    active: Any
    grid: dict[str, Any]
    camera: dict[str, Any]
    dims: dict[str, Any]
    scale_bar: dict[str, Any]
    background: Any

    @classmethod
    def from_viewer(cls, viewer: Any) -> GridState:
        """Take it down."""
        return cls(
            active=viewer.layers.selection.active,
            grid=_taken(viewer.canvas.grid, ("stride", "shape", "spacing", "enabled")),
            camera=_taken(viewer.scene.camera, ("orientation", "angles", "center", "zoom")),
            dims=_taken(viewer.dims, ("ndisplay", "order", "point")),
            scale_bar=_taken(viewer.canvas.overlays.scale_bar, SCALE_BAR),
            background=viewer.canvas.background_color_override,
        )

    def apply(self, viewer: Any) -> None:
        """Bring it back; the selected layer only if it is still there."""
        if self.active in viewer.layers:
            viewer.layers.selection.active = self.active
        _put(viewer.canvas.grid, self.grid)
        _put(viewer.dims, self._dims_now(viewer.dims))
        _put(viewer.scene.camera, self.camera)
        _put(viewer.canvas.overlays.scale_bar, self.scale_bar)
        viewer.canvas.background_color_override = self.background

    def _dims_now(self, dims: Any) -> dict[str, Any]:
        """Count axes from the end: with other layers there may be more or fewer at the front."""
        order, point = self.dims["order"], self.dims["point"]
        more = dims.ndim - len(order)
        moved = (axis + more for axis in order if axis + more >= 0)
        return self.dims | {
            "order": (*range(more), *moved),
            "point": (*dims.point[: max(more, 0)], *point[max(-more, 0) :]),
        }


def _taken(model: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(model, name) for name in names}


def _put(model: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(model, name, value)
