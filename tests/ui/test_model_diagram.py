"""The diagram tells the truth about a model, and its parts can be reached and lit."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import QApplication

import napari_msp
from napari_msp.model_file import load_model
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single
from napari_msp.ui.model_diagram.diagram import ModelDiagram
from napari_msp.ui.model_diagram.drawing import Outline, Symbol, draw, outline_of
from napari_msp.ui.widgets.colours import colours_of

PACKAGED = Path(napari_msp.__file__).parent / "models"
PLATFORMS = ("connectom_sa", "connectom_st", "prisma_st")


def parts(kind="msp", target="prisma_st", platforms=PLATFORMS):
    titles = ("DIQT", "SHResNet", "CNN-RISH", "SHResNet", "SHResNet", "SHResNet")
    return Outline(kind, "ge_st", target, tuple(zip(platforms, titles, strict=False)))


MODELS = {
    "P=4": parts(),
    "P=3": parts(platforms=("connectom_sa", "prisma_st")),
    "P=2": parts(platforms=("prisma_st",)),
    "P=7": parts(platforms=(*PLATFORMS, "a_st", "b_st", "c_st")),
    "shared": replace(parts(), shared=True),
    "single": parts("diqt", platforms=("prisma_st",)),
    "another package's": parts("u-net", platforms=("prisma_st",)),
    "cpm": parts("cpm"),
    "hned": parts("hned"),
}


@pytest.fixture
def diagram(qtbot):
    widget = ModelDiagram()
    qtbot.addWidget(widget)
    widget.set_model(parts())
    widget.resize(360, widget.sizeHint().height())
    widget.show()
    return widget


def test_parts_are_those_of_the_packaged_models():
    msp = outline_of(load_model(PACKAGED / "msp-teaching.safetensors"), "connectom_st")
    assert (msp.kind, msp.input, msp.target) == ("msp", "ge_st", "connectom_st")
    assert dict(msp.networks) == dict.fromkeys(PLATFORMS, "SHResNet")
    assert msp.branches == ("connectom_sa", "prisma_st")
    diqt = outline_of(load_model(PACKAGED / "diqt-teaching.safetensors"), "prisma_st")
    assert diqt == Outline("diqt", "ge_st", "prisma_st", (("prisma_st", "DIQT"),))
    assert diqt.branches == ()


@pytest.mark.parametrize("kind", ["cpm", "hned"])
def test_a_multi_task_network_has_a_part_for_each_platform_the_target_last(kind):
    model = load_model(PACKAGED / "diqt-teaching.safetensors")
    scales = {"prisma_st": 1, "connectom_sa": 2}
    network = build_single(kind, target="prisma_st", scales=scales, width=0.1)
    card = model.card.model_copy(update={"architectures": {"prisma_st": network.config()}})
    platforms = [
        platform for platform, _ in outline_of(replace(model, card=card), "prisma_st").networks
    ]
    assert platforms == ["connectom_sa", "prisma_st"]


def test_first_stages_that_targets_share_are_told_apart(diagram):
    model = load_model(PACKAGED / "msp-teaching.safetensors")
    assert outline_of(model, "prisma_st").shared
    card = model.card.model_copy(update={"first_stages": "own"})
    assert not outline_of(replace(model, card=card), "prisma_st").shared
    without = diagram.minimumSizeHint().height()
    diagram.set_model(MODELS["shared"])
    assert diagram.accessibleName() == (
        "Diagram of MSP for prisma_st, first stages shared by all targets"
    )
    assert diagram.minimumSizeHint().height() > without
    layout = diagram._layout
    networks = [layout.boxes[f"N {platform}"] for platform in PLATFORMS]
    assert all(f.contains(box) for f, box in zip(layout.frames, networks, strict=True))
    assert not any(layout.note.intersects(band) for band in layout.bands)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_weights_are_those_that_the_network_uses(alpha):
    scales = dict.fromkeys(PLATFORMS, 1)
    singles = {
        each: build_single("shresnet", target=each, scales=scales, width=0.1) for each in PLATFORMS
    }
    with torch.no_grad():
        outputs = MSP(singles, "prisma_st", width=0.1)(torch.randn(1, 28, 3, 3, 3), alpha)
    terms = outputs.branches | {"prisma_st": outputs.first["prisma_st"]}
    weights = parts().weights(alpha)
    mixed = sum(weights[platform] * term for platform, term in terms.items())
    torch.testing.assert_close(mixed, outputs.second)


def test_the_way_to_a_branch_leads_through_its_own_network_only():
    drawing = draw(parts())
    node = drawing.parts["branch:connectom_sa"]
    assert node.symbol == Symbol("N", below="1T", argument=Symbol("z", below="1"))
    way = {(edge.start, edge.end) for edge in drawing.way_to(node.name)}
    assert way == {
        ("x", "N connectom_sa"),
        ("N connectom_sa", "z connectom_sa"),
        ("z connectom_sa", node.name),
    }
    carried = {edge.weight_of for edge in drawing.edges if edge.end == "mean"}
    assert carried == set(PLATFORMS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [0, 320, 460, 700])
def test_nothing_overlaps_or_leaves_the_widget(name, width, diagram):
    diagram.set_model(MODELS[name])
    diagram.resize(max(width, diagram.minimumSizeHint().width()), 10)
    diagram.resize(diagram.width(), diagram.minimumSizeHint().height())
    boxes = diagram._layout.boxes
    for box in boxes.values():
        assert box.left() >= 0 and box.right() <= diagram.width()
        assert box.top() >= 0 and box.bottom() <= diagram.height()
    for one, other in combinations(boxes, 2):
        assert not boxes[one].intersects(boxes[other]), (one, other)
    for part in diagram.buttons:
        assert diagram.rect().contains(diagram.buttons[part].geometry())


def test_four_platforms_fit_into_a_narrow_dock(diagram):
    assert diagram.minimumSizeHint().width() <= 320


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P=4", ["input", "branch:connectom_sa", "branch:connectom_st", "first", "second"]),
        ("P=2", ["input", "first", "second"]),
        ("single", ["input", "second"]),
        ("another package's", ["input", "second"]),
        ("cpm", ["input", "second"]),
        ("hned", ["input", "second"]),
    ],
)
def test_parts_with_an_output_can_be_chosen(name, expected, diagram, qtbot):
    diagram.set_model(MODELS[name])
    assert list(diagram.buttons) == expected
    for part in expected:
        with qtbot.waitSignal(diagram.part_chosen) as chosen:
            qtbot.mouseClick(diagram.buttons[part], Qt.LeftButton)
        assert chosen.args == [part]
        assert diagram.lit == ""  # what is lit follows what is shown, not the click


@pytest.mark.parametrize("key", [Qt.Key_Return, Qt.Key_Enter, Qt.Key_Space])
def test_parts_are_reached_by_keys(key, diagram, qtbot):
    diagram.buttons["input"].setFocus()
    qtbot.keyClick(diagram.buttons["input"], Qt.Key_Right)
    qtbot.keyClick(diagram.buttons["branch:connectom_sa"], Qt.Key_Tab)
    focused = QApplication.focusWidget()
    assert focused is diagram.buttons["branch:connectom_st"]
    with qtbot.waitSignal(diagram.part_chosen) as chosen:
        qtbot.keyClick(focused, key)
    assert chosen.args == ["branch:connectom_st"]
    assert focused.accessibleName() == (
        "Branch: prisma_st predicted from the features of connectom_st"
    )
    assert "two 3D convolutions" in focused.toolTip()


def coloured(widget, colour):
    """Count the pixels of one colour."""
    image = widget.grab().toImage()
    return sum(
        image.pixelColor(x, y) == colour
        for x in range(image.width())
        for y in range(image.height())
    )


def test_lighting_a_part_fills_it_and_draws_the_way_to_it(diagram):
    lit = colours_of(diagram).lit
    assert coloured(diagram, lit) == 0
    diagram.light("branch:connectom_sa")
    assert diagram.lit == "branch:connectom_sa"
    assert diagram.buttons["branch:connectom_sa"].isChecked()
    assert not diagram.buttons["first"].isChecked()
    one = coloured(diagram, lit)
    assert one > 500
    diagram.light("second")
    assert coloured(diagram, lit) > 200
    diagram.light("no such part")
    assert diagram.lit == ""
    assert coloured(diagram, lit) == 0


def test_arrows_are_as_wide_as_their_terms_weigh(diagram):
    def thickness(part):
        """Painted pixels in the column just behind the lane."""
        box = diagram.buttons[part].geometry()
        x = round(diagram._layout.bands[0].right()) + 2
        image = diagram.grab().toImage()
        ground = colours_of(diagram).ground
        column = range(box.center().y() - 14, box.center().y() + 14)
        return sum(
            abs(image.pixelColor(x, y).lightness() - ground.lightness()) > 12 for y in column
        )

    diagram.set_alpha(0.0)
    own, branch = thickness("first"), thickness("branch:connectom_sa")
    diagram.set_alpha(1.0)
    assert thickness("first") < own
    assert thickness("branch:connectom_sa") > branch


def test_the_drawing_follows_the_theme(diagram):
    for window, text in (("#23242b", "#f0f1f2"), ("#ebe7e6", "#1e1e21")):
        palette = QPalette()
        palette.setColor(QPalette.Window, QColor(window))
        palette.setColor(QPalette.WindowText, QColor(text))
        diagram.setPalette(palette)
        image = diagram.grab().toImage()
        assert image.pixelColor(1, 1).name() == window
        assert coloured(diagram, QColor(text)) > 100


def test_without_a_model_nothing_is_drawn(diagram):
    diagram.set_model(None)
    assert list(diagram.buttons) == []
    assert diagram.sizeHint().height() == 0
    diagram.grab()
