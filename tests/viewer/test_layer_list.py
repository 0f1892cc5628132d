"""The list of layers tells predictions apart at the width that napari gives it."""

import numpy as np
import pytest
from patterns import head, measured, named, predicted
from qtpy.QtGui import QFontMetrics

from napari_msp.signal.maps import sh_average
from napari_msp.ui.docks import letter
from napari_msp.ui.layers import make_layer, map_layer


def test_names_of_ours_take_two_lines_and_others_are_left_alone(viewer, qtbot):
    from napari_msp.ui.layer_list import TwoLines, lines_of, show_whole_names

    letter(viewer)
    other = viewer.add_image(np.zeros((3, 3)), name="of another · program")
    assert type(viewer.window._qt_viewer.layers.itemDelegate()) is not TwoLines
    source = measured("ge_st", "front left")
    shown = [
        viewer.add_layer(make_layer(map_layer(scan, "SH average", sh_average(head()))))
        for scan in (predicted("MSP", "front left", source=source), source)
    ]
    rows = viewer.window._qt_viewer.layers
    assert isinstance(rows.itemDelegate(), TwoLines)
    delegate = rows.itemDelegate()
    show_whole_names()  # twice is once
    assert rows.itemDelegate() is delegate
    assert lines_of(other) == ()
    for layer in shown:
        owner, quantity = lines_of(layer)
        assert f"{owner} · {quantity}" == layer.name
    shown[0].name = "mine"
    assert lines_of(shown[0]) == ()
    qtbot.wait(50)


def test_a_hidden_map_has_its_small_picture(model):
    letter(model)
    scan = measured("ge_st", "front left")
    grey = sh_average(scan.sh)
    for values in (grey, np.repeat(grey[..., None] / grey.max(), 3, axis=-1)):
        layers = [
            model.add_layer(make_layer(map_layer(scan, "SH average", values, visible=seen)))
            for seen in (False, True)
        ]
        hidden, shown = (layer.thumbnail[..., :3].astype(float) for layer in layers)
        assert shown.max() > 100
        assert np.abs(hidden - shown).mean() < 10


@pytest.mark.parametrize("problem", [ImportError, AttributeError])
def test_another_napari_keeps_its_own_list(viewer, monkeypatch, problem):
    def fail():
        raise problem

    monkeypatch.setattr("napari_msp.ui.layer_list.show_whole_names", fail)
    rows = viewer.window._qt_viewer.layers
    known = rows.itemDelegate()
    letter(viewer)
    scan = measured("ge_st", "front left")
    layer = viewer.add_layer(make_layer(map_layer(scan, "SH average", sh_average(head()))))
    assert layer in viewer.layers
    assert rows.itemDelegate() is known


def test_the_longest_usual_names_fit(viewer, qtbot, monkeypatch):
    """A connectom target, and the longest quantity."""
    letter(viewer)
    scan = named(head(), "DIQT connectom_sa")
    data = map_layer(scan, "disagreement of order 0", sh_average(head()))
    layer = viewer.add_layer(make_layer(data))
    drawn = []

    def elided(metrics, text, mode, width):
        drawn.append((text, metrics.horizontalAdvance(text), width))
        return text

    monkeypatch.setattr(QFontMetrics, "elidedText", elided)
    viewer.window._qt_viewer.layers.viewport().repaint()
    qtbot.wait(50)
    room = {text: width - wide for text, wide, width in drawn}
    assert min(room[line] for line in layer.name.split(" · ")) >= 0
