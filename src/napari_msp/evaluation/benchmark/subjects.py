"""Roles of subjects (training, validation, test): in one split, or with each left out in turn.

No subject has two roles in a split, no model has learned from a measured subject, and no scan
appears under two names.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import Advice, Allow, Change, Choose, Doubt, Give, UserError, either
from napari_msp.evaluation.benchmark.settings import EvaluationSettings, Subjects
from napari_msp.identity import Person, known_among, same_person
from napari_msp.model_file import Model

TEST_SHARE, VALIDATION_SHARE = 0.5, 1 / 6
"""Shares of the subjects for test and validation if none are named (our choice)."""

LEAST_TO_CHOOSE = 3
"""Subjects, besides the one left out, needed for one of them to validate (ours): two teach."""


@dataclass(frozen=True)
class LeaveOneOut(Allow):
    """The remedy for too few subjects: leave one out at a time."""

    parameter: ClassVar[str] = "leave_one_out"
    why: str = "test each subject once, with all others for training,"


class NeverTest(Doubt):
    """A subject is left out of the tests, though each was to be tested once."""


def common_subjects(datasets: Sequence[TravellingHeads], source: str) -> list[str]:
    """Return the subjects that were scanned on the input platform in every dataset."""
    first, *others = datasets
    names = with_all(first.subjects, datasets, [source])
    if not names:
        everywhere = " in every dataset" if others else ""
        known = tuple(
            platform
            for platform in first.platforms
            if platform != source and with_all(first.subjects, datasets, [platform])
        )
        problem = f"no subject has a scan on {source}{everywhere}"
        if known:
            raise UserError(problem, first.root, "input", Choose("input", known))
        raise UserError(problem, first.root, "datasets", Advice("evaluate them one by one"))
    return names


def with_all(
    names: Sequence[str], datasets: Sequence[TravellingHeads], platforms: Sequence[str]
) -> list[str]:
    """Return the subjects that were scanned on every platform in every dataset."""
    return [
        name
        for name in names
        if all(dataset.has(name, platform) for dataset in datasets for platform in platforms)
    ]


# --- Whom a model has learned from -----------------------------------------------------------


class MayHaveLearned(Doubt):
    """A measured subject shares its name with a person known to a model's ancestor."""


@dataclass(frozen=True)
class Learned:
    """A subject that a model has, or may have, learned from.

    Attributes
    ----------
    certain
        Whether the model's file tells people of the same name apart. Older files do not; then the
        name decides, so that nobody is measured who may have been learned from.
    validated
        Whether nothing was learned from the subject, but weights were chosen by the error on it.
    """

    subject: str
    model: str
    certain: bool
    validated: bool = False

    def error(self, field: str) -> UserError:
        """Return the error to raise if the subject was named through a parameter."""
        of_which = "" if self.certain else ", but its file does not state of which dataset"
        how = "was chosen by the error on" if self.validated else "was trained on"
        problem = f"{how} {self.subject}{of_which}"
        return UserError(problem, self.model, field, Advice("name subjects held out"))


def learned_from(
    models: Sequence[Model], datasets: Sequence[TravellingHeads], subjects: Sequence[str]
) -> dict[str, Learned]:
    """Find the subjects that a model has learned from, in any of the datasets, by name.

    A model's ancestors count too. They mostly learned from people of other datasets, so a name
    alone, which is all that older files have of them, is not taken for one of these subjects.

    Another dataset's subject of the same name is another person; the same scan under two names is
    the same person.
    """
    found: dict[str, Learned] = {}
    for model in models:
        for dataset in datasets:
            for subject in subjects:
                person = dataset.person(subject)
                certain = any(same_person(person, each) for each in model.everyone)
                if subject not in found and (certain or known_among(person, model.people)):
                    validated = subject in (model.training.get("validation") or ())
                    found[subject] = Learned(subject, model.name, certain, validated)
    return found


def tell_doubts(
    models: Sequence[Model], datasets: Sequence[TravellingHeads], subjects: Collection[str]
) -> tuple[str, ...]:
    """Warn of subjects known only by name among those that a model's ancestors learned from.

    They are measured, as `learned_from` explains, but not silently.
    """
    found: dict[str, None] = {}
    for model in models:
        of_name = {
            subject: f"{model.name} may have been trained on {subject}: the model it started from "
            "lists a subject of that name without stating the dataset"
            for subject in subjects
            for dataset in datasets
            if known_among(dataset.person(subject), model.everyone)
        }
        sure = learned_from([model], datasets, list(of_name))
        found |= {words: None for each, words in of_name.items() if each not in sure}
    for words in found:
        warnings.warn(words, MayHaveLearned, stacklevel=3)
    return tuple(found)


def none_left(dataset: TravellingHeads, field: str) -> UserError:
    """Return the error to raise if a model has learned from everyone."""
    remedy = Advice("train again and keep some subjects out")
    return UserError("every subject was trained on", dataset.root, field, remedy)


# --- Splits ----------------------------------------------------------------------------------


def split_once(
    names: Sequence[str],
    whole: Sequence[str],
    learned: Mapping[str, Learned],
    asked: EvaluationSettings,
    *,
    chooses: bool = True,
) -> Subjects:
    """Fill in the parts not asked for: test and validation subjects from the end of the list.

    Parameters
    ----------
    names, whole
        Subjects that may be measured, and those among them who lack no scan: only the latter are
        chosen to teach and to validate.
    chooses
        Whether anything is chosen on validation subjects, as a network's weights are. If not, and
        subjects are too few for it, those left all teach.
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
    if not chooses and not (training and validation):
        validation = asked.validation
        training = asked.train or tuple(n for n in whole if n not in {*test, *validation})
    for parameter, part in (("train", training), ("validation", validation), ("test", test)):
        if not part and (chooses or parameter != "validation"):
            remedy = either(Advice("add more subjects"), LeaveOneOut())
            raise UserError("no subject is left that has all scans", field=parameter, remedy=remedy)
    return Subjects(training, validation, test)


def leave_one_out(
    dataset: TravellingHeads,
    names: Sequence[str],
    whole: Sequence[str],
    learned: Mapping[str, Learned],
    asked: EvaluationSettings,
    *,
    chooses: bool = True,
) -> tuple[Subjects, ...]:
    """Let each subject be tested once while the others teach.

    If there are enough, the subject behind the test subject in the list of those who lack no scan
    (behind the last one the first) validates instead of teaching.

    Parameters
    ----------
    names, whole, learned, asked, chooses
        As for `split_once`; subjects that a model has learned from are never tested, but they
        teach. Any of `names` can be measured.

    Returns
    -------
    The split for each test subject.

    Raises
    ------
    UserError
        When parts were named that follow from the subject left out, or nobody is left to teach.

    Warns
    -----
    NeverTest
        For each subject that a model has learned from.
    """
    for name in asked.test:
        if name not in names:
            problem = "has no scan on any target, so it cannot be measured"
            raise UserError(problem, name, "test", Choose("test", tuple(names)))
    for parameter in ("train", "validation"):
        if getattr(asked, parameter):
            problem = "all other subjects train or validate, so none can be named"
            raise UserError(problem, None, parameter, Advice("leave it out"))
    for name in names:
        if name in learned and not asked.test:
            why = f"{learned[name].model} was trained on them"
            warnings.warn(f"{name} trains but is never tested: {why}", NeverTest, stacklevel=4)
    folds = []
    for test in asked.test or tuple(name for name in names if name not in learned):
        behind = whole.index(test) + 1 if test in whole else 0
        others = [name for name in (*whole[behind:], *whole[:behind]) if name != test]
        fit = [name for name in others if name not in learned]
        validation = tuple(fit[:1]) if chooses and len(others) >= LEAST_TO_CHOOSE else ()
        training = tuple(name for name in whole if name not in (test, *validation))
        if not training:
            problem = f"without {test} no subject with all scans is left for training"
            remedy = Advice("give two subjects or more")
            raise UserError(problem, dataset.root, "datasets", remedy)
        folds.append(Subjects(training, validation, (test,)))
    if not folds:
        raise none_left(dataset, "test")
    return tuple(folds)


def measured_alone(
    dataset: TravellingHeads,
    names: Sequence[str],
    learned: Mapping[str, Learned],
    asked: EvaluationSettings,
) -> Subjects:
    """Return the test subjects if nothing is trained."""
    for parameter in ("train", "validation", "leave_one_out"):
        if getattr(asked, parameter):
            remedy = either(Advice("leave it out"), Give("methods", "names"))
            raise UserError("nothing is trained without methods", None, parameter, remedy)
    test = asked.test or tuple(name for name in names if name not in learned)
    if not test:
        raise none_left(dataset, "test")
    return Subjects((), (), test)


def everyone(folds: Sequence[Subjects]) -> Subjects:
    """Merge splits: subjects that any of them measures, and those that only help the others."""
    tests = dict.fromkeys(name for fold in folds for name in fold.test)
    others = sorted({name for fold in folds for name in fold.all} - {*tests})
    return Subjects(tuple(others), (), tuple(tests))


# --- Checks ----------------------------------------------------------------------------------


def check_subjects(
    asked: EvaluationSettings, names: Sequence[str], learned: Mapping[str, Learned]
) -> None:
    """Check that named subjects exist, are named once, and that no model has learned from them."""
    taken: set[str] = set()
    for parameter in ("train", "validation", "test"):
        for name in getattr(asked, parameter):
            if name not in names:
                raise UserError(
                    "there is no such subject", name, parameter, Choose(parameter, tuple(names))
                )
            if name in taken:
                problem = (
                    "can be used for training, validation or testing, but only for one of these"
                )
                raise UserError(problem, name, parameter, Advice("name it once"))
            if parameter != "train" and name in learned:
                raise learned[name].error(parameter)
            taken.add(name)


def check_people(datasets: Sequence[TravellingHeads], subjects: Subjects) -> None:
    """Check that the same scans do not appear under two names, in one dataset or in two.

    Otherwise a person would be learned from and measured, or count as two test subjects.
    """
    seen: list[tuple[TravellingHeads, str, Person]] = []
    for dataset, subject in product(datasets, subjects.all):
        person = dataset.person(subject)
        for other, name, known in seen:
            if same_person(person, known):
                problem = f"{subject} has the same scans as {name} of {other.root}"
                raise UserError(problem, dataset.root, "datasets", Advice("leave one of them out"))
        seen.append((dataset, subject, person))


def check_scans(
    datasets: Sequence[TravellingHeads], subjects: Subjects, targets: Sequence[str]
) -> None:
    """Check that all networks can learn from all subjects, and that every target can be measured.

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
