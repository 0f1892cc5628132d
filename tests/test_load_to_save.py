"""One scan from load to save: each thing is read, fitted and computed once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_msp import scan as scan_module
from napari_msp.data.acquisition import load_acquisition
from napari_msp.errors import Overwrite, UserError
from napari_msp.files import write_json
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.scan_sources import as_scan, load_scan
from napari_msp.signal import maps as maps_module
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import MAPS, Map, Maps, angle_between, tensor_maps
from napari_msp.signal.sh_image import load_sh, write_sh


@pytest.fixture
def dwi(heads: Path) -> Path:
    return heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """Count the calls of a function where a module uses it."""
    calls: list[Any] = []
    real = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_scan_is_fitted_once_however_many_maps_are_asked_for(
    dwi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = counted(monkeypatch, scan_module, "fit_sh")
    tensors = counted(monkeypatch, maps_module, "fit_tensors")
    scan = load_scan(dwi)
    assert not fits
    for _ in range(2):
        assert {name: values.shape[:3] for name, values in scan.maps().items()} == dict.fromkeys(
            MAPS, scan.mask.shape
        )
    assert (len(fits), len(tensors)) == (1, 1)
    assert scan.maps()["fa"] is scan.maps()["fa"]


def test_maps_are_the_functions_of_the_library(dwi: Path) -> None:
    scan = load_scan(dwi)
    sampled, measured = tensor_maps(scan.sh), tensor_maps(load_acquisition(dwi))
    for route, expected in (("sh", sampled), ("signal", measured)):
        maps = scan.maps(route)  # type: ignore[arg-type]
        np.testing.assert_array_equal(maps["fa"], expected.fa)
        np.testing.assert_array_equal(maps["md"], expected.md)
        np.testing.assert_array_equal(maps["direction"], expected.direction)
        np.testing.assert_array_equal(maps["colour_fa"], expected.colour)
    assert scan.maps() is scan.maps("signal")  # as `save` and the command write them
    image = as_scan(scan.sh)
    assert image.maps() is image.maps("sh")


def test_a_map_that_is_added_to_the_registry_is_computed_and_written(
    dwi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = Map(
        "twice",
        "twice the FA",
        "FA",
        "twice",
        lambda maps: np.float32(2) * maps["fa"],
    )
    assert twice.error_unit == "FA²"
    assert replace(twice, unit="SH units²").error_unit == "(SH units²)²"
    added = {**MAPS, "twice": twice}
    monkeypatch.setattr(maps_module, "MAPS", added)
    monkeypatch.setattr(scan_module, "MAPS", added)
    written = load_scan(dwi).save(tmp_path)
    assert written[-1].name == "sub-01_ses-ge_acq-st_model-tensor_param-twice_dwimap.nii.gz"
    fa = next(path for path in written if "param-fa_" in path.name)
    np.testing.assert_array_equal(nib.load(written[-1]).get_fdata(), 2 * nib.load(fa).get_fdata())


def test_directions_are_compared_by_their_angle_whatever_their_sign() -> None:
    x, y = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    truth = np.array([x, x, x, x]).reshape(4, 1, 1, 3)
    found = np.array([x, -x, y, (x + y) / np.sqrt(2)]).reshape(4, 1, 1, 3)
    mask = np.ones((4, 1, 1), dtype=bool)
    angles = angle_between(found, truth, mask)
    np.testing.assert_allclose(angles.ravel(), [0, 0, 90, 45], atol=1e-4)
    assert (angle_between(found, truth, ~mask) == 0).all()


def test_a_dwi_without_its_table_is_not_called_an_sh_image(dwi: Path, tmp_path: Path) -> None:
    alone = shutil.copy(dwi, tmp_path)
    with pytest.raises(UserError, match="is missing") as error:
        load_scan(alone)
    assert error.value.field == "bval"
    assert str(error.value.subject).endswith(".bval")


def test_names_come_from_the_file(dwi: Path) -> None:
    scan = load_scan(dwi)
    assert (scan.subject, scan.platform, scan.name) == ("sub-01", "ge_st", "ge_st")
    assert scan.owner == "sub-01 ge_st"
    assert sorted(scan.siblings) == ["connectom_sa", "prisma_st"]
    assert scan.label == ""


def test_a_predicted_image_is_named_by_its_provenance(dwi: Path, tmp_path: Path) -> None:
    """Whatever its file is called, and whatever its description says."""
    image = fit_sh(load_acquisition(dwi))
    made = Provenance("prisma_st", "ge_st", title="MSP", kind="msp")
    path = tmp_path / "sub-01_whatever_dwimap.nii.gz"
    write_sh(path, image, made.to_sidecar() | {"Description": "x as predicted from y"})
    scan = load_scan(str(path))
    assert (scan.owner, scan.label, scan.platform) == ("sub-01 MSP prisma_st", "MSP", "prisma_st")
    first = replace(scan, provenance=replace(made, stage="first"))
    assert first.owner == "sub-01 MSP prisma_st first stage"


def test_in_memory_it_has_the_names_that_it_is_given(dwi: Path, tmp_path: Path) -> None:
    image = fit_sh(load_acquisition(dwi))
    scan = Scan(given_sh=image, given_subject="me", given_platform="here")
    assert (scan.owner, scan.siblings, scan.notes) == ("me here", {}, ())
    assert scan.lattice.shape == image.mask.shape
    assert {path.name.split("_")[0] for path in scan.save(tmp_path)} == {"me"}
    with pytest.raises(UserError, match="made in memory"):
        Scan(given_sh=image).save(tmp_path)


def test_saving_replaces_nothing_unasked(dwi: Path, tmp_path: Path) -> None:
    scan = load_scan(dwi)
    written = scan.save(str(tmp_path))
    with pytest.raises(UserError, match="exists already") as error:
        scan.save(tmp_path)
    assert (error.value.subject, error.value.remedy) == (str(written[0]), Overwrite())
    # As if an earlier run had written all shells.
    other = written[0].name.replace("_model-", "_desc-b3000_model-")
    strange = ("sub-02" + other.removeprefix("sub-01"), other.replace("b3000", "prismastMsp"))
    for name in (other, other.replace(".nii.gz", ".json"), *strange):
        shutil.copy(written[0], tmp_path / name)
    assert scan.save(tmp_path, force=True) == written
    left = {path.name for path in tmp_path.glob("*_desc-*")}
    assert left == set(strange)
    np.testing.assert_allclose(load_sh(written[0]).coefficients, scan.sh.coefficients)


def test_a_name_too_long_for_what_is_made_of_it_is_named(dwi: Path, tmp_path: Path) -> None:
    scan = replace(load_scan(dwi), path=tmp_path / f"sub-{'x' * 235}_dwi.nii.gz")
    with pytest.raises(UserError, match=r"dwimap\.nii\.gz is too long; sh") as e:
        scan.save(tmp_path / "maps")
    assert e.value.subject == str(tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_what_a_reader_should_know(dwi: Path, tmp_path: Path) -> None:
    scan = load_scan(dwi)
    assert scan.notes == (f"{dwi.name}: SH of order 6 were fitted to the scan",)
    path = tmp_path / "image.nii.gz"
    write_sh(path, replace(scan.sh, b_value=1200.0, rescaled_from=1000.0))
    (note,) = load_scan(path).notes
    assert "rescaled from b = 1000 to 1200" in note


def test_an_image_without_b_value_is_refused(dwi: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    write_sh(path, replace(fit_sh(load_acquisition(dwi)), b_value=None))
    with pytest.raises(UserError, match="b-value is unknown") as error:
        load_scan(path)
    assert error.value.subject == str(path)


def test_an_open_choice_of_shells_is_an_error_before_voxels_are_read(
    scan: Callable[..., Any], tmp_path: Path
) -> None:
    path = scan(b_values=(700.0, 1200.0)).write(tmp_path)
    both = load_scan(path)
    assert both.shells == (700, 1200)
    for ask in (lambda: both.b_value, lambda: both.sh, both.at_shell):
        with pytest.raises(UserError, match="several shells") as error:
            ask()
        assert error.value.field == "b_value"
    assert "voxels" not in vars(both.acquisition)
    with pytest.raises(UserError, match="no shell near b = 3000"):
        load_scan(path, [700, 3000])
    chosen = load_scan(path, 700)
    assert chosen.b_value == 700
    assert "voxels" not in vars(chosen.acquisition)


def test_a_scan_needs_something() -> None:
    with pytest.raises(ValueError, match="needs an acquisition or an SH image"):
        Scan()


def test_sidecars_of_others_are_no_provenance(dwi: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub-03_ses-a_acq-b_desc-other_dwimap.nii.gz"
    write_sh(path, fit_sh(load_acquisition(dwi)))
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    write_json(sidecar, {"BValue": 1200, "Description": "something as predicted from nothing"})
    scan = load_scan(path)
    assert scan.provenance is None
    assert scan.owner == "sub-03 a_b other"


def test_maps_say_what_they_are_in_a_line(dwi: Path) -> None:
    scan = load_scan(dwi)
    for thing in (scan, scan.maps(), scan.acquisition, scan.sh, scan.lattice):
        assert len(repr(thing)) < 250
        assert "\n" not in repr(thing)
    assert isinstance(scan.maps(), Maps)
