"""What has happened in a run, in words: no Qt."""

from __future__ import annotations

from napari_msp.learning.events import (
    Aligned,
    Event,
    Failed,
    Finished,
    Started,
    Step,
    Stopped,
    Validated,
)


class RunStory:
    """Takes the events of a run in their order; tells where it is.

    Attributes
    ----------
    started, step
        Last of their kind; None before.
    ending
        What ended it: `Stopped`, `Failed`, `Finished`; None while it runs.
    """

    def __init__(self) -> None:
        self.started: Started | None = None
        self.step: Step | None = None
        self.ending: Stopped | Failed | Finished | None = None
        self._aligned: dict[str, float] = {}
        self._errors: dict[str, float] = {}

    def add(self, event: Event) -> None:
        """Hear of one event."""
        match event:
            case Started():
                self.started, self.ending = event, None
            case Step():
                self.step = event
            case Aligned():
                self._aligned = event.errors
            case Validated():
                self._errors |= event.errors
            case Stopped() | Failed() | Finished():
                self.ending = event

    @property
    def done(self) -> tuple[int, int]:
        """Steps done, and steps of the whole run."""
        if self.started is None:
            return 0, 0
        at = self.started.resumed_at if self.step is None else self.step.step
        return max(at, self.started.resumed_at), self.started.steps

    @property
    def where(self) -> str:
        """Such as "msp prisma_st · epoch 3 · step 12 of 90 · loss 0.012 · α 0.40 · on cpu"."""
        if self.started is None:
            return ""
        done, steps = self.done
        parts = [f"step {done:,} of {steps:,}", f"on {self.started.device}"]
        if self.step is not None:
            parts[:0] = [self.step.phase, f"epoch {self.step.epoch}"]
            parts[3:3] = [f"loss {self.step.loss:.3g}"]
            if self.step.alpha is not None:
                parts[4:4] = [f"α {self.step.alpha:.2f}"]
        return " · ".join(parts)

    @property
    def what(self) -> str:
        """Such as "diqt, preset fast, on cpu: 3 subjects, sub-04 held out, 12,345 weights"."""
        if self.started is None:
            return ""
        held_out = ", ".join(self.started.held_out) or "none"
        return (
            f"{self.started.kind}, preset {self.started.preset}: learns from "
            f"{len(self.started.subjects)} subjects, {held_out} held out; "
            f"{self.started.parameters:,} weights"
        )

    @property
    def comparisons(self) -> list[str]:
        """Held-out error of each target beside alignment's: the line to beat."""
        return [
            f"{target}: {error:.1e}" + _beside(error, self._aligned.get(target))
            for target, error in self._errors.items()
        ]

    @property
    def state(self) -> str:
        """How it ended, in a sentence; empty while it runs."""
        match self.ending:
            case Stopped(step=step):
                return f"Stopped at step {step:,} of {self.done[1]:,}."
            case Failed(message=message):
                return f"Failed: {message}"
            case Finished(seconds=seconds):
                return f"Finished after {_duration(seconds)} of training."
        return ""


def _beside(error: float, aligned: float | None) -> str:
    if not aligned:
        return ""
    gain = round(100 * (1 - error / aligned))
    words = f"{abs(gain)} % {'better' if gain > 0 else 'worse'}" if gain else "no better"
    return f", alignment {aligned:.1e}: {words}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
