"""Size of a scan's mask, and how noisy the scan is inside it."""

import numpy as np

from napari_msp.checking.summary import BrainMeasures
from napari_msp.data.acquisition import Acquisition


def measure_brain(acquisition: Acquisition) -> BrainMeasures:
    """Measure the mask, and the noise from one b=0 volume to the next."""
    voxels = int(acquisition.mask.sum())
    volume = voxels * abs(float(np.linalg.det(acquisition.affine[:3, :3]))) / 1000
    return BrainMeasures(voxels, volume, b0_snr(acquisition))


def b0_snr(acquisition: Acquisition) -> float | None:
    """Give the mean b=0 signal in the mask over the noise of one volume.

    The noise is the root mean square, over voxels, of the standard deviation between b=0 volumes.
    Motion between them counts as noise. Good for comparing scans of one protocol, not protocols:
    interpolation and denoising lower it.

    Returns
    -------
    None when there are no two b=0 volumes that differ.
    """
    volumes = acquisition.gradients.b0_volumes
    if len(volumes) < 2:
        return None
    b0 = acquisition.voxels[..., volumes][acquisition.mask]
    noise = float(np.sqrt(b0.var(axis=1, ddof=1).mean()))
    return float(b0.mean()) / noise if noise > 0 else None
