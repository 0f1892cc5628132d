"""α can be moved and put back; equation (1) says what it does."""

import re

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_msp.ui.compare.stages_tab import StagesPanel
from napari_msp.ui.model_diagram.drawing import Outline, equation, general_equation

MSP = Outline(
    "msp",
    "ge_st",
    "connectom_st",
    (("connectom_sa", "DIQT"), ("connectom_st", "SHResNet"), ("prisma_st", "SHResNet")),
)
DIQT = Outline("diqt", "ge_st", "prisma_st", (("prisma_st", "DIQT"),))


@pytest.fixture
def panel(qtbot):
    widget = StagesPanel()
    qtbot.addWidget(widget)
    widget.set_model(MSP, 1.0)
    widget.resize(340, 500)
    widget.show()
    return widget


def plain(text):
    return re.sub(r"<[^>]*>", "", text).replace("&nbsp;", " ")


@pytest.fixture
def told(panel):
    """Everything that the panel emits about α and branches, in order."""
    heard = []
    panel.alpha_changed.connect(lambda alpha: heard.append(("changed", alpha)))
    panel.alpha_released.connect(lambda alpha: heard.append(("released", alpha)))
    panel.branches.toggled.connect(lambda wanted: heard.append(("branches", wanted)))
    return heard


def test_the_equation_is_the_papers():
    assert plain(general_equation()) == "ŷ2T = (1−α) ŷ1T + α/(P−1) · (ŷ1T + Σi≠T NiT(zi))"


@pytest.mark.parametrize(
    ("alpha", "own", "branch"),
    [(0.0, "1.00", "0.00"), (0.6, "0.60", "0.20"), (1.0, "0.33", "0.33")],
)
def test_the_equation_has_the_weight_of_every_term(alpha, own, branch):
    expected = f"ŷ2T = {own} ŷ1T + {branch} N1T(z1) + {branch} N3T(z3)"
    assert plain(equation(MSP, alpha)) == expected


def test_moving_alpha_changes_all_that_shows_it(panel, told):
    panel.slider.setSliderDown(True)
    for position in (70, 60):
        panel.slider.setSliderPosition(position)
    assert told == [("changed", 0.7), ("changed", 0.6)]
    panel.slider.setSliderDown(False)
    assert told[2:] == [("released", 0.6)]
    assert panel.alpha == 0.6
    assert panel.value.text() == "0.60"
    assert "0.60 ŷ1T" in plain(panel.equation.text())


def test_a_key_moves_alpha_by_a_hundredth_and_releases_it(panel, told, qtbot):
    qtbot.keyClick(panel.slider, Qt.Key_Left)
    assert told == [("changed", 0.99), ("released", 0.99)]


def test_reset_gives_the_models_own_alpha_exactly(panel, told, qtbot):
    panel.set_model(MSP, 0.625)
    assert told == []
    assert not panel.reset.isEnabled()
    panel.slider.setValue(10)
    told.clear()
    qtbot.mouseClick(panel.reset, Qt.LeftButton)
    assert told == [("changed", 0.625), ("released", 0.625)]
    assert panel.alpha == 0.625
    assert not panel.reset.isEnabled()


def test_branches_are_asked_for_until_another_model_comes(panel, told, qtbot):
    qtbot.mouseClick(panel.branches, Qt.LeftButton)
    panel.set_model(DIQT, 1.0)
    assert told == [("branches", True), ("branches", False)]


def test_a_model_without_stages_is_drawn_and_says_so(panel):
    panel.set_model(DIQT, 1.0)
    assert "one stage" in panel.words.text()
    assert not panel.slider.isVisible()
    assert list(panel.diagram.buttons) == ["input", "second"]
    panel.set_model(MSP, 1.0)
    assert panel.slider.isVisible()
    assert not panel.words.isVisible()


def test_an_msp_of_one_target_has_no_alpha_to_move(panel):
    panel.set_model(Outline("msp", "ge_st", "a_st", (("a_st", "DIQT"),)), 1.0)
    assert "no branches" in panel.words.text()
    assert not panel.slider.isVisible()


def test_without_a_model_the_panel_says_what_to_do(panel):
    panel.clear()
    assert panel.words.isVisible()
    assert "choose one" in panel.words.text()
    assert list(panel.diagram.buttons) == []
    assert not panel.branches.isVisible()


def test_parts_are_passed_on_and_lit(panel, qtbot):
    with qtbot.waitSignal(panel.diagram.part_chosen) as chosen:
        qtbot.mouseClick(panel.diagram.buttons["first"], Qt.LeftButton)
    assert chosen.args == ["first"]
    panel.diagram.light("first")
    assert panel.diagram.lit == "first"


def test_tab_goes_from_the_diagram_over_alpha_to_the_branches(panel, qtbot):
    panel.slider.setValue(50)
    panel.diagram.buttons["second"].setFocus()
    order = []
    for _ in range(3):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key_Tab)
        order.append(QApplication.focusWidget())
    assert order == [panel.slider, panel.reset, panel.branches]
