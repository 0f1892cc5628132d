"""A model learns what error to expect of it, and says so with every prediction."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.dataset import open_dataset
from napari_msp.data.masks import NotRegistered
from napari_msp.errors import Cancelled, UserError
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned
from napari_msp.evaluation.calibration import calibrate
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.prepare import UnlikeTraining, prepare_input
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model, save_model
from napari_msp.signal.expected_error import features_of, fit_error_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import squared_error

TARGETS = ("prisma_st", "connectom_sa")


@pytest.fixture(scope="module")
def heads(tmp_path_factory, make_heads):
    return open_dataset(make_heads(tmp_path_factory.mktemp("calibration") / "h", shape=(9, 8, 7)))


@pytest.fixture(scope="module")
def model(heads, tmp_path_factory):
    settings = TrainingSettings(
        kind="shresnet",
        targets=TARGETS,
        held_out=("sub-02", "sub-03"),
        width=0.1,
        epochs=1,
        steps_per_epoch=2,
        batch=1,
        crop=6,
    )
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    train(heads.root, path, settings, device="cpu")
    return load_model(path)


def described(model, scan, target):
    prediction = harmonize(model, scan, target)
    return prediction, features_of(prepare_input(model, scan).image, prediction.sh, prediction.b0)


@pytest.mark.filterwarnings("ignore:.*of its voxels lie outside")  # in so small a head many do
def test_what_is_expected_is_what_was_fitted(model, heads, tmp_path):
    scan = heads.acquisition("sub-03", "ge_st")
    assert harmonize(model, scan, "prisma_st").expected_error is None
    told = []
    asked = (each for each in ["sub-02"])  # one that can be gone through once
    calibrated = calibrate(model, heads, asked, progress=lambda *of: told.append(of))
    lines = [words for words, _, _ in told]
    assert [done for _, *done in told] == [[n, len(TARGETS)] for n in range(1, len(TARGETS) + 1)]
    with pytest.raises(Cancelled):
        calibrate(model, heads, ["sub-02"], cancelled=lambda: True)
    assert [line.split(",")[0] for line in lines] == [f"{t}: sub-02" for t in TARGETS]
    clear = [heads.noise_free("sub-02", target) is not None for target in TARGETS]
    against = ["the noise-free twin" if each else "the scan" for each in clear]
    assert [line.partition(" against ")[2] for line in lines] == against

    save_model(tmp_path / "c.safetensors", calibrated)
    read = load_model(tmp_path / "c.safetensors")
    assert read.card.expected_error["connectom_sa"].subjects == ["sub-02"]
    assert [read.card.expected_error[target].against for target in TARGETS] == against
    for target in TARGETS:
        learned, features = described(model, heads.acquisition("sub-02", "ge_st"), target)
        truth = heads.noise_free("sub-02", target) or heads.acquisition("sub-02", target)
        image = on_lattice(fit_sh(truth), learned.sh.lattice)
        mask = image.mask & learned.sh.mask
        fitted = fit_error_model(
            features[mask[learned.sh.mask]], squared_error(learned.sh, image, mask)[mask]
        )
        made = harmonize(read, scan, target)
        np.testing.assert_array_equal(
            made.sh.coefficients, harmonize(model, scan, target).sh.coefficients
        )
        inside = made.sh.mask
        by_hand = fitted(described(model, scan, target)[1])
        # Voxels are fitted to in random order, so sums differ in their last digits.
        assert made.expected_error is not None
        np.testing.assert_allclose(made.expected_error[inside], by_hand, rtol=1e-2)
        assert (made.expected_error[~inside] == 0).all()
        assert (made.expected_error[inside] > 0).all()


def test_what_is_unlike_the_calibration_is_told_and_bounded(model, heads):
    scan, calibrated = heads.acquisition("sub-03", "ge_st"), calibrate(model, heads, "sub-02")
    fit = calibrated.card.expected_error["prisma_st"]
    moved = [mean + 100 * spread for mean, spread in zip(fit.mean, fit.deviation, strict=True)]

    def made_with(**change):
        fits = {"prisma_st": fit.model_copy(update=change)}
        card = calibrated.card.model_copy(update={"expected_error": fits})
        with pytest.warns(UnlikeTraining, match="100 % of its voxels"):
            made = harmonize(replace(calibrated, card=card), scan, "prisma_st")
        assert any("100 % of its voxels" in each.words for each in made.warnings)
        assert made.provenance.warnings == made.warnings
        return float(made.expected_error.max())

    made_with(mean=moved)
    weights = [50.0, *fit.weights[1:]]
    assert made_with(weights=weights) == pytest.approx(fit.largest, rel=1e-5)
    # Of an older file: what the mean of the training subjects' brains would err.
    variance = np.square(calibrated.standardisation("prisma_st").deviation).mean()
    assert made_with(weights=weights, largest=None) == pytest.approx(variance, rel=1e-5)


def test_everyone_held_out_is_fitted_on(model, heads):
    fits = calibrate(model, heads).card.expected_error
    assert all(fit.subjects == ["sub-02", "sub-03"] for fit in fits.values())


@pytest.mark.parametrize("shift", [7.2, 100.0])
def test_a_displaced_head_does_not_pass_for_the_models_error(model, make_heads, tmp_path, shift):
    root = make_heads(tmp_path / "h", shape=(9, 8, 7))
    for path in root.glob("sub-02/ses-prisma/dwi/*.nii.gz"):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 3] += shift
        nib.save(nib.Nifti1Image(image.get_fdata(), affine), path)
    if shift > 50:
        with pytest.raises(UserError, match="overlaps only 0 % with") as error:
            calibrate(model, root, ["sub-02"])
        assert error.value.subject == "sub-02 on prisma_st"
    else:
        with pytest.warns(NotRegistered, match=r"sub-02 on prisma_st: its brain is 7\.2 mm"):
            calibrate(model, root, ["sub-02"])


def test_people_are_told_apart_not_names(model, heads, make_heads, tmp_path):
    other = open_dataset(make_heads(tmp_path / "other", shape=(9, 8, 7), directions=32))
    calibrated = calibrate(model, other)
    fit = calibrated.card.expected_error["prisma_st"]
    assert fit.subjects == ["sub-01", "sub-02", "sub-03"]
    assert fit.people == [other.person(subject).to_json() for subject in other.subjects]
    # A file that knows names alone cannot tell: nobody is fitted on who may have been learned from.
    training = {key: value for key, value in model.training.items() if key != "people"}
    older = replace(model, card=model.card.model_copy(update={"training": training}))
    assert calibrate(older, other).card.expected_error["prisma_st"].subjects == ["sub-02", "sub-03"]
    with pytest.raises(UserError, match="does not state of which dataset"):
        calibrate(older, other, ["sub-01"])


def test_a_name_alone_among_the_ancestors_people_is_told(model, heads):
    training = {**model.training, "start": {"subjects": ["sub-03"]}}
    named = replace(model, card=model.card.model_copy(update={"training": training}))
    with pytest.warns(MayHaveLearned, match="may have been trained on sub-03"):
        assert calibrate(named, heads, ["sub-03"]).card.expected_error


@pytest.mark.parametrize(
    ("subjects", "complaint"),
    [(["sub-01"], "was trained on sub-01"), (["sub-09"], "choose from sub-0[23]")],
)
def test_nobody_is_fitted_on_who_must_not_be(model, heads, subjects, complaint):
    with pytest.raises(UserError, match=complaint):
        calibrate(model, heads, subjects)


def test_a_run_is_chosen_where_the_dataset_is_opened(model, heads):
    with pytest.raises(UserError, match="already chosen; choose the run when") as refused:
        calibrate(model, heads, run=2)
    assert refused.value.field == "run"


def test_what_counts_as_b0_reaches_scans_of_an_open_dataset(model, heads):
    with pytest.raises(UserError, match="must lie between 0 and 200"):
        calibrate(model, heads, b0_threshold=1500)
