"""Errors of a prediction against the target platform's own scan of the same head. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.line_up import line_up, same_b_value
from napari_msp.evaluation.statistics import relative_change
from napari_msp.scan import Scan
from napari_msp.signal.maps import squared_error
from napari_msp.ui.reading import sibling_of

if TYPE_CHECKING:
    from napari_msp.inference.prediction import Prediction


@dataclass(frozen=True, eq=False)
class KnownTruth:
    """The scan on the target platform, and the distance of the input scan from it.

    Attributes
    ----------
    scan
        Scan on the target platform.
    before
        Squared error of the input's SH coefficients, (X, Y, Z), and where it counts, on truth's own
        lattice; None where the input has another b-value.
    """

    scan: Scan
    before: tuple[FloatArray, MaskArray] | None


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of one prediction, on truth's own lattice.

    Attributes
    ----------
    truth
        Scan that the prediction is compared with.
    lattice, mask
        Lattice of the maps, and mask of the voxels that count.
    sh_average, sh
        Squared errors of the SH average and of all SH coefficients, (X, Y, Z), in SH units².
    sh_mse
        Mean of `sh` in the mask.
    sh_mse_before
        The same mean for the input scan itself; None where it has another b-value.
    """

    truth: Scan
    lattice: Lattice
    mask: MaskArray
    sh_average: FloatArray
    sh: FloatArray
    sh_mse: float
    sh_mse_before: float | None

    @property
    def change(self) -> float | None:
        """Percent by which the SH MSE is above (or, negative, below) that of the input."""
        before = self.sh_mse_before
        return None if before is None else relative_change(self.sh_mse, before)


def read_truth(scan: Scan, target: str, b_value: float | None) -> KnownTruth:
    """Read the sibling of a scan on another platform.

    Parameters
    ----------
    scan
        Scan that has a sibling on `target`.
    b_value
        b-value of the prediction: the shell to take from a truth that has several.

    Raises
    ------
    UserError
        If the sibling cannot be read, has no such shell, or the brains hardly overlap.
    """
    truth = sibling_of(scan, target, b_value)
    if not same_b_value(truth, scan):
        return KnownTruth(truth, None)
    alone = line_up(truth, {scan.owner: scan})
    untouched = alone.predictions[scan.owner].image
    return KnownTruth(truth, (squared_error(untouched, truth.sh, alone.mask), alone.mask))


def errors_against(truth: KnownTruth, prediction: Prediction, name: str) -> Errors:
    """Measure a prediction, resampled to truth's lattice, as `napari-msp compare` does.

    Parameters
    ----------
    name
        Name of the prediction in errors.

    Raises
    ------
    UserError
        If the brains hardly overlap.
    """
    both = line_up(truth.scan, {name: prediction})
    placed, mask = both.predictions[name], both.mask
    assert both.truth is not None
    sh = squared_error(placed.image, truth.scan.sh, mask)
    before = None
    if truth.before is not None:
        error, counted = truth.before
        before = float(error[mask & counted].mean(dtype=float))
    return Errors(
        truth=truth.scan,
        lattice=both.lattice,
        mask=mask,
        sh_average=squared_error(placed["sh_average"], both.truth["sh_average"], mask),
        sh=sh,
        sh_mse=float(sh[mask].mean(dtype=float)),
        sh_mse_before=before,
    )
