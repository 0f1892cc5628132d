"""Files: read strictly, written whole, and nothing left behind by anybody who was killed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_msp.errors import UserError
from napari_msp.files import (
    HIDDEN,
    OWNER,
    atomic_path,
    new_folder,
    reserved,
    scratch_folder,
    staged_folder,
    write_json,
    write_text,
)
from napari_msp.strict_json import DEEPEST, LARGEST, parse_json, read_json, read_whole

# --- JSON ------------------------------------------------------------------------------------

BAD_JSON: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "Expecting value"),
    "half": ('{"a": ', "Expecting value"),
    "deep lists": ("[" * 100_000, "objects are nested"),
    "deep objects": ('{"a":' * 100_000, "objects are nested"),
    "closed deep lists": ("[" * 100_000 + "]" * 100_000, "objects are nested"),
    "a little too deep": ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "objects are nested"),
    "many digits": ("9" * 5000, "5000 digits"),
    "many negative digits": ("-" + "9" * 5000, "5000 digits"),
    "2**64": (str(2**64), "20 digits"),
    "-2**64": (str(-(2**64)), "20 digits"),
    "NaN": ("NaN", "not finite"),
    "Infinity": ("[1, Infinity]", "not finite"),
    "-Infinity": ('{"a": -Infinity}', "not finite"),
    "1e999": ("1e999", "not finite"),
    "two values": ('{"a": 1, "a": 2}', "'a' stands for two values"),
    "two values within": ('[{"a": {"b": 1, "b": [1]}}]', "'b' stands for two values"),
    "NUL": (r'{"a": "x\u0000"}', "character"),
    "NUL in a name": (r'{"x\u0000": 1}', "character"),
    "half a character": (r'["\ud800"]', "character"),
    "no UTF-8": (b"\xff\xff\xff", "decode"),
    "UTF-16 of nothing": (b"\xff\xfe", "Expecting value"),
    "bytes": (bytes(range(256)), "decode"),
    "a pickle": (b"\x80\x04K\x01.", "decode"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_is_refused(name, tmp_path):
    content, complaint = BAD_JSON[name]
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_json(content)
    assert len(str(caught.value)) < 200
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="is not valid JSON") as error:
        read_json(path)
    assert (error.value.subject, error.value.remedy is None) == (str(path), False)


GOOD_JSON: dict[str, tuple[str | bytes, Any]] = {
    "numbers": ("[1, -1, 1.5, 1e-320, 18446744073709551615]", [1, -1, 1.5, 1e-320, 2**64 - 1]),
    "twice the same": ('{"a": [1], "a": [1]}', {"a": [1]}),
    "as deep as may be": ("[" * DEEPEST + "]" * DEEPEST, json.loads("[" * DEEPEST + "]" * DEEPEST)),
    "a byte-order mark": (b'\xef\xbb\xbf{"a": "\xc3\xa9"}', {"a": "é"}),
    "UTF-16": ('{"a": "é"}'.encode("utf-16"), {"a": "é"}),
    "bytes of a name": (r'["\udcff"]', ["\udcff"]),
    "pairs of halves": (r'["\ud83d\ude00"]', ["😀"]),
}


@pytest.mark.parametrize("name", GOOD_JSON)
def test_json_that_is_read(name):
    content, expected = GOOD_JSON[name]
    assert parse_json(content) == expected


def test_numbers_that_are_not_finite_are_missing_where_others_write():
    assert parse_json("[NaN, Infinity, 1e999, 1.0]", "missing") == [None, None, None, 1.0]
    assert repr(parse_json("[NaN, 1e999]", "keep")) == "[nan, inf]"


def test_a_file_too_large_to_be_a_note_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    with path.open("wb") as stream:
        stream.truncate(LARGEST + 1)  # a hole: it takes no room
    with pytest.raises(UserError, match="larger than 50 MB"):
        read_json(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="is not a file"):
            read_whole(tmp_path / name, 10)
    with pytest.raises(UserError, match="cannot be read"):
        read_whole(tmp_path / "nowhere", 10)
    with pytest.raises(UserError, match="is not a file"):
        read_json("/dev/zero")


@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,0123456789.eE-NaIfinty \\u', max_size=60))
def test_no_content_has_another_error(content):
    try:
        read = parse_json(content)
    except ValueError:
        return
    json.dumps(read, allow_nan=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
        max_leaves=20,
    )
)  # fmt: skip
def test_what_json_can_hold_comes_back(content):
    if "\\u0000" in json.dumps(content):
        return
    assert parse_json(json.dumps(content)) == content


def test_a_name_that_is_no_text_is_written_and_read_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.nii.gz")
    write_json(tmp_path / "x.json", {"Sources": [name]})
    assert read_json(tmp_path / "x.json") == {"Sources": [name]}


# --- What others leave behind ----------------------------------------------------------------


def hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*"))


HOLD = """
import sys, time
from pathlib import Path
from napari_msp.files import atomic_path, new_folder, staged_folder
writer = {"atomic": atomic_path, "staged": staged_folder, "new": new_folder}[sys.argv[2]]
with writer(Path(sys.argv[1])) as made:
    file = made if sys.argv[2] == "atomic" else made / "file"
    file.write_bytes(bytes(100_000))
    print("ready", flush=True)
    time.sleep(60)
"""
"""Write, and be killed while at it."""


@pytest.fixture
def hold():
    """Start processes that write, and kill those that are left."""
    with ExitStack() as started:

        def start(path: Path, kind: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", HOLD, str(path), kind]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            started.enter_context(process)
            started.callback(process.kill)
            assert process.stdout.readline() == b"ready\n"
            return process

        yield start


@pytest.mark.parametrize("kind", ["atomic", "staged", "new"])
def test_what_a_killed_process_left_goes_with_the_next(kind, tmp_path, hold):
    (tmp_path / "other").mkdir()
    for _ in range(3):
        process = hold(tmp_path / "out", kind)
        process.kill()
        process.wait()
    folder = tmp_path / "out" if kind == "staged" else tmp_path
    assert len(hidden(folder)) == 1, "each takes away the one before"
    write_text(folder / "another.txt", "x")
    assert hidden(folder) == []
    assert (folder / "another.txt").read_text() == "x"


def test_what_a_living_process_makes_stays(tmp_path, hold):
    process = hold(tmp_path / "out", "new")
    (stage,) = hidden(tmp_path)
    write_text(tmp_path / "another.txt", "x")
    os.kill(process.pid, signal.SIGSTOP)  # it may sleep for as long as it wants
    write_text(tmp_path / "another.txt", "y")
    assert hidden(tmp_path) == [stage]
    assert (stage / "made" / "file").stat().st_size == 100_000
    process.kill()
    process.wait()
    write_text(tmp_path / "another.txt", "z")
    assert hidden(tmp_path) == []


def test_one_process_s_own_writing_does_not_meet_itself(tmp_path):
    with new_folder(tmp_path / "a") as first, staged_folder(tmp_path) as second:
        (first / "x").touch()
        write_text(tmp_path / "b", "b")
        write_text(second / "c", "c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "x"]


def test_in_a_stage_a_file_needs_no_folder_and_leaves_nothing_when_it_fails(tmp_path):
    with staged_folder(tmp_path) as stage:
        for name in ("first.nii.gz", "inside/second.json"):
            with atomic_path(stage / name) as temporary:
                assert temporary.parent == (stage / name).parent
                assert temporary.suffixes == Path(name).suffixes
                temporary.write_text(name)
        with pytest.raises(KeyError), atomic_path(stage / "first.nii.gz") as temporary:
            temporary.write_text("half")
            raise KeyError
        (stage / "inside/second.json").replace(stage / "second.json")
        (stage / "inside").rmdir()
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {"first.nii.gz": "first.nii.gz", "second.json": "inside/second.json"}


@pytest.mark.parametrize(
    "owner",
    [None, b"", b"host another", b"\xff\xfe", b"system 5f8b\nhost 77"],
    ids=["none", "just begun", "another machine", "bytes", "another of both"],
)
def test_what_others_may_still_use_stays(owner, tmp_path):
    """No owner at all, one that has just begun, and those of another machine on a shared disk."""
    folder = tmp_path / f"{HIDDEN}abc.tmp"
    folder.mkdir()
    (folder / "file").write_text("theirs")
    if owner is not None:
        (folder / OWNER).write_bytes(owner)
    (tmp_path / ".abc.tmp").mkdir()  # another program's
    write_text(tmp_path / "x", "x")
    assert (folder / "file").read_text() == "theirs"
    assert (tmp_path / ".abc.tmp").exists()


def test_a_link_is_not_followed(tmp_path, hold):
    process = hold(tmp_path / "elsewhere" / "out", "new")
    process.kill()
    process.wait()
    (left,) = hidden(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / left.name).symlink_to(left)
    write_text(tmp_path / "here" / "x", "x")
    assert (left / "made" / "file").exists()


def test_where_there_are_no_locks_nothing_is_removed(tmp_path, hold, monkeypatch):
    process = hold(tmp_path / "out", "new")
    process.kill()
    process.wait()

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("napari_msp.files._take", no_locks)
    write_text(tmp_path / "x", "x")
    assert len(hidden(tmp_path)) == 1
    monkeypatch.undo()
    write_text(tmp_path / "x", "x")
    assert hidden(tmp_path) == []


def test_scratch_folders_of_killed_processes_go_too(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = hold(tmp_path / "x", "new")
    process.kill()
    process.wait()
    with scratch_folder() as folder:
        (folder / "image.nii").touch()
        assert [path for path in hidden(tmp_path) if path not in folder.parents] == []
    assert hidden(tmp_path) == []


@pytest.mark.slow
def test_killed_simulations_leave_nothing_for_long(tmp_path):
    code = "import sys; from napari_msp.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "simulate", str(tmp_path / "heads"), "--size", "tiny"]
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 300
        while not list(tmp_path.glob(".*/made/sub-01/*/dwi/*.nii.gz")):
            assert time.monotonic() < until
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert len(hidden(tmp_path)) == 1
    with new_folder(tmp_path / "heads"):
        assert len(hidden(tmp_path)) == 1, "its own"
    assert hidden(tmp_path) == []


# --- Disks that take no more -----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_is_said_of_the_file_that_was_wanted(number, tmp_path):
    (tmp_path / "out.txt").write_text("before")

    def fail(path: Path | None = None) -> None:
        raise OSError(number, os.strerror(number), *([str(path)] if path else []))

    with (
        pytest.raises(
            UserError, match=r"out\.txt: cannot be written \(.*\); free some space"
        ) as caught,
        atomic_path(tmp_path / "out.txt") as temporary,
    ):
        temporary.write_text("half")
        fail()
    assert caught.value.subject == str(tmp_path / "out.txt")
    with (
        pytest.raises(UserError, match="folder: cannot be written"),
        new_folder(tmp_path / "folder") as stage,
    ):
        fail(stage / "x")
    with (
        pytest.raises(UserError, match="cannot be written") as caught,
        new_folder(tmp_path / "folder") as stage,
        atomic_path(stage / "sub-01" / "x"),
    ):
        fail()
    assert caught.value.subject == str(tmp_path / "folder"), "the hidden name is nobody's"
    assert (tmp_path / "out.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_another_file_s_error_keeps_its_name(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "out.txt"):
        raise OSError(errno.EIO, "Input/output error", "/data/dwi.nii.gz")
    assert caught.value.filename == "/data/dwi.nii.gz"
    with pytest.raises(BrokenPipeError), atomic_path(tmp_path / "out.txt"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_an_older_folder_goes_once_the_new_one_stands(tmp_path, monkeypatch):
    old = tmp_path / "aligned"
    old.mkdir()
    (old / "scan").write_text("old")
    rename, calls = Path.replace, []

    def refuse_the_second(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="cannot write here"):
        patched.setattr(Path, "replace", refuse_the_second)
        with new_folder(old, replace=True) as stage:
            (stage / "scan").write_text("new")
    assert (old / "scan").read_text() == "old"
    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="could not be removed"):
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with new_folder(old, replace=True) as stage:
            (stage / "scan").write_text("new")
    assert (old / "scan").read_text() == "new"
    (aside,) = tmp_path.glob(".aligned.*.old")
    assert (aside / "scan").read_text() == "old"


def test_a_linked_folder_stays_linked(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/scan").write_text("old")
    link = tmp_path / "aligned"
    link.symlink_to(tmp_path / "disk")
    with new_folder(link, replace=True) as stage:
        (stage / "scan").write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "disk/scan").read_text() == "new"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["aligned", "disk"]


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a broken link; create its") as error:
        write_json(tmp_path / "out/a.json", {})
    assert error.value.subject == str(tmp_path / "out")


def test_a_lock_of_another_user_can_be_taken(tmp_path, monkeypatch):
    """Who may only read it in a folder that several share."""
    path, real = tmp_path / "cohort.tsv", os.open

    def not_mine(name, flags, *mode):
        if str(name).endswith(".lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", not_mine)
    with pytest.raises(UserError, match=r"cannot write here \(Permission denied\)"), reserved(path):
        pass
    (tmp_path / ".cohort.tsv.lock").touch()
    with reserved(path), pytest.raises(UserError, match="another process"), reserved(path):
        pass
    assert not (tmp_path / ".cohort.tsv.lock").exists()
