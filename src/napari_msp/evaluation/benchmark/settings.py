"""Settings of an evaluation, and the training budget of its networks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from napari_msp.errors import Advice, UserError
from napari_msp.learning.lengths import PATIENCE
from napari_msp.learning.settings import MOST


@dataclass(frozen=True)
class Budget:
    """Training budget of every network, whatever its kind (all our choice).

    Attributes
    ----------
    steps
        Largest number of training steps for each target: of a single network in one go, of an MSP
        in two phases. As many as the fast preset gives a single network; validation ends training
        that no longer gains.
    first_steps
        Steps among these that an MSP's first stage gets before the unison phase.
    batch, crop
        Crops per step, and their edge in input voxels.
    rates
        Learning rates that are tried for each network on validation subjects.
    epoch
        Steps between two validations; the other numbers of steps are multiples of it.
    patience
        Epochs without gain on validation subjects after which a training ends.
    augment
        Whether crops are turned by grid symmetries. The paper does not.
    """

    width: float = 0.15
    steps: int = 3000
    first_steps: int = 500
    tuning_steps: int = 200
    batch: int = 2
    crop: int = 14
    rates: tuple[float, ...] = (1e-3, 3e-3, 9e-3)
    epoch: int = 100
    patience: int = PATIENCE
    augment: bool = True

    def with_changes(self, **changes: Any) -> "Budget":
        """Return the budget with other values; the first stage keeps its sixth of the steps."""
        steps = changes.get("steps", self.steps)
        if not 2 * self.epoch <= steps <= MOST or steps % self.epoch:
            problem = f"{steps} steps is not a multiple of {self.epoch}"
            remedy = Advice(f"give a multiple of {self.epoch} from {2 * self.epoch} to {MOST}")
            raise UserError(problem, field="steps", remedy=remedy)
        width = changes.get("width", self.width)
        if not 0 < width <= 1:
            remedy = Advice("give one from 0 to 1")
            raise UserError(f"{width:g} is not a valid fraction", field="width", remedy=remedy)
        for name, least in (("batch", 1), ("crop", 3)):
            if not least <= changes.get(name, least) <= MOST:
                what = "small" if changes[name] < least else "large"
                remedy = Advice(f"give {least} or more")
                raise UserError(f"{changes[name]} is too {what}", field=name, remedy=remedy)
        first = max(1, round(steps / 6 / self.epoch)) * self.epoch
        return replace(self, **{**changes, "first_steps": first})

    def epochs(self, steps: int) -> int:
        """Convert a number of steps to epochs."""
        return max(1, round(steps / self.epoch))


QUICK = Budget(width=0.1, steps=60, first_steps=20, tuning_steps=20, rates=(3e-3,), epoch=20)
"""Budget for a trial run: a few minutes on two cores."""


@dataclass(frozen=True)
class Subjects:
    """Subjects to learn from, to validate on and to measure; no subject has two of these roles."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Everyone."""
        return (*self.training, *self.validation, *self.test)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation; those left out are chosen, see `make_plan`.

    Attributes
    ----------
    methods
        Names of rows, or "all"; trained ones are trained on the training subjects. Empty: only the
        input as it is, beside `models`.
    models
        Trained model files that are rows too, named after their files.
    predictions
        Folders of finished predictions that are rows too, by the rows' names; see
        `napari_msp.evaluation.benchmark.finished.find_predictions`. With several datasets each
        folder contains one for each, named after it.
    regions
        Regions for the pages of proof: a label image in the scans' space, a folder with one for
        each subject (`sub-<label>…_dseg.nii.gz`), or "tissue". None: "tissue" if predictions are
        given, else no such pages.
    input, targets
        Platforms to predict from and to predict. Empty: the models' own; without models the input
        that the dataset marks, and all other platforms.
    train, validation, test
        Subjects. Those that are not named are chosen: without methods everyone that no model
        learned from is for test; with them about half are for test and a sixth for validation.
    leave_one_out
        Whether each subject is tested once, while all others teach; see
        `napari_msp.evaluation.benchmark.subjects.leave_one_out`. If `test` is given, only these.
    seeds
        Seeds of the training; the first dataset is run with each, the others with the first.
    b_value
        Shell or shells in s/mm²; None: the models' or, without models, all that the platforms
        share.
    b0_threshold
        Largest b-value that counts as b=0, in s/mm²; None: the usual one.
    run
        Number of the scan to use, where one was repeated.
    fibres
        Whether fibre peaks are measured too, by constrained spherical deconvolution.
    bundle
        Whether the left-right fibres are tracked too, which takes long on large heads.
    biology
        Whether effects of biology are put into the test heads, which must be simulated, to measure
        what part of each is predicted.
    quick
        Whether only to check that everything runs.
    width, steps, batch, crop, augment
        Values that replace the budget's.
    """

    methods: tuple[str, ...] = ()
    models: tuple[Path, ...] = ()
    predictions: Mapping[str, str | Path] = field(default_factory=dict)
    regions: str | Path | None = None
    input: str = ""
    targets: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    leave_one_out: bool = False
    seeds: tuple[int, ...] = (0,)
    b_value: float | Sequence[float] | None = None
    b0_threshold: float | None = None
    run: int | None = None
    fibres: bool = False
    bundle: bool = False
    biology: bool = False
    quick: bool = False
    width: float | None = None
    steps: int | None = None
    batch: int | None = None
    crop: int | None = None
    augment: bool | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            if isinstance(each.default, tuple):  # a list will do, and so will a single name
                given = getattr(self, each.name)
                several = (given,) if isinstance(given, str | Path) else tuple(given)
                object.__setattr__(self, each.name, several)
        object.__setattr__(self, "models", tuple(Path(each) for each in self.models))
        object.__setattr__(self, "seeds", tuple(dict.fromkeys(self.seeds)))

    @property
    def budget(self) -> Budget:
        """The budget of every network."""
        asked = {
            name: value
            for name, value in asdict(self).items()
            if name in ("width", "steps", "batch", "crop", "augment") and value is not None
        }
        return (QUICK if self.quick else Budget()).with_changes(**asked)
