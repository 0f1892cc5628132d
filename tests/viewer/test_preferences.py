"""What is set in napari's preferences dialog is what the widgets go by."""

from pathlib import Path

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontInfo
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QLineEdit, QSpinBox

from napari_msp.ui.preferences import PLUGIN, preferences


@pytest.fixture
def page(viewer, qtbot):
    """The plugin's page of the dialog; what is set on it is taken back afterwards."""
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from napari.settings import get_plugin_settings

    before = get_plugin_settings(PLUGIN).machine.model_dump()
    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    qtbot.addWidget(dialog)
    dialog.show()
    (item,) = dialog._list.findItems("MSP Harmonization", Qt.MatchExactly)
    dialog._list.setCurrentItem(item)
    yield dialog._stack.currentWidget()
    machine = get_plugin_settings(PLUGIN).machine
    for name, value in before.items():
        setattr(machine, name, value)


def test_defaults_leave_the_choice_to_the_machine(viewer):
    assert preferences().device == "auto"
    assert preferences().tile is None
    assert preferences().memory is None
    assert preferences().precision == "float32"
    assert preferences().cache.name == PLUGIN


def test_what_is_set_on_the_page_is_used(page, tmp_path):
    device, precision = page.findChildren(QComboBox)
    device.setCurrentText("cpu")
    precision.setCurrentText("float16")
    page.findChild(QDoubleSpinBox).setValue(1.5)
    page.findChild(QSpinBox).setValue(48)
    field = page.findChildren(QLineEdit)[-1]
    field.setText(str(tmp_path))
    field.editingFinished.emit()
    now = preferences()
    assert (now.device, now.tile, now.cache) == ("cpu", 48, Path(tmp_path))
    assert (now.memory, now.precision) == (1.5, "float16")


def test_letters_are_as_large_as_napari_is_told(viewer, open_widget, qtbot):
    from napari.settings import get_settings

    form = open_widget("Load acquisition").form
    appearance = get_settings().appearance
    before, parts = appearance.font_size, (form.path.line, form.section.button)
    try:
        appearance.font_size = before + 6
        sizes = [QFontInfo(each.font()).pointSize() for each in parts]
        assert sizes == [before + 6] * 2
    finally:
        appearance.font_size = before
    assert QFontInfo(form.path.line.font()).pointSize() == before
