"""What a training run reports: typed events, as JSON lines in a file and on a pipe."""

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
from napari_msp.foreign_errors import explain, first_reason
from napari_msp.strict_json import parse_json, read_whole

Count = Annotated[int, Field(ge=0)]
"""Of steps, epochs or weights."""

EVENTS: dict[str, type["Event"]] = {}
"""Every kind of event by its name."""


@dataclass(frozen=True)
class Event:
    """Anything that a run reports; `name` is its kind in the JSON lines."""

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
    """The run begins, or goes on from a checkpoint.

    Attributes
    ----------
    subjects, held_out, validation
        Who is trained on, who touches nothing, and who chooses the weights and ends the run.
    parameters
        Number of trained weights of the finished model.
    resumed_at
        Steps done before, 0 for a new run.
    taught
        Training subjects that each target is learned from.
    start
        What the weights begin as: "nothing", "base", or a file's name.
    processes
        That train together, each on a device like this one.
    advice
        What may do as well in less time, a sentence each.
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
    """What the weights begin as, and how good that is before the first step.

    Attributes
    ----------
    model, sha256, label
        Name of the model, "base" or a file's, its digest, and what it is for; "nothing" where the
        base does not fit.
    platforms
        Platform of it that each target's network begins as; other targets begin from nothing.
    notes
        How that was decided, a line a target.
    doubts
        What speaks against it; warned of, too.
    errors, aligned
        SH MSE of each target on the training heads, of the network before the first step and of
        statistical alignment; empty where a run goes on.
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
    """The line to beat, statistical alignment: its errors by target, measured as in `Validated`."""

    errors: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step is done.

    Attributes
    ----------
    phase, epoch, step
        Where the run is; `step` counts over all phases, from 1.
    loss
        Mean squared error over in-mask voxels and standardised channels (fast preset: weighted to
        SH units), summed over outputs.
    alpha
        α of eq. (1); None while single networks are trained.
    throughput
        Input voxels a second over the last steps.
    time_left
        Seconds to the end of the run at the present speed.
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
    """Subjects that are not learned from were predicted whole.

    Attributes
    ----------
    seconds
        Training time so far, validation not counted.
    errors
        For each target, the mean squared error of the SH coefficients over in-mask voxels of the
        held-out subjects. Nothing is chosen by it.
    validation
        The same of the validation subjects, by which weights are chosen and the run is ended.
    """

    phase: str
    epoch: Count
    step: Count
    seconds: float
    errors: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shortened(Event):
    """A phase will end early, as nothing is gained any more; `steps` are then of the whole run."""

    phase: str
    epoch: Count
    step: Count
    steps: Count


@dataclass(frozen=True)
class Previewed(Event):
    """The first held-out subject, else validation subject, was predicted by the present network.

    Attributes
    ----------
    phase, epoch, step
        Where the run is; epoch 0 is the untrained network.
    path
        SH image; the next preview of this target takes its place.
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
    """The run obeyed a request to stop; `path` continues it."""

    step: Count
    path: str


@dataclass(frozen=True)
class Failed(Event):
    """The run cannot go on; `reason` is an error's `to_json`."""

    reason: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        """Report an error of any kind."""
        return cls(json.loads(json.dumps(explain(error).to_json())))

    @property
    def error(self) -> UserError:
        """The error that ended the run."""
        return UserError.from_json(self.reason)


@dataclass(frozen=True)
class Finished(Event):
    """The model is written.

    Attributes
    ----------
    seconds
        Training time, validation not counted.
    errors
        On the held-out subjects, of what was kept; empty without any.
    ended
        How each phase ended, in words: whether its last tenth still gained, by what measure, and
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
        """Phases by how they ended: what is true of several is said once."""
        found: dict[str, list[str]] = {}
        for phase, words in self.ended.items():
            found.setdefault(words, []).append(phase)
        return found


EventHandler = Callable[[Event], None]


def phase_name(kind: str, *targets: str) -> str:
    """Name a phase by the network that it trains: "msp prisma_st+connectom_st" for two targets."""
    return f"{kind} {'+'.join(targets)}"


def kind_and_targets(phase: str) -> tuple[str, tuple[str, ...]]:
    """Return what `phase_name` was made from; a platform's name has neither space nor "+"."""
    kind, _, targets = phase.rpartition(" ")
    return kind, tuple(targets.split("+"))


def parse_event(line: str | bytes) -> Event:
    """Read a line that `Event.to_json` gave."""
    content = parse_json(line, "keep")
    name = content.pop("event", None) if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in EVENTS:
        raise ValueError(f"unknown event {name!r:.40}")
    try:
        # As JSON, in which 1.0 and true are no whole numbers.
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
"""About as many steps of a run are kept: a curve shows no more, and a long run has millions."""


class EventLog(AbstractContextManager["EventLog"]):
    """Append events to a file; each is there as soon as it is written.

    Parameters
    ----------
    path
        A torn last line, left by whoever was killed while writing it, is taken away.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("ab")
        self._stream.truncate(len(_whole_lines(path)))
        self._every = 1

    def write(self, event: Event) -> None:
        """Append one event; of a long run's steps only every so many."""
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
    """Read events back as one story: what a resumed run did again counts once.

    Parameters
    ----------
    path
        May be missing: nothing has happened. A torn last line is passed over.
    """
    story: list[Event] = []
    for number, line in enumerate(_whole_lines(path).splitlines(), start=1):
        event = _parsed(line, path, number)
        if isinstance(event, Started):
            story = _until_checkpoint(story, event.resumed_at)
        story.append(event)
    return story


def last_event(path: Path) -> Event | None:
    """Return the last event alone, as `read_events` would; None where there is none."""
    lines = _whole_lines(path).splitlines()
    return _parsed(lines[-1], path, len(lines)) if lines else None


def _parsed(line: bytes, path: Path, number: int) -> Event:
    try:
        return parse_event(line)
    except ValueError as error:
        remedy = Advice("remove the line (only curves are lost)")
        raise UserError(f"line {number} is damaged", path, remedy=remedy) from error


def _until_checkpoint(story: list[Event], step: int) -> list[Event]:
    """Leave out what happened after the checkpoint of a step."""
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
"""Bytes; a run of many phases writes a hundredth."""


def _whole_lines(path: Path) -> bytes:
    content = read_whole(path, LARGEST_LOG) if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
