"""What a contest does: who is predicted by what, after how much training."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from napari_msp.errors import UserError
from napari_msp.files import read_json, sha256, write_json

SEEDS = 1000
"""Training seeds are below it; the members of a mean of networks have theirs plus multiples."""


@dataclass(frozen=True)
class Budget:
    """What every network gets, whatever its kind (all our choice).

    Attributes
    ----------
    width
        Fraction of the full width.
    steps
        Of training, for each target: of a single network in one go, of an MSP in two phases.
    first_steps
        Those among them that an MSP's first stage gets before the unison phase.
    tuning_steps
        Of a tuning trial.
    batch, crop
        Crops a step, and their edge in input voxels.
    rates
        Learning rates that are tried for each network on validation subjects.
    epoch
        Steps between two validations; the other numbers of steps are multiples of it.
    augment
        Turn crops by grid symmetries. The paper does not.
    """

    width: float = 0.15
    steps: int = 600
    first_steps: int = 100
    tuning_steps: int = 200
    batch: int = 2
    crop: int = 14
    rates: tuple[float, ...] = (1e-3, 3e-3, 9e-3)
    epoch: int = 100
    augment: bool = True

    def with_changes(self, **changes: Any) -> "Budget":
        """Give the budget with other values; the first stage keeps its sixth of the steps.

        Raises
        ------
        UserError
            When a value makes no sense.
        """
        steps = changes.get("steps", self.steps)
        if steps < 2 * self.epoch or steps % self.epoch:
            raise UserError(
                f"--steps {steps}: give a multiple of {self.epoch} from {2 * self.epoch}"
            )
        width = changes.get("width", self.width)
        if not 0 < width <= 1:
            raise UserError(f"--width {width:g}: give a fraction from 0 to 1")
        for name, least in (("batch", 1), ("crop", 3)):
            if changes.get(name, least) < least:
                raise UserError(f"--{name} {changes[name]}: give {least} or more")
        first = max(1, round(steps / 6 / self.epoch)) * self.epoch
        return replace(self, **{**changes, "first_steps": first})

    def epochs(self, steps: int) -> int:
        """Give a number of steps in epochs."""
        return max(1, round(steps / self.epoch))


QUICK = Budget(width=0.1, steps=60, first_steps=20, tuning_steps=20, rates=(3e-3,), epoch=20)
"""To see that everything runs: a few minutes on two cores."""


@dataclass(frozen=True)
class Subjects:
    """Who is learned from, chosen by and measured; nobody is two of these."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Everyone."""
        return (*self.training, *self.validation, *self.test)


@dataclass(frozen=True)
class Round:
    """One dataset with one training seed.

    Attributes
    ----------
    dataset
        BIDS folder.
    seed
        Of the training.
    """

    dataset: Path
    seed: int

    @property
    def name(self) -> str:
        """Such as "heads-0 seed 1"."""
        return f"{self.dataset.name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the folders that hold what belongs to it."""
        return f"{self.dataset.name}-seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole contest.

    Attributes
    ----------
    datasets
        BIDS folders; their names tell them apart.
    source
        Platform that is predicted from.
    targets
        Platforms that are predicted.
    subjects
        The same names in every dataset.
    methods
        Rows to fill, see `METHODS`.
    models
        Model files that are rows too.
    seeds
        Of the training. The first dataset is run with each, the others with the first.
    budget
        Of every network.
    b_value
        Shell that is learned and measured, in s/mm².
    """

    datasets: tuple[Path, ...]
    source: str
    targets: tuple[str, ...]
    subjects: Subjects
    methods: tuple[str, ...]
    models: tuple[Path, ...]
    seeds: tuple[int, ...]
    budget: Budget
    b_value: float

    @property
    def rounds(self) -> tuple[Round, ...]:
        """A cross: every seed on the first dataset, then the first seed on the others."""
        first, *others = self.datasets
        return (
            *(Round(first, seed) for seed in self.seeds),
            *(Round(dataset, self.seeds[0]) for dataset in others),
        )

    @property
    def tuning_targets(self) -> tuple[str, ...]:
        """Platforms on which learning rates are tried: the first two, to save time."""
        return self.targets[:2]

    def to_json(self) -> dict[str, Any]:
        """Give plain types, in which two plans can be compared; models also by what they hold."""
        content = asdict(replace(self, datasets=(), models=()))
        content["datasets"] = [str(path.resolve()) for path in self.datasets]
        content["models"] = [[str(path.resolve()), sha256(path)] for path in self.models]
        return content


def keep_plan(plan: Plan, path: Path) -> None:
    """Write the plan, or see that the one that was begun here is the same.

    Raises
    ------
    UserError
        When another contest was begun here.
    """
    content = plan.to_json()
    if path.exists():
        before = read_json(path)
        wanted = json.loads(json.dumps(content))  # tuples are lists there
        changed = [name for name, value in wanted.items() if before.get(name) != value]
        if changed:
            raise UserError(
                f"{path}: another evaluation was begun here, with other {', '.join(changed)}; "
                "give the same options to go on with it, or another --out"
            )
    write_json(path, content)
