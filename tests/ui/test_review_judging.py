"""Nothing is said of what is not seen, and nothing of one prediction is kept with another.

Without a window: the widget stands on a viewer's model, and reads no images.
"""

import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_msp.errors import Advice, Unexpected, UserError
from napari_msp.review.rating_table import read_ratings
from napari_msp.ui.background import BackgroundJob
from napari_msp.ui.grid_fit import SPACE
from napari_msp.ui.reading import Control
from napari_msp.ui.review.ahead import Read, ReadAhead, _read
from napari_msp.ui.review.canvas import cells_of
from napari_msp.ui.review.entry_list import MARK
from napari_msp.ui.review.pictures import ReviewLook
from napari_msp.ui.review.session import Session
from reviewed import folder, maps


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("judged") / "predictions", count=3, with_maps=False)


@pytest.fixture
def copy(predictions, tmp_path):
    def copied(name="one"):
        return shutil.copytree(predictions, tmp_path / name)

    return copied


@pytest.fixture
def review(qtbot, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari.components import ViewerModel

        from napari_msp.ui.review.widget import Review

        made = Review(ViewerModel())
    qtbot.addWidget(made)
    monkeypatch.setattr(made.canvas.ahead, "want", lambda *_: None)  # nothing is read
    made.show()
    return made


@pytest.fixture
def begin(review, copy):
    """Open a copy of the folder; what is looked at counts as seen."""

    def begun(name="one", rater="anna", blind=False):
        path = copy(name)
        review._begin(Session.open(str(path), rater, blind=blind))
        review.canvas.shown = review.session.current
        review._enable()
        return path

    return begun


def said(path, rater="anna"):
    """Give what was said of a folder's predictions, by subject."""
    known = read_ratings(path / "review" / f"rater-{rater}_ratings.tsv")
    return {key.partition("/")[0]: each for key, each in known.items()}


def test_a_note_stays_in_the_folder_that_it_was_written_in(review, begin):
    first = begin("one")
    subject = review.session.current.subject
    review.judging.note.setText("mask cut off")
    second = begin("two")  # it was read while the note was written
    assert {key: each.note for key, each in said(first).items()} == {subject: "mask cut off"}
    assert review.judging.note.text() == ""
    review.go_to(review.session.rows[1])
    assert not (second / "review" / "rater-anna_ratings.tsv").exists()


def test_a_note_is_kept_when_the_widget_is_closed(review, begin):
    path = begin()
    review.judging.note.setText("good")
    review.leave()
    assert [each.note for each in said(path).values()] == ["good"]


def test_a_note_is_kept_before_another_folder_is_asked_for(review, begin, monkeypatch):
    path = begin()
    review.form.folder.choose(path)
    monkeypatch.setattr(review._opening, "ask", lambda work: None)
    review.judging.note.setText("good")
    review.open()
    assert [each.note for each in said(path).values()] == ["good"]


def test_enter_in_the_search_begins_no_note(review, begin, monkeypatch):
    begin()
    done = []
    monkeypatch.setattr(review, "act", done.append)
    for key in (Qt.Key_Return, Qt.Key_Enter):
        review.list.text.setFocus()
        QTest.keyClick(review.list.text, key)
        assert done == []
        assert review.window().focusWidget() is review.list.table
    QTest.keyClick(review.list.table, Qt.Key_Return)
    assert done == ["note"]


def test_keys_in_the_form_are_the_forms(review, begin, monkeypatch):
    begin()
    done = []
    monkeypatch.setattr(review, "act", done.append)
    review.what.unfold(True)
    for field, key in ((review.form.rater, Qt.Key_Return), (review.form.button, Qt.Key_P)):
        field.setFocus()
        QTest.keyClick(field, key)
    assert done == []


def test_what_is_not_seen_is_neither_tagged_nor_noted_nor_rated(review, begin):
    path = begin()
    review.canvas.shown = None
    for say, done in (
        (lambda: review.act("pass"), "rated"),
        (lambda: review._act_on_key("5", True), "tagged"),
        (lambda: review.judging.tagged.emit("motion"), "tagged"),
        (lambda: review.judging.noted.emit("blurred"), "noted"),
    ):
        review.message.clear()
        say()
        assert f"Not {done}" in review.message.text
        assert "is not seen yet" in review.message.text
    assert not (path / "review" / "rater-anna_ratings.tsv").exists()


def test_what_cannot_be_shown_may_be_judged(review, begin):
    path = begin()
    entry = review.session.current
    review.canvas.cannot_show(entry, UserError("is damaged", "a.nii.gz"))
    assert "cannot be shown: is damaged" in review.judging.known.text()
    verdicts = {name: each.isEnabled() for name, each in review.judging.verdicts.items()}
    assert verdicts == {"pass": False, "doubtful": True, "fail": True}
    review._act_on_key("P", True)
    assert f"Not rated: {review.session.name(entry)} cannot be shown" in review.message.text
    review._act_on_key("5", True)
    assert [(each.tags, each.verdict) for each in said(path).values()] == [(("mask",), None)]
    review._act_on_key("F", True)
    assert [each.verdict for each in said(path).values()] == ["fail"]


def test_how_many_maps_are_made_has_an_end(review, begin, monkeypatch):
    """Whichever of them is made last, cannot be made, or is not wanted any more."""
    there = set()
    monkeypatch.setattr(
        "napari_msp.ui.review.ahead.has_review_maps", lambda files: files.stem in there
    )
    begin()
    ahead, (one, other, last) = review.canvas.ahead, review.session.rows
    pictures: Any = SimpleNamespace(bytes=0, look=ReviewLook())

    def made(entry):
        ahead.take(Read(entry, maps(0), pictures, {}, True))

    there.add(last.stem)
    made(one)
    assert review.making.words.text() == "Making review maps: 1 of 3"
    made(other)
    assert review.making.state == "idle"
    begin("two")
    made(review.session.rows[1])
    ahead.fail(review.session.rows[0], UserError("is damaged", "a.nii.gz"))
    assert review.making.state == "idle"
    for number, stop in enumerate(
        (review.making.request_cancel, lambda: begin("after"), review.leave)
    ):
        there.clear()
        begin(str(number))
        made(review.session.rows[1])
        assert review.making.state == "running"
        stop()
        assert review.making.state == "idle"


def test_a_note_of_the_one_that_is_left_is_kept(review, begin):
    path = begin()
    left = review.session.current.subject
    review.judging.note.setText("noisy")
    review.go_to(review.session.rows[1])
    assert {key: each.note for key, each in said(path).items()} == {left: "noisy"}


def check_nothing_is_told(text, session):
    for entry in session.review.entries:
        for name in (entry.subject, entry.session, entry.platform, entry.target, entry.title):
            assert name not in text


def test_what_cannot_be_shown_tells_no_name_while_names_are_hidden(review, begin):
    begin(blind=True)
    session = review.session
    entry = session.current
    maps = entry.root / f"{entry.stem}_model-sh_param-average_dwimap.nii.gz"
    for error in (
        UserError("cannot be read", maps, remedy=Advice("make it again")),
        UserError(f"is of {entry.prediction}", remedy=Advice(f"remove {maps}")),
        UserError("was rated in another window in the meantime", entry.key),
    ):
        review.canvas.cannot_show(entry, error)
        check_nothing_is_told(review.message.text, session)
        check_nothing_is_told(review.judging.known.text(), session)
    assert session.name(entry) in review.message.text
    assert "was rated in another window in the meantime" in review.message.text


def test_what_cannot_be_listed_tells_no_name_while_names_are_hidden(review, copy):
    path = copy()
    (sidecar,) = path.glob("sub-02/**/*_dwi.json")
    sidecar.write_text("{")
    session = Session.open(str(path), "anna", blind=True)
    review._begin(session)
    assert "1 prediction cannot be read" in review.message.text
    assert "sub-" not in review.message.text
    check_nothing_is_told(review.message.text, session)
    review._begin(Session.open(str(path), "anna"))
    assert "sub-02" in review.message.text


def test_names_are_told_where_they_are_shown(review, begin):
    begin()
    entry = review.session.current
    review.canvas.cannot_show(entry, UserError("is damaged", entry.prediction))
    assert entry.prediction.name in review.message.text


def test_a_failure_in_the_folder_before_is_not_of_the_new_one(qtbot, copy, monkeypatch):
    ahead = ReadAhead(None)
    old = Session.open(str(copy("one")), "anna").rows
    new = Session.open(str(copy("two")), "anna").rows
    told = []
    ahead.failed.connect(lambda entry, error: told.append(entry))
    monkeypatch.setattr(BackgroundJob, "run", lambda *_: None)
    ahead.open(old)
    ahead.open(new)
    ahead.fail(old[0], UserError("is damaged", "a.nii.gz"))
    ahead.want(new[0], [], ReviewLook())
    assert new[0].key == old[0].key
    assert told == []


def test_a_closed_reader_takes_no_failure(copy, monkeypatch):
    monkeypatch.setattr(BackgroundJob, "run", lambda *_: None)
    ahead, told = ReadAhead(None), []
    ahead.failed.connect(lambda entry, error: told.append(entry))
    entries = Session.open(str(copy()), "anna").rows
    ahead.open(entries)
    ahead.close()
    ahead.fail(entries[0], UserError("is damaged", "a.nii.gz"))
    ahead.want(entries[0], [], ReviewLook())
    assert told == []


def test_long_names_widen_nothing_and_the_line_over_them_has_the_room(review, begin, qtbot):
    begin()
    review.resize(420, 900)
    before = review.judging.title.minimumSizeHint().width()
    review.judging.show_entry("sub-" + 70 * "A" + " → prisma_st", "unrated", [], [])
    assert review.judging.title.minimumSizeHint().width() < max(before, 200)
    head = review.what.width() - review.what.button.width()
    qtbot.wait_until(lambda: review.progress.width() > 0.7 * head)


def test_why_something_is_missing_is_said_but_not_while_names_are_hidden(review, begin):
    for name, blind in (("one", False), ("two", True)):
        begin(name, blind=blind)
        subject = SimpleNamespace(notes=("sub-01_dwi.nii.gz is left out: it has one shell",))
        review.canvas.pictures = SimpleNamespace(maps=subject)
        review._show_judging()
        assert ("it has one shell" in review.judging.known.text()) is not blind


def test_every_state_fits_its_column(review, begin):
    begin()
    words = [f"{mark} {state}" for state, mark in MARK.items()]
    metrics = review.list.table.fontMetrics()
    width = review.list.table.columnWidth(0)
    assert all(metrics.horizontalAdvance(each) < width - 8 for each in words)


def test_no_risk_is_shown_where_nothing_is_known(review, begin):
    begin()
    risks = {entry.risk for entry in review.session.rows}
    assert risks == {0.0}  # three are too few to say what is usual
    assert [row[3].text for row in review.list.model.rows] == ["–"] * 3
    assert all("fewer than 8" in row[3].tip for row in review.list.model.rows)


def read(entry, shell=None) -> Read:
    return _read(entry, None, ReviewLook(shell=shell), True, Control(lambda: False, lambda _: None))


def cell_names(session, found: Read) -> list[str]:
    contrast = ReadAhead(None).contrast_at(found.pictures.look.shell)
    cells = cells_of(found.pictures, session, found.entry, contrast)
    return [options["name"] for _, options, _ in cells.layers]


@pytest.mark.filterwarnings("ignore")  # napari's own, whose colours are taken
def test_each_shell_is_looked_at_by_its_b_value(tmp_path):
    root = folder(tmp_path / "predictions", count=1, shells=(1000, 3000))
    session = Session.open(str(root), "anna")
    (entry,) = session.rows
    for wanted, shown, brightest in ((None, 1000, 0.61), (3000, 3000, 0.81), (2000, 1000, 0.61)):
        found = read(entry, wanted)
        assert found.maps.shells == (1000, 3000)
        assert found.maps.shell == shown
        prediction = found.maps.prediction.average
        assert prediction.max() == pytest.approx(brightest, abs=0.002)
        names = cell_names(session, found)
        assert names[1] == f"sub-01 MSP prisma_st · SH average · b = {shown}"
        assert names[3].startswith("sub-01 ge_st · b=0")
        assert "b = " not in names[3]
    one = folder(tmp_path / "one", count=1)
    session = Session.open(str(one), "anna")
    names = cell_names(session, read(session.rows[0], 3000))
    assert names[1] == "sub-01 MSP prisma_st · SH average"


@pytest.mark.filterwarnings("ignore")  # napari's own, whose colours are taken
def test_the_key_goes_from_shell_to_shell_and_begins_again(review, begin):
    begin()
    canvas = review.canvas
    review.act("shell")
    assert "one b-value" in review.message.text
    subject = SimpleNamespace(shells=(1000, 2000, 3000), shell=1000, notes=())
    canvas.pictures = SimpleNamespace(maps=subject)
    gone = []
    for _ in range(3):
        review.act("shell")
        gone.append(canvas.look.shell)
        subject.shell = canvas.look.shell or 1000
    assert gone == [2000, 3000, None]
    review.judging.show_shells(subject.shells, 2000)
    assert review.judging.shells.currentText() == "b = 2000"
    review.judging.shells.activated.emit(2)
    assert canvas.look.shell == 3000
    assert canvas.shells == (1000, 2000, 3000)


@pytest.mark.filterwarnings("ignore")  # napari's own, whose colours are taken
def test_hidden_sides_are_not_told_by_what_is_missing(tmp_path):
    root = folder(tmp_path / "predictions", count=1)
    session = Session.open(str(root), "anna", blind=True, hide_roles=True)
    found = read(session.rows[0])
    drawn = found.pictures
    missing = [
        replace(each, missing="no input") if each.role == "scan" else each for each in drawn.cells
    ]
    names = " ".join(cell_names(session, replace(found, pictures=replace(drawn, cells=missing))))
    assert "no image" in names
    legend = cells_of(drawn, session, found.entry, ReadAhead(None).contrast_at(None)).legend
    scales = legend.splitlines()[0].split(SPACE)
    assert [each.rpartition(": ")[2].split(" ", 3)[3] for each in scales] == [
        "SH units",
        "× 10⁻⁵ SH units²",
    ]
    assert "input" not in names


def test_a_folder_that_cannot_be_opened_tells_no_name_while_names_are_hidden(review, copy):
    path = copy()
    for each in path.glob("sub-*/**/*_dwi.json"):
        each.write_text("{")
    with pytest.raises(UserError) as caught:
        Session.open(str(path), "anna")
    assert "sub-0" in str(caught.value)
    for error in (caught.value, Unexpected("KeyError: 'sub-01'")):
        review.form.blind.setChecked(True)
        review._refuse(error)
        told = review.form.rows.said("folder")
        assert "names in it" in told
        assert "sub-0" not in told
        review.form.blind.setChecked(False)
        review._refuse(error)
        assert "sub-0" in review.form.rows.said("folder")


@pytest.mark.filterwarnings("ignore")  # napari's own, whose colours are taken
def test_colours_are_shown_as_they_are(tmp_path):
    root = folder(tmp_path / "predictions", count=1)
    session = Session.open(str(root), "anna")
    found = _read(
        session.rows[0],
        None,
        ReviewLook(shown="colour"),
        True,
        Control(lambda: False, lambda _: None),
    )
    contrast = ReadAhead(None).contrast_at(found.pictures.look.shell)
    cells = cells_of(found.pictures, session, found.entry, contrast)
    for data, options, _ in cells.layers[:2]:
        assert data.dtype == "uint8"
        assert options["contrast_limits"] == (0, 255)
