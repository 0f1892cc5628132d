"""The base class of the plugin's docked widgets, and the panes and message areas in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from qtpy.QtCore import QEvent, QMargins, QObject, QPoint, QRect, QSize, Qt, QTimer, QUrl
from qtpy.QtGui import QCursor, QDesktopServices, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QDockWidget,
    QFrame,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.background import BackgroundJob, OneByOne
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.grid_fit import InView
from napari_msp.ui.preferences import PLUGIN, hint_no_more, letter_size, preferences
from napari_msp.ui.shared import shared_by
from napari_msp.ui.widgets.colours import FocusRing
from napari_msp.ui.widgets.form import on_keys, stacked
from napari_msp.ui.widgets.message import MessageLine, MessagePlace
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import Heading

if TYPE_CHECKING:
    import napari

USUAL_WIDTH = 370
"""Usual width of a column, in pixels: its lines are easy to read."""


SHARE = 6
"""A widget's message area takes one part in this many of its height, and what a form leaves."""

LINES, ENOUGH = 7, 9
"""Height of the message area in lines: at least, four of text and buttons; and with a progress row.
Where there is less than enough, the text is scrolled."""

MARGIN = 9
"""Pixels left and right of messages."""

LETTERS = "QLineEdit, QToolButton, QTableView, QHeaderView, Themed, Foot {{ font-size: {}pt }}"
"""Style for the widgets that napari leaves at the system's font size, whatever size is chosen."""

SETTLED = 50
"""Milliseconds after which what was filled has its height (our choice)."""

GUARDED = "napari_msp_guarded"
"""Property of docks whose close button asks first."""


class Docked(QWidget):
    """A widget that lets go of the viewer when its dock is closed.

    Parameters
    ----------
    viewer
        Viewer that it is docked in; images of heads there have orientation letters from now on.

    Attributes
    ----------
    page
        Name of its help page.
    offers_sample
        Whether its form leads to the sample anyway.
    heading
        Top row that subclasses place first: help, and a hint while nothing is open.
    """

    page: ClassVar[str]
    offers_sample: ClassVar[bool] = False

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.heading = Heading(self.page)
        if not self.offers_sample and not viewer.layers and preferences().hint:
            self.heading.hint.show()
        self.heading.sample_wanted.connect(self._show_sample)
        self.heading.declined.connect(self._hint_no_more)
        letter(viewer)
        crosshair_of(viewer)
        self._ring: FocusRing | None = None
        QApplication.instance().focusChanged.connect(self._show_focus)

    def leave(self) -> None:
        """Stop running work; a widget that follows the viewer lets go of it, too."""
        for kind in (BackgroundJob, OneByOne):
            for each in self.findChildren(kind):
                each.stop()

    def may_leave(self) -> bool:
        """Ask whether to leave where something would be stopped; return the answer."""
        return True

    def _show_focus(self, before: QWidget | None, now: QWidget | None) -> None:
        """Show which part has the focus, unless it was pressed by the mouse."""
        if now is not None and self.isAncestorOf(now) and not QApplication.mouseButtons():
            self._ring = FocusRing(now)  # keep a reference: Qt does not keep Python objects alive

    def _hint_no_more(self) -> None:
        hint_no_more()
        for each in self.window().findChildren(Heading):
            each.hint.hide()

    def _show_sample(self) -> None:
        """Lead a newcomer to the sample and to Harmonize; the hint is not shown again."""
        self._hint_no_more()
        open_sample(self.viewer)
        open_widget(self.viewer, "Harmonize")

    def event(self, event: QEvent) -> bool:
        """Leave when the dock was closed, which takes this widget out of its window."""
        if event.type() == QEvent.ParentChange and self.parent() is None:
            self.leave()
        elif event.type() == QEvent.ParentChange:
            QTimer.singleShot(0, self._settle)
        return bool(super().event(event))

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Use the font size that is chosen for napari."""
        super().changeEvent(event)
        style = LETTERS.format(letter_size())
        if event.type() == QEvent.StyleChange and self.styleSheet() != style:
            self.setStyleSheet(style)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Keep the window open where the user, when asked, would rather stay."""
        if event.type() == QEvent.Close and event.spontaneous() and not self.may_leave():
            event.ignore()
            return True
        return bool(super().eventFilter(watched, event))

    def _settle(self) -> None:
        self._share_tabs()
        dock = _dock_of(self)
        close = getattr(dock, "destroyOnClose", None)
        if dock is None or close is None or dock.property(GUARDED):
            return
        dock.setProperty(GUARDED, True)
        # Behind another tab Qt calls it visible: its keys would get in the way of those seen.
        dock.visibilityChanged.connect(self.setEnabled)
        dock.destroyOnClose = lambda: close() if self.may_leave() else None  # napari's button calls
        self.window().installEventFilter(self)

    def _share_tabs(self) -> None:
        """Become a tab beside the plugin's other widgets: stacked, each has too little room."""
        window, own = self.window(), _dock_of(self)
        if not isinstance(window, QMainWindow) or own is None:
            return
        area = window.dockWidgetArea(own)
        for other in window.findChildren(Docked):
            dock = _dock_of(other)
            if dock is None or dock is own or dock.isFloating() or own.isFloating():
                continue
            alike = window.dockWidgetArea(dock) == area
            if alike and dock.isVisibleTo(window):
                if dock not in window.tabifiedDockWidgets(own):
                    window.tabifyDockWidget(dock, own)
                QTimer.singleShot(0, own.raise_)  # once it is a tab
                return

    def come_forward(self) -> bool:
        """Bring the dock to the front; return whether it was hidden or behind another."""
        dock = _dock_of(self)
        if dock is None or not self.visibleRegion().isEmpty():
            return False
        dock.show()
        dock.raise_()
        return True

    def on_escape(self, act: Callable[[], object]) -> None:
        """Call `act` when Escape is pressed anywhere in this widget."""
        on_keys(self, act, Qt.Key_Escape)


Around = TypeVar("Around", bound=QWidget)


def _around(widget: QWidget, kind: type[Around]) -> Around | None:
    """Return the nearest widget of a kind that this one lies in; None where there is none."""
    above = widget.parentWidget()
    while above is not None and not isinstance(above, kind):
        above = above.parentWidget()
    return above


def _dock_of(widget: QWidget) -> QDockWidget | None:
    return _around(widget, QDockWidget)


class Pane(QScrollArea):
    """A column of panels: scrolled up and down where the window is low, never sideways.

    It is at least as wide as its widest part needs.

    Parameters
    ----------
    *parts
        Panels from top to bottom.
    rest
        Widget below them, which takes the height that they leave, but at least its minimum.
    grows
        Widget inside the last part that is as high as its hint where there is room.

    Attributes
    ----------
    takes_rest
        Whether there is such a widget.
    """

    def __init__(
        self, *parts: QWidget, rest: QWidget | None = None, grows: QWidget | None = None
    ) -> None:
        super().__init__()
        inside = QWidget()
        column = QVBoxLayout(inside)
        for part in parts:
            column.addWidget(part)
        self.takes_rest = rest is not None
        self._grows = grows
        if rest is not None:
            rest.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Ignored)
            column.addWidget(rest, 1)
        elif grows is not None:
            column.setStretchFactor(parts[-1], 1)
        else:
            column.addStretch(1)
        self.setFrameShape(QFrame.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self._column = column
        self._margins = column.contentsMargins()
        self._places: WeakKeyDictionary[QWidget, QRect] = WeakKeyDictionary()
        self._soon = QTimer(self, singleShot=True, timeout=self._hold)
        self.setWidget(inside)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Ask for another width when the parts need one: unfolded forms are wider than folded."""
        if event.type() == QEvent.LayoutRequest:
            self._keep_width()
            self.updateGeometry()
            self._soon.start()
        return bool(super().eventFilter(watched, event))

    def _keep_width(self) -> None:
        """Show the scroll bar where the parts are higher than the pane, else keep its room free.

        So lines keep their breaks when the bar appears. Qt's own way also tries whether the parts
        fit into the bar's room, and flickers where they nearly fit.
        """
        scrolls, margins = self._too_high(), QMargins(self._margins)
        margins.setRight(self._right - (self._bar_width if scrolls else 0))
        if self._column.contentsMargins() != margins:
            self._column.setContentsMargins(margins)
        policy = Qt.ScrollBarAlwaysOn if scrolls else Qt.ScrollBarAlwaysOff
        if self.verticalScrollBarPolicy() != policy:
            self.setVerticalScrollBarPolicy(policy)

    def _too_high(self) -> bool:
        """Return whether the parts, as wide as they always are, need more height than there is."""
        inside, frame = self.widget(), 2 * self.frameWidth()
        taken = self._right - self._column.contentsMargins().right()  # taken by the bar now
        high = inside.heightForWidth(self.width() - frame - taken)
        return bool(max(high, inside.minimumSizeHint().height()) > self.height() - frame)

    @property
    def _right(self) -> int:
        """Pixels right of the parts: a margin in which the bar has room."""
        return max(int(self._margins.right()), self._bar_width)

    @property
    def _bar_width(self) -> int:
        return int(self.verticalScrollBar().sizeHint().width())

    def _hold(self) -> None:
        """Keep the widget in use at its place when text appears or disappears above it."""
        inside, held = self.widget(), self._in_use()
        if held is not None and held.isVisible() and held in self._places:
            bar = self.verticalScrollBar()
            bar.setValue(bar.value() + _place_of(held, inside).y() - self._places[held].y())
        shown = (each for each in inside.findChildren(QWidget) if each.isVisible())
        self._places = WeakKeyDictionary({each: _place_of(each, inside) for each in shown})

    def _in_use(self) -> QWidget | None:
        """Return the button under the mouse, else the widget that has the focus."""
        inside = self.widget()
        if self.underMouse():
            spot = inside.mapFromGlobal(QCursor.pos())
            for each, place in self._places.items():
                if isinstance(each, QAbstractButton) and place.contains(spot):
                    return each
        focused: QWidget | None = inside.focusWidget()
        return focused

    def focusNextPrevChild(self, forward: bool) -> bool:  # noqa: N802 - Qt's name
        """Scroll to where the Tab key leads, but not when a pressed button is switched off."""
        focused = self.widget().focusWidget()
        if focused is not None and not focused.isEnabled():
            return bool(QWidget.focusNextPrevChild(self, forward))
        return bool(super().focusNextPrevChild(forward))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Leave room for the scroll bar, and for the frame that a style may draw."""
        width = self.widget().minimumSizeHint().width() + 2 * self.frameWidth()
        width += self._right - self._column.contentsMargins().right()  # as with a bar
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for room to show everything."""
        width = max(USUAL_WIDTH, self.minimumSizeHint().width())
        inside = self.widget()
        high = inside.heightForWidth(inside.width()) if inside.hasHeightForWidth() else -1
        high = high if high >= 0 else inside.sizeHint().height()
        if self._grows is not None and self._grows.isVisibleTo(inside):
            high += self._grows.sizeHint().height() - self._grows.minimumSizeHint().height()
        return QSize(width, high + 2 * self.frameWidth())

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Ask for another height: text takes fewer lines where there is more room."""
        super().resizeEvent(event)
        self._keep_width()
        if event.oldSize().width() != event.size().width():
            self.updateGeometry()


def _place_of(widget: QWidget, inside: QWidget) -> QRect:
    return QRect(widget.mapTo(inside, QPoint(0, 0)), widget.size())


class Foot(QWidget):
    """A widget's message area. Its height never depends on the text, so that nothing else moves.

    Progress bars, with Cancel, stand above the text, which can be scrolled.

    Parameters
    ----------
    *said
        Messages and progress rows, from top to bottom.
    """

    def __init__(self, *said: QWidget) -> None:
        super().__init__()
        rows = [each for each in said if isinstance(each, ProgressRow)]
        self._said = said
        words = (each.words if isinstance(each, ProgressRow) else each for each in said)
        self._place = MessagePlace(*words)
        self._place.setViewportMargins(MARGIN, 0, MARGIN, 0)
        bars = QVBoxLayout()
        bars.setContentsMargins(MARGIN, 0, MARGIN, 0)
        for row in rows:
            bars.addWidget(row)
            row.said.connect(partial(self._bring_words, row))
        column = stacked(self, bars, self._place)
        column.setSpacing(2)
        column.setStretchFactor(self._place, 1)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the same height whatever the text."""
        return QSize(1, LINES * self.fontMetrics().lineSpacing())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for room for everything that is said at once."""
        return QSize(1, ENOUGH * self.fontMetrics().lineSpacing())

    def _bring_words(self, row: ProgressRow) -> None:
        """Show that work has begun, unless that hides a message; always show how it ended."""
        above = self._said[: self._said.index(row)]
        spoken = any(each.text for each in above if isinstance(each, MessageLine))
        if row.state == "ended" or not spoken:
            self._place.bring(row.words)


def with_messages(owner: QWidget, upper: QWidget, *said: QWidget) -> QVBoxLayout:
    """Lay out a widget with one message area at its foot.

    What is said stands below the last button of a form, which leaves all room below to it. Its
    height does not depend on what it says.

    Parameters
    ----------
    upper
        The rest of the widget.
    *said
        Messages and progress rows, from top to bottom.
    """
    foot = Foot(*said)
    takes_rest = not isinstance(upper, Pane) or upper.takes_rest
    # Where neither takes the rest, napari adds a blank.
    enough, rest = QSizePolicy.Maximum, QSizePolicy.Expanding
    upper.setSizePolicy(QSizePolicy.Preferred, rest if takes_rest else enough)
    foot.setSizePolicy(QSizePolicy.Preferred, enough if takes_rest else rest)
    column = stacked(owner, upper, foot)
    column.setStretchFactor(upper, SHARE - 1)
    column.setStretchFactor(foot, 1)
    return column


def reveal(widget: QWidget) -> None:
    """Scroll what a widget lies in until the widget is seen, once it has its place."""
    pane = _around(widget, QScrollArea)
    if pane is not None:
        QTimer.singleShot(SETTLED, partial(pane.ensureWidgetVisible, widget))


def open_widget(viewer: napari.Viewer, name: str) -> Any:
    """Open a widget as a tab in front of those that are docked; return it.

    Stacked docks would leave each too little room. It is the widget that the menu opens, under the
    same title.

    Parameters
    ----------
    viewer
        Viewer in whose window it opens.
    name
        Its name in the menu, such as "Compare".
    """
    from npe2 import PluginManager

    manager = PluginManager.instance()
    widgets = [each for each in manager.iter_widgets() if each.plugin_name == PLUGIN]
    kind: Any = next(each for each in widgets if each.display_name == name).get_callable()
    window = viewer.window
    widget = next((each for each in window.dock_widgets.values() if isinstance(each, kind)), None)
    if widget is None:
        widget = kind(viewer)
        title = f"{name} ({manager.get_manifest(PLUGIN).display_name})"
        window.add_dock_widget(widget, name=title, tabify=True)
    dock = _dock_of(widget)
    assert dock is not None
    dock.show()
    dock.raise_()
    return widget


def current_viewer() -> napari.Viewer | None:
    """Return the viewer of the window in use, with letters; None where there is none."""
    import sys

    if "napari._qt.qt_main_window" not in sys.modules:  # importing it would take seconds
        return None
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        letter(viewer)
    return viewer


def letter(viewer: napari.Viewer) -> None:
    """Show orientation letters in a viewer while it has heads, and keep the heads in view."""
    from napari_msp.ui import canvas_drawing  # imports napari's private parts

    shared_by(viewer).one(canvas_drawing.Letters)
    shared_by(viewer).one(InView)


def open_sample(viewer: napari.Viewer) -> None:
    """Open the simulated heads."""
    viewer.open_sample(PLUGIN, "travelling_heads")


def open_page(page: Path, message: MessageLine) -> None:
    """Open a page in the browser, or say where it is."""
    if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(page.absolute()))):
        message.show_message("warning", f"No program opens pages here. It is {page.absolute()}")
