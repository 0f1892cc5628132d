"""Errors that a user can correct, as objects that each front end puts into its own words.

An error states what is wrong (`problem`), with what file (`subject`), through which parameter
(`field`), and what helps (`remedy`). The library knows parameters by their Python names only: the
command line turns them into options, the window into labels and buttons, see `Words`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


class Words:
    """A front end's names for things, here as in Python; other front ends have a subclass."""

    def offers(self, name: str) -> bool:
        """Return whether the user can set a parameter here."""
        return True

    def parameter(self, name: str) -> str:
        """Return the name of a parameter of the library's functions."""
        return f"{name}="

    def setting(self, name: str, value: Any) -> str:
        """Return the name of a parameter together with the value to set."""
        return f"{name}={value!r}"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Return the name of a job, such as "import" or "train", with a parameter if given."""
        call = f"napari_msp.{JOBS.get(name, name)}"
        return f"{call}(…, {parameter}={value!r})" if parameter else call


JOBS = {"import": "import_tree", "cohort": "run_cohort"}
"""Library functions whose names differ from those of their jobs."""

PYTHON = Words()


class PlainWords(Words):
    """Words where nothing can be chosen, such as in a table: parameters and jobs by their names."""

    def offers(self, name: str) -> bool:
        """Return False: a remedy names no parameter."""
        return False

    def parameter(self, name: str) -> str:
        """Return the name as words."""
        return name.replace("_", " ")

    def setting(self, name: str, value: Any) -> str:
        """Return name and value as words."""
        return self.parameter(name) if value is True else f"{self.parameter(name)} {value}"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Return the command's name."""
        return f"napari-msp {name}"


@dataclass(frozen=True)
class Remedy:
    """A remedy. Subclasses carry the values that a front end may offer to press or to type."""

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it in a front end's words, without a full stop."""
        raise NotImplementedError


@dataclass(frozen=True)
class Advice(Remedy):
    """Something to do outside this program, such as "check the path"; names no parameter."""

    text: str

    def phrase(self, words: Words = PYTHON) -> str:
        """Return the text, which is the same everywhere."""
        return self.text


@dataclass(frozen=True)
class Give(Remedy):
    """Give a parameter that was left out, or give it another value.

    `what` is "it", "one", or "the scan's own b-vectors".
    """

    parameter: str
    what: str = "it"

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "give it with bval="."""
        return f"give {self.what}{_through(self.parameter, words)}"


@dataclass(frozen=True)
class Choose(Remedy):
    """Choose one of several values; none are named if there are too many to list."""

    parameter: str
    choices: tuple[Any, ...] = ()

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "choose from 1000, 2000 with b_value="."""
        known = ", ".join(_short(each) for each in self.choices)
        return f"choose {f'from {known}' if known else 'one'}{_through(self.parameter, words)}"


@dataclass(frozen=True)
class Change(Remedy):
    """Change a parameter; `how` is "a smaller", "fewer" or "another"."""

    parameter: str
    how: str

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "use a smaller tile="."""
        return f"use {self.how} {words.parameter(self.parameter)}"


@dataclass(frozen=True)
class Allow(Remedy):
    """Allow an action that is not taken unasked; `why` names it, such as "replace it"."""

    parameter: ClassVar[str]
    value: ClassVar[Any] = True
    why: str

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "replace it with force=True"."""
        if not words.offers(self.parameter):
            return self.why
        return f"{self.why} with {words.setting(self.parameter, self.value)}"


@dataclass(frozen=True)
class Overwrite(Allow):
    """Replace existing files."""

    parameter: ClassVar[str] = "force"
    why: str = "replace it"


@dataclass(frozen=True)
class Resume(Allow):
    """Continue from a checkpoint."""

    parameter: ClassVar[str] = "resume"
    why: str = "continue"


@dataclass(frozen=True)
class Resample(Allow):
    """Interpolate the SH image to the model's voxels."""

    parameter: ClassVar[str] = "resample"
    why: str = "interpolate the SH image to that size"


@dataclass(frozen=True)
class RescaleBValue(Allow):
    """Rescale the signal to another b-value."""

    parameter: ClassVar[str] = "rescale_b_value"
    why: str = "rescale the signal"

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, and that it is an approximation."""
        return f"{super().phrase(words)} (an approximation)"


@dataclass(frozen=True)
class StartAfresh(Allow):
    """Train from fresh weights."""

    parameter: ClassVar[str] = "start_from"
    value: ClassVar[Any] = "nothing"
    why: str = "start from nothing"


@dataclass(frozen=True)
class CountAsB0(Remedy):
    """Let volumes of a low b-value, up to `threshold` in s/mm², count as b=0."""

    parameter: ClassVar[str] = "b0_threshold"
    threshold: float

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "count them as b=0 with b0_threshold=60"."""
        number = int(self.threshold) if self.threshold == int(self.threshold) else self.threshold
        if not words.offers(self.parameter):
            return f"count b ≤ {number} as b=0"
        return f"count them as b=0 with {words.setting(self.parameter, number)}"


@dataclass(frozen=True)
class RunJob(Remedy):
    """Run another job of this package, such as "import", with a `setting` if it matters.

    `why` says what it does here, such as "bring the data into that form".
    """

    job: str
    why: str
    setting: str = ""
    value: Any = True

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "bring the data into that form with `napari-msp import`"."""
        return f"{self.why} with `{words.job(self.job, self.setting, self.value)}`"


@dataclass(frozen=True)
class Install(Remedy):
    """Install an optional part of this package."""

    extra: str

    def phrase(self, words: Words = PYTHON) -> str:
        """Write how, the same everywhere."""
        return f"run pip install 'napari-msp[{self.extra}]'"


@dataclass(frozen=True)
class ComputeOnCPU(Remedy):
    """Compute on the CPU instead of the GPU."""

    parameter: ClassVar[str] = "device"

    def phrase(self, words: Words = PYTHON) -> str:
        """Write it, such as "compute on the CPU (device='cpu')"."""
        return f"compute on the CPU ({words.setting('device', 'cpu')})"


@dataclass(frozen=True)
class Either(Remedy):
    """Any of several remedies, the best first."""

    remedies: tuple[Remedy, ...]

    def phrase(self, words: Words = PYTHON) -> str:
        """Join them with "or", without those whose parameter a front end does not offer."""
        named = [(getattr(each, "parameter", None), each) for each in self.remedies]
        offered = [each for name, each in named if name is None or words.offers(name)]
        return ", or ".join(each.phrase(words) for each in offered)


def either(*remedies: Remedy) -> Either:
    """Combine several remedies into alternatives, the best first."""
    return Either(remedies)


@dataclass(frozen=True)
class All(Remedy):
    """Several remedies that are all needed."""

    remedies: tuple[Remedy, ...]

    def phrase(self, words: Words = PYTHON) -> str:
        """Join them with "and"; what several have is said once."""
        said, told = dict[str, None](), list[Remedy]()
        for each in self.remedies:
            own = tuple(one for one in every(each) if one not in told)
            said[(Either(own) if isinstance(each, Either) else each).phrase(words)] = None
            told += own
        return ", and ".join(filter(None, said))


def together(errors: Sequence[UserError]) -> UserError:
    """Combine errors into one with all remedies; the first determines subject and parameter."""
    first = errors[0]
    if len(errors) == 1:
        return first
    problems = (
        each.problem if each.subject == first.subject else f"{each.subject}: {each.problem}"
        for each in errors
    )
    problem = "; ".join(dict.fromkeys(problems))
    remedies = tuple(dict.fromkeys(each.remedy for each in errors if each.remedy is not None))
    remedy = remedies[0] if len(remedies) == 1 else All(remedies)
    combined = UserError(problem, first.subject, first.field, remedy)
    combined.parts = tuple(errors)
    return combined


@contextmanager
def collected(errors: list[UserError]) -> Iterator[None]:
    """Add an error to `errors` and leave the block: one mistake must not hide the next."""
    try:
        yield
    except UserError as error:
        errors.append(error)


def every(remedy: Remedy | None) -> Iterable[Remedy]:
    """Yield a remedy, or those of an `Either` or `All`, one by one."""
    if isinstance(remedy, Either | All):
        for each in remedy.remedies:
            yield from every(each)
    elif remedy is not None:
        yield remedy


def choice_in(remedy: Remedy | None) -> Choose | None:
    """Return the choice that would help, alone or among other remedies; None if there is none."""
    return next((each for each in every(remedy) if isinstance(each, Choose)), None)


REMEDIES: dict[str, type[Remedy]] = {
    kind.__name__: kind
    for kind in (*Remedy.__subclasses__(), *Allow.__subclasses__())
    if kind is not Allow
}
"""Kinds of remedy by their names in JSON."""


class UserError(Exception):
    """A mistake that the user can correct.

    Parameters
    ----------
    problem
        What is wrong, in words that follow "dwi.nii.gz: ", such as "has several shells (b = 1000,
        2000)". Names no parameter and no option.
    subject
        The file or folder concerned, or anything else with a name, such as a prediction.
    field
        Python name of the parameter concerned.
    remedy
        Remedy to offer.

    Attributes
    ----------
    parts
        The errors that it combines, see `together`; of which each may concern another parameter.

    Examples
    --------
    >>> shells = Choose("b_value", (1000, 2000))
    >>> str(UserError("has several shells", "dwi.nii.gz", "b_value", shells))
    'dwi.nii.gz: has several shells; choose from 1000, 2000 with b_value='
    """

    def __init__(
        self,
        problem: str,
        subject: str | os.PathLike[str] | None = None,
        field: str | None = None,
        remedy: Remedy | None = None,
    ) -> None:
        super().__init__(problem)
        self.parts: tuple[UserError, ...] = ()
        self.problem = problem
        self.subject = None if subject is None else os.fspath(subject)
        self.field = field
        self.remedy = remedy

    def phrase(self, words: Words = PYTHON, subject: str | None = None) -> str:
        """Write the whole error in one line of a front end's words.

        Parameters
        ----------
        subject
            Other name for the subject, such as a file's name without its folders.
        """
        lead = subject or self.subject
        if lead is None and self.field is not None:
            lead = words.parameter(self.field)
        said = self.problem if lead is None else f"{lead}: {self.problem}"
        helps = "" if self.remedy is None else self.remedy.phrase(words)
        if helps:
            said += f"; {helps}"
        # One line; but spaces inside a path are part of the path.
        return " ".join(line.strip() for line in said.splitlines())

    def __str__(self) -> str:
        return self.phrase()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.subject, self.field, self.remedy)


class OutOfMemory(UserError):
    """The machine or its GPU has too little memory."""


class DeviceLost(UserError):
    """A GPU failed or disappeared."""


class Unexpected(UserError):
    """An unforeseen error, so probably a bug."""


class ToldElsewhere(UserError):
    """An error that another process of the same job reports, so that it is reported once."""

    @classmethod
    def of(cls, error: UserError) -> ToldElsewhere:
        """Make one from the other process's error."""
        return cls(error.problem, error.subject, error.field, error.remedy)


FAMILY: dict[str, type[UserError]] = {
    kind.__name__: kind for kind in (UserError, OutOfMemory, DeviceLost, Unexpected, ToldElsewhere)
}


class Doubt(UserWarning):
    """A doubt that does not stop a job; each kind is a class of its own.

    Parameters
    ----------
    words
        What is doubtful, in words that follow "dwi.nii.gz: ".
    subject, field
        As in a `UserError`.

    Examples
    --------
    >>> str(Doubt("is left out", "dwi.nii.gz"))
    'dwi.nii.gz: is left out'
    """

    def __init__(
        self, words: str, subject: str | os.PathLike[str] | None = None, field: str | None = None
    ) -> None:
        super().__init__(words if subject is None else f"{os.fspath(subject)}: {words}")
        self.words = words
        self.subject = None if subject is None else os.fspath(subject)
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.words, self.subject, self.field)

    def __eq__(self, other: object) -> bool:
        """Compare words and subject, as files keep neither kinds nor fields."""
        if not isinstance(other, Doubt):
            return False
        return (self.words, self.subject) == (other.words, other.subject)

    def __hash__(self) -> int:
        return hash((self.words, self.subject))

    def beside(self, file: str | os.PathLike[str]) -> str:
        """Return it for a reader who sees the name of a file, which is not repeated."""
        of_it = Path(self.subject or "").name == Path(file).name
        return self.words if of_it else str(self)


class Cancelled(Exception):
    """The caller asked a running job to stop."""


Poll = Callable[[], bool]
"""Function that a running job calls often; it returns whether the job should stop."""

Progress = Callable[[str, int, int], None]
"""Function that a running job calls with what it has done, how many are done, and their total."""


def stop_if(cancelled: Poll | None) -> None:
    """Raise `Cancelled` if the caller wants the job to stop; with None, never."""
    if cancelled is not None and cancelled():
        raise Cancelled


def reporter(progress: Callable[..., None] | None, cancelled: Poll | None) -> Callable[..., None]:
    """Return a function that ends a job that is to stop, and else passes its progress on."""

    def report(*done: object) -> None:
        stop_if(cancelled)
        if progress is not None:
            progress(*done)

    return report


INTERRUPTED = 130
"""Exit status of a process that was interrupted."""


def _through(parameter: str, words: Words) -> str:
    """Write the parameter if a front end has it."""
    return f" with {words.parameter(parameter)}" if words.offers(parameter) else ""


def _short(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
