"""Consistency of scans that are learned together: shells across all platforms, the rest within one.

A scan that differs from the others of its platform is refused or reported by name.
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
from napari_msp.errors import Advice, Change, Doubt, Give, UserError, either, together
from napari_msp.formatting import counted, listed, span

UNLIKE_DIRECTIONS = 0.25
"""Share by which numbers of directions may differ on a platform unreported (our choice)."""

LEAST_FIELD = 2 / 3
"""Smallest ratio of two fields of view on a platform that is not reported (our choice)."""

UNLIKE_NUMBERS = 0.01
"""Share by which numbers in two sidecars may differ, as rounding makes them (our choice)."""

STATED = {"ManufacturersModelName": "", "MagneticFieldStrength": " T", "EchoTime": " s"}
"""Sidecar fields that scans of one platform share, and their units."""


class UnlikeOthers(Doubt):
    """A subject's scan differs from most others of its platform."""


@dataclass(frozen=True)
class ScanHeader:
    """A scan's metadata, known before its voxels are read; `stated` is its sidecar."""

    lattice: Lattice
    gradients: GradientTable
    stated: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, lattice: Lattice, gradients: GradientTable) -> "ScanHeader":
        """Make a header with its sidecar; an unreadable sidecar counts as empty."""
        try:
            return cls(lattice, gradients, read_metadata(path))
        except UserError:
            return cls(lattice, gradients)


@dataclass(frozen=True)
class Unlike:
    """A difference of a subject's scan from most others of its platform.

    `what` names it in a word, `problem` states it in full. `refused`: no network can learn from
    this scan together with the others.
    """

    subject: str
    platform: str
    what: str
    problem: str
    refused: bool


Difference = tuple[str, str, str]
"""Three texts: what a scan has, what others have, and the consequence."""


def unlike(
    platform: str, scans: Mapping[str, ScanHeader], usual_among: Sequence[str] = ()
) -> Iterator[Unlike]:
    """Yield the differences of a platform's scans from most of them.

    Parameters
    ----------
    scans
        Headers by subject.
    usual_among
        Subjects whose scans define what is usual; empty: all.
        Where they are of two minds, all scans decide.
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
        equal = {
            kind[0]: [differ(each, scans[kind[0]]) for each in scans.values()].count(None)
            for kind in alike
        }
        usual = max(alike, key=lambda kind: (len(kind), equal[kind[0]]), default=[])
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
    """Check by their headers that the scans of each platform are alike.

    Parameters
    ----------
    parts
        Subjects by the parameter that names them. The scans of the first non-empty part define
        what is usual.
    learned
        Whether networks are to learn from them. If not, all of the dataset's scans define what is
        usual, and differences are only reported, never refused.

    Returns
    -------
    The reported differences, in words.

    Raises
    ------
    UserError
        When a scan's voxels differ in size from the others': a network knows one voxel size, and
        one whole-number ratio to the target's.

    Warns
    -----
    UnlikeOthers
        When anything else differs: b-values by some percent, number of directions, b=0 images,
        field of view, or sidecar fields.
    """
    parameter = {subject: name for name, part in parts.items() for subject in part}
    known = parameter if learned else dict.fromkeys((*dataset.subjects, *parameter))
    first = next((part for part in parts.values() if part), ()) if learned else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubts about a scan are reported when it is read
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
    """Read headers by subject; unreadable ones raise only for subjects in `asked`."""
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
    return f"voxels of {one.size_in_words}", two.size_in_words, ", and a network needs one size"


def _b_values(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for one, two in _same_shells(own, other):
        if abs(one.b_value / two.b_value - 1) > NOTABLE_B_VALUE:
            why = f": this alone changes S/S0 by about {in_tissue(one.b_value - two.b_value)}"
            return f"b = {one.b_value:.0f} s/mm²", f"{two.b_value:.0f}", why
    return None


def _directions(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for one, two in _same_shells(own, other):
        count, usual = len(one.volumes), len(two.volumes)
        if abs(count / usual - 1) > UNLIKE_DIRECTIONS:
            has = f"{counted(count, 'direction')} at b = {one.b_value:.0f}"
            return has, str(usual), ": their SH coefficients differ in noise"
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
    why = f": this alone changes S/S0 by about {in_tissue(one - two)}"
    return f"b=0 images of b = {one:.0f} s/mm² on average", f"{two:.0f}", why


def _fields(own: ScanHeader, other: ScanHeader) -> Difference | None:
    one, two = (_extent(each.lattice.canonical) for each in (own, other))
    if (np.minimum(one, two) >= LEAST_FIELD * np.maximum(one, two)).all():
        return None
    has, usual = (" × ".join(f"{each:.0f}" for each in of) for of in (one, two))
    return f"a field of view of {has} mm", usual, ": they show different parts of a head"


def _extent(lattice: Lattice) -> FloatArray:
    return np.asarray(lattice.shape * lattice.voxel_sizes)


def _stated(own: ScanHeader, other: ScanHeader) -> Difference | None:
    for name, unit in STATED.items():
        one, two = own.stated.get(name), other.stated.get(name)
        if one is not None and two is not None and not _agree(one, two):
            return f"{name} {one}{unit}", f"{two}{unit}", " according to their sidecars"
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
"""Compared properties: how each is compared, and whether scans that differ in it are refused."""


# --- Shells ------------------------------------------------------------------------------------


class LeftOut(Doubt):
    """Some shells of the dataset are not learned."""


def common_shells(
    dataset: TravellingHeads,
    subjects: Sequence[str],
    source: str,
    targets: Sequence[str],
    wanted: float | Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Return the b-values (s/mm², lowest first) to learn: of the shells that all platforms have.

    A shell is predicted from the input's shell at the same b-value. A shell that a target lacks is
    left out with a warning. One that the input lacks cannot be predicted: an error, until the
    shells to learn are named.

    Parameters
    ----------
    wanted
        b-values to learn; None: all that the platforms share.

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
    if len(known) == 1 and all(_directions_of(scan, known[0]) for scan in scans.values()):
        shared = known  # which scan has too few directions is reported when it is read
    if not shared:
        why = "; ".join(_left_out(scans, known))
        remedy = either(Change("targets", "other"), Change("subjects", "fewer"))
        problem = f"no shell of {source} is in all scans: {why}"
        raise UserError(problem, dataset.root, "targets", remedy)
    by_platform = {
        platform: [scan for (_, on), scan in scans.items() if on == platform]
        for platform in (source, *targets)
    }
    for target in targets:
        _check_predictable(dataset.root, source, target, by_platform, shared)
    left_out = (
        shell
        for scan in scans.values()
        for shell in scan.given_gradients.shells
        if not any(same_shell(shell.b_value, other.b_value) for other in shared)
    )
    for words in _left_out(scans, left_out):
        warnings.warn(LeftOut(words, dataset.root), stacklevel=2)
    return tuple(common_b_value(dataset, subjects, source, shell.b_value) for shell in shared)


def _left_out(
    scans: Mapping[tuple[str, str], Acquisition], shells: Iterable[Shell]
) -> Iterator[str]:
    """Write which shells are not learned, and why: whole platforms lack them, or single scans."""
    names: dict[str, list[str]] = {}
    for name, shell in sorted({shell.name: shell for shell in shells}.items()):
        having = [place for place, scan in scans.items() if _has(scan, shell)]
        platforms = {platform for _, platform in having}
        where = list(dict.fromkeys(each for _, each in scans if each not in platforms))
        lacking, helps = "platform", ""
        if not where:
            incomplete = [place for place in scans if place not in having]
            people = {subject for subject, _ in incomplete}
            lacking, where = "scan", [f"{subject} on {each}" for subject, each in incomplete]
            if {each for subject, each in having if subject not in people} == platforms:
                helps = f": leave out {listed(sorted(people))} to learn it"
        enough = f"has it with {FEWEST_DIRECTIONS} directions ({', '.join(where)}){helps}"
        names.setdefault(f"not every {lacking} {enough}", []).append(str(name))
    for why, those in names.items():
        yield f"b = {', '.join(those)} is left out of training, as {why}"


def _check_predictable(
    root: Path,
    source: str,
    target: str,
    scans: Mapping[str, Sequence[Acquisition]],
    shared: Sequence[Shell],
) -> None:
    """Refuse a target's shell that a network could learn if the input had it."""
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
    lacks = f"{source} does not have"
    if any(counts):
        lacks = f"{source} has with only {span(counts)} directions ({FEWEST_DIRECTIONS} needed)"
    problem = f"{target} has b = {listed}, which {lacks}: it cannot be predicted"
    learned = Give("b_value", " ".join(str(shell.name) for shell in shared))
    raise UserError(problem, root, "b_value", learned)


def _has(scan: Acquisition, shell: Shell) -> bool:
    """Return whether a scan has such a shell with enough directions for a network."""
    return _directions_of(scan, shell) >= FEWEST_DIRECTIONS


def _directions_of(scan: Acquisition, shell: Shell) -> int:
    """Count a scan's directions at such a shell; 0 without the shell."""
    nearest = scan.given_gradients.nearest_shell(shell.b_value)
    there = nearest is not None and same_shell(nearest.b_value, shell.b_value)
    return len(nearest.volumes) if nearest is not None and there else 0


def common_b_value(
    dataset: TravellingHeads, subjects: Sequence[str], source: str, shell: float | None = None
) -> float:
    """Return the input's b-value in s/mm²: the median over subjects, who must agree to 5 %.

    Parameters
    ----------
    shell
        Wanted b-value; None: that of the only shell.

    Raises
    ------
    UserError
        When scans have no shell, or several, or disagree.
    """
    values = [
        dataset.acquisition(subject, source).given_shell(shell).b_value for subject in subjects
    ]
    # A mean would move towards the outlier, and the others would be blamed.
    usual = float(np.median(values))
    for subject, value in zip(subjects, values, strict=True):
        if not same_shell(value, usual):
            problem = f"has b = {value:.0f}, but the other subjects have {usual:.0f}"
            remedy = Advice(f"remove {subject} from the dataset")
            raise UserError(problem, dataset.scans[subject, source], field="b_value", remedy=remedy)
    return usual
