"""What Table 1 says: means over subjects and their spreads, one method against every other."""

import numpy as np
import pytest
import scipy.stats

from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.analysis import (
    FEW_HEADS,
    MethodTest,
    analyse,
    compare_methods,
    summarise,
)
from napari_msp.evaluation.benchmark.results import FLOOR, PatchResult, Result, Results
from napari_msp.evaluation.measures.catalogue import MEASURES
from napari_msp.evaluation.report.report import findings
from napari_msp.evaluation.report.tables import Tables, pvalue_tables
from napari_msp.evaluation.statistics import mean_interval

NO_PATCHES = Results[PatchResult]([])


# --- Means over subjects ------------------------------------------------------------------------

# Two subjects; the first dataset with three seeds, the second with the first seed only.
VALUES = {
    ("one", 0): (1.0, 3.0),
    ("one", 1): (2.0, 4.0),
    ("one", 2): (6.0, 8.0),
    ("two", 0): (10.0, 12.0),
}


def cross(gain=1.0, method="MSP", values=VALUES):
    return [
        Result(method, "t", dataset, seed, subject, "scan", "m", gain * value)
        for (dataset, seed), pair in values.items()
        for subject, value in zip(("sub-01", "sub-02"), pair, strict=True)
    ]


def test_a_subject_counts_once_however_often_it_was_predicted():
    summary = summarise(Results(cross()))["MSP", "t", "scan", "m"]
    subjects = [3.0, 5.0, 10.0, 12.0]  # averaged over seeds first
    assert summary.subjects == 4
    assert summary.mean == pytest.approx(7.5)
    assert summary.deviation == pytest.approx(np.std(subjects, ddof=1))
    assert summary.interval == mean_interval(subjects)


def test_spreads_are_taken_where_runs_can_be_compared():
    summary = summarise(Results(cross()))["MSP", "t", "scan", "m"]
    assert (summary.datasets, summary.seeds) == (2, 3)
    assert summary.dataset_spread == pytest.approx(np.std([2, 11], ddof=1))  # at seed 0
    assert summary.seed_spread == pytest.approx(np.std([2, 3, 7], ddof=1))  # on dataset "one"


def test_spreads_do_not_hang_on_the_order_of_runs():
    turned = dict(reversed(VALUES.items()))
    one, other = (summarise(Results(cross(values=v))) for v in (VALUES, turned))
    key = ("MSP", "t", "scan", "m")
    assert one[key].dataset_spread == other[key].dataset_spread
    assert one[key].seed_spread == other[key].seed_spread


def test_a_mean_of_fewer_subjects_than_others_is_neither_best_nor_set_beside_them():
    """The method failed on the hard head: its mean is lower for want of that head alone."""
    errors = {"no harmonization": (7.0, 74.0), "MSP": (6.5,), FLOOR: (1.0, 2.0)}
    rows = [
        Result(method, "t", "d", 0, subject, "scan", key, value)
        for method, values in errors.items()
        for subject, value in zip(("sub-01", "sub-02"), values, strict=False)
        for key in ("sh_mse", "patch_mse")
    ]
    tables = Tables.of(analyse(Results(rows), NO_PATCHES, None), MEASURES)
    for table in (
        *tables.headline,
        *(each for others in tables.others.values() for each in others),
    ):
        cells = {row[0].main: row[1] for row in table.rows}
        assert cells["MSP"].more == "n = 1" and not cells["MSP"].bold
        assert cells["no harmonization"].bold and "n =" not in cells["no harmonization"].more
        assert FLOOR not in {name for name, cell in cells.items() if cell.bold}
        assert "n of its own is of fewer subjects" in table.caption


def test_a_column_of_fewer_subjects_says_so():
    rows = [
        Result(method, target, "d", 0, f"sub-0{number}", "scan", key, float(number))
        for method in ("no harmonization", "MSP")
        for target, count in (("prisma_st", 2), ("connectom_st", 3))
        for number in range(1, count + 1)
        for key in ("sh_mse", "patch_mse")
    ]
    tables = Tables.of(analyse(Results(rows), NO_PATCHES, None), MEASURES)
    assert "mean (sd) over 2 to 3 subjects" in tables.headline[0].caption
    for table in (*tables.headline, *(each for found in tables.others.values() for each in found)):
        assert table.columns == ["method", "prisma_st (n = 2)", "connectom_st (n = 3)"]
    alike = [row for row in rows if row.subject != "sub-03"]
    [table] = Tables.of(analyse(Results(alike), NO_PATCHES, None), MEASURES).headline
    assert "mean (sd) over 2 subjects" in table.caption
    assert table.columns == ["method", "prisma_st", "connectom_st"]


def test_one_run_has_no_spread_and_one_subject_no_interval():
    summary = summarise(Results(cross()[:1]))["MSP", "t", "scan", "m"]
    assert summary.mean == 1
    for nothing in (
        summary.deviation,
        summary.interval,
        summary.dataset_spread,
        summary.seed_spread,
    ):
        assert nothing is None


def test_the_best_is_nearest_to_zero_and_no_floor():
    rows = cross() + cross(-0.5, "biased") + cross(0.1, FLOOR)
    best = {key[0]: summary.best for key, summary in summarise(Results(rows)).items()}
    assert best == {"MSP": False, "biased": True, FLOOR: False}


# --- One method against every other --------------------------------------------------------------


@pytest.fixture(scope="module")
def tests(evaluation) -> list[MethodTest]:
    return compare_methods(evaluation[0], evaluation[1], "MSP")


def test_families_are_apart_and_counted(tests):
    families = [(test.level, test.reference) for test in tests]
    assert list(dict.fromkeys(families)) == [
        ("subject", "scan"), ("subject", "noise-free"), ("patch", "scan"),
    ]  # fmt: skip
    # Three other methods on two targets; the floor is nobody's rival.
    assert all(families.count(family) == 6 for family in families)
    assert {test.comparisons for test in tests} == {6}
    assert FLOOR not in {test.second for test in tests}
    assert {test.first for test in tests} == {"MSP"}


@pytest.mark.reference("SciPy")
def test_subjects_are_averaged_over_seeds_and_paired_by_name(evaluation):
    results, patches = evaluation
    shuffled = Results(np.random.default_rng(0).permutation(np.array(results.rows, dtype=object)))
    test = next(
        each
        for each in compare_methods(shuffled, patches, "MSP")
        if (each.level, each.reference, each.target, each.second)
        == ("subject", "scan", "prisma_st", "SHResNet")
    )
    means = {
        method: [
            np.mean(
                [
                    row.value
                    for row in results.select(
                        method=method, target="prisma_st", measure="sh_mse", reference="scan",
                        dataset=dataset, subject=subject,
                    )
                ]
            )
            for dataset, subject in results.groups("dataset", "subject")
        ]
        for method in ("MSP", "SHResNet")
    }  # fmt: skip
    expected = scipy.stats.wilcoxon(means["MSP"], means["SHResNet"], method="exact")
    assert test.test.pairs == 18
    assert test.test.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert test.test.corrected_p_value == pytest.approx(min(1, 6 * expected.pvalue), rel=1e-9)
    change = 100 * (np.mean(means["MSP"]) / np.mean(means["SHResNet"]) - 1)
    assert test.change == pytest.approx(change)
    assert test.interval is not None
    assert test.interval[0] < change < test.interval[1] < 0
    assert test.significant


def test_patches_pair_within_subjects_and_have_no_interval(tests):
    patch = [each for each in tests if each.level == "patch"]
    assert {each.test.pairs for each in patch} == {18 * 3}
    assert {each.interval for each in patch} == {None}


def test_patches_of_few_heads_have_no_p_value(evaluation):
    one = Results([r for r in evaluation[1] if r.subject == evaluation[1].rows[0].subject])
    tests = [e for e in compare_methods(evaluation[0], one, "MSP") if e.level == "patch"]
    assert {(e.test.p_value, e.test.note, e.significant) for e in tests} == {
        (None, FEW_HEADS, False)
    }
    (table,) = pvalue_tables(tests)
    assert FEW_HEADS in table.caption
    assert not any(cell.bold or "p " in cell.more for row in table.rows for cell in row)


def test_a_subject_that_one_method_lacks_is_left_out():
    rows = [
        Result(method, "t", "d", 0, f"sub-{i}", "scan", "sh_mse", error + i)
        for method, error, count in (("MSP", 1.0, 8), ("other", 2.0, 7))
        for i in range(count)
    ]
    (test,) = compare_methods(Results(rows), NO_PATCHES, "MSP")
    assert test.test.pairs == 7
    assert test.test.p_value == 2 / 2**7
    assert test.test.rank_biserial == -1
    assert (test.first_mean, test.second_mean) == (4.0, 5.0)
    assert test.change == pytest.approx(-20)


def test_methods_without_error_are_said_to_have_none_and_share_the_lowest():
    rows = [
        Result(method, target, "d", 0, f"sub-{i}", "scan", "sh_mse", error * (i + 1))
        for i in range(7)
        for method, target, error in (
            ("MSP", "a", 0.0), ("copy", "a", 0.0), ("MSP", "b", 2.0), ("copy", "b", 0.0),
            ("MSP", "c", 1.0), ("copy", "c", 1.0),
        )
    ]  # fmt: skip
    tests = compare_methods(Results(rows), NO_PATCHES, "MSP")
    assert [each.change for each in tests] == [None, None, 0.0]
    (sentence,) = findings(tests)
    assert sentence == (
        "Against the scans, MSP has the lowest mean SH MSE on 2 of 3 targets (as low as another's "
        "on 2). Beside the best other method: a copy has no error, nor has MSP; b copy has no "
        "error; c +0.0 % [0.0, 0.0] against copy."
    )
    (table,) = pvalue_tables(tests)
    assert [cell.more for cell in table.rows[0][1:3]] == ["copy has no error"] * 2


def test_a_method_that_was_not_measured_is_refused(evaluation):
    with pytest.raises(UserError, match=r"HNED: was not measured.* alignment, SHResNet"):
        compare_methods(evaluation[0], evaluation[1], "HNED")


def test_findings_name_the_strongest_rival(tests, evaluation):
    scan, twins = findings(tests)
    assert scan.startswith("Against the scans, MSP has the lowest mean SH MSE on 2 of 2 targets.")
    assert twins.startswith("Against the noise-free twins")
    assert scan.count("against <b>|single") == 2
    assert "alignment" not in scan
    lost = findings(compare_methods(evaluation[0], evaluation[1], "alignment"))
    assert "alignment has the lowest mean SH MSE on 0 of 2 targets" in lost[0]
    assert "prisma_st +" in lost[0]
