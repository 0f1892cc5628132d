"""ComBat (Johnson 2007, Fortin 2017): each value's scanner effect, shrunk towards the others'.

The steps are neuroCombat's own. They are called one by one, because its driver accepts no reference
batch with NumPy 1.24 or newer, and cannot apply what it learned to new people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.errors import Advice, Install, UserError
from napari_msp.evaluation.baselines.base import WIDTH, CommonSpace, LearnedBaseline
from napari_msp.signal.sh_image import SHImage, with_coefficients

ROUNDING = 1e-6
"""Difference relative to the largest value that counts as none: images are float32."""

SOURCE, TARGET = 0, 1
"""Numbers of the batches."""


@dataclass(frozen=True)
class ScannerEffect:
    """Map of values on the input platform to the target's: gain · value + offset, (F,) each."""

    gain: FloatArray
    offset: FloatArray

    def remove(self, values: FloatArray) -> FloatArray:
        """Return (S, F) values of the input platform as the target would have given them."""
        return np.asarray(self.gain * values + self.offset)


def learn_scanner_effect(inputs: FloatArray, targets: FloatArray, *, paired: bool) -> ScannerEffect:
    """Learn ComBat with the target as reference batch, so that the target's values stay.

    Parameters
    ----------
    inputs, targets
        (S, F) and (T, F): F values of one kind (a measure in F regions, a coefficient at F places)
        of each person on each platform.
    paired
        Whether row k of both is the same person. Each person is then a covariate, so that unusual
        people do not distort the scanner's effect. Such a model cannot estimate spread, as the
        residuals of the two platforms are mirror images: only the mean is adjusted. Otherwise mean
        and spread are, and with few people the library overestimates the input's spread (with 5, to
        nearly twice).

    Raises
    ------
    UserError
        When neuroCombat is not installed, or there are too few people or values.
    ValueError
        When the arrays do not fit each other.
    """
    if inputs.ndim != 2 or inputs.shape[1:] != targets.shape[1:]:
        raise ValueError(f"{inputs.shape} and {targets.shape} are not the same values of people")
    if paired and len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} and {len(targets)} people are no pairs")
    library = _library()
    people = (len(inputs), len(targets))
    if min(people) < 2:
        problem = f"ComBat learns from two people or more a platform, not {min(people)}"
        raise UserError(problem, remedy=Advice("use a method that learns from one"))
    if inputs.shape[1] < 2:
        problem = "ComBat pools several values, but there is only one"
        raise UserError(problem, remedy=Advice("give two values or more"))
    values = np.concatenate([inputs, targets]).T.astype(float)
    if not np.isfinite(values).all():
        raise UserError("values are missing or infinite", remedy=Advice("leave those out"))
    differences = values[:, people[0] :] - values[:, : people[0]] if paired else np.empty((0, 0))
    if paired and np.ptp(differences, axis=1).max() <= ROUNDING * np.abs(values).max():
        # Everybody's shift is the same: nothing to shrink, and no variance to divide by.
        return ScannerEffect(np.ones(len(values)), differences.mean(axis=1))
    covariates = _contrasts(len(inputs)) if paired else np.empty((sum(people), 0))
    batches = np.repeat([SOURCE, TARGET], people)
    table = np.column_stack([batches, covariates]).astype(object)
    table[:, 0] = batches  # whole numbers, by which columns are counted
    columns = list(range(1, table.shape[1]))
    design = library.make_design_matrix(table, 0, [], columns, TARGET)
    about = {
        "n_batch": 2,
        "n_sample": sum(people),
        "sample_per_batch": np.array(people),
        "batch_info": [list(np.flatnonzero(batches == each)) for each in (SOURCE, TARGET)],
        "ref_level": TARGET,
    }
    with np.errstate(all="ignore"):  # the results are checked below
        standard, mean, variance, _ = library.standardize_across_features(values, design, about)
        found = library.fit_LS_model_and_find_priors(standard, design, about, paired)
        shift, spread = library.find_parametric_adjustments(standard, found, about, paired)
    gain = 1 / np.sqrt(np.asarray(spread[SOURCE], dtype=float))
    deviation = np.sqrt(variance[:, 0])
    offset = mean[:, 0] * (1 - gain) - gain * deviation * shift[SOURCE]
    if not (np.isfinite(gain).all() and np.isfinite(offset).all()):
        problem = f"ComBat finds no effect in {len(values)} values of {sum(people)} scans"
        remedy = Advice("leave out values that are the same in all scans, or give more people")
        raise UserError(problem, remedy=remedy)
    return ScannerEffect(gain, offset)


def _contrasts(people: int) -> FloatArray:
    """Return (2 N, N - 1) covariates of pairs that sum to 0 over people: the average is all 0."""
    each = np.vstack([np.eye(people - 1), -np.ones((1, people - 1))])
    return np.vstack([each, each])


def _library() -> Any:
    try:
        return import_module("neuroCombat.neuroCombat")
    except ImportError as error:
        problem = "needs neuroCombat, which is not installed"
        raise UserError(problem, ComBat.name, "methods", Install("combat")) from error


class ComBat(LearnedBaseline):
    """Add to each coefficient, at every place, the target's shift as ComBat estimates it.

    Places are those of `CommonSpace`, `WIDTH` apart, as heads lie differently; a person's value is
    the average around a place. Coefficients are learned one by one, each over all places, from
    which its empirical Bayes estimate borrows. The people are travelling heads: their pairs are
    modelled, and the spread is left unchanged (see `learn_scanner_effect`). Beyond the brains, the
    nearest place's shift is used.
    """

    name = "ComBat"
    summary = "Each coefficient's mean shift at each place, by empirical Bayes over places."
    gives = "image; of values by region, a table"
    least_heads = 2

    _space: CommonSpace
    _offsets: FloatArray

    @classmethod
    def hindrance(cls, heads: int) -> UserError | None:
        """Check for neuroCombat too."""
        try:
            _library()
        except UserError as error:
            return error
        return super().hindrance(heads)

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Learn the shift of each coefficient on the common lattice."""
        self._space = CommonSpace.of(inputs, spacing=WIDTH)
        inside = self._space.covered(inputs)
        source = self._values(inputs, inputs, inside)
        target = self._values(targets, inputs, inside)
        offsets = [
            learn_scanner_effect(source[..., c], target[..., c], paired=True).offset
            for c in range(source.shape[-1])
        ]
        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        field = np.zeros((*inside.shape, len(offsets)), dtype=np.float32)
        field[inside] = np.stack(offsets, axis=-1)
        self._offsets = field[tuple(nearest)]

    def _map(self, image: SHImage) -> SHImage:
        """Add each place's shift."""
        return with_coefficients(image, image.coefficients + self._space.at(image, self._offsets))

    def _values(
        self, images: Sequence[SHImage], inputs: Sequence[SHImage], inside: MaskArray
    ) -> FloatArray:
        """Return (S, P, C) averages of each person around each place inside a brain."""
        return np.stack(
            [
                self._space.local_mean(
                    [image], [own_input], _coefficients, image.coefficients[image.mask].mean(axis=0)
                )[inside]
                for image, own_input in zip(images, inputs, strict=True)
            ]
        )


def _coefficients(image: SHImage) -> FloatArray:
    return image.coefficients
