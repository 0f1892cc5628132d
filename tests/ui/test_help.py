"""Each widget has a packaged page of help, which the handbook includes."""

import re
from pathlib import Path

import pytest
import yaml
from qtpy.QtWidgets import QApplication, QTextBrowser, QWidget

import napari_msp
from napari_msp.ui.widgets.windows import Heading, Sheet, page_text

ROOT = Path(napari_msp.__file__).parent
REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(path.stem for path in (ROOT / "help").glob("*.md"))


def test_every_widget_has_a_page_with_its_name():
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    named = {each["display_name"] for each in manifest["contributions"]["widgets"]}
    assert {page_text(page).splitlines()[0].removeprefix("# ") for page in PAGES} == named


@pytest.mark.parametrize("page", PAGES)
def test_the_handbook_has_the_same_text(page):
    included = (REPOSITORY / f"docs/window/{page}.md").read_text(encoding="utf-8")
    assert included.startswith(f"```{{include}} ../../src/napari_msp/help/{page}.md\n")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_calls_by_name_is_in_the_window(page):
    """Bold words are labels, as are italic ones of several words: they stand so in the source."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "ui").rglob("*.py"))
    source = " ".join(texts).replace("&", "")
    bold = {
        " ".join(words.split()) for words in re.findall(r"\*\*(.+?)\*\*", page_text(page), re.S)
    }
    assert bold
    assert {words for words in bold if words not in source} == set()


def test_help_opens_its_page_beside_the_window(qtbot):
    window = QWidget()
    heading = Heading("harmonize")
    heading.setParent(window)
    qtbot.addWidget(window)
    window.show()
    assert heading.hint.isHidden()
    heading.help.click()
    (page,) = (each for each in QApplication.topLevelWidgets() if isinstance(each, Sheet))
    assert page.isVisible() and not page.isModal()
    assert page.windowTitle() == "Help: Harmonize"
    words = page.findChild(QTextBrowser).toPlainText()
    assert "Predicts, from the scan of one scanner" in words
    page.reject()


def test_the_hint_has_two_answers(qtbot):
    heading = Heading("train")
    qtbot.addWidget(heading)
    with qtbot.waitSignal(heading.sample_wanted):
        heading.show_me.click()
    with qtbot.waitSignal(heading.declined):
        heading.decline.click()
