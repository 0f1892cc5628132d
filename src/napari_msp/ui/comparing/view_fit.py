"""Keep the brains as large as their cells allow, until somebody moves the camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.comparing.framing import brain_extent, frame, is_upright
from napari_msp.ui.comparing.lettering import fit_legend, fit_names

BAR_WIDTH = 14
"""Of the colour bar, in canvas pixels."""


class ViewFit:
    """Camera, names and colour bar of the cells on one canvas.

    Parameters
    ----------
    viewer
        A napari viewer.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layers: Sequence[Any] = ()
        self._bar: Any = None
        self._brain: Any = None
        self._put: tuple[Any, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether the camera is no longer where it was put."""
        return bool(self._put) and self._put != self._camera()

    def take(self, layers: Sequence[Any], bar: Any, reference: SHImage) -> None:
        """Look after other cells; `bar` is the layer with the colour bar, or None."""
        self._layers, self._bar, self._brain = layers, bar, brain_extent(reference)

    def follow(self) -> None:
        """Fit to another canvas; a camera that was moved stays where it is."""
        if self.moved:
            self._letter()
        else:
            self.fit()

    def turn(self) -> None:
        """Fit to other axes."""
        rows = "up" if is_upright(self._viewer.dims.order) else "down"
        self._viewer.scene.camera.orientation2d = (rows, "right")
        self.fit()

    def fit(self) -> None:
        """Place the camera."""
        viewer = self._viewer
        if self._brain is None or viewer.dims.ndisplay != 2:
            return
        look = frame(
            self._cell(),
            self._brain,
            viewer.dims.order,
            bar=self._bar is not None,
            lines=max(len(layer.name.splitlines()) for layer in self._layers),
        )
        viewer.scene.camera.center = (0.0, *look.centre)
        viewer.scene.camera.zoom = look.zoom
        self._put = self._camera()
        if self._bar is not None:
            overlay = self._bar.colorbar
            overlay.position, overlay.font_size, overlay.box = "bottom_right", 7, False
            overlay.size = (BAR_WIDTH, look.bar)
        self._letter()

    def _letter(self) -> None:
        fit_names(self._layers, self._cell()[1])
        fit_legend(self._viewer)

    def _camera(self) -> tuple[Any, ...]:
        camera = self._viewer.scene.camera
        return tuple(camera.center), camera.zoom

    def _cell(self) -> tuple[float, float]:
        rows, columns = self._viewer.canvas.viewbox_size(self._viewer.layers)
        return float(rows), float(columns)
