"""A trace image that counts as b=0 is in no file that is written, and the files say so."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.errors import Doubt
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.model_file import load_model
from napari_msp.scan import Scan

SAYS = "left out: volume 32, b = 0 but like the weighted volumes (a trace image?)"


@pytest.fixture
def made(small_scan):
    return small_scan(shape=(12, 11, 10))


@pytest.fixture
def with_trace(made):
    """Append the geometric mean of the weighted volumes, as a scanner does: b = 0, no direction."""
    signal = np.asarray(made.image.dataobj)
    trace = np.exp(np.log(np.maximum(signal[..., made.weighted], 1)).mean(axis=-1, keepdims=True))
    image = nib.Nifti1Image(np.concatenate([signal, trace], axis=-1), made.image.affine)
    return replace(
        made,
        image=image,
        b_values=np.append(made.b_values, 0),
        directions=np.append(made.directions, np.zeros((1, 3)), axis=0),
    )


def written(folder, scan, stem):
    folder.mkdir()
    return scan.write(folder, stem=stem)


def test_predictions_are_those_without_it(made, with_trace, saved_model, tmp_path):
    clean = written(tmp_path / "clean", made, "sub-01_ses-ge_acq-st")
    traced = written(tmp_path / "traced", with_trace, "sub-01_ses-ge_acq-st")
    model = load_model(saved_model)
    expected = harmonize(model, clean, "connectom_sa")
    with pytest.warns(DoubtfulScan) as warned:
        found = harmonize(model, traced, "connectom_sa")
    assert [str(each.message) for each in warned] == [f"{traced}: {SAYS}"]
    np.testing.assert_array_equal(found.sh.coefficients, expected.sh.coefficients)
    np.testing.assert_array_equal(found.b0, expected.b0)
    assert found.warnings == (Doubt(SAYS, traced), *expected.warnings)

    with pytest.warns(DoubtfulScan):
        (dwi,) = harmonize_to_folder(
            traced, model, ["connectom_sa"], tmp_path / "out", gradients="input"
        )
    assert nib.load(dwi).shape[3] == 31
    stem = dwi.name.removesuffix("_dwi.nii.gz")
    for name in (f"{stem}_dwi.json", f"{stem}_model-sh_param-coefficients_dwimap.json"):
        sidecar = json.loads((dwi.parent / name).read_text())
        assert {"Subject": str(traced), "Words": SAYS} in sidecar["Warnings"]


def test_maps_are_those_without_it(made, with_trace, tmp_path):
    clean = load_acquisition(written(tmp_path / "clean", made, "sub-01"))
    traced = load_acquisition(written(tmp_path / "traced", with_trace, "sub-01"))
    expected = Scan(acquisition=clean, path=clean.path).save(tmp_path / "expected")
    with pytest.warns(DoubtfulScan) as warned:
        found = Scan(acquisition=traced, path=traced.path).save(tmp_path / "found")
    assert len(warned) == 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(nib.load(one).get_fdata(), nib.load(other).get_fdata())
    sidecar = json.loads(found[0].with_name(found[0].name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Warnings"] == [SAYS]
    assert traced.path is not None
    assert Scan(acquisition=traced, path=traced.path).notes[0] == f"{traced.path.name}: {SAYS}"
