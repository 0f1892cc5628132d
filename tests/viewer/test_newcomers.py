"""The hint for newcomers is there while nothing is open, and goes away for good."""

import pytest

from napari_msp.ui import docks
from napari_msp.ui.preferences import PLUGIN, preferences

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def newcomer():
    """Somebody whom nothing was hinted yet, and to whom it can be again afterwards."""
    from napari.settings import get_plugin_settings

    machine = get_plugin_settings(PLUGIN).machine
    assert machine.hint
    yield
    machine.hint = True


def test_a_declined_hint_is_gone_everywhere_and_for_good(newcomer, open_widget, qtbot):
    align, compare = open_widget("Align"), open_widget("Compare")
    hints = (align.heading.hint, compare.heading.hint)
    assert not any(hint.isHidden() for hint in hints)
    qtbot.wait_until(lambda: compare.isEnabled() and not align.isEnabled())  # the keys of a tab
    align.come_forward()
    qtbot.wait_until(lambda: align.isEnabled() and not compare.isEnabled())
    align.heading.decline.click()
    assert all(hint.isHidden() for hint in hints)
    assert not preferences().hint
    assert open_widget("Review").heading.hint.isHidden()


def test_the_hint_leads_to_the_sample_and_to_harmonize(viewer, newcomer, open_widget, monkeypatch):
    opened = []
    monkeypatch.setattr(docks, "open_sample", opened.append)
    monkeypatch.setattr(docks, "open_widget", lambda _, name: opened.append(name))
    open_widget("Align").heading.show_me.click()
    assert opened == [viewer, "Harmonize"]
    assert not preferences().hint


def test_a_form_that_offers_the_sample_needs_no_hint(newcomer, open_widget):
    assert open_widget("Load acquisition").heading.hint.isHidden()
