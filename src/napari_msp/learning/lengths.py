"""How long each phase of a run is, as far as is known by now: some end when nothing is gained."""

from collections.abc import Collection, Sequence

from napari_msp.learning.checkpoint import Position
from napari_msp.learning.phases import Phase
from napari_msp.learning.schedule import FALL, WARM_UP, Course, Recipe


class Lengths:
    """Counts the steps of a run.

    Parameters
    ----------
    recipe, course, phases
        Of the run. The course may be replaced before the first step.
    validated
        Names of the phases whose targets validation subjects were scanned on.
    position
        Where the run is; it knows which phases ended before their time.
    """

    def __init__(
        self,
        recipe: Recipe,
        course: Course,
        phases: Sequence[Phase],
        validated: Collection[str],
        position: Position,
    ) -> None:
        self._recipe, self._phases = recipe, phases
        self.course, self.validated, self.position = course, validated, position

    def usual(self, phase: Phase) -> int:
        """Give the steps of a phase that nothing ends before its time."""
        return self.course.unison_steps if phase.unison else self.course.steps

    def most(self, phase: Phase) -> int:
        """Give the steps of a phase at most."""
        return self.usual(phase) * (self.course.stretch if self.ends_itself(phase) else 1)

    def steps(self, phase: Phase) -> int:
        """Give the steps of a phase, as far as is known by now."""
        return self.position.lengths.get(phase.name, self.most(phase))

    def longest(self) -> dict[str, int]:
        """Give the steps of each phase at most, by its name."""
        return {phase.name: self.most(phase) for phase in self._phases}

    @property
    def done(self) -> int:
        """Steps done in all phases."""
        before = self._phases[: self.position.phase]
        return sum(map(self.steps, before)) + self.position.step

    @property
    def all(self) -> int:
        """Steps of all phases, as far as is known by now."""
        return sum(map(self.steps, self._phases))

    @property
    def epoch(self) -> int:
        """Number of the epoch that ends, or has ended, with the last step."""
        return -(-self.position.step // self.course.epoch)

    def epoch_ends(self, phase: Phase) -> bool:
        """Tell whether the last step was the last of an epoch."""
        step = self.position.step
        return step > 0 and (step % self.course.epoch == 0 or step == self.steps(phase))

    def ends_itself(self, phase: Phase) -> bool:
        """Tell whether a phase ends when nothing is gained on the validation subjects."""
        return self.course.patience is not None and phase.name in self.validated

    def may_end(self, phase: Phase) -> bool:
        """Tell whether it may be decided now that a phase ends before its time."""
        step = self.position.step
        if not self.ends_itself(phase) or self.position.falls is not None:
            return False
        # The paper trains for so many epochs at least.
        least = self.usual(phase) if self.course.stretch > 1 and not self._recipe.dense else 0
        return least <= step < self.most(phase) * (1 - FALL if self._recipe.dense else 1)

    def hold(self, phase: Phase) -> tuple[int, int] | None:
        """Say when the learning rate falls where the end is not known beforehand, see there."""
        if not self.ends_itself(phase):
            return None
        falls = self.position.falls
        last = round((1 - FALL) * self.most(phase))
        return round(WARM_UP * self.usual(phase)), last if falls is None else falls
