"""SH fits of an acquisition, signals from SH images, and the order that a scheme supports.

Counting directions is not enough: near-duplicate directions leave the higher orders to the
regularisation.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, overload

import numpy as np

from napari_msp.arrays import FloatArray, InMask, for_each_block
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.contradictions import DIRECTIONS_DIFFER
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.errors import Advice, Doubt, Give, UserError
from napari_msp.formatting import counted
from napari_msp.signal.sh_image import AnyScan, SHImage, usable_sh
from napari_msp.signal.spherical_harmonics import (
    ORDER,
    coefficient_count,
    default_regularisation,
    design_matrix,
    fitting_matrix,
    order_slices,
)

CONDITION_LIMIT = 100.0
"""Condition number of the design matrix above which an order is not supported (our choice)."""


FLAT = 0.005
"""Mean squared sine of the angle to a line or plane up to which directions lie in it (our choice:
4°)."""


OWN_VECTORS = "the scan's own b-vectors"
"""What to give if all directions of a table are the same."""


class IllConditionedScheme(Doubt):
    """The gradient scheme hardly determines the higher SH orders."""


class LowerOrder(Doubt):
    """A shell has too few directions for the order that networks need."""


class ShellLeftOut(Doubt):
    """A shell cannot be used, unlike others of the scan."""


def condition_number(directions: FloatArray, order: int) -> float:
    """Return the condition number of the unregularised design matrix of (N, 3) directions."""
    return float(np.linalg.cond(design_matrix(directions, order)))


def supported_order(directions: FloatArray, highest: int = 12) -> int:
    """Return the highest even order that a scheme determines without regularisation.

    That is: no more coefficients than directions, and a condition number of at most
    `CONDITION_LIMIT`.
    """
    basis, supported = design_matrix(directions, highest), 0
    for order, part in order_slices(highest).items():
        if part.stop > len(directions) or np.linalg.cond(basis[:, : part.stop]) > CONDITION_LIMIT:
            break
        supported = order
    return supported


def check_scheme(directions: FloatArray, order: int, what: str) -> None:
    """Refuse too few directions; warn when the scheme is ill-conditioned at `order`.

    Parameters
    ----------
    directions
        (N, 3) unit vectors.
    order
        Wanted even SH order.
    what
        Name of the acquisition in messages.

    Raises
    ------
    UserError
        When there are fewer directions than coefficients (the message names the highest possible
        order), or directions do not even determine order 2.

    Warns
    -----
    IllConditionedScheme
        When the scheme supports only a lower order, which the message names.
    """
    count, needed = len(directions), coefficient_count(order)
    if count < needed:
        possible = max(low for low in range(0, order, 2) if coefficient_count(low) <= count)
        problem = (
            f"{counted(count, 'direction')} cannot determine the {needed} coefficients of SH order "
            f"{order}; the highest possible order is {possible}"
        )
        advice = Advice(f"give a shell of {needed} directions or more")
        raise UserError(problem, what, "b_value", advice)
    doubt = scheme_doubt(directions, order)
    if doubt and order > 0 and supported_order(directions) == 0:
        why, better = poor_directions(directions, order)
        problem = f"its gradient directions {why}, so they determine no SH order above 0"
        table_alone = better == OWN_VECTORS
        remedy = Give("bvec", better) if table_alone else Advice(f"give {better}")
        raise UserError(problem, what, "bvec", remedy)
    if doubt:
        warnings.warn(IllConditionedScheme(doubt, what), stacklevel=3)


def poor_directions(directions: FloatArray, order: int = 2) -> tuple[str, str]:
    """Return why (N, 3) directions are too poor for SH order 2, after "they", and what to give.

    `order` is the one that is finally wanted.
    """
    distinct: list[FloatArray] = []
    for each in directions:
        if all(abs(each @ other) < np.cos(np.radians(DIRECTIONS_DIFFER)) for other in distinct):
            distinct.append(each)
    # For a single direction the largest is 1, for a plane the smallest 0.
    smallest, _, largest = np.linalg.eigvalsh(directions.T @ directions / len(directions))
    needed = coefficient_count(order)
    if largest > 1 - FLAT:
        return "hardly differ", OWN_VECTORS
    spread = f"a scan of {needed} directions or more that are spread over the sphere"
    if len(distinct) < coefficient_count(2):
        return f"are only {len(distinct)}, each acquired several times", spread
    if smallest < FLAT:
        return "lie in one plane", spread
    return "are too similar", spread


def scheme_doubt(directions: FloatArray, order: int) -> str:
    """Return a text if (N, 3) directions hardly determine an order; else empty."""
    condition = condition_number(directions, order)
    if condition <= CONDITION_LIMIT:
        return ""
    return (
        f"the gradient scheme is ill-conditioned at SH order {order} (condition number "
        f"{condition:.3g}); it supports order {supported_order(directions)}, the higher terms come "
        "mostly from the regularisation"
    )


def order_for(directions: FloatArray) -> int:
    """Return the order to fit a shell with: 6, or less if it has fewer directions.

    Six directions are the minimum: `check_scheme` refuses fewer.
    """
    if len(directions) >= coefficient_count(ORDER):
        return ORDER
    return max(2, supported_order(directions, ORDER - 2))


def unfit_for_sh(table: GradientTable) -> dict[int, str]:
    """Return, by shell name, why SH cannot be fitted to some shells of a table."""
    found: dict[int, str] = {}
    for shell in table.shells:
        directions = table.directions[shell.volumes]
        if shell.chained:
            found[shell.name] = shell.chained
        elif len(directions) < coefficient_count(2):
            needed = f"{coefficient_count(2)} for SH order 2"
            count = counted(len(directions), "direction")
            found[shell.name] = f"b = {shell.name} has {count}, but maps need {needed}"
        elif supported_order(directions, 2) == 0:
            why, _ = poor_directions(directions)
            found[shell.name] = f"the directions of b = {shell.name} {why}"
    return found


def shells_for_maps(
    acquisition: Acquisition, b_values: float | Sequence[float] | None = None
) -> list[Shell]:
    """Choose shells to fit SH to, lowest b-value first.

    Parameters
    ----------
    acquisition
        The scan.
    b_values
        Wanted b-values in s/mm²; None: all to which SH can be fitted.

    Raises
    ------
    UserError
        When a wanted shell does not exist, or there is no shell.

    Warns
    -----
    ShellLeftOut
        About each shell that is left out, with the reason.
    """
    unfit = unfit_for_sh(acquisition.gradients) if b_values is None else {}
    usable = [shell for shell in acquisition.gradients.shells if shell.name not in unfit]
    if not unfit or not usable:
        return acquisition.shells(b_values)
    for why in unfit.values():
        warnings.warn(ShellLeftOut(f"{why}: it is left out", acquisition.name), stacklevel=3)
    return usable


def check_given_shells(
    acquisition: Acquisition, b_values: float | Sequence[float] | None = None
) -> None:
    """Raise the same errors as `shells_for_maps`, by the table as given: no voxel is read."""
    table = acquisition.given_gradients
    if b_values is not None or len(unfit_for_sh(table)) == len(table.shells):
        acquisition.given_shells(b_values)


def normalise(weighted: FloatArray, b0: FloatArray) -> FloatArray:
    """Divide a signal by the b=0 signal; the shapes must broadcast.

    Values are kept in [0, 1], as diffusion can only weaken a signal (our choice, after linear
    RISH harmonization); they are 0 where b=0 has no signal.
    """
    ratio = np.divide(weighted, b0, out=np.zeros_like(weighted), where=b0 > 0)
    return np.clip(ratio, 0.0, 1.0, out=ratio)


@overload
def fit_sh(
    acquisition: Acquisition | AnyScan,
    *,
    b_value: Sequence[float],
    order: int | None = None,
    regularisation: float | None = None,
    rescale_to: None = None,
) -> dict[int, SHImage]: ...


@overload
def fit_sh(
    acquisition: Acquisition | AnyScan,
    *,
    b_value: float,
    order: int | None = None,
    regularisation: float | None = None,
    rescale_to: float | None = None,
) -> SHImage: ...


@overload
def fit_sh(
    acquisition: Acquisition | AnyScan,
    *,
    b_value: None = None,
    order: int | None = None,
    regularisation: float | None = None,
    rescale_to: float | None = None,
) -> SHImage | Any: ...


def fit_sh(
    acquisition: Acquisition | AnyScan,
    *,
    b_value: float | Sequence[float] | None = None,
    order: int | None = None,
    regularisation: float | None = None,
    rescale_to: float | None = None,
) -> SHImage | dict[int, SHImage]:
    """Fit SH to the b0-normalised signal of each shell.

    Parameters
    ----------
    acquisition
        Scan in any orientation; the fit is made in scanner axes. All shells are divided by the same
        b=0.
    b_value
        b-values in s/mm²: a number selects one shell, several numbers give a mapping; None: all
        shells to which SH can be fitted.
    order
        Even SH order; None: 6, or the highest below it that a shell's directions support.
    regularisation
        Laplace-Beltrami weight λ; None: `default_regularisation`.
    rescale_to
        b-value in s/mm² to which the signal is rescaled first by (S/S0)^(rescale_to/b): exact for
        mono-exponential decay, approximate in tissue.

    Returns
    -------
    SHImage, or dict of int to SHImage
        float32 coefficients in the acquisition's stored order; 0 outside the mask. If there are
        several shells, or several were asked for: images by shell name, lowest b-value first. A
        shell's name is its mean b-value, rounded to 50 s/mm².

    Raises
    ------
    UserError
        When a shell has fewer directions than coefficients, its b-values form no shell, or there is
        no b=0 signal in the mask.
    ValueError
        When a setting is out of its range.

    Warns
    -----
    DoubtfulScan, EstimatedMask
        When there are doubts about the scan that were not told yet.
    IllConditionedScheme
        When the scheme does not determine the higher orders.
    LowerOrder
        When a shell's directions support less than order 6.
    ShellLeftOut
        When a shell's directions do not even support order 2, or its b-values form no shell.
    """
    if not isinstance(acquisition, Acquisition):
        of: Acquisition | None = getattr(acquisition, "acquisition", None)
        if of is None:
            what = f"{type(acquisition).__name__} is no acquisition"
            raise TypeError(f"{what}: give load_acquisition(path); a scan of SH has its .sh")
        b_value = acquisition.shell if b_value is None else b_value
        acquisition = of
    if order is not None and (order < 0 or order % 2):
        raise ValueError(f"the SH order of a signal is even, such as 6, not {order}")
    if regularisation is not None and not 0 <= regularisation < np.inf:
        raise ValueError(f"regularisation must be 0 or more, not {regularisation}")
    choose = acquisition.shells if order is not None else partial(shells_for_maps, acquisition)
    shells = choose(b_value)
    acquisition.tell()
    one = len(shells) == 1 if b_value is None else np.ndim(b_value) == 0
    images = {
        shell.name: _fit_shell(acquisition, shell, order, regularisation, rescale_to)
        for shell in shells
    }
    return images[shells[0].name] if one else images


MOST_RESCALED = 10.0
"""Largest ratio of b-values, up or down, over which a signal is rescaled (our choice)."""


def _fit_shell(
    acquisition: Acquisition,
    shell: Shell,
    order: int | None,
    regularisation: float | None,
    rescale_to: float | None,
) -> SHImage:
    ratio = 1.0 if rescale_to is None else rescale_to / shell.b_value
    if not 1 / MOST_RESCALED <= ratio <= MOST_RESCALED:
        problem = f"b = {shell.b_value:.0f} s/mm² cannot be rescaled to {rescale_to:g}"
        raise ValueError(f"{problem}: give a b-value in s/mm² near the shell's own")
    directions = acquisition.directions(shell)
    wanted = order_for(directions) if order is None else order
    check_scheme(directions, wanted, acquisition.name)
    if order is None and wanted < ORDER:
        said = (
            f"b = {shell.name} has {len(directions)} directions, so its SH have order {wanted}: "
            "enough for maps, not for networks"
        )
        warnings.warn(LowerOrder(said, acquisition.name), stacklevel=3)
    order = wanted
    if regularisation is None:
        regularisation = default_regularisation(len(directions))
    mask = acquisition.mask
    fitting = fitting_matrix(directions, order, regularisation)
    coefficients = np.zeros((*mask.shape, len(fitting)), dtype=np.float32)
    flat = coefficients.reshape(-1, len(fitting))
    inside = InMask(acquisition.voxels, mask)
    b0 = acquisition.b0.reshape(-1)[inside.places]

    def fit(block: slice) -> None:
        signal = normalise(inside.take(block)[shell.volumes], b0[block])
        if rescale_to is not None:
            signal = signal**ratio
        flat[inside.places[block]] = (fitting @ signal).T

    for_each_block(fit, len(inside))
    return SHImage(
        coefficients,
        acquisition.affine,
        mask,
        b_value=shell.b_value if rescale_to is None else rescale_to,
        regularisation=regularisation,
        rescaled_from=None if rescale_to is None else shell.b_value,
        # (S/S0)^k is the ratio of k·b to k·b₀: rescaling also rescales the weighting of b=0.
        b0_weighting=acquisition.gradients.b0_weighting * ratio,
    )


NO_LONGER_UNIT = 0.02
"""Deviation from 1 that rounding may leave in a direction's length (our choice)."""


def evaluate_sh(image: SHImage, directions: FloatArray) -> FloatArray:
    """Evaluate an SH image: the normalised signal along (N, 3) scanner directions.

    Returns
    -------
    (X, Y, Z, N) float32; 0 outside the mask.

    Raises
    ------
    UserError
        When coefficients in the mask are not finite or too large.
    ValueError
        When directions are not (N, 3) unit vectors.
    """
    given = np.asarray(directions, dtype=float)
    if given.ndim != 2 or given.shape[1] != 3:
        raise ValueError(f"directions must be (N, 3), one a row, not {given.shape}")
    if not np.allclose(np.linalg.norm(given, axis=1), 1, atol=NO_LONGER_UNIT):
        raise ValueError("directions must be unit vectors, and not all of these are")
    image = usable_sh(image, "SH image")
    matrix = design_matrix(given, image.order)
    signal = np.zeros((*image.mask.shape, len(directions)), dtype=np.float32)
    signal[image.mask] = image.coefficients[image.mask] @ matrix.T
    return signal
