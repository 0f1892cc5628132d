"""The rows of Table 1: what competes. Networks and baselines come from their registries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_msp.errors import Choose, UserError
from napari_msp.evaluation.baselines.base import Interpolation, baseline_class, baseline_names
from napari_msp.networks.registry import MULTI_STAGE, kinds, network_class, title

Role = Literal["baseline", "network", "control"]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    name
        As the table says it.
    role
        "baseline": learned in closed form; "network": trained; "control": trained to see what an
        MSP's advantage comes from.
    explanation
        One sentence for the report.
    """

    name: str
    role: Role
    explanation: str


UNHARMONIZED = Interpolation.name

MSP: str = title(MULTI_STAGE)

BEST_SINGLE = "best single"
FIRST_STAGE = "first stage alone"
MORE_WEIGHTS = "single, as many weights"
MEAN_OF_SINGLES = "mean of singles"

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


def single_networks() -> dict[str, str]:
    """Give the networks that an MSP's first stage is chosen from: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "single"}


def multi_task_networks() -> dict[str, str]:
    """Give the networks that predict all platforms on the way to one: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "multi-task"}


def all_methods() -> dict[str, Method]:
    """Give all methods by name, in the table's order."""
    networks = [kind for kind in kinds() if kind != MULTI_STAGE]
    methods = (
        *(Method(n, "baseline", baseline_class(n).summary) for n in baseline_names()),
        *(Method(title(kind), "network", network_class(kind).summary) for kind in networks),
        *_CONTROLS,
        Method(MSP, "network", network_class(MULTI_STAGE).summary),
    )
    return {method.name: method for method in methods}


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Give the methods of these names, in the table's order; "all" gives all.

    Raises
    ------
    UserError
        For a name that there is not.
    """
    wanted = {name.casefold() for name in names}
    known = {name.casefold(): name for name in all_methods()}
    for name in names:
        if name.casefold() not in {*known, "all"}:
            remedy = Choose("methods", ("all", *known.values()))
            raise UserError("there is no such method", name, "methods", remedy)
    return tuple(name for key, name in known.items() if "all" in wanted or key in wanted)
