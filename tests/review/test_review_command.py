"""`review`, and what the level of the group adds to a cohort."""

import csv

import pytest

from napari_msp.cli import main
from napari_msp.cohort.table import COLUMNS
from napari_msp.review.predictions import open_review
from napari_msp.review.ratings import Ratings

HEADER = "\t".join(COLUMNS)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        status = main([str(each) for each in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


def test_it_lists_by_risk(run, cohort, tmp_path):
    Ratings.open(cohort, "anna").rate(open_review(cohort).entries[0], "fail")
    status, out, err = run("review", cohort, "--table", tmp_path / "table.csv")
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("sub-03")
    assert "FAIL" in out.splitlines()[1]
    with (tmp_path / "table.csv").open() as file:
        assert next(csv.DictReader(file))["verdict_anna"] == "fail"
    assert not (cohort / "review" / "report.html").exists()


def test_it_writes_the_page(run, with_maps):
    status, out, _ = run("review", with_maps, "--report")
    assert status == 0
    assert out.splitlines()[-1] == str(with_maps / "review" / "report.html")


def test_damaged_predictions_are_said_and_change_the_status(run, cohort):
    image = next(cohort.rglob("sub-05*_dwi.nii.gz"))
    image.write_bytes(image.read_bytes()[:-10])
    status, out, err = run("review", cohort)
    assert status == 1
    assert err.startswith(f"napari-msp: {image}: is incomplete")
    assert "make the prediction again" in err
    assert "sub-05" not in out


def test_mistakes_are_one_line_with_a_remedy(run, cohort, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "nowhere",), "there is no such folder"),
        ((tmp_path / "empty",), "has no prediction"),
        ((cohort, "--rater", "anna"), "anna has no ratings here"),
        ((cohort, "--merge", cohort / "README"), "whose ratings"),
        ((cohort, "--table", tmp_path / "table.xlsx"), "must end in"),
    ):
        status, out, err = run("review", *arguments)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert said in err
    assert not (cohort / "review").exists()


def test_ratings_are_merged(run, cohort, tmp_path):
    entry = open_review(cohort).entries[0]
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    there = Ratings.open(laptop, "anna")
    there.rate(entry, "doubtful")
    status, out, _ = run("review", cohort, "--merge", there.path)
    assert status == 0
    assert "anna: 1 new ratings, 0 later ones; 0 left out" in out
    assert Ratings.open(cohort, "anna").state(entry) == "doubtful"


def test_a_cohort_has_the_page_too(run, with_maps):
    table = f"{HEADER}\nsub-01\tn/a\tx\tdone\t1.0\tn/a\n"
    (with_maps / "cohort.tsv").write_text(table)
    status, out, _ = run("cohort", with_maps.parent, with_maps, "group")
    assert status == 0
    assert out.splitlines()[-1] == str(with_maps / "review" / "report.html")
    (with_maps / "review" / "report.html").unlink()
    status, out, _ = run("cohort", with_maps.parent, with_maps, "group", "--no-review-maps")
    assert "report.html" not in out


def test_the_page_has_the_ratings_that_are_asked_for(run, with_maps):
    entry = open_review(with_maps).entries[0]
    for rater in ("anna", "bea"):
        Ratings.open(with_maps, rater).rate(entry, "pass", f"said by {rater}")
    run("review", with_maps, "--rater", "anna", "--report")
    page = (with_maps / "review" / "report.html").read_text("utf-8")
    assert "said by anna" in page
    assert "said by bea" not in page


def test_a_cohort_that_nobody_can_review_says_so(run, tmp_path, predict):
    table = f"{HEADER}\nsub-01\tn/a\tx\t{{}}\t1.0\tn/a\n"
    (tmp_path / "cohort.tsv").write_text(table.format("failed"))
    status, _, err = run("cohort", tmp_path.parent, tmp_path, "group")
    assert (status, err) == (1, "")  # nobody was harmonized, as it says
    (tmp_path / "cohort.tsv").write_text(table.format("done"))
    status, _, err = run("cohort", tmp_path.parent, tmp_path, "group")
    assert status == 1
    assert "has no prediction" in err
    image = predict(tmp_path, "01")
    image.write_bytes(image.read_bytes()[:-9])
    for before in ("done", "failed"):
        (tmp_path / "cohort.tsv").write_text(table.format(before))
        status, _, err = run("cohort", tmp_path.parent, tmp_path, "group")
        assert status == 1
        assert "has no prediction that can be read" in err
