"""Disks and outputs that take no more, and terminals that know few characters."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import SCAN, SHORT, STEM, TRUTH, call, contents

from napari_msp.cli import COMMANDS, main

PATTERN = "{subject}/ses-{scanner}/dwi/{subject}_ses-{scanner}_acq-{protocol}_dwi.nii.gz"


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond so many bytes fail, as on a full disk."""
    resource = pytest.importorskip("resource")  # there is none on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def arguments(command: str, study: Path, model: Path, harmonized: Path, out: Path) -> list[object]:
    sh = harmonized / f"{STEM}_model-sh_param-coefficients_dwimap.nii.gz"
    predict = ("--model", model, "--target", "prisma_st")
    return {
        "simulate": ["simulate", out, "--subjects", 1, "--size", "tiny"],
        "import": ["import", study, out, "--pattern", PATTERN],
        "check": ["check", study / SCAN, "--table", out / "check.csv"],
        "align": ["align", study, out, "--input", "ge_st"],
        "train": ["train", study, out / "m.safetensors", "--model", "shresnet", *SHORT],
        "harmonize": ["harmonize", study / SCAN, *predict, "--out", out],
        "maps": ["maps", study / SCAN, "--out", out],
        "compare": ["compare", "--truth", study / TRUTH, "--prediction", f"A={sh}", "--out", out],
        "evaluate": ["evaluate", study, "--models", model, "--out", out],
        "calibrate": ["calibrate", model, study, "--out", out / "c.safetensors"],
        "cohort": ["cohort", study, out, "participant", *predict],
    }[command]  # fmt: skip


KEPT = {
    # It goes on from there.
    "evaluate": {"digests.json", "plan.json", "measured", "trained"},
    "cohort": {".bidsignore", "README", "cohort.tsv", "dataset_description.json"},
}
"""What may be there all the same; all of it whole."""


@pytest.mark.parametrize("size", [0, 3000])
@pytest.mark.parametrize(
    "command",
    [
        "import",
        "check",
        "align",
        "train",
        "harmonize",
        "maps",
        "compare",
        "evaluate",
        "calibrate",
        "cohort",
    ],
)
def test_a_full_disk_is_one_line(command, size, study, model, harmonized, tmp_path):
    asked = arguments(command, study, model, harmonized, tmp_path / "out")
    with no_file_larger_than(size):
        answer = call(*asked)
    complaints = [line for line in answer.errors if line.startswith("napari-msp: ")]
    assert not list(tmp_path.rglob("*.nii.gz")) and not list(tmp_path.rglob(".napari-msp*"))
    if command == "check" and answer.status == 0:  # the table fits
        assert size and (tmp_path / "out" / "check.csv").exists()
        return
    if command == "cohort" and answer.status == 1:  # the table fits, and says why each failed
        assert size and all("File too large" in line for line in complaints), answer.errors
        return
    assert answer.status == 2, answer
    assert len(complaints) == 1, answer.errors
    assert "File too large" in answer.errors[-1]
    assert "free some space" in answer.errors[-1], answer.errors
    left = {name.split("/")[1] for name in contents(tmp_path) if name != "out"}
    assert left <= KEPT.get(command, set())


def test_a_simulation_on_a_full_disk_is_one_line(tmp_path):
    with no_file_larger_than(0):
        answer = call("simulate", tmp_path / "out", "--subjects", 1, "--size", "tiny")
    assert (answer.status, len(answer.errors)) == (2, 1)
    assert contents(tmp_path) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has one")
@pytest.mark.parametrize("what", [["--version"], ["completion", "bash"]])
def test_an_output_that_takes_no_more_is_one_line(what):
    with Path("/dev/full").open("w") as full:
        answer = run(what, stdout=full)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("napari-msp: ")


def run(what, **options):
    code = "import sys; from napari_msp.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, what)],
        stderr=subprocess.PIPE,
        env=os.environ | options.pop("env", {}),
        encoding="utf-8",
        errors="strict",
        **options,
    )


# --- Encodings -------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(encoding: str) -> Iterator[Callable[[], tuple[str, str]]]:
    """Let standard output and standard error know few characters; gives what is on them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):

        def shown() -> tuple[str, str]:
            for stream in (out, err):
                stream.flush()
                stream.buffer.seek(0)
            return out.buffer.read().decode(encoding), err.buffer.read().decode(encoding)

        yield shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_every_help_and_error_can_be_shown(encoding, tmp_path):
    for command in COMMANDS:
        with terminal(encoding) as shown:
            with pytest.raises(SystemExit) as stopped:
                main([command, "--help"])
            assert "example:" in shown()[0]
        assert stopped.value.code == 0
    with terminal(encoding) as shown:
        assert main(["maps", str(tmp_path / "α → β.nii.gz"), "--out", str(tmp_path)]) == 2
        lines = shown()[1].splitlines()
    assert len(lines) == 1
    assert "β.nii.gz" in lines[0].replace("\\u03b2", "β")


@pytest.mark.parametrize(
    "command",
    ["check", "align", "train", "harmonize", "maps", "compare", "evaluate", "cohort", "calibrate"],
)
def test_every_command_can_say_what_it_has_to(command, study, model, harmonized, tmp_path):
    out = tmp_path / "größe α"
    asked = arguments(command, study, model, harmonized, out)
    with terminal("ascii") as shown:
        status = main([*map(str, asked), "--log", str(tmp_path / "log β")])
        written, said = shown()
    assert status == (1 if command == "align" else 0), said  # such small heads cannot be aligned
    assert "gr\\xf6\\xdfe \\u03b1" in written
    assert "größe α" in (tmp_path / "log β").read_text(encoding="utf-8")


def test_names_that_are_no_text_are_written_and_shown(study, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree((study / SCAN).parent, folder)
    scan = folder / Path(SCAN).name
    answer = run(["maps", scan, "--out", folder / "out", "--log", tmp_path / "log"],
                 stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "utf-8"})  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "caf\\udce9" in answer.stdout
    assert "caf\\udce9" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_mistyped_option_is_one_line():
    for what in (["maps", "--shell", "x", "a", "--out", "b"], ["train"], ["nonsense"]):
        answer = run(what, stdout=subprocess.PIPE)
        assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert answer.stderr.startswith("napari-msp: ")
        assert answer.stderr.rstrip().endswith("--help")
