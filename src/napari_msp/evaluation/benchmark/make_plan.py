"""Plan a benchmark from the settings asked for.

What was left open is chosen, and the impossible is refused before hours of training.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from napari_msp import packaged
from napari_msp.data.consistency import check_alike, common_b_value, common_shells
from napari_msp.data.dataset import TravellingHeads, further_platforms, input_platform, open_dataset
from napari_msp.data.gradients import same_shell, shell_name
from napari_msp.data.phantom.simulate import recipe_of
from napari_msp.errors import Advice, Change, Choose, Doubt, Give, UserError, either
from napari_msp.evaluation.baselines.base import baseline_class, baseline_names
from napari_msp.evaluation.benchmark.finished import (
    FinishedPredictions,
    all_predictions,
    predicted_from,
)
from napari_msp.evaluation.benchmark.methods import (
    MSP,
    SHARED_MSP,
    all_methods,
    begun_from_base,
    chosen_methods,
    from_base,
    rows_from_base,
)
from napari_msp.evaluation.benchmark.plan import SEEDS, Plan, lattice_scales
from napari_msp.evaluation.benchmark.results import FLOOR
from napari_msp.evaluation.benchmark.settings import EvaluationSettings, Subjects
from napari_msp.evaluation.benchmark.subjects import (
    check_people,
    check_scans,
    check_subjects,
    common_subjects,
    everyone,
    learned_from,
    leave_one_out,
    measured_alone,
    split_once,
    tell_doubts,
    with_all,
)
from napari_msp.evaluation.proof.pages import BEFORE, RESERVED
from napari_msp.evaluation.proof.values import repeated_scans
from napari_msp.evaluation.regions import TISSUE, read_regions
from napari_msp.formatting import counted
from napari_msp.identity import CopiedScan
from napari_msp.inference.prepare import UnlikeTraining, tell_unfit
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import ShellLeftOut


class RowLeftOut(Doubt):
    """A row that was not asked for by name is not possible here."""


def make_plan(
    datasets: Sequence[str | Path], settings: EvaluationSettings | None = None, **changes: Any
) -> Plan:
    """Plan an evaluation.

    Parameters
    ----------
    **changes
        Values that replace the settings', by name.

    Raises
    ------
    UserError
        When datasets, subjects, methods and models do not fit together.

    Warns
    -----
    MayHaveLearned
        If an ancestor knew a person of a test subject's name, and does not say of which dataset.
    NotForScans
        If a model is for simulated heads only, and test scans are not known to be simulated.
    """
    asked = replace(settings or EvaluationSettings(), **changes)
    # The report names datasets by their folders' names, which "." and ".." do not contain.
    paths = tuple(Path(each).resolve() for each in datasets)
    _check_asked(asked, paths)
    return _Draft(asked, paths).plan()


def _check_asked(asked: EvaluationSettings, paths: Sequence[Path]) -> None:
    """Refuse the impossible before anything is opened."""
    if not asked.methods and not asked.models and not asked.predictions:
        files = Give("models", "trained files")
        elsewhere = Give("predictions", "folders of finished predictions")
        remedy = either(Give("methods", "names, or 'all',"), files, elsewhere)
        raise UserError("there is nothing to evaluate", field="methods", remedy=remedy)
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            problem = "has the name of another dataset, so the report cannot tell them apart"
            raise UserError(problem, path, "datasets", Advice("rename one"))
    for path in paths:
        if asked.biology and recipe_of(path) is None:
            problem = "is not known to be simulated, so no effect can be put into its heads"
            remedy = either(Advice("simulate heads again"), Advice("leave biology out"))
            raise UserError(problem, path, "biology", remedy)
    for made in asked.predictions if asked.biology else ():
        why = "was made elsewhere and not from changed heads, so it has no row of biology"
        warnings.warn(f"{made} {why}", RowLeftOut, stacklevel=3)
    for seed in asked.seeds:
        if not 0 <= seed < SEEDS:
            possible = Advice(f"give numbers from 0 to {SEEDS - 1}")
            raise UserError(f"{seed} is not a valid seed", None, "seeds", possible)


class _Draft:
    """A plan in the making: each step chooses what was left open, or refuses the impossible."""

    def __init__(self, asked: EvaluationSettings, paths: Sequence[Path]) -> None:
        self.asked = asked
        self.rows = chosen_methods(asked.methods) or (BEFORE,)
        self.learns = any(name != BEFORE for name in self.rows)
        self._check_names()
        self.starting = rows_from_base() if {*rows_from_base()} & {*self.rows} else {}
        self.base = packaged.base_model() if self.starting else None
        self.models = [load_model(path) for path in asked.models]
        self.only = self._named()
        self.datasets = [
            open_dataset(path, run=asked.run, b0_threshold=asked.b0_threshold, only=self.only)
            for path in paths
        ]
        self.input = self._input()
        self.names = common_subjects(self.datasets, self.input)
        self.teachers = [*self.models, *([load_model(self.base)] if self.base else [])]
        self.learned = learned_from(self.teachers, self.datasets, self.names)
        check_subjects(asked, self.names, self.learned)
        self.targets = self._targets()
        self.regions = self._regions()
        for dataset in self.datasets:
            self._tell(dataset)
        self.finished = self._finished()
        if self.finished and not self.models and not asked.methods:
            predicted = {target for each in self.finished for target in each.targets}
            self.targets = tuple(target for target in self.targets if target in predicted)
        self.platforms = (self.input, *self.targets)
        self._check_msp()
        self.subjects, self.folds = self._who()
        check_people(self.datasets, self.subjects)
        check_scans(self.datasets, self.subjects, self.targets)
        self._check_voxel_sizes()

    def plan(self) -> Plan:
        """Return the plan, with what is doubtful about it."""
        unlike, test = self._unlike(), self.subjects.test
        return Plan(
            asked=self.asked,
            datasets=tuple(each.root for each in self.datasets),
            input=self.input,
            targets=self.targets,
            subjects=self.subjects,
            methods=self._possible(),
            budget=self.asked.budget,
            b_values=self._b_values(),
            folds=self.folds,
            base=self.base,
            unfit=tuple(self._unfit()),
            doubts=(
                *tell_doubts(self.teachers, self.datasets, test),
                *_copied(self.datasets, test, self.platforms),
                *unlike,
                *self._interpolated(),
                *(said for each in self.finished if (said := each.doubt(test))),
            ),
            regions=self.regions,
        )

    def _unfit(self) -> Iterator[str]:
        """Warn of, and yield, models for simulated heads only that are run on measured scans."""
        for model, each in product(self.models, self.datasets):
            inputs = ((who, self.input) for who in self.subjects.test)
            scans = (each.scans[where] for where in inputs if each.has(*where))
            yield from tell_unfit(model, scans, each.root.name)

    def _check_names(self) -> None:
        """Refuse rows whose names are equal to each other's or to a method's."""
        seen: dict[str, object] = dict.fromkeys(all_methods(), "a method")
        for path in self.asked.models:
            if path.stem in seen:
                problem = f"has the same name as {seen[path.stem]}, but each row needs its own"
                raise UserError(problem, path, "models", Advice("rename one"))
            seen[path.stem] = path
        # A method that is no row here may lend its name to its predictions made elsewhere.
        taken = {*self.rows, *(path.stem for path in self.asked.models), *RESERVED, FLOOR}
        for name in self.asked.predictions:
            if name in taken:
                problem = "is the name of another row"
                raise UserError(problem, name, "predictions", Advice("choose another name"))

    def _named(self) -> Sequence[str]:
        """Return the only subjects that take part; empty if others are chosen, or teach."""
        asked = self.asked
        parts = (asked.train, asked.validation, asked.test) if self.learns else (asked.test,)
        if asked.leave_one_out or not all(parts):
            return ()
        return tuple(subject for part in parts for subject in part)

    def _input(self) -> str:
        """Return the platform to predict from, which all models must have."""
        source = self.asked.input or (self.models[0].card.input if self.models else "")
        source = source or predicted_from(self.asked.predictions.values(), self.datasets[0])
        source = input_platform(self.datasets[0], source, self.asked.targets)
        for model in self.models:
            if model.card.input != source:
                raise _misfit(model, f"predicts from {model.card.input}, not from {source}")
        return source

    def _targets(self) -> tuple[str, ...]:
        asked, dataset, source = self.asked.targets, self.datasets[0], self.input
        others = tuple(platform for platform in dataset.platforms if platform != source)
        if not others:
            remedy = further_platforms(dataset, Advice("give scans of another platform too"))
            problem = f"has scans only on {source}, and no target"
            raise UserError(problem, dataset.root, None, remedy)
        for target in asked:
            if target not in others:
                remedy = Choose("targets", others)
                raise UserError("is not a platform to predict", target, "targets", remedy)
        predicted = dict.fromkeys(target for model in self.models for target in model.targets)
        targets = tuple(dict.fromkeys(asked or [t for t in predicted if t in others] or others))
        for model in self.models:
            if not {*model.targets} & {*targets}:
                problem = f"predicts {', '.join(model.targets)}, but none of {', '.join(targets)}"
                remedy = either(Advice("leave it out"), Change("targets", "other"))
                raise UserError(problem, model.name, "models", remedy)
        return targets

    def _tell(self, dataset: TravellingHeads) -> None:
        """Warn of images that are passed over, but for repeats that are rows of pages of proof."""
        pages = self.regions and dataset.passed_over
        repeats = repeated_scans(dataset, self.only) if pages else {}
        used = {path for (_, platform), path in repeats.items() if platform in self.targets}
        passed_over = {path: why for path, why in dataset.passed_over.items() if path not in used}
        replace(dataset, passed_over=passed_over).tell()

    def _finished(self) -> list[FinishedPredictions]:
        roots = [each.root for each in self.datasets]
        found = all_predictions(self.asked.predictions, roots, self.targets, self.names)
        return [each for of_dataset in found.values() for each in of_dataset]

    def _regions(self) -> str:
        """Return the source of regions, after checking that a file or folder exists."""
        asked = self.asked.regions
        if asked is None:
            return TISSUE if self.asked.predictions else ""
        if str(asked) == TISSUE:
            return TISSUE
        path = Path(asked).resolve()
        if not path.exists():
            problem = "there is no such label image"
            remedy = either(Advice("check the path"), Choose("regions", (TISSUE,)))
            raise UserError(problem, asked, "regions", remedy)
        if path.is_file():
            read_regions(path)
        return str(path)

    def _check_msp(self) -> None:
        rows, targets = self.rows, self.targets
        if {MSP, SHARED_MSP, from_base(MSP)} & {*rows} and len(targets) == 1:
            what = f"the networks of two targets or more, and {targets[0]} is the only one"
            other = Change("methods", "other")
            raise UserError(f"an {MSP} combines {what}", None, "methods", other)

    def _who(self) -> tuple[Subjects, tuple[Subjects, ...]]:
        """Choose training, validation and test subjects, and the folds if each is tested once."""
        asked, datasets, names, learned = self.asked, self.datasets, self.names, self.learned
        if not self.learns:
            subjects = measured_alone(datasets[0], names, learned, asked)
            if self.finished and not asked.models and not asked.test:
                # Who taught elsewhere is left out.
                whom = {subject for each in self.finished for subject in each.subjects}
                subjects = replace(subjects, test=tuple(s for s in subjects.test if s in whom))
            return subjects, ()
        complete = with_all(names, datasets, self.targets)
        chooses = any(name not in baseline_names() for name in self.rows)
        if not asked.leave_one_out:
            return split_once(names, complete, learned, asked, chooses=chooses), ()
        seen = [n for n in names if any(d.has(n, t) for d, t in product(datasets, self.targets))]
        folds = leave_one_out(datasets[0], seen, complete, learned, asked, chooses=chooses)
        return everyone(folds), folds

    def _check_voxel_sizes(self) -> None:
        """Check that all test subjects' voxels have the size that the models know."""
        for dataset, subject in product(self.datasets, self.subjects.test):
            lattice = dataset.acquisition(subject, self.input).lattice
            for model in self.models:
                known = model.card.voxel_size
                if not lattice.has_voxels_of(known):
                    problem = (
                        f"its voxels are {lattice.edges}, but {model.name} needs {known:.2f} mm"
                    )
                    remedy = Advice("evaluate it on data of its own voxel size")
                    raise UserError(problem, dataset.scans[subject, self.input], "models", remedy)

    def _unlike(self) -> tuple[str, ...]:
        """Return notes on scans unlike others of their platform; refuse the unlearnable ones."""
        subjects = self.subjects
        parts: dict[str, Sequence[str]] = {"train": subjects.training}
        parts |= {"validation": subjects.validation, "test": subjects.test}
        if self.folds:
            parts = {"datasets": subjects.all}
        return tuple(
            said
            for dataset in self.datasets
            for said in check_alike(dataset, self.platforms, parts, learned=self.learns)
        )

    def _possible(self) -> tuple[str, ...]:
        """Leave out rows that are not possible here, if all were asked for.

        They are networks that the base does not hold, and baselines that need more heads. A row
        that was asked for by name is an error.

        Warns
        -----
        RowLeftOut
            For each row that is left out.
        """
        named = set(map(str.casefold, self.asked.methods))
        if "all" in named and packaged.base_model() is None:
            said = "rows that start from the base are left out: this installation has no base model"
            warnings.warn(said, RowLeftOut, stacklevel=3)
        where = (self.datasets[0], self.input, self.targets, self.subjects)
        scales = lattice_scales(*where) if self.starting else {}
        why: dict[str, tuple[str, UserError]] = {}
        problem = f"the base has no such network of lattice scale {' or '.join(scales)}"
        for name in self.rows:
            if name in self.starting and not begun_from_base(self.starting[name], scales):
                why[name] = problem, UserError(problem, name, "methods", Change("methods", "other"))
        heads = min(len(split.training) for split in self.folds or (self.subjects,))
        for name in self.rows:
            hindrance = baseline_class(name).hindrance(heads) if name in baseline_names() else None
            if hindrance is not None:
                why[name] = f"it {hindrance.problem}", hindrance
        for name, (said, error) in why.items():
            if name.casefold() in named:
                raise error
            warnings.warn(f"{name} is left out: {said}", RowLeftOut, stacklevel=3)
        return tuple(name for name in self.rows if name not in why)

    def _b_values(self) -> tuple[float, ...]:
        """Return the shells that were asked for, else the models', else those that platforms share.

        All datasets must have them.
        """
        asked, everyone = self.asked.b_value, self.subjects.all
        wanted: list[float] | None = None
        if asked is not None:
            wanted = [asked] if isinstance(asked, int | float) else list(asked)
        for model in self.models:
            wanted = _known_to(model, wanted, asked is not None)
        if wanted is None:
            wanted = self._shared()
        for dataset in self.datasets:
            for each in wanted:
                common_b_value(dataset, everyone, self.input, each)
            # A shell that is asked for twice, or that a target lacks, is an error before any work.
            for subject, platform in product(everyone, self.platforms):
                if dataset.has(subject, platform):
                    dataset.acquisition(subject, platform).given_shells(wanted)
        return tuple(sorted(wanted))

    def _shared(self) -> list[float]:
        """Return the shells that all platforms have; if the input has only one, that one."""
        dataset, source, everyone = self.datasets[0], self.input, self.subjects.all
        first = dataset.acquisition(everyone[0], source).given_gradients.shells
        if len(first) < 2:
            return [common_b_value(dataset, everyone, source)]
        return list(common_shells(dataset, everyone, source, self.targets))

    def _interpolated(self) -> Iterator[str]:
        """Warn of, and yield, models that predict other voxels than the targets' scans have."""
        every = product(self.datasets, self.models, self.targets)
        for dataset, model, target in every:
            if target not in model.card.scales:
                continue
            wanted = model.card.voxel_size_of(target)
            there = [each for each in self.subjects.test if dataset.has(each, target)]
            lattices = {each: dataset.acquisition(each, target).lattice for each in there}
            others = {
                each: f"{lattice.voxel_sizes.mean():.2f}"
                for each, lattice in lattices.items()
                if not lattice.has_voxels_of(wanted)
            }
            if others:
                few = f" ({', '.join(others)})" if len(others) < len(lattices) else ""
                have = "has" if len(others) == 1 else "have"
                sizes = " and ".join(dict.fromkeys(others.values()))
                said = (
                    f"{dataset.root.name}: {len(others)} of {counted(len(lattices), 'scan')} on "
                    f"{target}{few} {have} voxels of {sizes} mm, {Path(model.name).name} predicts "
                    f"{wanted:.2f} mm: its predictions are interpolated to be measured"
                )
                warnings.warn(said, UnlikeTraining, stacklevel=3)
                yield said


def _misfit(model: Model, problem: str) -> UserError:
    """Return the error for a model that was made for other scans."""
    return UserError(problem, model.name, "models", Advice("evaluate it apart"))


def _known_to(model: Model, wanted: list[float] | None, asked: bool) -> list[float]:
    """Return the wanted shells that a model predicts; None stands for all of its own."""
    known = model.card.sh.b_values
    if wanted is None:
        return list(known)
    fit = [any(same_shell(own, each) for own in known) for each in wanted]
    if not all(fit) if asked else not any(fit):
        other = f"{wanted[fit.index(False)]:.0f}"
        learned = " and ".join(f"{each:.0f}" for each in known)
        raise _misfit(model, f"was trained at b = {learned}, not {other}")
    shared = [each for each, there in zip(wanted, fit, strict=True) if there]
    left = {shell_name(each) for each in (*wanted, *known)} - {shell_name(each) for each in shared}
    left = {name for name in left if not any(same_shell(each, name) for each in shared)}
    if left and not asked:
        listed = ", ".join(map(str, sorted(left)))
        said = f"b = {listed} is not measured, as not every model predicts it"
        warnings.warn(ShellLeftOut(said, model.name), stacklevel=4)
    return shared


def _copied(
    datasets: Sequence[TravellingHeads], subjects: Sequence[str], platforms: Sequence[str]
) -> Iterator[str]:
    """Warn of, and yield, scans that are equal on two platforms, which show no scanner effect."""
    for dataset in datasets:
        there = [each for each in subjects if each in dataset.subjects]
        for subject, platform, other in dataset.copied(there, platforms):
            said = f"{dataset.root.name}: {subject} has the same scan on {platform} as on {other}"
            warnings.warn(said, CopiedScan, stacklevel=3)
            yield said
