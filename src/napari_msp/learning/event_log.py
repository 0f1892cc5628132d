"""Events in a file, one a line: written as they happen, read back as one story."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from napari_msp.errors import UserError
from napari_msp.learning.events import Checkpointed, Event, Started, Step, parse_event

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
        self._stream.write(event.to_json().encode() + b"\n")
        self._stream.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()


def read_events(path: Path) -> list[Event]:
    """Read events back as one story: what a resumed run did again is told once.

    Parameters
    ----------
    path
        May be missing: nothing has happened. A torn last line is passed over.

    Raises
    ------
    UserError
        When another line is damaged.
    """
    story: list[Event] = []
    for number, line in enumerate(_whole_lines(path).splitlines(), start=1):
        event = _parsed(line, path, number)
        if isinstance(event, Started):
            story = _until_checkpoint(story, event.resumed_at)
        story.append(event)
    return story


def last_event(path: Path) -> Event | None:
    """Give the last event alone, as `read_events` would; None where there is none."""
    lines = _whole_lines(path).splitlines()
    return _parsed(lines[-1], path, len(lines)) if lines else None


def _parsed(line: bytes, path: Path, number: int) -> Event:
    try:
        return parse_event(line.decode())
    except ValueError as error:
        raise UserError(
            f"{path}: line {number} is damaged; remove the line (only curves are lost)"
        ) from error


def _until_checkpoint(story: list[Event], step: int) -> list[Event]:
    """Leave out what happened after the checkpoint of a step."""
    written = [
        index
        for index, event in enumerate(story)
        if isinstance(event, Checkpointed) and event.step == step
    ]
    if written:
        return story[: written[-1] + 1]
    # Killed after the checkpoint was written, before it was told.
    return [event for event in story if getattr(event, "step", 0) <= step]


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
