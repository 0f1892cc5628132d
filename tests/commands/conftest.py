"""A small study, a model trained on it and what it predicts; made once."""

import shutil
from pathlib import Path

import pytest
from command_line import SCAN, SHORT, call


@pytest.fixture(scope="session")
def study(tmp_path_factory, make_heads) -> Path:
    """Three small heads in a folder whose name has a blank and an accent; never written to."""
    return make_heads(tmp_path_factory.mktemp("été data") / "heads", shape=(9, 8, 7))


@pytest.fixture(scope="session")
def model(tmp_path_factory, study) -> Path:
    """An MSP for both targets, with sub-03 held out."""
    path = tmp_path_factory.mktemp("models") / "msp.safetensors"
    assert call("train", study, path, "--model", "msp", "--held-out", "sub-03", *SHORT).status == 0
    return path


@pytest.fixture(scope="session")
def harmonized(tmp_path_factory, study, model) -> Path:
    """What `harmonize` wrote for one target."""
    out = tmp_path_factory.mktemp("harmonized")
    answer = call(
        "harmonize", study / SCAN, "--model", model, "--target", "prisma_st", "--out", out
    )
    assert answer.status == 0, answer
    return out


@pytest.fixture
def copy_of_study(study, tmp_path) -> Path:
    """Two heads that a test may spoil."""
    target = tmp_path / "heads"
    for subject in ("sub-01", "sub-02"):
        shutil.copytree(study / subject, target / subject)
    shutil.copy(study / "dataset_description.json", target)
    return target
