"""A scan made ready for a model: fitted, checked, on the model's grid."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from napari_msp.data.acquisition import B_VALUE_TOLERANCE, Acquisition
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import SIZE_TOLERANCE
from napari_msp.errors import Advice, Resample, RescaleBValue, UserError
from napari_msp.model_file import Model
from napari_msp.options import Options, OptionSettings
from napari_msp.scan import Scan, as_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.grid_frame import GridImage, into_grid
from napari_msp.signal.standardisation import Standardisation

UNUSUAL_SHIFT = 1.0
"""Shift of the mean l = 0 channel, in the model's deviations, that is worth a warning."""


class UnlikeTraining(UserWarning):
    """The scan differs from what the model was trained on."""


@dataclass(frozen=True, eq=False)
class PreparedInput:
    """What a model reads, the same for all of its targets.

    Attributes
    ----------
    scan
        Where it comes from.
    image
        SH image on the model's grid.
    rescaled_from
        The measured b-value, where the signal was brought to the model's.
    approximations
        What was done to the input, in words; empty when nothing.
    warnings
        What is doubtful about it, in words; warned of as `UnlikeTraining` too.
    """

    scan: Scan
    image: GridImage
    rescaled_from: float | None
    approximations: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def acquisition(self) -> Acquisition:
        """The scan's acquisition."""
        assert self.scan.acquisition is not None
        return self.scan.acquisition


def prepare_input(
    model: Model,
    scan: Scan | Acquisition | str | Path,
    options: Options | None = None,
    **settings: Unpack[OptionSettings],
) -> PreparedInput:
    """Fit a scan as a model wants it, and check that the model holds for it.

    Parameters
    ----------
    model, scan, options, settings
        As for `harmonize`.

    Raises
    ------
    UserError
        When voxel size or b-value are not the model's; its remedy says what can be allowed.

    Warns
    -----
    UnlikeTraining
        When the input's mean signal is far from the training subjects'.
    """
    options = replace(options or Options(), **settings)
    scan = as_scan(scan)
    acquisition = scan.acquisition
    if acquisition is None:
        raise UserError(
            "is an SH image, without the b=0 image that a prediction needs",
            scan.path or scan.owner,
            "scan",
            Advice("give the DWI that it was fitted to"),
        )
    shell, rescaling = _shell(model, acquisition, options.rescale_b_value)
    sh = model.card.sh
    fitted = fit_sh(
        acquisition,
        b_value=shell.b_value,
        order=sh.order,
        regularisation=sh.regularisation(len(shell.volumes)),
        rescale_to=sh.b_value if rescaling else None,
    )
    image, resampling = _on_model_grid(model, acquisition, into_grid(fitted), options.resample)
    doubts = _doubts(image, model.standardisation(model.card.input), acquisition.name)
    for doubt in doubts:
        warnings.warn(doubt, UnlikeTraining, stacklevel=3)
    return PreparedInput(scan, image, fitted.rescaled_from, (*rescaling, *resampling), doubts)


def _shell(model: Model, acquisition: Acquisition, rescale: bool) -> tuple[Shell, tuple[str, ...]]:
    wanted = model.card.sh.b_value
    shell = acquisition.gradients.nearest_shell(wanted)
    if shell is None:
        return acquisition.shell(), ()  # raises, with the reason
    if abs(shell.b_value - wanted) <= B_VALUE_TOLERANCE * wanted:
        return shell, ()
    if not rescale:
        raise UserError(
            f"has b = {shell.b_value:.0f} s/mm², the model was trained at {wanted:.0f}",
            acquisition.name,
            "rescale_b_value",
            RescaleBValue(measured=shell.b_value, wanted=wanted),
        )
    return shell, (
        f"signal of b = {shell.b_value:.0f} brought to {wanted:.0f} s/mm² by "
        f"(S/S0)^({wanted:.0f}/{shell.b_value:.0f}), exact for mono-exponential decay only",
    )


def _on_model_grid(
    model: Model, acquisition: Acquisition, image: GridImage, resample: bool
) -> tuple[GridImage, tuple[str, ...]]:
    wanted, sizes = model.card.voxel_size, image.lattice.voxel_sizes
    if np.abs(sizes / wanted - 1).max() <= SIZE_TOLERANCE:
        return image, ()
    given = " × ".join(f"{size:.2f}" for size in sizes)
    if not resample:
        raise UserError(
            f"voxels are {given} mm, the model's {wanted:.2f} mm isotropic",
            acquisition.name,
            "resample",
            Resample(sizes=tuple(float(size) for size in sizes), wanted=wanted),
        )
    resampled = image.resampled(image.lattice.scaled_to(wanted))
    return resampled, (f"SH image of {given} mm voxels interpolated to {wanted:.2f} mm",)


def _doubts(image: GridImage, source: Standardisation, name: str) -> tuple[str, ...]:
    if not image.mask.any():
        raise UserError(
            "no voxel of the mask is left on the model's grid",
            name,
            "mask",
            Advice("check the mask"),
        )
    mean = image.coefficients[image.mask][:, 0].mean()
    shift = float((mean - source.mean[0]) / source.deviation[0])
    if abs(shift) <= UNUSUAL_SHIFT:
        return ()
    return (
        f"{name}: its mean signal lies {shift:+.1f} deviations from the training subjects'; "
        "the model may not hold for this scan (check mask, b-value and protocol)",
    )
