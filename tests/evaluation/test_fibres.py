"""Fibre peaks against known fibres, MRtrix3's dwi2fod and counting by hand."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.masks import dice
from napari_msp.data.phantom.simulate import DatasetRecipe
from napari_msp.data.phantom.subjects import aligned, draw_subject
from napari_msp.evaluation.benchmark.measuring import SIMULATED
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.evaluation.measures.catalogue import BUNDLE, FIBRES, MEASURES, measure_head
from napari_msp.evaluation.measures.fibres import (
    PeakErrors,
    Peaks,
    TrackingSeeds,
    TruePeaks,
    fibre_distributions,
    peaks_of,
    peaks_of_populations,
    response_of,
    some_of,
    visited_by,
)
from napari_msp.evaluation.measures.pair import TissueMasks, Truth
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import design_matrix, fitting_matrix, spread_directions

B = 1500.0
SHAPE = (7, 6, 6)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def angles(one, other):
    return np.degrees(np.arccos(np.abs(np.einsum("...i,...i", one, other)).clip(0, 1)))


def of_signal(signal):
    """SH image of (X, Y, Z, 60) S/S0 on spread directions, not smoothed."""
    matrix = fitting_matrix(spread_directions(60), 6, 0.0)
    mask = np.ones(signal.shape[:3], bool)
    return SHImage((signal @ matrix.T).astype(np.float32), np.eye(4), mask, B, 0.0)


def tensor_signal(directions):
    """(..., 60) signal of single fibres."""
    along = np.square(directions @ spread_directions(60).T)
    return np.exp(-B * (0.3e-3 + 1.4e-3 * along))


@pytest.fixture(scope="module")
def crossing():
    """First fibres everywhere, second ones with a share of 0.4 in half of the voxels."""
    rng = np.random.default_rng(2)
    first = unit(rng.normal(size=(*SHAPE, 3)))
    across = unit(np.cross(first, rng.normal(size=(*SHAPE, 3))))
    turn = np.radians(rng.uniform(75, 90, SHAPE))[..., None]
    second = np.cos(turn) * first + np.sin(turn) * across
    share = np.where(np.indices(SHAPE)[0] < 4, 0.4, 0.0)[..., None]
    signal = (1 - share) * tensor_signal(first) + share * tensor_signal(second)
    return of_signal(signal), first, second, share[..., 0] > 0


@pytest.fixture(scope="module")
def response(crossing):
    image, _, _, crosses = crossing
    return response_of([replace(image, mask=~crosses)])


def test_the_response_is_the_signal_about_the_fibre(response):
    # Its coefficients on the pole give the signal of a fibre that runs along it.
    pole = fitting_matrix(spread_directions(60), 6, 0.0) @ tensor_signal(np.array([0, 0, 1.0]))
    np.testing.assert_allclose(response, pole[[0, 3, 10, 21]], atol=2e-3)


def test_peaks_are_the_fibres(crossing, response):
    image, first, second, crosses = crossing
    voxels = np.argwhere(image.mask)
    peaks = peaks_of(fibre_distributions(image, response, voxels))
    there = crosses[tuple(voxels.T)]
    assert angles(peaks.directions[:, 0], first[tuple(voxels.T)]).max() < 3
    assert angles(peaks.directions[there, 1], second[crosses]).max() < 5
    np.testing.assert_allclose(peaks.sizes[there, 1] / peaks.sizes[there, 0], 0.4 / 0.6, atol=0.1)
    assert peaks.sizes[~there, 1].max() < 0.2 * peaks.sizes[:, 0].max()
    # A peak's size is the distribution's there.
    distribution = fibre_distributions(image, response, voxels[:1])
    value = distribution @ design_matrix(peaks.directions[0, :1], 6).T
    assert peaks.sizes[0, 0] == pytest.approx(value[0, 0], rel=1e-6)


@pytest.mark.reference("MRtrix dwi2fod")
@pytest.mark.parametrize("kind", ["LAS", "oblique"])
def test_peaks_are_those_of_dwi2fod(kind, crossing, response, affine_of, mrtrix, tmp_path):
    """The same signal with noise, and the same response; image axes must not matter."""
    image, *_ = crossing
    affine = affine_of[kind]
    noise = np.random.default_rng(1).normal(0, 0.02, image.coefficients.shape)
    image = replace(
        image, coefficients=(image.coefficients + noise).astype(np.float32), affine=affine
    )
    directions = spread_directions(60)
    signal = np.concatenate([np.ones((*SHAPE, 1)), evaluate_sh(image, directions)], axis=-1).astype(
        np.float32
    )
    nib.save(nib.Nifti1Image(signal, affine), tmp_path / "dwi.nii")
    table = np.c_[np.r_[np.zeros((1, 3)), directions], np.r_[0, np.full(60, B)]]
    np.savetxt(tmp_path / "table.b", table)
    np.savetxt(tmp_path / "response.txt", response[None])
    fod, found = tmp_path / "fod.nii", tmp_path / "peaks.nii"
    dwi = (tmp_path / "dwi.nii", tmp_path / "response.txt", fod)
    mrtrix("dwi2fod", "csd", *dwi, "-grad", tmp_path / "table.b", "-lmax", 6)
    mrtrix("sh2peaks", fod, found, "-num", 2)

    voxels = np.argwhere(image.mask)
    ours = peaks_of(fibre_distributions(image, response, voxels))
    theirs = np.nan_to_num(nib.load(found).get_fdata()[tuple(voxels.T)]).reshape(-1, 2, 3)
    sizes = np.linalg.norm(theirs, axis=-1)
    reference = Peaks(theirs / np.where(sizes > 0, sizes, 1)[..., None], sizes)
    errors = PeakErrors.of(ours, reference)
    assert np.nanmedian(errors.angle[:, 0]) < 1
    assert errors.mean_angle(0) < 1.5
    assert errors.mean_angle(1) < 4
    assert errors.size_error(0) < 8  # MRtrix3 weighs its constraint otherwise
    assert errors.missed < 3


@pytest.fixture(scope="module")
def affine_of():
    oblique = np.eye(4)
    oblique[:3, :3] = unit(np.array([[2.0, 1, 0], [-1, 2, 0], [0, 0, 1]]).T).T
    return {"LAS": np.diag([-2.0, 2, 2, 1]), "oblique": oblique}


X, Y, Z = np.eye(3)
TILTED = np.array([np.cos(np.radians(10)), np.sin(np.radians(10)), 0.0])


def made(*voxels):
    """Peaks of voxels, each a list of (direction, size)."""
    directions, sizes = np.zeros((len(voxels), 3, 3)), np.zeros((len(voxels), 3))
    for number, each in enumerate(voxels):
        for rank, (direction, size) in enumerate(each):
            directions[number, rank], sizes[number, rank] = direction, size
    return Peaks(directions, sizes)


def test_peaks_are_matched_and_counted_by_hand():
    truth = made([(X, 1.0), (Y, 0.5)], [(X, 1.0), (Y, 0.4)], [(Z, 1.0), (Y, 0.1)])
    found = made([(-TILTED, 0.9), (Z, 0.3)], [(Y, 1.0), (X, 0.8), (Z, 0.15)], [(Z, 1.2), (Y, 0.5)])
    errors = PeakErrors.of(found, truth)
    # Truth counts two, two, and one: its third voxel's second peak is below a fifth.
    assert errors.missed == pytest.approx(100 * 1 / 5)
    # Z in the first voxel; not Z in the second, too small, nor Y in the third, seen in truth.
    assert errors.false == pytest.approx(100 * 1 / 5)
    assert errors.mean_angle(0) == pytest.approx(10 / 3, abs=1e-6)
    assert errors.mean_angle(1) == pytest.approx(0, abs=1e-6)
    assert errors.size_error(0) == pytest.approx(100 * (0.1 + 0.2 + 0.2) / 3)
    assert errors.size_error(1) == pytest.approx(100 * 0.6 / 0.4)
    assert errors.share_error == pytest.approx(abs(1.0 / 1.8 - 0.4 / 1.4))
    assert errors.missed_seconds(errors.wide) == pytest.approx(50)
    assert errors.missed_seconds(errors.weak) == pytest.approx(0)  # the one of 0.4
    assert errors.missed_seconds(~errors.weak) == pytest.approx(100)
    assert np.isnan(errors.missed_seconds(~errors.wide))


def test_populations_that_lie_close_are_one_peak():
    fractions = np.array([[0.3, 0.25, 0.35]])
    peaks = peaks_of_populations(fractions, np.array([[X, -TILTED, Y]]))
    np.testing.assert_allclose(peaks.sizes[0], [0.55, 0.35, 0, 0], atol=1e-12)
    between = unit(0.3 * X + 0.25 * TILTED)
    assert angles(peaks.directions[0, 0], between) == pytest.approx(0, abs=1e-4)
    assert angles(peaks.directions[0, 1], Y) == pytest.approx(0, abs=1e-4)
    assert len(peaks_of_populations(np.zeros((0, 3)), np.zeros((0, 3, 3))).sizes) == 0


def test_measures_of_fibres_are_in_the_catalogue(crossing, response):
    image, first, second, crosses = crossing
    nowhere = np.zeros(SHAPE, bool)
    truth = Truth(image, TissueMasks(image.mask, nowhere, nowhere), response=response)
    same = measure_head(image, truth, FIBRES).values
    assert all(MEASURES[key].group == "Crossing fibres" for key in FIBRES)
    assert {key: each for key, each in same.items() if not np.isnan(each)} == {
        key: pytest.approx(0, abs=1e-5) for key in FIBRES if key not in NOT_HERE
    }
    # Half of the anisotropy is half of the fibres; nothing is found where there is no white matter.
    smooth = replace(image, coefficients=image.coefficients * np.r_[1, np.full(27, 0.5)])
    values = measure_head(smooth, truth, FIBRES).values
    assert 10 < values["first_peak_amplitude"] < 60
    assert values["first_peak_angle"] < 3
    empty = Truth(image, TissueMasks(nowhere, nowhere, nowhere), response=response)
    assert all(np.isnan(each) for each in measure_head(image, empty, FIBRES).values.values())

    fractions = np.stack([np.where(crosses, 0.6, 1.0), np.where(crosses, 0.4, 0.0)], axis=-1)
    voxels = some_of(image.mask, 100)
    at = tuple(voxels.T)
    peaks = peaks_of_populations(fractions[at], np.stack([first[at], second[at]], axis=1))
    known = replace(truth, given_fibres=TruePeaks(voxels, peaks, response, known=True))
    values = measure_head(image, known, FIBRES).values
    assert values["peaks_missed"] == 0
    assert values["first_peak_angle"] < 1
    assert values["second_peak_share"] < 0.05
    assert np.isnan(values["first_peak_amplitude"])  # a fraction is no amplitude


def test_a_bundle_is_tracked_along_its_fibres():
    """Left-right fibres in the lower half of a block, which another image has bent upwards."""
    shape = (16, 5, 12)
    z = np.indices(shape)[2]

    def image(slope):
        rise = np.where(z < 6, slope, 0.0)
        low = unit(np.stack([np.ones(shape), np.zeros(shape), rise], axis=-1))
        directions = np.where((z < 6)[..., None], low, [0.0, 1.0, 0.0])
        return of_signal(tensor_signal(directions))

    truth, bent = image(0.0), image(0.4)
    white = truth.mask & (np.indices(shape)[0] != 15)  # and beyond it nothing is white
    nowhere = np.zeros(shape, bool)
    reference = Truth(truth, TissueMasks(white, nowhere, nowhere))
    bundle, visited = reference.bundle
    assert len(bundle.seeds) == 200
    np.testing.assert_array_equal(visited, white & (z < 6))
    same, other = (measure_head(each, reference, [BUNDLE]).values[BUNDLE] for each in (truth, bent))
    assert same == 0
    assert 5 < other < 60

    # Stored from right to left and from back to front it is the same bundle.
    turned = np.diag([-1.0, -1, 1, 1])
    turned[:2, 3] = 15, 4
    again = replace(
        bent, coefficients=bent.coefficients[::-1, ::-1], mask=bent.mask[::-1, ::-1], affine=turned
    )
    seeds = bundle.seeds * np.array([-1, -1, 1]) + np.array([15, 4, 0])
    mirrored = replace(bundle, seeds=seeds, white=white[::-1, ::-1])
    np.testing.assert_array_equal(visited_by(mirrored, again)[::-1, ::-1], visited_by(bundle, bent))
    assert dice(visited, nowhere) == 0
    # A few voxels are no bundle.
    few = replace(truth, mask=truth.mask & (z == 0) & (np.indices(shape)[0] < 3))
    assert len(TrackingSeeds.of(few, Truth(few).mapped.tensor, white, bundle.response).seeds) == 0
    assert np.isnan(dice(nowhere, nowhere))


NOT_HERE = ("seconds_missed_narrow", "seconds_missed_weak")
"""The made-up fibres neither cross narrowly nor share unevenly."""


def test_evaluate_measures_fibres_where_asked(heads, tmp_path):
    asked = EvaluationSettings(
        methods=("alignment",), targets=("prisma_st",), test=("sub-03",), fibres=True
    )
    evaluate(heads, tmp_path / "out", asked, workers=1)
    lines = (tmp_path / "out" / "measures.csv").read_text().splitlines()
    measured = {line.split(",")[6] for line in lines[1:]}
    assert {"peaks_missed", "peaks_false", "first_peak_angle", "sh_mse"} <= measured
    assert "Crossing fibres" in (tmp_path / "out" / "report.html").read_text()
    assert not any(SIMULATED in line for line in lines)  # nobody knows these heads' fibres


def test_subjects_lie_where_they_were_scanned():
    subject, pose = DatasetRecipe("tiny", 3, 0.0).lies(1, "prisma_st")
    assert subject.label == "02"
    np.testing.assert_array_equal(pose.rotation, aligned().rotation)
    np.testing.assert_array_equal(subject.stretch, draw_subject(3, 1).stretch)
    _, moved = DatasetRecipe("tiny", 3, 1.5).lies(1, "prisma_st")
    assert np.linalg.norm(moved.shift) == pytest.approx(1.5)
