"""A predicted scan, with the terms of equation (1) kept to compute it for any α. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, Doubt, Give, RunJob, UserError
from napari_msp.identity import Person
from napari_msp.image_files import ImageFile
from napari_msp.networks.equation import contribution, second_stage
from napari_msp.scan import Scan
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_slices

if TYPE_CHECKING:
    from napari_msp.model_file import Model


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Prediction(Scan):
    """A scan predicted by a model, in the stored order of the scan that it was predicted from.

    `sh` is the predicted SH image on the target's lattice. If the model knows several shells,
    `by_shell` returns a prediction of each, with companions of its own (first stage, disagreement,
    expected error, branches).

    Attributes
    ----------
    target
        Predicted platform.
    given_first_stage, given_disagreement, given_expected_error, given_branches
        Companions of the only shell: `first_stage`, `disagreement_by_order`, `expected_error` and
        `branches`.
    b0
        (X, Y, Z) the input's mean b=0 image interpolated to the same lattice, in scanner units. It
        is not harmonized: it keeps the input's TE.
    gradients
        The target's gradient table, directions in scanner axes.
    approximations
        Approximations applied to the input, in words.
    warnings
        Doubts about the input; also warned of as `DoubtfulScan` and `UnlikeTraining`.
    alpha
        α of eq. (1) with which `sh` was made; `at_alpha` returns others.
    mean_signal
        Distance of the input's mean signal from the training subjects', in their standard
        deviations.
    model, source
        Model that made it, and scan that it was made from.
    parts
        Predictions of each shell by name, if there are several.
    """

    target: str
    given_first_stage: SHImage | None = None
    given_disagreement: FloatArray | None = None
    given_expected_error: FloatArray | None = None
    given_branches: Mapping[str, SHImage] = field(default_factory=dict)
    b0: FloatArray
    gradients: GradientTable
    approximations: tuple[str, ...] = ()
    warnings: tuple[Doubt, ...] = ()
    alpha: float = 1.0
    mean_signal: float | None = None
    model: Model | None = None
    source: Scan | None = None
    parts: Mapping[int, Prediction] = field(default_factory=dict)

    @cached_property
    def _by_shell(self) -> dict[int, Self]:
        return cast("dict[int, Self]", dict(self.parts))

    @property
    def first_stage(self) -> SHImage | None:
        """ŷ¹_T of the only shell; None for a kind without stages."""
        return self.at_shell().given_first_stage

    @property
    def disagreement_by_order(self) -> FloatArray | None:
        """(X, Y, Z, 4) spread between the terms of eq. (1) in SH units, for orders 0, 2, 4 and 6.

        It is the root of the variance averaged over an order's coefficients; None without terms.
        """
        return self.at_shell().given_disagreement

    @property
    def expected_error(self) -> FloatArray | None:
        """(X, Y, Z) expected squared error of the only shell, in SH units squared.

        It is None if the model is not calibrated (see `calibrate`).
        """
        return self.at_shell().given_expected_error

    @property
    def branches(self) -> Mapping[str, SHImage]:
        """N_iT(z_i) by platform i; empty unless `harmonize` kept the stages and there are any."""
        return self.at_shell().given_branches

    @property
    def platform(self) -> str:
        """The target platform."""
        return self.target

    @property
    def file_stem(self) -> str:
        """Beginning of its files' names; includes the shell's name if it is one of several."""
        if self.model is None or self.source is None:
            return super().file_stem
        scan = self.source.path or f"{self.source.file_stem}.nii.gz"
        file = ImageFile.predicted(scan, self.target, self.model.kind)
        alone = len(self.model.card.sh.b_values) > 1 and not self.parts
        return (replace(file, shell=self.shells[0]) if alone else file).beginning

    @cached_property
    def person(self) -> Person:
        """The person whose head it is: the source's."""
        return super().person if self.source is None else self.source.person

    @property
    def siblings(self) -> Mapping[str, Path]:
        """Scans of the same person on other platforms, including the target: possible truths."""
        return {} if self.source is None else self.source.siblings

    def sidecar(self, of_whole: Sequence[str] = ()) -> dict[str, Any]:
        """Return the content of its sidecars, with the digests of model and input."""
        from napari_msp.inference.outputs import provenance

        if self.model is None or self.source is None:
            return super().sidecar(of_whole)
        return provenance(self, "target").to_sidecar()

    def save(
        self,
        folder: str | Path,
        *,
        force: bool = False,
        gradients: str | Path = "target",
        describe: bool = True,
    ) -> list[Path]:
        """Write DWI, SH image, first stage, mask and uncertainty; see `outputs.save_prediction`.

        Returns
        -------
        The files, the DWI first.
        """
        from napari_msp.inference.outputs import save_prediction

        return save_prediction(self, folder, gradients=gradients, force=force, describe=describe)

    def at_alpha(self, alpha: float) -> Self:
        """Return the prediction for another α of eq. (1), equal to the model's output at that α.

        It is mixed from the stages at once, and can be viewed, compared and saved like any other.
        It needs a prediction that was made with `keep_stages=True`.

        Parameters
        ----------
        alpha
            α: 0 gives the first stage, 1 the mean of all terms.

        Returns
        -------
        Prediction
            The prediction, without expected error: that was calibrated at the model's own α.

        Raises
        ------
        UserError
            For an α outside [0, 1], and if there are no stages or they were not kept.
        """
        try:
            alpha = float(alpha)  # NumPy's types could not be saved
        except (TypeError, ValueError):
            raise _no_alpha(repr(alpha)) from None
        if not 0.0 <= alpha <= 1.0:
            raise _no_alpha(f"{alpha:g}")
        if alpha == self.alpha:
            return self
        parts = {shell: part.at_alpha(alpha) for shell, part in self.parts.items()}
        given = {shell: part.sh for shell, part in parts.items()} or self.terms.image(alpha)
        assert self.provenance is not None
        return replace(
            self,
            given_sh=given,
            parts=parts,
            alpha=alpha,
            given_expected_error=None,
            provenance=replace(self.provenance, alpha=alpha),
        )

    @property
    def terms(self) -> Terms:
        """The terms of eq. (1) kept for its only shell.

        Raises
        ------
        UserError
            When there are several shells, the kind of model has no stages, or they were not kept.
        """
        if self.first_stage is None:
            problem = "a prediction of a single network has no stages, and so no α"
            raise UserError(problem, remedy=Advice("predict with an MSP"))
        if self.disagreement_by_order is not None and not self.branches:
            remedy = RunJob("harmonize", "predict again", "keep_stages")
            raise UserError("the stages of this prediction were not kept", remedy=remedy)
        return Terms(Maps(self.first_stage), {i: Maps(each) for i, each in self.branches.items()})

    @property
    def order_0_disagreement(self) -> FloatArray | None:
        """(X, Y, Z) disagreement of order 0, in SH units: that of the mean signal."""
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


def _no_alpha(given: str) -> UserError:
    remedy = Give("alpha", "a number from 0 to 1")
    return UserError(f"α must lie in [0, 1], not {given}", field="alpha", remedy=remedy)


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms ŷ¹_T and N_iT(z_i) of equation (1) on one lattice, from which any α follows."""

    first: Maps
    branches: Mapping[str, Maps]

    @property
    def lattice(self) -> Lattice:
        """The common lattice of all terms."""
        return self.first.image.lattice

    def image(self, alpha: float) -> SHImage:
        """Return the prediction for an α."""
        branches = [each.image.coefficients for each in self.branches.values()]
        mixed = second_stage(self.first.image.coefficients, branches, alpha)
        return replace(self.first.image, coefficients=mixed)

    def sh_average(self, alpha: float) -> FloatArray:
        """Return the (X, Y, Z) SH average for an α in SH units; fast, as it is linear."""
        branches = [each["sh_average"] for each in self.branches.values()]
        return second_stage(self.first["sh_average"], branches, alpha)

    def contribution(self, platform: str, alpha: float) -> FloatArray:
        """Return the (X, Y, Z) contribution of a branch to the SH average."""
        branch = self.branches[platform]["sh_average"]
        return contribution(self.first["sh_average"], branch, len(self.branches), alpha)

    def contributions(self, alpha: float) -> FloatArray:
        """Return the (X, Y, Z) contribution of all branches to the SH average: ŷ²_T - ŷ¹_T."""
        added: FloatArray = self.sh_average(alpha) - self.first["sh_average"]
        return added

    @cached_property
    def limit(self) -> float:
        """98th percentile of the size of the branches' contributions for α = 1, in SH units."""
        mask = self.first.image.mask
        each_one = [self.contribution(platform, 1.0)[mask] for platform in self.branches]
        limit = float(np.percentile(np.abs(each_one), 98))
        return limit if limit > 0 else 1.0
