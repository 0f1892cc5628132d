"""A run's whole state in one safetensors file, so that it can go on as if never stopped."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_msp.errors import Advice, Overwrite, UserError, either
from napari_msp.files import atomic_path
from napari_msp.model_file import read_tensors, under

FORMAT = "napari-msp checkpoint 1"

START_ANEW = Overwrite("start anew")
"""What helps where a checkpoint cannot be gone on from: nothing else replaces it."""


@dataclass
class Position:
    """How far a run has come.

    Attributes
    ----------
    phase
        Index of the phase under way.
    step
        Steps done in it.
    validated
        Step after which it was last validated.
    seconds
        Training time so far.
    alpha
        α of the last step; None while single networks are trained.
    errors
        Last validation of each phase.
    """

    phase: int = 0
    step: int = 0
    validated: int = 0
    seconds: float = 0.0
    alpha: float | None = None
    errors: dict[str, dict[str, float]] = field(default_factory=dict)


def write_checkpoint(
    path: Path,
    networks: nn.Module,
    optimiser: torch.optim.Optimizer,
    position: Position,
    identity: dict[str, Any],
) -> None:
    """Write weights, BatchNorm statistics, optimiser, random states and position, atomically.

    Parameters
    ----------
    path
        See `napari_msp.learning.runs.checkpoint_path`.
    networks, optimiser
        As they are after `position.step` steps.
    position
        Where the run is.
    identity
        What must be the same for the run to go on: settings, subjects, statistics.
    """
    tensors = {f"networks/{name}": value for name, value in networks.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimiser/{index}/{name}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {
        "format": FORMAT,
        "position": json.dumps(asdict(position)),
        "identity": json.dumps(identity),
    }
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata=metadata)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as read.

    Attributes
    ----------
    path
        Where it was read.
    position, identity
        As written.
    tensors
        By name.
    """

    path: Path
    position: Position
    identity: dict[str, Any]
    tensors: dict[str, Tensor]

    def restore_networks(self, networks: nn.Module) -> None:
        """Put the weights back."""
        try:
            networks.load_state_dict(under("networks/", self.tensors))
        except RuntimeError as error:  # its message has a line for each weight
            raise _useless("has other networks' weights", self.path) from error

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Put moments and step counts back, and the random states."""
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in under("optimiser/", self.tensors).items():
            index, key = name.split("/")
            states.setdefault(int(index), {})[key] = value
        current = optimiser.state_dict()
        optimiser.load_state_dict({"state": states, "param_groups": current["param_groups"]})
        torch.set_rng_state(self.tensors["random/cpu"])
        if torch.cuda.is_available() and "random/cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["random/cuda"])


def read_checkpoint(path: Path, identity: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint of the run that `identity` describes.

    Raises
    ------
    UserError
        When there is none, it is damaged, or it belongs to another run.
    """
    try:
        metadata, tensors = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise _useless("is no checkpoint of this version", path)
        before = dict(json.loads(metadata["identity"]))
        position = Position(**json.loads(metadata["position"]))
    except FileNotFoundError as error:
        remedy = Advice("train from the start instead")
        raise UserError("there is no checkpoint", path, "resume", remedy) from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _useless(f"is damaged ({error})", path) from error
    changed = sorted(name for name in identity if before.get(name) != identity[name])
    if changed:
        problem = f"was made with other {', '.join(changed)}"
        raise UserError(problem, path, "resume", either(Advice("give the same ones"), START_ANEW))
    if "random/cpu" not in tensors:
        raise _useless("is damaged (no random state)", path)
    return Checkpoint(path, position, before, tensors)


def _useless(problem: str, path: Path) -> UserError:
    return UserError(problem, path, "resume", START_ANEW)
