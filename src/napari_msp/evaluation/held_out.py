"""Whom a model has learned from: nobody who may be one of these is measured or calibrated on."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import Advice, UserError
from napari_msp.identity import known_among, same_person
from napari_msp.model_file import Model


class MayHaveLearned(UserWarning):
    """Somebody is measured of whose name an ancestor knew somebody, nobody knows whom."""


@dataclass(frozen=True)
class Learned:
    """A subject that a model has, or may have, learned from.

    Attributes
    ----------
    certain
        Whether the model's file tells its people from others of the same name. Older files do not;
        then the name decides, so that nobody is measured who was learned from.
    validated
        Whether nothing was learned from the subject, but weights were chosen by the error on it.
    """

    subject: str
    model: str
    certain: bool
    validated: bool = False

    def error(self, field: str) -> UserError:
        """Give what to raise when the subject was asked for through a parameter."""
        of_which = "" if self.certain else ", its file does not say of which dataset"
        how = "was chosen by the error on" if self.validated else "was trained on"
        problem = f"{how} {self.subject}{of_which}"
        return UserError(problem, self.model, field, Advice("name subjects held out"))


def learned_from(
    models: Sequence[Model], datasets: Sequence[TravellingHeads], subjects: Sequence[str]
) -> dict[str, Learned]:
    """Find the subjects that a model has learned from, in any of the datasets, by name.

    What it started from has learned for it, and so has what that started from: from people of
    other datasets mostly, so that a name alone, which older files have, is nobody of these.

    Another dataset's subject of the same name is another person; the same scan under two names is
    one.
    """
    found: dict[str, Learned] = {}
    for model in models:
        for dataset in datasets:
            for subject in subjects:
                person = dataset.person(subject)
                certain = any(same_person(person, each) for each in model.everyone)
                if subject not in found and (certain or known_among(person, model.people)):
                    validated = subject in model.training.get("validation", ())
                    found[subject] = Learned(subject, model.name, certain, validated)
    return found


def tell_doubts(
    models: Sequence[Model], datasets: Sequence[TravellingHeads], subjects: Collection[str]
) -> tuple[str, ...]:
    """Say of whom a name alone is known among those that a model's ancestors learned from.

    They are measured, as `learned_from` says, but not without a word.
    """
    found: dict[str, None] = {}
    for model in models:
        of_name = {
            subject: f"{model.name} may have learned from {subject}: what it started from knows "
            "somebody of that name, and does not say of which dataset"
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
    """Give what to raise when a model has learned from everyone."""
    return UserError(
        "every subject was trained on",
        dataset.root,
        field,
        Advice("train anew and keep subjects out of it"),
    )
