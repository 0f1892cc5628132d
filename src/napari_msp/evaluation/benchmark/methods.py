"""The rows of Table 1, the competing methods. Networks and baselines come from their registries.

Predictions made elsewhere are rows too, see `finished`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from napari_msp import packaged
from napari_msp.errors import Change, Choose, Give, UserError, either
from napari_msp.evaluation.baselines.base import (
    COHORTS,
    TRAVELLING,
    Baseline,
    baseline_class,
    baseline_names,
)
from napari_msp.evaluation.benchmark.results import FLOOR, TARGET_SCAN
from napari_msp.evaluation.proof.pages import REPEAT, SMOOTHED, TARGET
from napari_msp.learning.starts import single_of
from napari_msp.model_file import Model, kept_model
from napari_msp.networks.registry import MULTI_STAGE, kinds, network_class, title


@dataclass(frozen=True)
class Method:
    """One row of Table 1.

    Attributes
    ----------
    needs, gives
        Inputs and outputs in a few words for the report.
    """

    name: str
    explanation: str
    needs: str = TRAVELLING
    gives: str = "image"


MSP: str = title(MULTI_STAGE)
SHARED_MSP = f"{MSP}, shared first stages"
STATISTICS_ONLY = "base, statistics only"

BEST_SINGLE = "best single"
FIRST_STAGE = "first stage alone"
MORE_WEIGHTS = "single, as many weights"
MEAN_OF_SINGLES = "mean of singles"

FROM_BASE = ", from base"
"""Ending of the rows of networks that start from the base."""

KEYS = {
    FIRST_STAGE: "first stage alone",
    BEST_SINGLE: "best single",
    MORE_WEIGHTS: "single, as many weights",
    MEAN_OF_SINGLES: "mean of singles",
    SHARED_MSP: "MSP, shared first stages",
    STATISTICS_ONLY: "base, statistics only",
    FLOOR: "noise-free twin (floor)",
    TARGET_SCAN: "target's own scan",
    TARGET: "target's scan",
    REPEAT: "repeated scan (floor)",
    SMOOTHED: "smoothed input (trivial)",
}
"""Names of rows in the files of an evaluation under way, by title. They stay as they are when a
title is worded anew, so that it goes on. Baselines and networks have their entry points' names."""


def key_of(row: str) -> str:
    """Return the name of a row in the files of an evaluation under way, from its title."""
    own = row.removesuffix(FROM_BASE)
    return KEYS.get(own, own) + ", from base" * (own != row)


_CONTROLS = (  # trained to find out what an MSP's advantage comes from
    Method(
        FIRST_STAGE,
        "The best single network's kind after only the steps that an MSP's first stage gets before "
        "its unison phase.",
    ),
    Method(
        BEST_SINGLE,
        "For each target the single network that does best on validation subjects, trained as "
        "long as the MSP.",
    ),
    Method(
        MORE_WEIGHTS,
        "The best single network's kind, as wide as gives it the MSP's number of weights.",
    ),
    Method(
        MEAN_OF_SINGLES,
        "Plain mean of as many best single networks as the MSP has terms, each trained as long as "
        "the MSP from other random weights.",
    ),
)


def single_networks() -> dict[str, str]:
    """Return the networks that an MSP's first stage is chosen from: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "single"}


def multi_task_networks() -> dict[str, str]:
    """Return the networks that predict all platforms on the way to one: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "multi-task"}


# --- From the packaged base ------------------------------------------------------------------


def from_base(name: str) -> str:
    """Return the name of the row of a network that starts from the base."""
    return name + FROM_BASE


def networks_from_base() -> dict[str, str]:
    """Return the networks that start from the base: kind by name, for all kinds that it holds.

    There are none without a base.
    """
    path = packaged.base_model()
    held = () if path is None else _held(kept_model(path))
    singles = [kind for kind in kinds() if kind in held and kind != MULTI_STAGE]
    ordered = [*singles, *(kind for kind in held if kind == MULTI_STAGE)]
    return {from_base(title(kind)): kind for kind in ordered}


def rows_from_base() -> dict[str, str]:
    """Return every row that begins as the base, tuned or as it is: kind by name."""
    tuned = networks_from_base()
    untuned = {STATISTICS_ONLY: MULTI_STAGE} if MULTI_STAGE in tuned.values() else {}
    return untuned | tuned


def begun_from_base(kind: str, scales: Mapping[str, int]) -> tuple[str, ...]:
    """Return those of the targets, with their scales, for which the base holds this kind."""
    path = packaged.base_model()
    assert path is not None
    model = kept_model(path)
    fit = {
        scale
        for platform, scale in model.card.scales.items()
        if kind in (MULTI_STAGE, single_of(model, platform).kind)
    }
    return tuple(target for target, scale in scales.items() if scale in fit)


def _held(model: Model) -> set[str]:
    return {model.kind, *(single_of(model, target).kind for target in model.targets)}


# --- All -------------------------------------------------------------------------------------


def all_methods() -> dict[str, Method]:
    """Return all available methods by name, in the table's order."""
    networks = [kind for kind in kinds() if kind != MULTI_STAGE]
    methods = (
        *(_of_baseline(baseline_class(name)) for name in baseline_names()),
        *(Method(title(kind), network_class(kind).summary) for kind in networks),
        *_CONTROLS,
        Method(MSP, network_class(MULTI_STAGE).summary),
        Method(
            SHARED_MSP,
            f"The {MSP}s of all targets on one set of single networks, trained together from the "
            "first step: what this package trains by default.",
        ),
        *(_of_base(name, kind) for name, kind in rows_from_base().items()),
    )
    return {method.name: method for method in methods}


def _of_baseline(baseline: type[Baseline]) -> Method:
    least = baseline.least_heads
    needs = f"{baseline.needs}, {least} or more" if least > 1 else baseline.needs
    return Method(baseline.name, baseline.summary, needs, baseline.gives)


def _of_base(name: str, kind: str) -> Method:
    if name == STATISTICS_ONLY:
        explanation = (
            "The packaged base without a step of training; each platform's mean and spread are the "
            "training subjects', who need not have travelled for that."
        )
        return Method(name, explanation, COHORTS)
    explanation = (
        f"{title(kind)} as wide as the packaged base, whose weights it begins with; its statistics "
        "are the training subjects'"
    )
    return Method(name, explanation)


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return the methods of these names, in the table's order; "all" gives all."""
    wanted = {name.casefold() for name in names}
    known = {name.casefold(): name for name in all_methods()}
    unheld = {STATISTICS_ONLY, *(from_base(title(kind)).casefold() for kind in kinds())}
    for name in names:
        if name.casefold() in unheld - known.keys():
            raise _not_held(name)
        if name.casefold() not in {*known, "all"}:
            remedy = Choose("methods", ("all", *known.values()))
            raise UserError("there is no such method", name, "methods", remedy)
    return tuple(name for key, name in known.items() if "all" in wanted or key in wanted)


def _not_held(name: str) -> UserError:
    """Return the error for a row that would start from the base."""
    held = tuple(rows_from_base())
    own = Give("models", "one that was trained from a model of your own")
    if not held:
        remedy = either(Change("methods", "other"), own)
        return UserError("this installation has no base model", name, "methods", remedy)
    return UserError("the base holds no such network", name, "methods", Choose("methods", held))
