"""Forms and their parts: rows, check lists, sections that fold, keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QKeySequence, QResizeEvent, QShortcut
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.message import Notices, Severity

MOST_ROWS = 5
"""Rows of a list that are visible at once; the rest is scrolled to."""

SHORTEST = 4
"""Minimum number of letters that a box to choose from has room for."""

UNTICKED = (
    "QListWidget::indicator:unchecked { width: 11px; height: 11px; "
    "border: 1px solid #8c929e; background: transparent; }"
)
"""Style of an empty box in a list, which napari's dark theme would hide; it suits light ones."""


@dataclass(frozen=True)
class _Row:
    label: QLabel
    cell: QWidget
    entry: QWidget


class FormRows(Themed):
    """Named rows of a form, each a label and an entry.

    Parameters
    ----------
    notices
        Shows elsewhere what is wrong with entries, or worth knowing: text under an entry would push
        those below from under the mouse. Labels of entries that are wrong are coloured.
    """

    def __init__(self, notices: Notices) -> None:
        super().__init__()
        self._notices = notices
        self._rows: dict[str, _Row] = {}
        self._said: dict[str, tuple[bool, str]] = {}
        # Qt's form layout cuts off text that takes more lines than expected.
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setColumnStretch(1, 1)
        self._layout.setColumnStretch(3, 1)
        self._pairs: list[tuple[_Row, _Row, int]] = []

    @property
    def names(self) -> list[str]:
        """Names of the rows in order."""
        return list(self._rows)

    def add(
        self,
        name: str,
        label: str,
        entry: QWidget,
        tooltip: str,
        more: QWidget | None = None,
        beside: bool = False,
    ) -> None:
        """Append a row.

        Parameters
        ----------
        name
            Name of the row.
        label
            Label, with a mnemonic that leads to the entry.
        entry, more
            Entry to fill in, and a widget that belongs under it.
        tooltip
            Tooltip of label and entry.
        beside
            Whether the row stands beside the one before, as short ones may where height is scarce.
        """
        row = _Row(QLabel(label), QWidget(), entry)
        shown = (each for each in (entry, more) if each is not None)
        stacked(row.cell, *shown).setSpacing(2)
        row.cell.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Minimum)
        row.label.setContentsMargins(0, 4, 0, 0)  # level with the entry's own text
        row.label.setBuddy(entry.focusProxy() or entry)  # else its key would lead nowhere
        for each in (row.label, entry):
            each.setToolTip(tooltip)
        entry.setAccessibleName(label.replace("&", ""))
        self._rows[name] = row
        number = self._layout.rowCount()
        if beside:
            before = list(self._rows.values())[-2]
            self._pairs.append((before, row, number - 1))
        self._layout.addWidget(row.label, number, 0, Qt.AlignTop)
        self._layout.addWidget(row.cell, number, 1, 1, 3, Qt.AlignTop)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Put a row beside the one before, or below it while letters are too large."""
        super().resizeEvent(event)
        for before, row, number in self._pairs:
            four = before.label, before.cell, row.label, row.cell
            wide = sum(each.sizeHint().width() for each in four) < self.width()
            low, column, span = (number, 2, 1) if wide else (number + 1, 0, 3)
            self._layout.addWidget(before.cell, number, 1, 1, span, Qt.AlignTop)
            self._layout.addWidget(row.label, low, column, Qt.AlignTop)
            self._layout.addWidget(row.cell, low, column + 1, 1, span, Qt.AlignTop)

    def head(self, title: str) -> None:
        """Begin a section of rows with its title."""
        label = QLabel(f"<b>{title}</b>")
        label.setContentsMargins(0, 8, 0, 0)
        self._layout.addWidget(label, self._layout.rowCount(), 0, 1, 4)

    def enable(self, name: str, enabled: bool) -> None:
        """Let a row be filled in, or not."""
        row = self._rows[name]
        row.label.setEnabled(enabled)
        row.cell.setEnabled(enabled)

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide a row."""
        row = self._rows[name]
        row.label.setVisible(visible)
        row.cell.setVisible(visible)

    def say(self, name: str, problem: str = "", note: str = "", doubt: str = "") -> None:
        """Say what is wrong with or doubtful about an entry, else a note on it."""
        row, words = self._rows[name], problem or doubt or note
        self._said[name] = bool(problem or doubt), words
        severity: Severity = "error" if problem else "warning" if doubt else "note"
        self._notices.say(row.label.text().replace("&", ""), severity, words)
        row.entry.setAccessibleDescription(words)
        self.restyle()

    def said(self, name: str) -> str:
        """Return what is said about an entry."""
        return self._said.get(name, (False, ""))[1]

    def restyle(self) -> None:
        """Colour the labels of entries that are wrong or doubtful."""
        colour = f"color: {colours_of(self).warning.name()}"
        for name, row in self._rows.items():
            style = colour if self._said.get(name, (False, ""))[0] else ""
            if row.label.styleSheet() != style:
                row.label.setStyleSheet(style)


class CheckList(QListWidget):
    """A list with a check box before each name; a click on the name, or Space, ticks it.

    It is as high as its names need, up to a few rows.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)
        self.setTextElideMode(Qt.ElideMiddle)  # names differ at either end
        self.setStyleSheet(UNTICKED)
        self.itemChanged.connect(self.changed)
        self._pressed: tuple[Any, Any] = None, None
        self.itemPressed.connect(self._press)
        self.itemClicked.connect(self._click)
        self.set_names(())

    def set_names(self, names: Sequence[str], checked: Sequence[str] = ()) -> None:
        """List names, some of them ticked."""
        with signals_blocked(self):
            self.clear()
            for name in names:
                item = QListWidgetItem(name, self)
                item.setFlags(Qt.ItemIsEnabled | Qt.ItemIsSelectable | Qt.ItemIsUserCheckable)
                item.setCheckState(Qt.Checked if name in checked else Qt.Unchecked)
        self.setFixedHeight(self.sizeHint().height())
        self.changed.emit()

    def _press(self, item: QListWidgetItem) -> None:
        self._pressed = item, item.checkState()

    def _click(self, item: QListWidgetItem) -> None:
        """Tick or untick what was clicked, unless Qt has done so as the click hit the box."""
        if self._pressed == (item, item.checkState()):
            item.setCheckState(Qt.Unchecked if item.checkState() == Qt.Checked else Qt.Checked)
        self._pressed = None, None

    @property
    def names(self) -> list[str]:
        """Names of all items."""
        return [self.item(row).text() for row in range(self.count())]

    @property
    def checked(self) -> list[str]:
        """Ticked names, in the order of the list."""
        items = [self.item(row) for row in range(self.count())]
        return [item.text() for item in items if item.checkState() == Qt.Checked]

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Keep the names visible when letters get larger."""
        super().changeEvent(event)
        if event.type() in (QEvent.FontChange, QEvent.StyleChange):
            self.setFixedHeight(self.sizeHint().height())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size that shows all names, but not those of a whole study."""
        row = self.sizeHintForRow(0) if self.count() else self.fontMetrics().height() + 6
        rows = min(max(1, self.count()), MOST_ROWS)
        return QSize(120, rows * row + 2 * self.frameWidth() + 2)


class FoldButton(QToolButton):
    """A title whose arrow says whether what belongs to it is visible, by mouse and by keyboard.

    Parameters
    ----------
    title
        Text; may hold a mnemonic.
    unfolded
        Whether it is unfolded at first; `toggled` tells of a change.
    """

    def __init__(self, title: str, unfolded: bool) -> None:
        super().__init__()
        self.setText(title)
        self.setCheckable(True)
        self.setAutoRaise(True)
        self.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self.toggled.connect(self._turn)
        self.setChecked(unfolded)
        self._turn(unfolded)

    def _turn(self, unfolded: bool) -> None:
        self.setArrowType(Qt.DownArrow if unfolded else Qt.RightArrow)


class Section(QWidget):
    """A title that shows and hides what is under it.

    Parameters
    ----------
    title
        Text; may hold a mnemonic.
    body
        Widget that is shown and hidden.
    *beside
        Widgets right of the title.
    unfolded
        Whether the body is visible at first.
    """

    def __init__(self, title: str, body: QWidget, *beside: QWidget, unfolded: bool = False) -> None:
        super().__init__()
        self.body = body
        self.button = FoldButton(title, unfolded)
        head = in_row(self.button, *beside)
        head.setAlignment(self.button, Qt.AlignLeft | Qt.AlignTop)
        stacked(self, head, body)
        body.setVisible(unfolded)
        self.button.toggled.connect(body.setVisible)

    def unfold(self, unfolded: bool) -> None:
        """Show or hide the body."""
        self.button.setChecked(unfolded)


def push_button(text: str, tip: str) -> QPushButton:
    """Make a button with a tooltip."""
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def stacked(owner: QWidget, *parts: QWidget | QLayout) -> QVBoxLayout:
    """Put widgets and layouts under each other into a widget, without a margin."""
    column = QVBoxLayout(owner)
    column.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        if isinstance(part, QLayout):
            column.addLayout(part)
        else:
            column.addWidget(part)
    return column


def in_row(*parts: QWidget) -> QHBoxLayout:
    """Put widgets beside each other."""
    row = QHBoxLayout()
    for part in parts:
        row.addWidget(part)
    return row


def scrolled(widget: QWidget) -> QScrollArea:
    """Put a widget into a scroll area, so that it may be larger than its place."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.NoFrame)
    return area


def offer(
    box: QComboBox,
    choices: Sequence[str] | Mapping[Any, str],
    chosen: object = None,
    barred: Collection[Any] = (),
) -> None:
    """Replace a box's choices, without a signal.

    Parameters
    ----------
    choices
        Different names, or the text for each value, which is then the box's `currentData`.
    chosen
        Choice to select; nothing is selected where it is missing. None keeps the present choice, or
        else selects the first.
    barred
        Values that are shown and cannot be chosen.
    """
    shown = choices if isinstance(choices, Mapping) else {name: name for name in choices}
    kept = box.currentData() if chosen is None else chosen
    with signals_blocked(box):
        box.clear()
        for value, text in shown.items():
            box.addItem(text, value)
            box.model().item(box.count() - 1).setEnabled(value not in barred)
        row = box.findData(kept)
        box.setCurrentIndex(max(0, row) if chosen is None else row)


def b_value_box(value: float, most: float) -> QDoubleSpinBox:
    """Make an entry of a b-value in s/mm², up to `most`, that emits when typing has ended."""
    box = QDoubleSpinBox()
    box.setRange(0, most)
    box.setDecimals(0)
    box.setSuffix(" s/mm²")
    box.setValue(value)
    box.setKeyboardTracking(False)
    return box


def on_keys(widget: QWidget, act: Callable[[], object], *keys: Qt.Key) -> None:
    """Call `act` when one of `keys` is pressed anywhere in a widget."""
    for key in keys:
        shortcut = QShortcut(QKeySequence(key), widget)
        shortcut.setContext(Qt.WidgetWithChildrenShortcut)
        shortcut.activated.connect(act)


def on_enter(widget: QWidget, act: Callable[[], object]) -> None:
    """Call `act` when either Enter key is pressed anywhere in a widget."""
    on_keys(widget, act, Qt.Key_Return, Qt.Key_Enter)


def fit_into_form(*boxes: QComboBox | QAbstractSpinBox) -> None:
    """Let the wheel scroll the form, not change a box, and a box be as narrow as the form.

    A choice that does not fit loses its middle.
    """
    for box in boxes:
        box.setFocusPolicy(Qt.StrongFocus)
        box.installEventFilter(_InForm(box))
        box.setMinimumWidth(1)
        if isinstance(box, QComboBox):
            box.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(SHORTEST)
            box.view().setTextElideMode(Qt.ElideMiddle)


class _InForm(QObject):
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Wheel:
            event.ignore()
            return True
        if event.type() != QEvent.Paint or not isinstance(watched, QComboBox):
            return False
        # Qt cuts the text off at its end.
        painter, option, style = QStylePainter(watched), QStyleOptionComboBox(), watched.style()
        watched.initStyleOption(option)
        field = QStyle.CC_ComboBox, option, QStyle.SC_ComboBoxEditField
        room = style.subControlRect(*field, watched).width() - 4
        option.currentText = option.fontMetrics.elidedText(option.currentText, Qt.ElideMiddle, room)
        painter.drawComplexControl(QStyle.CC_ComboBox, option)
        painter.drawControl(QStyle.CE_ComboBoxLabel, option)
        return True
