"""Beside the grid of Fig. 3: flicker, signed differences, linked contrast, before, doubts."""

from dataclasses import replace

import numpy as np
import pytest
from patterns import SHAPE, measured, predicted
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_msp.signal.maps import sh_average
from napari_msp.ui.layers import make_layer, map_layer
from napari_msp.ui.viewer_axes import to_shown


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


@pytest.fixture
def compare(viewer, open_widget, qtbot):
    """Compare scans: gives a function that does, and waits."""
    widget = open_widget("Compare")

    def show(predictions, *others):
        for scan in (*others, *predictions):
            layer = map_layer(scan, "SH average", sh_average(scan.sh))
            viewer.add_layer(make_layer(layer))
        widget.compare_predictions(predictions)
        qtbot.wait_until(lambda: not widget.comparing.running)
        qtbot.wait(20)
        return widget

    return show


@pytest.fixture
def scan():
    return measured("ge_st", "back left")


@pytest.fixture
def truth():
    return measured("prisma_st", "front right")


@pytest.fixture
def compared(compare, scan, truth):
    made = [predicted("DIQT", "front left", scan), predicted("MSP", "front right", scan)]
    return compare(made, truth, scan)


def shown(image):
    return to_shown(np.where(image.mask, sh_average(image), 0), image.lattice)


def test_a_held_key_and_words_while_numbers_are_made(
    viewer, compared, truth, scan, monkeypatch, qtbot
):
    """One comparison for both: to make it takes longer than to look."""
    check_a_held_key_shows_truth_and_input_in_place(viewer, compared, truth, scan)
    check_there_are_words_while_numbers_are_made(compared, monkeypatch, qtbot)


def check_a_held_key_shows_truth_and_input_in_place(viewer, compared, truth, scan):
    layers = compared.grid.layers
    own = [layer.data.copy() for layer in layers]
    names = [layer.name for layer in layers]
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_window.activateWindow()
    for key, held in ((Qt.Key_G, truth), (Qt.Key_H, scan)):
        QTest.keyPress(canvas, key)
        for number in (1, 2):
            np.testing.assert_array_equal(layers[number].data, shown(held.sh))
            assert layers[number].name.strip() == f"sub-01 {held.platform} · SH average"
        QTest.keyRelease(canvas, key)
        for layer, data, name in zip(layers, own, names, strict=True):
            np.testing.assert_array_equal(layer.data, data)
            assert layer.name == name
    compared.leave()
    QTest.keyPress(canvas, Qt.Key_G)  # nothing happens any more
    QTest.keyRelease(canvas, Qt.Key_G)


def check_there_are_words_while_numbers_are_made(widget, monkeypatch, qtbot):
    said = []
    real = widget.table.clear

    def clear(*words):
        said.append(words)
        real(*words)

    monkeypatch.setattr(widget.table, "clear", clear)
    widget.show_comparison()
    qtbot.wait_until(lambda: not widget.comparing.running)
    assert said
    assert all(words and "being measured" in words[0] for words in said)


def test_differences_have_a_sign_and_one_scale(compared, truth):
    compared.form.errors.setCurrentIndex(1)
    _, diqt, msp = (compared.comparing.compared.comparison.predictions.get(name) for name in
                    ("", "DIQT", "MSP"))  # fmt: skip
    layers = compared.grid.layers[4:]
    for layer, maps in zip(layers, (diqt, msp), strict=True):
        wanted = maps["sh_average"] - sh_average(truth.sh)
        expected = to_shown(np.where(truth.sh.mask, wanted, 0), truth.sh.lattice)
        np.testing.assert_allclose(layer.data, expected, atol=1e-7)
        low, high = layer.contrast_limits
        assert low == -high
        assert layer.name.endswith("minus truth")
        below, zero, above = layer.colormap.map(np.array([0.0, 0.5, 1.0]))[:, :3]
        assert below[2] > below[0]  # blue
        assert above[0] > above[2]  # orange
        assert zero.max() < 0.02
    assert layers[0].contrast_limits == layers[1].contrast_limits
    compared.form.maps.setCurrentText("colour FA")  # has no sign
    compared.form.errors.setCurrentIndex(0)


def test_contrast_is_linked_within_a_row(viewer, compared):
    layers = compared.grid.layers
    errors = [tuple(each.contrast_limits) for each in layers[4:]]
    layers[1].contrast_limits = (0.01, 0.05)
    assert {tuple(each.contrast_limits) for each in layers[:4]} == {(0.01, 0.05)}
    assert [tuple(each.contrast_limits) for each in layers[4:]] == errors
    assert "SH average now 0.01 to 0.05" in viewer.canvas.overlays["napari_msp_legend"].text
    layers[5].contrast_limits = (0.0, 1e-4)
    assert tuple(layers[4].contrast_limits) == (0.0, 1e-4)
    assert tuple(layers[0].contrast_limits) == (0.01, 0.05)


def test_worse_than_before_is_said(compare, truth):
    scan = measured("ge_st", "front right", square="middle")  # nearly right
    widget = compare([predicted("DIQT", "back left", scan)], truth, scan)
    table = widget.table.table
    assert table.item(0, 0).text() == "before"
    assert table.item(1, 2).text().startswith("▲ +")
    assert widget.verdict.text.startswith("DIQT is worse than before: SH MSE +")
    assert not widget.verdict.isHidden()


def test_without_truth_the_expected_error_comes_first(viewer, compare, scan):
    branches = {"a": "back right", "b": "front right"}
    made = predicted("MSP", "front left", scan, branches=branches)
    expected = np.zeros(SHAPE, dtype=np.float32)
    expected[3, 4] = 2e-4
    calibrated = replace(made, given_expected_error=expected)
    widget = compare([calibrated], scan)
    layer = widget.grid.layers[-1]
    assert layer.name == "sub-01 MSP · expected error"
    seen = np.nan_to_num(layer.data)
    np.testing.assert_allclose(seen, to_shown(expected * made.sh.mask, made.sh.lattice))
    legend = " ".join(viewer.canvas.overlays["napari_msp_legend"].text.split())
    assert "expected error (for scans like those of its calibration): 0 to " in legend
    assert "SH units²" in legend
    assert "no numbers" in widget.table.words.text().lower()


def test_a_calibrated_model_beside_another_hides_no_disagreement(viewer, compare, scan):
    branches = {"a": "back right", "b": "front right"}
    first, second = (predicted(n, "front left", scan, branches=branches) for n in ("MSP", "older"))
    calibrated = replace(first, given_expected_error=np.full(SHAPE, 2e-4, dtype=np.float32))
    widget = compare([calibrated, second], scan)
    names = [layer.name for layer in widget.grid.layers[-2:]]
    assert names == ["sub-01 MSP · disagreement", "sub-01 older · disagreement"]
    words = viewer.canvas.overlays["napari_msp_legend"].text
    assert "disagreement (not all models are calibrated): 0 to " in words
