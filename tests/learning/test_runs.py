"""Runs in folders: opened again, stopped, killed, resumed, and watched through pipes."""

import json
import signal
import subprocess
import sys

import pytest
from weights import same_weights

from napari_msp.errors import Resume, UserError, every
from napari_msp.files import reserved
from napari_msp.learning.events import (
    MOST_STEPS,
    Checkpointed,
    EventLog,
    Failed,
    Started,
    Step,
    Stopped,
    parse_event,
    read_events,
)
from napari_msp.learning.runs import RunFolder, checkpoint_path
from napari_msp.learning.train import run_in_folder


@pytest.fixture
def settings(quick):
    """Of a run with 6 steps and 2 checkpoints; a process of its own would know a base."""
    return quick(targets=("prisma_st",), start_from="nothing")


@pytest.fixture
def new_run(tmp_path, heads, settings):
    def make(name="run", **changes):
        changed = settings.model_copy(update=changes)
        return RunFolder.create(tmp_path / name, heads, changed, device="cpu")

    return make


def stop_after(folder, steps, **options):
    events = []
    run_in_folder(
        folder,
        progress=events.append,
        cancelled=lambda: sum(e.name == "step" for e in events) >= steps,
        **options,
    )
    return events


def steps_of(events):
    return [event.step for event in events if event.name == "step"]


# --- The folder ------------------------------------------------------------------------------


def test_a_folder_gives_back_what_it_was_made_of(tmp_path, heads, settings, monkeypatch):
    with pytest.raises(UserError, match="is no run"):
        RunFolder.open(tmp_path)
    monkeypatch.chdir(heads.parent)
    made = RunFolder.create(tmp_path / "new" / "run", heads.name, settings, device="cpu")
    monkeypatch.chdir(tmp_path)
    opened = RunFolder.open("new/run")
    assert opened == made
    assert opened.settings == settings
    assert (opened.dataset, opened.device) == (heads, "cpu")
    assert (opened.state, opened.resumable, opened.events()) == ("new", False, [])
    assert opened.checkpoint_path == checkpoint_path(opened.model_path)


def test_an_occupied_folder_is_refused(tmp_path, heads, settings, new_run):
    kept = (new_run().path / "run.json").read_bytes()
    with pytest.raises(UserError, match="is not empty"):
        new_run(seed=3)
    assert (tmp_path / "run" / "run.json").read_bytes() == kept


def test_a_folder_is_opened_without_torch(new_run):
    folder = new_run()
    code = (
        "import sys; from napari_msp.learning.runs import RunFolder; "
        f"RunFolder.open({str(folder.path)!r}).state; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- Stopping and going on -------------------------------------------------------------------


def test_events_are_kept_as_told(new_run):
    folder = new_run()
    told = []
    assert run_in_folder(folder, progress=told.append) == folder.model_path
    assert folder.events() == told
    assert (folder.state, folder.resumable) == ("finished", False)
    assert {path.name for path in folder.previews.glob("*.nii.gz")} == {"sub-03_prisma_st.nii.gz"}
    with pytest.raises(UserError, match="is finished"):
        run_in_folder(folder, resume=True)


def test_a_stopped_run_goes_on_to_the_same_end(new_run):
    whole, parts = new_run("whole"), new_run("parts")
    run_in_folder(whole)
    stop_after(parts, 4)
    assert (parts.state, parts.resumable) == ("stopped", True)
    with pytest.raises(UserError, match="the run was stopped") as caught:
        run_in_folder(parts)
    assert next(iter(every(caught.value.remedy))) == Resume()
    more = stop_after(parts, 9, resume=True)
    assert more[0].resumed_at == 4
    assert parts.state == "finished"
    assert same_weights(whole.model_path, parts.model_path)

    def told(folder, *names):
        return [
            (e.name, e.step, getattr(e, "loss", None) or getattr(e, "errors", None))
            for e in folder.events()
            if e.name in names
        ]

    told_of = ("step", "validated", "previewed")
    assert told(parts, *told_of) == told(whole, *told_of)
    assert [e.resumed_at for e in parts.events() if e.name == "started"] == [0, 4]


@pytest.mark.parametrize("steps", [0, 3, 6])
def test_stops_at_the_edges_are_told_once(steps, new_run):
    """Before the first step, at an epoch's end, and between two phases."""
    folder = new_run(targets=("prisma_st", "connectom_sa"))
    stop_after(folder, steps)
    run_in_folder(folder, resume=True)
    validated = [(e.phase, e.epoch) for e in folder.events() if e.name == "validated"]
    assert validated == [
        (f"shresnet {target}", epoch)
        for target in ("prisma_st", "connectom_sa")
        for epoch in range(3)
    ]
    assert steps_of(folder.events()) == list(range(1, 13))


def test_a_torn_last_line_is_passed_over(new_run):
    folder = new_run()
    stop_after(folder, 4)
    before = folder.events()
    line = folder.events_path.read_text().splitlines()[2]
    with folder.events_path.open("a") as stream:
        stream.write(line[: len(line) // 2])
    assert folder.events() == before
    assert folder.state == "stopped"
    run_in_folder(folder, resume=True)
    assert steps_of(folder.events()) == [1, 2, 3, 4, 5, 6]
    for line in folder.events_path.read_text().splitlines():
        parse_event(line)


def test_killed_between_the_checkpoint_and_telling_of_it(tmp_path):
    started = Started("msp", "fast", "cpu", ["sub-01"], [], ["msp x"], 1, 9, 0)
    resumed = Started("msp", "fast", "cpu", ["sub-01"], [], ["msp x"], 1, 9, 2)
    one, two, three = (Step("msp x", 1, step, 0.1, 0.1, None, 1.0, 1.0) for step in (1, 2, 3))
    path = tmp_path / "events.jsonl"

    def story(*events):
        path.unlink(missing_ok=True)
        with EventLog(path) as log:
            for event in events:
                log.write(event)
        return read_events(path)

    assert story(started, one, two, resumed, three) == [started, one, two, resumed, three]
    written, stopped = Checkpointed(2, "x"), Stopped(2, "x")
    assert story(started, one, two, written, three, resumed, three) == [
        *(started, one, two, written),
        *(resumed, three),
    ]
    assert story(
        started, one, two, written, stopped, Failed.of(UserError("no")), resumed, three
    ) == [*(started, one, two, written), *(resumed, three)]


def test_a_long_run_keeps_a_curves_worth_of_steps(tmp_path):
    many = 25 * MOST_STEPS
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write(Started("msp", "paper", "cpu", ["sub-01"], [], ["msp x"], 1, many, 0))
        for step in range(1, 1001):
            log.write(Step("msp x", 1, step, 0.1, 0.1, None, 1.0, 1.0))
    assert steps_of(read_events(tmp_path / "events.jsonl")) == list(range(25, 1001, 25))


def test_a_failure_is_a_state_until_it_is_mended(tmp_path, heads, settings):
    folder = RunFolder.create(tmp_path / "run", tmp_path / "moved", settings, device="cpu")
    with pytest.raises(UserError, match="moved"):
        run_in_folder(folder)
    assert (folder.state, folder.resumable) == ("failed", False)
    failure = folder.events()[-1]
    assert isinstance(failure, Failed)
    assert str(tmp_path / "moved") in str(failure.error)
    (tmp_path / "moved").symlink_to(heads)
    run_in_folder(folder)
    assert folder.state == "finished"
    assert "failed" not in {event.name for event in folder.events()}


def test_two_processes_do_not_share_a_folder(new_run):
    folder = new_run()
    with reserved(folder.path), pytest.raises(UserError, match="another process is working on it"):
        run_in_folder(folder)
    run_in_folder(folder)


# --- The command -----------------------------------------------------------------------------


def start(folder, *options, **pipes):
    return subprocess.Popen(
        [sys.executable, "-m", "napari_msp", "run", str(folder.path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **pipes,
    )


def read_until(process, name):
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line)["event"])
        if lines[-1] == name:
            return lines
    raise AssertionError(f"{name} never came: {lines}, {process.stderr.read()}")


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(new_run):
    long = {"epochs": 15, "steps_per_epoch": 10}
    whole, killed = new_run("whole", **long), new_run("killed", **long)
    run_in_folder(whole)
    process = start(killed, stdin=subprocess.DEVNULL)
    read_until(process, "started")
    process.kill()
    process.communicate()
    assert (killed.state, killed.resumable) == ("new", False)

    process = start(killed, "--resume", stdin=subprocess.DEVNULL)  # there is nothing to go on from
    read_until(process, "checkpointed")
    read_until(process, "step")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (killed.state, killed.resumable) == ("stopped", True)
    before = steps_of(killed.events())
    assert before == list(range(1, len(before) + 1))

    run_in_folder(killed, resume=True)
    assert killed.state == "finished"
    assert same_weights(whole.model_path, killed.model_path)
    assert steps_of(killed.events()) == list(range(1, 151))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stdin", "stdout", "both", "SIGTERM"])
def test_a_run_stops_with_a_checkpoint_when_its_watcher_goes(how, new_run):
    folder = new_run(epochs=1, steps_per_epoch=2000)
    process = start(folder, "--stop-with-stdin", stdin=subprocess.PIPE)
    process.stdin.write("nothing of this matters\n")
    process.stdin.flush()
    read_until(process, "step")
    if how in ("stdout", "both"):
        process.stdout.close()
    if how in ("stdin", "both"):
        process.stdin.close()
    if how == "SIGTERM":
        process.terminate()
    assert process.wait(timeout=300) == 130
    assert process.stderr.read() == ""
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    assert folder.state == "stopped"
    assert [event.name for event in folder.events()[-2:]] == ["checkpointed", "stopped"]


@pytest.mark.slow
def test_standard_input_that_nobody_holds_stops_nothing(new_run):
    folder = new_run()
    answer, errors = start(folder, stdin=subprocess.DEVNULL).communicate()
    assert errors == ""
    told = [parse_event(line) for line in answer.splitlines()]
    assert told[-1].name == "finished"
    assert told == folder.events()


def test_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, "-m", "napari_msp", "run", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr == f"napari-msp: {tmp_path}: is no run (it has no run.json); " + (
        "choose a run's folder\n"
    )
