"""Learn an MSP for all targets from blocks of many platforms, and write it as a model file.

First stages are shared by the three targets: each is run once a step. Every block is standardised
by statistics of its own, as a user's platforms will be, and the loss is in SH units, relative to
how much the block's target varies. Crops, augmentation, loss and schedule are those of the fast
preset; convolutions run in bfloat16 on channels-last memory, 2.6 times as fast where a CPU has it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from base.pairs import INPUTS, TARGETS, Block, Channels, Variety, make_blocks
from napari_msp.files import atomic_path
from napari_msp.learning.loop import LARGEST_GRADIENT
from napari_msp.learning.sampling import Symmetry
from napari_msp.learning.schedule import FAST, learning_rate
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.equation import second_stage
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.rotation import grid_symmetries

SEED = 20180601
"""Of the blocks that the packaged base learned from."""

CHECKPOINT_EVERY = 250
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Plan:
    """What a base learns, and how.

    Attributes
    ----------
    variety, blocks
        Of what it learns from, and how many.
    width
        Fraction of the full width.
    steps, warm_singles
        In all, and the first of them that train single networks only.
    branch_start
        What the branches of the MSPs start from.
    targets
        A part of the base's, for a search.
    unison
        Whether there is a second stage at all.
    seed
        Of weights, crops and turns.
    """

    variety: Variety = "random"
    blocks: int = 64
    width: float = 0.28
    steps: int = 4000
    branch_start: Literal["nothing", "input", "first stage"] = "first stage"
    targets: tuple[str, ...] = tuple(TARGETS)
    unison: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Crops:
    """A batch: standardised examples, and the weight of each channel of each example."""

    input: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    weights: dict[str, Tensor]


class CropsOfBlocks:
    """Crops around random in-mask voxels of random blocks; a pure function of seed and step."""

    def __init__(self, paths: Sequence[Path], targets: Sequence[str], seed: int) -> None:
        self._blocks = [Block.load(path) for path in paths]
        self._targets, self._seed = targets, seed
        self._inside = [np.argwhere(block.inputs[0].mask) for block in self._blocks]
        self._turns = [Symmetry(matrix) for matrix in grid_symmetries()]

    def batch(self, step: int) -> Crops:
        """Give the batch of a step."""
        random = np.random.default_rng([self._seed, step])
        cuts = [self._cut(random) for _ in range(FAST.batch)]
        return Crops(
            torch.stack([cut.input for cut in cuts]),
            *(
                {
                    name: torch.stack([getattr(cut, part)[name] for cut in cuts])
                    for name in TARGETS
                    if name in self._targets
                }
                for part in ("targets", "masks", "weights")
            ),
        )

    def _cut(self, random: np.random.Generator) -> Crops:
        number = int(random.integers(len(self._blocks)))
        block, inside = self._blocks[number], self._inside[number]
        edge = FAST.patch
        centre = inside[random.integers(len(inside))]
        last = np.array(block.inputs[0].mask.shape) - edge
        start = np.clip(centre - edge // 2, 0, last)
        turn = self._turns[int(random.integers(len(self._turns)))]
        # The two targets on the input's lattice are of one kind: which is which is drawn.
        swap = bool(random.integers(2))
        other = {"base_st": "base_st2", "base_st2": "base_st"} if swap else {}

        def part(channels: Channels, scale: int) -> tuple[Tensor, Tensor]:
            size = scale * (edge - 1) + 1
            where = tuple(slice(first, first + size) for first in scale * start)
            values = torch.from_numpy(channels.values[(slice(None), *where)].astype(np.float32))
            return turn(values, torch.from_numpy(channels.mask[where]))

        targets, masks, weights = {}, {}, {}
        for name in self._targets:
            channels = block.targets[other.get(name, name)]
            targets[name], mask = part(channels, TARGETS[name])
            masks[name] = mask[None]
            squares = torch.from_numpy(channels.deviation).float() ** 2
            weights[name] = (squares / squares.mean()).view(-1, 1, 1, 1)
        seen = block.inputs[int(random.integers(INPUTS))]
        return Crops(part(seen, 1)[0], targets, masks, weights)


class BaseNetworks(nn.Module):
    """First stages that all targets share, and an MSP for each target on top of them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        torch.manual_seed(plan.seed)
        self.singles = nn.ModuleDict(
            {
                name: build_single(
                    "shresnet",
                    target=name,
                    scales={name: TARGETS[name]},
                    width=plan.width,
                    input_skip=True,
                )
                for name in plan.targets
            }
        )
        shared = cast(Mapping[str, SingleNetwork], self.singles)
        self.multi_stage = nn.ModuleDict(
            {
                name: MSP(shared, name, width=plan.width, branch_start=plan.branch_start)
                for name in (plan.targets if plan.unison else ())
            }
        )

    def losses(self, batch: Crops) -> Iterator[Tensor]:
        """Give the loss of every output, weighted as in the fast preset."""
        first: dict[str, Tensor] = {}
        features: dict[str, Tensor] = {}
        for name, single in self.singles.items():
            first[name], features[name] = cast(SingleNetwork, single).forward_features(batch.input)
            yield _error(first[name], batch, name)
        for name, module in self.multi_stage.items():
            network = cast(MSP, module)
            branches = {
                other: network.connections[other](z)
                for other, z in features.items()
                if other != name
            }
            if network.branch_start != "nothing":
                own = network.branch_start == "first stage"
                start = first[name] if own else network.resampling(batch.input)
                branches = {other: start + branch for other, branch in branches.items()}
            second = second_stage(first[name], tuple(branches.values()), 1.0)
            by_itself = network.branch_start == "first stage"
            yield (FAST.second_weight if by_itself else 1.0) * _error(second, batch, name)
            if not by_itself:
                for branch in branches.values():
                    yield _error(branch, batch, name)


def _error(prediction: Tensor, batch: Crops, name: str) -> Tensor:
    mask = batch.masks[name]
    squares = (prediction.float() - batch.targets[name]).square() * batch.weights[name] * mask
    return squares.sum() / (mask.sum() * prediction.shape[1]).clamp(min=1)


def channels_last(network: nn.Module) -> None:
    """Lay a network's weights out so that convolutions on a CPU are faster; values stay."""
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def learn(plan: Plan, blocks: Path, checkpoint: Path, minutes: float | None = None) -> BaseNetworks:
    """Train, going on from a checkpoint where there is one; print how it goes.

    Parameters
    ----------
    plan
        What to learn.
    blocks
        Folder of the blocks; missing ones are made.
    checkpoint
        File that keeps the state of the run.
    minutes
        Stop with a checkpoint after so long; None: at the end.
    """
    networks: BaseNetworks = BaseNetworks(plan)
    channels_last(networks)
    optimiser = torch.optim.Adam(networks.parameters(), lr=FAST.learning_rate)
    done = 0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if state["plan"] != repr(plan):
            raise SystemExit(f"{checkpoint} is of another plan: {state['plan']}")
        networks.load_state_dict(state["networks"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["done"]
    if done == plan.steps:
        return networks
    paths = make_blocks(blocks, plan.variety, plan.blocks, SEED)
    crops = CropsOfBlocks(paths, plan.targets, plan.seed)
    began, mean = time.perf_counter(), 0.0
    for step in range(done, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(FAST, step, plan.steps, 1)
        batch = crops.batch(step)
        batch = Crops(
            batch.input.contiguous(memory_format=torch.channels_last_3d),
            batch.targets,
            batch.masks,
            batch.weights,
        )
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.stack(list(networks.losses(batch))).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(networks.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        mean += (float(loss.detach()) - mean) / min(step - done + 1, 100)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == plan.steps:
            state = {
                "plan": repr(plan),
                "done": step + 1,
                "networks": networks.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
            seconds = (time.perf_counter() - began) / (step + 1 - done)
            print(f"step {step + 1}: loss {mean:.4f}, {seconds:.3f} s a step", flush=True)
            if minutes is not None and time.perf_counter() - began > 60 * minutes:
                break
    return networks


def described(plan: Plan) -> dict[str, Any]:
    """Give the plan as plain JSON types."""
    return asdict(plan)
