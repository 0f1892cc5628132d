"""Drawn studies find what Student's t test is known to find."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, ttest_ind
from scipy.stats import t as t_distribution

from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.results import TARGET_SCAN, EffectResult, RegionValue, Results
from napari_msp.evaluation.proof.make_pages import with_derived
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    COMBAT_OF_REGIONS,
    MEAN_OF_OTHERS,
    TARGET,
    ProofData,
)
from napari_msp.evaluation.proof.two_groups import (
    COLUMNS,
    group_page,
    group_rows,
    group_tables,
)
from napari_msp.evaluation.proof.two_groups_numbers import (
    COVARIATE,
    UNCHANGED,
    _on_input,
    _test,
    group_difference,
)

REGIONS = ("front", "back")
SPREAD = 0.05


def people(count=400, seed=1):
    """Values of people: 1 on average, and of the spread that is wanted."""
    values = np.random.default_rng(seed).standard_normal((count, 2))
    return 1 + SPREAD * (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)


def power_of(shift, size=10):
    """How often a t test of two groups finds a shift in standard deviations, in its direction."""
    freedom = 2 * size - 2
    critical = t_distribution.ppf(0.975, freedom)
    return nct.sf(critical, freedom, shift * np.sqrt(size / 2))


def of(found, design, row):
    return [each for each in found.studies if (each.design, each.row) == (design, row)]


@pytest.fixture(scope="module")
def shifted():
    """The input adds 1.5 deviations.

    One method takes them away, another takes nothing, a third takes half of an effect with them.
    """
    target = people()
    source = target + 1.5 * SPREAD
    predicted = {"perfect": target, "idle": source, "half": target}
    return group_difference(source, target, predicted, REGIONS, kept={"half": 0.5})


def test_where_there_is_no_effect_the_rate_is_nominal():
    target = people()
    found = group_difference(target, target, {}, REGIONS, effect=0.0)
    assert len(found.studies) == 2 * 6
    for each in found.studies:
        assert each.false_positives.value == pytest.approx(0.05, abs=0.02)
        assert each.power.value == pytest.approx(0.025, abs=0.015)
        low, high = each.false_positives.interval
        assert low <= 0.05 <= high + 0.01


def test_power_on_one_scanner_is_that_of_the_t_test(shifted):
    for each in of(shifted, "one scanner", TARGET):
        assert each.power.value == pytest.approx(power_of(1.0), abs=0.05)
        assert each.power.interval[0] < power_of(1.0) < each.power.interval[1]
        assert each.reversed_.value < 0.01


def test_scanners_that_are_confounded_with_groups_give_false_alarms(shifted):
    for row in (UNCHANGED, "idle"):
        for each in of(shifted, "confounded", row):
            assert each.false_positives.value == pytest.approx(power_of(1.5), abs=0.04)
            assert each.power.value < 0.01  # the scanner hides the effect …
            assert each.reversed_.value > 0.1  # … or turns it round
    for each in of(shifted, "confounded", "perfect"):
        assert each.false_positives.value == pytest.approx(0.05, abs=0.02)


def test_balanced_scanners_cost_power_unless_they_are_a_covariate(shifted):
    rates = [
        np.mean([each.power.value for each in of(shifted, "balanced", row)])
        for row in (UNCHANGED, COVARIATE, "perfect")
    ]
    assert rates[0] < rates[1] - 0.1
    assert rates[1] == pytest.approx(rates[2], abs=0.04)
    for row in (UNCHANGED, COVARIATE):
        for each in of(shifted, "balanced", row):
            assert each.false_positives.value < 0.07


def test_groups_that_are_confounded_in_part_give_fewer_false_alarms(shifted):
    partly, wholly = (
        np.mean([e.false_positives.value for e in of(shifted, design, UNCHANGED)])
        for design in ("partly confounded", "confounded")
    )
    # Eight of ten against two of ten: the groups are 0.6 of the shift apart, and spread more.
    spread = np.sqrt(1 + 1.5**2 * 0.8 * 0.2 * 20 / 18)
    assert partly == pytest.approx(power_of(0.6 * 1.5 / spread), abs=0.05)
    assert 0.15 < partly < wholly - 0.2
    for each in of(shifted, "partly confounded", COVARIATE):
        assert each.false_positives.value == pytest.approx(0.05, abs=0.03)
    tables = group_tables(shifted, "FA")
    assert "partly confounded: 80 % of patients on the input platform" in tables[0].caption
    where = _on_input("partly confounded")
    assert (where[:10].sum(), where[10:].sum()) == (8, 2)


def test_what_a_method_keeps_of_an_effect_decides_its_power(shifted):
    for row, part in (("half", 0.5), ("perfect", 1.0)):
        for each in of(shifted, "confounded", row):
            assert each.power.value == pytest.approx(power_of(part), abs=0.06)


def test_the_tests_are_scipys_and_least_squares():
    rng = np.random.default_rng(4)
    scans = rng.standard_normal((300, 8, 2)) + np.r_[np.zeros(4), np.ones(4)][:, None]
    expected = ttest_ind(scans[:, :4], scans[:, 4:], axis=1)
    wanted = np.where(expected.pvalue < 0.05, np.sign(expected.statistic), 0)
    np.testing.assert_array_equal(_test(scans, None), wanted)
    assert 0.1 < (wanted != 0).mean() < 0.9

    for scanner in (np.arange(8) % 2 == 0, np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)):
        design = np.column_stack([np.ones(8), np.arange(8) < 4, scanner]).astype(float)
        inverse = np.linalg.inv(design.T @ design)
        for study, found in zip(scans, _test(scans, scanner), strict=True):
            fitted = inverse @ design.T @ study
            error = np.square(study - design @ fitted).sum(axis=0) / 5
            t = fitted[1] / np.sqrt(error * inverse[1, 1])
            critical = t_distribution.ppf(0.975, 5)
            np.testing.assert_array_equal(found, np.sign(t) * (np.abs(t) > critical))


def test_few_people_make_wide_intervals_and_a_note():
    target = people(24, 3)
    source = target + SPREAD * np.random.default_rng(5).normal(1, 1, target.shape)
    few = group_difference(source, target, {}, REGIONS, draws=200)
    many = group_difference(people() + SPREAD, people(), {}, REGIONS, draws=200)
    widths = [
        np.mean(
            [np.ptp(each.false_positives.interval) for each in of(found, "confounded", UNCHANGED)]
        )
        for found in (few, many)
    ]
    assert widths[0] > 1.2 * widths[1]
    assert few.notes == ("24 people, fewer than 40: drawn studies share most of their people",)
    assert many.notes == ()
    fewest = people(20, 3)  # every study has all of them: what is open is how often it was drawn
    drawn = group_difference(fewest + SPREAD, fewest, {}, REGIONS, draws=200)
    for each in drawn.studies:
        rate = each.power.value
        low, high = max(rate - (r := 1.96 * np.sqrt(rate * (1 - rate) / 200)), 0), min(rate + r, 1)
        assert each.power.interval == pytest.approx((low, high))


def test_what_cannot_be_compared_is_said():
    target = people(30)
    with pytest.raises(UserError, match="10 against 10 need 20 people, and 12 were measured"):
        group_difference(target[:12], target[:12], {}, REGIONS)
    holed = target.copy()
    holed[3, 1] = np.nan
    with pytest.raises(UserError, match="back has no value of holed in somebody"):
        group_difference(target, target, {"holed": holed}, REGIONS)
    with pytest.raises(ValueError, match="2 regions"):
        group_difference(target, target, {"less": target[:, :1]}, REGIONS)
    for effect in (5, -0.05):
        with pytest.raises(UserError, match=r"0\.05 for 5 percent lower"):
            group_difference(target, target, {}, REGIONS, effect=effect)
    with pytest.raises(UserError, match="values that are no numbers"):
        group_difference(np.full((30, 2), "high"), target, {}, REGIONS)
    twice, as_tables = np.vstack([target, target]), pd.DataFrame(target, columns=list(REGIONS))
    said = "30 of 60 people have the values of another: are they the same?"
    assert said in group_difference(twice, twice, {}, REGIONS, draws=10).notes
    assert group_difference(as_tables, as_tables, {}, REGIONS, draws=10).notes == (
        group_difference(target, target, {}, REGIONS, draws=10).notes
    )
    flat = np.column_stack([target[:, 0], np.ones(30)])
    found = group_difference(flat, flat, {}, REGIONS, draws=50)
    assert "back is the same in everybody: nothing is tested" in found.notes
    assert {each.region for each in found.studies} == {"front"} == set(found.spread)


def test_tables_tell_false_alarms_first_and_the_spread_beside_the_literature(shifted):
    tables = group_tables(shifted, "FA", 10)
    assert "groups that do not differ" in tables[0].caption
    assert "5 % lower" in tables[1].caption
    assert "confounded: patients on the input platform" in tables[0].caption
    told = {(row[0].main, row[1].main): row[2].main for row in tables[1].rows}
    assert told["confounded", UNCHANGED] == "–"  # with so many false alarms it is no power
    assert float(told["confounded", "perfect"]) > 40
    assert "below 10 % in tracts of 8 adults (Heiervang 2006)" in tables[-1].caption
    assert tables[-1].rows[0][1].main == f"{100 * SPREAD:.1f}"
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    rows = group_rows(shifted, "fa")
    assert len(rows) == 3 * len(shifted.studies)
    assert all(len(row) == len(COLUMNS) for row in rows)


# --- The page --------------------------------------------------------------------------------


@pytest.fixture
def few_draws(monkeypatch):
    """Draw a tenth of the studies, which is enough to see which rows raise false alarms."""
    drawn = partial(group_difference, draws=100)
    monkeypatch.setattr("napari_msp.evaluation.proof.two_groups.group_difference", drawn)


def measured(people, taught=0):
    """FA of a study whose input adds 1.5 deviations, and of people who teach."""
    rng = np.random.default_rng(8)
    rows = []
    for number in range(people + taught):
        reference = "training" if number >= people else "scan"
        for region, own in zip(REGIONS, 0.5 + 0.02 * rng.standard_normal(2), strict=True):
            of = {TARGET: own, BEFORE: own + 0.03 + 0.001 * rng.standard_normal()}
            if reference == "scan":
                of["MSP"] = of["ComBat"] = own
            where = ("prisma_st", "heads", 0, f"sub-{number}", reference, region, "fa")
            rows += [RegionValue(row, *where, value) for row, value in of.items()]
    return with_derived(ProofData(Results(rows), "ge_st", "made up"))


def test_a_page_is_made_of_enough_people_and_says_false_alarms_first(few_draws):
    page = group_page(measured(24, taught=3))
    assert "FA on prisma_st, groups confounded with scanners: false alarms" in page.lead[0]
    rows = page.files["group_difference"].rows
    rates = {
        (r[2], r[4]): float(str(r[5])) for r in rows if r[1] == "confounded" and r[3] == "front"
    }
    assert rates[UNCHANGED, "false_positive"] > 0.5
    assert rates["MSP", "false_positive"] < 0.1
    assert rates[COMBAT_OF_REGIONS, "false_positive"] < 0.1
    assert rates[MEAN_OF_OTHERS, "power"] < 0.1 < rates["MSP", "power"]
    assert any("fewer than 40" in each for each in page.limits)
    assert group_page(measured(19)) is None


def test_what_is_known_of_biology_is_what_a_row_keeps_of_the_effect(few_draws):
    effects = [
        EffectResult(
            row, "prisma_st", "heads", 0, f"sub-{n}", "noise-free", "weaker bundle", -0.02,
            -0.02 * part,
        )
        for row, part in (("MSP", 0.5), (TARGET_SCAN, 1.0))
        for n in range(3)
    ]  # fmt: skip
    page = group_page(replace(measured(24, taught=3), effects=Results(effects)))
    power = {
        r[2]: r[5]
        for r in page.files["group_difference"].rows
        if r[1:5:3] == ("confounded", "power")
    }
    assert float(str(power["MSP"])) < 0.6 * float(str(power["ComBat"]))
    assert (
        "FA on prisma_st: the part of the effect that was kept (weaker bundle): MSP 0.50."
        in page.limits
    )


def test_what_one_person_lacks_leaves_out_as_little_as_can_be_and_is_said(few_draws):
    whole = measured(24)

    def without(*lacking):
        gone = {(row, f"sub-{who}", region) for row, who, region in lacking}
        kept = [v for v in whole.values if (v.method, v.subject, v.region) not in gone]
        page = group_page(replace(whole, values=Results(kept)))
        found = {(r[2], r[3]) for r in page.files["group_difference"].rows}
        return found, " ".join(page.limits), page

    found, said, page = without(("MSP", 3, "back"))
    assert ("MSP", "front") in found and ("MSP", "back") not in found
    assert ("ComBat", "back") in found and (UNCHANGED, "back") in found
    assert "back of MSP is left out (no value in heads sub-3)" in said
    # The studies are those of everybody: other rows' numbers stay as they were.
    before = {r[1:5]: r[5] for r in group_page(whole).files["group_difference"].rows}
    rows = page.files["group_difference"].rows
    assert all(before[r[1:5]] == r[5] for r in rows)

    found, said, _ = without((TARGET, 3, "back"))
    assert {region for _, region in found} == {"front"}
    assert f"back is left out (no value of {TARGET} in heads sub-3)" in said

    found, said, page = without(("MSP", 3, "front"), ("MSP", 3, "back"))
    assert ("MSP", "back") in found
    assert "left out of all rows: heads sub-3 (no value of MSP)" in said
    assert "drawn from 23 people" in page.tables[0].caption

    found, said, _ = without(*(("MSP", who, where) for who in range(9) for where in REGIONS))
    assert "MSP" not in {row for row, _ in found} and ("ComBat", "back") in found
    assert "MSP is left out (no value of it in heads sub-0, heads sub-1, heads sub-2 and 6" in said
