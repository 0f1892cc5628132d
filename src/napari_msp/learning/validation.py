"""Whole predictions of subjects outside the training: their error, and a preview image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from napari_msp.inference.stages import predict_on_grid
from napari_msp.learning.heads import Head, Study
from napari_msp.networks.msp import Network, SharedMSP, by_target
from napari_msp.provenance import Provenance
from napari_msp.signal.channels import (
    GridImage,
    measure_standardisation,
    out_of_grid,
    to_stored_order,
)
from napari_msp.signal.sh_image import SHImage, write_sh
from napari_msp.signal.spherical_harmonics import default_regularisation


@dataclass(frozen=True, eq=False)
class Validation:
    """A network's result on subjects it has not learned from: SH MSE, and the first one's image.

    The image is on the network's own lattice.
    """

    error: float
    first: GridImage


def validate(
    study: Study,
    network: Network | SharedMSP,
    device: torch.device,
    heads: Callable[[str], Sequence[Head]] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Validation]:
    """Predict whole heads, and measure the error on each target of a network.

    The error is measured on truth's own lattice: if that is not the network's, the prediction is
    interpolated. Interpolating truth would smooth its noise and flatter the network. First stages
    that targets share are run once per head.

    Parameters
    ----------
    network
        Network, which is left in eval mode.
    heads
        Returns the heads that were scanned on a target; targets without any are left out. None: the
        held-out heads.
    """
    network.eval()
    wanted = {target: (heads or study.judged)(target) for target in by_target(network)}
    first: dict[str, GridImage] = {}
    errors = {target: SquaredError() for target, those in wanted.items() if those}
    everybody = {id(head): head for those in wanted.values() for head in those}
    for head in everybody.values():
        results = predict_on_grid(
            network,
            head.input,
            study.standardisation[study.settings.input],
            {target: study.standardisation[target] for target in wanted},
            device=device,
            cancelled=cancelled,
        )
        for target in errors:
            if any(head is each for each in wanted[target]):
                errors[target].add(results[target].prediction, head.truths[target])
                first.setdefault(target, results[target].prediction)
    return {target: Validation(each.mean, first[target]) for target, each in errors.items()}


def alignment_error(study: Study, target: str, heads: Sequence[Head] | None = None) -> float:
    """Return the error of statistical alignment on these heads, measured as in `validate`.

    None: on the held-out heads that were scanned on the target.
    """
    judges = study.judged(target) if heads is None else heads
    pairs = [(head.input, head.truths[target]) for head in judges]
    return error_of(statistical_alignment(study, target), pairs)


def statistical_alignment(study: Study, target: str) -> Callable[[GridImage], GridImage]:
    """Return a function that predicts a target by its statistics alone: the baseline to beat.

    Each coefficient of the input is moved to the mean and deviation that it has on the target
    platform over the training subjects who were scanned on it.
    """
    # Of the same subjects, or their anatomy would count as a difference between the platforms.
    inputs = (head.input for head in study.heads if target in head.targets)
    source = measure_standardisation(inputs, per_order=False)
    images = (head.targets[target] for head in study.heads if target in head.targets)
    wanted = measure_standardisation(images, per_order=False)

    def predicted(image: GridImage) -> GridImage:
        matched = np.where(image.mask[..., None], wanted.undo(source.apply(image)), 0)
        return replace(image, coefficients=matched)

    return predicted


def write_preview(folder: Path, study: Study, target: str, prediction: GridImage) -> Path:
    """Write the prediction of the first subject in `shown`, replacing the previous one.

    It equals the output of `harmonize` for that subject's lowest shell: in the input's stored
    order, coefficients in scanner axes, on the lattice of `prediction`, which is in grid axes.

    Returns
    -------
    `<folder>/<subject>_<target>.nii.gz`.
    """
    head = study.shown(target)[0]
    lattice = prediction.lattice
    lowest = prediction.by_shell()[0].coefficients
    coefficients, affine = out_of_grid(lowest, lattice, head.stored_affine)
    mask, _ = to_stored_order(prediction.mask, lattice, head.stored_affine)
    shell = study.gradients[target].table().shells[0]
    image = SHImage(
        coefficients,
        affine,
        mask,
        b_value=shell.b_value,
        regularisation=default_regularisation(len(shell.volumes)),
        b0_weighting=study.gradients[target].b0_weighting,
    )
    path = folder / f"{head.subject}_{target}.nii.gz"
    made = Provenance(target=target, input=study.settings.input, stage="learning")
    write_sh(path, image, made.to_sidecar())
    return path


def error_of(
    predicted: Callable[[GridImage], GridImage], pairs: Iterable[tuple[GridImage, GridImage]]
) -> float:
    """Return the SH MSE of what is predicted from each input, beside its truth."""
    errors = SquaredError()
    for image, truth in pairs:
        errors.add(predicted(image), truth)
    return errors.mean


class SquaredError:
    """Mean over voxels and coefficients of several subjects."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, result: GridImage, truth: GridImage) -> None:
        """Take in a subject, where both images have brain."""
        if not result.lattice.matches(truth.lattice):
            result = result.resampled(truth.lattice)
        inside = result.mask & truth.mask
        difference = result.coefficients[inside] - truth.coefficients[inside]
        self._sum += float(np.square(difference, dtype=float).sum())
        self._count += difference.size

    @property
    def mean(self) -> float:
        """Mean over everything that was added."""
        return self._sum / self._count
