"""Progress is told, the time left is estimated, and nothing is left turning."""

import pytest
from qtpy.QtCore import Qt

from napari_msp.ui.widgets.progress import Bar, ProgressRow, seconds_left, time_left


@pytest.mark.parametrize(
    ("history", "now", "expected"),
    [
        ([], 5.0, None),
        ([(100.0, 0)], 105.0, None),  # nothing done yet
        ([(100.0, 2), (104.0, 2)], 104.0, None),
        ([(100.0, 0), (106.0, 3)], 106.0, 18.0),  # 2 s a piece, 9 to go
        ([(100.0, 3), (106.0, 6)], 106.0, 12.0),  # what was done before has no pace
        ([(100.0, 0), (103.0, 2), (106.0, 3)], 107.5, 16.5),
        ([(100.0, 0), (106.0, 3)], 200.0, 0.0),  # overdue
        ([(100.0, 0), (124.0, 12)], 124.0, 0.0),
    ],
)
def test_the_time_left_follows_the_pace_so_far(history, now, expected):
    assert seconds_left(history, total=12, now=now) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0, "a few seconds left"),
        (7.4, "a few seconds left"),
        (8.0, "about 10 s left"),
        (22.0, "about 20 s left"),
        (54.0, "about 50 s left"),
        (56.0, "about 1 min left"),
        (200.0, "about 3 min left"),
        (3569.0, "about 59 min left"),
        (3600.0, "about 1 h left"),
        (5000.0, "about 1 h 25 min left"),
    ],
)
def test_the_time_left_time_left(seconds, words):
    assert time_left(seconds) == words


@pytest.fixture
def row(qtbot):
    widget = ProgressRow()
    qtbot.addWidget(widget)
    return widget


def at_rest(row):
    """Return whether no part of the row can move any more."""
    return row.bar.maximum() > 0 and not row._clock.isActive() and not row.bar.isVisible()


def test_idle_takes_no_room(row):
    assert row.state == "idle"
    assert not row.isVisible()
    assert at_rest(row)


def test_work_that_has_not_reported_yet_shows_that_it_goes_on(row):
    row.start("Reading the scan")
    assert row.state == "running"
    assert row.isVisible() and row.bar.isVisible() and row.cancel.isEnabled()
    assert row.words.text() == "Reading the scan"
    assert (row.bar.minimum(), row.bar.maximum()) == (0, 0)


def test_reports_move_the_bar_and_tell_the_time_left(row):
    row.start("MSP")
    row.report(3, 12, "tile 3 of 12 · MSP → prisma_st", seconds_left=22)
    assert row.words.text() == "tile 3 of 12 · MSP → prisma_st"
    assert row.bar.text() == "25 %  ·  about 20 s left"
    assert row.bar.accessibleName() == "tile 3 of 12 · MSP → prisma_st"
    row.report(12, 12, seconds_left=0)
    assert row.words.text() == "tile 3 of 12 · MSP → prisma_st"
    assert row.bar.text() == "100 %  ·  a few seconds left"


def test_without_being_told_the_row_estimates_the_time_left(row):
    row.start("MSP")
    row.report(1, 12)
    assert row.bar.text() == "8 %"
    row.report(2, 12)
    assert row.bar.text() == "16 %  ·  a few seconds left"


def test_another_count_begins_another_estimate(row):
    row.start("prisma_st")
    row.report(1, 4)
    row.report(4, 4)
    row.report(1, 8, "connectom_sa")
    assert row.bar.text() == "12 %"


def test_what_is_not_counted_after_what_was_is_shown_so(row):
    row.start("Simulating")
    row.show_step("ge_st", 2, 2)
    assert row.bar.text() == "100 %"
    row.show_step("Making maps")
    assert (row.bar.minimum(), row.bar.maximum(), row.bar.text()) == (0, 0, "")
    assert row.words.text() == "Making maps"
    row.show_step("FA", 1, 4)
    assert row.bar.text() == "25 %"


def test_a_bar_that_counts_nothing_moves_and_is_seldom_drawn(qtbot):
    drawn = []

    class Watched(Bar):
        def paintEvent(self, event):  # noqa: N802 - Qt's name
            drawn.append(event)
            super().paintEvent(event)

    bar = Watched()
    qtbot.addWidget(bar)
    bar.setRange(0, 0)
    bar.show()
    qtbot.waitExposed(bar)
    before, known = bar.grab().toImage(), len(drawn)
    qtbot.wait(500)
    assert 1 <= len(drawn) - known <= 4  # in a window each is a picture of the whole of it
    assert bar.grab().toImage() != before
    bar.setRange(0, 2)
    known = len(drawn)
    qtbot.wait(250)
    assert len(drawn) <= known + 1  # it stands still


def test_cancel_asks_once_and_waits(row, qtbot):
    row.start("MSP")
    row.report(1, 4, "tile 1 of 4")
    with qtbot.waitSignal(row.cancel_wanted):
        qtbot.mouseClick(row.cancel, Qt.LeftButton)
    assert row.state == "cancelling"
    assert not row.cancel.isEnabled()
    with qtbot.assertNotEmitted(row.cancel_wanted):
        qtbot.mouseClick(row.cancel, Qt.LeftButton)
    row.report(2, 4, "tile 2 of 4", seconds_left=30)
    assert row.words.text() == "tile 1 of 4"
    assert row.bar.text() == "50 %"
    row.end("Cancelled.")
    assert at_rest(row)


@pytest.mark.parametrize("reported", [False, True])
def test_after_the_end_nothing_turns(row, reported):
    row.start("MSP")
    if reported:
        row.report(1, 4, seconds_left=3)
    row.end("Done in 12 s.")
    assert row.state == "ended"
    assert row.words.isVisible() and row.words.text() == "Done in 12 s."
    assert at_rest(row)
    assert not row.cancel.isVisible()
    row.report(2, 4, "too late")  # work may still speak while it ends
    assert row.words.text() == "Done in 12 s."
    assert at_rest(row)
    row.end()
    assert row.state == "idle" and not row.isVisible()


def test_the_row_can_be_used_again(row, qtbot):
    row.start("MSP")
    qtbot.mouseClick(row.cancel, Qt.LeftButton)
    row.end("Cancelled.")
    row.start("DIQT")
    assert row.cancel.isEnabled() and row.cancel.text() == "Cancel"
    assert (row.bar.minimum(), row.bar.maximum()) == (0, 0)
