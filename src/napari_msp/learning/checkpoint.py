"""Checkpoints: a run's whole state in one safetensors file, to continue as if never stopped.

A digest reveals damage, the format tells the version, and the identity tells the run: what they
vouch for is not doubted again.
"""

import json
from collections.abc import Mapping
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

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's state of each parameter, besides its number of steps."""


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
    tensors: dict[str, Tensor]

    def restore_networks(self, networks: nn.Module) -> None:
        """Restore the weights.

        Raises
        ------
        UserError
            When they belong to other networks.
        """
        try:
            load_weights(networks, under("networks/", self.tensors))
        except ValueError as error:
            raise _useless(f"has other networks' weights ({error})", self.path) from error

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Restore moments, step counts and random states."""
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in under("optimiser/", self.tensors).items():
            index, _, key = name.partition("/")
            states.setdefault(int(index), {})[key] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states, "param_groups": groups})
        for parameter, state in optimiser.state.items():
            for key in MOMENTS:
                # In the layout of the weights, as before: equal layouts are rounded equally.
                like = torch.empty_like(parameter, requires_grad=False)
                state[key] = like.copy_(state[key])
        torch.set_rng_state(self.tensors["random/cpu"])
        if torch.cuda.is_available() and "random/cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["random/cuda"])


def read_checkpoint(path: Path, identity: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint of the run that `identity` describes."""
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
    return Checkpoint(path, position, tensors)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Write which settings and which scans differ, and how."""
    then, here = before["settings"], now["settings"]
    told = [
        f"{name}: {then.get(name)} there, {value} here"
        for name, value in here.items()
        if then.get(name) != value
    ]
    scans = [name for name, digest in now["scans"].items() if before["scans"].get(name) != digest]
    return "; ".join([*told, ", ".join(scans)] if scans else told)


def _useless(problem: str, path: Path) -> UserError:
    return UserError(problem, path, "resume", USELESS)
