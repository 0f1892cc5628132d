"""Names and legends are broken into lines where cells are narrow, and whole where they are not."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_msp.ui.grid_fit import (
    LEGEND,
    LETTER,
    SPACE,
    broken,
    fit_legend,
    fitting,
    frame,
    shortened,
    taken_below,
    width_of,
)

pytestmark = pytest.mark.usefixtures("qapp")


def viewer(width):
    canvas = SimpleNamespace(overlays={}, size=(500, width))
    return SimpleNamespace(canvas=canvas)


def test_lines_are_broken_where_they_may_be():
    text = "sub-01 MSP prisma_st · expected error"
    width = 5 / fitting(["sub-01 MSP prisma_st"], 1, 1e9) + 1
    lines = broken(text, width, 5, " · ")
    assert lines == "sub-01 MSP prisma_st\nexpected error"
    assert fitting(lines.splitlines(), width, 5) == 5
    assert broken(text, 10_000, 5, " · ") == text
    assert broken("a\nb c", 0, 5).split("\n") == ["a", "b", "c"]
    run = "lesson-heads-tiny-3-msp-2026-11-30"
    both = [shortened(each, width_of("lesson-heads…30-2")) for each in (run, f"{run}-2")]
    assert both[0] != both[1]
    assert both[1].startswith("lesson") and both[1].endswith("-2")
    assert shortened(run, width_of(run) + 1) == run


@pytest.mark.filterwarnings("ignore")  # napari's own
def test_a_legend_is_seen_in_a_narrow_window_and_whole_again_in_a_wide_one():
    narrow = viewer(360)
    text = f"SH average: 0 to 1{SPACE}expected error: 0 to 0.0002\ncontrast of 6 predictions"
    from napari_msp.ui.canvas_drawing import show_legend

    show_legend(narrow, text)
    fit_legend(narrow)
    legend = narrow.canvas.overlays[LEGEND]
    assert legend.visible
    assert len(legend.text.splitlines()) > 2
    assert " ".join(legend.text.split()) == " ".join(text.replace("·", "").split())
    high = taken_below(narrow)
    narrow.canvas.size = (500, 1600)
    fit_legend(narrow)
    assert legend.text == text
    assert taken_below(narrow) > 0
    assert high > 4 * 8


def test_a_head_stands_in_the_middle_of_what_words_leave():
    brain = np.array([(0.0, 100.0)] * 3)
    for high, above, below in ((400.0, 30.0, 60.0), (240.0, 30.0, 60.0), (400.0, 60.0, 0.0)):
        centre, zoom = frame((high, 156.0), brain, (0, 1, 2), above, below)
        top = high / 2 - centre[0] * zoom
        bottom = high - top - 100 * zoom
        assert top - above == pytest.approx(bottom - below)
        assert top - above >= LETTER - 1e-9
