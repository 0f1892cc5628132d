"""Another α from kept stages is what the network gives when it is run at that α."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.errors import UserError
from napari_msp.inference.harmonize import harmonize
from napari_msp.networks.msp import MSP

ALPHA = 0.7
"""Of the model."""

OBLIQUE = np.diag([-2.4, 2.4, 2.4, 1.0])
OBLIQUE[:3, :3] = (
    Rotation.from_euler("zyx", [20, -12, 9], degrees=True).as_matrix() @ (OBLIQUE[:3, :3])
)
PERMUTED = OBLIQUE[:, [2, 0, 1, 3]]


def run_at(model, acquisition, target, alpha):
    """Run the network at another α, not mixing anything afterwards."""
    card = model.card.model_copy(update={"alpha": alpha})
    return harmonize(replace(model, card=card), acquisition, target)


def close(found, expected):
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("affine", [None, OBLIQUE, PERMUTED], ids=["plain", "oblique", "permuted"])
def test_mixing_is_running_at_that_alpha(affine, target, make_model, small_scan, tmp_path):
    acquisition = small_scan(affine).load(tmp_path)
    model = make_model()
    prediction = harmonize(model, acquisition, target, keep_stages=True)
    for alpha in (0.0, 0.25, 1.0):
        expected = run_at(model, acquisition, target, alpha)
        found = prediction.at_alpha(alpha).sh
        close(found.coefficients, expected.sh.coefficients)
        np.testing.assert_array_equal(found.affine, expected.sh.affine)
        np.testing.assert_array_equal(found.mask, expected.sh.mask)
        assert not found.coefficients[~found.mask].any()
        assert found.coefficients.dtype == np.float32


@pytest.fixture
def three_terms(make_model, make_network):
    """An MSP of three targets: eq. (1) divides by P-1 = 3, not by the number of branches."""
    model = make_model()
    for target, network in model.network.networks.items():
        singles = dict(network.singles.items())
        singles["extra_st"] = make_network("cpm", "prisma_st", width=0.1)
        singles["extra_st"].target = "extra_st"
        model.network.networks[target] = MSP(singles, target, width=0.15).eval()
    return model


def test_three_terms_are_mixed_by_their_number(three_terms, small_scan, tmp_path):
    acquisition = small_scan(OBLIQUE).load(tmp_path)
    prediction = harmonize(three_terms, acquisition, "connectom_sa", keep_stages=True)
    assert list(prediction.branches) == ["prisma_st", "extra_st"]
    for alpha in (0.0, 0.4, ALPHA):
        expected = run_at(three_terms, acquisition, "connectom_sa", alpha)
        close(prediction.at_alpha(alpha).sh.coefficients, expected.sh.coefficients)


def test_each_shell_is_mixed_and_what_is_saved_says_so(make_model, small_scan, tmp_path):
    acquisition = small_scan(b_values=(1200.0, 3000.0)).load(tmp_path)
    model = make_model(b_value=(1200.0, 3000.0))
    prediction = harmonize(model, acquisition, "prisma_st", keep_stages=True)
    assert prediction.at_alpha(ALPHA) is prediction
    with pytest.raises(UserError, match="several shells"):
        prediction.terms  # noqa: B018
    zero: Any = np.float32(0)
    mixed = prediction.at_alpha(zero)
    for shell, part in prediction.by_shell().items():
        assert part.first_stage is not None
        first = part.first_stage.coefficients
        np.testing.assert_array_equal(mixed.by_shell()[shell].sh.coefficients, first)
    sidecar = mixed.save(tmp_path / "out")[0].with_name("sub-01_desc-prismastMsp_dwi.json")
    assert json.loads(sidecar.read_text())["Model"]["Alpha"] == 0.0


def test_what_has_no_other_alpha_says_why(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    kept = harmonize(make_model(), acquisition, "prisma_st", keep_stages=True)
    expecting = replace(kept, given_expected_error=np.ones_like(kept.b0))
    assert expecting.at_alpha(0.2).expected_error is None  # it was calibrated at the model's α
    wrong: Any = (-0.1, 1.1, float("nan"), "much", None)
    for alpha in wrong:
        with pytest.raises(
            UserError, match=r"lie in \[0, 1\], .* give a number from 0 to 1 with al"
        ):
            kept.at_alpha(alpha)
    with pytest.raises(UserError, match=r"not kept; predict again .*keep_stages=True"):
        harmonize(make_model(), acquisition, "prisma_st").at_alpha(0.2)
    with pytest.raises(UserError, match=r"no stages, .*; predict with an MSP"):
        harmonize(make_model("cpm"), acquisition, "prisma_st").at_alpha(0.2)
