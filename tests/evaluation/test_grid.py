"""What the cells of Figure 3 hold: volumes, one contrast, one scale, global numbers."""

from dataclasses import replace

import numpy as np
import pytest
from perturbed import perturbed

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.grid import cells
from napari_msp.evaluation.line_up import line_up
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.signal.maps import Maps, colour_fa, sh_average


@pytest.fixture
def truth(head):
    return head("permuted")


@pytest.fixture
def predictions(truth, head):
    return {"DIQT": perturbed(head("LAS"), 0.05), "MSP": perturbed(truth, 0.02)}


@pytest.mark.parametrize("quantity", ["sh_average", "colour_fa"])
def test_cells_hold_whole_maps_and_their_global_errors(truth, predictions, quantity):
    comparison = line_up(truth, predictions)
    shown = cells(comparison, quantity, Maps(truth))
    assert [(c.name, c.kind) for c in shown.images] == [
        ("ground truth", "image"),
        ("DIQT", "image"),
        ("MSP", "image"),
    ]
    assert [(c.name, c.kind) for c in shown.maps] == [
        ("input scan", "image"),
        ("DIQT", "error"),
        ("MSP", "error"),
    ]
    values = sh_average if quantity == "sh_average" else colour_fa
    placed = comparison.predictions["DIQT"].image
    np.testing.assert_array_equal(shown.images[1].values, values(placed))
    assert shown.images[1].values.shape[:3] == shown.lattice.shape == truth.mask.shape
    error = np.square(values(placed) - values(truth))
    error = error.mean(-1) if error.ndim == 4 else error
    np.testing.assert_allclose(shown.maps[1].values[shown.maps[1].shown], error[comparison.mask])
    for name, cell in zip(predictions, shown.maps[1:], strict=True):
        metrics = measure(predictions[name], truth)
        expected = metrics.values["colour_fa_mse" if shown.coloured else "sh_average_mse"]
        assert cell.mean == pytest.approx(expected, rel=1e-5)


def test_one_contrast_from_truth_and_one_scale_from_all_errors(truth, predictions):
    shown = cells(line_up(truth, predictions), "sh_average")
    average = sh_average(truth)[truth.mask]
    assert shown.window == pytest.approx(np.percentile(average, [1, 99]))
    errors = np.concatenate([cell.values[cell.shown] for cell in shown.maps[1:]])
    assert shown.limit == pytest.approx(np.percentile(errors, 99))
    assert (shown.unit, shown.map_unit) == ("SH units", "SH units²")

    coloured = cells(line_up(truth, predictions), "colour_fa")
    fa = np.linalg.norm(colour_fa(truth)[truth.mask], axis=-1)
    assert coloured.window == pytest.approx((0, np.percentile(fa, 98)))
    assert (coloured.unit, coloured.map_unit) == ("FA", "FA²")


def test_shades_run_from_black_to_white_and_are_black_outside(truth, predictions):
    below = replace(truth, coefficients=truth.coefficients - 1 * truth.mask[..., None])
    shown = cells(line_up(below, {"a": below}), "sh_average")
    assert shown.window[1] < 0  # so that the 0 outside the mask is above white
    cell = shown.images[0]
    shades = shown.shades(cell.values, cell.shown)
    assert shades.min() == 0
    assert shades.max() == 1
    assert (shades[~truth.mask] == 0).all()


def test_the_input_keeps_its_own_voxels(head, lattice):
    coarse = head(Lattice((11, 13, 12), lattice("RAS").affine @ np.diag([2, 2, 1, 1.0])))
    shown = cells(line_up(head(), {"a": head()}), "sh_average", Maps(coarse))
    cell = shown.maps[0]
    assert cell.values.shape == head().mask.shape
    assert set(np.unique(cell.values)) <= {*np.unique(sh_average(coarse)), 0}


def test_without_truth_the_input_leads_and_disagreement_is_below(head, predictions):
    comparison = line_up(None, predictions)
    values = np.where(comparison.mask, 0.02, 0.5)
    shown = cells(comparison, "colour_fa", Maps(head()), {"MSP": values})
    assert [c.name for c in shown.images] == ["input scan", "DIQT", "MSP"]
    assert [(c.name, c.kind) for c in shown.maps] == [
        ("", "none"),
        ("DIQT", "none"),
        ("MSP", "disagreement"),
    ]
    assert shown.maps[2].mean == pytest.approx(0.02)
    assert shown.maps[2].values.max() == pytest.approx(0.02)  # 0.5 lies outside the mask
    assert shown.limit == pytest.approx(0.02)
    assert shown.map_unit == "SH units"
    bare = cells(comparison, "sh_average")
    assert [c.kind for c in (bare.images[0], *bare.maps)] == ["none"] * 4
    assert bare.limit == 1


def test_no_disagreement_is_hidden_for_the_sake_of_one_calibrated_model(head, predictions):
    comparison = line_up(None, predictions)
    spread = dict.fromkeys(predictions, np.full(comparison.mask.shape, 0.02))
    error = dict.fromkeys(predictions, np.full(comparison.mask.shape, 3e-4))
    one = {"MSP": error["MSP"]}
    mixed = cells(comparison, "sh_average", Maps(head()), spread, one)
    assert [c.kind for c in mixed.maps[1:]] == ["disagreement"] * 2
    assert mixed.limit == pytest.approx(0.02)
    assert mixed.map_unit == "SH units"
    # Both are calibrated, or nothing else is known of the other.
    both = cells(comparison, "sh_average", Maps(head()), spread, error)
    assert [c.kind for c in both.maps[1:]] == ["expected error"] * 2
    lone = cells(comparison, "sh_average", Maps(head()), {"MSP": spread["MSP"]}, one)
    assert [c.kind for c in lone.maps[1:]] == ["none", "expected error"]
    assert lone.limit == pytest.approx(3e-4)
    assert lone.map_unit == "SH units²"


def test_a_perfect_prediction_has_a_scale_too(truth):
    shown = cells(line_up(truth, {"a": truth}), "sh_average")
    assert shown.maps[1].mean == 0
    assert shown.limit == 1
