"""The training subjects as tensors on one grid."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import B_VALUE_TOLERANCE
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import SIZE_TOLERANCE, Lattice, direction_cosines, scale_between
from napari_msp.errors import UserError
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.grid_frame import GridImage, into_grid


@dataclass(frozen=True)
class Head:
    """One subject's SH images, canonical order, axes of the input's grid.

    Attributes
    ----------
    subject
        Such as "sub-01".
    input
        Image of the input platform.
    stored_affine
        (4, 4) affine of the input as its file holds it.
    targets
        Image of each target platform on the input's lattice refined by the target's scale.
    off_lattice
        Targets that had to be resampled there: training only, never for a reported metric.
    truths
        Of a held-out subject: each target's image as scanned, on its own lattice.
    """

    subject: str
    input: GridImage
    stored_affine: FloatArray
    targets: dict[str, GridImage]
    off_lattice: tuple[str, ...]
    truths: dict[str, GridImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Channels:
    """A platform's image as the samplers use it.

    Attributes
    ----------
    coefficients
        (28, X, Y, Z) float32, not standardised.
    mask
        (X, Y, Z) bool; for a target, where input and target both have brain.
    """

    coefficients: Tensor
    mask: Tensor

    @classmethod
    def of(cls, image: GridImage, mask: Tensor | None = None) -> "Channels":
        """Copy an image's coefficients, channels first."""
        coefficients = torch.from_numpy(
            np.ascontiguousarray(np.moveaxis(image.coefficients, -1, 0))
        )
        return cls(coefficients, torch.from_numpy(image.mask) if mask is None else mask)


def load_head(
    dataset: TravellingHeads,
    subject: str,
    source: str,
    targets: Sequence[str],
    b_value: float,
    held_out: bool = False,
) -> Head:
    """Fit one subject's scans and bring them to one grid.

    Parameters
    ----------
    dataset
        Where the scans are.
    subject
        Which one.
    source, targets
        Input and target platforms.
    b_value
        Shell to use in s/mm², to within 5 %.
    held_out
        Keep the targets' images as scanned too.

    Raises
    ------
    UserError
        When a scan is missing or unreadable, or its voxels are no whole fraction of the input's.
    """
    sh = fit_sh(dataset.acquisition(subject, source), b_value=b_value)
    axes = direction_cosines(sh.grid.affine)
    image = into_grid(sh)
    _check_isotropic(image.lattice, f"{dataset.scans[subject, source]}")
    refined: dict[str, GridImage] = {}
    truths: dict[str, GridImage] = {}
    off_lattice = []
    for target in targets:
        truth = into_grid(fit_sh(dataset.acquisition(subject, target), b_value=b_value), axes)
        lattice = image.lattice.refined(
            scale_between(
                image.lattice.voxel_sizes,
                truth.lattice.voxel_sizes,
                f"{dataset.scans[subject, target]}",
            )
        )
        if held_out:
            truths[target] = truth
        if not truth.lattice.matches(lattice):
            truth = truth.resampled(lattice)
            off_lattice.append(target)
        inside = image.resampled(lattice).mask & truth.mask
        if not inside.any():
            raise UserError(
                f"{dataset.scans[subject, target]}: does not overlap with the scan on {source}; "
                "register the subject's scans to each other first"
            )
        refined[target] = GridImage(truth.coefficients, inside, lattice)
    return Head(subject, image, sh.affine, refined, tuple(off_lattice), truths)


def common_b_value(
    dataset: TravellingHeads, subjects: Sequence[str], source: str, shell: float | None = None
) -> float:
    """Give the input's b-value in s/mm²: the median over subjects, which must agree to 5 %.

    Parameters
    ----------
    dataset, subjects, source
        Whose scans.
    shell
        Wanted b-value; None: the only one there is.

    Raises
    ------
    UserError
        When scans have no shell, or several, or disagree.
    """
    values = [dataset.acquisition(subject, source).shell(shell).b_value for subject in subjects]
    # A mean would be drawn to the odd one out, and blame the others.
    usual = float(np.median(values))
    for subject, value in zip(subjects, values, strict=True):
        if abs(value - usual) > B_VALUE_TOLERANCE * usual:
            raise UserError(
                f"{dataset.scans[subject, source]}: has b = {value:.0f}, the other subjects "
                f"{usual:.0f}; take {subject} out of the dataset"
            )
    return usual


def _check_isotropic(lattice: Lattice, what: str) -> None:
    sizes = lattice.voxel_sizes
    if np.ptp(sizes) > SIZE_TOLERANCE * sizes.mean():
        raise UserError(
            f"{what}: voxels are {' × '.join(f'{size:.2f}' for size in sizes)} mm; "
            "resample the input platform to isotropic voxels before training"
        )
