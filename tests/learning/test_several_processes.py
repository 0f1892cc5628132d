"""A training by several processes is that of one: the same examples, sums over all, one voice."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.run import get_args_parser

from napari_msp.cli import build_parser
from napari_msp.commands.console import speaks
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Give, ToldElsewhere, UserError
from napari_msp.learning import distributed
from napari_msp.learning.distributed import ALONE, JointBatchNorm, SeveralProcesses, launched
from napari_msp.learning.events import Event, Finished, Started, Step, Stopped, parse_event
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.sampling import sampler_for
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.options import LAUNCHED
from steps_of_several import RUNS, losses

STEPS = Path(__file__).parents[1] / "steps_of_several.py"
OPTIONS = """--model shresnet --width 0.1 --crop 8 --batch 3 --held-out sub-03
    --input ge_st --targets prisma_st --start-from nothing --device cpu"""
"""Of a command line that trains for seconds."""
EPOCH = ("--steps-per-epoch", 3)


@pytest.fixture
def group() -> Iterator[SeveralProcesses]:
    """A group of one process, which talks as one of several does."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    with launched() as processes:
        assert isinstance(processes, SeveralProcesses)
        yield processes
    assert dist.is_initialized()  # whoever made it ends it
    dist.destroy_process_group()


class Processes:
    """Command lines that were started together, as a launcher starts them."""

    def __init__(self, *command: object, count: int = 2, each: Any = ()) -> None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        common = {**place, "WORLD_SIZE": str(count)}
        self._lines: list[str] = []
        self.all = [
            subprocess.Popen(
                [sys.executable, *map(str, command), *more],
                env={**os.environ, **common, "RANK": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number, more in zip(range(count), each or [()] * count, strict=True)
        ]

    def ended(self) -> list[tuple[int, str, str]]:
        """Wait for them; give status, output and errors of each."""
        said = [each.communicate(timeout=300) for each in self.all]
        self._lines += said[0][0].splitlines()
        return [(each.returncode, *out) for each, out in zip(self.all, said, strict=True)]

    @property
    def events(self) -> list[Event]:
        """What the first one has told so far."""
        return [parse_event(line) for line in self._lines]

    def wait_for_step(self, step: int) -> None:
        """Wait until the first one reports a step."""
        output = self.all[0].stdout
        assert output is not None
        for line in output:
            self._lines.append(line)
            event = parse_event(line)
            if isinstance(event, Step) and event.step >= step:
                return
        raise AssertionError(self.ended())


def training(*arguments: object) -> tuple[object, ...]:
    return ("-m", "napari_msp", "train", *arguments, *OPTIONS.split(), "--events")


def test_launch_lines_of_the_page_are_what_shell_torchrun_and_command_take():
    page = (Path(__file__).parents[2] / "docs/how-to/several-machines.md").read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        (line,) = (each for each in block.replace("\\\n", " ").splitlines() if "torchrun" in each)
        _, _, typed = line.replace('"$SLURM_NNODES"', "2").partition("torchrun ")
        launched = get_args_parser().parse_args(shlex.split(typed.replace("$resume", "--resume")))
        assert (launched.module, launched.training_script) == (True, "napari_msp")
        options = build_parser("train").parse_args(launched.training_script_args)
        assert int(options.batch) >= 8


def test_shares_are_the_whole_draw_of_one(heads, quick):
    """Of crops and of patches, with an odd batch and with a pass that ends in a few."""
    for settings in (quick(batch=5), quick(preset="paper", batch=5)):
        study = prepare_study(open_dataset(heads), settings, True)
        whole, *parts = (
            sampler_for(study, recipe_for(settings), each)
            for each in (ALONE, *(SeveralProcesses(number, 3) for number in range(3)))
        )
        for step in (0, 6):
            drawn, shares = whole.batch(0, step), [each.batch(0, step) for each in parts]
            assert torch.equal(drawn.input, torch.cat([each.input for each in shares]))
            for target in drawn.targets:
                for of in ("targets", "masks"):
                    found = torch.cat([getattr(each, of)[target] for each in shares])
                    assert torch.equal(found, getattr(drawn, of)[target])
            assert torch.equal(drawn.voxels(), torch.stack([b.voxels() for b in shares]).sum(0))


@pytest.mark.parametrize("tracking", [True, False])
def test_joint_batch_norm_is_batch_norm(group, tracking):
    torch.manual_seed(0)
    plain = nn.BatchNorm3d(4).double()
    nn.init.normal_(plain.weight)
    joint = nn.Sequential(nn.BatchNorm3d(4).double())
    joint[0].load_state_dict(plain.state_dict())
    weights = joint[0].weight
    group.join(joint)
    assert isinstance(joint[0], JointBatchNorm)
    assert joint[0].weight is weights
    plain.track_running_stats = joint[0].track_running_stats = tracking
    found = []
    for norm in (plain, joint):
        torch.manual_seed(1)
        input = (3 + torch.randn(2, 4, 3, 4, 5, dtype=torch.float64)).requires_grad_()
        output = norm(input)
        (output * torch.randn_like(output)).sum().backward()
        gradients = [input.grad, *(each.grad for each in norm.parameters())]
        found.append([output, *gradients, *norm.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)
    for norm in (plain, joint):
        norm.eval()
    torch.testing.assert_close(joint(input), plain(input))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_joint_batch_norm_of_half_precision_is_batch_norm(group, kind):
    joint = nn.Sequential(nn.BatchNorm3d(4))
    plain = nn.BatchNorm3d(4)
    group.join(joint)
    torch.manual_seed(0)
    input = (40 + torch.randn(2, 4, 3, 4, 5)).to(kind)
    found, expected = joint(input), plain(input)
    assert found.dtype == kind
    torch.testing.assert_close(found, expected.to(kind))
    torch.testing.assert_close(joint[0].running_var, plain.running_var)


def test_the_others_hear_that_the_first_one_works(group, monkeypatch):
    monkeypatch.setattr(distributed, "BEAT", 0.01)
    sent: list[Any] = []

    def send(value: Any) -> Any:
        sent.append(value)
        return value

    def work() -> str:
        time.sleep(0.2)
        return "done"

    monkeypatch.setattr(distributed, "_from_first", send)
    assert group.by_first(work) == "done"
    assert len(sent) > 2
    assert (set(sent[:-1]), sent[-1]) == ({distributed.WORKING}, ("done", None))
    # Another one waits until there is a result.
    heard = iter(sent)
    monkeypatch.setattr(group, "number", 1)
    monkeypatch.setattr(distributed, "_from_first", lambda _: next(heard))
    assert group.by_first(lambda: "not mine") == "done"


@pytest.mark.parametrize(
    ("given", "silent"),
    [
        ({}, False),
        ({"MASTER_ADDR": "here", "RANK": "1"}, False),
        ({"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "1"}, False),
        ({"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "2"}, False),
        ({"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}, True),
    ],
)
def test_only_trainings_are_silent(given, silent, monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert speaks("train") is not silent
    assert speaks("harmonize")


def test_what_the_first_one_does_is_everybodys(group, monkeypatch):
    assert group.by_first(lambda: {"error": 0.5}) == {"error": 0.5}
    assert abs(group.clock() - time.perf_counter()) < 60
    refused = UserError("cannot be written", "model.safetensors")

    def refuse() -> None:
        raise refused

    with pytest.raises(UserError) as first:
        group.by_first(refuse)
    with pytest.raises(UserError) as own, group.agreeing():
        refuse()
    assert first.value is own.value is refused
    # The others say nothing: they get what the first one, or whoever failed, was refused.
    monkeypatch.setattr(group, "number", 1)
    monkeypatch.setattr(group, "_of_all", lambda mine: [refused, mine])
    with pytest.raises(ToldElsewhere, match="cannot be written"), group.agreeing():
        pass
    sent = "torch.distributed.broadcast_object_list"
    monkeypatch.setattr(sent, lambda those, **_: those.__setitem__(0, (None, refused)))
    with pytest.raises(ToldElsewhere, match="cannot be written"):
        group.by_first(refuse)


def test_other_data_or_settings_are_refused(group, monkeypatch):
    given = {"settings": {"batch": 3, "patience": None}, "data": {"ge_st": [0.5, 0.25]}}
    rounded = {**given, "data": {"ge_st": [0.5 + 1e-7, 0.25]}}
    others = [{**given, "data": {"ge_st": [0.5, 0.26]}}, {"settings": {"batch": 4}}]
    monkeypatch.setattr(group, "_of_all", lambda mine: [mine, rounded])
    group.check_same(given)
    for other in others:
        monkeypatch.setattr(group, "_of_all", lambda mine, other=other: [mine, other])
        with pytest.raises(UserError, match="process 2 of 1 got different data or settings"):
            group.check_same(given)


def test_more_processes_than_examples_are_refused(heads, quick, group, monkeypatch, tmp_path):
    monkeypatch.setattr(SeveralProcesses, "device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr(SeveralProcesses, "_of_all", lambda _, mine: [mine])
    with pytest.raises(UserError, match="2 examples a step are too few for 3") as error:
        train(heads, tmp_path / "m.safetensors", quick(batch=2))
    assert error.value.remedy == Give("batch", "at least 3")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(heads):
    outputs = Processes(STEPS, heads).ended()
    assert [status for status, *_ in outputs] == [0, 0], outputs
    first, second = (json.loads(output) for _, output, _ in outputs)
    assert first == second
    for name in RUNS:
        expected = losses(heads, name, ALONE)
        np.testing.assert_allclose(first[name], expected, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_a_request_to_any_stops_all_and_any_number_goes_on(heads, tmp_path, counts):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "model.safetensors"
    expected = _losses(Processes(*training(heads, whole, "--epochs", 20, *EPOCH), count=1))
    command = training(heads, out, "--epochs", 20, *EPOCH)
    running = Processes(*command, count=counts[0])
    running.wait_for_step(4)
    running.all[-1].send_signal(signal.SIGTERM)
    before = _losses(running, status=130)
    (stopped,) = (event for event in running.events if isinstance(event, Stopped))
    assert stopped.step == len(before) < len(expected)
    going_on = Processes(*command, "--resume", count=counts[1])
    after = _losses(going_on)
    (started,) = (event for event in going_on.events if isinstance(event, Started))
    assert (started.resumed_at, started.processes) == (stopped.step, counts[1])
    np.testing.assert_allclose(before + after, expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_who_is_left_says_so_and_the_checkpoint_is_whole(heads, tmp_path, killed):
    command = training(heads, tmp_path / "model.safetensors", "--epochs", 100, *EPOCH)
    running = Processes(*command)
    running.wait_for_step(4)
    running.all[killed].kill()
    outputs = running.ended()
    status, _, said = outputs[1 - killed]
    assert status == 2, outputs
    assert "napari-msp: another process of this run has ended" in said
    assert "continue with --resume" in said
    assert len(said.splitlines()) == 1
    # A process that is killed leaves the file that it had locked, which the next one takes away.
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert left == ["model.checkpoint.safetensors"]
    going_on = Processes(*command, "--resume", count=1)
    going_on.wait_for_step(5)
    going_on.all[0].send_signal(signal.SIGTERM)
    assert _losses(going_on, status=130)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "teller", "said"),
    [
        ((("--batch", "1"), ("--batch", "1")), 0, "--batch: 1 examples a step are too few for 2"),
        (((), ("--width", "7")), 1, "--width: must lie in (0, 1]"),
        (((), ("--seed", "1")), 0, "process 2 of 2 got different data or settings"),
        ((("--bath", "1"), ("--bath", "1")), 0, "unrecognized arguments: --bath 1"),
    ],
)
def test_what_is_wrong_is_told_once(heads, tmp_path, each, teller, said):
    outputs = Processes(*training(heads, tmp_path / "m.safetensors"), each=each).ended()
    assert [status for status, *_ in outputs] == [2, 2]
    assert said in outputs[teller][2]
    assert len(outputs[teller][2].splitlines()) == 1
    assert outputs[1 - teller][2] == outputs[1][1] == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_torchrun_trains_for_a_time_and_ends_by_validation_subjects(heads, tmp_path):
    out = tmp_path / "model.safetensors"
    options = ["--minutes", 0.2, "--validation", "sub-02"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", _free_port()]
    command = [*launcher, *training(heads, out, *options)]
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    events = [parse_event(line) for line in done.stdout.splitlines()]
    started, finished = events[0], events[-1]
    assert isinstance(started, Started) and isinstance(finished, Finished)
    assert started.processes == 2
    steps = [event.step for event in events if isinstance(event, Step)]
    assert steps == list(range(1, len(steps) + 1))
    assert load_model(out).training["validation"] == ["sub-02"]
    assert finished.validation.keys() == {"prisma_st"}


def _losses(processes: Processes, status: int = 0) -> list[float]:
    """Wait for all, see that the first one alone spoke, and give the losses that it told."""
    (first, _, said), *others = processes.ended()
    assert first == status, said
    assert all(each == (status, "", "") for each in others), others
    return [event.loss for event in processes.events if isinstance(event, Step)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
