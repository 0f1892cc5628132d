"""Columns of panels are as wide as what they show."""

from qtpy.QtWidgets import QWidget

from napari_msp.ui.docks import Pane
from napari_msp.ui.widgets.form import Section, stacked


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
