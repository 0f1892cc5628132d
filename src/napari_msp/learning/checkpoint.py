"""Checkpoints: a run's whole state in one safetensors file, to continue as if never stopped.

Nothing in the file is trusted: a digest reveals damage, and every part is checked before it is
restored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from napari_msp.errors import Advice, Overwrite, UserError, either
from napari_msp.foreign_errors import first_reason
from napari_msp.learning.optimisation import AveragedWeights
from napari_msp.learning.settings import MOST
from napari_msp.learning.trail import Trail
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


class Position(BaseModel):
    """How far a run has come.

    Attributes
    ----------
    phase, step, validated
        Index of the current phase, steps done in it, and after which of them it was last validated.
    alpha
        α of the last step; None while single networks are trained.
    errors, validation
        Errors of the weights that each phase keeps so far, by target, on held-out and on validation
        subjects; nan if they could not be measured.
    loss, loss_squares, rates
        Sums of the losses, of their squares, and of the learning rates since the end of the last
        epoch.
    lengths
        Steps of phases that ended early.
    fitted
        Steps of an epoch, of a single network's phase and of an MSP's, if they were fitted into a
        time; None: they follow from the settings.
    falls
        Step of the current phase from which its learning rate falls, once that is known.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    phase: int = Field(default=0, ge=0)
    step: int = Field(default=0, ge=0)
    validated: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    alpha: float | None = Field(default=None, ge=0, le=1)
    errors: dict[str, dict[str, float]] = Field(default_factory=dict)
    validation: dict[str, dict[str, float]] = Field(default_factory=dict)
    loss: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    loss_squares: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rates: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    trails: dict[str, Trail] = Field(default_factory=dict)
    lengths: dict[str, int] = Field(default_factory=dict)
    fitted: list[int] | None = Field(default=None, min_length=3, max_length=3)
    falls: int | None = Field(default=None, ge=0)

    def check(self, phases: Mapping[str, int]) -> None:
        """Check that a run whose phases have at most these steps can be at this position."""
        if self.phase >= len(phases):
            raise ValueError(f"phase {self.phase} of {len(phases)}")
        begun = [*phases][: self.phase + 1]
        for name, those in (
            ("errors", self.errors),
            ("validation", self.validation),
            ("trails", self.trails),
            ("lengths", self.lengths),
        ):
            if not set(those) <= set(begun):
                raise ValueError(f"{name} of {', '.join(those)}")
        for phase, length in self.lengths.items():
            if not 0 < length <= phases[phase]:
                raise ValueError(f"{length} steps of {phases[phase]}")
        for phase, trail in self.trails.items():
            done = self.step if phase == begun[-1] else phases[phase]
            if trail.ends and trail.ends[-1] > done:
                raise ValueError(f"an epoch after step {trail.ends[-1]} of {done}")
        steps = self.lengths.get(begun[-1], phases[begun[-1]])
        if self.step > steps:
            raise ValueError(f"step {self.step} of {steps}")
        if self.validated > self.step:
            raise ValueError(f"validated at step {self.validated} of {self.step}")
        if self.falls is not None and self.falls > self.step:
            raise ValueError(f"a falling rate since step {self.falls} of {self.step}")


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

    @property
    def fitted(self) -> list[int]:
        """Steps that were fitted into a time."""
        counts = self.position.fitted
        if counts is None or not all(0 < each <= MOST for each in counts):
            raise _useless("is damaged (it does not say how many steps fit)", self.path)
        return counts

    def check(self, phases: Mapping[str, int]) -> None:
        """Check that a run can be at this position."""
        try:
            self.position.check(phases)
        except ValueError as error:
            raise _useless(f"is damaged ({error})", self.path) from error

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


def read_checkpoint(path: Path, identity: dict[str, Any], phases: Mapping[str, int]) -> Checkpoint:
    """Read a checkpoint of the run that `identity` describes.

    `phases` are the numbers of steps of its phases.
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
    found = Checkpoint(path, position, before, tensors)
    found.check(phases)
    return found


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
