"""The voxel inspector: bars are the coefficients, curves the signal, sides those of the picture."""

from dataclasses import replace

import numpy as np
import pyqtgraph as pg
import pytest

from napari_msp.evaluation.figures.slices import PLANES
from napari_msp.signal.spherical_harmonics import signal_profile
from napari_msp.ui.compare.voxel_plots import Scale, rounded_up
from napari_msp.ui.compare.voxel_tab import LOW, NOTHING, Trace, VoxelPanel
from napari_msp.ui.widgets.colours import colours_of


def coefficients(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.05, 28)
    values[0] = 1.4 + 0.1 * seed
    return values.astype(np.float32)


TRUTH = Trace("ground truth", coefficients(0), is_truth=True)
DIQT, MSP = Trace("DIQT prisma_st", coefficients(1)), Trace("MSP & co", coefficients(2))


@pytest.fixture
def panel(qtbot):
    widget = VoxelPanel()
    qtbot.addWidget(widget)
    widget.resize(360, 560)
    widget.show()
    return widget


def bars(panel):
    """Visible bars by colour: (28,) heights, left to right and top to bottom."""
    found = {}
    items = [each for each in panel.bars.scene().items() if isinstance(each, pg.BarGraphItem)]
    visible = [each for each in items if each.isVisible()]
    for item in sorted(visible, key=lambda each: len(each.opts["height"])):
        colour = pg.mkBrush(item.opts["brush"]).color().name()
        found.setdefault(colour, []).append(item.opts["height"])
    return {colour: np.concatenate(heights) for colour, heights in found.items()}


def curves(panel):
    """Visible curves by colour: x and y in S/S₀."""
    plot = panel.profile.getPlotItem()
    lines = [each for each in plot.curves if each.opts["antialias"] and each.isVisible()]
    return {
        pg.mkPen(line.opts["pen"]).color().name(): tuple(
            data * float(end(panel)) for data in line.getData()
        )
        for line in lines
    }


def words(panel):
    items = panel.profile.scene().items()
    return {each.toPlainText(): each for each in items if isinstance(each, pg.TextItem)}


def end(panel):
    (number,) = [text for text in words(panel) if text.replace(".", "").isdigit()]
    return number


def test_bars_are_the_coefficients_of_every_image(panel):
    panel.show_voxel("voxel 1, 2, 3", [TRUTH, DIQT, MSP], "axial")
    colours = colours_of(panel)
    names = [colours.text.name(), *(each.name() for each in colours.series[:2])]
    found = bars(panel)
    assert set(found) == set(names)
    for name, trace in zip(names, (TRUTH, DIQT, MSP), strict=True):
        np.testing.assert_array_equal(found[name], trace.coefficients)
    assert panel.position.text() == "voxel 1, 2, 3"
    assert "MSP&nbsp;&amp;&nbsp;co" in panel.legend.text()


@pytest.mark.parametrize("plane", PLANES)
def test_curves_are_the_signal_and_sides_are_those_of_the_picture(panel, plane):
    panel.show_voxel("", [TRUTH, DIQT], plane)
    found = list(curves(panel).values())
    assert len(found) == 2
    for (x, y), trace in zip(found, (TRUTH, DIQT), strict=True):
        angles, signal = signal_profile(trace.coefficients, plane, 120)
        np.testing.assert_allclose(x[:-1], signal * np.cos(angles), atol=1e-6)
        np.testing.assert_allclose(y[:-1], signal * np.sin(angles), atol=1e-6)
        assert (x[0], y[0]) == (x[-1], y[-1])  # closed
    assert f"S/S₀\n{plane}" in words(panel)
    left, right, top, bottom = (words(panel)[letter].pos() for letter in PLANES[plane].letters)
    assert left.x() < -1 < 1 < right.x()
    assert bottom.y() < -1 < 1 < top.y()


def test_a_signal_below_zero_is_none(panel):
    dip = np.zeros(28)
    dip[0], dip[3] = 0.3, 2.0
    panel.show_voxel("", [Trace("odd", dip)], "sagittal")
    _, signal = signal_profile(dip, "sagittal", 120)
    assert signal.min() < -0.1
    ((x, y),) = curves(panel).values()
    np.testing.assert_allclose(np.hypot(x, y)[:-1], np.maximum(signal, 0), atol=1e-6)


def test_the_next_voxel_moves_what_is_there(panel):
    panel.show_voxel("a", [TRUTH, DIQT], "axial")
    before = set(map(id, panel.bars.scene().items())), set(map(id, panel.profile.scene().items()))
    moved = [Trace("ground truth", coefficients(5), is_truth=True), DIQT]
    panel.show_voxel("b", moved, "coronal")
    after = set(map(id, panel.bars.scene().items())), set(map(id, panel.profile.scene().items()))
    assert before == after
    shown = bars(panel)[colours_of(panel).text.name()]
    np.testing.assert_array_equal(shown, coefficients(5))


def test_other_images_get_other_bars(panel):
    panel.show_voxel("a", [TRUTH, DIQT, MSP], "axial")
    panel.show_voxel("a", [MSP], "axial")
    assert len(bars(panel)) == len(curves(panel)) == 1
    assert "ground" not in panel.legend.text()


def test_clearing_leaves_words(panel):
    assert panel.position.text() == NOTHING
    assert not panel.bars.isVisible()
    panel.show_voxel("a", [TRUTH], "axial")
    assert panel.bars.isVisible()
    panel.clear("outside the brain")
    assert panel.position.text() == "outside the brain"
    assert bars(panel) == curves(panel) == {}
    panel.setStyleSheet("QWidget { background-color: #202020; color: #f0f0f0; }")
    assert bars(panel) == curves(panel) == {}


def test_it_follows_the_theme(panel):
    panel.show_voxel("a", [TRUTH, DIQT], "axial")
    panel.setStyleSheet("QWidget { background-color: #202020; color: #f0f0f0; }")
    assert "#f0f0f0" in bars(panel)
    np.testing.assert_array_equal(bars(panel)["#f0f0f0"], TRUTH.coefficients)
    shown = panel.grab().toImage()
    assert shown.pixelColor(shown.width() - 3, shown.height() - 3).name() == "#202020"
    panel.setStyleSheet("QWidget { background-color: #f0f0f0; color: #202020; }")
    assert "#202020" in bars(panel)
    assert "#202020" in curves(panel)


def test_values_and_profile_are_seen_at_once_where_it_is_low(panel, qtbot):
    images = [replace(each, value="0.234") for each in (TRUTH, DIQT, MSP, replace(MSP, name="in"))]
    where = "R 63.6 · P 57.6 · S 18.0 mm  (voxel 59 24 7)\nx, y, z: 63.6, -57.6, 18.0 mm"
    panel.show_voxel(where, images, "axial", "FA")
    qtbot.wait(1)
    assert panel.profile.y() > panel.bars.geometry().bottom()
    assert panel.minimumSizeHint().height() + panel.fontMetrics().height() + 10 < LOW  # and Hold
    for low in (True, False, True):
        panel.arrange(low=low)
        qtbot.wait(1)
    panel.resize(320, panel.minimumSizeHint().height())
    qtbot.wait(1)
    assert panel.profile.x() > panel.legend.geometry().right()
    assert panel.profile.geometry().bottom() < panel.bars.y() < 150
    assert panel.bars.geometry().bottom() <= panel.rect().bottom() < 310


@pytest.mark.parametrize(
    ("value", "end"), [(0.53, 0.6), (0.6, 0.6), (0.61, 0.8), (9.0, 10), (1, 1), (0, 1), (13, 20)]
)
def test_axes_end_at_round_numbers(value, end):
    assert rounded_up(value) == pytest.approx(end)


def test_axes_rest_until_they_do_not_fit():
    scale = Scale()
    assert scale.fit(0.5)
    assert not scale.fit(0.41)
    assert scale.top == pytest.approx(0.6)
    assert scale.fit(0.7)
    assert not scale.fit(0.5)
    assert scale.fit(0.2)
    assert scale.top == pytest.approx(0.2)


def test_the_value_of_the_shown_map_stands_beside_each_name(panel):
    truth, diqt = replace(TRUTH, value="0.43"), replace(DIQT, value="0.4")
    panel.show_voxel("a", [truth, diqt], "axial", "FA")
    assert "FA" in panel.legend.text()
    assert "0.43" in panel.legend.text()
    panel.show_voxel("b", [replace(truth, value="0.51"), diqt], "axial", "FA")
    assert "0.51" in panel.legend.text()
    panel.clear()
    assert "FA" not in panel.legend.text()
