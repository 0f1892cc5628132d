"""Layers that move between lattices: sizes, alignment, linearity."""

import itertools

import pytest
import torch

from napari_msp.networks.layers import (
    LinearResampling,
    PointConvolution,
    Reach,
    lattice_convolution,
    scaled_width,
)

SCALES = [1, 2, 3, 4]
PAIRS = list(itertools.product(SCALES, SCALES))


def size(n: int, scale: int) -> int:
    return scale * (n - 1) + 1


@pytest.mark.parametrize("source,target", PAIRS)
def test_sizes(source: int, target: int) -> None:
    shape = (3, 4, 6)
    x = torch.randn(1, 2, *(size(n, source) for n in shape))
    expected = tuple(size(n, target) for n in shape)
    assert lattice_convolution(2, 3, source, target)(x).shape == (1, 3, *expected)
    assert LinearResampling(source, target)(x).shape == (1, 2, *expected)


@pytest.mark.parametrize("source,target", [(1, 2), (1, 3), (2, 3), (3, 2), (2, 4), (4, 2), (2, 1)])
def test_linear_resampling_keeps_a_linear_ramp(source: int, target: int) -> None:
    # Positions in input voxels: a shift of half a voxel, the classic bug, would show at once.
    def ramp(scale: int) -> torch.Tensor:
        axes = [torch.arange(size(n, scale), dtype=torch.float64) / scale for n in (4, 5, 3)]
        i, j, k = torch.meshgrid(*axes, indexing="ij")
        return torch.stack((1 + 2 * i - j + 3 * k, i - 5 * k))[None]

    resampled = LinearResampling(source, target).double()(ramp(source))
    torch.testing.assert_close(resampled, ramp(target), rtol=0, atol=1e-5)  # the kernel is float32


def test_linear_resampling_equals_torch_interpolate() -> None:
    x = torch.randn(2, 5, 4, 6, 3)
    expected = torch.nn.functional.interpolate(
        x, size=(10, 16, 7), mode="trilinear", align_corners=True
    )
    torch.testing.assert_close(LinearResampling(1, 3)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_learned_moves_are_node_aligned(k: int) -> None:
    """A kernel with only its centre set copies nodes: fine voxel k·i is coarse voxel i."""
    up, down = lattice_convolution(1, 1, 1, k), lattice_convolution(1, 1, k, 1)
    for layer in (up, down):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            layer.get_parameter("weight")[0, 0, k - 1, k - 1, k - 1] = 1.0
    x = torch.randn(1, 1, 3, 4, 5)
    fine = up(x)
    assert torch.equal(fine[..., ::k, ::k, ::k], x)
    assert torch.equal(down(fine), x)
    assert fine.count_nonzero() == x.count_nonzero()


@pytest.mark.parametrize("source,target", PAIRS)
@pytest.mark.parametrize("learned", [True, False])
def test_reach_equals_gradient_support(source: int, target: int, learned: bool) -> None:
    """One dimension at a time is enough: all axes are alike, so a thin volume will do."""
    n, node = 9, 4
    first = lattice_convolution(1, 1, 1, source)
    second = (
        lattice_convolution(1, 1, source, target) if learned else LinearResampling(source, target)
    )
    reach = Reach().move(source)
    reach = reach.move(target) if learned else reach.resample(target)
    x = torch.ones(1, 1, n, 3, 3, requires_grad=True)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.abs_().add_(0.1)  # nothing cancels, so support is visible
        for parameter in second.parameters():
            parameter.abs_().add_(0.1)
    y = second(first(x))
    for between in range(target):
        (gradient,) = torch.autograd.grad(
            y[0, 0, target * node + between].sum(), x, retain_graph=True
        )
        touched = gradient[0, 0].abs().sum((1, 2)).nonzero().flatten() - node
        assert reach.intervals[between] == (int(touched.min()), int(touched.max()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_a_point_convolution_is_torchs_in_the_layout_of_its_input(threads, layout, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    ours = PointConvolution(5, 3).to(memory_format=layout)  # type: ignore[call-overload]
    torchs = torch.nn.Conv3d(5, 3, 1)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 4, 6, 7).contiguous(memory_format=layout).requires_grad_()
    found = ours(x)
    torch.testing.assert_close(found, torchs(x))
    if threads == 1:  # with more it is torch that computes
        assert found.is_contiguous(memory_format=layout)
    given = [torch.autograd.grad(y.square().sum(), [x]) for y in (ours(x), torchs(x))]
    torch.testing.assert_close(*given)


def test_reach_refuses_to_join_two_lattices() -> None:
    with pytest.raises(ValueError, match="lattices 1 and 2"):
        Reach().join(Reach().up(2))


def test_widths() -> None:
    assert scaled_width(50, "paper") == 50
    assert scaled_width(50, 1.0) == 50
    assert scaled_width(50, 0.25) == 12
    assert scaled_width(50, 0.001) == 2
    for full, fraction in itertools.product(range(2, 60, 7), (0.1, 0.33, 0.5, 0.77)):
        assert scaled_width(full, fraction) % 2 == 0
    for wrong in (0.0, -0.5, 1.5, float("nan"), "wide"):
        with pytest.raises(ValueError, match="width must be"):
            scaled_width(50, wrong)  # type: ignore[arg-type]
