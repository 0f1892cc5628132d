"""Global numbers of predictions, each beside the first one's, and their CSV."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from napari_msp.evaluation.comparison import line_up
from napari_msp.evaluation.metrics import measure
from napari_msp.evaluation.numbers import numbers_csv, summarise, write_numbers


def shifted(image, amount):
    coefficients = image.coefficients + amount * image.mask[..., None]
    return replace(image, coefficients=coefficients.astype(np.float32))


@pytest.fixture
def truth(head):
    return head()


@pytest.fixture
def found(truth):
    predictions = {name: shifted(truth, by) for name, by in (("A", 0.02), ("B", 0.01), ("C", 0.03))}
    return summarise(line_up(truth, predictions))


def test_rows_hold_what_measure_measures(truth, found):
    assert [row.name for row in found] == ["A", "B", "C"]
    alone = measure(shifted(truth, 0.01), truth)
    for field in ("voxels", "sh_mse", "sh_rmse", "sh_average_mse", "colour_fa_mse", "fa_mae"):
        assert getattr(found[1], field) == pytest.approx(getattr(alone, field), rel=1e-9)


def test_changes_are_percentages_of_the_first_prediction(found):
    assert found[0].change_sh is None
    assert found[0].change_colour is None
    assert found[1].change_sh == pytest.approx(-75, rel=1e-3)
    assert found[2].change_sh == pytest.approx(125, rel=1e-3)
    expected = 100 * (found[1].colour_fa_mse - found[0].colour_fa_mse) / found[0].colour_fa_mse
    assert found[1].change_colour == pytest.approx(expected)


def test_no_percentage_of_nothing(truth):
    first, second = summarise(line_up(truth, {"perfect": truth, "B": shifted(truth, 0.01)}))
    assert first.sh_mse == 0
    assert second.change_sh is None


def test_without_truth_there_are_no_numbers(truth):
    assert summarise(line_up(None, {"A": truth})) == []


def test_the_csv_gives_every_number_back(found, tmp_path):
    odd = replace(found[1], name='B, "sharp"')
    write_numbers(tmp_path / "numbers.csv", [found[0], odd], "sub-01_dwi.nii.gz")
    text = (tmp_path / "numbers.csv").read_bytes().decode("ascii")
    first, second = csv.DictReader(io.StringIO(text))
    assert second["prediction"] == 'B, "sharp"'
    assert second["truth"] == "sub-01_dwi.nii.gz"
    assert int(second["voxels"]) == odd.voxels
    assert float(second["sh_mse [SH units^2]"]) == odd.sh_mse
    assert float(second["sh_rmse [SH units]"]) == odd.sh_rmse
    assert float(second["sh_average_mse [SH units^2]"]) == odd.sh_average_mse
    assert float(second["colour_fa_mse [FA^2]"]) == odd.colour_fa_mse
    assert float(second["fa_mae [FA]"]) == odd.fa_mae
    assert float(second["sh_mse_change [%]"]) == odd.change_sh
    assert float(second["colour_fa_mse_change [%]"]) == odd.change_colour
    assert first["sh_mse_change [%]"] == first["colour_fa_mse_change [%]"] == ""


def test_no_rows_leave_the_header(found):
    assert numbers_csv([], "").splitlines() == numbers_csv(found, "x").splitlines()[:1]
