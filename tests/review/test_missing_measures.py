"""What is measured where no sidecar says it."""

import json
import os
import shutil

import numpy as np
import pytest

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.checking.quality import measure_quality
from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.nifti import write_nifti
from napari_msp.provenance import Provenance
from napari_msp.review.missing_measures import measure, unmeasured
from napari_msp.review.predictions import open_review
from napari_msp.scan_sources import load_scan
from napari_msp.signal.sh_image import with_coefficients, write_sh

STEM = "sub-01_ses-ge_acq-st_desc-prismastMsp"


@pytest.fixture
def harmonized(heads, tmp_path, predict):
    """A prediction that is the truth with an error of 0.1 in each coefficient."""
    out = tmp_path / "predictions"
    describe_derivative(out, out, HARMONIZED, heads)
    image = predict(out, "01")
    truth = load_scan(heads / "sub-01/ses-prisma/dwi/sub-01_ses-prisma_acq-st_dwi.nii.gz").sh
    wrong = with_coefficients(truth, truth.coefficients + 0.1)
    told = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
    made = Provenance.from_sidecar(told)
    assert made is not None
    beside = image.parent
    write_sh(beside / f"{STEM}_model-sh_param-coefficients_dwimap.nii.gz", wrong, made.to_sidecar())
    write_nifti(beside / f"{STEM}_mask.nii.gz", truth.mask, truth.affine)
    spread = np.where(truth.mask, 0.02, 9.0).astype(np.float32)
    write_nifti(beside / f"{STEM}_model-sh_param-disagreement0_dwimap.nii.gz", spread, truth.affine)
    return out


def test_numbers_are_measured_once_and_kept(harmonized, heads, monkeypatch):
    review = open_review(harmonized)
    assert unmeasured(review) == 1
    measured = measure(review)
    (entry,) = measured.entries
    scan = load_acquisition(heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz")
    assert entry.numbers["snr"] == pytest.approx(measure_quality(scan).snr, rel=1e-5)
    assert entry.numbers["error"] == pytest.approx(0.01, rel=1e-3)
    assert entry.numbers["disagreement"] == pytest.approx(0.02, rel=1e-5)
    assert entry.numbers["mask_ml"] == pytest.approx(scan.mask.sum() * 2.4**3 / 1000, rel=1e-3)
    assert entry.numbers["displacement"] < 0.5
    assert "expected_error_median" not in entry.numbers
    assert measured.problems == ()
    again = open_review(harmonized)
    assert again.entries[0].numbers == entry.numbers
    assert unmeasured(again) == 0


@pytest.mark.parametrize("masks", [None, ["scan"], {"scan": None}, {"scan": []}])
def test_a_damaged_note_of_masks_is_passed_over(masks, harmonized):
    numbers = measure(open_review(harmonized)).entries[0].numbers
    (kept,) = harmonized.rglob("measures.json")
    content = json.loads(kept.read_text())
    for entry in content.values():
        entry["masks"] = masks
        del entry["numbers"]["snr"]
    kept.write_text(json.dumps(content))
    assert measure(open_review(harmonized)).entries[0].numbers == numbers
    assert set(json.loads(kept.read_text()).popitem()[1]["masks"]) == {"scan", "truth"}


def test_what_cannot_be_measured_is_told_once(harmonized, heads, tmp_path):
    copy = shutil.copytree(heads / "sub-01", tmp_path / "heads/sub-01")
    content = json.loads((harmonized / "dataset_description.json").read_text())
    content["DatasetLinks"]["source"] = "../heads"
    (harmonized / "dataset_description.json").write_text(json.dumps(content))
    next(copy.glob("ses-ge/dwi/*.bval")).write_text("what")
    review = measure(open_review(harmonized))
    assert {"snr", "displacement"} & set(review.entries[0].numbers) == set()
    assert len(review.problems) == 1
    assert unmeasured(open_review(harmonized)) == 0  # until the prediction is made again


@pytest.mark.parametrize(
    ("which", "again"), [("ge", {"snr", "displacement"}), ("prisma", {"displacement", "error"})]
)
def test_numbers_of_another_scan_or_truth_are_measured_anew(
    which, again, harmonized, heads, tmp_path
):
    shutil.copytree(heads / "sub-01", tmp_path / "heads/sub-01")
    content = json.loads((harmonized / "dataset_description.json").read_text())
    content["DatasetLinks"]["source"] = "../heads"
    (harmonized / "dataset_description.json").write_text(json.dumps(content))
    image = next((tmp_path / "heads/sub-01").glob(f"ses-{which}/dwi/*_dwi.nii.gz"))
    aside = image.rename(tmp_path / image.name)
    measure(open_review(harmonized))  # what it can without
    aside.rename(image)
    known = measure(open_review(harmonized)).entries[0].numbers
    assert again < set(known)
    mask = load_acquisition(image).mask_path
    assert mask is not None
    for changed in (mask, image.with_name(image.name.replace(".nii.gz", ".bvec")), image):
        measure(open_review(harmonized))
        os.utime(changed)
        review = open_review(harmonized)
        assert set(known) - set(review.entries[0].numbers) == again, changed
        assert unmeasured(review) == 1
    # Numbers of what is away just now are still known.
    measure(review)
    image.rename(aside)
    mask.unlink()
    assert set(measure(open_review(harmonized)).entries[0].numbers) == set(known)


def test_numbers_of_an_earlier_prediction_are_not_kept(harmonized, predict):
    measure(open_review(harmonized))
    predict(harmonized, "01", seed=5)
    assert open_review(harmonized).entries[0].numbers == {}
