"""The events of a training run, as JSON lines in a file and on a pipe."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from napari_msp.errors import Advice, UserError
from napari_msp.files import no_room
from napari_msp.foreign_errors import error_from_json, error_to_json, explain, first_reason
from napari_msp.strict_json import parse_json, read_whole

Count = Annotated[int, Field(ge=0)]
"""A number of steps, epochs or weights."""

EVENTS: dict[str, type["Event"]] = {}
"""All kinds of event by name."""


@dataclass(frozen=True)
class Event:
    """Any report of a run; `name` is its kind in the JSON lines."""

    name: ClassVar[str] = "event"

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # where a line is read

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()
        EVENTS[cls.name] = cls

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({"event": self.name, **asdict(self)})


@dataclass(frozen=True)
class Started(Event):
    """The run begins, or continues from a checkpoint.

    Attributes
    ----------
    subjects, held_out, validation
        Subjects for training, for the final measurement only, and for choosing weights and the end.
    parameters
        Number of trained weights of the finished model.
    resumed_at
        Steps done before; 0 for a new run.
    taught
        Training subjects of each target.
    start
        Start of the weights: "nothing", "base", or a file's name.
    processes
        Number of processes that train together, each on a device like this one.
    advice
        What to know beforehand, such as what fits a time or would be cheaper, a sentence each.
    """

    kind: str
    preset: str
    device: str
    subjects: list[str]
    held_out: list[str]
    phases: list[str]
    parameters: Count
    steps: Count
    resumed_at: Count
    taught: dict[str, list[str]] = field(default_factory=dict)
    start: str = "nothing"
    validation: list[str] = field(default_factory=list)
    processes: Count = 1
    advice: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StartedFrom(Event):
    """The start of the weights, and how good it is before the first step.

    Attributes
    ----------
    model, sha256, label
        Name of the model ("base" or a file's), its digest, and its purpose; "nothing" if the base
        does not fit.
    platforms
        Platform of the model from which each target's network begins; other targets begin from
        nothing.
    notes
        Reasons for that, a line per target.
    doubts
        Doubts about it, which are also warned of.
    errors, aligned
        SH MSE of each target on the training heads, of the network before the first step and of
        statistical alignment; empty if a run continues.
    """

    model: str
    sha256: str = ""
    label: str = ""
    platforms: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    aligned: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aligned(Event):
    """Statistical alignment, the baseline to beat: errors by target, measured as in `Validated`."""

    errors: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step is done.

    Attributes
    ----------
    phase, epoch, step
        Position of the run; `step` counts over all phases, from 1.
    loss
        Mean squared error over in-mask voxels and standardised channels (fast preset: weighted to
        SH units), summed over outputs.
    alpha
        α of eq. (1); None while single networks are trained.
    throughput
        Input voxels per second over the last steps.
    time_left
        Seconds to the end of the run at the current speed.
    """

    phase: str
    epoch: Count
    step: Count
    loss: float
    learning_rate: float
    alpha: float | None
    throughput: float
    time_left: float


@dataclass(frozen=True)
class Validated(Event):
    """Whole heads outside the training were predicted.

    Attributes
    ----------
    seconds
        Training time so far, validation not counted.
    errors
        For each target, the mean squared error of the SH coefficients over in-mask voxels of the
        held-out subjects. Nothing is chosen by it.
    validation
        The same for the validation subjects, which decide on weights and the end.
    """

    phase: str
    epoch: Count
    step: Count
    seconds: float
    errors: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shortened(Event):
    """A phase ends early, as it no longer improves; `steps` are those of the whole run."""

    phase: str
    epoch: Count
    step: Count
    steps: Count


@dataclass(frozen=True)
class Previewed(Event):
    """The current network predicted the first held-out or else validation subject.

    Attributes
    ----------
    phase, epoch, step
        Position of the run; epoch 0 is the untrained network.
    path
        SH image, which the next preview of this target replaces.
    """

    phase: str
    epoch: Count
    step: Count
    target: str
    path: str


@dataclass(frozen=True)
class Checkpointed(Event):
    """The state was written to `path`."""

    step: Count
    path: str


@dataclass(frozen=True)
class Stopped(Event):
    """The run stopped as requested; `path` continues it."""

    step: Count
    path: str


@dataclass(frozen=True)
class Failed(Event):
    """The run cannot continue; `reason` is an error's `to_json`."""

    reason: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        """Report an error of any kind."""
        return cls(json.loads(json.dumps(error_to_json(explain(error)))))

    @property
    def error(self) -> UserError:
        """The error that ended the run."""
        return error_from_json(self.reason)


@dataclass(frozen=True)
class Finished(Event):
    """The model is written.

    Attributes
    ----------
    seconds
        Training time, validation not counted.
    errors
        Errors of the kept weights on the held-out subjects; empty without any.
    ended
        How each phase ended, in words: whether its last tenth still improved, by what measure, and
        which weights were kept.
    validation
        The same as `errors` on the validation subjects.
    """

    path: str
    seconds: float
    errors: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def endings(self) -> dict[str, list[str]]:
        """Phases by how they ended, so that a common ending is written once."""
        found: dict[str, list[str]] = {}
        for phase, words in self.ended.items():
            found.setdefault(words, []).append(phase)
        return found


EventHandler = Callable[[Event], None]


def phase_name(kind: str, *targets: str) -> str:
    """Name a phase by the network that it trains: "msp prisma_st+connectom_st" for two targets."""
    return f"{kind} {'+'.join(targets)}"


def kind_and_targets(phase: str) -> tuple[str, tuple[str, ...]]:
    """Return the arguments of `phase_name`; a platform's name has neither space nor "+"."""
    kind, _, targets = phase.rpartition(" ")
    return kind, tuple(targets.split("+"))


def parse_event(line: str | bytes) -> Event:
    """Read a line written by `Event.to_json`."""
    content = parse_json(line, "keep")
    name = content.pop("event", None) if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in EVENTS:
        raise ValueError(f"unknown event {name!r:.40}")
    try:
        # As JSON, in which 1.0 and true are not integers.
        event = _reader(name).validate_json(json.dumps(content))
        if isinstance(event, Failed):
            event.error  # noqa: B018 - a reason that cannot be read is malformed
        return event
    except ValueError as error:
        raise ValueError(f"malformed event {name!r}: {first_reason(error)}") from error


@cache
def _reader(name: str) -> TypeAdapter[Event]:
    return TypeAdapter(EVENTS[name])


MOST_STEPS = 10_000
"""Approximate number of steps of a run that are logged: a curve shows no more."""


class EventLog(AbstractContextManager["EventLog"]):
    """Appends events to a file; each is complete as soon as it is written.

    Parameters
    ----------
    path
        Log file. A torn last line, left by a process killed while writing it, is removed.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("ab")
        self._stream.truncate(len(_whole_lines(path)))
        self._every = 1

    def write(self, event: Event) -> None:
        """Append one event; of a long run's steps only some."""
        if isinstance(event, Started):
            self._every = max(1, event.steps // MOST_STEPS)
        if isinstance(event, Step) and event.step % self._every:
            return
        try:
            self._stream.write(event.to_json().encode() + b"\n")
            self._stream.flush()
        except OSError as failure:
            raise no_room(self._stream.name, failure.strerror) from failure

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with nullcontext() if error is None else suppress(OSError):  # what was not written remains
            self._stream.close()


def read_events(path: Path) -> list[Event]:
    """Read events as one story: what a resumed run repeated counts once.

    Parameters
    ----------
    path
        Log file; if missing, nothing has happened. A torn last line is ignored.
    """
    story: list[Event] = []
    for number, line in enumerate(_whole_lines(path).splitlines(), start=1):
        event = _parsed(line, path, number)
        if isinstance(event, Started):
            story = _until_checkpoint(story, event.resumed_at)
        story.append(event)
    return story


def last_event(path: Path) -> Event | None:
    """Return the last event only, as `read_events` would; None without events."""
    lines = _whole_lines(path).splitlines()
    return _parsed(lines[-1], path, len(lines)) if lines else None


def _parsed(line: bytes, path: Path, number: int) -> Event:
    try:
        return parse_event(line)
    except ValueError as error:
        remedy = Advice("remove the line (only curves are lost)")
        raise UserError(f"line {number} is damaged", path, remedy=remedy) from error


def _until_checkpoint(story: list[Event], step: int) -> list[Event]:
    """Return the events without those after the checkpoint of a step."""
    written = [
        index
        for index, event in enumerate(story)
        if isinstance(event, Checkpointed) and event.step == step
    ]
    if written:
        return story[: written[-1] + 1]
    # Killed after the checkpoint was written, before that was reported.
    return [event for event in story if getattr(event, "step", 0) <= step]


LARGEST_LOG = 200_000_000
"""Largest size of a log in bytes; a run of many phases writes a hundredth."""


def _whole_lines(path: Path) -> bytes:
    content = read_whole(path, LARGEST_LOG) if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
