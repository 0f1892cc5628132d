"""Shells that are learned together: those that the scans of all platforms have."""

import warnings
from collections.abc import Sequence

import numpy as np

from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.gradients import Shell, same_shell, wanted_b_values
from napari_msp.data.table_doubts import FEWEST_DIRECTIONS
from napari_msp.errors import Advice, Choose, Give, UserError


class LeftOut(UserWarning):
    """Shells that are there and are not learned."""


def common_shells(
    dataset: TravellingHeads,
    subjects: Sequence[str],
    source: str,
    targets: Sequence[str],
    wanted: float | Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Give the b-values to learn in s/mm², lowest first: of shells that all platforms have.

    A shell is predicted from the input's shell at the same b-value. What a target lacks is not
    learned, and said; what the input lacks cannot be predicted, and is an error until the shells
    are named.

    Parameters
    ----------
    wanted
        b-values; None: all that the platforms share.

    Raises
    ------
    UserError
        When a scan lacks a shell that was asked for, platforms share none, or a target has one that
        the input lacks.

    Warns
    -----
    LeftOut
        When platforms have shells that they do not share, or that have too few directions.
    """
    scans = [
        dataset.acquisition(subject, platform)
        for subject in subjects
        for platform in (source, *targets)
        if dataset.has(subject, platform)
    ]
    if wanted is not None:
        wanted = wanted_b_values(wanted)
        for scan in scans:
            scan.given_shells(wanted)
        values = [common_b_value(dataset, subjects, source, each) for each in wanted]
        return tuple(sorted(values))
    inputs = [dataset.acquisition(subject, source).given_shells() for subject in subjects]
    if all(len(shells) == 1 for shells in inputs):
        common_b_value(dataset, subjects, source)  # the odd one out among the inputs is named
    known = inputs[0]
    shared = [shell for shell in known if all(_has(scan, shell) for scan in scans)]
    if len(known) == 1:
        shared = known  # which scan lacks it is said when it is read
    if not shared:
        problem = f"no shell of {source} is one of {', '.join(targets)} too, with directions enough"
        names = tuple(shell.name for shell in known)
        raise UserError(problem, dataset.root, "b_value", Choose("b_value", names))
    _check_predictable(dataset, subjects, source, targets, shared)
    left_out = {
        shell.name: shell
        for scan in scans
        for shell in scan.given_gradients.shells
        if not any(same_shell(shell.b_value, other.b_value) for other in shared)
    }
    if left_out:
        lacking = [
            platform
            for platform in (source, *targets)
            if any(
                not _has(dataset.acquisition(subject, platform), shell)
                for subject in subjects
                if dataset.has(subject, platform)
                for shell in left_out.values()
            )
        ]
        warnings.warn(
            f"{dataset.root}: b = {', '.join(map(str, sorted(left_out)))} is not learned, as not "
            f"every platform has it with {FEWEST_DIRECTIONS} directions "
            f"({', '.join(lacking)})",
            LeftOut,
            stacklevel=2,
        )
    return tuple(common_b_value(dataset, subjects, source, shell.b_value) for shell in shared)


def _check_predictable(
    dataset: TravellingHeads,
    subjects: Sequence[str],
    source: str,
    targets: Sequence[str],
    shared: Sequence[Shell],
) -> None:
    """Refuse a target's shell that a network could learn, were it not for the input."""
    inputs = [dataset.acquisition(subject, source) for subject in subjects]
    for target in targets:
        scans = [
            dataset.acquisition(each, target) for each in subjects if dataset.has(each, target)
        ]
        lacked = {
            shell.name
            for scan in scans
            for shell in scan.given_gradients.shells
            if not shell.chained
            if _has(scan, shell) and not any(_has(each, shell) for each in inputs)
        }
        if lacked:
            listed = ", ".join(map(str, sorted(lacked)))
            problem = f"{target} has b = {listed}, which {source} lacks: it cannot be predicted"
            learned = Give("b_value", " ".join(str(shell.name) for shell in shared))
            raise UserError(problem, dataset.root, "b_value", learned)


def _has(scan: Acquisition, shell: Shell) -> bool:
    """Tell whether a scan has such a shell, with directions enough for a network."""
    nearest = scan.given_gradients.nearest_shell(shell.b_value)
    return (
        nearest is not None
        and same_shell(nearest.b_value, shell.b_value)
        and len(nearest.volumes) >= FEWEST_DIRECTIONS
    )


def common_b_value(
    dataset: TravellingHeads, subjects: Sequence[str], source: str, shell: float | None = None
) -> float:
    """Give the input's b-value in s/mm²: the median over subjects, which must agree to 5 %.

    Parameters
    ----------
    shell
        Wanted b-value; None: the only one there is.

    Raises
    ------
    UserError
        When scans have no shell, or several, or disagree.
    """
    values = [
        dataset.acquisition(subject, source).given_shell(shell).b_value for subject in subjects
    ]
    # A mean would be drawn to the odd one out, and blame the others.
    usual = float(np.median(values))
    for subject, value in zip(subjects, values, strict=True):
        if not same_shell(value, usual):
            problem = f"has b = {value:.0f}, the other subjects {usual:.0f}"
            remedy = Advice(f"take {subject} out of the dataset")
            raise UserError(problem, dataset.scans[subject, source], field="b_value", remedy=remedy)
    return usual
