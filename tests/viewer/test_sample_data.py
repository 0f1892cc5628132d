"""File > Open Sample: made once, kept, made again when damaged, and cancelled without a trace."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_msp.errors import UserError
from napari_msp.ui.layers import scans_of

PLUGIN, KEY = "napari-msp", "travelling_heads"


SLOW = pytest.mark.slow


@pytest.fixture
def cache(viewer, tmp_path) -> Iterator[Path]:
    """A cache folder of this test's own, set as in the preferences."""
    from napari.settings import get_plugin_settings

    machine = get_plugin_settings(PLUGIN).machine
    machine.cache_folder = str(tmp_path / "cache")
    yield tmp_path / "cache"
    machine.cache_folder = ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that holds the sample already, to be copied."""
    from napari_msp.ui.reading import Control
    from napari_msp.ui.sample_data import first_targets, kept_heads

    folder = tmp_path_factory.mktemp("made") / "travelling-heads-tiny"
    kept_heads(folder, "tiny", first_targets(), Control(lambda: False, lambda told: None))
    return folder


def open_sample(viewer, key=KEY):
    return viewer.open_sample(PLUGIN, key, size="tiny")


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def watch(act):
    """Call something with the dialog that is waited in, as soon as there is one."""
    seen = []

    def look():
        dialog = QApplication.activeModalWidget()
        if dialog is not None:
            seen.append((dialog.row.words.text(), dialog.row.bar.value()))
            act(dialog)

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(20)
    return seen, timer


def test_the_head_opens_with_truth_for_one_target(viewer, cache):
    seen, timer = watch(lambda dialog: None)
    layers = open_sample(viewer)
    timer.stop()
    assert [layer.name for layer in layers] == [
        "sub-01 ge_st · b0",
        "sub-01 ge_st · colour FA",
        "sub-01 ge_st · SH average",
    ]
    (record,) = scans_of(viewer.layers)
    assert sorted(record.siblings) == ["prisma_st"]
    for path in record.siblings.values():
        assert path.is_relative_to(cache)
        assert path.is_file()
    # Meanwhile the window told, scan by scan, how far it was.
    told = [words for words, _ in seen]
    assert any("sub-01 on prisma_st" in words for words in told)
    shares = [share for _, share in seen if share >= 0]
    assert shares == sorted(shares)
    assert QApplication.activeModalWidget() is None


def test_it_is_made_once(viewer, cache, made):
    shutil.copytree(made, cache / made.name)
    before = stamps(cache)
    shown = open_sample(viewer)
    (scan,) = scans_of(viewer.layers)
    shown[-1].visible = False
    open_sample(viewer)
    assert scans_of(viewer.layers) == [scan]  # the same head is one scan
    assert [layer.name for layer in viewer.layers] == [layer.name for layer in shown]
    assert viewer.layers[-1].visible
    assert stamps(cache) == before


def test_scans_on_the_other_targets_are_made_when_they_are_asked_for(viewer, cache, made):
    shutil.copytree(made, cache / made.name)
    (few,) = scans_of(open_sample(viewer))
    (before,) = few.siblings.values()
    written = before.read_bytes()
    (record,) = scans_of(open_sample(viewer, f"{KEY}_everywhere"))
    assert sorted(record.siblings) == ["connectom_sa", "connectom_st", "prisma_st"]
    assert before.read_bytes() == written
    stamped = stamps(cache)
    open_sample(viewer)
    assert stamps(cache) == stamped


@pytest.mark.parametrize(
    "damage",
    ["cut", *(pytest.param(each, marks=SLOW) for each in ("changed", "missing", "undescribed"))],
)
def test_a_damaged_head_is_made_again(viewer, cache, made, damage):
    folder = cache / made.name
    shutil.copytree(made, folder)
    scan = next(folder.rglob("*ses-prisma*_dwi.nii.gz"))
    if damage == "cut":
        scan.write_bytes(scan.read_bytes()[:-1000])
    elif damage == "changed":
        scan.write_bytes(scan.read_bytes()[:-1] + b"?")
    elif damage == "missing":
        shutil.rmtree(folder / "heads/derivatives")
    else:
        (folder / "made.json").unlink()
    assert len(open_sample(viewer)) == 3
    for path in made.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_cancelling_leaves_nothing(viewer, cache):
    _, timer = watch(lambda dialog: dialog.reject())
    assert open_sample(viewer) == []  # told of no error either
    timer.stop()
    assert not viewer.layers
    assert not cache.exists() or list(cache.iterdir()) == []
    assert viewer.window._qt_window.isEnabled()


def test_cancelling_keeps_what_was_made_before(viewer, cache, made):
    shutil.copytree(made, cache / made.name)
    (scan,) = scans_of(open_sample(viewer))
    before = stamps(cache)
    _, timer = watch(lambda dialog: dialog.reject())
    assert open_sample(viewer, f"{KEY}_everywhere") == []
    timer.stop()
    assert stamps(cache) == before
    assert all(path.is_file() for path in scan.siblings.values())


def test_a_cache_that_cannot_be_written_is_named(viewer, cache):
    cache.write_text("a file stands in the way")
    with pytest.raises(UserError, match=r"^Cannot write here.*choose a cache folder in File"):
        open_sample(viewer)
    assert not viewer.layers
