"""Each measure against its equation, in float64, on heads whose errors are known."""

from dataclasses import replace

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from scipy.ndimage import binary_dilation, binary_erosion

from napari_msp.errors import UserError
from napari_msp.evaluation.measures.catalogue import IN_TABLE, MEASURES, measure, measure_head
from napari_msp.evaluation.measures.pair import TissueMasks, Truth
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.maps import fractional_anisotropy, tensor_maps
from napari_msp.signal.spherical_harmonics import spread_directions


@pytest.fixture
def head(head):
    """The usual head, with stronger contrast between directions: it must have some to speak of."""

    def directed(*arguments, **options):
        image = head(*arguments, **options)
        image.coefficients[..., 1:] *= 1.5
        return image

    return directed


def thirds(image):
    """Tissue by place: the measures need not know what it is."""
    part = np.indices(image.mask.shape)[1] * 3 // image.mask.shape[1]
    return TissueMasks(*(image.mask & (part == number) for number in range(3)))


def noisy(image, deviation=0.02):
    noise = np.random.default_rng(5).normal(0, deviation, image.coefficients.shape)
    return replace(image, coefficients=(image.coefficients + noise).astype(np.float32))


def test_every_measure_is_described_and_measured(head):
    found = measure_head(noisy(head()), Truth(head(), thirds(head())))
    assert tuple(found.values) == IN_TABLE
    assert all(np.isfinite(list(found.values.values())))
    for key, each in MEASURES.items():
        assert each.key == key
        assert each.unit or key == "relative_sh_mse"
        assert each.explanation.endswith(".")
    assert MEASURES["sh_mse"].group == ""  # opens the table
    assert {each.better for each in MEASURES.values()} == {"lowest", "nearest 0"}


def test_global_measures_are_those_of_compare(head):
    found = measure_head(noisy(head()), Truth(head(), thirds(head())), patch_size=5)
    expected = measure(noisy(head()), head())
    assert found.values["sh_mse"] == expected.sh_mse
    assert found.values["colour_fa_mse"] == expected.values["colour_fa_mse"]
    assert found.patches.size == 5
    assert found.values["patch_mse"] == pytest.approx(np.mean(found.patches.mse))


def test_errors_in_a_tissue_equal_their_equations(head):
    truth, prediction, tissue = head(), noisy(head()), thirds(head())
    values = measure_head(prediction, Truth(truth, tissue)).values

    def percent(p, t):
        return 100 * np.abs(np.float64(p) - t).mean() / np.float64(t).mean()

    for name in ("white", "grey"):
        where = getattr(tissue, name)
        fa = [fractional_anisotropy(image)[where] for image in (prediction, truth)]
        md = [tensor_maps(image).md[where] for image in (prediction, truth)]
        energy = [image.coefficients[where].astype(float) ** 2 for image in (prediction, truth)]
        assert values[f"fa_error_{name}"] == pytest.approx(percent(*fa), rel=1e-4)
        assert values[f"md_error_{name}"] == pytest.approx(percent(*md), rel=1e-4)
        assert values[f"rish0_error_{name}"] == pytest.approx(
            percent(*(e[:, 0] for e in energy)), rel=1e-4
        )
    second = [image.coefficients[tissue.white].astype(float) ** 2 for image in (prediction, truth)]
    assert values["rish2_error_white"] == pytest.approx(
        percent(*(e[:, 1:6].sum(axis=1) for e in second)), rel=1e-4
    )
    where = tissue.white & (fractional_anisotropy(truth) > 0.2)
    p, t = (tensor_maps(image).direction[where].astype(float) for image in (prediction, truth))
    # The angle of lines from its sine, which is as exact where it is small.
    angle = np.degrees(np.arcsin(np.linalg.norm(np.cross(p, t), axis=1).clip(0, 1)))
    assert 0 < where.sum() < tissue.white.sum()
    assert values["direction_error"] == pytest.approx(angle.mean(), rel=1e-2)


@pytest.mark.reference("DIPY TensorModel")
def test_mean_diffusivity_is_that_of_dipy(head):
    image = head()
    directions = spread_directions(60)
    signal = evaluate_sh(image, directions)[image.mask]
    signal = np.concatenate([np.ones((len(signal), 1)), signal], axis=1)
    bvecs = np.concatenate([[[0, 0, 0]], directions])
    table = gradient_table(np.r_[0, np.full(60, image.b_value)], bvecs=bvecs)
    expected = TensorModel(table, fit_method="WLS").fit(signal.astype(float)).md
    ours = tensor_maps(image).md[image.mask]
    np.testing.assert_allclose(ours, expected, rtol=0.01)
    assert not tensor_maps(image).md[~image.mask].any()


def test_bias_is_signed_and_in_percent(head):
    truth = head()
    coefficients = truth.coefficients.copy()
    coefficients[..., 0] *= np.float32(1.03)
    tissue = thirds(truth)
    coefficients[tissue.fluid, 0] *= np.float32(0.9 / 1.03)
    values = measure_head(replace(truth, coefficients=coefficients), Truth(truth, tissue)).values
    assert values["bias_white"] == pytest.approx(3, abs=1e-3)
    assert values["bias_grey"] == pytest.approx(3, abs=1e-3)
    assert values["bias_fluid"] == pytest.approx(-10, abs=1e-3)


def test_truth_has_no_error_and_an_absent_tissue_no_number(head):
    none = np.zeros(head().mask.shape, bool)
    tissue = replace(thirds(head()), fluid=none)
    values = measure_head(head(), Truth(head(), tissue)).values
    assert np.isnan(values.pop("md_error_fluid"))
    assert np.isnan(values.pop("md_error_fluid_aligned"))
    assert np.isnan(values.pop("bias_fluid"))
    assert np.isnan(values.pop("mask_eroded"))  # no error, so no per cent of it
    assert np.isnan(values.pop("mask_dilated"))
    assert values.pop("direction_error") < 0.1
    assert values.pop("direction_error_aligned") < 0.1
    assert set(values.values()) == {0}


def test_mask_is_eroded_and_dilated_by_one_voxel(head):
    truth = head()
    inner = binary_erosion(truth.mask)  # six neighbours
    step = np.where(inner, 0.1, 0.2)  # the outermost voxels err twice as much
    wrong = truth.coefficients + (step * truth.mask)[..., None]
    prediction = replace(truth, coefficients=wrong.astype(np.float32))
    values = measure_head(prediction, Truth(truth)).values
    rim = 1 - inner.sum() / truth.mask.sum()
    assert values["mask_eroded"] == pytest.approx(100 * (1 / (1 + 3 * rim) - 1), abs=1e-3)
    assert values["mask_dilated"] == pytest.approx(0, abs=1e-9)  # the masks are one

    # A prediction that has no value in the rim is judged by truth's values there.
    smaller = replace(
        prediction, coefficients=prediction.coefficients * inner[..., None], mask=inner
    )
    error = np.square(np.float64(truth.coefficients)).mean(axis=-1)
    rim = truth.mask & binary_dilation(inner) & ~inner
    dilated = (0.01 * inner.sum() + error[rim].sum()) / (inner.sum() + rim.sum())
    values = measure_head(smaller, Truth(truth)).values
    assert values["mask_dilated"] == pytest.approx(100 * (dilated / 0.01 - 1), rel=1e-4)


def test_a_prepared_truth_gives_the_same_numbers(head, lattice):
    truth = Truth(head(lattice("LAS")), thirds(head(lattice("LAS"))))
    prediction = noisy(head())  # stored in another order
    one = measure_head(prediction, truth).values
    other = measure_head(prediction, truth).values
    again = measure_head(prediction, Truth(truth.image, truth.given_tissue)).values
    assert one == other == again


def test_what_does_not_belong_together_is_refused(head):
    with pytest.raises(UserError, match="BValue"):
        _ = Truth(replace(head(), b_value=None)).tissue
    with pytest.raises(ValueError, match="odd"):
        measure_head(head(), Truth(head()), patch_size=4)
