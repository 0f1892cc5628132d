"""The layers of one prediction, made in a worker: slab by slab where that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.signal.maps import colour_fa
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.harmonize.truth import Errors
from napari_msp.ui.layers import LayerData, image_layers, map_layer
from napari_msp.ui.records import Record

SLAB_VOXELS = 10_000
"""Voxels of the mask whose tensors are fitted between two polls: about a third of a second."""


def prediction_layers(
    record: Record, errors: Errors | None, check: Callable[[], None]
) -> tuple[LayerData, ...]:
    """Give a prediction's layers from the bottom up; only the SH average on top is visible.

    Parameters
    ----------
    errors
        Against truth; None where there is none.
    check
        Called every third of a second; may raise to end the work.
    """
    layers = []
    if errors is not None:
        for quantity, values in (("SH MSE", errors.sh), ("MSE", errors.sh_average)):
            layers.append(
                map_layer(
                    record,
                    quantity,
                    values,
                    lattice=errors.lattice,
                    mask=errors.mask,
                    visible=False,
                )
            )
    prediction = record.prediction
    if prediction is not None:
        doubts = {
            "expected SH MSE": prediction.expected_error,
            "disagreement of order 0": prediction.order_0_disagreement,
            "disagreement": prediction.disagreement,
        }
        layers += [
            map_layer(record, quantity, doubt, visible=False)
            for quantity, doubt in doubts.items()
            if doubt is not None
        ]
    return (*layers, *image_layers(record, colour_fa_in_slabs(record.image, check)))


def colour_fa_in_slabs(image: SHImage, check: Callable[[], None]) -> FloatArray:
    """Give the colour FA of an image, with a call to `check` before each slab.

    Returns
    -------
    (X, Y, Z, 3) float32 in [0, 1]; 0 outside the mask.
    """
    colours = np.zeros((*image.mask.shape, 3), dtype=np.float32)
    for slab in _slabs(image.mask):
        check()
        part = replace(image, coefficients=image.coefficients[slab], mask=image.mask[slab])
        colours[slab] = colour_fa(part)
    return colours


def _slabs(mask: MaskArray) -> Iterator[slice]:
    """Cut the first axis so that each slab with brain has about `SLAB_VOXELS` of it."""
    before = np.cumsum(mask.sum(axis=(1, 2)))
    if before[-1] == 0:
        return
    numbers = (before - 1) // SLAB_VOXELS
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        slab = slice(int(rows[0]), int(rows[-1]) + 1)
        if mask[slab].any():
            yield slab
