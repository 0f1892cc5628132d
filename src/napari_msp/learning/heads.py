"""The data of a run: subjects split, loaded onto one grid and measured."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from napari_msp.alignment.registration import warn_if_beside
from napari_msp.arrays import FloatArray
from napari_msp.bids import is_simulated
from napari_msp.data.consistency import check_alike, common_shells
from napari_msp.data.cubes import MAKE_CUBES
from napari_msp.data.dataset import TravellingHeads, further_platforms, input_platform, why_alone
from napari_msp.data.lattice import Lattice, direction_cosines, scale_between
from napari_msp.data.masks import common_mask
from napari_msp.errors import Change, Choose, Doubt, RunJob, UserError, either, stop_if
from napari_msp.formatting import counted
from napari_msp.identity import CopiedScan, Person, copies, known_among
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_card import Gradients
from napari_msp.signal.channels import (
    GridImage,
    Standardisation,
    into_grid,
    measure_standardisation,
)
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER

HEADS_MEASURED = 4
"""Largest number of training heads, the first ones, predicted whole before the first step."""


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """One subject's SH images, in canonical order and the axes of the input's grid.

    Attributes
    ----------
    stored_affine
        (4, 4) affine of the input as in its file.
    targets
        Image of each target platform that the subject was scanned on, on the input's lattice
        refined by the target's scale.
    off_lattice
        Targets that had to be resampled there: for training only, never for a reported metric.
    truths
        For a held-out subject: each target's image as scanned, on its own lattice.
    """

    subject: str
    input: GridImage
    stored_affine: FloatArray
    targets: dict[str, GridImage]
    off_lattice: tuple[str, ...]
    truths: dict[str, GridImage] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """The data and settings of a run.

    Attributes
    ----------
    scanned
        Training subjects whose scans on a platform are used, by platform.
    heads, held_out
        Training heads, and heads for the final measurement only.
    validation
        Heads outside the training that decide when the run ends and which weights are kept.
    people
        Identities of the training and validation subjects: none of them shows how the model
        performs on a new person.
    voxel_size
        Voxel size of the input in mm.
    b_values
        b-values of the shells, in s/mm².
    standardisation
        Standardisation of each platform, measured on training subjects.
    gradients
        Each target's table, with all shells, from the first training subject who was scanned on it.
    simulated
        Whether all training subjects are known to be simulated.
    b0_weighting
        Mean b-value of the input's b=0 images in s/mm², over training subjects.
    scans
        Digest of each scan's files, by the scan's name: a run continues only with the same ones.
    """

    settings: TrainingSettings
    scanned: dict[str, list[str]]
    heads: list[Head]
    held_out: list[Head]
    people: list[Person]
    scales: dict[str, int]
    voxel_size: float
    b_values: tuple[float, ...]
    standardisation: dict[str, Standardisation]
    gradients: dict[str, Gradients]
    validation: list[Head] = field(default_factory=list)
    simulated: bool = False
    b0_weighting: float | None = None
    scans: dict[str, str] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """All training subjects."""
        return sorted(set().union(*self.scanned.values()))

    @property
    def taught(self) -> dict[str, list[str]]:
        """Training subjects of each target."""
        return {target: self.scanned[target] for target in self.scales}

    def paired(self, target: str) -> list[Head]:
        """Return the training heads that were scanned on a target, too."""
        return [head for head in self.heads if target in head.targets]

    def judged(self, target: str) -> list[Head]:
        """Return the held-out heads that have a scan on a target for comparison."""
        return [head for head in self.held_out if target in head.truths]

    def choosing(self, target: str) -> list[Head]:
        """Return the validation heads that have a scan on a target for comparison."""
        return [head for head in self.validation if target in head.truths]

    @property
    def interpolated(self) -> list[str]:
        """Names of targets whose scans are interpolated for training."""
        off = {
            target: [head.subject for head in self.paired(target) if target in head.off_lattice]
            for target in self.scales
        }
        return [
            f"on {target} {len(those)} of {counted(len(self.paired(target)), 'scan')} "
            f"({', '.join(those)}) {'is' if len(those) == 1 else 'are'} not on the input's "
            "voxel grid: interpolated for training, which smooths"
            for target, those in off.items()
            if those
        ]

    def shown(self, target: str) -> list[Head]:
        """Return heads whose predictions can be watched during a run, held-out ones first."""
        return self.judged(target) or self.choosing(target)


class IncompleteHeads(Doubt):
    """A subject lacks a platform, so less is learned from it than from the others."""


def prepare_study(
    dataset: TravellingHeads,
    settings: TrainingSettings,
    per_order: bool | None = None,
    paired: bool = True,
    cancelled: Callable[[], bool] = lambda: False,
) -> Study:
    """Load heads, split by subject, and measure the standardisation.

    Parameters
    ----------
    per_order
        Way to standardise channels, see `measure_standardisation`; None: the preset's.
    paired
        Whether to learn from heads, which must have been scanned on the input and a target, and to
        measure platforms on them. If not, each platform is measured on everybody who was scanned
        on it, within their own mask, and only heads that a start is measured on are loaded.
    cancelled
        Polled before every scan that a platform is measured on without pairs.

    Raises
    ------
    UserError
        When a platform or subject is unknown, no subject is left to train on (for a target), or
        scans do not fit.
    Cancelled
        When `cancelled()` was true.

    Warns
    -----
    IncompleteHeads
        About subjects that lack a platform. Their other scans are used: a subject without a target
        is learned from for the others; one without the input, or with only the input, is left out.
    """
    settings = with_platforms(dataset, settings)
    source, targets = settings.input, settings.targets
    platforms = (source, *targets)
    subjects = _usable(dataset, settings) if paired else settings.subjects or dataset.subjects
    kept_out = {*settings.held_out, *settings.validation}
    scanned = {
        platform: [s for s in subjects if s not in kept_out and dataset.has(s, platform)]
        for platform in platforms
    }
    training = [each for each in subjects if any(each in those for those in scanned.values())]
    _check_taught(dataset, settings, scanned)
    check_apart(dataset, settings, training)
    parts = {
        "subjects": training,
        "validation": [each for each in subjects if each in settings.validation],
        "held_out": [each for each in subjects if each in settings.held_out],
    }
    check_alike(dataset, platforms, parts)
    # Scans of others than the input's subjects must have these shells, too; fitting checks that.
    b_values = common_shells(dataset, scanned[source], source, targets, settings.b_value)
    both = {target: [s for s in scanned[target] if s in scanned[source]] for target in targets}
    few = {subject for those in both.values() for subject in those[:HEADS_MEASURED]}
    learned = [each for each in training if paired or each in few]
    heads = {
        subject: load_head(dataset, subject, source, targets, b_values, subject in kept_out)
        for subject in [*learned, *parts["validation"], *parts["held_out"]]
    }
    _tell_copies(dataset, training, platforms)

    # A target that some heads lack is measured on the others, the input on all, so they also differ
    # by those heads' anatomy. Measured on five simulated heads of which one lacks the target: at
    # most 1.2 % of the SH MSE that a network starts from and unlearns, so nothing is done about it.
    def images(platform: str) -> Iterator[GridImage]:
        for subject in scanned[platform]:
            if paired:
                head = heads[subject]
                yield head.input if platform == source else head.targets[platform]
                continue
            stop_if(cancelled)
            scan = dataset.acquisition(subject, platform)
            image = into_grid(fit_sh(scan, b_value=b_values, order=ORDER))
            check_isotropic(image.lattice, dataset.scans[subject, platform])
            yield image

    sizes = {each: next(images(each)).lattice.voxel_sizes for each in platforms}
    per_order = recipe_for(settings).per_order if per_order is None else per_order
    known = {*training, *settings.validation}
    return Study(
        settings=settings,
        scanned=scanned,
        heads=[heads[each] for each in learned],
        people=[dataset.person(each) for each in subjects if each in known],
        held_out=[heads[each] for each in parts["held_out"]],
        validation=[heads[each] for each in parts["validation"]],
        scales={each: scale_between(sizes[source], sizes[each], each) for each in targets},
        voxel_size=float(sizes[source].mean()),
        b_values=b_values,
        standardisation={
            each: measure_standardisation(images(each), per_order) for each in platforms
        },
        gradients={
            each: gradients_of(dataset, scanned[each][0], each, b_values) for each in targets
        },
        simulated=all(
            is_simulated(path) for (who, _), path in dataset.scans.items() if who in training
        ),
        b0_weighting=mean_b0_weighting(dataset, scanned[source], source),
        scans=dataset.files_read(heads, platforms),
    )


def load_head(
    dataset: TravellingHeads,
    subject: str,
    source: str,
    targets: Sequence[str],
    b_values: Sequence[float],
    held_out: bool = False,
) -> Head:
    """Fit SH to one subject's scans and bring them to one grid.

    Parameters
    ----------
    source, targets
        Input and target platforms; targets on which the subject was not scanned are left out.
    b_values
        b-values of the shells to use in s/mm², each to within 5 %.
    held_out
        Whether to keep the targets' images as scanned, too.

    Raises
    ------
    UserError
        When the input is missing, a scan is unreadable or lacks a shell or directions, or its voxel
        size is no whole fraction of the input's.

    Warns
    -----
    NotRegistered
        When a scan on a target is not aligned to the input.
    """

    def fitted(platform: str) -> dict[int, SHImage]:
        return fit_sh(dataset.acquisition(subject, platform), b_value=b_values, order=ORDER)

    shells = fitted(source)
    stored = next(iter(shells.values()))
    axes = direction_cosines(stored.lattice.canonical.affine)
    image = into_grid(shells)
    check_isotropic(image.lattice, dataset.scans[subject, source])
    refined: dict[str, GridImage] = {}
    truths: dict[str, GridImage] = {}
    off_lattice = []
    for target in (each for each in targets if dataset.has(subject, each)):
        truth = into_grid(fitted(target), axes)
        path, own = dataset.scans[subject, target], truth.lattice
        scale = scale_between(image.lattice.voxel_sizes, own.voxel_sizes, str(path))
        lattice, learned = image.lattice.refined(scale), truth
        if held_out:
            truths[target] = truth
        if not own.matches(lattice):
            learned = truth.resampled(lattice)
            off_lattice.append(target)
        known, other = image.resampled_mask(lattice), f"the one on {source}"
        inside = common_mask(
            known, lattice, learned.mask, own, whose=path, other=other, field="dataset"
        )
        warn_if_beside(image, truth, f"{subject} on {target}", source)
        refined[target] = replace(learned, mask=inside, lattice=lattice)
    return Head(subject, image, stored.affine, refined, tuple(off_lattice), truths)


def _usable(dataset: TravellingHeads, settings: TrainingSettings) -> list[str]:
    """Return the subjects that can be used for training or judging; warn of missing scans."""
    usable, lacking = [], []
    for subject in settings.subjects or dataset.subjects:
        missing = [each for each in settings.targets if not dataset.has(subject, each)]
        if not dataset.has(subject, settings.input):
            lacking.append(f"{subject} is left out (no scan on {settings.input})")
        elif len(missing) == len(settings.targets):
            lacking.append(f"{subject} is left out (no scan on {' or '.join(missing)})")
        else:
            usable.append(subject)
            if missing:
                lacking.append(f"{subject} has no scan on {' and '.join(missing)}")
    if lacking:
        said = f"not every subject was scanned on every platform: {', '.join(lacking)}"
        warnings.warn(IncompleteHeads(said, dataset.root), stacklevel=3)
    return usable


def _check_taught(
    dataset: TravellingHeads, settings: TrainingSettings, scanned: Mapping[str, Sequence[str]]
) -> None:
    """Refuse a platform on which no training subject was scanned."""
    if not any(scanned.values()):
        field = "held_out" if settings.held_out else "validation"
        remedy = Change(field, "fewer")
        raise UserError("no subject is left to train on", dataset.root, field, remedy)
    for platform, subjects in scanned.items():
        if not subjects:
            problem = f"no training subject has a scan on {platform}"
            field = "input" if platform == settings.input else "targets"
            others = tuple(each for each in scanned if scanned[each] and each != settings.input)
            helps = either(Choose(field, others), Change("held_out", "fewer"))
            raise UserError(problem, dataset.root, field, helps)


def _tell_copies(
    dataset: TravellingHeads, training: Sequence[str], platforms: Sequence[str]
) -> None:
    """Warn of scans that are learned from twice."""
    for copy, subject in copies({each: dataset.person(each) for each in training}):
        problem = f"{copy} has the same scan as {subject}: one head is used twice"
        warnings.warn(CopiedScan(problem, dataset.root), stacklevel=3)
    for subject, platform, other in dataset.copied(training, platforms):
        problem = f"{subject} has the same scan on {platform} as on {other}: a copy is learned"
        warnings.warn(CopiedScan(problem, dataset.root), stacklevel=3)


def check_isotropic(lattice: Lattice, scan: Path) -> None:
    """Refuse voxels that are not cubes."""
    if not lattice.isotropic:
        problem = f"its voxels are {lattice.edges}, but a network needs cubic voxels"
        raise UserError(problem, scan, field="input", remedy=MAKE_CUBES)


def with_platforms(dataset: TravellingHeads, settings: TrainingSettings) -> TrainingSettings:
    """Fill in an unset input and unset targets; refuse platforms that the dataset lacks."""
    source = input_platform(dataset, settings.input, settings.targets)
    targets = settings.targets or tuple(p for p in dataset.platforms if p != source)
    settings = settings.model_copy(update={"input": source, "targets": targets})
    _check_names(dataset, settings)
    return settings


def _check_names(dataset: TravellingHeads, settings: TrainingSettings) -> None:
    """Refuse names that the dataset does not have."""
    others = [each for each in dataset.platforms if each != settings.input]
    _check_known(dataset, "platform", "targets", settings.targets, others)
    _check_known(dataset, "target", "first_stage", settings.first_stage, settings.targets)
    _check_known(
        dataset, "target", "start_from_target", settings.start_from_target, settings.targets
    )
    _check_known(dataset, "subject", "subjects", settings.subjects, dataset.subjects)
    subjects = settings.subjects or dataset.subjects
    for name in ("held_out", "validation"):
        _check_judges(dataset, settings, name, subjects)
    if not settings.targets:
        further = further_platforms(dataset, RunJob("import", "add further platforms"))
        remedy = either(Change("dataset", "another"), further)
        problem = f"has only platform {settings.input}{why_alone(dataset)}"
        raise UserError(
            f"{problem}: there is no target to predict", dataset.root, "dataset", remedy
        )


def check_apart(
    dataset: TravellingHeads, settings: TrainingSettings, training: Sequence[str]
) -> None:
    """Refuse a person who is on two sides of the split under two labels."""
    sides = {"": training, "validation": settings.validation, "held_out": settings.held_out}
    seen: list[tuple[Person, str]] = []
    for name, subjects in sides.items():
        people = [dataset.person(subject) for subject in subjects]
        for person in people:
            for other, what in seen:
                if known_among(person, [other]):
                    known = f"the same person as {other.label}, {what}"
                    problem = f"{person.label} is {known}: they share a scan"
                    remedy = Change(name, "another subject in")
                    raise UserError(problem, dataset.root, name, remedy)
        what = {"": "a training subject", "validation": "a validation subject"}.get(name, "")
        seen += [(person, what) for person in people]


def _check_judges(
    dataset: TravellingHeads, settings: TrainingSettings, name: str, subjects: Sequence[str]
) -> None:
    """Refuse subjects on whom no prediction can be judged."""
    named: tuple[str, ...] = getattr(settings, name)
    _check_known(dataset, "subject", name, named, subjects)
    for subject in named:
        if not dataset.has(subject, settings.input):
            without = f"{subject} has no scan on {settings.input}, so it cannot be predicted"
        elif not any(dataset.has(subject, target) for target in settings.targets):
            without = (
                f"{subject} has no scan on any target, so predictions cannot be measured on it"
            )
        else:
            continue
        raise UserError(without, dataset.root, name, Change(name, "another subject in"))


def _check_known(
    dataset: TravellingHeads, what: str, field: str, names: Iterable[str], known: Sequence[str]
) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"has no {what} {name}", dataset.root, field, Choose(field, tuple(known))
            )


def mean_b0_weighting(dataset: TravellingHeads, subjects: Sequence[str], platform: str) -> float:
    """Return the mean b-value of scans' b=0 images in s/mm²; no voxel is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubts are reported when the heads are loaded
        scans = [dataset.acquisition(subject, platform) for subject in subjects]
    return float(np.mean([scan.given_gradients.b0_weighting for scan in scans]))


def gradients_of(
    dataset: TravellingHeads, subject: str, target: str, shells: Sequence[float]
) -> Gradients:
    """Return a target's gradient table for these shells, from a subject's scan."""
    acquisition = dataset.acquisition(subject, target)
    volumes = np.concatenate([shell.volumes for shell in acquisition.shells(shells)])
    rows = acquisition.gradients.directions[volumes]
    directions = [(float(x), float(y), float(z)) for x, y, z in rows]
    b_values = acquisition.gradients.b_values[volumes].tolist()
    b0 = acquisition.gradients.b0_weighting
    return Gradients(b_values=b_values, directions=directions, b0_weighting=b0)
