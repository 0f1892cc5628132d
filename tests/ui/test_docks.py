"""Columns of panels are as wide and as high as what they show; a widget is opened once."""

import warnings
from types import SimpleNamespace

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QDockWidget, QLabel, QLineEdit, QMainWindow, QWidget

from napari_msp.ui.docks import Docked, Pane, open_widget, with_messages
from napari_msp.ui.widgets.form import Section, stacked
from napari_msp.ui.widgets.message import Sentences
from napari_msp.ui.widgets.reading_table import ReadingTable


def test_a_pane_asks_for_the_width_of_what_is_unfolded(qtbot):
    wide, window = QWidget(), QWidget()
    wide.setMinimumWidth(500)
    section = Section("More", wide)
    stacked(window, Pane(section))
    qtbot.addWidget(window)
    window.show()
    qtbot.waitExposed(window)
    assert window.minimumSizeHint().width() < 300
    section.unfold(True)
    qtbot.wait_until(lambda: window.minimumSizeHint().width() > 500)


def test_a_pane_is_as_high_as_its_words_need_at_its_width(qtbot):
    words = Sentences("word " * 60)
    pane, window = Pane(words), QWidget()
    stacked(window, pane, QWidget()).setStretch(1, 1)
    qtbot.addWidget(window)
    window.show()
    heights = []
    for width in (300, 600):
        window.resize(width, 800)
        qtbot.wait_until(lambda width=width: pane.width() == width)
        qtbot.wait(20)
        heights.append(pane.height())
        assert pane.verticalScrollBar().maximum() == 0
        assert pane.height() - words.height() < 30
    assert heights[0] > 1.5 * heights[1]


def test_a_table_takes_the_height_that_is_free_and_no_more(qtbot):
    table = ReadingTable("Table", ("one", "twelve"), fewest_rows=3)
    table.fill([("name", ""), ("number", "")], [[(str(n), ""), ("1", "")] for n in range(6)], ())
    words, owner = Sentences("A sentence that takes several lines. " * 4), QWidget()
    panel, below = QWidget(), QLabel("below")
    stacked(panel, words, table, below).setStretch(1, 1)
    with_messages(owner, Pane(panel, grows=table), QLabel("said"))
    qtbot.addWidget(owner)
    owner.resize(320, 900)
    owner.show()
    frame = table.height() - table.viewport().height()
    rows = 6 * table.rowHeight(0)
    qtbot.wait_until(lambda: rows <= table.viewport().height() < rows + frame, timeout=5000)
    owner.resize(320, 200)  # too low for it: it is scrolled to, with the rows that it needs
    qtbot.wait_until(lambda: table.viewport().height() < 4 * table.rowHeight(0), timeout=5000)
    assert table.viewport().height() >= 3 * table.rowHeight(0)


@pytest.mark.filterwarnings("ignore")  # npe2's own
def test_a_menu_and_a_button_open_one_widget_under_one_title(qtbot, monkeypatch):
    docked: dict[str, QWidget] = {}
    titles: list[str] = []
    docks: list[QDockWidget] = []

    def add_dock_widget(widget, *, name, tabify):
        dock = QDockWidget(name)
        dock.setWidget(widget)
        docked[name] = widget
        titles.append(name)
        docks.append(dock)

    window = SimpleNamespace(dock_widgets=docked, add_dock_widget=add_dock_widget)

    class Widget(QWidget):
        def __init__(self, viewer):
            super().__init__()

    contribution = SimpleNamespace(
        plugin_name="napari-msp", display_name="Compare", get_callable=lambda: Widget
    )
    manager = SimpleNamespace(
        iter_widgets=lambda: [contribution],
        get_manifest=lambda name: SimpleNamespace(display_name="MSP Harmonization"),
    )
    monkeypatch.setattr("npe2.PluginManager.instance", lambda: manager)
    viewer = SimpleNamespace(window=window)
    first = open_widget(viewer, "Compare")
    assert titles == ["Compare (MSP Harmonization)"]  # as napari's menu has it
    assert open_widget(viewer, "Compare") is first
    assert len(titles) == 1


def test_words_that_come_above_move_nothing_that_is_in_use(qtbot):
    words, entry = QLabel("wrong\n" * 5), QLineEdit()
    inside, window = QWidget(), QWidget()
    stacked(inside, QLabel("\n" * 20), words, entry, QLabel("\n" * 60))
    stacked(window, Pane(inside))
    qtbot.addWidget(window)
    window.resize(300, 300)
    words.hide()
    window.show()
    qtbot.waitExposed(window)
    entry.setFocus()
    qtbot.wait(20)
    before = entry.mapTo(window, QPoint(0, 0)).y()
    words.show()
    qtbot.wait(50)
    assert entry.mapTo(window, QPoint(0, 0)).y() == before
    words.hide()
    qtbot.wait(50)
    assert entry.mapTo(window, QPoint(0, 0)).y() == before


class Busy(Docked):
    page = "review"
    answer = False
    asked = 0

    def leave(self):
        self.left = True

    def may_leave(self):
        self.asked += 1
        return self.answer


class Dock(QDockWidget):
    closed = False

    def destroyOnClose(self):  # noqa: N802 - napari's name
        self.closed = True


def test_a_dock_asks_before_something_is_stopped(qtbot):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari.components import ViewerModel

        widget = Busy(ViewerModel())
    window, dock = QMainWindow(), Dock()
    qtbot.addWidget(window)
    dock.setWidget(widget)
    window.addDockWidget(Qt.RightDockWidgetArea, dock)
    qtbot.wait(20)
    for widget.answer in (False, True):
        dock.destroyOnClose()
        assert dock.closed is widget.answer
    assert widget.asked == 2
