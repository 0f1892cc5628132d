"""What a scientist meets: one list of names, text or Path, objects that print in a line."""

import ast
import doctest
import importlib
import inspect
import pickle
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_msp as msp
from napari_msp.data.dataset import open_dataset
from napari_msp.learning.settings import TrainingSettings
from napari_msp.provenance import Provenance

STUB = Path(msp.__file__).with_suffix(".pyi")


def listed() -> dict[str, str]:
    """The names in the list, with the modules that they come from."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    return {
        alias.name: f"napari_msp.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_what_reports_and_what_is_stopped_have_one_name_each() -> None:
    for function in filter(inspect.isfunction, (getattr(msp, name) for name in msp.__all__)):
        known = inspect.signature(function).parameters
        assert ("progress" in known) == ("cancelled" in known), function
        for name, each in known.items():
            assert not name.startswith(("on_", "stop")), function
            assert name not in ("progress", "cancelled") or each.default is None, function


def test_there_is_one_list_and_every_name_on_it_is_there() -> None:
    assert set(msp.__all__) == {*listed(), "__version__"}
    for name, module in listed().items():
        assert getattr(msp, name) is getattr(sys.modules[module], name)
    assert set(msp.__all__) <= set(dir(msp))


def test_examples_in_docstrings_are_true() -> None:
    house = STUB.parent
    for path in sorted(house.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            module = ".".join(("napari_msp", *path.relative_to(house).with_suffix("").parts))
            told = doctest.testmod(importlib.import_module(module.removesuffix(".__init__")))
            assert told.failed == 0, module


def test_names_stand_alone_or_in_any_collection(heads: Path, tmp_path: Path) -> None:
    given = {"held_out": "sub-03", "subjects": np.array(["sub-01", "sub-03"])}
    settings = TrainingSettings.model_validate(given)
    assert (settings.held_out, settings.subjects) == (("sub-03",), ("sub-01", "sub-03"))
    file = heads / "dataset_description.json"
    jobs: list[Callable[[], object]] = [
        lambda: msp.align(heads, tmp_path / "aligned", subjects="sub-09"),
        lambda: msp.run_cohort(heads, tmp_path, file, "all", participants="sub-09"),
        lambda: msp.simulate(tmp_path / "new", targets="sub-09"),
        lambda: msp.measure_regions({}, "labels", maps="sub-09"),
        lambda: msp.compare(None, {}, maps="sub-09"),
    ]
    for job in jobs:
        with pytest.raises(msp.UserError, match="sub-09"):
            job()
    misspelt: list[Callable[[], object]] = [
        lambda: msp.train(heads, tmp_path / "m.safetensors", knd="msp"),
        lambda: msp.evaluate(heads, tmp_path / "table", modles=[]),
        lambda: msp.harmonize("msp-teaching", file, "all", keep_stage=True),  # type: ignore[call-arg]
    ]
    for job in misspelt:
        with pytest.raises(msp.UserError, match="there is no such setting; choose from"):
            job()


@pytest.mark.parametrize(
    "job",
    [
        "load_acquisition load_scan load_sh load_model fit_sh evaluate_sh harmonize train",
        "evaluate compare check calibrate run_cohort figure3 simulate import_tree import_dicom",
    ],
)
def test_every_job_is_at_the_top(job: str) -> None:
    assert set(job.split()) <= set(msp.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="harmonise"):
        _ = msp.harmonise  # type: ignore[attr-defined]


def test_files_are_named_by_text_too(make_heads: Callable[..., Path], tmp_path: Path) -> None:
    """All other tests name them by Path."""
    heads = make_heads(tmp_path / "heads", subjects=1, shape=(8, 8, 7))
    dwi = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    acquisition = msp.load_acquisition(
        str(dwi),
        str(dwi.with_name("sub-01_ses-ge_acq-st_dwi.bval")),
        str(dwi.with_name("sub-01_ses-ge_acq-st_dwi.bvec")),
        str(dwi.with_name("sub-01_ses-ge_acq-st_mask.nii.gz")),
    )
    sh = msp.fit_sh(acquisition)
    sh.save(str(tmp_path / "a.nii.gz"))
    msp.write_sh(str(tmp_path / "b.nii.gz"), sh)
    assert (tmp_path / "a.json").exists()
    for name in ("a", "b"):
        again = msp.load_sh(str(tmp_path / f"{name}.nii.gz"))
        np.testing.assert_array_equal(again.coefficients, sh.coefficients)
    assert msp.load_scan(str(dwi)).save(str(tmp_path / "maps"))
    checked = msp.check(str(heads), alignment=False)
    assert {finding.severity for finding in checked.findings} == {"note"}
    assert len(repr(checked)) < 300
    result = msp.compare(
        str(tmp_path / "a.nii.gz"), {"same": str(tmp_path / "b.nii.gz")}, str(tmp_path / "c")
    )
    assert result.metrics["same"].sh_mse == 0
    assert repr(result.metrics["same"]).count("\n") == 0
    with pytest.raises(AttributeError):  # a type checker finds it, too
        _ = result.metrcs  # type: ignore[attr-defined]


def test_a_model_from_training_to_a_saved_prediction(heads: Path, tmp_path: Path) -> None:
    """The README's way, in text paths, with keyword settings; every object prints in a line."""
    out = str(tmp_path / "m.safetensors")
    msp.train(
        str(heads),
        out,
        kind="shresnet",
        targets=["prisma_st"],
        width=0.1,
        epochs=1,
        steps_per_epoch=2,
        crop=5,
        batch=1,
        device="cpu",
    )
    model = msp.load_model(out)
    scan = msp.load_scan(str(heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"))
    prediction = msp.harmonize(model, scan, target="prisma_st", device="cpu")
    assert isinstance(prediction, msp.Scan)
    assert prediction.owner == "sub-01 SHResNet prisma_st"
    assert prediction.source is scan
    assert prediction.person == scan.person
    written = prediction.save(str(tmp_path / "out"))
    again = msp.load_scan(
        written[-1]
        if "coefficients" in written[-1].name
        else sorted(path for path in written if "coefficients" in path.name)[0]
    )
    assert again.owner == prediction.owner
    assert again.person == prediction.person
    assert scan.acquisition is not None
    in_memory = msp.Scan(acquisition=replace(scan.acquisition, path=None), given_subject="me")
    saved = msp.harmonize(model, in_memory, target="prisma_st", device="cpu").save(tmp_path / "me")
    assert {path.name.split("_")[0] for path in saved} == {"me"}
    things = [model, scan, prediction, scan.acquisition, scan.sh, prediction.gradients]
    for thing in things:
        assert len(repr(thing)) < 300, type(thing)
        assert repr(thing).count("\n") < 2
        assert thing == thing
        assert thing in {thing}, "hashes by identity"


def test_objects_with_arrays_compare_and_hash_by_identity(heads: Path) -> None:
    dwi = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    one, other = msp.load_scan(dwi), msp.load_scan(dwi)
    for a, b in [(one, other), (one.acquisition, other.acquisition), (one.sh, other.sh)]:
        assert a != b
        assert len({a, b}) == 2
        assert is_dataclass(a)
        assert fields(a)


def test_what_hangs_on_public_objects_prints_in_a_line_too(heads: Path) -> None:
    scan = msp.load_scan(heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz")
    assert scan.acquisition is not None
    made = Provenance("prisma_st", "ge_st", title="MSP", model_file="m.safetensors")
    for thing in (open_dataset(heads), scan.maps(), scan.acquisition.shell(), scan.lattice, made):
        assert len(repr(thing)) < 300, type(thing)
        assert repr(thing).count("\n") < 2
    assert scan.maps() in {scan.maps()}
    assert scan.maps() != msp.load_scan(str(scan.path)).maps()


def test_an_error_names_the_parameter_that_python_knows(
    scan: Callable[..., Any], tmp_path: Path
) -> None:
    acquisition = scan(b_values=(700.0, 1200.0)).load(tmp_path)
    with pytest.raises(msp.UserError, match=r"choose from 700, 1200 with b_value=$") as error:
        acquisition.shell()
    assert pickle.loads(pickle.dumps(error.value)).field == "b_value"


def test_a_device_that_is_not_there_says_what_python_can_do(heads: Path) -> None:
    import torch

    from napari_msp.device import choose_device

    if torch.cuda.is_available():
        return
    with pytest.raises(msp.UserError) as error:
        choose_device("cuda")
    assert "device=" in str(error.value)
    assert "--" not in str(error.value)
