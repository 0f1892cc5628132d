"""Checkpoints: a run's whole state in one safetensors file, to continue as if never stopped.

Nothing in the file is trusted: a digest reveals damage, and every part is checked before it is
restored.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_msp.errors import Advice, Overwrite, UserError, either
from napari_msp.foreign_errors import first_reason
from napari_msp.learning.lengths import Position
from napari_msp.learning.optimisation import AveragedWeights
from napari_msp.model_file import digest_of, load_weights, read_tensors, under, write_tensors
from napari_msp.strict_json import parse_json

FORMAT = "napari-msp checkpoint 4"

DIGEST = "sha256"
"""Entry of the metadata: digest of everything else in the file."""

START_ANEW = Overwrite("start over")
"""Remedy if a checkpoint is not to be continued from."""

USELESS = either(START_ANEW, Advice("delete this file to start over"))
"""Remedy if it cannot be: a run in a folder has no option to replace it."""

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""Adam's state of each parameter."""


def write_checkpoint(
    path: Path,
    networks: nn.Module,
    optimiser: torch.optim.Optimizer,
    position: Position,
    identity: dict[str, Any],
    averages: AveragedWeights | None = None,
) -> None:
    """Write weights, BatchNorm statistics, optimiser, random states and position, atomically.

    Parameters
    ----------
    networks, optimiser
        Their state after `position.step` steps.
    identity
        What must be the same for the run to continue: settings, subjects, statistics.
    averages
        Averages of the current phase's weights, if they are kept.
    """
    tensors = {f"networks/{name}": value for name, value in networks.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimiser/{index}/{name}"] = value
    tensors |= averages.tensors() if averages is not None else {}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    metadata = {
        "format": FORMAT,
        "position": json.dumps(position.model_dump()),
        "identity": json.dumps(identity),
    }
    write_tensors(path, tensors, {**metadata, DIGEST: digest_of(metadata, tensors)})


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint."""

    path: Path
    position: Position
    identity: dict[str, Any]
    tensors: dict[str, Tensor]

    def restore_networks(self, networks: nn.Module) -> None:
        """Restore the weights.

        Raises
        ------
        UserError
            When they belong to other networks, or are not finite.
        """
        weights = under("networks/", self.tensors)
        try:
            load_weights(networks, weights)
        except ValueError as error:
            raise _useless(f"has other networks' weights ({error})", self.path) from error
        if not all(value.isfinite().all() for value in weights.values()):
            raise _useless("has weights that are not finite", self.path)

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Restore moments, step counts and random states.

        Raises
        ------
        UserError
            When they do not belong to this optimiser or this torch.
        """
        current = optimiser.state_dict()
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        try:
            states = _moments(under("optimiser/", self.tensors), parameters, self.position.step)
            optimiser.load_state_dict({"state": states, "param_groups": current["param_groups"]})
            _restore_random(self.tensors)
        except (ValueError, RuntimeError, TypeError) as error:
            raise _useless(f"is damaged ({first_reason(error)})", self.path) from error

    def restore_averages(self, averages: AveragedWeights) -> None:
        """Restore averaged weights.

        Raises
        ------
        UserError
            When they belong to other networks, or are not finite.
        """
        try:
            averages.restore(self.tensors)
        except ValueError as error:
            raise _useless(f"is damaged ({error})", self.path) from error


def _moments(
    stored: Mapping[str, Tensor], parameters: Sequence[Tensor], steps: int
) -> dict[int, dict[str, Tensor]]:
    """Return Adam's state, by the number of each parameter.

    A parameter that a network does not use has no state.
    """
    names = {str(index): index for index in range(len(parameters))}
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in stored.items():
        number, _, key = name.partition("/")
        if number not in names or key not in MOMENTS:
            raise ValueError(f"the optimiser has no {name}")
        states.setdefault(names[number], {})[key] = value
    if bool(states) != (steps > 0):
        raise ValueError(f"the optimiser has done {'no ' * (not states)}steps, the run {steps}")
    for index, state in states.items():
        if set(state) != MOMENTS:
            raise ValueError(f"the optimiser lacks a part of {index}")
        step, first, second = state["step"], state["exp_avg"], state["exp_avg_sq"]
        for each in (first, second):
            if each.shape != parameters[index].shape or each.dtype != parameters[index].dtype:
                raise ValueError(f"the optimiser's part of {index} has another shape")
        if not (first.isfinite().all() and second.isfinite().all() and (second >= 0).all()):
            raise ValueError(f"the optimiser's part of {index} is no mean of gradients")
        if (
            step.dtype != torch.float32
            or step.shape != ()
            or step.item() not in range(1, steps + 1)
        ):
            raise ValueError(f"the optimiser's steps of {index} are not the run's")
        # In the layout of the weights, as before: equal layouts are rounded equally.
        like = torch.empty_like(parameters[index], requires_grad=False)
        state |= {"exp_avg": like.clone().copy_(first), "exp_avg_sq": like.clone().copy_(second)}
    return states


def _restore_random(tensors: Mapping[str, Tensor]) -> None:
    states = {"random/cpu": (torch.get_rng_state, torch.set_rng_state)}
    if torch.cuda.is_available() and "random/cuda" in tensors:
        states["random/cuda"] = (torch.cuda.get_rng_state, torch.cuda.set_rng_state)
    for name, (now, restore) in states.items():
        state = tensors.get(name)
        if state is None:
            raise ValueError("no random state")
        if state.dtype != torch.uint8 or state.shape != now().shape:
            raise ValueError("the random state has another size")
        restore(state)


def read_checkpoint(
    path: Path, identity: dict[str, Any], go_on: Callable[[Position], object]
) -> Checkpoint:
    """Read a checkpoint of the run that `identity` describes, and let the run go on from it.

    `go_on` is called with the position; it raises ValueError when the run cannot be there.
    """
    try:
        metadata, tensors = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise _useless("is no checkpoint of this version", path)
        if metadata.pop(DIGEST, None) != digest_of(metadata, tensors):
            raise ValueError("its content changed after it was written")
        before = parse_json(metadata["identity"])
        if not isinstance(before, dict):
            raise ValueError("it does not state its run")
        position = Position.model_validate(parse_json(metadata["position"], "keep"))
    except FileNotFoundError as error:
        remedy = Advice("train from the start instead")
        raise UserError("there is no checkpoint", path, "resume", remedy) from error
    except (KeyError, ValueError) as error:
        raise _useless(f"is damaged ({first_reason(error)})", path) from error
    changed = sorted(name for name in identity if before.get(name) != identity[name])
    if changed:
        told = _differences(before, identity)
        problem = f"was made with other {', '.join(changed)}{f' ({told})' if told else ''}"
        raise UserError(problem, path, "resume", either(Advice("give the same ones"), START_ANEW))
    try:
        go_on(position)
    except ValueError as error:
        raise _useless(f"is damaged ({error})", path) from error
    return Checkpoint(path, position, before, tensors)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Write which settings and which scans differ, and how."""
    told = [
        f"{name}: {then} there, {here} here"
        for name, then, here in _changed("settings", before, now)
    ]
    scans = ", ".join(name for name, _, _ in _changed("scans", before, now))
    return "; ".join([*told, scans] if scans else told)


def _changed(
    part: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the changes in a part of a run's identity: name and both values."""
    then, here = before.get(part), now.get(part)
    if isinstance(then, dict) and isinstance(here, dict):
        yield from (
            (name, then.get(name), here[name]) for name in here if then.get(name) != here[name]
        )


def _useless(problem: str, path: Path) -> UserError:
    return UserError(problem, path, "resume", USELESS)
