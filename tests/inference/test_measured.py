"""The numbers that a prediction's sidecar keeps."""

import json

import nibabel as nib
import pytest

from napari_msp.checking.quality import measure_quality
from napari_msp.data.acquisition import load_acquisition
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.signal.fitting import fit_sh

STEM = "sub-01_ses-ge_acq-st"


def test_numbers_are_those_of_scan_and_maps(small_scan, saved_model, tmp_path):
    (tmp_path / "in").mkdir()
    scan = small_scan(noise=8.0)
    dwi = scan.write(tmp_path / "in", stem=STEM)
    (written,) = harmonize_to_folder(dwi, saved_model, ["connectom_sa"], tmp_path / "out")
    told = json.loads((written.parent / written.name.replace(".nii.gz", ".json")).read_text())
    measured = told["Measures"]
    acquisition = load_acquisition(dwi)
    assert measured["SNR"] == pytest.approx(measure_quality(acquisition).snr, rel=1e-5)
    # Statistics of the model: mean 1.5, deviation 0.4 of c00.
    mean = fit_sh(acquisition).coefficients[acquisition.mask][:, 0].mean()
    assert measured["MeanSignalDeviation"] == pytest.approx((mean - 1.5) / 0.4, abs=1e-4)
    stem = f"{STEM}_desc-connectomsaMsp"
    mask = nib.load(written.parent / f"{stem}_mask.nii.gz").get_fdata() > 0
    assert measured["MaskVolume"] == pytest.approx(mask.sum() * 1.2**3 / 1000, rel=1e-5)
    spread = nib.load(written.parent / f"{stem}_model-sh_param-disagreement0_dwimap.nii.gz")
    assert measured["DisagreementOfOrder0"] == pytest.approx(
        spread.get_fdata()[mask].mean(), rel=1e-5
    )
    assert "ExpectedErrorMedian" not in measured


def test_of_several_shells_the_largest_counts(small_scan, make_model, tmp_path):
    (tmp_path / "in").mkdir()
    dwi = small_scan(b_values=(1200.0, 3000.0)).write(tmp_path / "in", stem=STEM)
    model, out = make_model(b_value=(1200.0, 3000.0)), tmp_path / "out"
    harmonize_to_folder(dwi, model, ["prisma_st"], out)
    measured = json.loads((out / f"{STEM}_desc-prismastMsp_dwi.json").read_text())["Measures"]
    mask = nib.load(out / f"{STEM}_desc-prismastMsp_mask.nii.gz").get_fdata() > 0
    means = [
        nib.load(path).get_fdata()[mask].mean()
        for path in out.glob("*B*disagreement0_dwimap.nii.gz")
    ]
    assert len(means) == 2
    assert measured["DisagreementOfOrder0"] == pytest.approx(max(means), rel=1e-5)
