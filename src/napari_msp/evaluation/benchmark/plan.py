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

from napari_msp import packaged
from napari_msp.data.dataset import (
    TravellingHeads,
    further_platforms,
    input_platform,
    open_dataset,
)
from napari_msp.data.gradients import B_VALUE_TOLERANCE, shell_name
from napari_msp.data.lattice import SIZE_TOLERANCE, scale_between
from napari_msp.data.phantom import recipe_of
from napari_msp.errors import Advice, Change, Choose, Give, UserError, either
from napari_msp.evaluation.baselines.base import baseline_class, baseline_names
from napari_msp.evaluation.benchmark.methods import (
    MSP,
    SHARED_MSP,
    UNHARMONIZED,
    FinishedPredictions,
    all_methods,
    begun_from_base,
    chosen_methods,
    find_predictions,
    from_base,
    rows_from_base,
)
from napari_msp.evaluation.benchmark.results import FLOOR
from napari_msp.evaluation.benchmark.settings import Budget, EvaluationSettings, Subjects
from napari_msp.evaluation.benchmark.subjects import (
    check_people,
    check_scans,
    check_subjects,
    common_subjects,
    everyone,
    leave_one_out,
    measured_alone,
    split_once,
    with_all,
)
from napari_msp.evaluation.held_out import learned_from, tell_doubts
from napari_msp.evaluation.proof.pages import RESERVED
from napari_msp.evaluation.regions import TISSUE, read_regions, regions_state
from napari_msp.files import read_json, sha256, write_json
from napari_msp.foreign_errors import first_reason
from napari_msp.learning.common_shells import common_b_value, common_shells
from napari_msp.learning.schedule import FAST
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import ShellLeftOut

SEEDS = 1000
"""Training seeds are below it; the members of a mean of networks have theirs plus multiples."""


class RowLeftOut(UserWarning):
    """A row that was not asked for by its name cannot be had."""


@dataclass(frozen=True)
class Round:
    """One dataset with one training seed.

    Attributes
    ----------
    dataset
        BIDS folder.
    seed
        Of the training.
    subjects
        Who teaches, validates and is measured.
    fold
        Who is left out, where each subject is test once; else empty.
    """

    dataset: Path
    seed: int
    subjects: Subjects
    fold: str = ""

    @property
    def name(self) -> str:
        """Such as "heads-0 seed 1", or "heads-0 seed 1 without sub-01"."""
        return f"{self.dataset.name} seed {self.seed}" + (self.fold and f" without {self.fold}")

    @property
    def folder(self) -> str:
        """Name of the folders of what belongs to it."""
        name = f"{self.dataset.name}-seed-{self.seed}"
        return name + (self.fold and f"-without-{self.fold}")


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
        The same names in every dataset. With folds: who is test in one of them, and who never is.
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
    folds
        Where each subject is test once: the split of each, everything trained anew.
    base
        Model that rows "from base" start from; None where there is no such row.
    fibres
        Whether fibre peaks are measured.
    bundle
        Whether a bundle is tracked.
    biology
        Whether effects of biology are put into test heads.
    doubts
        Whom a model may have learned from who is measured, in words.
    predictions
        Folders of finished predictions by the names of their rows.
    regions
        Where the regions of pages of proof come from: "tissue", a label image or a folder of them;
        empty for no such pages.
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
    folds: tuple[Subjects, ...] = ()
    base: Path | None = None
    fibres: bool = False
    bundle: bool = False
    biology: bool = False
    doubts: tuple[str, ...] = ()
    predictions: tuple[tuple[str, Path], ...] = ()
    regions: str = ""

    def finished(self, dataset: Path) -> list[FinishedPredictions]:
        """Find the finished predictions of a dataset's test subjects."""
        alone = len(self.datasets) == 1
        return [
            find_predictions(name, each, dataset, self.targets, self.subjects.test, alone=alone)
            for name, each in self.predictions
        ]

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
        """A cross in each fold: every seed on the first dataset, the first seed on the others."""
        first, *others = self.datasets
        cross = (
            *((first, seed) for seed in self.seeds),
            *((dataset, self.seeds[0]) for dataset in others),
        )
        if not self.folds:
            return tuple(Round(*each, self.subjects) for each in cross)
        return tuple(Round(*each, fold, fold.test[0]) for fold in self.folds for each in cross)

    def chosen_in(self, round_: Round) -> Round:
        """Give the round whose validation subjects choose the learning rates of another one.

        It is the first one of the same fold: nobody chooses who is measured there.
        """
        return next(each for each in self.rounds if each.fold == round_.fold)

    @property
    def first_rounds(self) -> tuple[Round, ...]:
        """The first round of each fold."""
        return tuple(dict.fromkeys(self.chosen_in(each) for each in self.rounds))

    def rates_in(self, round_: Round) -> tuple[float, ...]:
        """Give the learning rates to try in a round; the preset's own where nobody validates."""
        return self.budget.rates if round_.subjects.validation else (FAST.learning_rate,)

    @property
    def tuning_targets(self) -> tuple[str, ...]:
        """Platforms on which learning rates are tried: the first two, to save time."""
        return self.targets[:2]

    @property
    def tested(self) -> str | None:
        """The row that is tested against the others: chosen before anything is measured."""
        for name in (MSP, SHARED_MSP, from_base(MSP)):
            if name in self.methods:
                return name
        if self.models:
            return self.models[0].stem
        return self.predictions[0][0] if self.predictions else None

    def to_json(self) -> dict[str, Any]:
        """Give plain types, in which two plans can be compared; models by their content too."""
        kept = replace(self, datasets=(), models=(), base=None, doubts=(), predictions=())
        content = asdict(kept)
        content["b_values"] = self.b_value  # a list only where there are several
        content = {name.replace("b_values", "b_value"): each for name, each in content.items()}
        content["datasets"] = [str(path.resolve()) for path in self.datasets]
        content["models"] = [[str(path.resolve()), sha256(path)] for path in self.models]
        content["base"] = None if self.base is None else sha256(self.base)
        content["predictions"] = [
            [each.name, str(each.folder.resolve()), each.state]
            for dataset in self.datasets * bool(self.predictions)
            for each in self.finished(dataset)
        ]
        if self.regions not in ("", TISSUE):
            content["regions"] = [self.regions, *regions_state(self.regions)]
        optional = {"folds", "base", "fibres", "bundle", "biology", "doubts"}
        optional |= {"predictions", "regions"}
        return {name: each for name, each in content.items() if each or name not in optional}


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

    Warns
    -----
    MayHaveLearned
        Where an ancestor knew somebody of a test subject's name, and does not say of which dataset.
    """
    asked = replace(settings or EvaluationSettings(), **changes)
    # The report names datasets by their folders' names, which "." and ".." do not say.
    paths = tuple(Path(each).resolve() for each in datasets)
    if not asked.methods and not asked.models and not asked.predictions:
        raise UserError(
            "nothing is to be evaluated",
            field="methods",
            remedy=either(
                Give("methods", "names, or 'all',"),
                Give("models", "trained files"),
                Give("predictions", "folders of finished predictions"),
            ),
        )
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            problem = "has the name of another dataset, by which the report distinguishes them"
            raise UserError(problem, path, "datasets", Advice("rename one"))
    for path in paths:
        if asked.biology and recipe_of(path) is None:
            problem = "is not known to be simulated, so no effect can be put into its heads"
            remedy = either(Advice("simulate heads anew"), Advice("leave biology out"))
            raise UserError(problem, path, "biology", remedy)
    for made in asked.predictions if asked.biology else ():
        why = "was made elsewhere and not of changed heads, so it has no row of biology"
        warnings.warn(f"{made} {why}", RowLeftOut, stacklevel=2)
    rows = chosen_methods(asked.methods) or (UNHARMONIZED,)
    for seed in asked.seeds:
        if not 0 <= seed < SEEDS:
            possible = Advice(f"give numbers from 0 to {SEEDS - 1}")
            raise UserError(f"{seed} is no seed of a training", None, "seeds", possible)
    starting = [name for name in rows if name in rows_from_base()]
    base = packaged.base_model() if starting else None
    _check_names(asked, rows)
    loaded = [load_model(path) for path in asked.models]
    opened = [open_dataset(path, run=asked.run, b0_threshold=asked.b0_threshold) for path in paths]
    for dataset in opened:
        dataset.tell()
    source = asked.input or (loaded[0].card.input if loaded else "")
    source = input_platform(opened[0], source, asked.targets)
    _check_inputs(loaded, source)
    names = common_subjects(opened, source)
    teachers = loaded if base is None else [*loaded, load_model(base)]
    learned = learned_from(teachers, opened, names)
    check_subjects(asked, names, learned)
    targets = _targets(asked.targets, loaded, opened[0], source)
    finished = _finished(asked, opened, targets, names)
    if finished and not loaded and not asked.methods:
        predicted = {target for each in finished for target in each.targets}
        targets = tuple(target for target in targets if target in predicted)
    if {MSP, SHARED_MSP, from_base(MSP)} & {*rows} and len(targets) == 1:
        what = f"the networks of two targets or more, and {targets[0]} is the only one"
        raise UserError(f"an {MSP} combines {what}", None, "methods", Change("methods", "other"))
    folds: tuple[Subjects, ...] = ()
    if not any(name != UNHARMONIZED for name in rows):
        subjects = measured_alone(opened[0], names, learned, asked)
        if finished and not loaded and not asked.test:  # who taught elsewhere is not predicted
            whom = {subject for each in finished for subject in each.subjects}
            subjects = replace(subjects, test=tuple(s for s in subjects.test if s in whom))
    elif asked.leave_one_out:
        seen = [n for n in names if any(d.has(n, t) for d, t in product(opened, targets))]
        folds = leave_one_out(opened[0], seen, with_all(names, opened, targets), learned, asked)
        subjects = everyone(folds)
    else:
        subjects = split_once(names, with_all(names, opened, targets), learned, asked)
    check_people(opened, subjects)
    check_scans(opened, subjects, targets)
    _check_voxel_sizes(opened, subjects, source, loaded)
    scales = lattice_scales(opened[0], source, targets, subjects) if starting else {}
    return Plan(
        datasets=paths,
        source=source,
        targets=targets,
        subjects=subjects,
        methods=_possible(_fitting(rows, asked, scales), asked, folds or (subjects,)),
        models=asked.models,
        seeds=tuple(dict.fromkeys(asked.seeds)),
        budget=asked.budget,
        b_values=_b_values(opened, subjects, source, targets, loaded, asked.b_value),
        b0_threshold=asked.b0_threshold,
        run=asked.run,
        folds=folds,
        base=base,
        fibres=asked.fibres,
        bundle=asked.bundle,
        biology=asked.biology,
        doubts=(
            *tell_doubts(teachers, opened, subjects.test),
            *(said for each in finished if (said := each.doubt(subjects.test))),
        ),
        predictions=tuple((name, Path(each).resolve()) for name, each in asked.predictions.items()),
        regions=_regions(asked),
    )


def _finished(
    asked: EvaluationSettings,
    opened: Sequence[TravellingHeads],
    targets: Sequence[str],
    names: Sequence[str],
) -> list[FinishedPredictions]:
    """Find all finished predictions, before any work."""
    return [
        find_predictions(name, folder, each.root, targets, names, alone=len(opened) == 1)
        for each in opened
        for name, folder in asked.predictions.items()
    ]


def _regions(asked: EvaluationSettings) -> str:
    """Say where regions come from; a file or folder must be there."""
    if asked.regions is None:
        return TISSUE if asked.predictions else ""
    if str(asked.regions) == TISSUE:
        return TISSUE
    path = Path(asked.regions).resolve()
    if not path.exists():
        problem = "there is no such label image"
        remedy = either(Advice("check the path"), Choose("regions", (TISSUE,)))
        raise UserError(problem, asked.regions, "regions", remedy)
    if path.is_file():
        read_regions(path)
    return str(path)


def lattice_scales(
    dataset: TravellingHeads, source: str, targets: Sequence[str], subjects: Subjects
) -> dict[str, int]:
    """Give each target's lattice scale, from the first subject that has it."""
    scales = {}
    for target in targets:
        subject = next(s for s in subjects.all if dataset.has(s, target))
        lattice = dataset.acquisition(subject, source).lattice
        scan = dataset.acquisition(subject, target).lattice
        scales[target] = scale_between(lattice.voxel_sizes, scan.voxel_sizes, target)
    return scales


def _fitting(
    rows: Sequence[str], asked: EvaluationSettings, scales: Mapping[str, int]
) -> tuple[str, ...]:
    """Leave out rows that the base has no network for, where all there are were asked for.

    Raises
    ------
    UserError
        When such a row was asked for by its name.

    Warns
    -----
    RowLeftOut
        Of what is left out.
    """
    every = "all" in map(str.casefold, asked.methods)
    if every and packaged.base_model() is None:
        said = "rows that start from the base are left out: this installation has no base model"
        warnings.warn(said, RowLeftOut, stacklevel=3)
    held = rows_from_base() if scales else {}
    unfit = [name for name in rows if name in held and not begun_from_base(held[name], scales)]
    problem = f"the base has no such network of the lattice scale of {' or '.join(scales)}"
    why = {
        name: (problem, UserError(problem, name, "methods", Change("methods", "other")))
        for name in unfit
    }
    return _without(why, rows, asked)


def _possible(
    rows: Sequence[str], asked: EvaluationSettings, splits: Sequence[Subjects]
) -> tuple[str, ...]:
    """Leave out baselines that cannot learn here, where all there are were asked for.

    Raises
    ------
    UserError
        When such a row was asked for by its name.

    Warns
    -----
    RowLeftOut
        Of what is left out.
    """
    heads = min(len(split.training) for split in splits)
    baselines = [name for name in rows if name in baseline_names()]
    hindrances = {name: baseline_class(name).hindrance(heads) for name in baselines}
    why = {
        name: (f"it {hindrance.problem}", hindrance)
        for name, hindrance in hindrances.items()
        if hindrance is not None
    }
    return _without(why, rows, asked)


def _without(
    why: Mapping[str, tuple[str, UserError]], rows: Sequence[str], asked: EvaluationSettings
) -> tuple[str, ...]:
    """Leave out rows and say why; raise the error of one that was asked for by its name."""
    named = set(map(str.casefold, asked.methods))
    for name, (said, error) in why.items():
        if name.casefold() in named:
            raise error
        warnings.warn(f"{name} is left out: {said}", RowLeftOut, stacklevel=4)
    return tuple(name for name in rows if name not in why)


def _check_names(asked: EvaluationSettings, rows: Sequence[str]) -> None:
    """Refuse rows that the table could not distinguish from each other or from a method."""
    seen: dict[str, object] = dict.fromkeys(all_methods(), "a method")
    for path in asked.models:
        if path.stem in seen:
            problem = f"has the name of {seen[path.stem]}, which names its row"
            raise UserError(problem, path, "models", Advice("rename one"))
        seen[path.stem] = path
    # A method that is no row here may name the predictions that it made elsewhere.
    taken = {*rows, *(path.stem for path in asked.models), *RESERVED, FLOOR}
    for name in asked.predictions:
        if name in taken:
            problem = "is the name of another row"
            raise UserError(problem, name, "predictions", Advice("choose another name"))


def _check_inputs(models: Sequence[Model], source: str) -> None:
    for model in models:
        if model.card.input != source:
            raise _misfit(model, f"predicts from {model.card.input}, not from {source}")


def _misfit(model: Model, problem: str) -> UserError:
    """Give what to raise of a model that was made for other scans."""
    return UserError(problem, model.name, "models", Advice("evaluate it apart"))


def _targets(
    asked: Sequence[str], models: Sequence[Model], dataset: TravellingHeads, source: str
) -> tuple[str, ...]:
    others = tuple(platform for platform in dataset.platforms if platform != source)
    if not others:
        remedy = further_platforms(dataset, Advice("give scans of another platform too"))
        raise UserError(f"has scans of {source} alone, and no target", dataset.root, None, remedy)
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
