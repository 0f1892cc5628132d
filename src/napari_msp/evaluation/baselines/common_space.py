"""Statistics of a place, from few subjects whose heads are not alike.

The common space is the scanner's, moved so that every brain's centre of gravity lies at the origin;
a scan that covers another part of the brain than the others is so misplaced. Heads are not turned
to each other: a rigid motion estimated between two people follows their anatomy (it turned
simulated slabs, in which no head was turned, by 5 to 19°). What remains is covered by a Gaussian
over neighbouring places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice, resample
from napari_msp.signal.sh_image import SHImage

WIDTH = 4.0
"""Standard deviation in mm of the Gaussian over places (our choice): about as far as one place of
two brains lies apart. It averages over some 200 voxels of 2.4 mm."""

SPACING = 2.0
"""Of the common lattice in mm; a field smoothed by `WIDTH` needs no finer one."""

MARGIN = 2 * WIDTH
"""How far in mm the common lattice reaches beyond the brains."""

PRIOR = 0.1
"""Weight of the whole image's statistics, as a share of one subject's at the same place (our
choice): they take over where hardly anyone has brain."""


@dataclass(frozen=True)
class CommonSpace:
    """A lattice round the centre of all brains.

    Attributes
    ----------
    lattice
        Of `SPACING`, in mm from the centre.
    """

    lattice: Lattice

    @classmethod
    def of(cls, images: Sequence[SHImage]) -> "CommonSpace":
        """Span all brains and a margin."""
        points = np.concatenate([_brain_points(i) - _centre(i) for i in images])
        low, high = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
        x, y, z = (int(n) + 1 for n in np.ceil((high - low) / SPACING))
        affine = np.diag([SPACING] * 3 + [1.0])
        affine[:3, 3] = low
        return cls(Lattice((x, y, z), affine))

    def local_mean(
        self,
        images: Sequence[SHImage],
        inputs: Sequence[SHImage],
        channels: Callable[[SHImage], FloatArray],
        prior: FloatArray,
    ) -> FloatArray:
        """Average channels over subjects and neighbouring places.

        Parameters
        ----------
        images
            Of one platform.
        inputs
            The same subjects' input images, whose brains show where their centres are.
        channels
            Gives an image's (X, Y, Z, K) channels; they count inside its mask.
        prior
            (K,) mean over whole images.

        Returns
        -------
        (X, Y, Z, K) float32 on the common lattice.
        """
        total = np.zeros((*self.lattice.shape, len(prior) + 1), dtype=np.float32)
        for image, own_input in zip(images, inputs, strict=True):
            weight = image.mask[..., None].astype(np.float32)
            weighted = np.concatenate([weight, channels(image) * weight], axis=-1)
            lattice = _moved(image.lattice, -_centre(own_input))
            total += resample(weighted, lattice, self.lattice)
        widths = [WIDTH / SPACING] * 3 + [0.0]
        total = gaussian_filter(total, widths, mode="constant", truncate=3.0)
        mean = (total[..., 1:] + PRIOR * prior) / (total[..., :1] + PRIOR)
        return np.asarray(mean, dtype=np.float32)

    def at(self, image: SHImage, field: FloatArray) -> FloatArray:
        """Give (X, Y, Z, K) values of a field at an image's voxels; 0 beyond the field."""
        return resample(field, self.lattice, _moved(image.lattice, -_centre(image)))


def _centre(image: SHImage) -> FloatArray:
    """(3,) centre of gravity of the brain in scanner mm."""
    return np.asarray(_brain_points(image).mean(axis=0))


def _moved(lattice: Lattice, shift: FloatArray) -> Lattice:
    """Move a lattice by (3,) mm."""
    affine = np.array(lattice.affine, dtype=float)
    affine[:3, 3] += shift
    return Lattice(lattice.shape, affine)


def _brain_points(image: SHImage) -> FloatArray:
    return np.asarray(np.argwhere(image.mask) @ image.affine[:3, :3].T + image.affine[:3, 3])
