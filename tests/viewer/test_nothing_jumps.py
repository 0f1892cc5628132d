"""Nothing moves under the mouse when something is said, is cut off, or scrolls sideways."""

import shutil
from functools import partial

import pytest
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QListWidget,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QTabBar,
    QTableWidget,
)

from napari_msp.ui.docks import Foot, Pane
from napari_msp.ui.harmonize.results import ResultRows
from napari_msp.ui.review.judging import Judging
from napari_msp.ui.widgets.form import FormRows
from napari_msp.ui.widgets.message import MessageLine, MessagePlace
from napari_msp.ui.widgets.progress import ProgressRow
from reviewed import folder

LONG = (
    "The scan sub-01_ses-ge_acq-st_dwi.nii.gz has voxels of 2.5 mm, the model was trained at "
    "2.4 mm: interpolate to its voxel size, or choose another model."
)
ROW = ("MSP → prisma_st", "83.0", "31.0", "▼ −63")
SIZES = [(1089, 629), (1600, 1000)]
LOW = 564  # of a dock in the lower one
INTERACTIVE = (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QListWidget,
    QTabBar,
    QTableWidget,
)


def placed(window):
    """Where everything is that can be used now, in the window; not what is offered in messages."""
    offered = {id(each) for place in messages(window) for each in place.findChildren(INTERACTIVE)}
    return {
        each: where(each, window)
        for each in window.findChildren(INTERACTIVE)
        if each.isVisible() and id(each) not in offered and not isinstance(each, QScrollBar)
    }


def where(widget, window):
    """Where a widget is in the window, and how large; None where it is not seen."""
    seen = widget.isVisible()
    return (widget.mapTo(window, QPoint(0, 0)), widget.size()) if seen else None


def settled(window, qtbot):
    """Where everything is once it has come to rest."""
    before, alike = placed(window), 0
    while alike < 3:
        qtbot.wait(100)
        now = placed(window)
        before, alike = now, alike + 1 if now == before else 0
    return before


def messages(widget):
    return widget.findChildren(MessagePlace)


def said(widget):
    """Say everything that can be said, one thing after the other."""
    for rows in widget.findChildren(FormRows):
        for names in (rows.names[:1], rows.names):
            for kind in ("problem", "doubt", "note"):
                yield f"{kind} of {names}", partial(say_of, names, rows, **{kind: LONG})
            yield f"nothing of {names}", partial(say_of, names, rows)
    for line in widget.findChildren(MessageLine):
        for words, offers in (("Saved.", ()), (LONG, ("Interpolate", "Details …"))):
            yield words, lambda w=words, o=offers, m=line: m.show_message("warning", w, o)
        yield "nothing", line.clear
    for row in widget.findChildren(ProgressRow):
        for words in ("Reading", LONG):
            yield words, lambda r=row, w=words: r.start(w)
            yield "further", lambda r=row: r.report(1, 2)
            yield "cancelling", row.request_cancel
            yield "the end", lambda r=row, w=words: r.end(w)
        yield "at rest", row.end
    for results in widget.findChildren(ResultRows):
        many = [ROW] * 6
        yield "results", lambda r=results, m=many: r.show_results("sub-01 ge_st", m, [LONG])
    for judging in widget.findChildren(Judging):
        for number in (3, 0):
            yield "known", lambda j=judging, n=number: j.show_entry("sub-01", "", (), [LONG] * n)


def say_of(names, rows, **words):
    """Say the same of some entries of a form."""
    for name in names:
        rows.say(name, **words)


def unseen(foot, qtbot, low):
    """What lies outside of its place of what is said, and offered, also while work goes on.

    In a low window that is scrolled to while work goes on.
    """
    (place,) = messages(foot)
    row = foot.findChildren(ProgressRow)[0]
    for line in foot.findChildren(MessageLine):
        for running in (False, True):
            if running:
                row.start("Reading")
            line.show_message("warning", LONG, ("Interpolate", "Details …"))
            qtbot.wait(20)
            for words in ("Reading", LONG):
                row.report(1, 2, words)
                qtbot.wait(20)
                scrolled = low and running
                yield from outside(place.widget() if scrolled else place.viewport(), line)
            if running and row.cancel.visibleRegion().boundingRect().size() != row.cancel.size():
                yield row.cancel.text()
            line.clear()
        row.end()


def outside(place, line):
    """What lies outside of a place of the words and buttons of a line."""
    for part in (line.words, *line.buttons):
        corner = part.mapTo(place, QPoint(0, 0))
        if not place.rect().contains(QRect(corner, part.size())):
            yield part.text()


def blanks(widget):
    """What napari adds below a widget that seems not to want its height."""
    items = (widget.layout().itemAt(number) for number in range(widget.layout().count()))
    return [each for each in items if each.spacerItem() is not None]


def sideways(widget):
    """What is wider than what it is scrolled in."""
    return [
        area.widget()
        for area in widget.findChildren(QScrollArea)
        if area.isVisible() and area.widget().width() > area.viewport().width()
    ]


def cut(widget):
    """Labels that have less room than their words need."""
    return [
        each.text()
        for each in widget.findChildren(QLabel)
        if each.isVisible() and each.text() and each.wordWrap()
        if each.height() < each.heightForWidth(each.width())
    ]


def prepared(name, widget, heads, reviewed, qtbot):
    """Bring a widget to where most of it can be seen."""
    if name == "Load acquisition":
        widget.form.path.choose(heads)
        qtbot.wait_until(lambda: widget.form.findings.ready)
    elif name == "Harmonize":
        qtbot.wait_until(lambda: bool(widget.form.models.checked))
        widget.results.show_results(
            "sub-01 ge_st", [("MSP → prisma_st", "83.0", "31.0", "▼ −63")], ()
        )
        widget.saving.show()
    elif name == "Review":
        widget.form.folder.choose(reviewed)
        widget.form.rater.setText("anna")
        widget.open()
        qtbot.wait_until(lambda: widget.session is not None)
        qtbot.wait_until(lambda: not widget.canvas.ahead.busy)
        table = widget.list.table
        assert table.viewport().height() >= 4 * table.rowHeight(0)
        widget.what.unfold(True)
    elif name == "Train":
        widget.form.dataset.write(heads)
        qtbot.wait_until(lambda: widget.form.heads is not None)
    elif name == "Align":
        widget.form.dataset.choose(heads)
        qtbot.wait_until(lambda: widget.form.findings.ready)
        widget.moves.show()


WIDGETS = ("Load acquisition", "Harmonize", "Compare", "Train", "Align", "Site effect", "Review")


@pytest.mark.parametrize("size", SIZES)
def test_nothing_moves_when_something_is_said(
    viewer, open_widget, heads, tmp_path, cache_folder, qtbot, size
):
    window = viewer.window._qt_window
    window.resize(*size)
    reviewed = folder(tmp_path / "predictions", 2)
    for name in WIDGETS:
        widget = open_widget(name)
        prepared(name, widget, heads, reviewed, qtbot)
        qtbot.wait_until(lambda w=widget: w.isVisible() and not w.visibleRegion().isEmpty())
        before = settled(window, qtbot)
        assert len(before) > 20
        # The last thing in its form: with each prediction it has one more row.
        grows = [each.table for each in widget.findChildren(ResultRows)]
        window.setUpdatesEnabled(False)  # what is placed need not be painted
        for words, say in said(widget):
            say()
            qtbot.wait(5)
            moved = {
                (each, each.accessibleName() or getattr(each, "text", str)()): (was, now)
                for each, was in before.items()
                if (now := where(each, window)) != was
                and (each not in grows or now is None or now[0] != was[0])
            }
            assert not moved, (name, words)
        (foot,) = widget.findChildren(Foot)
        assert list(unseen(foot, qtbot, size is SIZES[0])) == [], name
        assert blanks(widget) == [], name
        assert widget.minimumSizeHint().height() <= LOW, name
        assert sideways(widget) == [], name
        assert cut(widget) == [], name
        window.setUpdatesEnabled(True)
        viewer.window.remove_dock_widget(widget)
    shutil.rmtree(reviewed)


def test_a_pressed_button_that_is_switched_off_stays(qtbot):
    first, second = QPushButton("Work"), QPushButton("far below")
    gap = QLabel()
    gap.setMinimumHeight(900)
    pane = Pane(first, gap, second)
    qtbot.addWidget(pane)
    pane.resize(300, 200)
    pane.show()
    qtbot.wait_until(lambda: pane.verticalScrollBar().maximum() > 0)
    pane.activateWindow()
    first.setFocus()
    first.clicked.connect(lambda: first.setEnabled(False))
    first.click()
    qtbot.wait(50)
    assert pane.verticalScrollBar().value() == 0
