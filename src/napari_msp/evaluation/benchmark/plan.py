"""What a benchmark does: who is predicted by what, after how much training.

What was not asked for is filled up, and what cannot be done is refused before hours of training.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_msp.data.acquisition import B_VALUE_TOLERANCE
from napari_msp.data.dataset import TravellingHeads, input_platform, open_dataset
from napari_msp.data.gradients import shell_name
from napari_msp.data.lattice import SIZE_TOLERANCE
from napari_msp.errors import Advice, Change, Choose, Give, UserError, either, first_reason
from napari_msp.evaluation.benchmark.methods import MSP, UNHARMONIZED, all_methods, chosen_methods
from napari_msp.evaluation.benchmark.settings import Budget, EvaluationSettings, Subjects
from napari_msp.evaluation.held_out import Learned, learned_from, none_left
from napari_msp.files import read_json, sha256, write_json
from napari_msp.identity import Person, same_person
from napari_msp.learning.heads import common_b_value, common_shells
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import ShellLeftOut

SEEDS = 1000
"""Training seeds are below it; the members of a mean of networks have theirs plus multiples."""

TEST_SHARE, VALIDATION_SHARE = 0.5, 1 / 6
"""Parts of the subjects for test and validation where nobody is named (our choice)."""


@dataclass(frozen=True)
class Round:
    """One dataset with one training seed.

    Attributes
    ----------
    dataset
        BIDS folder.
    seed
        Of the training.
    """

    dataset: Path
    seed: int

    @property
    def name(self) -> str:
        """Such as "heads-0 seed 1"."""
        return f"{self.dataset.name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the folders of what belongs to it."""
        return f"{self.dataset.name}-seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes
    ----------
    datasets
        BIDS folders; their names distinguish them.
    source
        Platform that is predicted from.
    targets
        Platforms that are predicted.
    subjects
        The same names in every dataset.
    methods
        Rows to fill, see `all_methods`.
    models
        Model files that are rows too.
    seeds
        Of the training. The first dataset is run with each, the others with the first.
    budget
        Of every network.
    b_values
        Shells that are learned and measured, in s/mm², lowest first.
    b0_threshold
        Largest b-value that counts as b=0, in s/mm²; None: the usual one.
    run
        Which scan, where one was repeated.
    """

    datasets: tuple[Path, ...]
    source: str
    targets: tuple[str, ...]
    subjects: Subjects
    methods: tuple[str, ...]
    models: tuple[Path, ...]
    seeds: tuple[int, ...]
    budget: Budget
    b_values: tuple[float, ...]
    b0_threshold: float | None = None
    run: int | None = None

    @property
    def b_value(self) -> float | tuple[float, ...]:
        """The only shell's b-value, or those of several, as a setting."""
        return self.b_values if len(self.b_values) > 1 else self.b_values[0]

    @property
    def shells(self) -> dict[int | None, float]:
        """b-values by what results call the shells: their names where there are several."""
        if len(self.b_values) == 1:
            return {None: self.b_values[0]}
        return {shell_name(each): each for each in self.b_values}

    @property
    def rounds(self) -> tuple[Round, ...]:
        """A cross: every seed on the first dataset, then the first seed on the others."""
        first, *others = self.datasets
        return (
            *(Round(first, seed) for seed in self.seeds),
            *(Round(dataset, self.seeds[0]) for dataset in others),
        )

    @property
    def tuning_targets(self) -> tuple[str, ...]:
        """Platforms on which learning rates are tried: the first two, to save time."""
        return self.targets[:2]

    @property
    def tested(self) -> str | None:
        """The row that is tested against the others: chosen before anything is measured."""
        if MSP in self.methods:
            return MSP
        return self.models[0].stem if self.models else None

    def to_json(self) -> dict[str, Any]:
        """Give plain types, in which two plans can be compared; models by their content too."""
        content = asdict(replace(self, datasets=(), models=()))
        content["b_values"] = self.b_value  # a list only where there are several
        content = {name.replace("b_values", "b_value"): each for name, each in content.items()}
        content["datasets"] = [str(path.resolve()) for path in self.datasets]
        content["models"] = [[str(path.resolve()), sha256(path)] for path in self.models]
        return content


class _PlanFile(BaseModel):
    """What plan.json contains at least: a plan in plain types, models with their digests."""

    model_config = ConfigDict(extra="allow", strict=True)

    datasets: list[str]
    source: str
    targets: list[str]
    subjects: dict[str, list[str]]
    methods: list[str]
    models: list[tuple[str, str]]
    seeds: list[int]
    budget: dict[str, int | float | bool | list[float]]
    b_value: float | list[float]


def _read_plan(path: Path) -> dict[str, Any]:
    """Read what `keep_plan` wrote."""
    try:
        content = read_json(path)
        _PlanFile.model_validate_json(json.dumps(content))
    except (UserError, ValidationError) as error:
        reason = error.problem if isinstance(error, UserError) else first_reason(error)
        problem = f"is damaged ({reason}), so nobody knows what was begun here"
        raise UserError(problem, path, "out", Change("out", "another")) from error
    return content


def keep_plan(plan: Plan, path: Path) -> None:
    """Write the plan, or see that the one that was begun here is the same.

    Raises
    ------
    UserError
        When another evaluation was begun here, or its plan is damaged.
    """
    content = plan.to_json()
    if path.exists():
        before = _read_plan(path)
        wanted = json.loads(json.dumps(content))  # tuples are lists there
        names = dict.fromkeys([*wanted, *before])
        changed = [name for name in names if before.get(name) != wanted.get(name)]
        if changed:
            raise UserError(
                f"another evaluation was begun here, with other {', '.join(changed)}",
                path,
                "out",
                either(
                    Advice("ask for the same as then to go on with it"), Change("out", "another")
                ),
            )
    write_json(path, content)


def make_plan(
    datasets: Sequence[str | Path], settings: EvaluationSettings | None = None, **changes: Any
) -> Plan:
    """Plan an evaluation.

    Parameters
    ----------
    datasets
        BIDS folders of travelling heads.
    settings
        What is asked for.
    **changes
        Instead of the settings' own, by name.

    Raises
    ------
    UserError
        When datasets, subjects, methods and models do not fit together.
    """
    asked = replace(settings or EvaluationSettings(), **changes)
    # The report names datasets by their folders' names, which "." and ".." do not say.
    paths = tuple(Path(each).resolve() for each in datasets)
    if not asked.methods and not asked.models:
        raise UserError(
            "nothing is to be evaluated",
            field="methods",
            remedy=either(Give("methods", "names, or 'all',"), Give("models", "trained files")),
        )
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            problem = "has the name of another dataset, by which the report distinguishes them"
            raise UserError(problem, path, "datasets", Advice("rename one"))
    rows = chosen_methods(asked.methods) or (UNHARMONIZED,)
    for seed in asked.seeds:
        if not 0 <= seed < SEEDS:
            possible = Advice(f"give numbers from 0 to {SEEDS - 1}")
            raise UserError(f"{seed} is no seed of a training", None, "seeds", possible)
    _check_names(asked.models)
    loaded = [load_model(path) for path in asked.models]
    opened = [open_dataset(path, run=asked.run, b0_threshold=asked.b0_threshold) for path in paths]
    for dataset in opened:
        dataset.tell()
    source = asked.input or (loaded[0].card.input if loaded else "")
    source = input_platform(opened[0], source, asked.targets)
    _check_inputs(loaded, source)
    names = _common_subjects(opened, source)
    learned = learned_from(loaded, opened, names)
    _check_subjects(asked, names, learned)
    targets = _targets(asked.targets, loaded, opened[0], source)
    if MSP in rows and len(targets) == 1:
        what = f"the networks of two targets or more, and {targets[0]} is the only one"
        raise UserError(f"an {MSP} combines {what}", None, "methods", Change("methods", "other"))
    if any(name != UNHARMONIZED for name in rows):
        subjects = _split(names, _with_all(names, opened, targets), learned, asked)
    else:
        for parameter in ("train", "validation"):
            if getattr(asked, parameter):
                remedy = either(Advice("leave it out"), Give("methods", "names"))
                raise UserError("nothing is trained without methods", None, parameter, remedy)
        test = asked.test or tuple(name for name in names if name not in learned)
        if not test:
            raise none_left(opened[0], "test")
        subjects = Subjects((), (), test)
    _check_people(opened, subjects)
    _check_scans(opened, subjects, targets)
    _check_voxel_sizes(opened, subjects, source, loaded)
    return Plan(
        datasets=paths,
        source=source,
        targets=targets,
        subjects=subjects,
        methods=rows,
        models=asked.models,
        seeds=tuple(dict.fromkeys(asked.seeds)),
        budget=asked.budget,
        b_values=_b_values(opened, subjects, source, targets, loaded, asked.b_value),
        b0_threshold=asked.b0_threshold,
        run=asked.run,
    )


def _check_names(models: Sequence[Path]) -> None:
    """Refuse models that the table could not distinguish from each other or from a method."""
    seen: dict[str, object] = dict.fromkeys(all_methods(), "a method")
    for path in models:
        if path.stem in seen:
            problem = f"has the name of {seen[path.stem]}, which names its row"
            raise UserError(problem, path, "models", Advice("rename one"))
        seen[path.stem] = path


def _check_inputs(models: Sequence[Model], source: str) -> None:
    for model in models:
        if model.card.input != source:
            raise _misfit(model, f"predicts from {model.card.input}, not from {source}")


def _misfit(model: Model, problem: str) -> UserError:
    """Give what to raise of a model that was made for other scans."""
    return UserError(problem, model.name, "models", Advice("evaluate it apart"))


def _common_subjects(datasets: Sequence[TravellingHeads], source: str) -> list[str]:
    first, *others = datasets
    names = _with_all(first.subjects, datasets, [source])
    if not names:
        everywhere = " in every dataset" if others else ""
        known = tuple(
            platform
            for platform in first.platforms
            if platform != source and _with_all(first.subjects, datasets, [platform])
        )
        raise UserError(
            f"no subject has a scan on {source}{everywhere}",
            first.root,
            "input" if known else "datasets",
            Choose("input", known) if known else Advice("evaluate them one by one"),
        )
    return names


def _check_subjects(
    asked: EvaluationSettings, names: Sequence[str], learned: Mapping[str, Learned]
) -> None:
    """See that who was named is there, once, and that no model has learned from them."""
    taken: set[str] = set()
    for parameter in ("train", "validation", "test"):
        for name in getattr(asked, parameter):
            if name not in names:
                raise UserError(
                    "there is no such subject", name, parameter, Choose(parameter, tuple(names))
                )
            if name in taken:
                problem = "is to be learned from, chosen by or measured, not two of these"
                raise UserError(problem, name, parameter, Advice("name it once"))
            if parameter != "train" and name in learned:
                raise learned[name].error(parameter)
            taken.add(name)


def _targets(
    asked: Sequence[str], models: Sequence[Model], dataset: TravellingHeads, source: str
) -> tuple[str, ...]:
    others = tuple(platform for platform in dataset.platforms if platform != source)
    for target in asked:
        if target not in others:
            raise UserError(
                "is no platform to predict", target, "targets", Choose("targets", others)
            )
    predicted = dict.fromkeys(target for model in models for target in model.targets)
    targets = tuple(dict.fromkeys(asked or [t for t in predicted if t in others] or others))
    for model in models:
        if not {*model.targets} & {*targets}:
            raise UserError(
                f"predicts {', '.join(model.targets)}, and none of {', '.join(targets)}",
                model.name,
                "models",
                either(Advice("leave it out"), Change("targets", "other")),
            )
    return targets


def _check_people(datasets: Sequence[TravellingHeads], subjects: Subjects) -> None:
    """See that the same scans do not stand under two names, in one dataset or in two.

    Somebody would be learned from and measured, or count as two test subjects.
    """
    seen: list[tuple[TravellingHeads, str, Person]] = []
    for dataset, subject in product(datasets, subjects.all):
        person = dataset.person(subject)
        for other, name, known in seen:
            if same_person(person, known):
                problem = f"{subject} has the same scans as {name} of {other.root}"
                raise UserError(problem, dataset.root, "datasets", Advice("leave one of them out"))
        seen.append((dataset, subject, person))


def _split(
    names: Sequence[str],
    whole: Sequence[str],
    learned: Mapping[str, Learned],
    asked: EvaluationSettings,
) -> Subjects:
    """Fill up what was not asked for: test and validation subjects from the end of the list.

    Only `whole` subjects, which lack no scan, are chosen to learn from and to choose by.
    """
    training, validation, test = asked.train, asked.validation, asked.test
    taken = {*training, *validation, *test}
    if not test:
        free = [name for name in names if name not in taken and name not in learned]
        test = tuple(free[-max(1, int(len(names) * TEST_SHARE)) :])
    if not validation:
        free = [name for name in whole if name not in {*taken, *test} and name not in learned]
        validation = tuple(free[-max(1, round(len(names) * VALIDATION_SHARE)) :])
    used = {*test, *validation}
    training = training or tuple(name for name in whole if name not in used)
    for parameter, part in (("train", training), ("validation", validation), ("test", test)):
        if not part:
            remedy = Advice("the datasets need more subjects")
            raise UserError("no subject is left that has all scans", field=parameter, remedy=remedy)
    return Subjects(training, validation, test)


def _with_all(
    names: Sequence[str], datasets: Sequence[TravellingHeads], platforms: Sequence[str]
) -> list[str]:
    """Give the subjects that were scanned on every platform in every dataset."""
    return [
        name
        for name in names
        if all(dataset.has(name, platform) for dataset in datasets for platform in platforms)
    ]


def _check_scans(
    datasets: Sequence[TravellingHeads], subjects: Subjects, targets: Sequence[str]
) -> None:
    """See that all networks can learn from all subjects, and that every target can be measured.

    A test subject may lack scans: it is measured on the targets that it has.
    """

    def error(problem: str, dataset: TravellingHeads, parameter: str) -> UserError:
        remedy = either(Change(parameter, "other"), Change("targets", "other"))
        return UserError(problem, dataset.root, parameter, remedy)

    for dataset, target in product(datasets, targets):
        for parameter, part in (("train", subjects.training), ("validation", subjects.validation)):
            for subject in part:
                if not dataset.has(subject, target):
                    problem = f"{subject} has no scan on {target}, so it cannot be learned from"
                    raise error(problem, dataset, parameter)
        if not any(dataset.has(subject, target) for subject in subjects.test):
            raise error(f"no test subject has a scan on {target}", dataset, "test")


def _check_voxel_sizes(
    datasets: Sequence[TravellingHeads], subjects: Subjects, source: str, models: Sequence[Model]
) -> None:
    """See that the voxels of all test subjects are of the size that the models know."""
    for dataset, subject in product(datasets, subjects.test):
        sizes = dataset.acquisition(subject, source).lattice.voxel_sizes
        for model in models:
            known = model.card.voxel_size
            if np.abs(sizes / known - 1).max() > SIZE_TOLERANCE:
                given = " × ".join(f"{size:.2f}" for size in sizes)
                problem = f"voxels are {given} mm, those of {model.name} {known:.2f} mm"
                remedy = Advice("evaluate it on data of its own voxel size")
                raise UserError(problem, dataset.scans[subject, source], "models", remedy)


def _b_values(
    datasets: Sequence[TravellingHeads],
    subjects: Subjects,
    source: str,
    targets: Sequence[str],
    models: Sequence[Model],
    asked: float | Sequence[float] | None,
) -> tuple[float, ...]:
    """Give the shells that were asked for, else the models', else those that platforms share.

    All datasets must have them.
    """
    wanted: list[float] | None = None
    if asked is not None:
        wanted = [asked] if isinstance(asked, int | float) else list(asked)
    for model in models:
        wanted = _known_to(model, wanted, asked is not None)
    if wanted is None:
        wanted = _shared(datasets[0], subjects, source, targets)
    for dataset in datasets:
        for each in wanted:
            common_b_value(dataset, subjects.all, source, each)
        # What is asked for twice, or a target lacks, is an error before any work.
        for subject, platform in product(subjects.all, (source, *targets)):
            if dataset.has(subject, platform):
                dataset.acquisition(subject, platform).given_shells(wanted)
    return tuple(sorted(wanted))


def _known_to(model: Model, wanted: list[float] | None, asked: bool) -> list[float]:
    """Give the wanted shells that a model predicts; of None all of its own.

    Raises
    ------
    UserError
        When it does not predict one that was asked for, or none that other models do.
    """
    known = model.card.sh.b_values
    if wanted is None:
        return list(known)
    fit = [any(abs(own / each - 1) <= B_VALUE_TOLERANCE for own in known) for each in wanted]
    if not all(fit) if asked else not any(fit):
        other = f"{wanted[fit.index(False)]:.0f}"
        learned = " and ".join(f"{each:.0f}" for each in known)
        raise _misfit(model, f"was trained at b = {learned}, not {other}")
    shared = [each for each, there in zip(wanted, fit, strict=True) if there]
    left = {shell_name(each) for each in (*wanted, *known)} - {shell_name(each) for each in shared}
    left = {
        name
        for name in left
        if not any(abs(each / name - 1) <= B_VALUE_TOLERANCE for each in shared)
    }
    if left and not asked:
        listed = ", ".join(map(str, sorted(left)))
        said = f"b = {listed} is not measured, as not every model predicts it"
        warnings.warn(f"{model.name}: {said}", ShellLeftOut, stacklevel=4)
    return shared


def _shared(
    dataset: TravellingHeads, subjects: Subjects, source: str, targets: Sequence[str]
) -> list[float]:
    """Give the shells that all platforms have; where the input has one, that one."""
    first = dataset.acquisition(subjects.all[0], source).given_gradients.shells
    if len(first) < 2:
        return [common_b_value(dataset, subjects.all, source)]
    return list(common_shells(dataset, subjects.all, source, targets))
