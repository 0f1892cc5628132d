"""What competes when heads are few, and how each of it is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_msp.evaluation.benchmark.trainings import matched_width
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import MULTI_STAGE, build_single

Start = Literal["nothing", "base", "wide base"]

WIDTH = 0.28
"""Fraction of the full width, the packaged models'."""

SHARE = 2 / 3
"""Steps in unison for one of the single networks' before them, as in the fast preset."""


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    name
        As tables say it.
    kind
        Network that is trained; "": none is.
    start
        What its weights begin as.
    values
        Other settings of its training.
    baseline
        Name of a rule that is learned in closed form.
    wide
        Whether one network has the weights of a whole MSP.
    fine_only
        Whether it is for targets of smaller voxels alone.
    untrained
        Whether it stays what it begins as, and nobody travelled.
    """

    name: str
    kind: str = ""
    start: Start = "nothing"
    values: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""
    wide: bool = False
    fine_only: bool = False
    untrained: bool = False

    @property
    def trained(self) -> bool:
        """Whether it takes steps."""
        return bool(self.kind) and not self.untrained

    @property
    def together(self) -> bool:
        """Whether one run learns all targets, rather than one run each."""
        return self.kind in (MULTI_STAGE, "")

    @property
    def singles_first(self) -> bool:
        """Whether single networks are trained by themselves before the MSP is."""
        return self.kind == MULTI_STAGE and self.values.get("singles_first") == "yes"

    def lengths(self, steps: int) -> dict[str, int]:
        """Give the settings of a run of so many steps a target, in all phases together."""
        if not steps or self.kind != MULTI_STAGE:
            return {"steps": steps}
        if not self.singles_first:
            return {"steps": steps, "unison_steps": steps}
        first = max(1, round(steps / (1 + SHARE)))
        return {"steps": first, "unison_steps": max(1, steps - first)}

    def settings(
        self, targets: Sequence[str], scales: Mapping[str, int], bases: Mapping[str, str]
    ) -> dict[str, Any]:
        """Give the settings of a training, but for its heads, length and rate.

        Parameters
        ----------
        targets
            Of the run.
        scales
            Lattice scale of every target that an MSP has here.
        bases
            What "base" and "wide base" are: a model's path, or "base" for the packaged one.
        """
        values: dict[str, Any] = {"kind": self.kind, **self.values}
        if self.start != "nothing":
            return values | {"start_from": bases[self.start]}
        values["start_from"], values["width"] = "nothing", WIDTH
        if self.kind == MULTI_STAGE:
            # The same first stages as the base's: what differs is the start alone.
            values["first_stage"] = dict.fromkeys(targets, "shresnet")
        elif self.wide:
            target = targets[0]
            weights = weights_of_msp(target, scales)
            values["width"] = matched_width(self.kind, target, {target: scales[target]}, weights)
        return values


def weights_of_msp(target: str, scales: Mapping[str, int]) -> int:
    """Count the weights of an MSP for one target, its first stages of its own.

    Parameters
    ----------
    scales
        Lattice scale of every target.
    """
    singles: dict[str, Any] = {
        name: build_single("shresnet", target=name, scales={name: k}, width=WIDTH, input_skip=True)
        for name, k in scales.items()
    }
    network = MSP(singles, target, width=WIDTH, branch_start="first stage")
    return sum(weight.numel() for weight in network.parameters())


OWN = {"first_stages": "own", "singles_first": "yes"}
SHARED = {"first_stages": "shared", "singles_first": "no"}

STATISTICS_ONLY = "base, statistics only"

_ALL = (
    Method("no harmonization", baseline="no harmonization"),
    Method("alignment", baseline="alignment"),
    Method("IQT", baseline="IQT"),
    Method(STATISTICS_ONLY, MULTI_STAGE, "base", SHARED, untrained=True),
    Method("SHResNet, from nothing", "shresnet"),
    Method("SHResNet, from base", "shresnet", "base"),
    Method("MSP, from nothing", MULTI_STAGE, values=SHARED),
    Method("MSP, from base", MULTI_STAGE, "base", SHARED),
    Method("MSP of own first stages, from nothing", MULTI_STAGE, values=OWN),
    Method("MSP of own first stages, from base", MULTI_STAGE, "base", {"first_stages": "own"}),
    Method("DIQT, from nothing", "diqt", fine_only=True),
    Method("wide SHResNet, from nothing", "shresnet", wide=True),
    Method("wide SHResNet, from base", "shresnet", "wide base", wide=True),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
"""Every method by name, in the order of tables."""

CLOSED = tuple(name for name, method in METHODS.items() if method.baseline)
SINGLES_FROM = {
    "nothing": ("SHResNet, from nothing", "DIQT, from nothing"),
    "base": ("SHResNet, from base",),
}
MSPS_FROM = {
    start: tuple(f"{name}, from {start}" for name in ("MSP", "MSP of own first stages"))
    for start in SINGLES_FROM
}


def available(names: Sequence[str], bases: Mapping[str, str]) -> tuple[str, ...]:
    """Leave out what starts from a model that is not there."""
    return tuple(
        name for name in names if METHODS[name].start == "nothing" or METHODS[name].start in bases
    )
