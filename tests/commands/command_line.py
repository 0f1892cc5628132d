"""The command line as a user gives it, and what it answers."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from napari_msp.cli import main

SCAN = "sub-03/ses-ge/dwi/sub-03_ses-ge_acq-st_dwi.nii.gz"
TRUTH = "sub-03/ses-prisma/dwi/sub-03_ses-prisma_acq-st_dwi.nii.gz"
STEM = "sub-03_ses-ge_acq-st_desc-prismastMsp"
KINDS = ("msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned")
SHORT = (
    *("--width", "0.1", "--epochs", "1", "--steps-per-epoch", "1", "--crop", "6"),
    *("--batch", "1", "--device", "cpu"),
)


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int
    stdout: str
    errors: list[str]
    warnings: list[str]


def call(*arguments: object) -> Answer:
    """Run a command in this process; warnings are shown, as they are to a user."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # by the parser
            assert isinstance(stopped.code, int)
            status = stopped.code
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    warned = [line for line in lines if line.startswith("napari-msp: warning: ")]
    return Answer(status, out.getvalue(), [line for line in lines if line not in warned], warned)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden or not."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(folder: Path, *arguments: object) -> str:
    """Run a command that must end with one line, and leave `folder` as it was; give the line."""
    before = contents(folder)
    answer = call(*arguments)
    assert answer.status == 2, answer
    assert len(answer.errors) == 1, answer.errors
    assert answer.errors[0].startswith("napari-msp: ")
    assert answer.stdout == ""
    assert contents(folder) == before
    return answer.errors[0]
