"""Agreement of raters against published examples and by hand."""

import json
from dataclasses import replace

import pytest

from napari_msp.evaluation.statistics import cohens_kappa, fleiss_kappa
from napari_msp.review.predictions import Review
from napari_msp.review.rating_table import Rating
from napari_msp.review.ratings import AllRatings, agreement
from napari_msp.review.table import summary, write_table


@pytest.mark.reference("Fleiss, Cohen and Everitt 1969")
def test_cohens_kappa_of_the_published_table():
    # 200 subjects, three categories.
    table = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
    found = cohens_kappa(table)
    assert found.value == pytest.approx(0.429, abs=5e-4)
    assert found.error == pytest.approx(0.0537, abs=5e-4)


def test_kappa_by_hand():
    # 35 of 50 agree; by chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5: (0.7 - 0.5) / (1 - 0.5).
    found = cohens_kappa([[20, 5], [10, 15]])
    assert (found.observed, found.expected, found.value) == pytest.approx((0.7, 0.5, 0.4))
    # 45 + 15 of 100 both times, by chance 0.54 and 0.46: a textbook pair.
    assert cohens_kappa([[45, 15], [25, 15]]).value == pytest.approx(0.06 / 0.46, abs=1e-9)
    assert cohens_kappa([[25, 35], [5, 35]]).value == pytest.approx(0.14 / 0.54, abs=1e-9)


def test_weighted_kappa_by_hand():
    # Weights 1, ½, 0. Rows 4, 3, 3 and columns 5, 3, 2 of 10.
    table = [[3, 1, 0], [1, 1, 1], [1, 1, 1]]
    observed = (3 + 1 + 1 + (1 + 1 + 1 + 1) / 2) / 10
    expected = (4 * (5 + 1.5) + 3 * (2.5 + 3 + 1) + 3 * (1.5 + 2)) / 100
    found = cohens_kappa(table, weighted=True)
    assert found.value == pytest.approx((observed - expected) / (1 - expected))


def test_full_agreement_is_one_and_constant_verdicts_have_no_kappa():
    full = cohens_kappa([[5, 0], [0, 5]])
    assert (full.value, full.error) == (1.0, 0.0)
    # As scipy.stats.binomtest(10, 10).proportion_ci() has it: 0.6915; half is by chance.
    assert full.interval == pytest.approx(((0.69150 - 0.5) / 0.5, 1), abs=1e-4)
    two = cohens_kappa([[1, 0], [0, 1]])  # of which next to nothing is known
    assert two.interval == pytest.approx((-0.684, 1), abs=1e-3)
    apart = [[1, 0, 0], [0, 0, 1], [0, 0, 0]]  # a large-sample error of two is none: 0.16
    assert cohens_kappa(apart).value == pytest.approx(1 / 3)
    assert cohens_kappa(apart).interval is None
    assert cohens_kappa([[5, 0], [0, 5]], weighted=True).interval == full.interval
    assert cohens_kappa([[0, 5], [5, 0]]).interval is None
    constant = cohens_kappa([[10, 0], [0, 0]])
    assert (constant.value, constant.observed, constant.interval) == (None, 1.0, None)
    assert cohens_kappa([[0, 0], [0, 0]]).count == 0


@pytest.mark.reference("Fleiss 1971")
def test_fleiss_kappa_of_the_worked_example():
    # Fourteen raters, ten subjects, five categories: 0.210.
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    found = fleiss_kappa(counts)
    assert found.observed == pytest.approx(0.378, abs=5e-4)
    assert found.expected == pytest.approx(0.213, abs=5e-4)
    assert found.value == pytest.approx(0.210, abs=5e-4)


def table_of(rater, verdicts, hashes=None):
    return {
        key: Rating(key, verdict=verdict, rater=rater, prediction_hash=(hashes or {}).get(key, "h"))
        for key, verdict in verdicts.items()
    }


def test_raters_are_compared_on_what_both_rated():
    anna = table_of("anna", {"a": "pass", "b": "fail", "c": "pass", "d": "doubtful", "e": None})
    bea = table_of("bea", {"a": "pass", "b": "pass", "c": "doubtful", "e": "pass", "f": "fail"})
    found = agreement(AllRatings({"anna": anna, "bea": bea}))
    (pair,) = found.pairs
    assert pair.kappa.count == 3
    assert pair.kappa == cohens_kappa([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert pair.differing == {"b": ("fail", "pass"), "c": ("pass", "doubtful")}
    # What one passes and the other fails is told first.
    assert list(found.differing) == ["b", "c"]
    assert found.all_raters is None


def test_ratings_of_different_files_are_not_compared():
    anna = table_of("anna", {"a": "pass", "b": "pass"}, {"a": "old"})
    bea = table_of("bea", {"a": "fail", "b": "pass"})
    (pair,) = agreement(AllRatings({"anna": anna, "bea": bea})).pairs
    assert (pair.kappa.count, pair.other_files, pair.differing) == (1, 1, {})


def test_three_raters_have_fleiss_kappa_too(tmp_path):
    anna = table_of("anna", {"a": "pass", "b": "fail", "c": "pass"})
    raters = {name: {k: replace(v, rater=name) for k, v in anna.items()} for name in ("a", "b")}
    raters["c"] = table_of("c", {"a": "pass", "b": "fail", "c": "fail", "d": "pass"})
    found = agreement(AllRatings(raters))
    assert len(found.pairs) == 3
    assert found.all_raters is not None
    assert found.all_raters.count == 3
    # Agreement 1, 1, 1/3; 5 of 9 passed.
    expected = (25 + 16) / 81
    assert found.all_raters.value == pytest.approx((7 / 9 - expected) / (1 - expected))
    assert found.differing == {"c": {"a": "pass", "b": "pass", "c": "fail"}}
    lines = summary(Review(tmp_path, ()), AllRatings(raters))
    assert any(line.startswith("a and c: Cohen's kappa 0.40 (−0.37 to 1.00)") for line in lines)
    assert "All raters: Fleiss' kappa 0.55 on 3 predictions." in lines
    write_table(tmp_path / "table.json", Review(tmp_path, ()), AllRatings(raters))
    written = json.loads((tmp_path / "table.json").read_text())
    assert written["fleiss_kappa"]["kappa"] == found.all_raters.value
    assert [each["raters"] for each in written["cohens_kappa"]] == [
        [*p.raters] for p in found.pairs
    ]
    ends = (written["cohens_kappa"][1]["low"], written["cohens_kappa"][1]["high"])
    assert ends == found.pairs[1].kappa.interval


def test_one_rater_agrees_with_nobody():
    found = agreement(AllRatings({"anna": table_of("anna", {"a": "pass"})}))
    assert (found.pairs, found.all_raters, found.differing) == ((), None, {})
