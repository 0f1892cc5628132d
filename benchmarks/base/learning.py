"""Learn an MSP for all targets from blocks of many platforms, and write it as a model file.

First stages are shared by the three targets: each is run once a step. Every block is standardised
by statistics of its own, as a user's platforms will be, and the loss is in SH units, relative to
how much the block's target varies. Crops, augmentation, loss and schedule are those of the fast
preset; convolutions run in bfloat16 on channels-last memory, 2.6 times as fast where a CPU has it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from base.pairs import INPUTS, TARGETS, Block, Channels, Variety, make_blocks
from napari_msp.files import atomic_path
from napari_msp.learning.sampling import Symmetry
from napari_msp.learning.schedule import FAST, learning_rate
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.equation import second_stage
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.spherical_harmonics import grid_symmetries

SEED = 20180601
"""Of the blocks that the packaged base learned from."""

CHECKPOINT_EVERY = 100
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Plan:
    """What a base learns, and how.

    The two targets on the input's lattice are of one kind, so one network is learned for both; the
    finer target's starts from its weights. Then all learn in unison.

    Attributes
    ----------
    variety, blocks
        Of what it learns from, and how many.
    width
        Fraction of the full width.
    single_steps, finer_steps, unison_steps
        Of the three phases; without the later ones it is a single network.
    branch_start
        What the branches of the MSPs start from.
    seed
        Of weights, crops and turns.
    """

    variety: Variety = "nominal"
    blocks: int = 12
    width: float = 0.28
    single_steps: int = 2000
    finer_steps: int = 900
    unison_steps: int = 900
    branch_start: Literal["nothing", "input", "first stage"] = "first stage"
    seed: int = 0

    @property
    def targets(self) -> tuple[str, ...]:
        """What the finished base predicts."""
        return tuple(TARGETS) if self.unison_steps else ("base_st",)

    @property
    def phases(self) -> "tuple[Phase, ...]":
        """In order."""
        known = (
            Phase("single", ("base_st",), False, self.single_steps, FAST.batch),
            Phase("finer", ("base_sa",), False, self.finer_steps, FAST.batch // 2),
            Phase("unison", tuple(TARGETS), True, self.unison_steps, FAST.batch // 2),
        )
        return tuple(phase for phase in known if phase.steps)


@dataclass(frozen=True)
class Phase:
    """One optimisation: of these targets' networks, with a second stage or without.

    Batches are smaller where a crop costs more: twice the steps in the same time (our choice).
    """

    name: str
    targets: tuple[str, ...]
    unison: bool
    steps: int
    batch: int


@dataclass(frozen=True, eq=False)
class Crops:
    """A batch: standardised examples, and the weight of each channel of each example."""

    input: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    weights: dict[str, Tensor]


class CropsOfBlocks:
    """Crops around random in-mask voxels of random blocks; a pure function of seed and step."""

    def __init__(
        self, paths: Sequence[Path], targets: Sequence[str], batch: int, seed: int
    ) -> None:
        self._batch = batch
        self._blocks = [Block.load(path) for path in paths]
        self._targets, self._seed = targets, seed
        self._inside = [np.argwhere(block.inputs[0].mask) for block in self._blocks]
        self._turns = [Symmetry(matrix) for matrix in grid_symmetries()]

    def batch(self, step: int) -> Crops:
        """Give the batch of a step."""
        random = np.random.default_rng([self._seed, step])
        cuts = [self._cut(random) for _ in range(self._batch)]
        return Crops(
            torch.stack([cut.input for cut in cuts]).contiguous(
                memory_format=torch.channels_last_3d
            ),
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
        singles = {
            name: build_single(
                "shresnet", target=name, scales={name: scale}, width=plan.width, input_skip=True
            )
            for name, scale in TARGETS.items()
        }
        self.singles = nn.ModuleDict(singles)
        self.multi_stage = nn.ModuleDict(
            {
                name: MSP(singles, name, width=plan.width, branch_start=plan.branch_start)
                for name in TARGETS
            }
        )

    def begin(self, phase: Phase) -> None:
        """Let a phase start from the one before."""
        learned = self.singles["base_st"].state_dict()
        if phase.name == "finer":
            self.singles["base_sa"].load_state_dict(
                {key: value for key, value in learned.items() if not key.startswith("up.")},
                strict=False,
            )
        elif phase.unison:
            self.singles["base_st2"].load_state_dict(learned)

    def trained(self, phase: Phase) -> list[nn.Parameter]:
        """Give the weights that a phase moves."""
        parts = [self] if phase.unison else [self.singles[name] for name in phase.targets]
        return [weight for part in parts for weight in part.parameters()]

    def losses(self, batch: Crops, phase: Phase) -> Iterator[Tensor]:
        """Give the loss of every output, weighted as in the fast preset."""
        first: dict[str, Tensor] = {}
        features: dict[str, Tensor] = {}
        for name in phase.targets:
            single = cast(SingleNetwork, self.singles[name])
            first[name], features[name] = single.forward_features(batch.input)
            yield _error(first[name], batch, name)
        for name in phase.targets if phase.unison else ():
            network = cast(MSP, self.multi_stage[name])
            branches = {
                other: network.connections[other](z)
                for other, z in features.items()
                if other != name
            }
            corrects = network.branch_start == "first stage"
            if network.branch_start != "nothing":
                start = first[name] if corrects else network.resampling(batch.input)
                branches = {other: start + branch for other, branch in branches.items()}
            second = second_stage(first[name], tuple(branches.values()), 1.0)
            yield (FAST.second_weight if corrects else 1.0) * _error(second, batch, name)
            if not corrects:
                for branch in branches.values():
                    yield _error(branch, batch, name)


def _error(prediction: Tensor, batch: Crops, name: str) -> Tensor:
    mask = batch.masks[name]
    squares = (prediction.float() - batch.targets[name]).square() * batch.weights[name] * mask
    return squares.sum() / (mask.sum() * prediction.shape[1]).clamp(min=1)


def channels_last(network: nn.Module) -> None:
    """Lay a network's weights out so that convolutions on a CPU are faster; values stay."""
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def learn(plan: Plan, blocks: Path, checkpoints: Path) -> BaseNetworks:
    """Train through all phases, going on from checkpoints where there are any.

    Parameters
    ----------
    plan
        What to learn.
    blocks
        Folder of the blocks; missing ones are made.
    checkpoints
        Folder that keeps the state of each phase.
    """
    networks = BaseNetworks(plan)
    channels_last(networks)
    paths = make_blocks(blocks, plan.variety, plan.blocks, SEED)
    for number, phase in enumerate(plan.phases):
        networks.begin(phase)
        _run(plan, phase, number, networks, paths, checkpoints / f"{phase.name}.pt")
    return networks


def _run(
    plan: Plan,
    phase: Phase,
    number: int,
    networks: BaseNetworks,
    paths: Sequence[Path],
    checkpoint: Path,
) -> None:
    optimiser = torch.optim.Adam(networks.trained(phase), lr=FAST.learning_rate)
    done = 0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if state["plan"] != repr(plan):
            raise SystemExit(f"{checkpoint} is of another plan: {state['plan']}")
        networks.load_state_dict(state["networks"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["done"]
    if done == phase.steps:
        return
    crops = CropsOfBlocks(paths, phase.targets, phase.batch, plan.seed + number)
    began, mean = time.perf_counter(), 0.0
    for step in range(done, phase.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(FAST, step, phase.steps, 1)
        batch = crops.batch(step)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.stack(list(networks.losses(batch, phase))).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(networks.trained(phase), FAST.largest_gradient)
        optimiser.step()
        mean += (float(loss.detach()) - mean) / min(step - done + 1, 100)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == phase.steps:
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
            print(f"{phase.name} {step + 1}: loss {mean:.4f}, {seconds:.3f} s a step", flush=True)


def described(plan: Plan) -> dict[str, Any]:
    """Give the plan as plain JSON types."""
    return asdict(plan)
