"""What a training run tells whoever watches: one typed stream, also as JSON lines."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Anything that a run reports.

    Attributes
    ----------
    name
        The event's kind in the JSON lines.
    """

    name: ClassVar[str] = "event"

    def to_json(self) -> str:
        """Give one line of JSON."""
        return json.dumps({"event": self.name, **asdict(self)})


@dataclass(frozen=True)
class Started(Event):
    """The run begins, or goes on from a checkpoint.

    Attributes
    ----------
    kind, preset, device
        What is trained, by which recipe, where.
    subjects, held_out
        Who is trained on, and who is kept out of weights and statistics alike.
    phases
        Names of the phases in order.
    parameters
        Number of trained weights of the finished model.
    steps
        Steps of the whole run.
    resumed_at
        Steps done before, 0 for a new run.
    """

    name: ClassVar[str] = "started"
    kind: str
    preset: str
    device: str
    subjects: list[str]
    held_out: list[str]
    phases: list[str]
    parameters: int
    steps: int
    resumed_at: int


@dataclass(frozen=True)
class Aligned(Event):
    """The line to beat: held-out subjects were predicted by statistical alignment.

    Attributes
    ----------
    errors
        For each target, measured as in `Validated`.
    """

    name: ClassVar[str] = "aligned"
    errors: dict[str, float]


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
    learning_rate
        Of this step.
    alpha
        α of eq. (1); None while single networks are trained.
    throughput
        Input voxels a second over the last steps.
    time_left
        Seconds to the end of the run at the present speed.
    """

    name: ClassVar[str] = "step"
    phase: str
    epoch: int
    step: int
    loss: float
    learning_rate: float
    alpha: float | None
    throughput: float
    time_left: float


@dataclass(frozen=True)
class Validated(Event):
    """Held-out subjects were predicted whole. Nothing is chosen by the result.

    Attributes
    ----------
    seconds
        Training time so far, validation not counted.
    errors
        For each target, the mean squared error of the SH coefficients over in-mask voxels.
    """

    name: ClassVar[str] = "validated"
    phase: str
    epoch: int
    step: int
    seconds: float
    errors: dict[str, float]


@dataclass(frozen=True)
class Previewed(Event):
    """The first held-out subject's prediction by the network as it is now was written.

    Attributes
    ----------
    phase, epoch, step
        Where the run is; epoch 0 is the untrained network.
    target
        Platform that is predicted.
    path
        SH image; the next preview of this target takes its place.
    """

    name: ClassVar[str] = "previewed"
    phase: str
    epoch: int
    step: int
    target: str
    path: str


@dataclass(frozen=True)
class Checkpointed(Event):
    """The state was written to `path`."""

    name: ClassVar[str] = "checkpointed"
    step: int
    path: str


@dataclass(frozen=True)
class Stopped(Event):
    """The run obeyed a request to stop; `path` continues it."""

    name: ClassVar[str] = "stopped"
    step: int
    path: str


@dataclass(frozen=True)
class Failed(Event):
    """The run cannot go on."""

    name: ClassVar[str] = "failed"
    message: str


@dataclass(frozen=True)
class Finished(Event):
    """The model is written.

    Attributes
    ----------
    path
        Model file.
    seconds
        Training time, validation not counted.
    errors
        As of the last validation; empty without held-out subjects.
    """

    name: ClassVar[str] = "finished"
    path: str
    seconds: float
    errors: dict[str, float] = field(default_factory=dict)


EventHandler = Callable[[Event], None]

EVENTS: dict[str, type[Event]] = {
    event.name: event
    for event in (
        Started,
        Aligned,
        Step,
        Validated,
        Previewed,
        Checkpointed,
        Stopped,
        Failed,
        Finished,
    )
}


def parse_event(line: str) -> Event:
    """Read a line that `Event.to_json` gave.

    Raises
    ------
    ValueError
        When it is no event.
    """
    content: Any = json.loads(line)
    name = content.pop("event", None) if isinstance(content, dict) else None
    if name not in EVENTS:
        raise ValueError(f"unknown event {name!r}")
    try:
        return EVENTS[name](**content)
    except TypeError as error:
        raise ValueError(f"malformed event {name!r}: {error}") from error
