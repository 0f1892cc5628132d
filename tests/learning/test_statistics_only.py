"""Zero steps: a start's weights with the statistics of people who need not be pairs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Give, UserError
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.settings import TrainingSettings, put_over
from napari_msp.learning.starts import StartDoubt, read_start
from napari_msp.model_file import load_model
from napari_msp.packaged import packaged_model
from napari_msp.signal.channels import into_grid
from napari_msp.signal.fitting import fit_sh

START = packaged_model("MSP")
UNPAIRED = pytest.mark.filterwarnings("ignore::napari_msp.learning.starts.StartDoubt")


@pytest.fixture
def unpaired(make_heads: Callable[..., Path], tmp_path: Path) -> Path:
    """Two people on the input platform, two others on a target."""
    root = make_heads(tmp_path / "unpaired", 4, (9, 8, 8))
    for subject in (1, 2, 3, 4):
        shutil.rmtree(root / f"sub-{subject:02d}/ses-connectom")
        gone = "ses-prisma" if subject < 3 else "ses-ge"
        shutil.rmtree(root / f"sub-{subject:02d}/{gone}")
    return root


@UNPAIRED
def test_statistics_are_of_everybody_on_a_platform(unpaired, run):
    out, events = run(unpaired, None, kind="msp", start_from=START, steps=0)
    assert [event.name for event in events] == ["started", "startedfrom", "finished"]
    model, start, dataset = load_model(out), load_model(START), open_dataset(unpaired)
    assert model.platforms == ["ge_st", "prisma_st"]
    assert model.training["statistics"] == {"ge_st": 2, "prisma_st": 2}
    assert model.training["steps"] == 0
    assert [person.label for person in model.people] == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert model.training["taught"] == {"prisma_st": ["sub-03", "sub-04"]}
    for platform, subjects in (("ge_st", (1, 2)), ("prisma_st", (3, 4))):
        scans = [dataset.acquisition(f"sub-{each:02d}", platform) for each in subjects]
        images = [into_grid({1200: fit_sh(scan, b_value=1200)}) for scan in scans]
        values = np.concatenate([each.coefficients[each.mask] for each in images]).astype(float)
        found = model.standardisation(platform)
        assert found.mean[0] == pytest.approx(values[:, 0].mean(), rel=1e-5)
        assert not found.mean[1:].any()
        assert found.deviation[0] == pytest.approx(values[:, 0].std(), rel=1e-4)
        second = np.sqrt(np.square(values[:, 1:6]).mean())
        assert np.allclose(found.deviation[1:6], second, rtol=1e-4)
    x = torch.randn(1, 28, 6, 6, 6)
    with torch.no_grad():
        first = model.single("prisma_st")(x).first["prisma_st"]
        assert torch.equal(first, start.single("prisma_st")(x).first["prisma_st"])
    prediction = harmonize(model, dataset.acquisition("sub-01", "ge_st"), "prisma_st")
    assert np.isfinite(prediction.sh.coefficients).all()


def test_what_cannot_be_known_is_said(unpaired, run):
    with pytest.warns(StartDoubt) as caught:
        run(unpaired, None, kind="msp", start_from=START, steps=0)
    said = [str(each.message) for each in caught]
    assert "statistics come from few people (ge_st 2, prisma_st 2)" in said
    assert any("different people were scanned on ge_st and prisma_st" in each for each in said)


@UNPAIRED
def test_a_measured_person_is_not_held_out_under_another_label(unpaired, run):
    for source in unpaired.rglob("sub-01*.nii.gz"):
        target = unpaired / str(source.relative_to(unpaired)).replace("sub-01", "sub-02")
        target.write_bytes(source.read_bytes())
    shutil.copytree(unpaired / "sub-03" / "ses-prisma", unpaired / "sub-02" / "ses-prisma")
    for path in (unpaired / "sub-02" / "ses-prisma").rglob("sub-03*"):
        path.rename(path.with_name(path.name.replace("sub-03", "sub-02")))
    with pytest.raises(
        UserError, match=r"sub-02 is the same person as sub-0[13], a training"
    ) as caught:
        run(unpaired, None, kind="msp", start_from=START, steps=0, held_out=("sub-02",))
    assert caught.value.field == "held_out"


@pytest.mark.slow
@UNPAIRED
def test_pairs_are_judged_where_there_are_any(make_heads, tmp_path, run):
    root = make_heads(tmp_path / "heads", 2, (9, 8, 8))
    settings = {"targets": ("prisma_st",), "held_out": ("sub-02",), "start_from": START}
    out, events = run(root, None, kind="shresnet", steps=0, **settings)
    told = next(event for event in events if event.name == "startedfrom")
    assert told.errors.keys() == told.aligned.keys() == {"prisma_st"}
    validated = next(event for event in events if event.name == "validated")
    assert load_model(out).training["held_out_sh_mse"] == {validated.phase: validated.errors}
    assert load_model(out).training["statistics"] == {"ge_st": 1, "prisma_st": 1}


@UNPAIRED
@pytest.mark.parametrize("polls", [1, 6])
def test_it_stops_between_scans_and_before_it_writes(unpaired, run, polls):
    # Two scans of two platforms are read, the first of each once more for its voxels.
    asked = iter([False] * polls + [True] * 99)
    settings = {"kind": "msp", "start_from": START, "steps": 0}
    out, events = run(unpaired, None, cancelled=lambda: next(asked), **settings)
    assert not out.exists()
    assert events[-1].name == "stopped"


@pytest.mark.parametrize(
    "given", [{"unison_steps": 5}, {"unison_epochs": 5}, {"validation": ("sub-01",)}]
)
def test_what_needs_steps_is_refused_without_them(given):
    with pytest.raises(ValueError, match="0 steps"):
        TrainingSettings.model_validate({"steps": 0} | given)
    assert put_over({"epochs": 3, "unison_epochs": 6}, {"steps": 0}) == {"steps": 0}


@UNPAIRED
def test_every_target_has_heads_that_are_measured(make_heads, tmp_path):
    root = make_heads(tmp_path / "heads", 6, (6, 6, 6))
    for subject in range(1, 7):
        gone = "ses-connectom" if subject < 5 else "ses-prisma"
        shutil.rmtree(root / f"sub-{subject:02d}/{gone}")
    settings, dataset = TrainingSettings(start_from=str(START), steps=0), open_dataset(root)
    settings, start = read_start(settings, dataset)
    study = prepare_study(dataset, settings, start.per_order, paired=False)
    assert [head.subject for head in study.heads] == dataset.subjects


@UNPAIRED
def test_without_steps_there_must_be_a_start(unpaired, run):
    with pytest.raises(UserError, match="must be at least 1, as there is no model") as caught:
        run(unpaired, None, steps=0, start_from="nothing")
    assert caught.value.remedy == Give("start_from", "a model")
    for path in sorted(unpaired.rglob("*prisma*"), reverse=True):
        path.rename(path.with_name(path.name.replace("prisma", "trio")))
    with pytest.raises(UserError, match="so it is unknown what it should begin as") as caught:
        run(unpaired, None, steps=0, start_from=START)
    assert caught.value.field == "start_from_target"
    begins = {"trio_st": "prisma_st"}
    out, _ = run(unpaired, None, steps=0, start_from=START, start_from_target=begins)
    assert load_model(out).targets == ["trio_st"]
