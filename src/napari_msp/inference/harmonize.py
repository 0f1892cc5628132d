"""From an acquisition and a model to the image that the target platform would have given."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import B_VALUE_TOLERANCE, Acquisition
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.data.lattice import SIZE_TOLERANCE
from napari_msp.device import borrowed, choose_device
from napari_msp.errors import UserError
from napari_msp.inference.predict import GridPrediction, predict_on_grid
from napari_msp.inference.whole_image import Progress
from napari_msp.model_file import Model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.grid_frame import GridImage, into_grid, out_of_grid, to_stored_order
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.standardisation import Standardisation

UNUSUAL_SHIFT = 1.0
"""Shift of the mean l = 0 channel, in the model's deviations, that is worth a warning."""


class UnlikeTraining(UserWarning):
    """The scan differs from what the model was trained on."""


@dataclass(frozen=True)
class Prediction:
    """What a model predicts from one acquisition, in the acquisition's stored order.

    Attributes
    ----------
    sh
        Predicted SH image on the target's lattice.
    first_stage
        ŷ¹_T; None for a kind without stages.
    disagreement
        (X, Y, Z) spread between the terms of eq. (1) in SH units; None where there is none.
    b0
        (X, Y, Z) the input's mean b=0 image interpolated to the same lattice, in scanner units.
        Nothing of it is harmonized: it keeps the input's TE.
    target
        Predicted platform.
    gradients
        The target's gradient table, directions in scanner axes.
    approximations
        What was done to the input beforehand, in words; empty when nothing.
    """

    sh: SHImage
    first_stage: SHImage | None
    disagreement: FloatArray | None
    b0: FloatArray
    target: str
    gradients: GradientTable
    approximations: tuple[str, ...]


def harmonize(
    model: Model,
    acquisition: Acquisition,
    target: str,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    device: str = "auto",
    tile: int | None = None,
    resample: bool = False,
    rescale_b_value: bool = False,
) -> Prediction:
    """Predict the image that the target platform would have given.

    Parameters
    ----------
    model
        See `load_model`.
    acquisition
        In any orientation; of several shells the one nearest to the model's b-value is taken.
    target
        One of `model.targets`.
    progress
        Called with tiles done and tiles in all.
    cancelled
        Polled before every convolution.
    device
        "auto", "cpu", "cuda" or "mps".
    tile
        Edge of a tile in input voxels; None: as large as memory allows. The result is the same.
    resample
        Allow the SH image to be interpolated to the model's voxel size first.
    rescale_b_value
        Allow the signal to be brought to the model's b-value by (S/S0)^(b_model/b) first: an
        approximation.

    Raises
    ------
    UserError
        When target, voxel size or b-value are not the model's; the message names the mend.
    Cancelled
        When `cancelled()` was true.

    Warns
    -----
    UnlikeTraining
        When the input's mean signal is far from the training subjects'.
    """
    network = model.single(target)
    shell, rescaling = _shell(model, acquisition, rescale_b_value)
    source = model.standardisation(model.card.input)
    fitted = fit_sh(
        acquisition,
        b_value=shell.b_value,
        order=model.card.sh.order,
        regularisation=model.card.sh.regularisation_at_30 * len(shell.volumes) / 30,
        rescale_to=model.card.sh.b_value if rescaling else None,
    )
    image, resampling = _on_model_grid(model, acquisition, into_grid(fitted), resample)
    _warn_if_unlike(image, source, acquisition.name)
    where = choose_device(device)
    with borrowed(network, where):
        result = predict_on_grid(
            network,
            image,
            source,
            model.standardisation(target),
            alpha=model.card.alpha,
            device=where,
            tile=tile,
            progress=progress,
            cancelled=cancelled,
        )
    return _stored(model, acquisition, target, fitted, result, (*rescaling, *resampling))


def _shell(model: Model, acquisition: Acquisition, rescale: bool) -> tuple[Shell, tuple[str, ...]]:
    wanted = model.card.sh.b_value
    shells = acquisition.gradients.shells
    if not shells:
        return acquisition.shell(), ()  # raises, with the reason
    shell = min(shells, key=lambda each: abs(each.b_value - wanted))
    if abs(shell.b_value - wanted) <= B_VALUE_TOLERANCE * wanted:
        return shell, ()
    if not rescale:
        raise UserError(
            f"{acquisition.name}: has b = {shell.b_value:.0f} s/mm², the model was trained at "
            f"{wanted:.0f}; bring the signal there with --b-value rescale (an approximation)"
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
            f"{acquisition.name}: voxels are {given} mm, the model's {wanted:.2f} mm isotropic; "
            "interpolate the SH image to that size with --resample"
        )
    resampled = image.resampled(image.lattice.scaled_to(wanted))
    return resampled, (f"SH image of {given} mm voxels interpolated to {wanted:.2f} mm",)


def _warn_if_unlike(image: GridImage, source: Standardisation, name: str) -> None:
    if not image.mask.any():
        raise UserError(f"{name}: no voxel of the mask is left on the model's grid; check the mask")
    mean = image.coefficients[image.mask][:, 0].mean()
    shift = float((mean - source.mean[0]) / source.deviation[0])
    if abs(shift) > UNUSUAL_SHIFT:
        warnings.warn(
            f"{name}: its mean signal lies {shift:+.1f} deviations from the training subjects'; "
            "the model may not hold for this scan (check mask, b-value and protocol)",
            UnlikeTraining,
            stacklevel=3,
        )


def _stored(
    model: Model,
    acquisition: Acquisition,
    target: str,
    fitted: SHImage,
    result: GridPrediction,
    approximations: tuple[str, ...],
) -> Prediction:
    """Bring everything back to the acquisition's stored order and scanner axes."""
    table = model.card.gradients[target].table()
    affine = acquisition.affine
    lattice = result.prediction.lattice

    def stored(image: GridImage) -> SHImage:
        coefficients, stored_affine = out_of_grid(image.coefficients, lattice, affine)
        mask, _ = to_stored_order(image.mask, lattice, affine)
        return replace(
            fitted,
            coefficients=coefficients,
            affine=stored_affine,
            mask=mask,
            b_value=float(table.b_values.mean()),
            regularisation=model.card.sh.regularisation_at_30 * len(table) / 30,
        )

    grid = acquisition.grid
    b0 = GridImage(
        grid.to_canonical(acquisition.b0)[..., None],
        grid.to_canonical(acquisition.mask),
        acquisition.lattice.canonical,
    ).resampled(lattice)
    disagreement = result.disagreement
    return Prediction(
        sh=stored(result.prediction),
        first_stage=None if result.first_stage is None else stored(result.first_stage),
        disagreement=None
        if disagreement is None
        else to_stored_order(disagreement, lattice, affine)[0],
        b0=to_stored_order(b0.coefficients[..., 0], lattice, affine)[0],
        target=target,
        gradients=table,
        approximations=approximations,
    )
