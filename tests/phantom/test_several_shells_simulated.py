"""Simulated heads of several shells: the first as if alone, the others with their physics."""

import json

import numpy as np
import pytest
from one_scan import scan_on

from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.simulate import simulate
from napari_msp.errors import UserError
from napari_msp.signal.fitting import condition_number, fit_sh, supported_order


@pytest.fixture(scope="module")
def one():
    return scan_on("ge_st")


@pytest.fixture(scope="module")
def both():
    return scan_on("ge_st", b_value=(1200.0, 3000.0))


def test_the_first_shell_is_as_if_it_were_alone(one, both):
    count = one.dwi.shape[-1]
    np.testing.assert_array_equal(both.dwi[..., :count], one.dwi)
    np.testing.assert_array_equal(both.noise_free[..., :count], one.noise_free)
    np.testing.assert_array_equal(both.table.b_values[:count], one.table.b_values)
    np.testing.assert_array_equal(both.table.directions[:count], one.table.directions)
    assert (both.table.b_values[count:] == 3000).all()
    assert both.sigma == one.sigma


@pytest.mark.parametrize("platform", ["ge_st", "connectom_sa"])
def test_each_shell_has_a_spread_set_of_directions_of_its_own(platform):
    made = platform_named(platform)
    table = made.table((1000.0, 2000.0, 3000.0))
    low, middle, high = table.shells
    for shell in (low, middle, high):
        directions = table.directions[shell.volumes]
        assert len(directions) == made.directions
        assert supported_order(directions, 6) == 6
        assert condition_number(directions, 6) < 10
    first, second = (table.directions[shell.volumes] for shell in (low, middle))
    nearest = np.abs(first @ second.T).max(axis=1)
    assert (nearest < 0.9999).all()
    assert len(table.b0_volumes) == made.b0_volumes


def test_the_more_weighted_shell_is_what_the_model_says(both):
    """In the darkest direction of every voxel the noise-free signal falls, and is no exponential.

    Sticks hardly lose signal across their axis, so that at b = 3000 more is left than
    mono-exponential decay from b = 1200 would leave: (S/S0)^(3000/1200).
    """
    low, high = both.table.shells
    b0 = both.noise_free[..., both.table.b0_volumes[0]]
    inside = both.mask & (b0 > 0)
    weak, strong = (
        both.noise_free[inside][:, shell.volumes].mean(axis=1) / b0[inside] for shell in (low, high)
    )
    assert (strong < weak).all()
    left = strong / weak**2.5
    assert np.median(left) > 1.15
    assert (strong > 0).all()


def test_noise_has_its_floor_where_signal_is_low(both):
    """The mean of a Rician magnitude: near the signal where it is strong, 1.25 σ without any."""
    _, high = both.table.shells
    noisy = both.dwi[both.mask][:, high.volumes] / both.sigma
    clean = both.noise_free[both.mask][:, high.volumes] / both.sigma
    faint, strong = clean < 0.3, clean > 5
    assert faint.sum() > 300
    assert noisy[faint].mean() == pytest.approx(np.sqrt(np.pi / 2), rel=0.05)
    assert (noisy - clean)[strong].mean() == pytest.approx(0.08, abs=0.05)
    # At b = 1200 the floor is out of reach of all tissue; here it lifts the mean.
    low = both.table.shells[0]
    lift = [
        (both.dwi - both.noise_free)[both.mask][:, shell.volumes].mean() / both.sigma
        for shell in (low, high)
    ]
    assert lift[1] > 1.5 * lift[0]


def test_what_is_written_reads_as_two_shells_and_has_no_twins_unless_asked(tmp_path):
    simulate(tmp_path / "heads", 1, "tiny", b_value=(3000, 1200), noise_free=False)
    path = tmp_path / "heads/sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    acquisition = load_acquisition(path)
    assert [shell.name for shell in acquisition.shells()] == [1200, 3000]
    assert fit_sh(acquisition).keys() == {1200, 3000}
    assert "all at b = 1200 and 3000 s/mm2" in (tmp_path / "heads/README").read_text()
    assert json.loads(path.with_name("sub-01_ses-ge_acq-st_dwi.json").read_text())["Simulated"]
    assert (tmp_path / "heads/derivatives/brainmask").is_dir()
    assert not (tmp_path / "heads/derivatives/noisefree").exists()


@pytest.mark.parametrize(
    ("b_value", "words"),
    [
        ([1200, 1250], "cannot be told apart"),
        ([1200, 1200], "cannot be told apart"),
        ([0, 1200], "b = 0 is not a valid shell"),
        (-5, "b = -5 is not a valid shell"),
        ([1200, 1e6], "is not a valid shell"),
        ([1200, float("nan")], "b = nan is not a valid shell"),
    ],
)
def test_shells_that_make_no_sense(tmp_path, b_value, words):
    with pytest.raises(UserError, match=words) as error:
        simulate(tmp_path / "heads", 1, "tiny", b_value=b_value)
    assert error.value.field == "b_value"
    assert not (tmp_path / "heads").exists()
