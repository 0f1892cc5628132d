"""The events of a training run so far, ready to be drawn. No Qt."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.learning.events import (
    Aligned,
    Event,
    Failed,
    Finished,
    Shortened,
    Started,
    StartedFrom,
    Step,
    Stopped,
    Validated,
    kind_and_targets,
)
from napari_msp.networks.registry import title

SMOOTHED_PART = 25
"""A loss is averaged over the last 1/25 of its phase, but at least over `SMOOTHED_STEPS`."""

SMOOTHED_STEPS = 8


@dataclass(frozen=True)
class Stretch:
    """A stretch of steps: its name, and positions of its steps in the history."""

    name: str
    start: int
    stop: int


class RunHistory:
    """The events of one run, also of one that was stopped and resumed.

    Attributes
    ----------
    started, last
        Latest `Started` and latest `Step`, if there were any.
    begun
        Start of the weights, if it was a model; after Resume the one that was measured.
    aligned
        Error of statistical alignment on each target: the line to beat.
    finished
        End of the run, if it has ended, with the errors of the kept weights.
    broken_off
        Whether it was stopped, or failed, and has not gone on.
    """

    def __init__(self) -> None:
        self.started: Started | None = None
        self.last: Step | None = None
        self.begun: StartedFrom | None = None
        self.aligned: dict[str, float] = {}
        self.finished: Finished | None = None
        self.broken_off = False
        self._validated: list[Validated] = []
        self._steps, self._losses, self._alphas = array("d"), array("d"), array("d")
        self._phases: list[tuple[str, int]] = []

    def add(self, event: Event) -> None:
        """Record an event; those that show nothing are ignored."""
        if isinstance(event, Step):
            if not self._phases or self._phases[-1][0] != event.phase:
                self._phases.append((event.phase, len(self._steps)))
            self._steps.append(event.step)
            self._losses.append(event.loss)
            self._alphas.append(np.nan if event.alpha is None else event.alpha)
            self.last = event
        elif isinstance(event, Validated):
            self._validated.append(event)
        elif isinstance(event, Aligned):
            self.aligned = {**event.validation, **event.errors}
        elif isinstance(event, Shortened) and self.started is not None:
            self.started = replace(self.started, steps=event.steps)
        elif isinstance(event, StartedFrom):
            self.begun = event if event.errors or self.begun is None else self.begun
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Stopped | Failed):
            self.broken_off = True
        elif isinstance(event, Started):
            self.started, self.finished, self.broken_off = event, None, False
            self._forget_after(event.resumed_at)

    def _forget_after(self, step: int) -> None:
        """Drop what came after a checkpoint: the run goes on from there and repeats it."""
        kept = int(np.searchsorted(self.steps, step, side="right"))
        for values in (self._steps, self._losses, self._alphas):
            del values[kept:]
        self._phases = [(name, start) for name, start in self._phases if start < kept]
        self._validated = [each for each in self._validated if 0 < each.step <= step]
        if not kept:
            self.last = None

    @property
    def steps(self) -> FloatArray:
        """Step of each loss, (N,), counted over all phases."""
        return np.array(self._steps)

    @property
    def losses(self) -> FloatArray:
        """Losses, (N,), as reported."""
        return np.array(self._losses)

    @property
    def alphas(self) -> FloatArray:
        """α of equation (1), (N,); nan while single networks are trained."""
        return np.array(self._alphas)

    @property
    def phases(self) -> list[Stretch]:
        """Phases that have begun, in order."""
        starts = [*self._phases, ("", len(self._steps))]
        return [Stretch(name, start, stop) for (name, start), (_, stop) in pairwise(starts)]

    def by_phase(self, values: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Return the steps of each phase, and its part of (N,) values."""
        steps, parts = self.steps, [slice(phase.start, phase.stop) for phase in self.phases]
        return [(steps[part], values[part]) for part in parts]

    @property
    def borders(self) -> list[float]:
        """Beginnings of phases, between two steps."""
        return [self._steps[start] - 0.5 for _, start in self._phases]

    @property
    def targets(self) -> list[str]:
        """Targets with an error or a line to beat."""
        validated = (t for each in self._validated for t in (*each.errors, *each.validation))
        return list(dict.fromkeys((*self.aligned, *validated)))

    def errors(self, target: str) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield steps and errors of a target, separately for each phase that trained it.

        The errors are on held-out subjects; if there are none, on validation subjects.
        """
        held_out = any(target in each.errors for each in self._validated)
        return self._curves(target, "errors" if held_out else "validation")

    def validation(self, target: str) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield the same on validation subjects, if `errors` has held-out ones."""
        if any(target in each.errors for each in self._validated):
            yield from self._curves(target, "validation")

    def kept(self, target: str) -> float | None:
        """Return a target's error in the finished model, on the subjects of `errors`, if known."""
        if self.finished is None:
            return None
        return {**self.finished.validation, **self.finished.errors}.get(target)

    @property
    def measured_on(self) -> str:
        """Kind of subjects whose errors are shown first."""
        only = self.started is not None and self.started.validation and not self.started.held_out
        return "Validation" if only else "Held-out"

    def _curves(self, target: str, which: str) -> Iterator[tuple[FloatArray, FloatArray]]:
        phases: dict[str, list[tuple[int, float]]] = {}
        for each in self._validated:
            of_targets: dict[str, float] = getattr(each, which)
            if target in of_targets:
                phases.setdefault(each.phase, []).append((each.step, of_targets[target]))
        for points in phases.values():
            steps, errors = np.array(points, dtype=float).T
            yield steps, errors


def phase_title(phase: str, between: str = " ") -> str:
    """Return a phase's title with its network's, such as "SHResNet prisma_st"."""
    kind, targets = kind_and_targets(phase)
    return f"{title(kind)}{between}{targets[0] if len(targets) == 1 else 'all targets'}"


def smoothed(losses: FloatArray) -> FloatArray:
    """Average each loss of one phase with those just before it.

    Losses of different phases have different terms and must not be averaged.
    """
    window = min(len(losses), max(SMOOTHED_STEPS, len(losses) // SMOOTHED_PART))
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
