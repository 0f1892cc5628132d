"""A message says what is wrong by sign and words, and offers mends."""

import pytest
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtWidgets import QApplication, QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from napari_msp.ui.widgets.message import MessageLine, MessagePlace, Notices, Sentences
from napari_msp.ui.widgets.windows import show_details

LONG = "sub-01_ses-ge_dwi.nii.gz: voxels are 1.25 mm, the model's 2.40 mm isotropic; resample it"


@pytest.fixture
def line(qtbot):
    host = QWidget()
    qtbot.addWidget(host)
    widget = MessageLine()
    layout = QVBoxLayout(host)
    layout.addWidget(widget)
    layout.addStretch()
    host.resize(300, 200)
    host.show()
    yield widget


def test_a_line_without_a_message_hides(line):
    assert not line.isVisible()
    line.show_message("error", "No mask.")
    assert line.isVisible()
    line.show_message("error", "")
    assert not line.isVisible()
    assert line.text == ""


@pytest.mark.parametrize(
    ("severity", "spoken"),
    [("error", "Error"), ("warning", "Warning"), ("note", "Note"), ("ok", "In order")],
)
def test_severity_is_spoken_too(line, severity, spoken):
    line.show_message(severity, "b = 1200 s/mm²")
    assert line.words.accessibleName() == f"{spoken}: b = 1200 s/mm²"
    assert line.sign.accessibleName() == spoken


def test_signs_differ_in_shape_not_only_in_colour(line):
    shapes = set()
    for severity in ("error", "warning", "note", "ok"):
        line.show_message(severity, "x")
        image = line.sign.grab().toImage()
        ground = image.pixelColor(0, 0)
        inked = tuple(
            image.pixelColor(x, y) != ground for x in range(image.width()) for y in range(16)
        )
        assert sum(inked) > 60
        shapes.add(inked)
    assert len(shapes) == 4


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        ("4 predictions in 19 s.", "19_s."),
        ("shell b = 1000 s/mm², 32 directions", "b_=_1000_s/mm²,"),
        ("SH MSE 31.0 × 10⁻⁵ (before: 83.0 × 10⁻⁵, ▼ −63 %)", "▼_−63_%)"),
        ("SH MSE 31.0 × 10⁻⁵", "31.0_×_10⁻⁵"),
        ("sub-01 3 scans", "3"),
    ],
)
def test_no_line_ends_between_a_number_and_its_unit(qtbot, said, whole):
    label = Sentences(said)
    qtbot.addWidget(label)
    assert whole in QLabel.text(label).replace("\N{NO-BREAK SPACE}", "_").split(" ")
    assert label.text() == said


def test_long_words_wrap_and_can_be_copied(line, qtbot):
    line.show_message("error", "Short.")
    one = line.words.fontMetrics().height()
    line.show_message("error", LONG)
    qtbot.waitUntil(lambda: line.words.height() > 2 * one)
    assert line.width() <= 300
    line.words.setFocus()
    line.words.setSelection(0, len(LONG))
    qtbot.keyClick(line.words, Qt.Key_C, Qt.ControlModifier)
    assert QApplication.clipboard().text() == LONG


def test_a_message_is_plain_text(line):
    line.show_message("error", "<b>sub-01</b>: no")
    assert line.words.textFormat() == Qt.PlainText
    assert line.text == "<b>sub-01</b>: no"


def test_mends_are_offered_until_the_next_message(line, qtbot):
    line.show_message("error", "Out of memory.", ["Try a smaller tile", "Use the CPU"])
    assert [button.text() for button in line.buttons] == ["Try a smaller tile", "Use the CPU"]
    assert all(button.isVisible() for button in line.buttons)
    with qtbot.waitSignal(line.action) as chosen:
        qtbot.mouseClick(line.buttons[1], Qt.LeftButton)
    assert chosen.args == ["Use the CPU"]
    line.show_message("warning", "On the CPU this takes longer.")
    assert line.buttons == []


def test_three_mends_are_too_many(line):
    with pytest.raises(ValueError, match="at most two"):
        line.show_message("error", "Hm.", ["a", "b", "c"])


def test_details_show_the_sentence_and_the_traceback(qtbot):
    window = QWidget()
    qtbot.addWidget(window)
    details = show_details(window, "Harmonize", "This is a bug.", "Traceback …")
    trace = details.findChild(QPlainTextEdit)
    assert trace.toPlainText() == "Traceback …"
    assert trace.isReadOnly()
    assert "This is a bug." in [each.text() for each in details.findChildren(QLabel)]


def test_what_is_wrong_stands_before_what_is_worth_knowing(qtbot):
    notices = Notices()
    qtbot.addWidget(notices)
    notices.say("Mask", "note", "mask.nii.gz was found")
    assert not notices.isVisible()  # alone it would be a window
    notices.say("Scan", "error", "There is no such file.")
    notices.say("Shell", "warning", "Two are close.")
    lines = notices.text.splitlines()
    assert [each.partition(":")[0] for each in lines] == ["Scan", "Shell", "Mask"]
    assert notices.sign.accessibleName() == "Error"
    for field in ("Scan", "Shell"):
        notices.say(field, "error", "")
    assert notices.text == "Mask: mask.nii.gz was found"
    assert notices.sign.accessibleName() == "Note"


def test_a_place_for_messages_is_as_high_whatever_is_said(qtbot):
    line, notices = MessageLine(), Notices()
    notices.say("Scan", "error", LONG)  # before it has a place
    place = MessagePlace(line, notices, lines=3)
    qtbot.addWidget(place)
    place.resize(300, place.sizeHint().height())
    place.show()
    asked = place.sizeHint(), place.minimumSizeHint()
    assert notices.isVisible()
    line.show_message("error", LONG * 5, ["Interpolate", "Details …"])
    qtbot.wait_until(lambda: place.verticalScrollBar().maximum() > 0)  # the rest is scrolled to
    assert (place.sizeHint(), place.minimumSizeHint()) == asked
    place.verticalScrollBar().setValue(20)
    line.show_message("error", LONG * 6)
    qtbot.wait_until(lambda: place.verticalScrollBar().value() == 0)  # begins at its beginning


def test_what_was_said_last_is_seen_until_somebody_scrolls(qtbot):
    above, line = QLabel(), MessageLine()
    above.setWordWrap(True)
    place = MessagePlace(above, line)
    qtbot.addWidget(place)
    place.resize(300, 120)
    place.show()

    def seen(part):
        corner = part.mapTo(place.viewport(), QPoint(0, 0))
        return place.viewport().rect().contains(QRect(corner, part.size()))

    for words in (LONG, LONG * 5, LONG * 2):
        above.setText(words)
        line.show_message("error", LONG, ["Interpolate", "Details …"])
        qtbot.wait_until(lambda: seen(line.words) and all(map(seen, line.buttons)))
    bar = place.verticalScrollBar()
    above.setText(LONG * 20)  # such as progress
    qtbot.wait_until(lambda: bar.maximum() > 200)
    qtbot.wait_until(lambda: seen(line))
    bar.setValue(20)
    above.setText(LONG * 21)
    qtbot.wait(50)
    assert bar.value() == 20
    line.show_message("error", LONG)
    qtbot.wait_until(lambda: seen(line))


def test_notices_that_stay_are_not_said_anew(qtbot):
    notices, heard = Notices(), []
    qtbot.addWidget(notices)
    notices.said.connect(lambda: heard.append(notices.text))
    notices.say("Mask", "note", "a")
    notices.say("Mask", "note", "a")
    notices.say("Mask", "error", "a")
    notices.say("Mask", "note", "")
    assert heard == ["Mask: a", "Mask: a"]
