"""Parts of the form of Harmonize."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.widgets.form import labelled, leave_wheel_alone

LARGEST_TILE = 512
"""Edge in input voxels."""


class NoScan(QWidget):
    """Said where no scan is loaded."""

    def __init__(self) -> None:
        super().__init__()
        words = QLabel("No diffusion-weighted scan is loaded yet.")
        words.setWordWrap(True)
        self.load = QPushButton("L&oad acquisition …")
        self.sample = QPushButton("Open &simulated heads")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(words)
        column.addWidget(self.load)
        column.addWidget(self.sample)


class Advanced(QWidget):
    """What has a good default."""

    def __init__(self) -> None:
        super().__init__()
        self.tile = QSpinBox()
        self.tile.setRange(0, LARGEST_TILE)
        self.tile.setSpecialValueText("as memory allows")
        self.tile.setSuffix(" voxels")
        leave_wheel_alone(self.tile)
        self.resample = QCheckBox("&Interpolate to the model's voxel size")
        self.resample.setToolTip(
            "<p>A model holds for one voxel size. With this, the SH image of a scan with other "
            "voxels is interpolated linearly first, which smooths it.</p>"
        )
        self.rescale_b_value = QCheckBox("Rescale to the model's &b-value")
        self.rescale_b_value.setToolTip(
            "<p>A model holds for one b-value. With this, the signal of a scan with another one is "
            "brought there by (S/S0)^(b_model/b): exact for mono-exponential decay, approximate in "
            "tissue.</p>"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 0, 0, 0)
        column.addLayout(labelled("T&ile", self.tile, "tile", beside=self.tile))
        column.addWidget(self.resample)
        column.addWidget(self.rescale_b_value)
