"""Which models there are to choose from."""

import shutil

import pytest

from napari_msp.errors import UserError
from napari_msp.packaged import packaged_model
from napari_msp.scan_sources import load_scan
from napari_msp.ui.harmonize import models
from napari_msp.ui.harmonize.models import (
    forget_model,
    read_models,
    remember_model,
    remembered_models,
    with_models_of_now,
)
from napari_msp.ui.harmonize.run import Pass, Request


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A list of models of this test's own."""
    monkeypatch.setattr(models, "list_file", lambda: tmp_path / "cache" / "models.json")
    return tmp_path / "cache"


def copy_of(name, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(packaged_model(name), path)
    return path


def labels(listed):
    return [each.label for each in listed.models]


def test_the_packaged_models_are_always_there():
    listed = read_models()
    assert labels(listed) == ["DIQT", "MSP"]
    assert all(each.packaged for each in listed.models)
    assert listed.problems == ()


def test_a_remembered_model_is_listed_under_its_files_name(tmp_path):
    remember_model(copy_of("MSP", tmp_path / "our-study.safetensors"))
    listed = read_models()
    assert labels(listed) == ["DIQT", "MSP", "MSP our-study"]
    assert not listed.models[-1].packaged


def test_runs_are_told_apart_by_their_folders(tmp_path):
    for folder in ("monday", "tuesday"):
        remember_model(copy_of("MSP", tmp_path / folder / "model.safetensors"))
    assert labels(read_models()) == ["DIQT", "MSP", "MSP tuesday", "MSP monday"]


def test_a_runs_default_folder_is_named_without_kind_and_date_unless_two_are_alike(tmp_path):
    for name in ("heads-msp-2026-11-30", "heads-b-msp-2026-11-30-2"):
        remember_model(copy_of("MSP", tmp_path / name / "model.safetensors"))
    assert labels(read_models())[2:] == ["MSP heads-b", "MSP heads"]
    remember_model(copy_of("MSP", tmp_path / "heads-msp-2026-12-01" / "model.safetensors"))
    newest = ["MSP heads-msp-2026-12-01", "MSP heads-b", "MSP heads-msp-2026-11-30"]
    assert labels(read_models())[2:] == newest


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a/x", "b/x", "b/y"):
        remember_model(copy_of("DIQT", tmp_path / folder / "best.safetensors"))
    assert labels(read_models())[2:] == ["DIQT y best", "DIQT b x best", "DIQT a x best"]


def test_the_newest_comes_first_and_none_twice(tmp_path):
    first = copy_of("MSP", tmp_path / "first.safetensors")
    second = copy_of("MSP", tmp_path / "second.safetensors")
    for path in (first, second, first):
        remember_model(path)
    assert remembered_models() == [first, second]


def test_a_forgotten_model_keeps_its_file(tmp_path):
    path = copy_of("MSP", tmp_path / "mine.safetensors")
    remember_model(path)
    forget_model(path)
    assert labels(read_models()) == ["DIQT", "MSP"]
    assert path.exists()


def test_a_model_that_is_gone_is_passed_over(tmp_path):
    path = copy_of("MSP", tmp_path / "mine.safetensors")
    remember_model(path)
    path.unlink()
    listed = read_models()
    assert labels(listed) == ["DIQT", "MSP"]
    assert listed.problems == ()


def test_a_model_that_was_damaged_is_told_of(tmp_path):
    path = copy_of("MSP", tmp_path / "mine.safetensors")
    remember_model(path)
    path.write_bytes(b"no model")
    listed = read_models()
    assert labels(listed) == ["DIQT", "MSP"]
    assert "mine.safetensors" in str(listed.problems[0])


def test_a_damaged_list_is_begun_anew(tmp_path, cache):
    cache.mkdir()
    (cache / "models.json").write_text("[not json")
    assert labels(read_models()) == ["DIQT", "MSP"]
    remember_model(copy_of("MSP", tmp_path / "mine.safetensors"))
    assert len(remembered_models()) == 1


def test_only_files_that_changed_are_read_again(scan, tmp_path):
    path = copy_of("MSP", tmp_path / "mine.safetensors")
    remember_model(path)
    before = read_models()
    again = read_models(before)
    assert [one.model for one in again.models] == [one.model for one in before.models]
    copy_of("DIQT", path)
    anew = read_models(before)
    assert anew.models[0].model is before.models[0].model
    assert anew.models[-1].label == "DIQT mine"
    # What was listed before predicts with what the file holds now, or with what it held.
    packaged, mine = before.models[0], before.models[-1]
    assert packaged.as_of_now() is packaged.model
    assert (mine.model.kind, mine.as_of_now().kind) == ("msp", "diqt")
    assert (packaged.is_current, mine.is_current) == (True, False)
    head = load_scan(scan().write(tmp_path))
    passes = (Pass(packaged.label, packaged.model, "a"), Pass(mine.label, mine.model, "b"))
    request = with_models_of_now(Request(head, passes), before.models)
    assert request.passes[0].model is packaged.model
    assert (request.passes[1].target, request.passes[1].model.kind) == ("b", "diqt")
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"mine\.safetensors"):
        mine.as_of_now()
    path.unlink()
    assert mine.as_of_now() is mine.model
