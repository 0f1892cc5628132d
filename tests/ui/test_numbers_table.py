"""The table of global errors, as it is read, heard and copied."""

import csv
import io

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication

from napari_msp.ui.compare.numbers_table import ErrorColumn, NumbersTable
from napari_msp.ui.widgets.colours import colours_of

NAMES = ["DIQT", "MSP", "<b>like</b>"]
SH = (7.27e-4, 6.57e-4, 7.27e-4 * (1 + 1e-5))
COLOUR = (3.77e-3, 4.1e-3, 3.77e-3 * (1 - 2e-4))
VOXELS = 394_089


def errors(sh=SH, colour=COLOUR):
    return [
        ErrorColumn("SH", "MSE", "SH units²", sh, ("SH MSE",)),
        ErrorColumn("colour FA", "MSE", "FA²", colour, ("MSE", "colour FA")),
    ]


@pytest.fixture
def panel(qtbot):
    widget = NumbersTable()
    qtbot.addWidget(widget)
    widget.show_errors(NAMES, errors(), VOXELS)
    widget.show()
    return widget


def texts(panel):
    table = panel.table
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def headers(panel):
    table = panel.table
    return [table.horizontalHeaderItem(column).text() for column in range(table.columnCount())]


def test_errors_in_one_power_of_ten_and_changes_with_sign_and_arrow(panel):
    assert texts(panel) == [
        ["DIQT", "72.7", "–", "3.77", "–"],
        ["MSP", "65.7", "▼ −9.6", "4.10", "▲ +8.8"],
        ["<b>like</b>", "72.7", "0.0", "3.77", "0.0"],
    ]
    assert headers(panel) == [
        "prediction",
        "SH MSE\n10⁻⁵\nSH units²",
        "change\n%",
        "colour-FA\nMSE\n10⁻³ FA²",
        "change\n%",
    ]


def test_errors_in_sh_units_are_always_in_the_power_of_ten_of_the_papers_table(panel):
    panel.show_errors(NAMES[:2], errors((7.27e-3, 2e-4)), VOXELS)
    assert [row[1] for row in texts(panel)] == ["727.0", "20.0"]
    panel.show_errors(NAMES[:1], errors((0.0,)), VOXELS)
    assert float(texts(panel)[0][1]) == 0
    assert headers(panel)[1] == "SH MSE\n10⁻⁵\nSH units²"


def test_better_and_worse_have_colours_of_the_theme(panel):
    colours = colours_of(panel)
    better, worse, same = (
        panel.table.item(*at).foreground().color() for at in ((1, 2), (1, 4), (2, 2))
    )
    assert (better, worse, same) == (colours.ok, colours.warning, colours.text)
    panel.setStyleSheet("QWidget { background-color: #202020; color: #f0f0f0; }")
    dark = panel.table.item(1, 2).foreground().color()
    assert dark == colours_of(panel).ok
    panel.setStyleSheet("QWidget { background-color: #f0f0f0; color: #202020; }")
    assert panel.table.item(1, 2).foreground().color() != dark
    assert isinstance(dark, QColor)
    panel.setStyleSheet("QWidget { color: #202020; } QWidget:disabled { color: #40202020; }")
    panel.setEnabled(False)  # as behind another tab
    panel.restyle()
    assert panel.table.item(2, 2).foreground().color() == QColor("#202020")


def test_tooltips_say_what_is_meant(panel):
    table = panel.table
    assert "28" in table.horizontalHeaderItem(1).toolTip()
    assert "red runs" in table.horizontalHeaderItem(3).toolTip()
    assert "DIQT" in table.horizontalHeaderItem(2).toolTip()
    assert table.item(1, 1).toolTip() == "0.000657 SH units² over 394089 voxels, those in all masks"
    assert table.item(1, 2).toolTip() == "9.6 % less error than DIQT"
    assert table.item(1, 4).toolTip() == "8.8 % more error than DIQT"
    panel.show_errors(NAMES[::-1], errors(), VOXELS)
    assert "&lt;b&gt;like" in table.horizontalHeaderItem(2).toolTip()


def copied():
    return list(csv.reader(io.StringIO(QApplication.clipboard().text()), delimiter="\t"))


def test_copying_gives_all_rows_with_full_precision(panel, qtbot):
    panel.table.clearSelection()
    qtbot.keyClick(panel.table, Qt.Key_C, Qt.ControlModifier)
    head, first, second, _ = copied()
    assert head == [
        "prediction",
        "SH MSE [SH units²]",
        "SH MSE change [%]",
        "colour-FA MSE [FA²]",
        "colour-FA MSE change [%]",
    ]
    assert first == ["DIQT", "0.000727", "", "0.00377", ""]
    assert [float(each) for each in second[1:]] == pytest.approx(
        [6.57e-4, -9.62861, 4.1e-3, 8.75332], rel=1e-6
    )


def test_copying_gives_the_chosen_rows(panel, qtbot):
    panel.table.selectRow(1)
    qtbot.keyClick(panel.table, Qt.Key_C, Qt.ControlModifier)
    assert [row[0] for row in copied()] == ["prediction", "MSP"]


def test_without_rows_it_says_why(panel):
    panel.clear()
    assert panel.words.isVisible()
    assert "ground truth" in panel.words.text()
    assert not panel.table.isVisible()
    panel.clear("Measuring …")
    assert panel.words.text() == "Measuring …"
    panel.show_errors(NAMES[:1], errors(), VOXELS)
    assert panel.table.isVisible()
    assert not panel.words.isVisible()


def test_four_rows_are_seen_without_scrolling(panel, qtbot):
    panel.show_errors([*NAMES, "MSP"], errors((*SH, SH[1]), (*COLOUR, COLOUR[1])), VOXELS)
    panel.resize(panel.sizeHint())
    qtbot.wait(1)
    table = panel.table
    last = table.visualItemRect(table.item(3, 4))
    assert table.viewport().rect().contains(last)
    assert last.width() >= table.fontMetrics().horizontalAdvance("▲ +8.8")


def test_the_column_of_names_is_as_wide_as_they_need(panel, qtbot):
    before = panel.sizeHint().width()
    panel.show_errors(["sub-01 MSP prisma", "MSP"], errors(), VOXELS)
    panel.resize(panel.sizeHint())
    qtbot.wait(1)
    table = panel.table
    assert table.visualItemRect(table.item(0, 0)).width() > table.fontMetrics().horizontalAdvance(
        "sub-01 MSP prisma"
    )
    widened = panel.sizeHint().width()
    assert widened > before
    panel.show_errors(["a name without end " * 9, "MSP"], errors(), VOXELS)
    assert panel.sizeHint().width() < widened + 60


def test_a_name_that_is_too_long_has_a_line_over_its_numbers(panel, qtbot):
    names = ["DIQT", "MSP lesson-2026-11-30", "MSP lesson-2026-11-30-2"]
    panel.show_errors(names, errors((SH[0],) * 3, (COLOUR[0],) * 3), VOXELS)
    panel.resize(310, 300)
    qtbot.wait(1)
    table = panel.table
    one, *long = (table.rowHeight(row) for row in range(3))
    assert min(long) >= max(one, 2 * table.fontMetrics().lineSpacing())
    assert panel.sizeHint().height() >= table.horizontalHeader().height() + one + sum(long)
    for chosen in (False, True):  # the whole name is read, also on a chosen row's own ground
        table.selectAll() if chosen else table.clearSelection()
        last, same = (table.visualItemRect(table.item(row, 2)) for row in (2, 1))
        assert table.viewport().grab(last).toImage() != table.viewport().grab(same).toImage()
    panel.resize(900, 300)
    qtbot.wait(1)
    assert {table.rowHeight(row) for row in range(3)} == {one}


def test_nothing_can_be_typed_into_it(panel, qtbot):
    panel.table.setCurrentCell(1, 1)
    qtbot.keyClicks(panel.table, "9")
    assert texts(panel)[1][1] == "65.7"
