"""Ratings: what is written, what comes back, and what is never lost."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msp.errors import Choose, Give, UserError
from napari_msp.review.predictions import open_review
from napari_msp.review.rating_table import COLUMNS, Rating, read_ratings, table_of
from napari_msp.review.ratings import Ratings, merge_ratings, read_all_ratings


@pytest.fixture
def entries(cohort):
    return sorted(open_review(cohort).entries, key=lambda entry: entry.key)


def test_a_rating_is_on_the_disk_when_it_is_given(cohort, entries):
    Ratings.open(cohort, "anna").rate(entries[0], "fail", "ringing", ["ringing", "motion"])
    again = Ratings.open(cohort, "anna").of(entries[0])
    assert (again.verdict, again.note, again.tags) == ("fail", "ringing", ("ringing", "motion"))
    assert (again.rater, again.model_hash) == ("anna", "ab" * 32)
    assert again.prediction_hash == entries[0].prediction_hash
    assert again.time.endswith("Z")
    assert again.software.startswith("napari-msp ")
    assert {path.name for path in (cohort / "review").iterdir()} == {
        "rater-anna_ratings.tsv",
        "rater-anna_ratings.json",
    }


def test_nothing_is_written_before_the_first_rating(cohort):
    Ratings.open(cohort, "anna")
    assert not (cohort / "review").exists()


def test_the_dictionary_describes_every_column(cohort, entries):
    Ratings.open(cohort, "anna").rate(entries[0], "pass")
    told = json.loads((cohort / "review/rater-anna_ratings.json").read_text())
    with (cohort / "review/rater-anna_ratings.tsv").open() as file:
        header = file.readline().rstrip("\n").split("\t")
    assert list(told) == header == list(COLUMNS)
    assert set(told["verdict"]["Levels"]) == {"pass", "fail", "doubtful"}


def test_ratings_go_on_and_take_each_others_place(cohort, entries):
    first = Ratings.open(cohort, "anna")
    first.rate(entries[0], "pass", "good")
    second = Ratings.open(cohort, "anna")
    second.rate(entries[1], "doubtful")
    second.rate(entries[0], "fail")
    known = read_ratings(second.path)
    assert {key: each.verdict for key, each in known.items()} == {
        entries[0].key: "fail",
        entries[1].key: "doubtful",
    }
    assert known[entries[0].key].note == "good"  # kept while nobody changes it


def test_a_note_alone_is_no_verdict(cohort, entries):
    ratings = Ratings.open(cohort, "anna")
    ratings.annotate(entries[0], note="look again")
    assert ratings.state(entries[0]) == "unrated"
    assert Ratings.open(cohort, "anna").of(entries[0]).note == "look again"
    ratings.rate(entries[0], "pass")
    ratings.annotate(entries[0], tags=["mask"])
    rated = Ratings.open(cohort, "anna").of(entries[0])
    assert (rated.verdict, rated.note, rated.tags) == ("pass", "look again", ("mask",))


def test_undo_goes_back_step_by_step(cohort, entries):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "pass")
    ratings.rate(entries[0], "fail")
    ratings.rate(entries[1], "fail")
    assert ratings.undo() == entries[1].key
    assert ratings.of(entries[1]) is None
    assert ratings.undo() == entries[0].key
    assert ratings.of(entries[0]).verdict == "pass"
    assert ratings.undo() == entries[0].key
    assert ratings.undo() is None
    assert read_ratings(ratings.path) == {}


def test_a_prediction_made_again_is_told(cohort, entries, predict):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "fail", "mask cut", ["mask"])
    predict(cohort, "01", seed=99)
    entry = open_review(cohort)[entries[0].key]
    assert ratings.state(entry) == "remade"
    # What was said of another file is not said of this one.
    rated = ratings.rate(entry, "pass")
    assert (rated.note, rated.tags, ratings.state(entry)) == ("", (), "pass")


# --- Any text -----------------------------------------------------------------------------------

AWKWARD = [
    'a\ttab, a\nline, a\r\nline, "quotes", \\ and \\n',
    '"',
    "n/a",
    "",
    " spaces ",
    "Ängström · 中文 · \U0001f9e0 · e\u0301 · \u202ertl",
    "\u2028\u2029\x85\x0b\x0c\x00\ud800",
    "=1+1",
    "\\u0041",
    "#",
]


@pytest.mark.parametrize("note", AWKWARD)
def test_any_note_comes_back(cohort, entries, note):
    Ratings.open(cohort, "anna").rate(entries[0], "pass", note, [note + "x;y", "b"])
    table = cohort / "review/rater-anna_ratings.tsv"
    assert len(table.read_text("utf-8").splitlines()) == 2
    again = read_ratings(table)[entries[0].key]
    assert (again.note, again.tags) == (note, (note + "x;y", "b"))


@settings(max_examples=25)
@given(note=st.text(st.characters(exclude_categories=())), tag=st.text(min_size=1))
def test_any_text_comes_back(tmp_path_factory, note, tag):
    rating = Rating("k", verdict="pass", tags=(tag,), note=note, rater="anna")
    path = tmp_path_factory.getbasetemp() / "rater-anna_ratings.tsv"
    path.write_text(table_of([rating]), encoding="utf-8", newline="")
    if tag != "n/a":
        assert read_ratings(path) == {"k": rating}


def test_others_read_the_table(cohort, entries):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "fail", '"quoted" at the start')
    ratings.rate(entries[1], "pass", "plain")
    with ratings.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))  # as pandas and spreadsheets do
    assert [row["note"] for row in rows] == ['"quoted" at the start', "plain"]
    assert [row["tags"] for row in rows] == ["n/a", "n/a"]


def test_what_a_spreadsheet_made_of_it_is_read(cohort, entries):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "fail")
    with ratings.path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    lines = [
        "\t".join(["second look", *reversed(row)]),
        "\t".join(["yes", *reversed(row.values())]),
    ]
    ratings.path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    again = Ratings.open(cohort, "anna")
    assert again.of(entries[0]).verdict == "fail"
    again.rate(entries[0], "pass")
    again.rate(entries[1], "pass")
    with ratings.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["second look"] for row in rows] == ["yes", "n/a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"a\tb\n1\t2\n",
        b"prediction\tverdict\nx\tgreat\n",
        b"prediction\tverdict\nx\n",
        b'prediction\tverdict\nx\t"pass\n',
    ],
)
def test_a_damaged_table_is_told_and_left_alone(cohort, entries, content):
    path = cohort / "review/rater-anna_ratings.tsv"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a table of ratings") as told:
        Ratings.open(cohort, "anna")
    assert told.value.subject == str(path)
    Ratings.open(cohort, "bea").rate(entries[0], "pass")
    everybody = read_all_ratings(cohort)
    assert everybody.raters == ("bea",)
    assert [each.subject for each in everybody.problems] == [str(path)]
    assert path.read_bytes() == content


# --- Several raters, several windows ------------------------------------------------------------


def test_raters_have_tables_of_their_own(cohort, entries):
    Ratings.open(cohort, "anna").rate(entries[0], "pass")
    Ratings.open(cohort, "bea").rate(entries[0], "fail")
    said = read_all_ratings(cohort).of(entries[0])
    assert {each.rater: each.verdict for each in said} == {"anna": "pass", "bea": "fail"}


def test_two_windows_of_one_rater_lose_nothing_to_each_other(cohort, entries):
    one, two = Ratings.open(cohort, "anna"), Ratings.open(cohort, "anna")
    one.rate(entries[0], "pass")
    two.rate(entries[1], "fail")
    one.rate(entries[2], "doubtful")
    assert len(read_ratings(one.path)) == 3
    two.rate(entries[2], "pass")
    with pytest.raises(UserError, match="another window"):
        one.undo()
    assert one.undo() == entries[0].key
    assert {each.verdict for each in read_ratings(one.path).values()} == {"fail", "pass"}


def test_a_rating_that_cannot_be_written_is_not_kept(cohort, entries, monkeypatch):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "pass")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        ratings.rate(entries[1], "fail")
    assert ratings.of(entries[1]) is None
    assert set(read_ratings(ratings.path)) == {entries[0].key}


def test_a_folder_that_is_away_is_not_made_anew(cohort, entries):
    ratings, away = Ratings.open(cohort, "anna"), cohort.with_name("away")
    ratings.rate(entries[0], "pass")
    cohort.rename(away)  # a share that is unmounted
    with pytest.raises(UserError, match="no longer there; bring it back"):
        ratings.rate(entries[1], "fail")
    assert not cohort.exists()
    away.rename(cohort)
    ratings.rate(entries[1], "fail")
    assert [each.verdict for each in read_ratings(ratings.path).values()] == ["pass", "fail"]


@pytest.mark.parametrize("label", ["", "Anna B.", "a/b", "../x", "zoë", "a_b"])
def test_what_is_no_label_is_refused(cohort, label):
    with pytest.raises(UserError, match="not a valid rater label") as told:
        Ratings.open(cohort, label)
    assert isinstance(told.value.remedy, Give)


def test_labels_that_differ_in_capitals_are_refused(cohort, entries):
    Ratings.open(cohort, "anna").rate(entries[0], "pass")
    with pytest.raises(UserError, match="Anna may be anna") as told:
        Ratings.open(cohort, "Anna")
    assert told.value.remedy == Choose("rater", ("anna",))


def test_ratings_of_a_copy_are_merged(cohort, entries, tmp_path, monkeypatch):
    times = iter(f"2026-11-29T10:00:{second:02d}Z" for second in range(60))
    monkeypatch.setattr("napari_msp.review.ratings.now", lambda: next(times))
    here, copy = Ratings.open(cohort, "anna"), tmp_path / "laptop"
    copy.mkdir()
    here.rate(entries[0], "pass")
    there = Ratings.open(copy, "anna")
    there.rate(entries[0], "fail", "seen on a better screen")
    there.rate(entries[1], "pass")
    here.rate(entries[2], "pass")
    there.rate(entries[2], "doubtful")
    here.rate(entries[2], "fail")
    (merged,) = merge_ratings(cohort, [there.path])
    assert (merged.rater, merged.new, merged.later, merged.older) == ("anna", 1, 1, 1)
    said = {key: each.verdict for key, each in read_ratings(here.path).items()}
    assert said == {entries[0].key: "fail", entries[1].key: "pass", entries[2].key: "fail"}
    with pytest.raises(UserError, match="whose ratings"):
        merge_ratings(cohort, [cohort / "dataset_description.json"])


WRITER = textwrap.dedent("""
    import sys
    from napari_msp.review.predictions import open_review
    from napari_msp.review.ratings import Ratings
    entries = open_review(sys.argv[1]).entries
    ratings = Ratings.open(sys.argv[1], "anna")
    for number in range(100_000):
        entry = entries[number % len(entries)]
        ratings.rate(entry, ("pass", "fail")[number % 2], f"note {number} " + "x" * 5000)
        print(number, flush=True)
""")


def test_a_killed_rater_loses_at_most_the_last_key(cohort):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(cohort)], stdout=subprocess.PIPE, text=True
    )
    told = -1
    for line in writer.stdout:
        told = int(line)
        if told == 40:
            writer.send_signal(signal.SIGKILL)
            break
    told = max([told, *map(int, writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()
    known = read_ratings(Path(cohort) / "review/rater-anna_ratings.tsv")
    assert len(known) == 12
    newest = max(int(each.note.split()[1]) for each in known.values())
    assert newest in (told, told + 1)
    # Whoever comes next is not kept out by a lock of the dead.
    entry = open_review(cohort).entries[0]
    Ratings.open(cohort, "anna").rate(entry, "pass", "went on")


def test_undo_goes_on_where_somebody_added_a_column(cohort, entries):
    ratings = Ratings.open(cohort, "anna")
    ratings.rate(entries[0], "pass")
    ratings.rate(entries[1], "fail")
    header, *rows = ratings.path.read_text().splitlines()
    rows = [f"{row}\t{'n/a' if number else ''}" for number, row in enumerate(rows)]
    ratings.path.write_text("\n".join([f"{header}\tcomment", *rows]) + "\n")
    assert ratings.undo() == entries[1].key
    assert ratings.undo() == entries[0].key
    assert ratings.by_key == {}
