"""The curves show what the run told, also after a resume, and are quick for long runs."""

from dataclasses import replace

import numpy as np
import pytest
from pyqtgraph import InfiniteLine
from qtpy.QtGui import QColor, QPalette

from napari_msp.learning.events import (
    Aligned,
    Checkpointed,
    Shortened,
    Started,
    Step,
    Stopped,
    Validated,
)
from napari_msp.ui.train.curves import TrainingCurves, round_ticks
from napari_msp.ui.train.history import RunHistory, smoothed

PHASES = ["shresnet prisma_st", "diqt connectom_sa", "msp prisma_st", "msp connectom_sa"]
ALIGNED = {"prisma_st": 52e-5, "connectom_sa": 144e-5}
LONG = 25_000


def started(phases, steps, resumed_at=0, held_out=("sub-03",)):
    kind = "msp" if any("msp" in phase for phase in phases) else "shresnet"
    return Started(kind, "fast", "cpu", ["sub-01"], list(held_out), phases, 9, steps, resumed_at)


def steps(phase, first, count, loss=1.0):
    for k in range(count):
        alpha = k / count if phase.startswith("msp") else None
        yield Step(phase, 1, first + k, loss, 1e-3, alpha, 1e5, 60.0)


def run(per_phase, phases=PHASES):
    """A run whose loss is the number of its phase, and whose errors fall from phase to phase."""
    yield started(phases, per_phase * len(phases))
    yield Aligned(ALIGNED)
    for number, phase in enumerate(phases):
        yield from steps(phase, number * per_phase + 1, per_phase, loss=number + 1.0)
        done, target = (number + 1) * per_phase, phase.split()[1]
        error = ALIGNED[target] * (1.2 - 0.2 * number)
        yield Validated(phase, 1, done // 2, 1.0, {target: 1.1 * error})
        yield Validated(phase, 1, done, 1.0, {target: error})
        yield Checkpointed(done, "x")


@pytest.fixture
def curves(qtbot):
    widget = TrainingCurves()
    qtbot.addWidget(widget)
    widget.resize(350, 420)
    widget.show()
    return widget


def feed(curves, events):
    for event in events:
        curves.add_event(event)
    curves._draw()


# --- History -----------------------------------------------------------------------------------


def history_of(events):
    history = RunHistory()
    for event in events:
        history.add(event)
    return history


def test_history_keeps_phases_losses_alphas_and_errors_apart():
    history = history_of(run(10))
    assert [(p.name, p.start, p.stop) for p in history.phases] == [
        (name, 10 * i, 10 * i + 10) for i, name in enumerate(PHASES)
    ]
    np.testing.assert_array_equal(history.steps, np.arange(1, 41))
    np.testing.assert_array_equal(history.losses, np.repeat([1.0, 2, 3, 4], 10))
    assert np.isnan(history.alphas[:20]).all()
    np.testing.assert_allclose(history.alphas[20:30], np.arange(10) / 10)
    assert history.targets == ["prisma_st", "connectom_sa"]
    single, unison = history.errors("prisma_st")
    np.testing.assert_array_equal(single[0], [5, 10])
    np.testing.assert_allclose(single[1], [1.1 * 1.2 * 52e-5, 1.2 * 52e-5])
    assert list(unison[0]) == [15, 30]


def test_a_resumed_run_goes_on_from_its_checkpoint():
    events = [*run(10)]
    resumed = [
        *events,
        started(PHASES, 40, resumed_at=25),
        Aligned(ALIGNED),
        *steps("msp prisma_st", 26, 2, loss=7.0),
    ]
    history = history_of(resumed)
    np.testing.assert_array_equal(history.steps, np.arange(1, 28))
    assert list(history.losses[-3:]) == [3.0, 7.0, 7.0]
    assert [phase.name for phase in history.phases] == PHASES[:3]
    assert [list(s) for s, _ in history.errors("prisma_st")] == [[5, 10], [15]]
    again = history_of([*events, started(PHASES, 40)])
    assert len(again.steps) == 0 and again.phases == [] and again.last is None


def test_a_resumed_run_whose_beginning_is_unknown_starts_where_it_is(curves):
    feed(curves, [started(PHASES, 40, resumed_at=25), *steps(PHASES[2], 26, 12)])
    (low, high), _ = curves.loss.viewRange()
    assert low == 25
    assert high >= 37


def test_smoothing_averages_the_losses_before():
    losses = np.array([3.0, 1.0, 2.0])
    np.testing.assert_allclose(smoothed(losses), [3.0, 2.0, 2.0])
    rng = np.random.default_rng(0)
    noisy = 1 + rng.normal(size=5000)
    np.testing.assert_allclose(smoothed(noisy)[-1], noisy[-200:].mean())
    assert len(smoothed(np.empty(0))) == 0


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (28, 64, 4, [30, 40, 50, 60]),
        (0.41, 0.58, 3, [0.45, 0.5, 0.55]),
        (0.02, 7, 3, [0.1, 1]),
        (0.02, 7, 9, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]),
        (1e-6, 1e3, 5, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000]),
    ],
)
def test_a_logarithmic_axis_has_round_numbers(low, high, count, expected):
    assert round_ticks(low, high, count) == pytest.approx(expected)


# --- Picture -----------------------------------------------------------------------------------


def drawn(plot):
    """The curves of a plot: of losses all, their running mean, the latest."""
    return plot.getPlotItem().listDataItems()


def lines(plot, angle):
    """Where straight lines lie."""
    items = [each for each in plot.getPlotItem().items if isinstance(each, InfiniteLine)]
    return [each.value() for each in items if each.angle == angle]


def points(curve):
    """What a curve draws: steps and heights, without gaps."""
    x, y = curve.getData()
    if x is None:
        return np.empty(0), np.empty(0)
    keep = np.isfinite(y)
    return x[keep], y[keep]


def test_every_plot_shows_its_part_of_the_run(curves):
    feed(curves, run(10))
    x, y = points(drawn(curves.loss)[0])
    np.testing.assert_array_equal(x, np.arange(1, 41))
    np.testing.assert_allclose(10**y, np.repeat([1.0, 2, 3, 4], 10))
    x, y = points(drawn(curves.loss)[2])
    assert (list(x), list(10**y)) == ([40], [pytest.approx(4.0)])
    assert len(drawn(curves.errors)) == 4
    x, y = points(drawn(curves.alpha)[0])
    assert x.min() == 21
    assert "step 40 of 40" in curves.now.text() and "loss 4" in curves.now.text()


def test_phases_have_borders_and_names_or_numbers_and_a_key(curves, qtbot):
    feed(curves, run(10))
    for plot in (curves.loss, curves.errors, curves.alpha):
        assert lines(plot, 90) == [10.5, 20.5, 30.5]
    shown = [text for _, text in curves.loss.getAxis("top")._tickLevels[0]]
    assert shown == ["1", "2", "3", "4"]
    assert "2&nbsp;DIQT&nbsp;connectom_sa" in curves.phases.text()
    curves.resize(900, 420)
    qtbot.waitUntil(lambda: not curves.phases.isVisible())
    shown = [text for _, text in curves.loss.getAxis("top")._tickLevels[0]]
    assert shown[1] == "DIQT\nconnectom_sa"


def test_the_line_to_beat_is_drawn_and_told_before_the_first_error(curves):
    feed(curves, [started(PHASES, 40), Aligned(ALIGNED)])
    heights = sorted(10**height for height in lines(curves.errors, 0))
    assert heights == pytest.approx([52, 144])
    _, (low, high) = curves.errors.viewRange()
    assert 10**low < 52 and 10**high > 144
    assert "statistical&nbsp;alignment" in curves.targets.text()


def test_each_target_has_a_colour_and_a_mark_of_its_own(curves):
    feed(curves, run(10))
    looks = [
        (line.opts["symbol"], line.opts["pen"].color().name()) for line in drawn(curves.errors)
    ]
    prisma_single, prisma_unison, connectom_single, _ = looks
    assert prisma_single == prisma_unison
    assert prisma_single[0] != connectom_single[0]
    assert prisma_single[1] != connectom_single[1]
    for mark in ("●", "■"):
        assert mark in curves.targets.text()


def test_a_single_point_is_seen(curves):
    phase = PHASES[:1]
    feed(curves, [started(phase, 40), *steps(phase[0], 1, 1, loss=1.9)])
    x, y = points(drawn(curves.loss)[2])
    assert (x[0], 10 ** y[0]) == (1, pytest.approx(1.9))
    (left, right), (low, high) = curves.loss.viewRange()
    assert left < 1 < right and 10**low < 1.9 < 10**high
    assert not curves.alpha.isVisible()  # no MSP, no α


def test_without_held_out_subjects_the_curves_say_what_is_missing(curves):
    phase = PHASES[:1]
    feed(curves, [started(phase, 40, held_out=()), *steps(phase[0], 1, 5)])
    assert not curves.errors.isVisible()
    assert "No subject is held out" in curves.targets.text()


def test_validation_subjects_stand_for_held_out_ones_where_there_are_none(curves):
    phase, errors = PHASES[0], {"prisma_st": 50e-5}
    begun = started([phase], 40, held_out=())
    begun = replace(begun, validation=["sub-02"])
    aligned = Aligned({}, ALIGNED)
    feed(curves, [begun, aligned, *steps(phase, 1, 5), Validated(phase, 1, 5, 1.0, {}, errors)])
    assert curves.errors.isVisible()
    assert "Validation SH MSE" in curves._error_title.text()
    assert curves.history.aligned == ALIGNED
    ((x, y),) = curves.history.errors("prisma_st")
    assert (x.tolist(), y.tolist()) == ([5], [50e-5])
    assert "┈" not in curves.targets.text()


def test_validation_subjects_are_dotted_beside_held_out_ones(curves):
    phase = PHASES[0]
    both = Validated(phase, 1, 5, 1.0, {"prisma_st": 60e-5}, {"prisma_st": 50e-5})
    feed(curves, [started([phase], 40), *steps(phase, 1, 5), both])
    assert "Held-out SH MSE" in curves._error_title.text()
    assert "┈┈" in curves.targets.text()
    _, dotted = drawn(curves.errors)
    assert points(dotted)[1] == pytest.approx(np.log10([50]))


def test_a_phase_that_ends_before_its_time_shortens_the_run():
    history = history_of([started(PHASES, 400), Shortened(PHASES[0], 3, 30, 340)])
    assert history.started.steps == 340


def test_a_long_run_is_drawn_with_few_points_its_peaks_among_them(curves):
    events = [*run(LONG), Step(PHASES[-1], 1, 4 * LONG + 1, 99.0, 1e-3, 1.0, 1e5, 60.0)]
    events += steps(PHASES[-1], 4 * LONG + 2, LONG // 10)
    feed(curves, events)
    last = 4 * LONG + LONG // 10 + 1
    assert len(curves.history.steps) == last
    for curve in (drawn(curves.loss)[0], drawn(curves.loss)[1], drawn(curves.alpha)[0]):
        assert len(points(curve)[0]) < 4000
    x, y = points(drawn(curves.loss)[0])
    assert x[-1] > last - 100
    assert x[y.argmax()] == pytest.approx(4 * LONG, abs=100)
    assert 10 ** y.max() == pytest.approx(99)
    assert points(drawn(curves.loss)[2])[0] == [last]


def test_many_events_make_few_pictures(curves, qtbot):
    drawn = []
    curves.alpha.show_run = lambda *_: drawn.append(1)
    for event in run(500):
        curves.add_event(event)
    assert drawn == []
    qtbot.waitUntil(lambda: len(drawn) == 1)


def test_a_hidden_widget_draws_when_it_is_shown(curves, qtbot):
    curves.hide()
    for event in run(10):
        curves.add_event(event)
    assert not curves._timer.isActive()
    curves.show()
    assert len(points(drawn(curves.loss)[0])[0]) == 40


def test_clear_forgets_the_run(curves):
    feed(curves, run(10))
    curves.clear()
    assert len(points(drawn(curves.loss)[0])[0]) == 0
    assert drawn(curves.errors) == lines(curves.errors, 0) == []
    assert lines(curves.loss, 90) == []
    assert "Nothing is trained" in curves.now.text()


def test_a_run_that_is_stopped_before_its_first_step_says_so(curves):
    def numbers():
        return curves.loss.getAxis("left").style["showValues"]

    feed(curves, [started(PHASES, 240), Aligned(ALIGNED)])
    assert "The run begins" in curves.now.text()
    feed(curves, [Stopped(0, "x")])
    assert "ended before its first step" in curves.now.text()
    assert not numbers()
    feed(curves, [started(PHASES, 240)])
    assert "The run begins" in curves.now.text()
    feed(curves, [*steps(PHASES[0], 1, 3), Stopped(3, "x")])
    assert "step 3" in curves.now.text()
    assert numbers()


def test_plots_follow_the_theme(curves):
    feed(curves, run(10))
    for window, text in (("#23242b", "#f0f1f2"), ("#ebe7e6", "#1e1e21")):
        palette = QPalette()
        palette.setColor(QPalette.Window, QColor(window))
        palette.setColor(QPalette.WindowText, QColor(text))
        curves.setPalette(palette)
        image = curves.loss.grab().toImage()
        assert image.pixelColor(image.width() - 2, image.height() - 2).name() == window
