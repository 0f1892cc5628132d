"""The settings for running a model: one object that travels from the front ends to the network.

Also whether this process runs it alone or as one of several.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from inspect import cleandoc
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
)

from napari_msp.errors import Advice, Choose, UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OutputLattice = Literal["scan", "model"]

Precision = Literal["float32", "float16"]

AnySettings = TypeVar("AnySettings", bound="DataclassInstance")


class OptionSettings(TypedDict, total=False):
    """`Options` as keyword arguments, so that editors and type checkers know them."""

    device: str
    tile: int | None
    memory: float | None
    precision: Precision
    resample: bool
    lattice: OutputLattice
    rescale_b_value: bool
    keep_stages: bool
    b0_threshold: float | None
    b_value: float | Sequence[float] | None


def several(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return one name, or an iterable of names, as a tuple.

    >>> several("sub-01"), several(f"sub-{each}" for each in ("01", "02"))
    (('sub-01',), ('sub-01', 'sub-02'))
    """
    return (given,) if isinstance(given, str) else tuple(map(str, given))


class Topic(StrEnum):
    """Subjects of settings: sections of the training form and of a command's help, in order."""

    SCANS = "scans and platforms"
    PEOPLE = "who teaches and who judges"
    MODELS = "models and networks"
    START = "what training starts from"
    LENGTH = "how long"
    STEP = "how a step learns"
    MEASURED = "what is measured"
    UNFIT = "when the scan does not fit the model"
    MACHINE = "machine"
    OUTPUT = "output"


def document(settings: type, texts: Mapping[str, str | None]) -> None:
    """Put the descriptions of fields into the docstring of their class."""
    attributes = (f"{name}\n    {text}" for name, text in texts.items())
    given = (cleandoc(settings.__doc__ or ""), "\nAttributes\n----------", *attributes)
    settings.__doc__ = "\n".join(given)


class About(NamedTuple):
    """Description of a field of `Options`; one without a topic is no option of a command."""

    text: str
    topic: Topic | None = None


@dataclass(frozen=True)
class Options:
    """Settings for running a model on a scan.

    Whatever is chosen, the prediction is the same but for rounding, unless an approximation is
    allowed. Each field's description is the one that help, tooltips and handbook are made from.

    Raises
    ------
    UserError
        When a tile is smaller than a voxel, memory is not positive, or there is no such lattice or
        precision.
    """

    device: Annotated[
        str,
        "Compute on auto, cpu, cuda, cuda:1 or mps; auto takes CUDA (NVIDIA), else MPS (Apple), "
        "else the CPU.",
        Topic.MACHINE,
    ] = "auto"
    tile: Annotated[
        int | None,
        "Compute in tiles with this edge, in input voxels. Default: as large as memory allows.",
        Topic.MACHINE,
    ] = None
    # Half of what the system, a container or a batch job leaves free at the start; workers of a
    # cohort share their machine's.
    memory: Annotated[
        float | None,
        "Take at most this much memory, in GiB, beside scan and prediction, by computing in tiles. "
        "Default: half of what is free.",
        Topic.MACHINE,
    ] = None
    precision: Annotated[
        Precision,
        "Run the network in this precision; float16 is quicker on GPUs, and rounds.",
        Topic.MACHINE,
    ] = "float32"
    resample: Annotated[
        bool,
        "Average voxels finer than the model's, interpolate the scan's SH image to the model's "
        "voxel size, which smooths it, and the prediction back to the scan's voxels.",
        Topic.UNFIT,
    ] = False
    lattice: Annotated[
        OutputLattice,
        "After interpolation, bring the prediction back to the scan's voxels (scan), divided where "
        "the target is finer, or leave it on the model's (model).",
        Topic.UNFIT,
    ] = "scan"
    rescale_b_value: Annotated[
        bool,
        "Bring the signal to the model's b-value first, by (S/S0)^(b_model/b): exact for "
        "mono-exponential decay, approximate in tissue.",
        Topic.UNFIT,
    ] = False
    keep_stages: Annotated[
        bool,
        "Keep the branches of an MSP, each as large as the prediction, so that any α of equation "
        "(1) can be applied without running the network again.",
    ] = False
    b0_threshold: Annotated[
        float | None,
        "Count volumes up to this b-value, in s/mm², as b=0. Default: 50.",
        Topic.SCANS,
    ] = None
    b_value: Annotated[
        float | Sequence[float] | None,
        "Predict from these shells (b-values in s/mm²). Default: those of the model.",
        Topic.SCANS,
    ] = None

    @property
    def bytes(self) -> float | None:
        """`memory` in bytes."""
        return None if self.memory is None else self.memory * 2**30

    def recorded(self) -> dict[str, Any]:
        """Return the settings that affect numbers as plain values, by their names in sidecars."""
        values = {name: getattr(self, name) for name in DESCRIBED if name not in SAME_NUMBERS}
        shells = values.pop("b_value")
        listed = shells if isinstance(shells, Iterable) else [shells]
        values["b_values"] = None if shells is None else sorted(map(float, listed))
        values["lattice"] = self.lattice if self.resample else None
        return {name.title().replace("_", ""): value for name, value in values.items()}

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UserError(
                f"{self.tile} is not a valid tile size",
                field="tile",
                remedy=Advice("give at least 1"),
            )
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise UserError(
                f"{self.memory:g} GiB is not a valid amount of memory",
                field="memory",
                remedy=Advice("give more than 0"),
            )
        for name, known in (("lattice", OutputLattice), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(known):
                remedy = Choose(name, get_args(known))
                raise UserError(f"there is no {name} {value}", field=name, remedy=remedy)


DESCRIBED: Mapping[str, About] = {
    each.name: About(*get_args(each.type)[1:]) for each in fields(Options)
}
"""Descriptions of the fields of `Options`, by name."""

SAME_NUMBERS = ("device", "tile", "memory", "keep_stages")
"""Fields that change no number of a prediction; all others stand in its sidecar."""

# Signatures show the types without the descriptions.
vars(Options)["__init__"].__annotations__ |= get_type_hints(Options)
document(Options, {name: each.text for name, each in DESCRIBED.items()})


def with_settings(options: Options | None, settings: OptionSettings) -> Options:
    """Change some options, given as keyword arguments; None: change the defaults.

    Raises
    ------
    UserError
        When there is no such option.
    """
    options = Options() if options is None else options
    if not isinstance(options, Options):
        raise TypeError(f"options are Options(…), or each by its name, not a {type(options)}")
    if "device" in settings:  # a torch.device is accepted, too
        settings = settings | {"device": str(settings["device"])}
    return changed(options, settings)


def changed(settings: AnySettings, values: Mapping[str, Any]) -> AnySettings:
    """Change fields of settings, given by name.

    Raises
    ------
    UserError
        When there is no such field.
    """
    refuse_unknown(values, [each.name for each in fields(settings)])
    return replace(settings, **values)


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of settings that there are not, and offer those of similar spelling."""
    known = list(known)
    for name in given:
        if name not in known:
            offered = ", ".join(get_close_matches(name, known) or known)
            remedy = Advice(f"choose from {offered}")
            raise UserError("there is no such setting", name, remedy=remedy)


LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Environment variables that tell a process its rank, the number of processes and their address."""


def is_launched() -> bool:
    """Return whether a launcher started this process as one of several."""
    return os.environ.keys() >= LAUNCHED and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Return whether this is the first of them, or was started by itself."""
    return not is_launched() or os.environ["RANK"] == "0"
