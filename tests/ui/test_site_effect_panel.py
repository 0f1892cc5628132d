"""The site effect in the window: the form, the table, the words and the plot, without a viewer."""

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_msp.evaluation.benchmark.results import RegionValue, Results
from napari_msp.evaluation.proof.make_pages import with_derived
from napari_msp.evaluation.proof.pages import BEFORE, MEAN_OF_OTHERS, REPEAT, TARGET, ProofData
from napari_msp.evaluation.proof.site_effect_numbers import site_effects
from napari_msp.ui.docks import Pane
from napari_msp.ui.site_effect.form import SiteEffectForm
from napari_msp.ui.site_effect.panel import SiteEffectPanel
from napari_msp.ui.widgets.colours import colours_of

SCANS = (0.40, 0.44, 0.48)
ROWS = {
    TARGET: SCANS,
    BEFORE: tuple(0.8 * each for each in SCANS),
    "harmonized": (0.41, 0.44, 0.47),
    REPEAT: (0.404, 0.436, 0.48),
}


@pytest.fixture(scope="module")
def found():
    """White matter's FA by hand, fluid's MD; the second target has another region."""
    values = [
        RegionValue(row, target, "heads", 0, f"sub-{n}", "scan", region, key, scale * value)
        for target, places in (
            ("prisma_st", (("white matter", "fa", 1.0), ("fluid", "md", 0.005))),
            ("new_st", (("grey matter", "fa", 1.0),)),
        )
        for region, key, scale in places
        for row, of in ROWS.items()
        for n, value in enumerate(of)
    ]
    return site_effects(with_derived(ProofData(Results(values), "ge_st", "given")))


@pytest.fixture
def panel(qtbot, found):
    widget = SiteEffectPanel()
    qtbot.addWidget(widget)
    widget.show_found(found)
    return widget


def texts(panel):
    table = panel.table
    rows = range(table.rowCount())
    return {
        table.item(row, 0).text(): [table.item(row, c).text() for c in range(1, 6)] for row in rows
    }


def points(panel):
    curves = panel.plot.getPlotItem().listDataItems()
    return {each.name(): np.column_stack(each.getData()) for each in curves}


def test_in_a_pane_it_has_the_room_that_it_needs(found, qtbot):
    panel = SiteEffectPanel()
    pane = Pane(panel)
    qtbot.addWidget(pane)
    pane.resize(350, 300)
    pane.show()
    panel.show_found(found)
    qtbot.wait_until(lambda: panel.height() >= panel.minimumSizeHint().height())
    bottom = panel.plot.mapTo(panel, panel.plot.rect().bottomLeft()).y()
    assert bottom < panel.height()


def test_a_row_a_method_with_its_numbers(panel):
    assert panel.words.text() == (
        "FA of white matter, 3 subjects: 20.0 % lower than on prisma_st before; as high after "
        "(harmonized). Two scans of one subject on prisma_st differ by 0.6 %."
    )
    rows = texts(panel)
    assert list(rows) == [BEFORE, "harmonized", "mean of the others", "repeated scan"]
    # Between people 0.04 on the target; 0.8² of that variance before, (0.03 / 0.04)² after.
    # ICC: (2.592e-3 - 3.2e-5) / (2.592e-3 + 3.2e-5 + 2/3 (1.1616e-2 - 3.2e-5)).
    assert rows[BEFORE] == ["−20.0", "0.25", "−2.2", "64", "3 of 3"]
    assert rows["harmonized"][0] == "0.0"
    assert rows["harmonized"][3:] == ["56", "3 of 3"]
    assert rows["mean of the others"][1::2] == ["–", "25"]
    assert "95 % interval" in panel.table.item(0, 1).toolTip()
    tips = [panel.table.item(row, 0).toolTip() for row in range(4)]
    assert [tip.partition("</b>: ")[2].split()[0] for tip in tips] == ["the", "a", "a", "another"]


def test_a_point_a_subject(panel):
    drawn = points(panel)
    assert list(drawn) == [BEFORE, "harmonized", REPEAT]  # trivial ones when they are chosen
    scans = np.array(SCANS)
    np.testing.assert_allclose(drawn[BEFORE], np.column_stack([0.9 * scans, -0.2 * scans]))
    colours = colours_of(panel)
    names = [panel.table.item(n, 0) for n in range(panel.table.rowCount())]
    assert names[0].foreground().color() == colours.text
    assert names[2].foreground().color() == colours.line  # not drawn
    panel.table.selectRow(2)
    assert list(points(panel)) == [MEAN_OF_OTHERS]
    assert names[0].foreground().color() == colours.line
    panel.table.copy()
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].startswith("row\tbias\tbias_percent") and len(lines) == 2
    assert lines[1].startswith(MEAN_OF_OTHERS)


def test_another_quantity_has_its_own_regions_and_unit(panel):
    panel.quantities.setCurrentText("MD")
    assert [panel.regions.itemText(n) for n in range(panel.regions.count())] == ["fluid"]
    assert panel.words.text().startswith("MD of fluid, 3 subjects: 20.0 % lower")
    np.testing.assert_allclose(points(panel)[BEFORE][:, 1], -0.2 * 5 * np.array(SCANS), rtol=1e-6)
    panel.restyle()
    assert panel.plot.getAxis("left").autoSIPrefixScale == 1  # a new theme scales no numbers
    assert "10⁻³ mm²/s" in panel.plot.getAxis("bottom").labelText
    panel.scanners.setCurrentIndex(1)
    assert panel.words.text().startswith("FA of grey matter")
    panel.show_found(())
    assert panel.isHidden() and texts(panel) == {}


def test_the_form_asks_for_heads_and_says_what_is_wrong(qtbot, tmp_path):
    form = SiteEffectForm()
    qtbot.addWidget(form)
    assert not form.button.isEnabled()
    with qtbot.waitSignal(form.folder_chosen):
        form.folder.choose(tmp_path)
    form.show_heads(tmp_path / "heads")
    assert form.heads.path == tmp_path / "heads"
    assert form.chosen_regions == "tissue"
    with qtbot.waitSignal(form.act_wanted):
        form.button.click()
    form.regions.choose("labels.nii")
    form.say("regions", "Nothing there.")
    assert form.rows.said("regions") == "Nothing there."
    form.set_running(True)
    assert not form.button.isEnabled()
    form.set_running(False)
    form.folder.choose(tmp_path / "other")  # whose heads are others
    assert form.heads.path is None
