"""One scan in memory: noise, orientation of bundles, misalignment."""

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from one_scan import scan_on
from threadpoolctl import threadpool_limits

from napari_msp.data.dataset import open_dataset, scans_in
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import pose_of, simulate_subject
from napari_msp.data.phantom.simulate import simulate


@pytest.fixture(scope="module")
def scans():
    return {s.platform.name: s for s in simulate_subject(0, PLATFORMS, "tiny", seed=0)}


@pytest.fixture(scope="module")
def tensors(scans):
    """The tensors of each scan, fitted once, when they are asked for first."""

    @cache
    def of(name):
        scan = scans[name]
        table = gradient_table(scan.table.b_values, bvecs=scan.table.directions)
        return TensorModel(table).fit(scan.noise_free, mask=scan.mask)

    return of


@pytest.mark.parametrize("name", [p.name for p in PLATFORMS])
def test_noise_is_rician_and_as_strong_as_stated(scans, tensors, name):
    scan = scans[name]
    # The second moment of a Rician magnitude is A² + 2σ², however small the signal A is.
    weak = scan.noise_free < 2 * scan.sigma
    squares = [image[weak].astype(float) ** 2 for image in (scan.dwi, scan.noise_free)]
    excess = np.mean(squares[0] - squares[1])
    assert excess == pytest.approx(2 * scan.sigma**2, rel=0.05)
    strong = scan.noise_free > 8 * scan.sigma
    assert np.std((scan.dwi - scan.noise_free)[strong]) == pytest.approx(scan.sigma, rel=0.03)
    # In air nothing but noise is left: the mean of a Rayleigh distribution is σ √(π/2).
    air = scan.noise_free < 0.05 * scan.sigma
    assert air.sum() > 500
    assert scan.dwi[air].mean() == pytest.approx(scan.sigma * np.sqrt(np.pi / 2), rel=0.03)

    white = scan.mask & (tensors(name).fa > 0.5)
    first = scan.noise_free[..., 0]
    assert first[white].mean() / scan.sigma == pytest.approx(scan.platform.snr, rel=0.1)


def test_twin_is_not_rounded_and_scan_is_whole_numbers(scans):
    scan = scans["ge_st"]
    np.testing.assert_array_equal(scan.dwi, np.rint(scan.dwi))
    assert scan.dwi.min() >= 0
    assert scan.dwi.max() < 32767
    inside = scan.noise_free[scan.mask]
    assert np.mean(np.abs(inside - np.rint(inside)) > 0.01) > 0.9


def test_one_scan_alone_is_the_same_scan(scans):
    alone = scan_on("connectom_st", seed=0)
    np.testing.assert_array_equal(alone.dwi, scans["connectom_st"].dwi)
    assert not np.array_equal(alone.dwi, scan_on("connectom_st", seed=1).dwi)


def test_threads_of_the_blas_change_no_bit():
    with threadpool_limits(1):
        alone = scan_on("ge_st").noise_free
    with threadpool_limits(2):
        together = scan_on("ge_st").noise_free
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("name", [p.name for p in PLATFORMS])
@pytest.mark.parametrize(
    ("place", "axis"),
    [((0, -10, 26), 0), ((24.5, -15, 13), 2), ((9, -9, 35), 1)],
    ids=["callosum", "corticospinal", "cingulum"],
)
def test_bundles_run_as_in_a_head(scans, tensors, name, place, axis):
    scan = scans[name]
    here = scan.subject.from_template(np.array([place], dtype=float).T)
    voxel = nib.affines.apply_affine(np.linalg.inv(scan.lattice.affine), here.T)[0]
    x, y, z = np.rint(voxel).astype(int)
    fit = tensors(name)
    assert scan.mask[x, y, z]
    assert fit.fa[x, y, z] > 0.35
    assert abs(fit.directions[x, y, z, 0, axis]) > 0.85


def test_values_are_those_of_a_brain(scans, tensors):
    scan = scans["prisma_st"]
    fit = tensors("prisma_st")
    b0 = scan.noise_free[..., 0]
    weighted = scan.noise_free[..., scan.table.b_values > 50].mean(axis=-1)
    ratio = weighted / np.maximum(b0, 1e-3)
    white = scan.mask & (fit.fa > 0.5)
    fluid = scan.mask & (fit.md > 2.5e-3)
    assert 0.6e-3 < np.median(fit.md[white]) < 0.9e-3
    assert 0.35 < np.median(ratio[white]) < 0.5
    assert np.median(ratio[fluid]) == pytest.approx(np.exp(-1.2e3 * 3.0e-3), rel=0.6)
    assert 2 < np.median(b0[fluid]) / np.median(b0[white]) < 4.5


def test_shorter_echo_brightens_white_matter_relative_to_fluid(scans, tensors):
    def contrast(name):
        scan = scans[name]
        fit = tensors(name)
        b0 = scan.noise_free[..., 0]
        white = scan.mask & (fit.fa > 0.55)
        return np.percentile(b0[scan.mask], 99.5) / np.median(b0[white])

    assert contrast("connectom_sa") < 0.9 * contrast("connectom_st")


def test_gradient_field_and_b_scale_reach_the_image(scans, tensors):
    """In pure fluid the apparent diffusivity is 3.0e-3 times the true over the stated b-value."""
    for name, scale in (("ge_st", 0.92), ("connectom_st", 1.03)):
        scan = scans[name]
        fit = tensors(name)
        b0 = scan.noise_free[..., 0]
        pure = scan.mask & (b0 > np.percentile(b0[scan.mask], 99.8))
        assert np.median(fit.md[pure]) == pytest.approx(scale * 3.0e-3, rel=0.04)


def test_misalignment_moves_the_head_by_as_much_as_stated(scans):
    """Estimate the six rigid parameters from the image itself, to first order."""
    moved = {
        s.platform.name: s
        for s in simulate_subject(0, PLATFORMS[:2], "tiny", seed=0, misalignment=1.0)
    }
    np.testing.assert_array_equal(moved["ge_st"].dwi, scans["ge_st"].dwi)

    still, scan = scans["prisma_st"], moved["prisma_st"]
    assert np.linalg.norm(scan.pose.shift) == pytest.approx(1.0)
    before, after = still.noise_free[..., 0], scan.noise_free[..., 0]
    gradient = np.stack(np.gradient((before + after) / 2, 2.4), axis=-1)[still.mask]
    place = nib.affines.apply_affine(still.lattice.affine, np.argwhere(still.mask))
    design = -np.hstack([gradient, np.cross(place, gradient)])
    estimate = np.linalg.lstsq(design, (after - before)[still.mask], rcond=None)[0]
    np.testing.assert_allclose(estimate[:3], scan.pose.shift, atol=0.25)
    assert np.linalg.norm(estimate[3:]) == pytest.approx(1 / 60, rel=0.3)


def test_a_later_run_lies_elsewhere_and_the_first_where_it_lay():
    prisma = PLATFORMS[1]
    first, second = (pose_of(0, 0, prisma, 0.5, run) for run in (1, 2))
    np.testing.assert_array_equal(first.shift, pose_of(0, 0, prisma, 0.5).shift)
    assert np.linalg.norm(first.shift) == pytest.approx(np.linalg.norm(second.shift))
    assert np.linalg.norm(first.shift - second.shift) > 0.01
    assert not pose_of(0, 0, prisma, 0.0, run=2).shift.any()


@pytest.mark.slow
def test_repeats_are_runs_of_the_targets_alone(tmp_path):
    simulate(tmp_path / "heads", subjects=1, size="tiny", repeats=2)
    names = [path.name for path in scans_in(tmp_path / "heads")]
    assert len(names) == 7
    assert [name for name in names if "run-" not in name] == ["sub-01_ses-ge_acq-st_dwi.nii.gz"]
    dataset = open_dataset(tmp_path / "heads", run=2)
    scan = dataset.acquisition("sub-01", "prisma_st")
    first = open_dataset(tmp_path / "heads", run=1).acquisition("sub-01", "prisma_st")
    assert not np.array_equal(scan.voxels, first.voxels)
    assert scan.mask_path is not None
    assert dataset.noise_free("sub-01", "prisma_st") is not None
