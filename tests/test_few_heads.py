"""The benchmark of few heads: its arithmetic by hand, and all of its parts on tiny heads."""

import few_heads
import numpy as np
import pytest
import semireal
from far.anatomy import Anatomy
from far.changes import CHANGES
from far.sets import SETS
from few.biology import MAPS, came_through
from few.cells import INPUT, SCALES, Bench, Cell, seconds_of, steps_within, strangers
from few.goals import LEAST, Goal, all_goals, interval, ratio, time_to
from few.methods import METHODS, STATISTICS_ONLY, weights_of_msp
from few.plan import Plan, at_chosen_rates, chosen_rates
from few.report import page

from napari_msp import packaged
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.files import write_json
from napari_msp.signal.spherical_harmonics import design_matrix

SINGLE, MSP = "SHResNet, from base", "MSP, from base"


def row(method, steps, values, part="curves", where="flint", heads=("sub-01",), **more):
    """Give a row whose two heads have these errors, the same on scans."""
    return {
        "part": part,
        "set": where,
        "method": method,
        "targets": list(values),
        "heads": list(heads),
        "steps": steps,
        "rate": 1e-3,
        "every_measure": False,
        "told": [],
        "seconds": float(steps),
        "errors": {
            target: {
                f"sub-0{5 + number}": {
                    reference: {"sh_mse": value} for reference in ("noise-free", "scan")
                }
                for number, value in enumerate(both)
            }
            for target, both in values.items()
        },
    } | more


def goals_of(rows, text):
    return {goal.where: goal for goal in all_goals(rows) if goal.text.startswith(text)}


def test_time_to_an_error_lies_between_the_points():
    curve = [(0.0, 9.0), (100.0, 8.0), (400.0, 2.0)]
    assert time_to(curve, 4.0) == pytest.approx(200.0)
    assert time_to(curve, 9.5) == 0.0
    assert time_to(curve, np.sqrt(72.0)) == pytest.approx(50.0)
    assert time_to(curve[1:], 8.5) == 100.0
    assert time_to(curve, 1.0) is None


def test_a_ratio_is_the_mean_of_sets_whatever_their_errors():
    sets = {
        "easy": ({("a", "x"): 1.0, ("a", "y"): 3.0}, {("a", "x"): 2.0, ("a", "y"): 6.0}),
        "hard": ({("a", "x"): 80.0}, {("a", "x"): 10.0, ("b", "x"): 1.0}),
    }
    assert ratio(sets) == pytest.approx(np.sqrt(0.5 * 8))
    # The easy set twice, whose heads agree, or the hard one twice.
    assert (interval(sets) or (0.0, 0.0)) == pytest.approx((0.5, 8.0))
    assert interval({"easy": ({("a", "x"): 1.0}, {("a", "x"): 2.0})}) is None
    assert ratio({}) is None


def test_a_goal_is_met_up_to_its_limit():
    assert Goal("", "", 0.2, 0.2).met == "yes"
    assert Goal("", "", 0.21, 0.2).met == "no"
    assert Goal("", "", None, 0.2).met == "not measured"
    assert Goal("", "", float("inf"), 0.2).met == "no"


def test_a_goal_of_what_comes_through_is_met_from_its_limit_on():
    assert Goal("", "", 0.9, 0.9, at_least=True).met == "yes"
    assert Goal("", "", 0.89, 0.9, at_least=True).met == "no"
    parts = {change: {"predicted": 0.92, "input": 0.8} for change in LEAST}
    found = {"set": "flint", "method": MSP, "steps": 3000, "found": {"new_st": parts}}
    goals = {goal.text: goal.met for goal in all_goals([], [found]) if goal.ratio is not None}
    assert goals == {
        f"{MSP}: part of a change that comes through: weaker bundle": "no",
        f"{MSP}: part of a change that comes through: lesion": "yes",
        f"{MSP}: part of a change that comes through: no inner fluid": "yes",
    }


def test_goals_compare_what_they_say():
    rows = [
        row("SHResNet, from nothing", 100, {"new_st": (8.0, 8.0)}),
        row("SHResNet, from nothing", 3000, {"new_st": (4.0, 4.0)}),
        row(SINGLE, 0, {"new_st": (9.0, 9.0)}),
        row(SINGLE, 50, {"new_st": (4.0, 4.0)}),
        row(SINGLE, 3000, {"new_st": (3.0, 3.0)}),
        row(MSP, 3000, {"new_st": (1.0, 2.0), "strong_sa": (1.0, 1.0)}),
        row("IQT", 0, {"new_st": (5.0, 5.0)}),
    ]
    faster = goals_of(rows, f"{SINGLE}: time to")["flint new_st"]
    assert (faster.ratio, faster.met) == (pytest.approx(50 / 3000), "yes")
    plateau = goals_of(rows, f"{SINGLE}, over SHResNet, from nothing")
    assert plateau["flint new_st"].ratio == pytest.approx(0.75)
    assert plateau["mean over targets"].met == "yes"
    stages = goals_of(rows, f"{MSP}, over the best single network from base, each at its end")
    assert stages["flint new_st"].ratio == pytest.approx(0.5)
    assert stages["– strong_sa"].met == "not measured"
    quality = goals_of(rows, "MSP, from base, over IQT from the same heads (1, curve's end)")
    assert quality["flint new_st"].ratio == pytest.approx(0.3)


def test_equal_seconds_are_those_of_all_targets():
    """Single networks learn one target after the other, an MSP all at once."""
    both = {"new_st": (4.0, 4.0), "strong_st": (4.0, 4.0)}
    rows = [row(MSP, 200, both, seconds=200.0)]
    for target in both:
        rows.append(row(SINGLE, 50, {target: (8.0, 8.0)}, seconds=50.0))
        rows.append(row(SINGLE, 200, {target: (2.0, 2.0)}, seconds=200.0))
    text = f"{MSP}, over {SINGLE}, at the seconds of all targets together"
    # After 100 s in each of two networks the single ones have halved their error.
    assert goals_of(rows, text)["flint new_st"].ratio == pytest.approx(4.0 / 4.0)
    only = goals_of([each for each in rows if "strong_st" not in each["errors"]], text)
    assert {goal.met for goal in only.values()} == {"not measured"}


def test_an_error_that_is_not_reached_fails_its_goal():
    rows = [
        row("SHResNet, from nothing", 3000, {"new_st": (4.0, 4.0)}),
        row(SINGLE, 3000, {"new_st": (5.0, 5.0)}),
    ]
    goal = goals_of(rows, f"{SINGLE}: time to")["flint new_st"]
    assert goal.met == "no"
    assert "not reached" in goal.note


def test_short_runs_say_nothing_of_ends_and_untrained_ones_are_no_ends():
    rows = [
        row(SINGLE, 75, {"new_st": (4.0, 4.0)}),
        row("SHResNet, from nothing", 75, {"new_st": (8.0, 8.0)}),
        row(MSP, 0, {"new_st": (1.0, 1.0)}),
        row("IQT", 0, {"new_st": (5.0, 5.0)}),
    ]
    assert goals_of(rows, f"{SINGLE}: time to")["flint new_st"].met == "too short to say"
    plateau = goals_of(rows, f"{SINGLE}, over SHResNet, from nothing")
    assert {goal.met for goal in plateau.values()} == {"too short to say"}
    assert {goal.met for goal in goals_of(rows, MSP).values()} == {"not measured"}


def test_a_time_of_nothing_is_compared_with_no_other():
    rows = [
        row("SHResNet, from nothing", 1, {"new_st": (4.0, 4.0)}, seconds=0.0),
        row(SINGLE, 1, {"new_st": (4.0, 4.0)}, seconds=0.0),
    ]
    assert goals_of(rows, f"{SINGLE}: time to")["flint new_st"].met == "not measured"


def test_learning_rates_are_chosen_by_the_choosing_sets_together():
    def tried(where, rate, value, part="rates"):
        return row(SINGLE, 300, {"new_st": (value, value)}, part, where) | {"rate": rate}

    rows = [
        tried("amber", 1e-3, 1.0),
        tried("amber", 2e-3, 1.2),
        tried("basalt", 1e-3, 30.0),
        tried("basalt", 2e-3, 20.0),
        tried("flint", 1e-3, 0.1, "curves"),
    ]
    assert chosen_rates(rows, [SINGLE]) == {SINGLE: 2e-3}
    assert chosen_rates(rows[:1], [SINGLE]) == {}


def test_what_was_learned_at_a_rate_before_the_choice_is_left_out():
    def learned(steps, rate, method=SINGLE, part="curves"):
        return row(method, steps, {"new_st": (rate, rate)}, part) | {"rate": rate}

    tried = [learned(300, rate, part="rates") for rate in (1e-3, 2e-3)]
    kept = [*tried, learned(3000, 1e-3), learned(0, 0.0), learned(0, 0.0, "IQT")]
    assert at_chosen_rates([*kept, learned(3000, 1.5e-3)]) == kept


def test_seconds_are_of_all_phases_and_all_targets():
    own, single = METHODS["MSP of own first stages, from nothing"], METHODS[SINGLE]
    assert own.lengths(500) == {"steps": 300, "unison_steps": 200}
    assert seconds_of(own, {"shresnet new_st": 0.1, "msp new_st": 0.5}, 500) == pytest.approx(130)
    times = [{"shresnet new_st": 0.1}, {"shresnet strong_sa": 0.3}]
    assert steps_within(single, times, 40.0) == 100


def test_a_wide_network_has_the_weights_of_an_msp():
    method = METHODS["wide SHResNet, from nothing"]
    scales = {"new_st": 1, "strong_st": 1, "strong_sa": 2}
    values = method.settings(["new_st"], scales, {})
    assert 0.28 < values["width"] < 1
    assert weights_of_msp("new_st", scales) > 200_000


def test_a_cell_is_one_file_and_another_rate_another(tmp_path):
    bench = Bench(tmp_path, {}, {})
    cell = Cell("curves", "flint", SINGLE, ("new_st",), ("sub-01",), 300, 1e-3)
    other = Cell("curves", "flint", SINGLE, ("new_st",), ("sub-01",), 300, 2e-3)
    assert bench.path(cell) != bench.path(other)
    write_json(bench.path(cell), row(SINGLE, 300, {"new_st": (1.0, 1.0)}))
    assert [each["steps"] for each in bench.rows()] == [300]


def test_results_of_two_bases_are_kept_apart(tmp_path):
    Bench(tmp_path, {}, {"base": str(packaged.packaged_model("MSP"))}).check()
    with pytest.raises(SystemExit, match="another base"):
        Bench(tmp_path, {}, {"base": str(packaged.packaged_model("DIQT"))}).check()


def test_nobody_travels_among_strangers(tmp_path):
    people = [f"sub-0{number}" for number in range(1, 7)]
    scans = {(who, on): tmp_path / who / on for who in people for on in ("old_st", "new_st")}
    left = strangers(TravellingHeads(tmp_path, scans))
    assert sorted(left.scans) == [
        ("sub-01", "old_st"),
        ("sub-02", "old_st"),
        ("sub-03", "new_st"),
        ("sub-04", "new_st"),
    ]


def test_what_starts_from_a_model_that_is_not_there_is_left_out(tmp_path):
    names = Plan(tuple(METHODS)).trained(Bench(tmp_path, {}, {}))
    assert "SHResNet, from nothing" in names
    assert not any("from base" in name for name in names)


# --- Biology ---------------------------------------------------------------------------------


def test_what_comes_through_is_measured_where_the_truth_changes_most():
    truth = np.array([0.0, 1.0, 1.0, 0.4])
    found = came_through(
        {"truth": truth, "predicted": np.array([7.0, 1.0, 0.6, 9.0]), "input": 0.5 * truth}
    )
    assert found == {"predicted": 0.8, "input": 0.5, "truth": 1.0, "voxels": 2}


def test_changes_change_what_they_say_and_no_brain():
    """A ball of white matter with a canal off its middle, under a shell of fluid."""
    places = np.indices((41, 41, 41)) - 20.0
    radius, canal = np.linalg.norm(places, axis=0), np.linalg.norm(places[:2], axis=0)
    brain = radius < 18
    fluid = (brain & ((radius > 16) | (canal < 1.5))).astype(np.float32)
    white = brain - fluid
    bundles = ((0.6 * white, places), (0.2 * white, places))
    usual = Anatomy(np.zeros_like(white), white, fluid, bundles)
    assert CHANGES.keys() == MAPS.keys() == LEAST.keys()
    weaker, lesion, dry = (change(usual, 1.0) for change in CHANGES.values())
    for changed in (weaker, lesion, dry):
        np.testing.assert_allclose(changed.brain, usual.brain, atol=1e-6)
    np.testing.assert_allclose(weaker.bundles[0][0], 0.6 * 0.89 * white, rtol=1e-5)
    assert weaker.bundles[1] is usual.bundles[1]
    water = lesion.fluid - usual.fluid
    assert 0.19 < water.max() <= 0.2
    assert (water > 0.1).sum() == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.1)
    deep = radius < 11
    assert usual.fluid[deep].any()
    assert not dry.fluid[deep].any()
    np.testing.assert_array_equal(dry.fluid[radius > 16], usual.fluid[radius > 16])


# --- Semi-real heads -------------------------------------------------------------------------


@pytest.fixture
def tissue():
    """Six blocks' worth of one kind of white matter beside one of fluid."""
    size = 2 * semireal.EDGE - 1 + 2 * semireal.BEYOND
    shape = (3 * size, 2 * size, size)
    directions = design_matrix(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), semireal.ORDER)
    flat = np.linalg.pinv(directions) @ np.array([0.2, 0.6, 0.6])
    fluid = np.zeros(shape)
    fluid[: size // 2] = 1.0
    return semireal.Tissue(
        Lattice(shape, np.diag([1.2, 1.2, 1.2, 1.0])),
        np.ones(shape, np.float32),
        np.broadcast_to(flat.astype(np.float32), (*shape, len(flat))),
        np.ones(shape),
        fluid,
        np.full(shape, 80.0),
        1000.0,
        58.0,
    )


def test_tissue_gives_back_what_was_measured_and_falls_with_b(tissue):
    block = tissue.block(np.array([80, 0, 0]))
    for direction, expected in (([1.0, 0, 0], 0.2), ([0, 1.0, 0], 0.6)):
        left, _ = block.left(np.array(direction), np.full(block.mask.shape, 1000.0))
        assert left[0, 0, 0] == pytest.approx(expected, abs=1e-5)
    left, free = block.left(np.array([1.0, 0, 0]), np.full(block.mask.shape, 2000.0))
    assert left[0, 0, 0] == pytest.approx(0.04, abs=1e-4)
    assert free[0, 0, 0] == pytest.approx(np.exp(-6))


def test_a_later_echo_leaves_fluid(tissue):
    solid, fluid = tissue.at_b0(tissue.echo + 80.0)
    assert fluid[0, 0, 0] == pytest.approx(np.exp(-80 / semireal.T2_FLUID))
    assert solid[-1, 0, 0] == pytest.approx(np.exp(-1))
    assert solid[0, 0, 0] == 0


def test_blocks_share_no_voxel(tissue):
    found = semireal.places(tissue)
    assert len(found) == semireal.BLOCKS
    inner = 2 * semireal.EDGE - 1
    for number, one in enumerate(found):
        for other in found[:number]:
            assert np.abs(one - other).max() >= inner


@pytest.mark.slow
# All of its fibres run one way, so volumes differ more than a brain's do.
@pytest.mark.filterwarnings("ignore::napari_msp.data.acquisition.DoubtfulScan")
def test_semireal_heads_are_a_dataset_with_twins(tissue, tmp_path):
    semireal.write_heads(tmp_path / "heads", tissue, 0)
    dataset = open_dataset(tmp_path / "heads")
    assert dataset.platforms == ["new_st", "old_st", "strong_st"]
    assert len(dataset.subjects) == semireal.BLOCKS
    scan, twin = dataset.acquisition("sub-01", "new_st"), dataset.noise_free("sub-01", "new_st")
    assert scan.lattice.matches(dataset.acquisition("sub-01", "old_st").lattice)
    assert scan.lattice.voxel_sizes == pytest.approx([semireal.SPACING] * 3)
    noisy, clear = (each.image.dataobj[..., 0][scan.mask] for each in (scan, twin))
    assert np.median(noisy / clear) == pytest.approx(1, abs=0.05)
    assert not np.array_equal(noisy, np.rint(clear))


# --- The whole, tiny -------------------------------------------------------------------------


def test_the_page_says_what_was_run_and_what_was_not(tmp_path):
    bench = Bench(tmp_path, {}, {})
    found = row(SINGLE, 300, {"new_st": (1e-5, 3e-5)}, told=["beware"])
    write_json(tmp_path / "cells" / "one.json", found)
    text = page(bench, ["python it"], {"SHResNet new_st": {"shresnet new_st": 0.25}})
    assert "| flint | SHResNet, from base | 1 | 300 | 300 | – | 2.0 (2.0) |" in text
    assert "| curves | 1 | SHResNet, from base (1) |" in text
    assert "| rates | 0 | – | everything |" in text
    assert "| SHResNet new_st | shresnet new_st | 250 |" in text
    assert "- beware" in text


@pytest.mark.slow
def test_every_part_fits_on_tiny_heads_and_goes_on_where_it_stopped(tmp_path, capsys):
    model = str(packaged.packaged_model("MSP"))
    arguments = [str(tmp_path), "--smoke", "--base", model, "--targets", "new_st"]
    assert few_heads.main(arguments) == 0
    assert (tmp_path / "curves.png").exists()
    rows = len(list((tmp_path / "cells").glob("*.json")))
    text = (tmp_path / "page.md").read_text()
    for title in ("## Curves", "## Goals", STATISTICS_ONLY, "direction error", "no inner fluid"):
        assert title in text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    capsys.readouterr()
    assert few_heads.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == rows


def test_far_heads_have_the_platforms_of_the_benchmark():
    scanners = SETS["flint"].scanners
    assert [each.name for each in scanners] == [INPUT, *SCALES]
    assert {each.name: each.scale for each in scanners[1:]} == SCALES
