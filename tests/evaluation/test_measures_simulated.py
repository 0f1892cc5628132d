"""Tissue and the misalignment-robust error, on a simulated head that really moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nibabel import Nifti1Image
from scipy.ndimage import gaussian_filter

from napari_msp.data.acquisition import Acquisition
from napari_msp.data.nifti import write_nifti
from napari_msp.data.phantom.head import grid_of, make_head
from napari_msp.data.phantom.platforms import lattice_for, platform_named
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.subjects import aligned
from napari_msp.evaluation.baselines.base import Interpolation
from napari_msp.evaluation.measures.aligned_error import align_with, smoothed_as_compared
from napari_msp.evaluation.measures.catalogue import IN_TABLE, measure_head
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import load_model
from napari_msp.packaged import packaged_model
from napari_msp.signal.fitting import fit_sh

SEED = 5
TARGET = "prisma_st"
HALF_A_VOXEL = 1.2


@pytest.fixture(scope="module")
def scans():
    platforms = tuple(platform_named(name) for name in ("ge_st", TARGET))
    return {scan.platform.name: scan for scan in simulate_subject(0, platforms, "tiny", SEED)}


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    """Make acquisitions of simulated scans."""

    def acquire(scan, voxels):
        mask: Path = tmp_path_factory.mktemp("mask") / "mask.nii.gz"
        write_nifti(mask, scan.mask, scan.lattice.affine)
        return Acquisition(Nifti1Image(voxels, scan.lattice.affine), scan.table, mask)

    return acquire


@pytest.fixture(scope="module")
def truth(scans, acquired):
    """Noise-free, aligned with the input."""
    return fit_sh(acquired(scans[TARGET], scans[TARGET].noise_free))


@pytest.fixture(scope="module")
def moved_truth(acquired):
    """Noise-free; the head itself moved by half a voxel and turned, nothing is interpolated."""
    target = (platform_named(TARGET),)
    scan = next(simulate_subject(0, target, "tiny", SEED, misalignment=HALF_A_VOXEL))
    return fit_sh(acquired(scan, scan.noise_free))


# In memory nothing says that these scans are simulated.
pytestmark = pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.NotForScans")


@pytest.fixture(scope="module")
def predictions(scans, acquired, truth):
    """Of the packaged models, and the input as it is."""
    source = acquired(scans["ge_st"], scans["ge_st"].dwi)
    found = {
        kind: harmonize(load_model(packaged_model(kind)), source, TARGET, device="cpu").sh
        for kind in ("msp", "diqt")
    }
    found["input"] = Interpolation().fit([], []).predict(fit_sh(source), truth.lattice)
    return found


def test_tissue_is_what_the_head_is_made_of(scans, truth):
    tissue = Truth(truth).tissue
    # The head's fractions at the voxel centres of the target, which is stored as RAS.
    grid = grid_of(lattice_for("tiny", platform_named("connectom_sa")))
    made = make_head(scans[TARGET].subject, aligned(), grid)
    for name in ("white", "grey", "fluid"):
        fraction = made.volume(getattr(made, name))[::2, ::2, ::2]
        assert fraction.shape == truth.mask.shape
        labelled = getattr(tissue, name)
        assert np.mean(fraction[labelled] > 0.5) > 0.9
        assert labelled[truth.mask & (fraction > 0.95)].mean() > 0.8
    assert not (tissue.white & tissue.grey).any()
    assert not (tissue.white & tissue.fluid).any()


ALIGNED = [key for key in IN_TABLE if key.endswith("_aligned")]


def test_half_a_voxel_hardly_moves_the_aligned_error(predictions, truth, moved_truth):
    still, moved = (
        {name: measure_head(each, Truth(image)).values for name, each in predictions.items()}
        for image in (truth, moved_truth)
    )
    assert moved["msp"]["sh_mse"] > 2 * still["msp"]["sh_mse"]
    for name in predictions:
        change = moved[name]["robust_mse"] / still[name]["robust_mse"]
        assert change == pytest.approx(1, abs=0.1)
    for key in ALIGNED:
        bound = 0.15 if "fluid" in key else 0.1  # a handful of voxels
        for name in predictions:
            assert moved[name][key] / still[name][key] == pytest.approx(1, abs=bound), (name, key)
        plain = key.removesuffix("_aligned")
        assert moved["msp"][plain] > 1.3 * still["msp"][plain]
    for key, values in (("sh_mse", still), ("robust_mse", still), ("robust_mse", moved)):
        errors = [values[name][key] for name in ("msp", "diqt", "input")]
        assert errors == sorted(errors)


@pytest.mark.parametrize("spoil", ["blur", "contrast", "noise"])
def test_the_robust_error_rises_with_what_is_wrong(spoil, truth, moved_truth):
    reference = smoothed_as_compared(moved_truth)
    mask = truth.mask & moved_truth.mask
    errors = []
    for amount in (0.25, 0.5, 0.75, 1.0):
        worse = truth.coefficients.copy()
        if spoil == "blur":
            worse = gaussian_filter(worse, (amount, amount, amount, 0))
        elif spoil == "contrast":
            worse[..., 1:] *= 1 + 0.4 * amount
        else:
            worse += 0.1 * amount * np.random.default_rng(0).normal(size=worse.shape)
        errors.append(align_with(replace(truth, coefficients=worse), reference, mask).error)
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_a_prediction_without_structure_has_the_whole_error(truth):
    flat = replace(truth, coefficients=np.zeros_like(truth.coefficients))
    smooth = smoothed_as_compared(truth)
    error = align_with(flat, smooth, truth.mask).error
    inside = np.square(smooth).mean(axis=0)[truth.mask].mean()
    assert error == pytest.approx(inside, rel=0.15)
