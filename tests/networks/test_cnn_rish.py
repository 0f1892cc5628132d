"""CNN-RISH: rotation-invariant features, clamped ratios, safe gradients."""

import math

import pytest
import torch
from torch import Tensor

from napari_msp.networks.base import ORDER_SLICES
from napari_msp.networks.cnn_rish import CNNRISH, amplitude_ratio
from napari_msp.signal.channels import Standardisation


def channelwise(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def network(scale: int = 1) -> CNNRISH:
    """A float64 network with statistics as real coefficients have them: orders shrink quickly."""
    torch.manual_seed(0)
    made = CNNRISH(target="t", scales={"t": scale}, width=0.1).double()
    sizes = torch.cat([torch.full((2 * n + 1,), 0.2**n) for n in (0, 2, 4, 6)]).double()
    means = (sizes * (1 + torch.rand(28)), sizes * torch.rand(28))
    deviations = [sizes * (0.5 + torch.rand(28)) for _ in means]
    known = zip(means, deviations, strict=True)
    made.set_standardisation(*(Standardisation(a.numpy(), b.numpy()) for a, b in known))
    return made.eval()


def rotation() -> Tensor:
    """A random orthogonal mixing within each order, as a rotation of the sphere is."""
    mixing = torch.zeros(28, 28, dtype=torch.float64)
    for order in ORDER_SLICES:
        size = order.stop - order.start
        mixing[order, order] = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0]
    return mixing


def rotated(values: Tensor) -> Tensor:
    return torch.einsum("ij,bjxyz->bixyz", rotation(), values)


def test_features_are_rotation_invariant() -> None:
    net = network()
    x = torch.randn(2, 28, 4, 5, 3, dtype=torch.float64)
    torch.manual_seed(7)
    turned = rotated(net.coefficients(x))
    features = net.invariants(net.coefficients(x))
    torch.testing.assert_close(net.invariants(turned), features, rtol=1e-10, atol=1e-10)
    # Features of the standardised channels themselves would not be.
    standardised = (turned - channelwise(net.input_mean)) / channelwise(net.input_deviation)
    wrong = (net.invariants(standardised) - net.invariants(x)).abs()
    assert wrong[:, 1:].amax((0, 2, 3, 4)).min() > 0.1
    # Well scaled: near 0 and not wider than a few, in every order.
    assert features.abs().max() < 4
    assert features.mean((0, 2, 3, 4)).abs().max() < 1


@pytest.mark.parametrize("scale", [1, 2])
def test_the_whole_network_commutes_with_rotation(scale: int) -> None:
    net = network(scale)
    with torch.no_grad():
        for parameter in net.final.parameters():
            parameter.mul_(100)  # ratios well away from 1

    def harmonise(coefficients: Tensor) -> Tensor:
        mean, deviation = channelwise(net.input_mean), channelwise(net.input_deviation)
        y = net((coefficients - mean) / deviation)
        return y * channelwise(net.target_deviation) + channelwise(net.target_mean)

    coefficients = net.coefficients(torch.randn(1, 28, 4, 3, 4, dtype=torch.float64))
    with torch.no_grad():
        plain = harmonise(coefficients)
        torch.manual_seed(7)
        turned = harmonise(rotated(coefficients))
        torch.manual_seed(7)
        torch.testing.assert_close(turned, rotated(plain), rtol=1e-9, atol=1e-9)
        # On the nodes every order is the input's times one ratio within [1/4, 4].
        ratios = plain[..., ::scale, ::scale, ::scale] / coefficients
    for order in ORDER_SLICES:
        spread = ratios[:, order] - ratios[:, order].mean(1, keepdim=True)
        assert spread.abs().max() < 1e-8
    assert ratios.min() > 0.25 - 1e-9
    assert ratios.max() < 4 + 1e-9
    assert (ratios - 1).abs().max() > 0.2


def test_ratio_is_clamped_and_has_unit_slope_at_one() -> None:
    raw = torch.tensor([-1e6, -3.0, 0.0, 3.0, 1e6], dtype=torch.float64, requires_grad=True)
    ratio = amplitude_ratio(raw)
    (slope,) = torch.autograd.grad(ratio.sum(), raw)
    ratio = ratio.detach()
    assert ratio[0] == pytest.approx(0.25)
    assert ratio[2] == 1
    assert ratio[4] == pytest.approx(4)
    assert 0.25 < ratio[1] < ratio[2] < ratio[3] < 4
    assert slope[2] == pytest.approx(1)
    assert slope[3] > 0
    assert math.isclose(float(ratio[1] * ratio[3]), 1.0)


def test_ratio_starts_near_one() -> None:
    torch.manual_seed(0)
    net = CNNRISH(target="t", scales={"t": 1})
    x = torch.randn(1, 28, 5, 5, 5)
    with torch.no_grad():
        assert (net(x) / x - 1).abs().max() < 0.1


def test_gradients_are_finite_where_a_voxel_is_empty() -> None:
    net = network()
    x = -(net.input_mean / net.input_deviation).view(1, 28, 1, 1, 1).repeat(1, 1, 3, 3, 3)
    x.requires_grad_()
    assert net.coefficients(x).abs().max() < 1e-12
    net(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_rish_keeps_its_precision_under_autocast() -> None:
    net = network().float()
    x = torch.randn(1, 28, 4, 4, 4)
    with torch.no_grad():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x)
    assert found.dtype == torch.float32
    # Only the small correction is in bfloat16, not the coefficients it corrects.
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()


def test_statistics_are_weights() -> None:
    net = network()
    other = CNNRISH(target="t", scales={"t": 1}, width=0.1).double().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.target_deviation, net.target_deviation)
