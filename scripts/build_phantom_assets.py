"""Reduce the ICBM 152 template to the small tissue maps that the phantom is made from.

Run from the repository root, with nilearn installed (nothing else needs nilearn):

    python scripts/build_phantom_assets.py
"""

from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
from scipy import ndimage

ASSET = Path("src/napari_msp/data/phantom/assets/icbm152_tissue.npz")
SPACING = 1.5  # mm; 2 mm loses the thin sulci that a 1.2 mm scan ought to show
LEVELS = 63  # 6 bits: finer steps are lost in the template's own uncertainty and cost size
SHARPENING = 1.6  # exponent; the average of 152 heads is softer than any one head
CSF_GAIN = 1.6  # averaging fills sulci with grey matter; this opens them again


def main() -> None:
    folder = Path(nilearn.datasets.__file__).parent / "data"
    t1, grey, white = (
        nib.load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
        for name in ("t1", "gm", "wm")
    )
    brain = np.asarray(t1.dataobj) > 0
    maps = tissue_fractions(brain, *(np.asarray(i.dataobj) / 255 for i in (grey, white)))

    # Right half (x >= 0) on the new spacing; the mid-sagittal plane is a plane of voxels.
    low = np.array([0.0, -111.0, -72.0])
    count = (51, 127, 105)
    points = low[:, None, None, None] + SPACING * np.indices(count)
    voxels = points - t1.affine[:3, 3].reshape(3, 1, 1, 1)
    reduced = [
        ndimage.map_coordinates(ndimage.gaussian_filter(m, 0.4), voxels, order=1, cval=0)
        for m in maps
    ]
    stored = np.round(np.clip(reduced, 0, 1) * LEVELS).astype(np.uint8)
    ASSET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        ASSET, fractions=stored, origin=low, spacing=np.array(SPACING), levels=np.array(LEVELS)
    )
    print(f"{ASSET}: {ASSET.stat().st_size / 1000:.0f} kB, {stored.shape}")


def tissue_fractions(
    brain: np.ndarray, grey: np.ndarray, white: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give grey matter, white matter and CSF, which sum to 1 inside the brain."""
    brain = ndimage.binary_fill_holes(brain | (grey + white > 0.5))
    fluid = np.clip(1 - grey - white, 0, 1) * brain

    # Between white matter and ventricle the classifier met mixed voxels and called them grey.
    ventricles = ndimage.binary_opening(fluid > 0.7, iterations=2)
    rim = ndimage.binary_dilation(ventricles, iterations=5)
    thick = ndimage.binary_dilation(
        ndimage.binary_opening(grey > 0.45, iterations=3), iterations=2
    )  # caudate and thalamus: grey matter that really touches a ventricle
    false_grey = np.where(rim & ~thick, grey, 0.0)
    grey, white, fluid = grey - false_grey, white + false_grey / 2, fluid + false_grey / 2

    maps = np.stack([grey, white, CSF_GAIN * fluid]) ** SHARPENING
    maps *= brain / np.maximum(maps.sum(axis=0), 1e-6)
    return maps[0], maps[1], maps[2]


if __name__ == "__main__":
    main()
