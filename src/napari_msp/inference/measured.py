"""Numbers of a prediction that cost little while it is in memory, for whoever reviews many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_msp.signal.noise import signal_to_noise

if TYPE_CHECKING:
    from napari_msp.inference.harmonize import Prediction

MEASURES_FIELD = "Measures"
"""Section of a prediction's sidecar."""


def measures(prediction: Prediction) -> dict[str, float]:
    """Give what a prediction's sidecar keeps of it; what is unknown is left out.

    SNR of one b=0 volume of the scan; volume of the prediction's mask in ml; the deviation of the
    scan's mean signal from the training subjects', in theirs; mean over the mask of the
    disagreement of order 0, in SH units, and of the expected error, in SH units². Of several shells
    the largest is taken, of the mean signal the one furthest away.
    """
    found: dict[str, float | None] = {}
    acquisition = None if prediction.source is None else prediction.source.acquisition
    if acquisition is not None:
        found["SNR"] = signal_to_noise(acquisition)
    parts = list(prediction.by_shell().values())
    image = parts[0].image
    voxel = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    found["MaskVolume"] = float(image.mask.sum()) * voxel
    shifts = [part.mean_signal for part in parts if part.mean_signal is not None]
    found["MeanSignalDeviation"] = max(shifts, key=abs, default=None)
    for name, values in (
        ("DisagreementOfOrder0", [part.order_0_disagreement for part in parts]),
        ("ExpectedError", [part.expected_error for part in parts]),
    ):
        means = [
            float(each[part.image.mask].mean(dtype=float))
            for each, part in zip(values, parts, strict=True)
            if each is not None and part.image.mask.any()
        ]
        found[name] = max(means, default=None)
    return {
        name: float(f"{value:.6g}")
        for name, value in found.items()
        if value is not None and np.isfinite(value)
    }
