"""All settings of a training run, in one validated object."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from napari_msp.foreign_errors import from_validation
from napari_msp.networks.registry import MULTI_STAGE, kinds, single_kinds
from napari_msp.options import Topic, document, refuse_unknown, several
from napari_msp.strict_json import one_line

if TYPE_CHECKING:
    from napari_msp.data.dataset import TravellingHeads


def _one_of(known: Callable[[], tuple[str, ...]], what: str) -> AfterValidator:
    def check(kind: str) -> str:
        if kind not in known():
            raise ValueError(f"there is no {what} {kind}, only {', '.join(known())}")
        return kind

    return AfterValidator(check)


Kind = Annotated[str, _one_of(kinds, "network")]
"""A network of the registry."""

SingleKind = Annotated[str, _one_of(single_kinds, "single network")]
"""A network that an MSP can combine."""

Preset = Literal["paper", "fast", "lecture"]
Augmentation = Literal["preset", "symmetries", "none"]
BranchStart = Literal["preset", "nothing", "input", "first stage"]
FirstStages = Literal["preset", "own", "shared"]
SinglesFirst = Literal["preset", "yes", "no"]
Features = Literal["last", "middle"]
Trunk = Literal["each", "all"]

NOTHING, BASE = "nothing", "base"
"""Starts of a run other than a model's file: fresh weights, and the packaged base."""


MOST = 1_000_000
"""Largest number of steps, epochs, voxels and the like: a larger one is a typing mistake."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {},
    "paper": {},
    "lecture": {
        "kind": MULTI_STAGE,
        "width": 0.2,
        "epochs": 3,
        "unison_epochs": 6,
        "batch": 2,
        "steps_per_epoch": 40,
        "learning_rate": 3e-3,
        "first_stages": "own",
        "singles_first": "yes",
        "start_from": NOTHING,
        "label": "For teaching only: a minute of training. Not for studies.",
    },
}
"""Settings of each preset besides its recipe; given settings override them.

A lecture is a live lesson on three heads of size tiny, one of them held out: a minute on two CPU
cores, with the recipe of "fast". An epoch takes some two to four seconds. Both single networks pass
statistical alignment in their second epoch; the unison phase starts from there and ends a quarter
below it.
"""

OF_AN_MSP = (
    "first_stage",
    "first_stages",
    "singles_first",
    "features",
    "unison_steps",
    "unison_epochs",
    "branch_start",
)
"""Settings that only an MSP has."""

ONLY_FOR: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(OF_AN_MSP, ("kind", (MULTI_STAGE,))),
    **dict.fromkeys(("crop", "augmentation"), ("preset", ("fast", "lecture"))),
    **dict.fromkeys(("decay_every", "voxels_per_head"), ("preset", ("paper",))),
}
"""Settings that count for some values of another one alone."""

OTHER_LENGTHS: Mapping[str, tuple[str, ...]] = {
    "steps": ("epochs", "minutes"),
    "unison_steps": ("unison_epochs", "minutes"),
    "epochs": ("steps", "minutes"),
    "unison_epochs": ("unison_steps", "minutes"),
    "minutes": ("steps", "unison_steps", "epochs", "unison_epochs", "steps_per_epoch"),
    "steps_per_epoch": ("minutes",),
}
"""Settings of length that a given one replaces, besides its own."""


def _count(description: str, least: int = 1) -> Any:
    """Describe a setting that is a count; if unset, preset or heads decide."""
    return Field(default=None, ge=least, le=MOST, description=description)


class TrainingSettings(BaseModel):
    """Settings of one run; unset ones take the preset's value.

    The presets differ in how examples are drawn, standardised and scheduled; see
    `napari_msp.learning.schedule`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default=MULTI_STAGE,
        description="Train this network. If you need only one target, with the input's voxel "
        "size, shresnet from the base errs as little as an msp of two, in two "
        "fifths of its time.",
    )
    preset: Preset = Field(
        default="fast",
        description="Follow this recipe. paper: as published, for a GPU; fast: dense crops; "
        "lecture: a minute of fast.",
    )
    input: str = Field(
        default="",
        description="Predict from this platform. Default: the one that the dataset marks, or "
        "else the only one that the targets leave over.",
    )
    targets: tuple[str, ...] = Field(
        default=(), description="Predict these platforms. Default: all others."
    )
    b_value: float | tuple[float, ...] | None = Field(
        default=None,
        description="Learn these shells (b-values in s/mm²) if scans have several. Default: "
        "all that the platforms share, provided that the input has every shell of "
        "its targets.",
    )
    trunk: Trunk = Field(
        default="each",
        description="With several shells, pass each through the same weights by itself "
        "(each), or all at once (all).",
    )
    b0_threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Count volumes up to this b-value, in s/mm², as b=0. Default: 50.",
    )
    run: int | None = Field(
        default=None,
        ge=1,
        description="Use the scan with this number (BIDS run-) if one was repeated.",
    )
    held_out: tuple[str, ...] = Field(
        default=(),
        description="Keep these subjects out of training altogether. Their errors are shown, "
        "and nothing is chosen by them.",
    )
    validation: tuple[str, ...] = Field(
        default=(),
        description="Do not learn from these subjects, but let them choose which weights are "
        "kept, and end the run when nothing is gained on them.",
    )
    subjects: tuple[str, ...] = Field(
        default=(),
        description="Use only these subjects, held-out and validation subjects among them. "
        "Default: all.",
    )
    first_stage: dict[str, SingleKind] = Field(
        default_factory=dict,
        description="MSP: use this single network for a target. Default: shresnet, or diqt "
        "for a finer target.",
    )
    width: float | Literal["paper"] | None = Field(
        default=None,
        description="Use this fraction of the networks' full width; paper: all of it. "
        "Default: the width of the model that the run starts from, or else paper.",
    )
    start_from: str | None = Field(
        default=None,
        description="Start from these weights: nothing, base (the packaged model), or a "
        "model's file. Default: base, as far as it fits, but nothing with preset "
        "paper or lecture.",
    )
    start_from_target: dict[str, str] = Field(
        default_factory=dict,
        description="Let a target's network begin as this platform of the model that the run "
        "starts from. Default: the platform of that name, or else the one that "
        "fits the training heads best.",
    )
    steps: int | None = _count(
        "Train each phase for this many steps, whatever the number of heads. 0: "
        "keep the weights of the start, and take the statistics of everybody who "
        "was scanned on a platform, in pairs or not.",
        least=0,
    )
    unison_steps: int | None = _count("MSP: train the unison phases for this many steps.")
    epochs: int | None = _count("Train each phase for this many epochs, in place of steps.")
    unison_epochs: int | None = _count("MSP: train the unison phases for this many epochs.")
    minutes: float | None = Field(
        default=None,
        gt=0,
        le=MOST,
        allow_inf_nan=False,
        description="Fit the whole run into this time, in place of steps. The speed at its "
        "beginning decides how many steps that is.",
    )
    patience: int | None = _count(
        "End a phase after this many epochs without a gain on the validation "
        "subjects. Default: 5, or never if the length is given."
    )
    batch: int | None = _count("Learn from this many patches or crops per step.")
    crop: int | None = _count(
        "With preset fast or lecture, cut crops with this edge, in input voxels.", least=3
    )
    steps_per_epoch: int | None = _count(
        "Count this many steps as an epoch. Default, if the length is given in "
        "epochs: as many as see every voxel about once."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Use this learning rate: at the start (paper), or at most (fast).",
    )
    decay_every: int | None = _count(
        "With preset paper, divide the learning rate by √2 whenever this many epochs have passed."
    )
    voxels_per_head: int | None = _count(
        "With preset paper, centre patches on this many voxels of each mask. Default: on every one."
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**64,
        description="Draw weights, samples and augmentation from this seed.",
    )
    augmentation: Augmentation = Field(
        default="preset",
        description="With preset fast or lecture, turn crops by grid symmetries (symmetries) or "
        "not (none).",
    )
    branch_start: BranchStart = Field(
        default="preset", description="MSP: let branches start from this."
    )
    first_stages: FirstStages = Field(
        default="preset",
        description="MSP: train single networks of its own for each target (own), or one set "
        "for all (shared).",
    )
    singles_first: SinglesFirst = Field(
        default="preset",
        description="MSP: train the single networks by themselves before training all in unison.",
    )
    features: Features = Field(
        default="last",
        description="MSP: let branches read the features of this layer of each single network.",
    )
    label: Annotated[str, AfterValidator(one_line)] = Field(
        default="", description="Say what the model is for. Everybody who loads it sees this."
    )

    @model_validator(mode="before")
    @classmethod
    def _over_its_preset(cls, given: Any) -> Any:
        """Apply the given settings over those of the preset."""
        return put_over(values_of_preset(given), given) if isinstance(given, dict) else given

    @field_validator("targets", "held_out", "validation", "subjects", mode="before")
    @classmethod
    def _one_name_or_several(cls, given: Any) -> Any:
        return several(given) if isinstance(given, str | Iterable) else given

    @field_validator("targets")
    @classmethod
    def _other_platforms(cls, targets: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        if others.data.get("input") in targets:
            raise ValueError(f"{others.data['input']} is the input and cannot be a target too")
        return targets

    @field_validator("b_value", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> float | tuple[float, ...] | None:
        """Read one b-value or several, also from the text of an entry."""
        if value is None:
            return None
        listed = value.replace(",", " ").split() if isinstance(value, str) else value
        listed = listed if isinstance(listed, list | tuple) else [listed]
        try:
            found = tuple(float(each) for each in listed)
        except (TypeError, ValueError) as error:
            raise ValueError("must be a valid number, or several") from error
        if not found or not all(0 < each < math.inf for each in found):  # also refuses nan
            raise ValueError("must be greater than 0")
        if len(set(found)) < len(found):
            raise ValueError("must differ from one another")
        return found if len(found) > 1 else found[0]

    @field_validator("steps")
    @classmethod
    def _with_a_choice(cls, steps: int | None, others: ValidationInfo) -> int | None:
        if steps == 0 and others.data.get("validation"):
            raise ValueError(
                "validation subjects choose among weights, and 0 steps leave nothing to choose: "
                "hold them out, or leave them out"
            )
        return steps

    @field_validator("unison_steps", "epochs", "unison_epochs", "minutes", "steps_per_epoch")
    @classmethod
    def _one_length(cls, length: float | None, others: ValidationInfo) -> float | None:
        name = str(others.field_name)
        given = [each for each in OTHER_LENGTHS[name] if others.data.get(each) is not None]
        if length is not None and given:
            unit = given[0].removeprefix("unison_")
            raise ValueError(f"the length is given in {unit} already, so leave one of them out")
        if length is not None and name.startswith("unison") and others.data.get("steps") == 0:
            raise ValueError("no phase is trained, as there are 0 steps: leave one of them out")
        return length

    @field_validator("validation")
    @classmethod
    def _not_held_out(cls, validation: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        both = [each for each in validation if each in others.data.get("held_out", ())]
        if both:
            raise ValueError(
                f"{' and '.join(both)} cannot be held out too: a held-out subject must not affect "
                "training, so remove it from one of the two"
            )
        return validation

    @field_validator("patience")
    @classmethod
    def _by_somebody(cls, patience: int | None, others: ValidationInfo) -> int | None:
        if patience is not None and not others.data.get("validation"):
            raise ValueError(
                "needs validation subjects, which show when nothing is gained: name one or more"
            )
        return patience

    @field_validator("start_from", mode="before")
    @classmethod
    def _a_start(cls, value: Any) -> Any:
        """Read a word, or a path, made absolute as it may be read again from elsewhere."""
        if value in (None, NOTHING, BASE):
            return value
        if not str(value).endswith(".safetensors"):
            raise ValueError(f"must be {NOTHING}, {BASE} or the file of a model (.safetensors)")
        return str(Path(str(value)).expanduser().absolute())

    @field_validator("start_from_target")
    @classmethod
    def _of_a_start(cls, names: dict[str, str], others: ValidationInfo) -> dict[str, str]:
        if names and others.data.get("start_from") == NOTHING:
            raise ValueError("needs a model to start from")
        return names

    @field_validator(*ONLY_FOR)
    @classmethod
    def _counts(cls, value: Any, others: ValidationInfo) -> Any:
        name = str(others.field_name)
        by, those = ONLY_FOR[name]
        usual = cls.model_fields[name].get_default(call_default_factory=True)
        if value != usual and others.data.get(by, those[0]) not in those:
            raise ValueError(f"applies only to {by} {' or '.join(those)}")
        return value

    @field_validator("width")
    @classmethod
    def _a_fraction(cls, width: float | Literal["paper"] | None) -> float | Literal["paper"] | None:
        if isinstance(width, float) and not 0 < width <= 1:  # also refuses nan
            raise ValueError("must lie in (0, 1], or be 'paper'")
        return width

    @property
    def starts_from_nothing(self) -> bool:
        """Whether all weights are fresh, as far as decided."""
        return self.start_from in (None, NOTHING)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what was set."""
        return ((name, getattr(self, name)) for name in sorted(self.model_fields_set))


document(
    TrainingSettings,
    {name: each.description for name, each in TrainingSettings.model_fields.items()},
)

SECTIONS: Mapping[Topic, tuple[str, ...]] = {
    Topic.SCANS: ("input", "targets", "b_value", "b0_threshold", "run"),
    Topic.PEOPLE: ("held_out", "validation", "subjects"),
    Topic.MODELS: (
        *("kind", "preset", "first_stage", "first_stages", "singles_first"),
        *("features", "width", "trunk"),
    ),
    Topic.START: ("start_from", "start_from_target", "branch_start"),
    Topic.LENGTH: (
        *("minutes", "steps", "unison_steps", "epochs", "unison_epochs"),
        *("steps_per_epoch", "patience"),
    ),
    Topic.STEP: (
        *("batch", "crop", "learning_rate", "decay_every", "voxels_per_head"),
        *("augmentation", "seed"),
    ),
    Topic.OUTPUT: ("label",),
}
"""Settings by section."""


def choices_of(name: str) -> tuple[str, ...]:
    """Return the choices of a setting; for `first_stage`, those of each target.

    Empty if it has none, or if the dataset decides.
    """
    if name == "kind":
        return kinds()
    if name == "first_stage":
        return single_kinds()
    annotation = TrainingSettings.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def values_of_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the settings' preset, as far as their kind of network has them."""
    usual = PRESETS.get(given.get("preset", "fast"), {})
    of_kind = given.get("kind", MULTI_STAGE) == MULTI_STAGE
    return {name: value for name, value in usual.items() if of_kind or name not in OF_AN_MSP}


def put_over(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others applied over them; one length replaces another.

    >>> put_over({"epochs": 3, "seed": 1}, {"steps": 100})
    {'seed': 1, 'steps': 100}
    """
    set_here = [name for name, value in given.items() if value is not None]
    replaced = {each for name in set_here for each in OTHER_LENGTHS.get(name, ())}
    if given.get("steps") in (0, "0"):  # a command's values are texts
        replaced |= {"unison_steps", "unison_epochs"}
    return {name: value for name, value in values.items() if name not in replaced} | dict(given)


def training_settings(dataset: "TravellingHeads", **values: Any) -> TrainingSettings:
    """Validate given settings.

    Parameters
    ----------
    dataset
        Dataset to learn from. It determines what a lecture predicts.
    **values
        Fields of `TrainingSettings`.

    Raises
    ------
    UserError
        For an unknown setting, or the first invalid one, with its name as field.
    """
    from napari_msp.data.dataset import input_platform

    refuse_unknown(values, TrainingSettings.model_fields)
    if values.get("preset") == "lecture" and not values.get("targets"):
        values["input"] = input_platform(dataset, values.get("input"))
        values["targets"] = same_lattice(dataset, values["input"])
    try:
        return TrainingSettings(**values)
    except ValidationError as error:
        raise from_validation(error) from error


def same_lattice(dataset: "TravellingHeads", source: str) -> tuple[str, ...]:
    """Return what a lecture predicts: finer voxels than the input's would take a minute more.

    Voxels are those of the first subject who was scanned on the input platform, `source`, and the
    other one.
    """

    def alike(platform: str) -> bool:
        both = (s for s in dataset.subjects if dataset.has(s, source) and dataset.has(s, platform))
        for subject in both:
            own, other = (dataset.acquisition(subject, p).lattice for p in (source, platform))
            return other.has_voxels_of(own.voxel_sizes)
        return False

    return tuple(each for each in dataset.platforms if each != source and alike(each))
