"""The frame of `make bench`, with fake comparisons and a fake clock."""

import gc
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import count

import pytest
from bench import __main__ as command
from bench import keeping, running
from bench.comparing import Comparison, Setting, Sides, Subject, Table
from bench.timing import Outcome, Spread, measure


class Clock:
    """Seconds that pass only when a side works."""

    now = 0.0

    def __call__(self):
        return self.now

    def works(self, seconds):
        def call():
            self.now += next(seconds)
            return self.now

        return call


@pytest.fixture
def clock(monkeypatch):
    """The clock that a run reads."""
    clock = Clock()
    monkeypatch.setattr(running, "measure", lambda each, setting: measure(each, setting, clock))
    monkeypatch.setattr(gc, "collect", lambda: 0)  # of a whole test run's objects it takes long
    return clock


@pytest.fixture
def setting(tmp_path):
    return Setting(quick=False, threads=2, folder=tmp_path)


def always(seconds):
    return (seconds for _ in count())


def comparison(clock, ours, peer, **given):
    """A comparison whose sides take so many seconds a call."""

    @contextmanager
    def prepare(setting):
        yield Sides(clock.works(ours), clock.works(peer), figures=lambda a, b: {"off": "0.1"})

    return Comparison(name="a thing", peer="Peer", prepare=prepare, **given)


def bench(tmp_path, setting, *comparisons, keep=False, tables=()):
    subject = Subject("things", "Things.", list(comparisons), list(tables))
    results, page = tmp_path / "bench.json", tmp_path / "RESULTS.md"
    return running.Bench([subject], setting, results, page, keep=keep)


class TestTiming:
    def test_the_ratio_is_the_peers_time_over_ours_of_each_repeat(self, setting, clock):
        # The machine gets slower: both sides meet it, and the ratio does not change.
        ours, peer = iter([9, 1, 2, 4]), iter([9, 3, 6, 12])
        gave = measure(comparison(clock, ours, peer, repeats=3), setting, clock)
        assert gave.ratio == Spread(3, 3, 3)
        assert (gave.ours.median, gave.peer.median) == (2, 6)
        assert gave.figures == {"off": "0.1"}

    def test_one_pair_is_said_to_be_one(self, setting, clock):
        each = comparison(clock, always(1.0), always(2.0), repeats=1)
        row = keeping.Row(measure(each, setting, clock), "a", "a")
        assert keeping.in_words(each, row) == "2 (one pair) × Peer (1 s to 2 s)"

    def test_sides_that_do_more_are_compared_by_what_they_do(self, setting, clock):

        @contextmanager
        def prepare(setting):
            yield Sides(clock.works(always(2.0)), clock.works(always(1.0)), work=(30, 5))

        each = Comparison(name="training", peer="Peer", prepare=prepare, unit="voxels")
        gave = measure(each, setting, clock)
        assert gave.ratio.median == 3  # 15 voxels a second beside 5
        row = keeping.Row(gave, "a", "a")
        assert keeping.in_words(each, row) == "3 (3 to 3) × Peer (15 voxels/s to 5 voxels/s)"

    def test_who_comes_first_changes_and_a_quick_run_repeats_less(self, setting, clock):
        called = []

        @contextmanager
        def prepare(setting):
            yield Sides(lambda: called.append("o"), lambda: called.append("p"))

        each = Comparison(
            name="x", peer="y", prepare=prepare, warm_ups=0, repeats=4, quick_repeats=2
        )
        measure(each, setting)
        assert "".join(called) == "oppooppo"
        called.clear()
        measure(each, replace(setting, quick=True))
        assert "".join(called) == "oppo"


class TestRegressions:
    @staticmethod
    def row(low, median, high, hardware="this"):
        spread = Spread(median, low, high)
        return keeping.Row(Outcome(spread, spread, spread, pairs=3), hardware, hardware)

    @pytest.mark.parametrize(
        ("now", "fell"),
        [
            ((0.90, 1.00, 1.10), False),
            ((0.60, 0.70, 0.86), False),  # within the slack below the lower quartile of 0.9
            ((0.60, 0.70, 0.80), True),
            ((2.00, 3.00, 4.00), False),
        ],
    )
    def test_is_a_ratio_below_both_spreads(self, now, fell):
        said = keeping.regression(self.row(*now), self.row(0.9, 1.0, 1.1))
        assert bool(said) is fell
        if fell:
            assert said == "fell from 1 (0.9 to 1.1) to 0.7 (0.6 to 0.8)"

    def test_is_named_and_fails_the_run_and_leaves_what_was_kept(
        self, tmp_path, setting, clock, capsys
    ):
        fast = comparison(clock, always(1.0), always(2.0))
        assert bench(tmp_path, setting, fast).run() == 0
        before = (tmp_path / "RESULTS.md").read_text()
        slow = comparison(clock, always(2.0), always(2.0))
        assert bench(tmp_path, setting, slow).run() == 1
        said = "things, a thing, beside Peer: fell from 2 (2 to 2) to 1 (1 to 1)"
        assert said in capsys.readouterr().err
        assert (tmp_path / "RESULTS.md").read_text() == before
        assert bench(tmp_path, setting, slow).run() == 1  # still

    def test_that_is_accepted_is_kept(self, tmp_path, setting, clock):
        bench(tmp_path, setting, comparison(clock, always(1.0), always(2.0))).run()
        slow = comparison(clock, always(2.0), always(2.0))
        bench(tmp_path, setting, slow, keep=True).run()
        assert bench(tmp_path, setting, slow).run() == 0
        assert "| 1 (1 to 1) |" in (tmp_path / "RESULTS.md").read_text()

    def test_against_another_machine_is_said_and_does_not_count(
        self, tmp_path, setting, clock, capsys
    ):
        bench(tmp_path, setting, comparison(clock, always(1.0), always(2.0))).run()
        other = replace(setting, threads=1)
        assert bench(tmp_path, other, comparison(clock, always(2.0), always(2.0))).run() == 0
        assert "the former on another machine" in capsys.readouterr().out

    def test_of_the_quick_form_is_looked_for_among_quick_runs(self, tmp_path, setting, clock):
        quick = replace(setting, quick=True)
        bench(tmp_path, setting, comparison(clock, always(1.0), always(2.0))).run()
        before = (tmp_path / "RESULTS.md").read_text()
        slow = comparison(clock, always(2.0), always(2.0))
        assert bench(tmp_path, quick, slow).run() == 0
        assert (tmp_path / "RESULTS.md").read_text() == before
        assert bench(tmp_path, quick, comparison(clock, always(9.0), always(2.0))).run() == 1


class TestRuns:
    def test_a_peer_that_is_not_installed_is_said_and_its_row_stays(
        self, tmp_path, setting, clock, capsys
    ):
        each = comparison(clock, always(1.0), always(2.0))
        bench(tmp_path, setting, each).run()
        before = (tmp_path / "RESULTS.md").read_text()
        absent = replace(each, needs=("nobody_has_this",))
        assert bench(tmp_path, setting, absent, keep=True).run() == 0
        assert "left out: nobody_has_this not installed" in capsys.readouterr().out
        assert (tmp_path / "RESULTS.md").read_text() == before

    def test_one_that_fails_is_named_and_hides_no_other(self, tmp_path, setting, clock, capsys):
        @contextmanager
        def prepare(setting):
            raise MemoryError("no room")
            yield

        bad = Comparison(name="a bad thing", peer="Peer", prepare=prepare)
        good = comparison(clock, always(1.0), always(2.0))
        assert bench(tmp_path, setting, bad, good).run() == 1
        assert "a bad thing, beside Peer: failed: MemoryError: no room" in capsys.readouterr().err
        assert (
            "| a thing | Peer | 1 s | 2 s | 2 (2 to 2) |" in (tmp_path / "RESULTS.md").read_text()
        )

    def test_only_what_is_named_is_measured(self, tmp_path, setting, clock, capsys):
        other = replace(comparison(clock, always(1.0), always(1.0)), name="another")
        each = comparison(clock, always(1.0), always(2.0))
        assert bench(tmp_path, setting, each, other).run(only=["another"]) == 0
        assert list(keeping.load(tmp_path / "bench.json")["full"].rows["things"]) == [other.key]
        assert bench(tmp_path, setting, each, other).run(only=["none", "another"]) == 1
        assert "nothing is called none" in capsys.readouterr().err

    def test_what_is_named_is_measured_in_that_order_and_once(
        self, tmp_path, setting, clock, capsys
    ):
        each = comparison(clock, always(1.0), always(2.0))
        other = replace(each, name="another")
        assert bench(tmp_path, setting, each, other).run(only=["another", "thing", "things"]) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("things")]
        assert [line.split(":")[0] for line in said] == ["things, another", "things, a thing"]

    def test_the_page_has_tables_machines_and_missed_goals(self, tmp_path, setting, clock):
        each = comparison(clock, always(1.0), always(2.0), goal=3.0)
        table = Table(
            name="where the time goes", columns=["what", "s"], rows=lambda _: [["fit", "1"]]
        )
        assert bench(tmp_path, setting, each, tables=[table]).run() == 0
        page = (tmp_path / "RESULTS.md").read_text()
        assert "| a thing | Peer | 1 s | 2 s | **2 (2 to 2)** | 3 | A |" in page
        assert "- a thing, beside Peer: off 0.1." in page
        assert "**where the time goes** (on A)\n\n| what | s |\n| --- | --- |\n| fit | 1 |" in page
        assert "2 in use" in page.split("## Machines")[1]

    def test_what_was_kept_is_read_as_it_was_written(self, tmp_path, setting, clock):
        bench(tmp_path, setting, comparison(clock, always(1.0), always(3.0))).run()
        known = keeping.load(tmp_path / "bench.json")
        keeping.save(tmp_path / "again.json", known)
        assert keeping.load(tmp_path / "again.json") == known


def test_every_subject_of_the_command_declares_what_has_names_of_its_own():
    for name in command.SUBJECTS:
        subject = import_module(f"bench.{name}").SUBJECT
        keys = [each.key for each in subject.all]
        assert len(set(keys)) == len(keys)
        assert subject.name == name
