"""The history of a phase, epoch by epoch: whether it can improve, and what its last tenth gained.

Steps are weighted by their learning rate: where it falls to 0, any curve ends flat, however much
there would be to learn.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LEAST_GAIN = 0.005
"""Share of the validation error that counts as an improvement during a phase (our choice)."""

COARSE = 0.2
"""Largest share of the learning that may stand for a tenth, as epochs may be long (our choice)."""

STILL = 0.01
"""Share that the last tenth must have gained for more steps to be advised (our choice)."""

FEWEST = 10
"""Steps of a tenth below which its training loss means nothing: examples differ by step."""

DEVIATIONS = 2
"""Standard errors that a fall of the training loss must exceed: examples differ by step."""


class Trail(BaseModel):
    """The history of a phase.

    Attributes
    ----------
    ends
        Steps done in the phase at the end of each epoch.
    losses, spreads
        Mean and standard deviation of the training loss over the steps of each epoch.
    errors
        Errors on the validation subjects of the weights that would be kept, see `mean_error`; empty
        without such subjects.
    before
        Error before the first step of a phase that starts from a trained model.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    ends: list[int] = Field(default_factory=list)
    losses: list[float] = Field(default_factory=list)
    spreads: list[float] = Field(default_factory=list)
    rates: list[float] = Field(default_factory=list)
    errors: list[float] = Field(default_factory=list)
    before: float | None = None

    def add(
        self, step: int, total: float, squares: float, rates: float, error: float | None
    ) -> None:
        """Add an epoch.

        Parameters
        ----------
        total, squares, rates
            Sums of its losses, of their squares, and of its learning rates.
        error
            Error on the validation subjects; None without such subjects.
        """
        count = step - (self.ends[-1] if self.ends else 0)
        mean = total / count
        self.ends.append(step)
        self.losses.append(mean)
        self.spreads.append(math.sqrt(max(0.0, squares / count - mean**2)))
        self.rates.append(rates)
        if error is not None:
            self.errors.append(error)

    @property
    def at_its_best(self) -> bool:
        """Whether no epoch before the last one had as small an error."""
        *before, last = self._all_errors
        return not before or last < min(before)

    def stalled(self, patience: int) -> bool:
        """Return whether the validation error has not improved for `patience` epochs."""
        best, since = math.inf, 0
        for error in self._all_errors:
            gained = error < (1 - LEAST_GAIN) * best
            best, since = (error, 0) if gained else (best, since + 1)
        return since >= patience

    def last_tenth(self) -> "Gain | None":
        """Return what the last tenth of the learning gained.

        None if epochs are so few that the last is more than two tenths; without validation, if a
        tenth has too few steps.
        """
        last = self._tenth_before(len(self.ends))
        if last == 0 or self._too_coarse(last, len(self.ends)):
            return None
        if self.errors:
            first = self._all_errors[: len(self._all_errors) - len(self.ends) + last]
            before, after = min(first), min(self._all_errors)
            gain = 1 - after / before if math.isfinite(before) and before > 0 else 0.0
            return Gain("validation", gain, STILL)
        tenth_before = self._tenth_before(last)
        if self._too_coarse(tenth_before, last):
            return None
        earlier, before, spread = self._steps(tenth_before, last)
        later, after, spread_after = self._steps(last, len(self.ends))
        if min(earlier, later) < FEWEST or before <= 0:
            return None
        pooled = (spread + spread_after) / (earlier + later - 2)
        noise = math.sqrt(pooled * (1 / earlier + 1 / later))
        certain = DEVIATIONS * noise / before
        return Gain("loss", 1 - after / before, max(STILL, certain))

    def _tenth_before(self, stop: int) -> int:
        """Return the epoch from which a tenth of the learning is done until another one."""
        tenth, start = sum(self.rates) / 10, stop
        while start > 0 and sum(self.rates[start:stop]) < (1 - 1e-9) * tenth:
            start -= 1
        return max(0, min(start, stop - 1))

    def _too_coarse(self, start: int, stop: int) -> bool:
        return sum(self.rates[start:stop]) > (1 + 1e-9) * COARSE * sum(self.rates)

    @property
    def _all_errors(self) -> list[float]:
        """All errors; one that could not be measured counts as the worst."""
        known = self.errors if self.before is None else [self.before, *self.errors]
        return [error if math.isfinite(error) else math.inf for error in known]

    def _steps(self, start: int, stop: int) -> tuple[int, float, float]:
        """Count the steps of some epochs; return their mean loss and squared distances from it."""
        edges = [0, *self.ends]
        counts = [edges[index + 1] - edges[index] for index in range(start, stop)]
        losses, spreads = self.losses[start:stop], self.spreads[start:stop]
        mean = sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)
        squares = sum(
            n * (spread**2 + (loss - mean) ** 2)
            for n, loss, spread in zip(counts, losses, spreads, strict=True)
        )
        return sum(counts), mean, squares

    def kept(self) -> str:
        """Write which weights were kept; empty if the last ones are, as without validation."""
        if not self.errors:
            return ""
        best = self._all_errors.index(min(self._all_errors))
        if self.before is not None and best == 0:
            return "kept: the start, no step made it better"
        return f"kept: epoch {best + (self.before is None)}"


@dataclass(frozen=True)
class Gain:
    """The gain of the last tenth of a phase, its steps weighted by their learning rate.

    Attributes
    ----------
    by
        Quantity that fell: the error on the validation subjects, or the training loss.
    part
        Share by which it fell; negative if it rose.
    least
        Share below which it is no gain: too little, or within the differences between examples.
    """

    by: Literal["validation", "loss"]
    part: float
    least: float

    @property
    def still(self) -> bool:
        """Whether more steps would help."""
        return self.part >= self.least

    def __str__(self) -> str:
        what = {"validation": "error on the validation subjects", "loss": "training loss"}[self.by]
        if not self.still:
            return (
                f"the last tenth of its training hardly lowered the {what}: more would gain little"
            )
        fell = f"still lowered the {what} by {100 * self.part:.0f} %"
        return f"the last tenth of its training {fell}: more steps would gain more"


def how_they_ended(trails: Mapping[str, Trail], longest: Mapping[str, int]) -> dict[str, str]:
    """Write how long each phase was, what its last tenth gained, and what was kept.

    Parameters
    ----------
    trails
        Histories by phase.
    longest
        Largest number of steps that each could have had.
    """
    words = {}
    for phase, trail in trails.items():
        if not trail.ends:
            continue
        steps, most = trail.ends[-1], longest[phase]
        if steps < most:
            words[phase] = (
                f"ended after {steps:,} of at most {most:,} steps, as the error on the validation "
                "subjects stopped falling"
            )
        elif (gain := trail.last_tenth()) is not None:
            words[phase] = str(gain)
        else:
            words[phase] = "too few epochs or steps to tell whether more would help"
        if kept := trail.kept():
            words[phase] += f"; {kept}"
    return words


def mean_error(errors: Collection[float]) -> float | None:
    """Return the geometric mean over targets, whose errors differ in size; None if empty."""
    return math.prod(errors) ** (1 / len(errors)) if errors else None
