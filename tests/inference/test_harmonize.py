"""Harmonizing a scan: frames, stages, refusals and what they mend."""

import json
import shutil
import warnings
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_msp.bids import sidecar_path
from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Cancelled, Doubt, Resample, RescaleBValue, UserError
from napari_msp.inference.harmonize import harmonize, predict_targets
from napari_msp.inference.prepare import (
    NotForScans,
    NotPredicted,
    Rescaled,
    UnlikeTraining,
    prepare_input,
)
from napari_msp.inference.stages import outputs_of
from napari_msp.options import Options, with_settings
from napari_msp.scan_sources import load_scan
from napari_msp.signal.channels import into_grid
from napari_msp.signal.fitting import fit_sh, normalise
from napari_msp.signal.sh_image import write_sh
from napari_msp.signal.spherical_harmonics import order_slices, rotate

ORIENTATIONS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def in_canonical(array, affine):
    """As nibabel reorders it, which is not our own code."""
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(array, affine)).dataobj)


@pytest.fixture(scope="module")
def reference_cache():
    return {}


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("index", range(48))
def test_reoriented_input_gives_the_reoriented_output(
    index, oblique, make_model, small_scan, tmp_path, reference_cache
):
    affine = np.diag([-2.4, 2.4, 2.4, 1.0])
    if oblique:
        turn = Rotation.from_euler("zyx", [20, -12, 9], degrees=True).as_matrix()
        affine[:3, :3] = turn @ affine[:3, :3]
    made = small_scan(affine)
    model = make_model()
    if oblique not in reference_cache:
        (tmp_path / "reference").mkdir()
        acquisition = made.load(tmp_path / "reference")
        reference_cache[oblique] = harmonize(model, acquisition, "connectom_sa")
    expected = reference_cache[oblique]
    acquisition = made.stored_along(ORIENTATIONS[index]).load(tmp_path)
    found = harmonize(model, acquisition, "connectom_sa")
    for name in ("sh", "first_stage"):
        one, other = getattr(found, name), getattr(expected, name)
        a = in_canonical(one.coefficients, one.affine)
        b = in_canonical(other.coefficients, other.affine)
        assert np.abs(a - b).max() <= 1e-5 * np.ptp(b)
    a = in_canonical(found.disagreement, found.sh.affine)
    b = in_canonical(expected.disagreement, expected.sh.affine)
    assert np.abs(a - b).max() <= 1e-5 * np.ptp(b)
    # Stored as the input is: the same voxel axes run the same ways.
    assert nib.aff2axcodes(found.sh.affine) == nib.aff2axcodes(acquisition.affine)


def test_tilted_head_gives_the_tilted_image(make_model, small_scan, tmp_path):
    """The same voxels and b-vectors under an oblique affine: all directions turn with it."""
    straight = small_scan()
    turn = Rotation.from_euler("zyx", [25, -15, 35], degrees=True).as_matrix()
    affine = straight.image.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    tilted = replace(
        straight,
        image=nib.Nifti1Image(np.asarray(straight.image.dataobj), affine),
        mask=nib.Nifti1Image(np.asarray(straight.mask.dataobj), affine),
        directions=straight.directions @ turn.T,
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = make_model()
    one = harmonize(model, straight.load(tmp_path / "a"), "connectom_sa").sh
    other = harmonize(model, tilted.load(tmp_path / "b"), "connectom_sa").sh
    expected = rotate(one.coefficients.astype(float), turn)
    assert np.abs(other.coefficients - expected).max() <= 1e-4 * np.ptp(expected)


def test_equation_one_and_disagreement_by_hand(make_model, small_scan, tmp_path):
    """From the acquisition to SH units, in float64, without the package's inference."""
    acquisition = small_scan().load(tmp_path)
    model = make_model()
    prediction = harmonize(model, acquisition, "connectom_sa")
    image = into_grid(fit_sh(acquisition))
    source, target = (model.standardisation(n) for n in ("ge_st", "connectom_sa"))
    x = (image.coefficients.astype(float) - source.mean) / source.deviation
    x[~image.mask] = 0
    network = model.single("connectom_sa").double()
    with torch.no_grad():
        outputs = network(torch.from_numpy(np.moveaxis(x, -1, 0)[None]), 0.5)
        own = outputs.first["connectom_sa"][0].numpy()
        branch = outputs.branches["prisma_st"][0].numpy()
    network.float()

    def stored(values):  # the scan is LAS: canonical order has x the other way round
        return np.moveaxis(values, 0, -1)[::-1]

    alpha, terms = 0.7, 2
    expected = (1 - alpha) * own + alpha / terms * (branch + own)
    inside = prediction.sh.mask
    np.testing.assert_allclose(
        prediction.sh.coefficients[inside],
        (stored(expected) * target.deviation + target.mean)[inside],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        prediction.first_stage.coefficients[inside],
        (stored(own) * target.deviation + target.mean)[inside],
        atol=1e-4,
    )
    spread = np.stack([own, branch]).var(axis=0) * target.deviation[:, None, None, None] ** 2
    assert prediction.disagreement is not None
    assert prediction.disagreement_by_order is not None
    np.testing.assert_allclose(
        prediction.disagreement[inside],
        np.sqrt(stored(spread).mean(axis=-1))[inside],
        atol=1e-5,
    )
    first_order = prediction.disagreement_by_order[..., 0]
    np.testing.assert_array_equal(prediction.order_0_disagreement, first_order)
    for order, part in enumerate(order_slices().values()):
        np.testing.assert_allclose(
            prediction.disagreement_by_order[inside][:, order],
            np.sqrt(stored(spread)[inside][:, part].mean(axis=-1)),
            atol=1e-5,
        )
    assert not prediction.disagreement[~inside].any()
    assert not prediction.sh.coefficients[~inside].any()


def test_output_lies_on_the_refined_lattice(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    prediction = harmonize(make_model(), acquisition, "connectom_sa")
    assert prediction.sh.coefficients.shape == (17, 15, 13, 28)
    corners = np.array([[0, 0, 0, 1], [16, 14, 12, 1]]).T
    nodes = np.array([[0, 0, 0, 1], [8, 7, 6, 1]]).T
    np.testing.assert_allclose(
        prediction.sh.affine @ corners, acquisition.affine @ nodes, atol=1e-6
    )
    np.testing.assert_allclose(
        prediction.b0[::2, ::2, ::2][acquisition.mask], acquisition.b0[acquisition.mask], rtol=1e-5
    )
    np.testing.assert_array_equal(prediction.sh.mask[::2, ::2, ::2], acquisition.mask)


def test_single_network_has_no_stages(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    prediction = harmonize(make_model("hned"), acquisition, "prisma_st", keep_stages=True)
    assert prediction.first_stage is None
    assert prediction.disagreement is None and prediction.order_0_disagreement is None
    assert prediction.branches == {}
    assert prediction.warnings == ()


def test_branches_are_kept_when_asked_for(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    model = make_model()
    plain = harmonize(model, acquisition, "connectom_sa")
    kept = harmonize(model, acquisition, "connectom_sa", keep_stages=True, tile=4)
    assert plain.branches == {}
    assert list(kept.branches) == ["prisma_st"]
    branch, own = kept.branches["prisma_st"], kept.first_stage
    np.testing.assert_array_equal(branch.affine, kept.sh.affine)
    np.testing.assert_array_equal(branch.mask, kept.sh.mask)
    assert branch.b_value == kept.sh.b_value
    spread = np.stack([own.coefficients, branch.coefficients]).var(axis=0)
    assert kept.disagreement is not None
    np.testing.assert_allclose(np.sqrt(spread.mean(axis=-1)), kept.disagreement, atol=1e-5)
    np.testing.assert_allclose(kept.sh.coefficients, plain.sh.coefficients, atol=1e-5)


def test_one_prepared_input_serves_every_target(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    model = make_model()
    prepared = prepare_input(model, acquisition)
    for target in model.targets:
        [found] = predict_targets(model, prepared, [target])
        expected = harmonize(model, acquisition, target)
        np.testing.assert_array_equal(found.sh.coefficients, expected.sh.coefficients)
        np.testing.assert_array_equal(found.b0, expected.b0)


def test_two_platforms_leave_nothing_to_disagree(make_network):
    from napari_msp.networks.msp import MSP

    network = MSP({"prisma_st": make_network("hned", "prisma_st")}, "prisma_st").eval()
    found = dict(outputs_of(network, torch.randn(1, 28, 4, 4, 4), 0.5, {"renamed": torch.ones(28)}))
    assert [each[:2] for each in found] == [("renamed", "prediction"), ("renamed", "first stage")]
    torch.testing.assert_close(*found.values())


@pytest.mark.parametrize(
    ("model_options", "remedy", "option"),
    [
        ({"b_value": 1000.0}, RescaleBValue, {"rescale_b_value": True}),
        ({"voxel_size": 2.0}, Resample, {"resample": True, "lattice": "model"}),
    ],
)
@pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.Rescaled")
def test_what_is_not_the_models_is_refused_and_can_be_allowed(
    model_options, remedy, option, make_model, small_scan, tmp_path
):
    acquisition = small_scan().load(tmp_path)
    model = make_model(**model_options)
    with pytest.raises(UserError) as caught:
        harmonize(model, acquisition, "prisma_st")
    assert isinstance(caught.value.remedy, remedy)
    prediction = harmonize(model, acquisition, "prisma_st", **option)
    assert len(prediction.approximations) == 1
    sizes = np.linalg.norm(prediction.sh.affine[:3, :3], axis=0)
    np.testing.assert_allclose(sizes, model.card.voxel_size if "resample" in option else 2.4)
    assert prediction.sh.b_value == model.card.sh.b_value


def test_rescaled_signal_is_the_power_of_the_ratio(small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    shell = acquisition.shell()
    rescaled = fit_sh(acquisition, rescale_to=1000.0, regularisation=0.0)
    from napari_msp.signal.spherical_harmonics import design_matrix

    inside = acquisition.mask
    expected = normalise(acquisition.voxels[..., shell.volumes], acquisition.b0[..., None])[
        inside
    ].astype(float) ** (1000 / 1200)
    solved, *_ = np.linalg.lstsq(design_matrix(acquisition.directions(shell)), expected.T)
    np.testing.assert_allclose(rescaled.coefficients[inside], solved.T, atol=1e-4)
    assert rescaled.rescaled_from == pytest.approx(1200)


def test_shell_nearest_to_the_model_is_taken(make_model, small_scan, tmp_path):
    acquisition = small_scan(b_values=(700.0, 1190.0, 2800.0)).load(tmp_path)
    for scan in (acquisition, acquisition.path):
        with pytest.warns(NotPredicted, match="b = 700, 2800 of the scan"):
            prediction = harmonize(make_model(), scan, "prisma_st")
        said = "b = 700, 2800 of the scan is not predicted (the model knows b = 1200)"
        assert prediction.approximations == ()  # nothing was done to what is predicted
        assert prediction.warnings == (Doubt(said, acquisition.name),)
        assert prediction.sh.rescaled_from is None


def test_unknown_target_names_the_known(make_model, small_scan, tmp_path):
    with pytest.raises(UserError, match="choose from prisma_st, connectom_sa"):
        harmonize(make_model(), small_scan().load(tmp_path), "trio_st")


def test_scan_unlike_the_training_is_said_so(make_model, small_scan, tmp_path):
    model = make_model()
    statistics = dict(model.card.standardisation)
    ge = statistics["ge_st"]
    statistics["ge_st"] = ge.model_copy(update={"mean": [9.0, *ge.mean[1:]]})
    odd = replace(model, card=model.card.model_copy(update={"standardisation": statistics}))
    with pytest.warns(UnlikeTraining, match="standard deviations from the training") as warned:
        prediction = harmonize(odd, small_scan().load(tmp_path), "prisma_st")
    assert prediction.warnings == (warned[0].message,)


def test_a_model_says_that_it_is_not_for_scans_but_simulated_ones(make_model, small_scan, tmp_path):
    model = make_model()
    card = model.card.model_copy(update={"label": "A lesson's.", "simulated_only": True})
    model = replace(model, card=card)
    folder = tmp_path / "heads" / "sub-01" / "ses-ge" / "dwi"
    folder.mkdir(parents=True)
    dwi = small_scan().write(folder, stem="sub-01_ses-ge_acq-st")
    made = tmp_path / "made"
    made.mkdir()
    (made / "dataset_description.json").write_text('{"Simulated": true}')
    about = tmp_path / "heads" / "dataset_description.json"
    for simulated in ({"Simulated": True}, {"DatasetLinks": {"source": "../made"}}):
        about.write_text(json.dumps(simulated))
        assert prepare_input(model, dwi).warnings == ()
    about.write_text("{}")
    with pytest.warns(NotForScans, match="for simulated heads only"):
        (said,) = prepare_input(model, dwi).warnings
    assert 'is for simulated heads only ("A lesson\'s.")' in said.words
    named = model.card.model_copy(update={"label": "Not for people", "simulated_only": False})
    assert prepare_input(replace(model, card=named), dwi).warnings == ()  # a label is only shown


def test_progress_and_cancel(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    seen = []
    harmonize(
        make_model(),
        acquisition,
        "prisma_st",
        tile=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 1
    with pytest.raises(Cancelled):
        harmonize(make_model(), acquisition, "prisma_st", cancelled=lambda: True)


def test_cancelling_is_heard_after_the_last_tile(make_model, small_scan, tmp_path):
    tiles = []
    with pytest.raises(Cancelled):
        harmonize(
            make_model(),
            small_scan().load(tmp_path),
            "prisma_st",
            progress=lambda done, total: tiles.append(done == total),
            cancelled=lambda: any(tiles),
        )
    assert tiles == [False, True]


@pytest.mark.parametrize("kind", ["msp", "diqt", "shresnet"])
def test_half_precision_is_within_a_thousandth(kind, make_model, small_scan, tmp_path):
    model, acquisition = make_model(kind), small_scan().load(tmp_path)
    for target in model.targets:
        exact = harmonize(model, acquisition, target, device="cpu").sh
        rounded = harmonize(model, acquisition, target, device="cpu", precision="float16").sh
        off = np.abs(exact.coefficients - rounded.coefficients)
        assert 0 < off.max() < 1e-3
        assert (rounded.coefficients[~rounded.mask] == 0).all()


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match=r"there is no precision float8; choose .*float16"):
        Options(precision="float8")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tiel: there is no such setting; choose from tile"):
        with_settings(None, {"tiel": 3})  # type: ignore[typeddict-unknown-key]
    assert with_settings(None, {"device": torch.device("cpu")}).device == "cpu"  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="each by its name"):
        with_settings({"tile": 3}, {})  # type: ignore[arg-type]


def test_what_is_no_model_is_named(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    with pytest.raises(UserError, match="is a Acquisition, not a model"):
        harmonize(acquisition, make_model(), "prisma_st")


def test_every_option_that_changes_numbers_stands_in_the_sidecar():
    found = Options(b_value=[2000, 1000], resample=True, device="cpu", tile=9).recorded()
    assert found == {
        "Precision": "float32",
        "Resample": True,
        "Lattice": "scan",
        "RescaleBValue": False,
        "B0Threshold": None,
        "BValues": [1000.0, 2000.0],
    }
    of_numpy: Any = np.int64(700)
    assert Options(b_value=of_numpy, lattice="model").recorded() == found | {
        "Resample": False,
        "Lattice": None,
        "BValues": [700.0],
    }


class TestUnlikeTheTrainingScans:
    """What is not the model's by little, and what a file says of itself."""

    @pytest.mark.parametrize(("b_value", "off"), [(1250.0, 4), (1185.0, 1)])
    def test_a_b_value_that_is_nearly_the_models(
        self, make_model, small_scan, tmp_path, b_value, off
    ):
        acquisition = small_scan(b_values=(b_value,)).load(tmp_path)
        said = f"b = {b_value:.0f} is used as the model's 1200 s/mm².* {off} % off"
        with pytest.warns(UnlikeTraining, match=said):
            near = prepare_input(make_model(), acquisition)
        assert near.approximations == ()
        assert any("is used as" in each.words for each in near.warnings)
        with pytest.warns(Rescaled, match=f"b = {b_value:.0f} rescaled to 1200"):
            rescaled = prepare_input(make_model(), acquisition, Options(rescale_b_value=True))
        assert f"b = {b_value:.0f} rescaled to 1200" in rescaled.approximations[0]
        expected = fit_sh(acquisition, rescale_to=1200.0)
        np.testing.assert_array_equal(
            rescaled.image.coefficients[rescaled.image.mask],
            into_grid({1200: expected}).coefficients[rescaled.image.mask],
        )
        assert rescaled.warnings == ()

    def test_what_is_asked_for_needs_not_be_done(self, make_model, small_scan, tmp_path):
        acquisition = small_scan().load(tmp_path)
        asked = Options(rescale_b_value=True)
        assert prepare_input(make_model(), acquisition, asked).approximations == ()

    @pytest.mark.parametrize(
        ("stem", "scanner", "said"),
        [
            ("sub-01_ses-prisma_acq-st", "", "prisma_st according to its name"),
            ("sub-01_ses-02_acq-prisma", "", "02_prisma according to its name: prisma_st is"),
            ("sub-01_ses-02", "Prisma_fit", "Prisma_fit according to its sidecar: prisma_st is"),
            ("sub-01_ses-mr750_acq-64dir", "Signa HDxt", ""),  # how others call the model's input
            ("sub-01_ses-02_acq-st", "", ""),
            ("sub-01_ses-ge2_acq-sa", "", ""),  # as connectom_sa: a protocol is no scanner
            ("sub-01_ses-philips_acq-sa", "Skyra_fit", ""),
            ("sub-01_ses-ge_acq-st", "Prisma", ""),  # named as the model's input
        ],
    )
    def test_a_scan_of_a_target(self, make_model, small_scan, tmp_path, stem, scanner, said):
        path = small_scan().write(tmp_path, stem=stem)
        sidecar_path(path).write_text(json.dumps({"ManufacturersModelName": scanner}))
        if not said:
            assert prepare_input(make_model(), path).warnings == ()
            return
        with pytest.warns(UnlikeTraining, match=f"is from {said}.* from ge_st") as told:
            prepared = prepare_input(make_model(), path)
        assert len(told) == len(prepared.warnings) == 1

    def test_b0_images_of_another_b_value(self, make_model, small_scan, tmp_path):
        made = small_scan()
        made.b_values[:2] = 50
        with pytest.warns(DoubtfulScan, match="counts as b=0"):
            acquisition = made.load(tmp_path)
        older = make_model()  # which does not say what it learned from
        at_0, at_50 = (
            replace(older, card=older.card.model_copy(update={"b0_weighting": b}))
            for b in (0.0, 50.0)
        )
        with pytest.warns(UnlikeTraining, match="have b = 50 .* scans 0: .* about 4 % in tissue"):
            prepare_input(at_0, acquisition)
        assert [each.card.b0_weighting for each in (older, at_0, at_50)] == [None, 0, 50]
        for model in (older, at_50):
            assert prepare_input(model, acquisition).warnings == acquisition.first_doubts[:1]

    def test_a_scan_of_a_slice_or_three_is_told(self, make_model, small_scan, tmp_path):
        for slices, words in ((1, "it has only 1 slice:"), (3, "it has only 3 slices:"), (4, "")):
            acquisition = small_scan(shape=(9, 8, slices)).load(tmp_path)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                prepared = prepare_input(make_model(), acquisition)
            for found in (prepared.warnings, [each.message for each in said]):
                assert any(words and words in str(each) for each in found) == bool(words)
        small = small_scan(np.diag([-0.1, 0.1, 0.1, 1.0]), shape=(32, 20, 14)).load(tmp_path)
        with pytest.warns(UnlikeTraining, match="2 slices .0.10 × 0.10 × 0.10 mm interpolated to"):
            prepare_input(make_model(), small, Options(resample=True))

    def test_a_prediction_is_no_scan(self, make_model, small_scan, tmp_path):
        path = small_scan().write(tmp_path, stem="sub-01_ses-ge_acq-st")
        written = harmonize(make_model(), path, "prisma_st").save(tmp_path / "out")
        renamed = tmp_path / "a.nii.gz"
        for suffix in (".nii.gz", ".bval", ".bvec", ".json"):
            copied = f"a{suffix}", written[0].name.replace(".nii.gz", suffix)
            shutil.copy(tmp_path / "out" / copied[1], tmp_path / copied[0])
        for each in (written[0], renamed, load_acquisition(renamed)):
            with pytest.raises(UserError, match="is a prediction itself") as error:
                harmonize(make_model(), each, "prisma_st")
            assert error.value.field == "scan"
        with pytest.raises(UserError, match="out: contains predictions but no scan; give the data"):
            open_dataset(tmp_path / "out")
        # Why a scan beside them is none is what helps.
        beside = tmp_path / "out/sub-07/dwi"
        beside.mkdir(parents=True)
        shutil.copy(path, beside / "sub-08_ses-ge_acq-st_dwi.nii.gz")
        with pytest.raises(UserError, match=r"has no scan: sub-08_ses-ge_acq-st_dwi.* is in"):
            open_dataset(tmp_path / "out")

    def test_whatever_is_written_of_a_prediction_says_so(self, make_model, small_scan, tmp_path):
        path = small_scan().write(tmp_path, stem="sub-01_ses-ge_acq-st")
        prediction = harmonize(make_model(), path, "prisma_st")
        dwi, *written = prediction.save(tmp_path / "out")
        sh = next(
            each
            for each in written
            if each.name.endswith("Msp_model-sh_param-coefficients_dwimap.nii.gz")
        )
        for each in (dwi, sh):
            load_scan(each).save(tmp_path / f"maps of {each.name}")
        alone = tmp_path / "a.nii.gz"
        write_sh(alone, prediction.sh, prediction.sidecar())
        assert load_scan(alone).owner == "sub-01 MSP prisma_st"
        again = list(tmp_path.glob("maps of */*_param-coefficients_dwimap.nii.gz"))
        assert len(again) == 2
        assert load_scan(sh).provenance is not None
        for each in (alone, dwi, *again):
            assert load_scan(each).provenance == load_scan(sh).provenance, each
