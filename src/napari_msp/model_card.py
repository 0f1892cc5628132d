"""A model's card: all that is known about a model except its weights, as checked JSON."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from napari_msp.data.gradients import GradientTable, shell_name
from napari_msp.networks.base import CHANNELS
from napari_msp.networks.registry import MULTI_STAGE
from napari_msp.signal.expected_error import FEATURES, number_of_weights
from napari_msp.signal.sh_image import BASIS
from napari_msp.signal.spherical_harmonics import ORDER, default_regularisation
from napari_msp.strict_json import one_line

OF_US: Final = "napari-msp model "
FORMAT: Final = "napari-msp model 1"

LARGEST_SCALE, LARGEST_OPTION = 16, 4096
"""Largest lattice scale, and largest number in an architecture."""

DIRECTION_TOLERANCE = 1e-3
"""Largest deviation of a stored direction's length from 1 that counts as rounding."""

FirstStages = Literal["own", "shared"]
"""Whether each target's MSP has its own single networks, as in the paper, or all share them."""


class _Stated(BaseModel):
    """Part of a model's file: fields can be neither added nor changed; numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SHSettings(_Stated):
    """Fit settings of the SH images that the model reads and writes."""

    order: Literal[6] = ORDER
    basis: Literal["mrtrix3"] = BASIS
    regularisation_at_30: float = Field(ge=0, description="λ for 30 directions; λ grows with N")
    b_value: float = Field(gt=0, description="s/mm²")
    shells: tuple[float, ...] = Field(
        default=(),
        description="b-value of each shell where there are several, b_value the first of them",
    )

    @model_validator(mode="after")
    def _ascending(self) -> "SHSettings":
        if self.shells:
            if len(self.shells) < 2 or self.shells[0] != self.b_value:
                raise ValueError("shells are for models of several, from b_value on")
            if not all(low < high for low, high in pairwise(self.shells)):
                raise ValueError("shells must be ascending")
        return self

    @property
    def b_values(self) -> tuple[float, ...]:
        """b-values of all shells, lowest first."""
        return self.shells or (self.b_value,)

    def regularisation(self, directions: int) -> float:
        """Return λ for a number of directions."""
        return default_regularisation(directions, self.regularisation_at_30)


class Statistics(_Stated):
    """A platform's standardisation, one shell after the other."""

    mean: list[float] = Field(min_length=CHANNELS)
    deviation: list[PositiveFloat] = Field(min_length=CHANNELS)


class Gradients(_Stated):
    """A target's gradient table, directions in scanner axes."""

    b_values: list[PositiveFloat] = Field(min_length=1)
    directions: list[tuple[float, float, float]]
    b0_weighting: float = Field(
        default=0.0,
        ge=0,
        description="Mean b of its b=0 images, where these are weighted",
    )

    @model_validator(mode="after")
    def _usable(self) -> "Gradients":
        if len(self.b_values) != len(self.directions):
            raise ValueError("b_values and directions differ in length")
        lengths = np.linalg.norm(self.directions, axis=1)
        if (np.abs(lengths - 1) > DIRECTION_TOLERANCE).any():
            raise ValueError("directions must have unit length")
        return self

    def table(self) -> GradientTable:
        """Return the gradient table."""
        return GradientTable(np.array(self.b_values), np.array(self.directions).reshape(-1, 3))


class ErrorFit(_Stated):
    """Fit of the expected error of predictions, made on subjects that were not trained on."""

    mean: list[float] = Field(description="Of each feature, see `error_features`")
    deviation: list[PositiveFloat]
    weights: list[float]
    largest: float | None = Field(
        default=None,
        gt=0,
        description="That was expected of any voxel it was fitted on; None in older files",
    )
    against: str | None = Field(
        default=None,
        description="Of what errors are: the scans on the target, or their twins without noise; "
        "None in older files",
    )
    subjects: list[str] = Field(description="Who it was fitted on")
    people: list[dict[str, Any]] = Field(
        default_factory=list, description="The same as `Person`; empty in older files"
    )

    @model_validator(mode="after")
    def _usable(self) -> "ErrorFit":
        count = len(self.mean)
        if count != FEATURES or len(self.deviation) != count:
            raise ValueError(f"expected_error needs mean and deviation of {FEATURES} features")
        if len(self.weights) != number_of_weights(count):
            raise ValueError(f"expected_error needs {number_of_weights(count)} weights")
        return self


class ModelCard(_Stated):
    """Everything about a model except its weights."""

    format: Literal["napari-msp model 1"] = FORMAT
    sha256: str = Field(
        default="", description="In a file: of all else in it; older files have none"
    )
    kind: str = Field(description="msp, or the single network's kind")
    label: Annotated[str, AfterValidator(one_line)] = Field("", description="What the model is for")
    simulated_only: bool = Field(
        default=False, description="Whether it learned from simulated heads alone"
    )
    input: str = Field(description="Platform that the model predicts from")
    b0_weighting: float | None = Field(
        default=None,
        ge=0,
        description="Mean b of the input's b=0 images; older files do not say",
    )
    voxel_size: float = Field(gt=0, description="Of the input, isotropic, in mm")
    scales: dict[str, int] = Field(min_length=1, description="Lattice scale k of each target")
    architectures: dict[str, dict[str, Any]] = Field(description="Network of each target")
    first_stages: FirstStages = Field(
        default="own",
        description="MSP: one set of single networks for all targets, or a set for each",
    )
    alpha: float = Field(1.0, ge=0, le=1, description="α of eq. (1) at inference")
    sh: SHSettings
    standardisation: dict[str, Statistics] = Field(description="Of the input and each target")
    gradients: dict[str, Gradients] = Field(description="Of each target")
    training: dict[str, Any] = Field(description="Subjects, settings, metrics")
    expected_error: dict[str, ErrorFit] = Field(
        default_factory=dict,
        description="Of targets whose predictions were calibrated, by `fit_name`",
    )
    versions: dict[str, str] = Field(description="Software that wrote the file")

    @model_validator(mode="after")
    def _complete(self) -> "ModelCard":
        for name, keys in (("architectures", self.architectures), ("gradients", self.gradients)):
            if set(keys) != set(self.scales):
                raise ValueError(f"{name} must be given for {', '.join(self.scales)}")
        if set(self.standardisation) != {self.input, *self.scales}:
            raise ValueError("standardisation must be given for the input and every target")
        channels = CHANNELS * len(self.sh.b_values)
        for known in self.standardisation.values():
            if {len(known.mean), len(known.deviation)} != {channels}:
                raise ValueError(f"standardisation must have {channels} values")
        for table in self.gradients.values():
            if len(self.sh.shells) > 1 and len(table.table().shells) != len(self.sh.shells):
                raise ValueError("gradients have other shells than the model")
        if not set(self.expected_error) <= set(self.fit_names()):
            raise ValueError("expected_error is given for what is no target")
        if not 1 <= min(self.scales.values()) <= max(self.scales.values()) <= LARGEST_SCALE:
            raise ValueError(f"scales must be from 1 to {LARGEST_SCALE}")
        for name in self.scales:
            if not name.replace("_", "").isalnum():
                raise ValueError(f"{name!r} is no platform")
        _check_sizes(self.architectures)
        if any(each.get("kind") != self.kind for each in self.architectures.values()):
            raise ValueError(f"architectures cannot be used: not all are of kind {self.kind}")
        if self.first_stages == "shared":
            singles = [each.get("singles") for each in self.architectures.values()]
            if self.kind != MULTI_STAGE or any(each != singles[0] for each in singles):
                raise ValueError("architectures cannot be used: shared ones differ between targets")
        subjects = self.training.get("subjects", [])
        if not isinstance(subjects, list) or not all(isinstance(each, str) for each in subjects):
            raise ValueError("training.subjects must be a list of names")
        return self

    @property
    def for_scans(self) -> bool:
        """Whether it is for scans of people: neither of simulated heads only, nor a base.

        A base only states the ranges of its platforms, and represents no scanner.
        """
        return not self.simulated_only and "saw" not in self.training

    def voxel_size_of(self, target: str) -> float:
        """Return the voxel size of predictions for a target, in mm."""
        return self.voxel_size / self.scales[target]

    def fit_name(self, target: str, shell: int) -> str:
        """Return the name of a target's fit in `expected_error`, for one shell by name."""
        return f"{target} b{shell}" if self.sh.shells else target

    def fit_names(self) -> list[str]:
        """List the names of all possible fits."""
        names = [shell_name(b_value) for b_value in self.sh.b_values]
        return [self.fit_name(target, shell) for target in self.scales for shell in names]

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield the fields that fit into one line."""
        return ((name, getattr(self, name)) for name in ("kind", "label", "input", "scales"))


def _check_sizes(architecture: Any, largest: int = LARGEST_OPTION) -> None:
    """Refuse numbers that would make a network exhaust memory before its weights are checked."""
    if isinstance(architecture, dict):
        for name, value in architecture.items():
            _check_sizes(value, LARGEST_SCALE if name == "scales" else largest)
    elif isinstance(architecture, list):
        for value in architecture:
            _check_sizes(value, largest)
    elif isinstance(architecture, int | float) and not abs(architecture) <= largest:
        raise ValueError(f"architectures have a number beyond {largest}")
