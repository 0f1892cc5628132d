"""The page of a review: what it says, what it shows, and that nothing in it is run."""

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from napari_msp.errors import UserError
from napari_msp.inference.review_maps import read_review_maps
from napari_msp.review.measures import MEASURES
from napari_msp.review.pictures import cut, draw
from napari_msp.review.predictions import open_review
from napari_msp.review.ratings import AllRatings, Ratings, of_raters, read_all_ratings
from napari_msp.review.report import distribution, review_report
from napari_msp.review.table import table_csv, table_text, write_table

EVIL = """<script>document.title = 'run'</script><img src=x onerror="document.title='run'">'"&"""


class Page(HTMLParser):
    """Rows of the table, elements by name, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        if self._open in ("style", "script"):
            self.raw[self._open] = self.raw.get(self._open, "") + data
        else:
            self.text += data

    def handle_endtag(self, tag):
        self._open = ""

    def of(self, tag, **wanted):
        return [
            each
            for name, each in self.elements
            if name == tag and all(each.get(key) == value for key, value in wanted.items())
        ]


@pytest.fixture(scope="module")
def module_cohort(pristine_pictures, tmp_path_factory):
    import shutil

    root = shutil.copytree(pristine_pictures, tmp_path_factory.mktemp("report") / "predictions")
    entries = open_review(root).entries
    anna, bea = Ratings.open(root, "anna"), Ratings.open(root, "bea")
    for number, entry in enumerate(entries[:6]):
        anna.rate(entry, "fail" if number == 0 else "pass", EVIL if number == 1 else "")
        bea.rate(entry, "pass", tags=["mask", "<b>"] if number == 2 else ())
    return root


@pytest.fixture(scope="module")
def page(module_cohort):
    path = review_report(open_review(module_cohort))
    assert path == module_cohort / "review" / "report.html"
    return Page(path.read_text("utf-8"))


def test_every_prediction_has_a_row_with_its_picture(page):
    rows = page.of("tbody", **{"class": "entry"})
    assert len(rows) == 12
    assert rows[0]["data-name"] == "sub-03 ses-ge MSP prisma_st"
    pictures = [
        each for each in page.of("img") if (each["src"] or "").startswith("data:image/webp")
    ]
    assert len(pictures) == 12
    content = base64.b64decode((pictures[0]["src"] or "").partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (4 * 268, 100)


def test_the_page_needs_no_other_file_and_runs_its_own_script_alone(page):
    (policy,) = (
        each["content"]
        for each in page.of("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    for what in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[what].encode()).digest()).decode()
        assert f"{what}-src 'sha256-{digest}'" in policy
    assert len(page.of("script")) == len(page.of("style")) == 1
    for _, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        for name in ("src", "href"):
            assert re.match(r"#|data:image/webp;base64,", attributes.get(name) or "#")


def test_what_raters_wrote_is_text(page):
    assert EVIL in page.text
    assert "<b>" in page.text
    assert not page.of("img", src="x")
    assert not page.of("b", onerror="")


def test_subjects_that_are_markup_are_text(tmp_path, predict):
    image = predict(tmp_path, "01")
    sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
    content = json.loads(sidecar.read_text())
    content["Warnings"] = [EVIL]
    content["Target"] = EVIL
    content["Model"]["Title"] = EVIL
    sidecar.write_text(json.dumps(content))
    folder = tmp_path.rename(tmp_path.with_name("a<script>b"))
    page = Page(review_report(open_review(folder)).read_text("utf-8"))
    assert len(page.of("script")) == 1
    assert not page.of("img", src="x")
    assert EVIL in page.text
    assert "a<script>b" in page.text


def test_outliers_and_disagreements_are_named(page):
    assert "mask 900 ml" in page.text
    assert "SNR 8.0" in page.text
    assert "anna: fail and bea: pass" in page.text
    rows = page.of("tbody", **{"class": "entry"})
    assert rows[0]["data-status"] == "|fail|pass|raters differ|unusual|"
    assert rows[-1]["data-status"] == "|unrated|"
    assert len(page.of("circle")) == 3 * 12
    assert len(page.of("circle", **{"class": "out"})) == 2


def test_a_distribution_is_laid_out_by_value(module_cohort):
    review = open_review(module_cohort)
    numbers = {entry.key: number for number, entry in enumerate(review.entries)}
    plot = distribution(MEASURES["snr"], review, numbers)
    assert plot is not None
    (strip,) = plot.strips
    # From 8 to 26 over 444 units; the median of 20.5 … 26 without 23.5, and 8, is 23.0 + 0 / 2.
    values = sorted([8.0, *(20 + 0.5 * n for n in range(1, 13) if n != 7)])
    median = (values[5] + values[6]) / 2
    assert strip.median == pytest.approx(8 + 444 * (median - 8) / 18, abs=0.06)
    assert min(dot.x for dot in strip.dots) == 8
    assert max(dot.x for dot in strip.dots) == 452
    assert [name for *_, name in strip.labels] == ["sub-07"]
    assert (strip.low is not None, strip.high) == (True, None)  # a high SNR is no fault
    assert distribution(MEASURES["error"], review, numbers) is None


def test_pictures_show_the_right_on_the_left(module_cohort):
    entry = open_review(module_cohort).entries[0]
    picture = draw(cut(read_review_maps(entry.made_from)), 1.0, 0.002)
    assert picture.names == ("input", "prediction", "colour FA", "expected error")
    pixels = np.asarray(Image.open(io.BytesIO(picture.image)).convert("RGB")).astype(float)
    axial = pixels[:, :84].mean(axis=-1)
    # The patient's left half is the brighter one: 0.9 against 0.5 of 1.
    assert axial[50, 30] == pytest.approx(0.5 * 255, abs=12)
    assert axial[50, 54] == pytest.approx(0.9 * 255, abs=12)
    assert axial[50, 2] < 10
    coronal = pixels[:, 84:168].mean(axis=-1)
    assert coronal[50, 30] < coronal[50, 54]
    colour = pixels[50, 2 * 268 + 42]
    assert colour[0] > 3 * colour[1] + 20
    # As sure as all others, so at the upper end of its scale.
    assert pixels[50, 3 * 268 + 42].sum() > 600


def test_what_cannot_be_drawn_is_said(cohort):
    page = Page(review_report(open_review(cohort)).read_text("utf-8"))
    assert not page.of("img")
    assert "there is no such file" in page.text


def test_a_report_that_cannot_be_written_is_told_before_it_is_drawn(with_maps, monkeypatch):
    monkeypatch.setattr("napari_msp.review.report.draw_all", None)
    (with_maps / "review" / "report.html").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        review_report(open_review(with_maps))


# --- Tables -------------------------------------------------------------------------------------


def test_the_table_says_what_is_unusual_and_who_said_what(module_cohort):
    review, ratings = open_review(module_cohort), read_all_ratings(module_cohort)
    text = table_text(review, ratings)
    lines = text.splitlines()
    assert lines[0].split() == ["prediction", "risk", "SNR", "mask", "disagreement", "anna", "bea"]
    assert lines[1].startswith("sub-03 ses-ge MSP prisma_st")
    assert lines[1].split()[-2:] == ["FAIL", "pass"]
    assert lines[2].strip().startswith("mask 900 ml (−")
    assert "anna: 6 rated (5 pass, 0 doubtful, 1 fail), 6 not." in lines
    assert (
        "anna and bea: Cohen's kappa 0.00, weighted 0.00, on 6 predictions, of which 1 differ."
        in lines
    )
    alone = table_text(review, of_raters(ratings, ["bea"]))
    assert "anna" not in alone
    with pytest.raises(UserError, match="cleo has no ratings here"):
        of_raters(ratings, ["cleo"])


def test_the_table_as_csv_and_json(module_cohort, tmp_path):
    review, ratings = open_review(module_cohort), read_all_ratings(module_cohort)
    rows = list(csv.DictReader(io.StringIO(table_csv(review, ratings))))
    assert len(rows) == 12
    assert (rows[0]["subject"], rows[0]["verdict_anna"], rows[0]["error"]) == ("sub-03", "fail", "")
    assert float(rows[0]["mask_ml"]) == 900
    assert float(rows[0]["mask_ml_sd"]) == pytest.approx(review.entries[0].unusual["mask_ml"])
    write_table(tmp_path / "table.json", review, ratings)
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["entries"][1]["ratings"][0]["note"] == EVIL
    with pytest.raises(UserError, match="must end in"):
        write_table(tmp_path / "table.txt", review, ratings)


def test_few_have_no_risk(tmp_path, predict):
    predict(tmp_path, "01", {"SNR": 20.0})
    text = table_text(open_review(tmp_path), AllRatings({}))
    assert text.splitlines()[1].split()[-2:] == ["–", "20.0"]
    assert "Nothing is called unusual" in text
    review = open_review(tmp_path)
    Ratings.open(tmp_path, "anna").rate(review.entries[0], "fail")
    said = " ".join(Page(review_report(review).read_text("utf-8")).text.split())
    assert "No prediction has a warning. What is unusual cannot be said: no group" in said
    assert "Rated “fail”: sub-01 ses-ge MSP prisma_st." in said
