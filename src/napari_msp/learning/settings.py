"""Everything that decides what a training run does, in one validated object."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned"]
SingleKind = Literal["diqt", "cnn-rish", "shresnet", "cpm", "hned"]
Preset = Literal["paper", "fast"]
Augmentation = Literal["preset", "symmetries", "none"]
BranchStart = Literal["preset", "nothing", "input", "first stage"]


class TrainingSettings(BaseModel):
    """Settings of one run; unset ones take the preset's value.

    The presets differ in how examples are drawn, standardised and scheduled; see
    `napari_msp.learning.schedule`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(description="Network to train")
    preset: Preset = Field(
        default="fast", description="paper: the paper's recipe; fast: dense crops"
    )
    input: str = Field(default="ge_st", description="Platform to predict from")
    targets: tuple[str, ...] = Field(
        default=(), description="Platforms to predict; empty: all others"
    )
    b_value: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Shell to learn, where scans hold several",
    )
    held_out: tuple[str, ...] = Field(
        default=(), description="Subjects kept out of training altogether"
    )
    subjects: tuple[str, ...] = Field(
        default=(), description="Subjects to use at all, held-out ones among them; empty: all"
    )
    first_stage: dict[str, SingleKind] = Field(
        default_factory=dict, description="MSP: single network of each target"
    )
    width: float | Literal["paper"] = Field(
        default="paper", description="Fraction of the full width"
    )
    epochs: int | None = Field(default=None, ge=1, description="Epochs of each phase")
    unison_epochs: int | None = Field(
        default=None, ge=1, description="MSP: epochs of the unison phases"
    )
    batch: int | None = Field(default=None, ge=1, description="Patches or crops a step")
    crop: int | None = Field(default=None, ge=3, description="fast: edge of a crop in input voxels")
    steps_per_epoch: int | None = Field(default=None, ge=1, description="fast: steps of an epoch")
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="At the start (paper), at most (fast)"
    )
    decay_every: int | None = Field(
        default=None, ge=1, description="paper: epochs between divisions by √2"
    )
    voxels_per_head: int | None = Field(
        default=None,
        ge=1,
        description="paper: in-mask voxels that centre a patch; unset: every one",
    )
    seed: int = Field(default=0, ge=0, description="Of weights, sampling and augmentation")
    augmentation: Augmentation = Field(
        default="preset", description="fast: turn crops by grid symmetries, as its preset does"
    )
    branch_start: BranchStart = Field(default="preset", description="MSP: what branches start from")
    label: str = Field(default="", description="What the model is for, shown to whoever loads it")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSettings":
        if self.input in self.targets:
            raise ValueError(f"{self.input} is the input and cannot be a target too")
        if self.first_stage and self.kind != "msp":
            raise ValueError("first_stage belongs to kind msp")
        if isinstance(self.width, float) and not 0 < self.width <= 1:
            raise ValueError("width must lie in (0, 1], or be 'paper'")
        return self


LECTURE = TrainingSettings(
    kind="msp",
    targets=("prisma_st", "connectom_st"),
    width=0.2,
    epochs=3,
    unison_epochs=6,
    batch=2,
    steps_per_epoch=40,
    learning_rate=3e-3,
    label="For teaching only: a minute of training. Not for studies.",
)
"""For a live lesson on three heads of size tiny, one of them held out: a minute on two CPU cores.

An epoch takes some two to four seconds. Both single networks pass statistical alignment in their
second epoch; the unison phase starts from there and ends a quarter below it.
"""
