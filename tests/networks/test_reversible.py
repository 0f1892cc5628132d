"""The reversible stack: same gradients as plain autograd, flat memory, untouched statistics."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_msp.networks.diqt import ReversibleStack


def stacks(channels: int = 6, depth: int = 4) -> tuple[ReversibleStack, ReversibleStack]:
    """Return a reversible stack and its plain twin, with the same weights."""
    torch.manual_seed(0)
    reversible = ReversibleStack(channels, depth)
    with torch.no_grad():
        for name, parameter in reversible.named_parameters():
            if "bias" in name or parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    plain = copy.deepcopy(reversible)
    plain.plain = True
    return reversible, plain


def gradients(
    stack: ReversibleStack, x: Tensor, autocast: bool, wants_input: bool = True
) -> dict[str, Tensor]:
    """Loss, gradients of input and parameters of one training step between two convolutions."""
    torch.manual_seed(1)
    before = nn.Conv3d(x.shape[1], x.shape[1], 1)
    after = nn.Conv3d(x.shape[1], 3, 1)
    x = x.clone().requires_grad_(wants_input)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = stack(before(x) if wants_input else x)
        assert y.dtype == torch.float32
        loss = after(y).float().square().mean()
        loss.backward()  # inside the region, where recomputation would be in bfloat16
    found = {name: p.grad for name, p in stack.named_parameters() if p.grad is not None}
    found |= {"loss": loss.detach()}
    if wants_input:
        assert x.grad is not None
        found |= {"input": x.grad}
    return found


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    largest = max(value.abs().max() for value in b.values())
    for name, expected in b.items():
        difference = (a[name] - expected).abs().max()
        # Biases before a BatchNorm have a gradient of 0 but for rounding: hence the second term.
        assert difference <= 1e-5 * expected.abs().max() + 1e-7 * largest, name


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("wants_input", [True, False])
def test_gradients_equal_the_plain_stack(autocast: bool, wants_input: bool) -> None:
    reversible, plain = stacks()
    x = torch.randn(2, 6, 7, 6, 5)
    found = gradients(reversible, x, autocast, wants_input)
    assert len(found) == 4 * 2 * 12 + 1 + wants_input
    assert_same(found, gradients(plain, x, autocast, wants_input))


def test_gradients_equal_the_plain_stack_at_the_size_of_a_training_step() -> None:
    """Millions of ReLUs: an inversion that is 1e-6 off tips some of them (by up to 9 % here)."""
    torch.manual_seed(0)
    x = torch.randn(4, 50, 7, 7, 7).relu()
    weights = torch.randn(4, 50, 7, 7, 7)
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        stack = ReversibleStack(50, 4)
        stack.plain = plain
        leaf = x.clone().requires_grad_()
        (stack(leaf) * weights).sum().backward()
        assert leaf.grad is not None
        found.append({n: p.grad for n, p in stack.named_parameters() if p.grad is not None})
        found[-1]["input"] = leaf.grad
    assert_same(*found)


def test_gradients_are_right_in_float64() -> None:
    torch.manual_seed(0)
    stack = ReversibleStack(4, 2).double()
    x = torch.randn(2, 4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stack, (x,), fast_mode=True)


def test_gradients_with_deterministic_algorithms_repeat_to_the_last_bit() -> None:
    x = torch.randn(2, 6, 5, 5, 5)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients(stacks()[0], x, autocast=False) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_with_dead_channels(autocast: bool) -> None:
    """Freshly made stacks behind a ReLU meet channels that are 0 in every voxel."""
    x = torch.randn(2, 12, 6, 5, 6).relu()
    x[:, [1, 4, 8]] = 0
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        stack = ReversibleStack(12, 4)
        stack.plain = plain
        found.append(gradients(stack, x, autocast, wants_input=False))
    assert_same(*found)


def test_a_half_frozen_stack() -> None:
    """Frozen parameters get no gradient and do not disturb the others."""
    reversible, plain = stacks()
    x = torch.randn(2, 6, 5, 5, 5)
    for stack in (reversible, plain):
        for parameter in stack.blocks[1].parameters():
            parameter.requires_grad_(False)
    found = gradients(reversible, x, autocast=False)
    assert not any(name.startswith("blocks.1.") for name in found)
    assert_same(found, gradients(plain, x, autocast=False))


def test_running_statistics_are_counted_once() -> None:
    reversible, plain = stacks()
    x = torch.randn(2, 6, 5, 5, 5)
    untouched = copy.deepcopy(dict(reversible.named_buffers()))
    for stack in (reversible, plain):
        gradients(stack, x, autocast=False)
    for (name, found), expected in zip(reversible.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)
        assert not torch.equal(found, untouched[name])
    # … and the layers still count afterwards.
    reversible(x)
    assert {int(b) for n, b in reversible.named_buffers() if n.endswith("tracked")} == {2}


def test_evaluation_and_no_grad_run_plainly() -> None:
    reversible, plain = stacks()
    x = torch.randn(2, 6, 5, 5, 5, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(reversible(x), plain(x))
    reversible.eval()
    plain.eval()
    y = reversible(x)
    assert "Inverting" not in type(y.grad_fn).__name__
    assert torch.equal(y, plain(x))


def test_misuse_between_forward_and_backward_is_noticed() -> None:
    stack = ReversibleStack(4, 1)
    y = stack(torch.randn(2, 4, 3, 3, 3))
    with torch.no_grad():
        next(stack.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = stack(torch.randn(2, 4, 3, 3, 3))
    stack.eval()
    with pytest.raises(RuntimeError, match="eval mode"):
        y.sum().backward()


@pytest.mark.parametrize("channels", [1, 3, 7, 0])
def test_odd_channels_are_an_error(channels: int) -> None:
    with pytest.raises(ValueError, match="not even"):
        ReversibleStack(channels, 2)


def test_depth_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="depth"):
        ReversibleStack(4, 0)


class LiveStorages(TorchDispatchMode):
    """Peak bytes of all tensors made by any operation, forward or backward, and still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of the distinct storages autograd keeps for backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def peak(depth: int, plain: bool) -> int:
    stack = ReversibleStack(4, depth)
    stack.plain = plain
    x = torch.randn(2, 4, 16, 16, 16, requires_grad=True)
    with LiveStorages() as live:
        stack(x).square().mean().backward()
    return live.peak


def test_activation_memory_is_flat_in_depth() -> None:
    shallow, deep = peak(2, plain=False), peak(8, plain=False)
    assert deep <= 1.1 * shallow
    # The same measure sees the plain stack grow: it is no blind instrument.
    assert peak(8, plain=True) >= 3 * peak(2, plain=True)


def test_only_the_output_is_saved() -> None:
    for depth in (2, 8):
        x = torch.randn(2, 4, 8, 8, 8)
        with saved_bytes() as kept:
            y = ReversibleStack(4, depth)(x)
        assert sum(kept.values()) == 2 * y.untyped_storage().nbytes()  # in float64
        stack = ReversibleStack(4, depth)
        stack.plain = True
        with saved_bytes() as kept:
            stack(x)
        assert sum(kept.values()) > 4 * depth * y.untyped_storage().nbytes()
