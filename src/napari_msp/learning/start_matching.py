"""Matching of each target to a platform of a model to start from, and the start's quality."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from napari_msp.errors import Choose, Give, Remedy, StartAfresh, UserError, either
from napari_msp.formatting import sh_mse
from napari_msp.inference.stages import predict_on_grid
from napari_msp.learning.events import StartedFrom
from napari_msp.learning.heads import HEADS_MEASURED, Study
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.starts import Start, StartDoubt, from_nothing, single_of
from napari_msp.learning.validation import error_of, statistical_alignment
from napari_msp.model_file import Model
from napari_msp.networks.base import CHANNELS, SingleNetwork
from napari_msp.networks.msp import Network
from napari_msp.networks.registry import MULTI_STAGE, title
from napari_msp.signal.channels import GridImage

FAR_VOXEL_SIZE, FAR_B_VALUE = 1.25, 1.2
"""Ratios to the nearest values that the start has seen above which a scan is far (our choice)."""

# --- Which platform is which -----------------------------------------------------------------


def match_platforms(start: Start, study: Study, device: torch.device) -> tuple[Study, Start]:
    """Choose the platform of the start that each target's network begins as.

    It is the one that was asked for, else the one of the same name; else, among those of the same
    lattice scale, the one whose prediction of the training heads has the smallest error before the
    first step. An MSP takes each platform of the start once, if there are enough, as no branch
    leads from a platform to itself.

    Returns
    -------
    study
        The study; with the settings of a run from nothing if the base does not fit, and with fresh
        branches if the base lacks some that are not added to a first stage.
    start
        The start with platforms and notes.

    Raises
    ------
    UserError
        When a request cannot be met.

    Warns
    -----
    StartDoubt
        About a voxel size or b-value far from those that the start has seen, and when the base does
        not fit.
    """
    if start.loaded is None:
        return study, start
    try:
        platforms, notes = _platforms(start, study, device)
        anew = _lacks_branches(start, study, platforms)
    except UserError as error:
        if start.asked:
            raise
        chosen = {name: getattr(study.settings, name) for name in ("input", "targets")}
        settings = from_nothing(start.before).model_copy(update=chosen)
        return replace(study, settings=settings), start.instead(f"the base {error.problem}")
    if anew:
        # Zero as a whole prediction would draw the mean of eq. (1) towards it.
        start = replace(start, branches=False)
        settings = study.settings.model_copy(update={"branch_start": "first stage"})
        study = replace(study, settings=settings)
        notes.append("branches begin at zero on the first stages, as the start lacks some of them")
    doubts = tuple(f"{start.name} {words}" for words in _far(start.model, study))
    for words in doubts:
        warnings.warn(words, StartDoubt, stacklevel=3)
    doubts = start.doubts + doubts
    return study, replace(start, platforms=platforms, notes=tuple(notes), doubts=doubts)


def _platforms(
    start: Start, study: Study, device: torch.device
) -> tuple[dict[str, str], list[str]]:
    """Return the platform that each target begins as, if any, and one line per target why."""
    model, settings = start.model, study.settings
    _check_shells(model, study)
    fitting = {target: _fitting(model, settings, target, k) for target, k in study.scales.items()}
    found: dict[str, str] = {}
    why: dict[str, str] = {}
    for target in study.scales:
        asked = settings.start_from_target.get(target)
        if asked is not None and asked not in fitting[target]:
            raise _unfit(model, study, target, asked, fitting[target])
        if asked is not None:
            found[target], why[target] = asked, "as asked"
        elif target in fitting[target]:
            found[target], why[target] = target, "of the same name"
        elif start.asked and not fitting[target] and target in settings.first_stage:
            problem = f"has no {title(settings.first_stage[target])} that {target} can begin as"
            raise UserError(problem, model.name, "first_stage", StartAfresh())
    errors = {
        target: _candidate_errors(start, study, target, fitting[target], device, found)
        for target in study.scales
        if target not in found and fitting[target]
    }
    found |= _nearest(errors, set(found.values()) if settings.kind == MULTI_STAGE else None)
    whole = not _alone(start, study) and sorted(found.values()) != sorted(model.targets)
    of_what = " of the start's MSP" if whole else ""
    why |= {t: _compared(found[t], known, of_what) for t, known in errors.items()}
    if not found:
        scales = ", ".join(f"{target} ({scale})" for target, scale in model.card.scales.items())
        problem = f"has no network of any target's lattice scale, only {scales}"
        raise UserError(problem, model.name, "start_from", StartAfresh())
    _check_together(model, found, study)
    return {target: found[target] for target in study.scales if target in found}, [
        f"{target} begins as {found[target]} ({why[target]})"
        if target in found
        else f"{target} begins from nothing (there is no {_wanted(settings)} of lattice scale {k})"
        for target, k in study.scales.items()
    ]


def _lacks_branches(start: Start, study: Study, platforms: Mapping[str, str]) -> bool:
    """Return whether the run has a branch that the start lacks and that may not begin at 0.

    A branch added to a first stage may: the prediction is then that stage's.
    """
    if start.branch_start in (None, "first stage") or len(study.scales) == 1:
        return False
    if len(set(platforms.values())) == len(study.scales):
        return False
    if start.before.branch_start != "preset":
        problem = (
            f"lacks some of the branches between {' and '.join(study.scales)}, which cannot begin "
            f"added to {start.branch_start}"
        )
        remedy = either(Give("branch_start", "preset"), StartAfresh())
        raise UserError(problem, start.model.name, "branch_start", remedy)
    return True


def _wanted(settings: TrainingSettings) -> str:
    return "network" if settings.kind == MULTI_STAGE else title(settings.kind)


def _fitting(model: Model, settings: TrainingSettings, target: str, scale: int) -> list[str]:
    """List the platforms of a model that a target's network can begin as."""
    kind = settings.first_stage.get(target) if settings.kind == MULTI_STAGE else settings.kind
    return [
        platform
        for platform, known in model.card.scales.items()
        if known == scale and kind in (None, single_of(model, platform).kind)
    ]


def _unfit(
    model: Model, study: Study, target: str, asked: str, fitting: Sequence[str]
) -> UserError:
    """Return the error why a target cannot begin as a platform."""
    scale, own = model.card.scales[asked], study.scales[target]
    what = f"of lattice scale {scale}, but {target} has {own}"
    if scale == own:
        what = f"no {title(study.settings.first_stage.get(target, study.settings.kind))}"
    choices = tuple(f"{target}={each}" for each in fitting)
    remedy = Choose("start_from_target", choices) if choices else StartAfresh()
    return UserError(f"{asked} is {what}", model.name, "start_from_target", remedy)


def _check_shells(model: Model, study: Study) -> None:
    """Refuse a model that reads other shells."""
    run = len(study.b_values)
    trunk = study.settings.trunk if run > 1 else "each"
    at_once = single_of(model, model.targets[0]).channels // CHANNELS
    if at_once == (run if trunk == "all" else 1):
        return
    remedy: Remedy = StartAfresh()
    if at_once == 1:
        problem = f"takes each shell by itself, not {run} at once"
        remedy = either(Give("trunk", "each"), StartAfresh())
    else:
        problem = f"takes {at_once} shells at once, not {run if trunk == 'all' else 'one'}"
        if run == at_once:
            remedy = either(Give("trunk", "all"), StartAfresh())
    raise UserError(problem, model.name, "trunk", remedy)


def _check_together(model: Model, found: Mapping[str, str], study: Study) -> None:
    """Refuse networks that predict several platforms together, if these are not the run's."""
    for platform in found.values():
        network = single_of(model, platform)
        if len(network.scales) > 1 and not (
            sorted(network.scales) == sorted(found.values()) and len(found) == len(study.scales)
        ):
            together = ", ".join(sorted(network.scales))
            problem = f"predicts {together} together, which cannot become {', '.join(study.scales)}"
            remedy = either(Give("start_from_target", "each of them once"), StartAfresh())
            raise UserError(problem, model.name, "start_from_target", remedy)


def _nearest(errors: Mapping[str, Mapping[str, float]], taken: set[str] | None) -> dict[str, str]:
    """Return the platform of the smallest error for each target.

    Parameters
    ----------
    errors
        Errors of the platforms that fit, by target.
    taken
        Platforms not to be taken again while there are others; None: any may be taken.
    """
    nearest = {target: min(known, key=known.__getitem__) for target, known in errors.items()}
    if taken is None:
        return nearest
    free = sorted({platform for known in errors.values() for platform in known} - taken)
    targets = list(errors)
    far = 1e6 * max((each for known in errors.values() for each in known.values()), default=1.0)
    costs = np.array([[errors[t].get(platform, far) for platform in free] for t in targets])
    rows, columns = linear_sum_assignment(costs) if costs.size else ((), ())
    once = {targets[row]: free[column] for row, column in zip(rows, columns, strict=True)}
    return nearest | {t: platform for t, platform in once.items() if platform in errors[t]}


def _compared(platform: str, errors: Mapping[str, float], of_what: str) -> str:
    """Write by what error a platform was chosen, and of which network if not of the run's."""
    if len(errors) == 1:
        return "the only one of its lattice scale"
    others = ", ".join(f"{name} {sh_mse(errors[name])}" for name in errors if name != platform)
    words = f"SH MSE{of_what} before the first step {sh_mse(errors[platform])}; {others}"
    taken = min(errors.values()) < errors[platform]
    return words + ", which another target begins as" * taken


def _alone(start: Start, study: Study) -> bool:
    """Return whether a run begins as single networks, without any of the start's branches."""
    return len(study.scales) == 1 or start.branch_start is None


def _candidate_errors(
    start: Start,
    study: Study,
    target: str,
    platforms: Sequence[str],
    device: torch.device,
    found: Mapping[str, str],
) -> dict[str, float]:
    """Return the error of each platform's network on the training heads, with their statistics.

    It is that of its single network if the run begins as that; else of its MSP with all branches,
    though the run may begin with fewer. An MSP's other first stages get the statistics of the
    target that begins as them if that is decided (`found`: the platform of each target), else keep
    those of their own platform.
    """
    model = start.model
    if len(platforms) == 1:
        return {platforms[0]: 0.0}
    if not _pairs(study, target):
        pair = f"{study.settings.input} and {target}"
        problem = f"no subject was scanned on {pair}, so it is unknown what it should begin as"
        remedy = Choose("start_from_target", tuple(f"{target}={each}" for each in platforms))
        raise UserError(problem, model.name, "start_from_target", remedy)
    source, wanted = study.standardisation[study.settings.input], study.standardisation[target]
    errors = {}
    for platform in platforms:
        own = single_of(model, platform) if _alone(start, study) else model.single(platform)
        network = deepcopy(own).to(device)
        known = {platform: study.standardisation[other] for other, platform in found.items()}
        known[platform] = wanted
        for single in (each for each in network.modules() if isinstance(each, SingleNetwork)):
            if single.trunk == "each":
                single.apply_to_each(len(study.b_values))
            told = known.get(single.target) or model.standardisation(single.target)
            fits = len(told.mean) == len(wanted.mean)  # the start may have other shells
            single.set_standardisation(source, told if fits else wanted)
        errors[platform] = zero_step_error(study, network, target, device)
    return errors


# --- Quality before the first step ------------------------------------------------------------


def zero_step_error(study: Study, network: Network, target: str, device: torch.device) -> float:
    """Return a network's mean squared error on training heads, in SH units."""
    network.eval()
    source = study.standardisation[study.settings.input]
    wanted = {target: study.standardisation[target]}

    def predicted(image: GridImage) -> GridImage:
        return predict_on_grid(network, image, source, wanted, device=device)[target].prediction

    return error_of(predicted, _pairs(study, target))


def _pairs(study: Study, target: str) -> list[tuple[GridImage, GridImage]]:
    """Return input and truth of the training heads on which a start is measured."""
    heads = study.paired(target)[:HEADS_MEASURED]
    return [(head.input, head.targets[target]) for head in heads]


def describe_start(
    start: Start, study: Study, networks: Mapping[str, Network], device: torch.device
) -> StartedFrom:
    """Describe what a run starts from, and how good that is.

    Parameters
    ----------
    networks
        Networks of each target before the first step; empty if the run continues.

    Warns
    -----
    StartDoubt
        When a network is no better than statistical alignment.
    """
    errors = {
        target: zero_step_error(study, network, target, device)
        for target, network in networks.items()
        if target in start.platforms
    }
    aligned = {
        target: error_of(statistical_alignment(study, target), _pairs(study, target))
        for target in errors
    }
    worse = [
        f"{target} is no better than statistical alignment before the first step (SH MSE "
        f"{sh_mse(error)} on training heads, {sh_mse(aligned[target])} aligned)"
        for target, error in errors.items()
        if not error < aligned[target]
    ]
    for words in worse:
        warnings.warn(words, StartDoubt, stacklevel=3)
    return StartedFrom(
        model=start.name,
        sha256=start.sha256,
        label="" if start.loaded is None else start.model.card.label,
        platforms=dict(start.platforms),
        notes=list(start.notes),
        doubts=[*start.doubts, *worse],
        errors=errors,
        aligned=aligned,
    )


# --- What the start has seen ------------------------------------------------------------------


def _far(model: Model, study: Study) -> Iterable[str]:
    """Yield properties of the dataset far from all that a model and its ancestors have seen."""
    card, sizes, b_values = model.card, list[float](), list[float]()
    own = {"voxel_size": card.voxel_size, "b_values": card.sh.b_values, **model.training}
    for known in (own, *model.ancestors):
        # Values that were drawn at random are kept as ranges in "saw".
        saw = known.get("saw")
        saw = saw if isinstance(saw, Mapping) else {}
        sizes += [*_numbers([known.get("voxel_size")]), *_numbers(saw.get("voxel_size"))]
        b_values += [*_numbers(known.get("b_values")), *_numbers(saw.get("b_value"))]
    if sizes and _ratio(study.voxel_size, sizes) > FAR_VOXEL_SIZE:
        known_sizes = _range(sizes, ".3g")
        yield f"learned from voxels of {known_sizes} mm, far from {study.voxel_size:.3g} mm here"
    for value in study.b_values:
        if b_values and _ratio(value, b_values) > FAR_B_VALUE:
            yield f"learned at b = {_range(b_values, '.0f')}, far from b = {value:.0f} here"


def _range(values: Sequence[float], form: str) -> str:
    """Write the least and the largest value; one if they are written alike."""
    return " to ".join(dict.fromkeys(f"{each:{form}}" for each in (min(values), max(values))))


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list | tuple):
        return []
    return [float(each) for each in values if isinstance(each, int | float) and each > 0]


def _ratio(value: float, seen: Sequence[float]) -> float:
    """Return the factor by which a value is above or below the values seen; 1 within."""
    return max(1.0, value / max(seen), min(seen) / value)
