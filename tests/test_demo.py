"""The demo: what `make demo` shows, and that a second run makes nothing anew."""

import pytest
from matplotlib.image import imread

from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.platforms import INPUT_PLATFORM
from napari_msp.data.phantom.simulate import DEMO_SEED, DEMO_SUBJECT
from napari_msp.demo import run_demo
from napari_msp.model_file import load_model
from napari_msp.packaged import TEACHING, packaged_models
from napari_msp.strict_json import read_json


def test_packaged_models_are_small_and_say_what_they_are_for():
    paths = list(packaged_models().values())
    assert sum(path.stat().st_size for path in paths) < 6_000_000
    for name, path in zip(TEACHING, paths, strict=True):
        model = load_model(path)
        assert model.kind == name.lower()
        assert model.card.label.startswith("For teaching only")
        assert model.card.simulated_only
        assert model.targets == ["connectom_sa", "connectom_st", "prisma_st"]
        assert model.card.input == INPUT_PLATFORM
        assert model.training["settings"]["seed"] != DEMO_SEED
        assert len(model.training["subjects"]) == 6


@pytest.mark.slow
def test_demo_from_scan_to_figure(tmp_path):
    said = []
    result = run_demo(tmp_path / "demo", said.append)
    assert [each.target for each in result.targets] == ["connectom_sa", "connectom_st", "prisma_st"]
    for each in result.targets:
        picture = imread(each.figure)
        assert picture.shape[1] > 1000
        assert picture[..., :3].std() > 0.05
        metrics = read_json(each.metrics)
        before = metrics["no_harmonization"]["sh_mse"]
        assert all(metrics["predictions"][name]["sh_mse"] < before for name in TEACHING)
    heads = open_dataset(tmp_path / "demo" / "heads")
    assert heads.scans[DEMO_SUBJECT, INPUT_PLATFORM] == result.scan
    assert len(said) > 5

    stamp = {each.figure: each.figure.stat().st_mtime_ns for each in result.targets}
    again = run_demo(tmp_path / "demo", said.append)
    assert {each.figure: each.figure.stat().st_mtime_ns for each in again.targets} == stamp
