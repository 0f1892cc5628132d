"""Equation (1): by hand, and the same to the last bit for tensors and for arrays."""

import numpy as np
import pytest
import torch

from napari_msp.networks.equation import contribution, second_stage, weights

ALPHAS = (0.0, 0.3, 0.5, 1.0)


@pytest.fixture
def terms() -> tuple[np.ndarray, list[np.ndarray]]:
    """Give a first stage and two branches: P = 4."""
    first, *branches = np.random.default_rng(1).normal(size=(3, 5, 28)).astype(np.float32)
    return first, branches


def test_by_hand() -> None:
    # (1-α) 6 + α/3 · (6 + 3 + 0)
    assert second_stage(6.0, [3.0, 0.0], 0.5) == pytest.approx(0.5 * 6 + 0.5 * 3)
    assert weights("t", ["a", "b"], 0.5) == pytest.approx({"a": 1 / 6, "b": 1 / 6, "t": 2 / 3})


@pytest.mark.parametrize("alpha", ALPHAS)
def test_tensors_and_arrays_agree_to_the_last_bit(terms, alpha) -> None:
    first, branches = terms
    of_arrays = second_stage(first, branches, alpha)
    tensors = [torch.from_numpy(each) for each in branches]
    assert of_arrays.dtype == np.float32
    np.testing.assert_array_equal(
        of_arrays, second_stage(torch.from_numpy(first), tensors, alpha).numpy()
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_way_to_it_leads_there(terms, alpha) -> None:
    first, branches = terms
    expected = second_stage(first, branches, alpha)
    added = sum(contribution(first, each, len(branches), alpha) for each in branches)
    np.testing.assert_allclose(first + added, expected, atol=1e-6)
    share = weights("t", ["0", "1"], alpha)
    weighed = share["t"] * first + share["0"] * branches[0] + share["1"] * branches[1]
    np.testing.assert_allclose(weighed, expected, atol=1e-6)
    assert sum(share.values()) == pytest.approx(1)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan])
def test_an_alpha_outside_is_refused(alpha) -> None:
    with pytest.raises(ValueError, match="alpha"):
        second_stage(1.0, [1.0], alpha)
