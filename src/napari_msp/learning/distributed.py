"""Training by several processes: each computes a share of every step, all have the same weights.

A launcher such as torchrun starts them and gives each its number. They draw the same examples, cut
out their own share, and sum what a step needs of all examples: voxels that the loss counts,
statistics of BatchNorm, gradients. So a run is the same, but for rounding, with any number of
processes. The first process makes all decisions that depend on time, files or predicted heads.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from math import isclose
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_msp.device import choose_device
from napari_msp.errors import Advice, Cancelled, Choose, Resume, ToldElsewhere, UserError
from napari_msp.foreign_errors import explain, first_reason
from napari_msp.options import is_launched

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for a silent one, such as one that is still reading its heads."""

BEAT = 60.0
"""Seconds between two signs of life of the first process while the others wait for it."""

WORKING = "working"


class OneProcess:
    """A process that trains alone: it is the first one, and its share is the whole."""

    number, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes, reports and decides."""
        return self.number == 0

    def share(self, examples: int) -> slice:
        """Return which of a step's examples this process computes; possibly none."""
        first, end = (examples * number // self.count for number in (self.number, self.number + 1))
        return slice(first, end)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes; no gradient flows back through it."""
        return value

    def add_up(self, network: nn.Module, loss: Tensor) -> float:
        """Sum the gradients of a network over the processes; return the sum of the losses."""
        return float(loss.detach())

    def any(self, asked: bool) -> bool:
        """Return whether it is true in any process."""
        return asked

    def clock(self) -> float:
        """Return the first process's time, by `time.perf_counter`."""
        return time.perf_counter()

    def by_first(self, job: Callable[[], T]) -> T:
        """Let only the first process do a job; return its result, or raise its error, in all."""
        return job()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Raise an error of any process within the block in all of them at its end."""
        yield

    def join(self, network: nn.Module) -> None:
        """Make a network common to all processes: the same weights, BatchNorm over all examples."""

    def check_same(self, given: Any) -> None:
        """Refuse to train on JSON that differs between processes by more than machines do."""

    def device(self, name: str) -> torch.device:
        """Choose the device that this process computes on, see `choose_device`."""
        return choose_device(name)


ALONE = OneProcess()
"""The process if nothing was launched."""


class SeveralProcesses(OneProcess):
    """One of several processes of a training; each method is called in all of them."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes; no gradient flows back through it."""
        value = value.detach().clone()
        _add(value)
        return value

    def add_up(self, network: nn.Module, loss: Tensor) -> float:
        """Sum the gradients of a network over the processes; return the sum of the losses."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        parts = [loss.detach(), *gradients]
        together = torch.cat([each.reshape(-1) for each in parts])
        _add(together)
        value, *summed = torch.split(together, [each.numel() for each in parts])
        for gradient, of_all in zip(gradients, summed, strict=True):
            gradient.copy_(of_all.view(gradient.shape))
        return float(value)

    def any(self, asked: bool) -> bool:
        """Return whether it is true in any process."""
        return bool(self.total(torch.tensor(int(asked))))

    def clock(self) -> float:
        """Return the first process's time, by `time.perf_counter`."""
        return self.by_first(time.perf_counter)

    def by_first(self, job: Callable[[], T]) -> T:
        """Let only the first process do a job; return its result, or raise its error, in all."""
        result: T | None = None
        error: Exception | None = None
        if self.first:
            with self._beating():
                try:
                    result = job()
                except Exception as caught:
                    error = caught
        told = error if error is None or isinstance(error, Cancelled) else explain(error)
        sent: Any = (result, told)
        with _in_touch():
            sent = _from_first(sent)
            while not self.first and sent == WORKING:
                sent = _from_first(sent)
        if error is not None:
            raise error
        result, told = sent
        if isinstance(told, UserError):
            raise ToldElsewhere.of(told)
        if told is not None:
            raise told
        return result

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Signal to the others regularly that the first process is working, possibly for hours."""
        done = threading.Event()

        def beat() -> None:
            with suppress(RuntimeError):  # one of them has ended, which is reported after the work
                while not done.wait(BEAT):
                    _from_first(WORKING)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Raise an error of any process within the block in all of them at its end."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        failed = self._of_all(None if error is None else explain(error))
        if error is not None and not any(failed[: self.number]):
            raise error
        for told in filter(None, failed):
            raise ToldElsewhere.of(told) from error

    def join(self, network: nn.Module) -> None:
        """Make a network common to all processes: the same weights, BatchNorm over all examples."""
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.BatchNorm3d:
                    setattr(parent, name, JointBatchNorm.like(child))
        with torch.no_grad(), _in_touch():
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)

    def check_same(self, given: Any) -> None:
        """Refuse to train on JSON that differs between processes."""
        everybody = self._of_all(given)
        for number, other in enumerate(everybody):
            if not _alike(everybody[0], other):
                error = UserError(
                    f"process {number + 1} of {self.count} got different data or settings "
                    "than the first one",
                    remedy=Advice("give every process the same options and the same files"),
                )
                raise error if self.first else ToldElsewhere.of(error)

    def device(self, name: str) -> torch.device:
        """Choose the device: each process of a machine has its own GPU."""
        if name in ("auto", "cuda") and torch.cuda.is_available():
            chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
            torch.cuda.set_device(chosen)
            return chosen
        if name not in ("auto", "cpu", "cuda"):
            problem = f"several processes cannot share {name}"
            raise UserError(problem, None, "device", Choose("device", ("auto", "cpu", "cuda")))
        return choose_device("cpu" if name == "auto" else name)

    def _of_all(self, given: T) -> list[T]:
        """Return the values of all processes."""
        everybody: list[Any] = [None] * self.count
        with _in_touch():
            dist.all_gather_object(everybody, given)
        return everybody


@contextmanager
def launched() -> Iterator[OneProcess]:
    """Join the processes that a launcher started together; without a launcher, yield `ALONE`.

    Only the first one warns. A process group that the caller has already made is used, and kept.

    Raises
    ------
    UserError
        When the others do not appear.
    """
    ours = not dist.is_initialized()
    if ours:
        if not is_launched():
            yield ALONE
            return
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            problem = f"the processes of this run do not find each other ({_brief(error)})"
            remedy = Advice("start them together, by torchrun")
            raise UserError(problem, remedy=remedy) from error
    several = SeveralProcesses(dist.get_rank(), dist.get_world_size())
    try:
        with warnings.catch_warnings():
            if not several.first:
                warnings.simplefilter("ignore")
            yield several
    finally:
        if ours:
            dist.destroy_process_group()


class JointBatchNorm(nn.BatchNorm3d):
    """BatchNorm by the mean and variance over the examples of all processes.

    torch's own SyncBatchNorm refuses CPU tensors. Sums are kept in float64, so that a reversible
    stack reads the same values when it computes them again.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm3d) -> "JointBatchNorm":
        """Make a replacement for another, with its parameters and statistics by reference."""
        joint = cls(norm.num_features, norm.eps, norm.momentum)
        joint.weight, joint.bias = norm.weight, norm.bias
        joint.running_mean, joint.running_var = norm.running_mean, norm.running_var
        joint.num_batches_tracked = norm.num_batches_tracked
        joint.train(norm.training)
        return joint

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, X, Y, Z); B may be 0 in some processes."""
        if not self.training:
            return super().forward(input)
        half = input.dtype in (torch.float16, torch.bfloat16)
        given, input = input.dtype, input.float() if half else input  # as BatchNorm itself does
        axes = (0, 2, 3, 4)
        sums = input.sum(axes, dtype=torch.float64), input.square().sum(axes, dtype=torch.float64)
        count = sums[0].new_full((1,), input.numel() // input.shape[1])
        of_all: Tensor = _Total.apply(torch.cat((*sums, count)))  # type: ignore[no-untyped-call]
        count = of_all[-1].detach()
        mean, squares = (of_all[:-1] / count).chunk(2)
        variance = (squares - mean.square()).clamp(min=0)
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach(), count)
        factor = self.weight / (variance + self.eps).sqrt()
        shift = (self.bias - mean * factor).to(input.dtype).view(-1, 1, 1, 1)
        return (input * factor.to(input.dtype).view(-1, 1, 1, 1) + shift).to(given)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the statistics used in evaluation with a batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        unbiased = variance * count / (count - 1)
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(now.to(running.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


class _Total(torch.autograd.Function):
    """Sum over the processes. Each one's loss depends on it, so gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        _add(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Total.forward(ctx, gradient)


def _add(value: Tensor) -> None:
    with _in_touch():
        dist.all_reduce(value)


def _from_first(value: Any) -> Any:
    """Return the first process's value in every process."""
    sent = [value]
    dist.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
    return sent[0]


@contextmanager
def _in_touch() -> Iterator[None]:
    """Explain the error if the other processes do not answer."""
    try:
        yield
    except RuntimeError as error:  # torch has no narrower error for all backends
        problem = f"another process of this run has ended or cannot be reached ({_brief(error)})"
        raise UserError(problem, remedy=Resume()) from error


def _brief(error: Exception) -> str:
    """Return the last words of torch's message, which begins with a place in its source."""
    return first_reason(error).split("] ")[-1].split(". This may")[0]


def _alike(one: Any, other: Any) -> bool:
    """Compare plain JSON types; machines may round numbers differently."""
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-3, abs_tol=1e-6)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)
