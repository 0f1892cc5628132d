"""Comparing scans of several shells: each shell as if it were alone, and what some lack."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from perturbed import perturbed

from napari_msp.errors import Choose, Give, UserError
from napari_msp.evaluation.compare import CompareResult, compare
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import ShellLeftOut
from napari_msp.signal.sh_image import write_sh


@pytest.fixture
def images(head):
    """Truth, two predictions and the input, each of two shells."""
    low, high = head(), head(b_value=3000.0)
    high = replace(high, coefficients=high.coefficients * np.float32(0.7))
    amounts = {"truth": 0.0, "diqt": 0.05, "msp": 0.02, "input": 0.1}
    return {
        name: {
            b: perturbed(image, amount * (1 + (b == 3000)), seed)
            for b, image in ((1200, low), (3000, high))
        }
        for seed, (name, amount) in enumerate(amounts.items())
    }


def compared(images, out=None, **options) -> CompareResult:
    """Compare the predictions with truth."""
    predictions = {"DIQT": images["diqt"], "MSP": images["msp"]}
    return compare(images["truth"], predictions, out, **options)


def placeless(result):
    """Give the notes but for where heads lie, which is found in the first of several shells."""
    return [note for note in result.notes if " lies " not in note]


def error_by_hand(one, other):
    difference = one.coefficients.astype(float) - other.coefficients
    return np.square(difference[one.mask & other.mask]).mean()


def test_each_shell_is_compared_as_if_it_were_alone(images):
    found = compared(images, input_image=images["input"])
    assert list(found) == [1200, 3000]
    for shell, result in found.items():
        alone = {name: each[shell] for name, each in images.items()}
        same = compared(alone, input_image=alone["input"]).only
        one, other = ({**each.to_json(), "notes": placeless(each)} for each in (result, same))
        assert one == other
        for name in ("DIQT", "MSP"):
            by_hand = error_by_hand(alone[name.lower()], alone["truth"])
            assert result.metrics[name].sh_mse == pytest.approx(by_hand, rel=1e-6)
        assert result.no_harmonization is not None
        by_hand = error_by_hand(alone["input"], alone["truth"])
        assert result.no_harmonization[1].sh_mse == pytest.approx(by_hand, rel=1e-6)
    assert "b = 1200" in repr(found)
    assert "b = 3000" in repr(found)
    with pytest.raises(UserError, match="several shells; choose from 1200, 3000"):
        _ = found.metrics


def test_files_have_a_figure_a_shell_and_one_table(images, tmp_path):
    files = {}
    for name, shells in images.items():
        files[name] = []
        for b, image in shells.items():
            files[name].append(tmp_path / f"sub-01_desc-{name}B{b}_dwimap.nii.gz")
            write_sh(files[name][-1], image)
    found = compared(files, tmp_path / "out", input_image=files["input"])
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"figure3_b1200.png", "figure3_b3000.png", "metrics.json", "numbers.csv"}
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert kept == {
        "shells": {str(b): json.loads(json.dumps(each.to_json())) for b, each in found.items()}
    }
    with (tmp_path / "out" / "numbers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["shell [s/mm^2]"], row["prediction"]) for row in rows] == [
        (b, name) for b in ("1200", "3000") for name in ("before", "DIQT", "MSP")
    ]
    for row in rows:
        one = found[int(row["shell [s/mm^2]"])]
        assert one.input_metrics is not None
        own = {"before": one.input_metrics, **one.metrics}[row["prediction"]]
        assert float(row["sh_mse [SH units^2]"]) == own.sh_mse
        # Beside the input at its own shell.
        if row["prediction"] == "MSP":
            change = 100 * (own.sh_mse / one.input_metrics.sh_mse - 1)
            assert float(row["sh_mse_change [%]"]) == pytest.approx(change)


@pytest.mark.parametrize(
    ("b_value", "expected"),
    [(1200, 1200), ([3000], 3000), (3040, 3000), ([1200, 3000], None), ([3000.0, 1210.0], None)],
)
def test_shells_can_be_chosen(images, b_value, expected):
    found = compared(images, b_value=b_value)
    assert list(found) == ([1200, 3000] if expected is None else [expected])
    assert [each.truth and each.truth.b_value for each in found.values()] == list(found)


def test_b_values_are_any_numbers_and_at_least_one(images):
    assert list(compared(images, b_value=np.int64(1200))) == [1200]
    assert list(compared(images, b_value=np.array([1200, 3000]))) == [1200, 3000]
    with pytest.raises(UserError, match="no b-value is given") as error:
        compared(images, b_value=[])
    assert error.value.remedy == Give("b_value", "one")


def test_an_image_without_a_b_value_is_told_where_to_put_it(images):
    unknown = {"DIQT": replace(images["diqt"][1200], b_value=None)}
    with pytest.raises(UserError, match="add BValue to the sidecar of"):
        compare(images["truth"], unknown)


def test_files_of_shells_are_chosen_from(images, tmp_path):
    paths = [tmp_path / f"sub-01_b{b}.nii.gz" for b in images["truth"]]
    for path, image in zip(paths, images["truth"].values(), strict=True):
        image.save(path)
    one = load_scan(paths, b_value=3000)
    assert (one.shells, one.path) == ((3000,), paths[1])
    assert load_scan(paths, b_value=[3000, 1200]).shells == (1200, 3000)
    with pytest.raises(UserError, match="no shell near b = 2000") as error:
        load_scan(paths, b_value=2000)
    assert error.value.remedy == Choose("b_value", (1200, 3000))


@pytest.mark.parametrize("b_value", [2000, [1200, 2000]])
def test_a_shell_that_is_not_there_is_refused(images, b_value):
    with pytest.raises(UserError, match="2000") as error:
        compared(images, b_value=b_value)
    assert error.value.field == "b_value"
    assert error.value.remedy == Choose("b_value", (1200, 3000))


def test_what_one_image_lacks_is_said_and_the_rest_compared(images):
    some = {**images, "msp": images["msp"][3000]}
    with pytest.warns(ShellLeftOut, match="b = 1200 of .* is not compared"):
        found = compared(some, input_image=images["input"])
    assert list(found) == [3000]
    by_hand = error_by_hand(images["msp"][3000], images["truth"][3000])
    assert found.metrics["MSP"].sh_mse == pytest.approx(by_hand, rel=1e-6)
    assert any("b = 1200 of" in note for note in found.notes)
    scan = found.only.scan
    assert scan is not None
    assert scan.b_value == 3000


def test_an_input_without_the_shell_is_not_measured_and_said(images):
    found = compared(images, input_image=images["input"][1200])
    assert found[1200].no_harmonization is not None
    assert found[3000].no_harmonization is None
    assert any("was not measured" in note for note in found[3000].notes)
    two = {b: replace(images["input"][1200], b_value=float(b)) for b in (500, 1200)}
    found = compared(images, input_image=two)
    assert found[1200].no_harmonization is not None
    assert found[3000].scan is None
    assert "the input has no shell near b = 3000, and is not shown" in found[3000].notes


def test_a_head_that_lies_beside_the_truth_is_registered_once(images):
    moved = next(iter(images["msp"].values())).affine.copy()
    moved[0, 3] += 4
    images["msp"] = {b: replace(each, affine=moved) for b, each in images["msp"].items()}
    found = compared(images)
    [[low], [high]] = [[n for n in each.notes if "MSP lies " in n] for each in found.values()]
    assert low == high


def test_images_without_a_common_shell_are_refused(images):
    truth = {b: replace(each, b_value=b - 500.0) for b, each in images["truth"].items()}
    with pytest.raises(UserError, match="no shell is in all of them") as error:
        compare(Scan(given_sh=truth, given_subject="sub-01"), {"DIQT": images["diqt"]})
    assert "b = 1200, 3000" in str(error.value)
    assert error.value.remedy is not None
