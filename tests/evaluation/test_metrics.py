"""The numbers, by hand, in float64, inside the mask only."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from napari_msp.evaluation.compare import UNITS, numbers_csv
from napari_msp.evaluation.measures.catalogue import COMPARED, MEASURES, measure
from napari_msp.evaluation.measures.pair import patch_errors
from napari_msp.signal.maps import colour_fa, fractional_anisotropy


def noisy(image, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.05, image.coefficients.shape)
    return replace(image, coefficients=(image.coefficients + noise).astype(np.float32))


def test_every_number_equals_its_equation(head):
    truth = head()
    prediction = noisy(truth)  # noise outside the mask too: it must not count
    metrics = measure(prediction, truth)

    inside = [tuple(voxel) for voxel in np.argwhere(truth.mask)]
    y = np.array([truth.coefficients[voxel] for voxel in inside], dtype=np.float64)
    p = np.array([prediction.coefficients[voxel] for voxel in inside], dtype=np.float64)
    e2 = (p - y) ** 2
    n = len(inside)
    assert metrics.voxels == n
    assert metrics.sh_mse == pytest.approx(e2.sum() / (28 * n), rel=1e-12)
    assert metrics.values["sh_rmse"] == pytest.approx((e2.sum() / (28 * n)) ** 0.5, rel=1e-12)
    for order, (first, last) in {0: (0, 1), 2: (1, 6), 4: (6, 15), 6: (15, 28)}.items():
        expected = e2[:, first:last].sum() / (n * (last - first))
        assert metrics.order_mse[order] == pytest.approx(expected, rel=1e-12)
    spread = sum(((y[:, c] - y[:, c].sum() / n) ** 2).sum() for c in range(28))
    assert metrics.values["relative_sh_mse"] == pytest.approx(e2.sum() / spread, rel=1e-9)
    average = (p[:, :6].sum(1) - y[:, :6].sum(1)) / 6
    assert metrics.values["sh_average_mse"] == pytest.approx((average**2).sum() / n, rel=1e-5)

    fa = fractional_anisotropy(prediction)[truth.mask] - fractional_anisotropy(truth)[truth.mask]
    assert metrics.values["fa_mae"] == pytest.approx(np.abs(fa).mean(), rel=1e-5)
    assert metrics.values["fa_mse"] == pytest.approx((fa**2).mean(), rel=1e-5)
    colour = colour_fa(prediction)[truth.mask] - colour_fa(truth)[truth.mask]
    assert metrics.values["colour_fa_mse"] == pytest.approx((colour**2).sum() / (3 * n), rel=1e-5)


def test_truth_itself_has_no_error(head):
    metrics = measure(head(), head())
    assert metrics.sh_mse == metrics.values["fa_mae"] == metrics.values["colour_fa_mse"] == 0
    assert metrics.values["relative_sh_mse"] == 0


def test_the_mean_of_truth_has_relative_error_one(head):
    truth = head()
    mean = truth.coefficients[truth.mask].astype(float).mean(axis=0)
    flat = replace(truth, coefficients=(truth.mask[..., None] * mean).astype(np.float32))
    assert measure(flat, truth).values["relative_sh_mse"] == pytest.approx(1, rel=1e-5)
    no_variance = measure(noisy(flat), flat)
    assert np.isnan(no_variance.values["relative_sh_mse"])
    assert no_variance.to_json()["relative_sh_mse"] is None
    assert table({"flat": no_variance})[0]["relative_sh_mse"] == ""


def test_measured_on_truths_lattice(head, lattice):
    truth = head(lattice("RAS").refined(2))
    metrics = measure(head("permuted"), truth)
    assert metrics.voxels > 0.8 * truth.mask.sum()  # not the eighth that the prediction has
    assert 0 < metrics.values["relative_sh_mse"] < 0.05  # interpolation is all that went wrong


def test_json_is_plain_and_every_field_has_a_unit(head):
    content = json.loads(json.dumps(measure(noisy(head()), head()).to_json(), allow_nan=False))
    described = set(UNITS) | {"voxels", "patch_size", "patch_centres"}
    assert set(content) == described
    assert len(content["patch_mse"]) == len(content["patch_centres"]) > 0


def test_patches_tile_the_mask_and_are_measured_inside_it():
    rng = np.random.default_rng(1)
    truth, prediction = rng.normal(size=(2, 9, 7, 6, 28))
    mask = rng.random((9, 7, 6)) < 0.6
    mask[0] = False
    mask[1, 0, 0] = mask[1, 6, 5] = mask[8, 3, 3] = True  # the bounding box is known
    found = patch_errors(prediction, truth, mask, size=3)

    expected = {}
    for cx in (2, 5, 8):  # from the box's first voxel, x = 1; 8 is the last voxel, its cube is cut
        for cy in (1, 4):  # 7 lies past the volume
            for cz in (1, 4):
                if not mask[cx, cy, cz]:
                    continue
                errors = [
                    (prediction[v] - truth[v]) ** 2
                    for v in map(tuple, np.argwhere(mask))
                    if max(abs(v[0] - cx), abs(v[1] - cy), abs(v[2] - cz)) <= 1
                ]
                expected[cx, cy, cz] = np.mean(errors)
    assert 3 < len(expected) < 12
    assert [tuple(centre) for centre in found.centres] == list(expected)
    np.testing.assert_allclose(found.mse, list(expected.values()))


def test_a_patch_needs_a_centre():
    with pytest.raises(ValueError, match="odd"):
        patch_errors(np.zeros((4, 4, 4, 1)), np.zeros((4, 4, 4, 1)), np.ones((4, 4, 4), bool), 4)


def test_an_empty_mask_has_no_patches():
    empty = patch_errors(np.zeros((4, 4, 4, 1)), np.ones((4, 4, 4, 1)), np.zeros((4, 4, 4), bool))
    assert empty.centres.shape == (0, 3)
    assert empty.mse.shape == (0,)


# --- Beside each other -------------------------------------------------------------------------


def shifted(image, amount):
    coefficients = image.coefficients + amount * image.mask[..., None]
    return replace(image, coefficients=coefficients.astype(np.float32))


@pytest.fixture
def truth(head):
    return head()


@pytest.fixture
def found(truth):
    errors = {"A": 0.02, 'B, "sharp"': 0.01, "C": 0.03}
    return {name: measure(shifted(truth, by), truth) for name, by in errors.items()}


def table(measured, truth=""):
    return list(csv.DictReader(io.StringIO(numbers_csv(measured, truth))))


def test_changes_are_percentages_of_the_first_prediction(found):
    first, second, third = table(found)
    assert first["sh_mse_change [%]"] == first["colour_fa_mse_change [%]"] == ""
    assert float(second["sh_mse_change [%]"]) == pytest.approx(-75, rel=1e-3)
    assert float(third["sh_mse_change [%]"]) == pytest.approx(125, rel=1e-3)
    one, two, _ = (each.values["colour_fa_mse"] for each in found.values())
    assert float(second["colour_fa_mse_change [%]"]) == pytest.approx(100 * (two - one) / one)


def test_no_percentage_of_nothing(truth):
    perfect = {"perfect": measure(truth, truth), "B": measure(shifted(truth, 0.01), truth)}
    first, second = table(perfect)
    assert float(first["sh_mse [SH units^2]"]) == 0
    assert second["sh_mse_change [%]"] == ""


def test_the_csv_gives_every_number_back(found):
    assert numbers_csv(found, "sub-01_dwi.nii.gz").isascii()
    for row, (name, metrics) in zip(table(found, "sub-01_dwi.nii.gz"), found.items(), strict=True):
        assert row["prediction"] == name
        assert row["truth"] == "sub-01_dwi.nii.gz"
        assert int(row["voxels"]) == metrics.voxels
        assert float(row["sh_mse [SH units^2]"]) == metrics.sh_mse
        units = {key: MEASURES[key].unit.replace("²", "^2") for key in COMPARED}
        columns = {key: f"{key} [{unit}]" if unit else key for key, unit in units.items()}
        assert {key: float(row[column]) for key, column in columns.items()} == metrics.values


def test_without_predictions_there_is_the_header(found):
    assert numbers_csv({}, "").splitlines() == numbers_csv(found, "x").splitlines()[:1]
