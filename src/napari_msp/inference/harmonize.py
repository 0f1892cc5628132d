"""From an acquisition and a model to the image that the target platform would have given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.device import choose_device, copied_to
from napari_msp.errors import Cancelled
from napari_msp.inference.doubt import expected_error
from napari_msp.inference.predict import GridPrediction, predict_on_grid
from napari_msp.inference.prepared_input import PreparedInput, prepare_input
from napari_msp.inference.whole_image import Progress
from napari_msp.model_file import Model
from napari_msp.signal.grid_frame import GridImage, out_of_grid, to_stored_order
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_slices


@dataclass(frozen=True)
class Prediction:
    """What a model predicts from one acquisition, in the acquisition's stored order.

    Attributes
    ----------
    sh
        Predicted SH image on the target's lattice.
    first_stage
        ŷ¹_T; None for a kind without stages.
    disagreement_by_order
        (X, Y, Z, 4) spread between the terms of eq. (1) in SH units, for the orders 0, 2, 4, 6: the
        root of the variance averaged over an order's coefficients; None where there are no terms.
    expected_error
        (X, Y, Z) squared error to expect, in SH units squared; None where the model is not
        calibrated (see `calibrate`).
    b0
        (X, Y, Z) the input's mean b=0 image interpolated to the same lattice, in scanner units.
        Nothing of it is harmonized: it keeps the input's TE.
    target
        Predicted platform.
    gradients
        The target's gradient table, directions in scanner axes.
    approximations
        What was done to the input beforehand, in words; empty when nothing.
    warnings
        What is doubtful about the input, in words; warned of as `UnlikeTraining` too.
    alpha
        α of eq. (1) that `sh` was made with.
    branches
        N_iT(z_i) by platform i; empty unless `harmonize` kept the stages and there are branches.
    """

    sh: SHImage
    first_stage: SHImage | None
    disagreement_by_order: FloatArray | None
    expected_error: FloatArray | None
    b0: FloatArray
    target: str
    gradients: GradientTable
    approximations: tuple[str, ...]
    warnings: tuple[str, ...]
    alpha: float
    branches: dict[str, SHImage]

    @property
    def order_0_disagreement(self) -> FloatArray | None:
        """(X, Y, Z) disagreement of order 0: large where tissue is unlike what was trained on."""
        by_order = self.disagreement_by_order
        return None if by_order is None else by_order[..., 0]

    @cached_property
    def disagreement(self) -> FloatArray | None:
        """(X, Y, Z) the same over all coefficients; large where the terms contradict each other."""
        if self.disagreement_by_order is None:
            return None
        orders = order_slices(self.sh.order).values()
        total = np.zeros(self.sh.mask.shape, dtype=np.float32)
        for number, part in enumerate(orders):
            share = (part.stop - part.start) / self.sh.coefficients.shape[-1]
            total += np.float32(share) * np.square(self.disagreement_by_order[..., number])
        return np.sqrt(total)


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
    keep_stages: bool = False,
) -> Prediction:
    """Predict the image that the target platform would have given.

    For several targets, `prepare_input` once and `predict_target` for each do the same.

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
        Polled before every convolution, and between the images that they give.
    device
        "auto", "cpu", "cuda" or "mps".
    tile
        Edge of a tile in input voxels; None: as large as memory allows. The result is the same.
    resample
        Allow the SH image to be interpolated to the model's voxel size first.
    rescale_b_value
        Allow the signal to be brought to the model's b-value by (S/S0)^(b_model/b) first: an
        approximation.
    keep_stages
        Keep the branches of an MSP, each as large as the prediction, so that `inference.stages`
        can give the prediction of any α.

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
    model.single(target)  # an unknown target is an error before anything is computed
    prepared = prepare_input(model, acquisition, resample=resample, rescale_b_value=rescale_b_value)
    return predict_target(
        model,
        prepared,
        target,
        progress=progress,
        cancelled=cancelled,
        device=device,
        tile=tile,
        keep_stages=keep_stages,
    )


def predict_target(
    model: Model,
    prepared: PreparedInput,
    target: str,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    device: str = "auto",
    tile: int | None = None,
    keep_stages: bool = False,
) -> Prediction:
    """Predict one target from an input that `prepare_input` made for the same model.

    Parameters
    ----------
    model, target, progress, cancelled, device, tile, keep_stages
        As for `harmonize`.
    prepared
        The input.
    """
    where = choose_device(device)
    with copied_to(model.single(target), where) as network:
        result = predict_on_grid(
            network,
            prepared.image,
            model.standardisation(model.card.input),
            model.standardisation(target),
            alpha=model.card.alpha,
            device=where,
            tile=tile,
            progress=progress,
            cancelled=cancelled,
            keep_stages=keep_stages,
        )
    return _stored(model, prepared, target, result, cancelled or (lambda: False))


def _stored(
    model: Model,
    prepared: PreparedInput,
    target: str,
    result: GridPrediction,
    cancelled: Callable[[], bool],
) -> Prediction:
    """Bring everything back to the acquisition's stored order and scanner axes."""
    table = model.card.gradients[target].table()
    affine = prepared.acquisition.affine
    lattice = result.prediction.lattice
    mask, stored_affine = to_stored_order(result.prediction.mask, lattice, affine)

    def check() -> None:
        if cancelled():  # a large image takes its time
            raise Cancelled

    def stored(image: GridImage) -> SHImage:
        check()
        return SHImage(
            out_of_grid(image.coefficients, lattice, affine)[0],
            stored_affine,
            mask,
            b_value=float(table.b_values.mean()),
            regularisation=model.card.sh.regularisation(len(table)),
            rescaled_from=prepared.rescaled_from,
        )

    b0_on_grid = _b0(prepared.acquisition).resampled(lattice)
    b0 = to_stored_order(b0_on_grid.coefficients[..., 0], lattice, affine)[0]
    first, branches = result.first_stage, result.branches
    disagreement = result.disagreement
    if disagreement is not None:
        disagreement = to_stored_order(disagreement, lattice, affine)[0]
    sh, error_model = stored(result.prediction), model.error_model(target)
    return Prediction(
        sh=sh,
        first_stage=None if first is None else stored(first),
        disagreement_by_order=disagreement,
        expected_error=None
        if error_model is None
        else expected_error(error_model, prepared, sh, b0, check),
        b0=b0,
        target=target,
        gradients=table,
        approximations=prepared.approximations,
        warnings=prepared.warnings,
        alpha=model.card.alpha,
        # Each is let go as soon as its stored form is there: they are large.
        branches={platform: stored(branches.pop(platform)) for platform in list(branches)},
    )


def _b0(acquisition: Acquisition) -> GridImage:
    """Give the mean b=0 image in canonical order."""
    grid = acquisition.grid
    return GridImage(
        grid.to_canonical(acquisition.b0)[..., None],
        grid.to_canonical(acquisition.mask),
        acquisition.lattice.canonical,
    )
