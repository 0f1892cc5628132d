"""What is found in a folder of predictions, and what of it is unusual."""

import gzip
import json
import shutil

import numpy as np
import pytest

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.errors import Doubt, RunJob, UserError
from napari_msp.identity import dataset_key
from napari_msp.inference.review_maps import Without
from napari_msp.review.measures import MEASURES, read_measures, robust_scores
from napari_msp.review.predictions import open_review


def test_entries_say_whose_they_are_and_are_sorted_by_risk(cohort):
    review = open_review(cohort)
    assert len(review.entries) == 12
    first, second, third, *_ = review.entries
    assert [first.subject, second.subject] == ["sub-03", "sub-07"]
    assert first.key == "sub-03/ses-ge/dwi/sub-03_ses-ge_acq-st_desc-prismastMsp"
    assert (first.session, first.platform, first.target) == ("ses-ge", "ge_st", "prisma_st")
    assert (first.title, first.model, first.model_hash) == ("MSP", "msp.safetensors", "ab" * 32)
    assert list(first.outlying) == ["mask_ml"]
    assert list(second.outlying) == ["snr"]
    assert third.outlying == {}
    assert review[first.key] is first


def test_scores_are_those_of_median_and_mad():
    # Median 5.5; deviations 4.5 … 0.5, their median 2.5: 1 lies 4.5 / (1.4826 · 2.5) below.
    scores = robust_scores(list(range(1, 11)))
    assert scores is not None
    assert scores[0] == pytest.approx(-4.5 / (1.4826 * 2.5))
    assert scores[9] == pytest.approx(4.5 / (1.4826 * 2.5))


def test_of_values_that_are_alike_the_other_one_is_unusual():
    scores = robust_scores([100.0] * 9 + [110.0])
    assert scores is not None
    assert scores[:9].tolist() == [0] * 9
    assert scores[9] == pytest.approx(10)  # of 1 %


def test_few_entries_say_nothing(tmp_path, predict):
    for number in range(7):
        predict(tmp_path, f"{number}", {"SNR": 2.0 if number == 3 else 20.0})
    entries = open_review(tmp_path).entries
    assert all(entry.unusual == {} and entry.risk == 0 for entry in entries)


def test_each_target_and_model_is_a_cohort_of_its_own(tmp_path, predict):
    for number in range(8):
        predict(tmp_path, f"{number}", {"DisagreementOfOrder0": 0.01 + 1e-4 * number})
        # Ten times as much, and usual for its target.
        predict(
            tmp_path,
            f"{number}",
            {"DisagreementOfOrder0": 0.1 + 1e-3 * number},
            target="connectom_sa",
        )
    review = open_review(tmp_path)
    assert len(review.kinds) == 2
    assert all(not entry.outlying for entry in review.entries)


def test_the_mean_that_earlier_versions_kept_is_not_read_as_the_median():
    measured = {"ExpectedError": 3.0, "ExpectedErrorMedian": 1.0}
    assert read_measures({"Measures": measured}) == {"expected_error_median": 1.0}
    assert read_measures({"Measures": {"ExpectedError": 3.0}}) == {}


def test_a_warning_counts(cohort, predict):
    predict(cohort, "11", {"SNR": 25.5}, warnings=(Doubt("its mean signal is odd"),))
    entry = next(each for each in open_review(cohort).entries if each.subject == "sub-11")
    assert entry.risk == pytest.approx(np.hypot(3.0, 0), abs=0.5)
    assert entry.warnings == ("its mean signal is odd",)


@pytest.mark.parametrize("value", [float("nan"), "20", True, None, [20.0]])
def test_what_is_no_number_is_missing(tmp_path, predict, value):
    image = predict(tmp_path, "01")
    sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(content | {"Measures": {"SNR": value, "MaskVolume": 9.0}}))
    assert open_review(tmp_path).entries[0].numbers == {"mask_ml": 9.0}


def test_scan_and_truth_are_found_through_the_dataset(cohort, tmp_path):
    heads = tmp_path / "heads" / "sub-05"
    scan = heads / "ses-ge/dwi/sub-05_ses-ge_acq-st_dwi.nii.gz"
    truth = heads / "ses-prisma/dwi/sub-05_ses-prisma_acq-st_dwi.nii.gz"
    for path in (scan, truth):
        path.parent.mkdir(parents=True)
        path.touch()
    entries = {entry.subject: entry for entry in open_review(cohort).entries}
    assert (entries["sub-05"].scan, entries["sub-05"].truth) == (scan, truth)
    assert (entries["sub-06"].scan, entries["sub-06"].truth) == (None, None)
    runs = [truth.with_name(f"sub-05_ses-prisma_acq-st_run-{n}_dwi.nii.gz") for n in (2, 1)]
    truth.rename(runs[0])
    runs[1].touch()
    [entry] = [each for each in open_review(cohort).entries if each.subject == "sub-05"]
    assert entry.truth == runs[1]
    runs[1].rename(truth.with_name("sub-05_ses-prisma_acq-st_dir-AP_dwi.nii.gz"))
    [entry] = [each for each in open_review(cohort).entries if each.subject == "sub-05"]
    assert entry.truth is None  # which of two protocols it is, nothing says


def test_predictions_of_two_datasets_in_one_folder_keep_their_own_scans(tmp_path, predict):
    out = tmp_path / "predictions"
    describe_derivative(out, out, HARMONIZED, tmp_path / "heads")
    for number in ("01", "02"):
        scan = tmp_path / f"heads/sub-{number}/ses-ge/dwi/sub-{number}_ses-ge_acq-st_dwi.nii.gz"
        scan.parent.mkdir(parents=True)
        scan.touch()
    own, other = dataset_key(tmp_path / "heads"), dataset_key(tmp_path / "others")
    # The folder was moved since, maybe: what all share is believed.
    predict(out, "01", person={"Label": "sub-01", "Dataset": other})
    assert all(entry.scan is not None for entry in open_review(out).entries)
    predict(out, "02", person={"Label": "sub-02", "Dataset": own})
    known = {entry.subject: entry.scan for entry in open_review(out).entries}
    assert known["sub-01"] is None
    assert known["sub-02"] is not None
    # What is shown beside it is no other person's either.
    entry = next(each for each in open_review(out).entries if each.subject == "sub-01")
    files = entry.made_from
    assert files.scan == Without(entry.without)
    assert "another dataset" in entry.without
    assert files.truth == Without("")


def test_a_scan_that_is_not_found_is_said(cohort):
    entry = open_review(cohort).entries[0]
    assert entry.without.startswith("the scan it was predicted from was not found (bids:")
    assert entry.made_from.scan == Without(entry.without)


# --- What is damaged or foreign -----------------------------------------------------------------


def test_damaged_files_are_named_and_hide_no_other(cohort):
    folder = {n: cohort / f"sub-{n:02d}/ses-ge/dwi" for n in range(1, 13)}
    image = {n: next(folder[n].glob("*_dwi.nii.gz")) for n in folder}
    sidecar = {n: next(folder[n].glob("*_dwi.json")) for n in folder}
    image[1].write_bytes(image[1].read_bytes()[:-100])  # cut short
    image[2].unlink()  # half-written
    image[3].write_bytes(b"")
    image[4].write_bytes(b"no image at all, but long enough to be looked into")
    sidecar[5].write_text('{"Target": ')
    content = image[6].read_bytes()
    image[6].write_bytes(content[: len(content) // 2])
    review = open_review(cohort)
    assert [entry.subject for entry in review.entries if entry.subject < "sub-07"] == []
    assert len(review.entries) == 6
    said = {str(each.subject) for each in review.problems}
    assert said == {
        str(path) for path in (*(image[n] for n in (1, 3, 4, 6)), sidecar[2], sidecar[5])
    }
    assert all(each.remedy is not None for each in review.problems)


def test_a_broken_link_is_one_problem_among_others(cohort):
    image = next((cohort / "sub-01/ses-ge/dwi").glob("*_dwi.nii.gz"))
    image.unlink()
    image.symlink_to(cohort / "annex" / "of a disk that is away")
    unreadable = next((cohort / "sub-02/ses-ge/dwi").glob("*_dwi.nii.gz"))
    unreadable.unlink()
    unreadable.mkdir()
    review = open_review(cohort)
    assert len(review.entries) == 10
    problems = {str(each.subject): each.problem for each in review.problems}
    assert problems[str(image)] == "is missing or cannot be read"


def test_an_image_that_is_not_compressed_is_seen_to_be_cut_short(tmp_path, predict):
    image = predict(tmp_path, "01")
    plain = image.with_suffix("")
    plain.write_bytes(gzip.decompress(image.read_bytes()))
    image.unlink()
    assert open_review(tmp_path).entries[0].prediction_hash.startswith("sha256:")
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(UserError, match="bytes"):
        open_review(tmp_path)


def test_gzip_in_several_parts_is_whole(tmp_path, predict):
    image = predict(tmp_path, "01")
    content = gzip.decompress(image.read_bytes())
    half = len(content) // 2
    image.write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    assert open_review(tmp_path).entries[0].prediction_hash.startswith("sha256:")
    image.write_bytes(gzip.compress(content[:half]))
    with pytest.raises(UserError, match="of its"):
        open_review(tmp_path)


def test_foreign_images_are_told_apart(cohort):
    folder = cohort / "sub-01/ses-ge/dwi"
    some = next(folder.glob("*_dwi.nii.gz"))
    raw = folder / "sub-01_ses-ge_acq-st_dwi.nii.gz"
    others = folder / "sub-01_ses-ge_acq-st_desc-preproc_dwi.nii.gz"
    for path in (raw, others):
        shutil.copy(some, path)
    review = open_review(cohort)
    assert review.foreign == tuple(sorted((raw, others)))
    assert len(review.entries) == 12


def test_sh_images_alone_are_predictions(tmp_path, predict):
    image = predict(tmp_path, "01")
    for suffix in (".nii.gz", ".json"):
        path = image.with_name(image.name.replace(".nii.gz", suffix))
        path.rename(
            path.with_name(path.name.replace("_dwi.", "_model-sh_param-coefficients_dwimap."))
        )
    (entry,) = open_review(tmp_path).entries
    assert entry.stem == "sub-01_ses-ge_acq-st_desc-prismastMsp"


def test_a_folder_without_predictions_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="has no prediction") as told:
        open_review(tmp_path)
    assert isinstance(told.value.remedy, RunJob)
    with pytest.raises(UserError, match="there is no such folder"):
        open_review(tmp_path / "nowhere")


def test_a_prediction_made_again_has_another_hash(tmp_path, predict):
    predict(tmp_path, "01", seed=1)
    first = open_review(tmp_path).entries[0].prediction_hash
    predict(tmp_path, "01", seed=1)
    assert open_review(tmp_path).entries[0].prediction_hash == first
    predict(tmp_path, "01", seed=2)
    assert open_review(tmp_path).entries[0].prediction_hash != first


def test_measures_are_described():
    assert all(each.described.endswith(".") for each in MEASURES.values())
