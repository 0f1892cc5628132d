"""The rows of Table 1: what competes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_msp.errors import UserError
from napari_msp.evaluation.baselines import (
    BASELINES,
    Interpolation,
    LinearRISH,
    PatchRegression,
    RegionalAlignment,
    StatisticalAlignment,
    VoxelAlignment,
)

Role = Literal["baseline", "network", "control"]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    name
        As the table and `--methods` say it.
    role
        "baseline": learned in closed form; "network": trained; "control": trained to tell what an
        MSP's advantage is owed to.
    explanation
        One sentence for the report.
    """

    name: str
    role: Role
    explanation: str


SINGLES = {"DIQT": "diqt", "CNN-RISH": "cnn-rish", "SHResNet": "shresnet"}
"""Networks that can be an MSP's first stage, with their kinds."""

MULTI_TASK = {"CPM": "cpm", "HNED": "hned"}
"""Networks that predict all platforms on the way to one."""

BEST_SINGLE = "best single"
FIRST_STAGE = "first stage alone"
MORE_WEIGHTS = "single, as many weights"
MEAN_OF_SINGLES = "mean of singles"
MSP = "MSP"

UNHARMONIZED = Interpolation.name

_BASELINES = {
    UNHARMONIZED: "The input itself, interpolated to the target's lattice.",
    StatisticalAlignment.name: "Mean and deviation of each coefficient matched over the image.",
    RegionalAlignment.name: "Mean and deviation matched in each kind of tissue.",
    VoxelAlignment.name: "Mean and deviation matched at each place of a common space.",
    LinearRISH.name: "Each SH order scaled at each place by the root of the ratio of mean RISH.",
    PatchRegression.name: "Image quality transfer: ridge regression from 3³ voxels.",
}

_NETWORKS = (
    Method("DIQT", "network", "Single network, trained for all steps."),
    Method("CNN-RISH", "network", "Single network, trained for all steps."),
    Method("SHResNet", "network", "Single network, trained for all steps."),
    Method("CPM", "network", "Multi-task: each stage predicts one platform, the last the target."),
    Method("HNED", "network", "Multi-task: side outputs predict the platforms and are fused."),
)

_CONTROLS = (
    Method(
        FIRST_STAGE,
        "control",
        "The best single network's kind after only the steps that an MSP's first stage gets before "
        "its unison phase.",
    ),
    Method(
        BEST_SINGLE,
        "control",
        "For each target the single network that does best on validation subjects, trained as "
        "long as the MSP.",
    ),
    Method(
        MORE_WEIGHTS,
        "control",
        "The best single network's kind, as wide as gives it the MSP's number of weights.",
    ),
    Method(
        MEAN_OF_SINGLES,
        "control",
        "Plain mean of as many best single networks as the MSP has terms, each trained as long as "
        "the MSP from other random weights.",
    ),
)

_MSP = Method(MSP, "network", "Built from the best single network of each target.")

METHODS = {
    method.name: method
    for method in (
        *(Method(name, "baseline", _BASELINES[name]) for name in BASELINES),
        *_NETWORKS,
        *_CONTROLS,
        _MSP,
    )
}
"""All methods by name, in the table's order."""


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Give the methods that `--methods` names, in the table's order; "all" gives all.

    Raises
    ------
    UserError
        For a name that there is not.
    """
    wanted = {name.casefold(): name for name in names}
    known = {name.casefold(): name for name in METHODS}
    for name in wanted.values():
        if name.casefold() not in {*known, "all"}:
            raise UserError(
                f"--methods {name}: there is no such method; choose from all, {', '.join(METHODS)}"
            )
    return tuple(name for key, name in known.items() if "all" in wanted or key in wanted)
