"""A network and a baseline of another package: listed, trained, harmonized with and offered."""

import importlib
import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from napari_msp import plugins
from napari_msp.cli import main
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Choose, UserError
from napari_msp.evaluation.baselines.base import baseline_class, baseline_names
from napari_msp.evaluation.benchmark.methods import all_methods, chosen_methods
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.settings import choices_of
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.networks import registry
from napari_msp.signal.fitting import fit_sh

PACKAGE = Path(__file__).parent / "plugin_package"

THEIRS = EntryPoint("Diqt", "tiny_networks:Tiny", registry.GROUP)

OURS = tuple(map(str.lower, registry.OWN))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install the package as pip would: its metadata, and its modules on the path."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(PACKAGE)
    yield
    for module in ("tiny_networks", "tiny_baselines"):
        sys.modules.pop(module, None)
    importlib.invalidate_caches()


def test_our_own_networks_are_always_there():
    assert registry.kinds() == OURS
    assert registry.single_kinds() == OURS[1:]
    assert [registry.title(kind) for kind in OURS] == list(registry.OWN)
    assert OURS[0] == registry.MULTI_STAGE
    for kind in OURS:
        network = registry.network_class(kind)
        assert network.kind == kind
        assert network.summary.endswith(".")
        assert network.cost > 0
        assert (network.role == "multi-stage") == (kind == "msp")


def test_a_network_is_known_where_it_is_installed_and_nowhere_else(installed):
    assert registry.kinds() == (*OURS, "tiny")
    assert registry.title("tiny") == "Tiny"
    assert registry.network_class("tiny").cost == 0.1
    assert "tiny" in choices_of("kind")
    assert "tiny" in choices_of("first_stage")


def test_it_trains_and_harmonizes_alone_and_in_an_msp(installed, heads, tmp_path):
    common: dict[str, Any] = {
        "targets": ("prisma_st", "connectom_sa"),
        "width": 0.2,
        "held_out": ("sub-03",),
    }
    short: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 2, "crop": 8, "batch": 1}
    short["device"] = "cpu"
    kinds: dict[str, dict[str, Any]] = {
        "tiny": {"kind": "tiny"},
        "msp": {"kind": "msp", "first_stage": {"connectom_sa": "tiny"}},
    }
    scan = open_dataset(heads).acquisition("sub-03", "ge_st")
    for name, settings in kinds.items():
        path = tmp_path / f"{name}.safetensors"
        train(heads, path, **settings, **common, **short)
        model = load_model(path)
        assert model.kind == name
        assert harmonize(model, scan, "connectom_sa", device="cpu").sh.mask.any()


def test_a_package_cannot_take_the_place_of_ours(installed, monkeypatch):
    ours = registry.network_class("diqt")
    monkeypatch.setattr(plugins, "_entry_points", lambda *_: (THEIRS,))
    assert registry.kinds() == OURS
    assert registry.network_class("diqt") is ours


def test_a_baseline_is_a_row_of_the_table(installed, heads):
    assert baseline_names()[-1] == "dimming"
    assert chosen_methods(["dimming", "tiny"]) == ("dimming", "Tiny")
    methods = all_methods()
    assert methods["dimming"].explanation == "One factor for all coefficients."
    assert methods["Tiny"].explanation == "Two convolutions with a ReLU between."
    dataset = open_dataset(heads)
    source, truth = (fit_sh(dataset.acquisition("sub-01", p)) for p in ("ge_st", "prisma_st"))
    found = baseline_class("dimming")().fit([source], [truth]).predict(source, truth.lattice)
    inside = truth.mask & found.mask
    brightness = [each.coefficients[inside][:, 0].mean() for each in (found, truth)]
    assert brightness[0] == pytest.approx(brightness[1], rel=1e-3)


def test_both_are_evaluated(installed, heads, tmp_path):
    chosen: dict[str, Any] = {"methods": ["dimming", "Tiny"], "targets": "prisma_st", "quick": True}
    evaluate(heads, tmp_path / "out", **chosen, batch=1, crop=8, device="cpu", workers=1)
    table = (tmp_path / "out" / "table1.csv").read_text()
    assert {"dimming", "Tiny"} <= set(re.split(r"[,\n]", table))


def test_the_train_form_offers_it(installed, qtbot, tmp_path):
    from napari_msp.ui.train.form import TrainingForm

    form = TrainingForm(tmp_path)
    qtbot.addWidget(form)
    kinds = form.entries["kind"].native
    assert [kinds.itemData(row) for row in range(kinds.count())] == [*OURS, "tiny"]
    form.entries["kind"].write("tiny")
    assert form.entries["kind"].native.currentText() == "Tiny"


def test_the_command_line_offers_it(installed, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "hned,tiny" in capsys.readouterr().out


def test_a_model_whose_package_is_gone_says_so(installed, heads, tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    short: dict[str, Any] = {
        "epochs": 1,
        "steps_per_epoch": 1,
        "crop": 8,
        "width": 0.2,
        "device": "cpu",
    }
    train(heads, path, kind="tiny", targets=("prisma_st",), **short)
    monkeypatch.undo()
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert caught.value.subject == str(path)
    assert caught.value.problem == "cannot be used (there is no network tiny)"
    with pytest.raises(UserError) as caught:
        registry.network_class("tiny")
    assert (caught.value.field, caught.value.remedy) == ("kind", Choose("kind", OURS))


def test_a_broken_package_is_named(installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiny_networks", None)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        registry.network_class("tiny")
    assert caught.value.subject == "tiny_networks:Tiny"
