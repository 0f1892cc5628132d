"""Recovered effects against arithmetic and SciPy's bootstrap; effects put into heads."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from napari_msp.data.phantom.changes import Atrophy
from napari_msp.data.phantom.platforms import lattice_for, platform_named
from napari_msp.data.phantom.simulate import DatasetRecipe, simulate
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.make_plan import RowLeftOut, make_plan
from napari_msp.evaluation.benchmark.results import TARGET_SCAN, EffectResult, Results
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.evaluation.biology import (
    EFFECTS,
    LESION,
    check_same_head,
    effect_in,
    recovery,
    region_of,
)
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.evaluation.report.tables import effect_tables
from napari_msp.signal.maps import Maps


def test_a_scaled_effect_is_recovered_by_its_scale():
    true = np.array([-0.03, -0.02, -0.025, -0.04])
    result = recovery(true, 0.8 * true)
    assert (result.ratio, *(result.interval or ())) == pytest.approx((0.8, 0.8, 0.8))
    two = recovery(true[:2], [-0.03, -0.01])
    assert two.ratio == pytest.approx(0.8)  # a mean over a mean, not of ratios
    assert two.interval is None


@pytest.mark.reference("scipy")
def test_interval_is_scipys_percentile_bootstrap():
    rng = np.random.default_rng(1)
    true = rng.normal(-0.03, 0.004, 9)
    recovered = 0.9 * true + rng.normal(0, 0.004, 9)
    result = recovery(true, recovered)
    assert result.ratio == pytest.approx(recovered.mean() / true.mean())
    assert result.interval is not None
    reference = scipy.stats.bootstrap(
        (recovered, true),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
    ).confidence_interval
    width = result.interval[1] - result.interval[0]
    assert result.interval == pytest.approx(tuple(reference), abs=0.1 * width)


@pytest.mark.parametrize(
    "effects", [([], []), ([0.1, -0.1], [0.1, 0.2]), ([0.1, 0.2], [np.nan, 0.1])]
)
def test_without_an_effect_there_is_no_ratio(effects):
    with pytest.raises(ValueError, match="effect"):
        recovery(*effects)


def test_an_effect_is_the_mean_change_in_its_region(head):
    before = head()
    after = replace(before, coefficients=before.coefficients.copy())
    where = before.mask & (np.indices(before.mask.shape)[0] < 11)
    after.coefficients[where, 0] *= np.float32(0.9)  # a lower signal, so water moves more
    images = Maps(before), Maps(after)
    lesion = EFFECTS["lesion"]
    change = images[1]["md"][where].astype(float) - images[0]["md"][where]
    assert effect_in(lesion, *images, where, 0) == pytest.approx(change.mean())
    assert effect_in(lesion, *images, before.mask & ~where, 0) == 0
    assert np.isnan(effect_in(lesion, *images, np.zeros_like(where), 0))
    # Per year: heads age by 10 to 40.
    age = EFFECTS["age trend"]
    for number, years in ((0, 10), (3, 40), (4, 10)):
        whole = effect_in(replace(age, per=lambda number: 1.0), *images, where, number)
        assert effect_in(age, *images, where, number) == pytest.approx(whole / years)


def test_a_head_that_is_another_one_is_refused(head):
    before = head()
    ill = replace(before, coefficients=before.coefficients.copy())
    ill.coefficients[:8] *= np.float32(1.2)
    check_same_head(before, ill, LESION, "sub-01")
    other = replace(before, coefficients=before.coefficients + np.float32(0.01))
    with pytest.raises(UserError, match="sub-01: is not the simulated head"):
        check_same_head(before, other, LESION, "sub-01")
    check_same_head(before, other, Atrophy(), "sub-01")  # which changes every voxel
    moved = replace(before, affine=before.affine + 1)
    with pytest.raises(UserError, match="simulate heads again"):
        check_same_head(before, moved, Atrophy(), "sub-01")


def test_regions_move_with_the_head():
    still, moved = DatasetRecipe("tiny", 3, 0.0), DatasetRecipe("tiny", 3, 3.0)
    lattice = lattice_for("tiny", platform_named("prisma_st"))
    places = []
    for recipe in (still, moved):
        region = region_of(EFFECTS["lesion"], recipe, 1, "prisma_st", lattice)
        places.append(lattice.affine[:3] @ np.append(np.argwhere(region).mean(axis=0), 1))
    subject, pose = moved.lies(1, "prisma_st")
    expected = pose.from_head(subject.from_template(np.array([LESION.centre]).T))[:, 0]
    assert np.linalg.norm(places[1] - expected) < 0.6
    assert np.linalg.norm(places[1] - places[0]) > 1.5


def test_the_table_says_what_was_put_in_and_what_is_left():
    def rows(method, share):
        return [
            EffectResult(
                method, "prisma_st", "heads", 0, f"sub-{n}", "noise-free", "lesion", true, each
            )
            for n, true in enumerate((2e-4, 4e-4, 6e-4))
            for each in [share * true]
        ]

    (table,) = effect_tables(Results([*rows("MSP", 0.95), *rows("smoother", 0.5)]))
    assert table.columns == ["method", "lesion"]
    cells = [[cell.main for cell in row] for row in table.rows]
    assert cells == [["put in, mean", "0.0004"], ["MSP", "0.95"], ["smoother", "0.50"]]
    assert table.rows[1][1].more == "[0.95, 0.95]"
    assert "n = 3" in table.caption
    # Where folds overlap, nothing speaks of how sure it is.
    (alone,) = effect_tables(Results(rows("MSP", 0.95)), overlapping=True)
    assert alone.rows[1][1].more == ""
    assert "folds overlap" in alone.caption
    # Datasets are shown one by one.
    others = [replace(row, dataset="heads-2") for row in rows("MSP", 0.7)]
    two = effect_tables(Results([*rows("MSP", 0.95), *others]))
    assert [each.rows[1][1].main for each in two] == ["0.95", "0.70"]


def test_effects_are_put_into_simulated_heads_only(heads, tmp_path):
    with pytest.raises(UserError, match="not known to be simulated") as raised:
        evaluate(heads, tmp_path / "out", methods=["no harmonization"], biology=True, workers=1)
    assert raised.value.field == "biology"
    assert not (tmp_path / "out").exists()


def test_what_was_made_elsewhere_has_no_row_of_biology(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_msp.evaluation.benchmark.make_plan.recipe_of", lambda path: DatasetRecipe
    )
    (tmp_path / "made").mkdir()
    asked = EvaluationSettings(predictions={"MSP": tmp_path / "made"}, biology=True)
    # The folder is empty, which is the next thing that is said.
    with pytest.warns(RowLeftOut, match="MSP was made elsewhere"), pytest.raises(UserError):
        make_plan([heads], asked)


@pytest.mark.slow
def test_effects_are_found_in_the_targets_scan_and_weakened_in_the_inputs(tmp_path):
    simulate(tmp_path / "heads", subjects=1, size="tiny", seed=3)
    asked = EvaluationSettings(
        methods=("no harmonization",), targets=("prisma_st",), biology=True, fibres=True
    )
    evaluate(tmp_path / "heads", tmp_path / "out", asked, workers=1)
    with (tmp_path / "out" / "biology.csv").open() as file:
        found = {(row["method"], row["effect"]): row for row in csv.DictReader(file)}
    assert {effect for _, effect in found} == set(EFFECTS)
    for (method, effect), row in found.items():
        ratio = float(row["value"]) / float(row["true"])
        if method == TARGET_SCAN:
            assert ratio == pytest.approx(1, abs=0.1), effect
        else:
            assert 0.4 < ratio < 1.2, effect
    assert float(found["no harmonization", "weaker bundle"]["true"]) == pytest.approx(
        -0.03, abs=0.01
    )
    assert "Biology put in" in (tmp_path / "out" / "report.html").read_text()
    # And how these heads' fibres run is known.
    assert "simulated fibres" in (tmp_path / "out" / "measures.csv").read_text()
