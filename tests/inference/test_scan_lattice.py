"""Scans whose voxels are not the model's: predictions go back to the voxels that they came in."""

from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.inference.prepare import prepare_input
from napari_msp.model_card import ErrorFit
from napari_msp.model_file import save_model
from napari_msp.options import Options

TALL = np.diag([-2.0, 2.0, 4.0, 1.0])
TALL[:3, 3] = [11.0, -7.0, 5.0]
SAID = "predictions interpolated back to the scan's lattice by cubic splines"


@pytest.fixture
def tall(small_scan, tmp_path):
    """A scan of 2 × 2 × 4 mm voxels."""
    return small_scan(TALL, shape=(11, 10, 6)).load(tmp_path)


@pytest.mark.parametrize(("target", "scale"), [("prisma_st", 1), ("connectom_sa", 2)])
def test_a_prediction_lies_on_the_scans_voxels(make_model, tall, target, scale):
    prediction = harmonize(make_model(), tall, target, resample=True, keep_stages=True)
    assert SAID in prediction.approximations
    for image in (prediction.sh, prediction.first_stage, *prediction.branches.values()):
        assert image.lattice.matches(tall.lattice.refined(scale))
        np.testing.assert_array_equal(image.affine, tall.lattice.refined(scale).affine)
        assert np.abs(image.coefficients[image.mask]).max(axis=-1).min() > 0  # no voxel is empty
        assert not image.coefficients[~image.mask].any()
        np.testing.assert_array_equal(image.mask[::scale, ::scale, ::scale], tall.mask)
    inside = tall.mask
    b0 = prediction.b0[::scale, ::scale, ::scale]
    np.testing.assert_array_equal(b0[inside], tall.b0[inside])
    assert prediction.disagreement.shape == prediction.mask.shape
    assert prediction.disagreement.min() >= 0


def test_the_expected_error_knows_the_b0_image_to_the_last_slice(make_model, tall):
    """One that is the b=0 signal over its mean: behind the last slice that is the last slice's."""
    model = make_model()
    weights = np.zeros(378)
    weights[1 + 24] = 1  # of 26 features, see `error_features`
    fit = ErrorFit(
        mean=[0.0] * 26, deviation=[9.0] * 26, weights=list(9 * weights), subjects=[], largest=1e3
    )
    card = model.card.model_copy(update={"expected_error": {"prisma_st": fit}})
    found = harmonize(replace(model, card=card), tall, "prisma_st", resample=True).expected_error
    assert found is not None
    ratio = found[tall.mask] / tall.b0[tall.mask]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.05)


def test_on_request_it_stays_on_the_models_voxels(make_model, tall):
    prediction = harmonize(make_model(), tall, "prisma_st", resample=True, lattice="model")
    np.testing.assert_allclose(prediction.lattice.voxel_sizes, 2.4)
    assert SAID not in prediction.approximations
    assert prediction.lattice.shape == tall.lattice.scaled_to(2.4).shape


def test_no_slice_of_the_scan_is_outside_what_the_model_reads(make_model, tall):
    prepared = prepare_input(make_model(), tall, Options(resample=True))
    reach = (np.array(prepared.image.lattice.shape) - 1) * 2.4
    assert (reach >= (np.array([11, 10, 6]) - 1) * np.array([2, 2, 4]) - 1e-6).all()


@pytest.mark.parametrize(
    ("edge", "scale"),
    [(1.25, 1), (1.3, 1), (1.75, 2), (2.0, 2), (4.0, 2)],
)
def test_voxels_nearly_as_fine_as_the_target_are_not_divided(
    make_model, small_scan, tmp_path, edge, scale
):
    acquisition = small_scan(np.diag([edge] * 3 + [1.0])).load(tmp_path)
    prediction = harmonize(make_model(), acquisition, "connectom_sa", resample=True)
    np.testing.assert_allclose(prediction.lattice.voxel_sizes, edge / scale)


def test_a_scan_in_the_models_voxels_is_left_alone(make_model, small_scan, tmp_path):
    acquisition = small_scan().load(tmp_path)
    model = make_model()
    plain = harmonize(model, acquisition, "connectom_sa")
    for lattice in ("scan", "model"):
        same = harmonize(model, acquisition, "connectom_sa", resample=True, lattice=lattice)
        assert same.approximations == ()
        np.testing.assert_array_equal(same.sh.coefficients, plain.sh.coefficients)
        np.testing.assert_array_equal(same.sh.affine, plain.sh.affine)


def test_reoriented_it_is_the_same(make_model, small_scan, tmp_path):
    made, model = small_scan(TALL, shape=(11, 10, 6)), make_model()
    (tmp_path / "as it is").mkdir()
    expected = harmonize(model, made.load(tmp_path / "as it is"), "prisma_st", resample=True)
    turned = made.stored_along(np.array([[2, -1], [0, 1], [1, -1]])).load(tmp_path)
    found = harmonize(model, turned, "prisma_st", resample=True)
    assert found.lattice.matches(turned.lattice)
    one, other = (
        nib.as_closest_canonical(nib.Nifti1Image(each.sh.coefficients, each.sh.affine)).get_fdata()
        for each in (found, expected)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_shells_go_back_alike(make_model, small_scan, tmp_path):
    acquisition = small_scan(TALL, shape=(11, 10, 6), b_values=(1200.0, 3000.0)).load(tmp_path)
    model = make_model(b_value=(1200.0, 3000.0))
    prediction = harmonize(model, acquisition, "prisma_st", resample=True)
    assert prediction.shells == (1200, 3000)
    for part in prediction.by_shell().values():
        assert part.lattice.matches(acquisition.lattice)
        assert not part.sh.coefficients[~acquisition.mask].any()


def test_files_lie_on_the_scan_and_say_so(make_model, tall, tmp_path):
    save_model(tmp_path / "m.safetensors", make_model())
    out = tmp_path / "out"
    (dwi,) = harmonize_to_folder(
        tall.path, tmp_path / "m.safetensors", ["prisma_st"], out, resample=True
    )
    image = nib.load(dwi)
    assert image.shape[:3] == tall.lattice.shape
    np.testing.assert_allclose(image.affine, tall.affine, atol=1e-5)
    assert SAID in dwi.with_name(dwi.name.replace("nii.gz", "json")).read_text()


def test_another_lattice_is_refused():
    wrong: Any = "truth"
    with pytest.raises(UserError, match="there is no lattice truth"):
        Options(lattice=wrong)


def test_cubes_cover_every_voxel():
    tall = Lattice((11, 10, 6), TALL)
    assert tall.scaled_to(2.4).shape == (9, 8, 9)
    assert tall.scaled_to(2.4, covering=True).shape == (10, 9, 10)
    assert tall.scaled_to(2.0, covering=True).shape == tall.scaled_to(2.0).shape == (11, 10, 11)
