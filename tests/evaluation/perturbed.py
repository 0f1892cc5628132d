"""Predictions that are off by noise."""

from dataclasses import replace

import numpy as np

from napari_msp.signal.sh_image import SHImage


def perturbed(image: SHImage, amount: float = 0.05, seed: int = 0) -> SHImage:
    """Add normal noise of a deviation to an SH image, in its mask."""
    noise = np.random.default_rng(seed).normal(0, amount, image.coefficients.shape)
    noise *= image.mask[..., None]
    return replace(image, coefficients=(image.coefficients + noise).astype(np.float32))
