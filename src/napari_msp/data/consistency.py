"""Whether scans that are learned together are alike: in shells all, in all else on a platform.

A scan unlike the others of its platform is refused, or told of, by name.
"""

import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.bids import read_metadata
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.contradictions import FEWEST_DIRECTIONS, NOTABLE_B_VALUE, WEAK_B0, in_tissue
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.gradients import GradientTable, Shell, same_shell, wanted_b_values
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, Change, Choose, Doubt, Give, UserError, together
from napari_msp.formatting import counted, span

UNLIKE_DIRECTIONS = 0.25
"""Share by which numbers of directions may differ on a platform without a word (our choice)."""

LEAST_FIELD = 2 / 3
"""Share of a field of view that another on the platform may have without a word (our choice)."""

UNLIKE_NUMBERS = 0.01
"""Share by which what two sidecars state may differ: rounding (our choice)."""

STATED = {"ManufacturersModelName": "", "MagneticFieldStrength": " T", "EchoTime": " s"}
"""Fields of a sidecar that scans of one platform share, and their units."""


class UnlikeOthers(Doubt):
    """A subject's scan differs from most others of its platform."""


@dataclass(frozen=True)
class ScanHeader:
    """What a scan says of itself before its voxels are read; `stated` is its sidecar."""

    lattice: Lattice
    gradients: GradientTable
    stated: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, lattice: Lattice, gradients: GradientTable) -> "ScanHeader":
        """Read the sidecar; one that cannot be read states nothing."""
        try:
            return cls(lattice, gradients, read_metadata(path))
        except UserError:
            return cls(lattice, gradients)


@dataclass(frozen=True)
class Unlike:
    """In what a subject's scan differs from most others of its platform: in a word, and in many.

    `refused`: no network can learn from it beside them.
    """

    subject: str
    platform: str
    what: str
    problem: str
    refused: bool


Difference = tuple[str, str, str]
"""What a scan has, what others have, and what comes of it."""


def unlike(
    platform: str, scans: Mapping[str, ScanHeader], usual_among: Sequence[str] = ()
) -> Iterator[Unlike]:
    """Give what sets scans of a platform apart from what most of them have.

    Parameters
    ----------
    scans
        By subject.
    usual_among
        Whose scans say what is usual; none: everybody's. Of as many of two kinds, the first's.
    """
    known = [each for each in usual_among if each in scans] or list(scans)
    for what, (differ, refused) in _DIFFERENCES.items():
        alike: list[list[str]] = []
        for subject in known:
            for kind in alike:
                if differ(scans[subject], scans[kind[0]]) is None:
                    kind.append(subject)
                    break
            else:
                alike.append([subject])
        usual = max(alike, key=len, default=[])
        for subject in scans if usual else ():
            difference = differ(scans[subject], scans[usual[0]])
            if difference is not None and subject not in usual:
                own, others, why = difference
                verb = "has" if len(usual) == 1 else "have"
                whose = f"{counted(len(usual), 'other')} of its platform {verb}"
                problem = f"has {own} where {whose} {others}{why}"
                yield Unlike(subject, platform, what, problem, refused)


def check_alike(
    dataset: TravellingHeads,
    platforms: Sequence[str],
    parts: Mapping[str, Sequence[str]],
    *,
    learned: bool = True,
) -> tuple[str, ...]:
    """See that the scans of each platform are alike, by their headers.

    Parameters
    ----------
    parts
        Subjects by the parameter that names them. Those of the first part who have a scan say what
        is usual.
    learned
        Whether networks are to learn from them; else all of the dataset's scans say what is usual,
        everything is told, and nothing refused.

    Returns
    -------
    What was told of, in words.

    Raises
    ------
    UserError
        When voxels are not of the others' size: a network knows one size, and one whole number by
        which a target's differs.

    Warns
    -----
    UnlikeOthers
        Of what else differs: b-values by some percent, numbers of directions, b=0 images, field of
        view, and what sidecars state.
    """
    parameter = {subject: name for name, part in parts.items() for subject in part}
    known = parameter if learned else dict.fromkeys((*dataset.subjects, *parameter))
    first = next((part for part in parts.values() if part), ()) if learned else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is doubtful is told when the scans are read
        found = [
            each
            for platform in platforms
            for each in unlike(platform, _headers(dataset, platform, known, parameter), first)
            if each.subject in parameter
        ]
    places: dict[tuple[str, str, bool], list[str]] = {}
    for each in found:
        kind = each.subject, each.problem, each.refused and learned
        places.setdefault(kind, []).append(each.platform)
    refused, told = [], []
    for (subject, problem, refuse), where in places.items():
        words = f"{subject} on {', '.join(where)} {problem}"
        if refuse:
            remedy = Change(parameter[subject], "others in")
            refused.append(UserError(words, dataset.root, parameter[subject], remedy))
        else:
            told.append(f"{dataset.root.name}: {words}")
    if refused:
        raise together(refused)
    for words in told:
        warnings.warn(words, UnlikeOthers, stacklevel=3)
    return tuple(told)


def _headers(
    dataset: TravellingHeads, platform: str, subjects: Iterable[str], asked: Container[str]
) -> dict[str, ScanHeader]:
    """Read headers by subject; of those who are not `asked` for only what can be read."""
    headers = {}
    for subject in subjects:
        if dataset.has(subject, platform):
            try:
                scan = dataset.acquisition(subject, platform)
            except UserError:
                if subject in asked:
                    raise
                continue
            path = dataset.scans[subject, platform]
            headers[subject] = ScanHeader.of(path, scan.lattice, scan.given_gradients)
    return headers


def _voxel_sizes(own: ScanHeader, other: ScanHeader) -> Difference | None:
    one, two = own.lattice.canonical, other.lattice.canonical
    if one.has_voxels_of(two.voxel_sizes):
        return None
    return f"voxels of {_edges(one)}", _edges(two), ", and a network knows one size"


def _edges(lattice: Lattice) -> str:
    return f"{lattice.voxel_sizes.mean():.2f} mm" if lattice.isotropic else lattice.edges


def _b_values(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for one, two in _same_shells(own, other):
        if abs(one.b_value / two.b_value - 1) > NOTABLE_B_VALUE:
            why = f": for that alone S/S0 differs by some {in_tissue(one.b_value - two.b_value)}"
            return f"b = {one.b_value:.0f} s/mm²", f"{two.b_value:.0f}", why
    return None


def _directions(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for one, two in _same_shells(own, other):
        count, usual = len(one.volumes), len(two.volumes)
        if abs(count / usual - 1) > UNLIKE_DIRECTIONS:
            has = f"{counted(count, 'direction')} at b = {one.b_value:.0f}"
            return has, str(usual), ": their SH coefficients are not of one noise"
    return None


def _same_shells(own: ScanHeader, other: ScanHeader) -> Iterator[tuple[Shell, Shell]]:
    for one in own.gradients.shells:
        two = other.gradients.nearest_shell(one.b_value)
        if two is not None and same_shell(one.b_value, two.b_value):
            yield one, two


def _b0(own: ScanHeader, other: ScanHeader) -> Difference | None:
    one, two = own.gradients.b0_weighting, other.gradients.b0_weighting
    if abs(one - two) <= WEAK_B0:
        return None
    why = f": for that alone S/S0 differs by some {in_tissue(one - two)}"
    return f"b=0 images of b = {one:.0f} s/mm² on average", f"{two:.0f}", why


def _fields(own: ScanHeader, other: ScanHeader) -> Difference | None:
    one, two = (_extent(each.lattice.canonical) for each in (own, other))
    if (np.minimum(one, two) >= LEAST_FIELD * np.maximum(one, two)).all():
        return None
    has, usual = (" × ".join(f"{each:.0f}" for each in of) for of in (one, two))
    return f"a field of view of {has} mm", usual, ": they show unlike parts of a head"


def _extent(lattice: Lattice) -> FloatArray:
    extent: FloatArray = np.array(lattice.shape) * lattice.voxel_sizes
    return extent


def _stated(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for name, unit in STATED.items():
        one, two = own.stated.get(name), other.stated.get(name)
        if one is not None and two is not None and not _agree(one, two):
            return f"{name} {one}{unit}", f"{two}{unit}", " by their sidecars"
    return None


def _agree(one: Any, two: Any) -> bool:
    if isinstance(one, int | float) and isinstance(two, int | float):
        return abs(one - two) <= UNLIKE_NUMBERS * abs(two)
    return str(one).strip().casefold() == str(two).strip().casefold()


_DIFFERENCES: Mapping[str, tuple[Callable[[ScanHeader, ScanHeader], Difference | None], bool]] = {
    "voxels": (_voxel_sizes, True),
    "b-value": (_b_values, False),
    "directions": (_directions, False),
    "b=0": (_b0, False),
    "field of view": (_fields, False),
    "sidecar": (_stated, False),
}
"""What is compared, how, and whether no network can learn from scans that differ in it."""


# --- Shells ------------------------------------------------------------------------------------


class LeftOut(Doubt):
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
    scans = {
        (subject, platform): dataset.acquisition(subject, platform)
        for subject in subjects
        for platform in (source, *targets)
        if dataset.has(subject, platform)
    }
    if wanted is not None:
        wanted = wanted_b_values(wanted)
        for scan in scans.values():
            scan.given_shells(wanted)
        values = [common_b_value(dataset, subjects, source, each) for each in wanted]
        return tuple(sorted(values))
    inputs = [dataset.acquisition(subject, source).given_shells() for subject in subjects]
    if all(len(shells) == 1 for shells in inputs):
        common_b_value(dataset, subjects, source)  # the odd one out among the inputs is named
    known = inputs[0]
    shared = [shell for shell in known if all(_has(scan, shell) for scan in scans.values())]
    if len(known) == 1:
        shared = known  # which scan lacks it is said when it is read
    if not shared:
        problem = f"no shell of {source} is one of {', '.join(targets)} too, with directions enough"
        names = tuple(shell.name for shell in known)
        raise UserError(problem, dataset.root, "b_value", Choose("b_value", names))
    by_platform = {
        platform: [scan for (_, on), scan in scans.items() if on == platform]
        for platform in (source, *targets)
    }
    for target in targets:
        _check_predictable(dataset.root, source, target, by_platform, shared)
    left_out = {
        shell.name: shell
        for scan in scans.values()
        for shell in scan.given_gradients.shells
        if not any(same_shell(shell.b_value, other.b_value) for other in shared)
    }
    if left_out:
        lacking = [
            platform
            for platform, own in by_platform.items()
            if not all(_has(scan, shell) for scan in own for shell in left_out.values())
        ]
        said = (
            f"b = {', '.join(map(str, sorted(left_out)))} is not learned, as not every platform "
            f"has it with {FEWEST_DIRECTIONS} directions ({', '.join(lacking)})"
        )
        warnings.warn(LeftOut(said, dataset.root), stacklevel=2)
    return tuple(common_b_value(dataset, subjects, source, shell.b_value) for shell in shared)


def _check_predictable(
    root: Path,
    source: str,
    target: str,
    scans: Mapping[str, Sequence[Acquisition]],
    shared: Sequence[Shell],
) -> None:
    """Refuse a target's shell that a network could learn, were it not for the input."""
    lacked = {
        shell.name: shell
        for scan in scans[target]
        for shell in scan.given_gradients.shells
        if not shell.chained
        if _has(scan, shell) and not any(_has(each, shell) for each in scans[source])
    }
    if not lacked:
        return
    listed = ", ".join(map(str, sorted(lacked)))
    counts = [_directions_of(scan, each) for scan in scans[source] for each in lacked.values()]
    lacks = f"{source} lacks"
    if any(counts):
        lacks = f"{source} has with {span(counts)} directions, not {FEWEST_DIRECTIONS}"
    problem = f"{target} has b = {listed}, which {lacks}: it cannot be predicted"
    learned = Give("b_value", " ".join(str(shell.name) for shell in shared))
    raise UserError(problem, root, "b_value", learned)


def _has(scan: Acquisition, shell: Shell) -> bool:
    """Tell whether a scan has such a shell, with directions enough for a network."""
    return _directions_of(scan, shell) >= FEWEST_DIRECTIONS


def _directions_of(scan: Acquisition, shell: Shell) -> int:
    """Count the directions that a scan has at such a shell; 0 where it has none."""
    nearest = scan.given_gradients.nearest_shell(shell.b_value)
    there = nearest is not None and same_shell(nearest.b_value, shell.b_value)
    return len(nearest.volumes) if nearest is not None and there else 0


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
