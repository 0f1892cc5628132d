"""Validation curves, and whether they are flat at their end."""

import numpy as np
import pytest

from napari_msp.evaluation.figures.curves import FLAT, change_at_end, curves_figure

STEPS = range(100, 1001, 100)


def falling(rate):
    return [(step, 1e-4 * (1 + 5 * np.exp(-rate * step / 1000))) for step in STEPS]


def test_the_change_is_that_of_the_last_fifth():
    line = [(step, 2.0 - step / 1000) for step in STEPS]  # 1.2, 1.1, 1.0 at 800, 900, 1000
    assert change_at_end(line) == pytest.approx(-100 * 0.2 / 1.1)
    assert change_at_end([(step, 3.0) for step in STEPS]) == pytest.approx(0, abs=1e-9)
    early, late = change_at_end(falling(2)), change_at_end(falling(20))
    assert early is not None and late is not None
    assert early < -FLAT
    assert abs(late) < FLAT


def test_sparse_curves_are_judged_by_their_last_two_points():
    assert change_at_end([(100, 2.0), (1000, 1.0)]) == pytest.approx(-100 * 0.2 * 1000 / 900 / 1.5)
    assert change_at_end([(100, 2.0)]) is None
    assert change_at_end([]) is None


def test_a_method_has_one_colour_and_its_name_stands_in_it():
    figure = curves_figure(
        {"prisma_st": {"DIQT": falling(2), "MSP": falling(9)}, "connectom_sa": {"MSP": falling(3)}}
    )
    curves = {
        (axes.get_title(), line.get_gid()): line
        for axes in figure.axes
        for line in axes.lines
        if line.get_gid()
    }
    assert set(curves) == {("prisma_st", "DIQT"), ("prisma_st", "MSP"), ("connectom_sa", "MSP")}
    colours = {key: line.get_color() for key, line in curves.items()}
    assert colours["prisma_st", "MSP"] == colours["connectom_sa", "MSP"]
    assert colours["prisma_st", "MSP"] != colours["prisma_st", "DIQT"]
    names = {
        label.get_text(): label.get_color()
        for axes in figure.axes
        for label in axes.get_yticklabels()
        if label.get_text() in ("DIQT", "MSP")
    }
    assert names == {name: colours["prisma_st", name] for name in ("DIQT", "MSP")}
    np.testing.assert_array_equal(curves["prisma_st", "DIQT"].get_xdata(), list(STEPS))


def test_no_curve_is_refused():
    with pytest.raises(ValueError, match="no curves"):
        curves_figure({"prisma_st": {}})
