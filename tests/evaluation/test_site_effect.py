"""The page of the site effect: on made-up values by hand, and from images in files."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.cli import main
from napari_msp.data.dataset import open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import write_nifti
from napari_msp.data.phantom.simulate import simulate
from napari_msp.errors import UserError
from napari_msp.evaluation.baselines.combat import learn_scanner_effect
from napari_msp.evaluation.benchmark.finished import find_predictions, map_on
from napari_msp.evaluation.benchmark.make_plan import make_plan
from napari_msp.evaluation.benchmark.measuring import Measurement
from napari_msp.evaluation.benchmark.plan import keep_plan
from napari_msp.evaluation.benchmark.results import FLOOR, RegionValue, Result, Results
from napari_msp.evaluation.benchmark.run import interpolated_in
from napari_msp.evaluation.benchmark.settings import Subjects
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned
from napari_msp.evaluation.compare import compare
from napari_msp.evaluation.evaluate import HeadNoted, evaluate
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.evaluation.proof.make_pages import make_pages, with_derived
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    NOISE_FREE,
    REPEAT,
    SMOOTHED,
    TARGET,
    ProofData,
)
from napari_msp.evaluation.proof.site_effect import site_effect_page
from napari_msp.evaluation.proof.site_effect_files import effects_table, read_site_effect
from napari_msp.evaluation.proof.site_effect_numbers import (
    effect_words,
    resampled,
    site_effects,
    worse_words,
)
from napari_msp.evaluation.proof.values import QUANTITIES, InRegions, measured_in_regions
from napari_msp.evaluation.regions import read_regions
from napari_msp.evaluation.report.description import row_to_test
from napari_msp.formatting import csv_text
from napari_msp.image_files import ImageFile
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import write_sh
from napari_msp.signal.spherical_harmonics import ORDER

REGIONS, KEYS = ("left", "right"), ("fa", "md", "rish2")


def made_up(subjects=8, datasets=1, seed=0):
    """Values with a site effect of a fifth before and none after, and a floor."""
    rng = np.random.default_rng(seed)
    rows = []
    for dataset in range(datasets):
        for subject in range(subjects):
            for region in REGIONS:
                for key in KEYS:
                    own = 1 + 0.1 * rng.normal()
                    noise = 0.01 * rng.normal(size=4)
                    values = {
                        TARGET: own,
                        BEFORE: 1.2 * own + noise[0],
                        "MSP": own + noise[1],
                        REPEAT: own + 0.5 * noise[2],
                    }
                    rows += [
                        RegionValue(
                            row, "prisma", f"set-{dataset}", 0, f"sub-{subject:02d}", "scan",
                            region, key, value,
                        )
                        for row, value in values.items()
                    ]  # fmt: skip
    return Results(rows)


def study(values, **changes):
    return ProofData(values, "ge", "given", **changes)


def lines(table):
    return list(csv.DictReader(io.StringIO(table.csv())))


def effects(values, **changes):
    """The tidy table, without drawing a page."""
    found = site_effects(with_derived(study(values, **changes)))
    return lines(effects_table(found, resampled(found)))


@pytest.fixture(scope="module")
def page():
    (page,) = make_pages(study(made_up()))
    return page


def test_a_site_effect_is_found_before_and_not_after(page):
    rows = lines(page.files["site_effect"])
    by_row = {name: [row for row in rows if row["row"] == name] for name in (BEFORE, "MSP", REPEAT)}
    for row in by_row[BEFORE]:
        assert float(row["bias_percent"]) == pytest.approx(20, abs=2)
        assert float(row["p_corrected"]) == 2 / 256
        assert row["role"] == "before"
        # √2 · 0.2 / 2.2: a fifth between two values about their mean.
        assert float(row["cv_percent"]) == pytest.approx(100 * 0.2 / 1.1 / np.sqrt(2), abs=1.5)
    for row in by_row["MSP"]:
        assert abs(float(row["bias_percent"])) < 2
        assert float(row["icc"]) > 0.9
        assert float(row["p_corrected"]) > 0.05
        assert float(row["change_percent"]) < -80
    assert {row["role"] for row in by_row[REPEAT]} == {"floor"}
    assert "20." in page.lead[0] or "19." in page.lead[0]


def test_what_a_prediction_makes_worse_is_said():
    (found,) = site_effects(study(made_up()))
    assert not list(worse_words(found))
    worse = ("MSP", "left", "fa")
    values = [
        replace(v, value=1.5 * v.value) if (v.method, v.region, v.quantity) == worse else v
        for v in made_up()
    ]
    (found,) = site_effects(study(Results(values)))
    farther, varied = worse_words(found)
    compared = len(REGIONS) * len(KEYS)
    assert farther.startswith(f"MSP is farther from the target than the input in 1 of {compared}")
    assert re.search(r"means of regions: FA of left \+\d\d\.\d → \+\d\d\.\d %\.$", farther)
    assert f"MSP: in 1 of {compared} means of regions subjects vary more than twice" in varied
    assert re.search(r"FA of left 2\d\d %", varied)  # 1.5² of the target's, and some noise


def test_a_twin_without_noise_is_called_no_floor_and_few_cite_no_test():
    twin = [replace(row, method=FLOOR) for row in made_up(3).select(method=REPEAT)]
    (page,) = make_pages(study(Results([*made_up(3), *twin])))
    roles = {row["row"]: row["role"] for row in lines(page.files["site_effect"])}
    assert roles[NOISE_FREE] == "noise-free"
    assert FLOOR not in roles
    assert "The site effect was not tested" in page.methods
    assert not any("Westfall" in work or "Nichols" in work for work in page.references)


def test_whoever_predicts_the_mean_has_no_site_effect_and_knows_nobody(page):
    rows = [row for row in lines(page.files["site_effect"]) if row["row"] == MEAN_OF_OTHERS]
    for row in rows:
        assert abs(float(row["bias_percent"])) < 1e-9
        assert float(row["variance_kept_percent"]) == pytest.approx(100 / 49)  # 1 / (8 - 1)²
        assert row["p_value"] == ""
        assert "depend on each other" in row["note"]
    people = {row["row"]: float(row["rate"]) for row in lines(page.files["identifiability"])}
    assert people["MSP"] == people[REPEAT] == 1.0
    assert people[MEAN_OF_OTHERS] <= 0.125


def test_whom_one_learned_from_is_the_mean_where_there_is_somebody():
    values = made_up()
    taught = [
        replace(row, subject=f"{row.subject}-taught", reference="training", value=row.value + 1)
        for row in values.select(method=TARGET)
    ]
    (found,) = site_effects(with_derived(study(Results([*values, *taught]))))
    own = [row.value for row in values.select(method=TARGET, region="left", quantity="fa")]
    predicted = found.values[MEAN_OF_OTHERS]["left", "fa"].values()
    assert list(predicted) == pytest.approx([np.mean(own) + 1] * 8)


def test_combat_of_regional_means_is_the_librarys(page):
    pytest.importorskip("neuroCombat")
    taught = [
        replace(row, subject=f"{row.subject}-taught", reference="training")
        for row in made_up(seed=3)
        if row.method in (TARGET, BEFORE)
    ]
    asked = [replace(row, method="ComBat") for row in made_up().select(method="MSP")]
    rows = effects(Results([*made_up(), *taught, *asked]))
    found = [row for row in rows if row["row"] == "ComBat of regional means"]
    assert len(found) == len(REGIONS) * len(KEYS)

    def means(values, row):  # (people, regions) of FA
        of = values.select(quantity="fa", method=row)
        return np.array([[v.value for v in of.select(region=region)] for region in REGIONS]).T

    learned = [means(Results(taught), row) for row in (BEFORE, TARGET)]
    effect = learn_scanner_effect(*learned, paired=True)
    wanted = effect.remove(means(made_up(), BEFORE)).mean(axis=0)
    for row in found:
        if row["quantity"] == "fa":
            assert float(row["mean"]) == pytest.approx(wanted[REGIONS.index(row["region"])])
    assert all(row["row"] != "ComBat of regional means" for row in lines(page.files["site_effect"]))


def test_few_subjects_have_their_values_shown_and_no_test():
    (page,) = make_pages(study(made_up(subjects=4)))
    assert all(row["p_value"] == "" for row in lines(page.files["site_effect"]))
    each = [table for table in page.tables if table.columns[0] == "subject, region"]
    assert len(each) == 2  # FA and MD
    assert len(each[0].rows) == 4 * len(REGIONS)
    assert "the smallest p that 4 can give is 0.12" in each[0].caption
    assert "fewer than 6 subjects" in page.methods


def test_one_subject_is_no_error():
    row = effects(made_up(subjects=1))[0]
    assert (row["subjects"], row["icc"], row["limit_low"]) == ("1", "", "")


def test_overlapping_folds_have_neither_test_nor_interval():
    for row in effects(made_up(), overlapping=frozenset({"MSP"})):
        if row["row"] == "MSP":
            assert row["p_value"] == row["bias_low"] == row["icc_low"] == row["change_low"] == ""
            assert "folds overlap" in row["note"]
        elif row["row"] == BEFORE:
            assert row["p_value"] != ""  # which nobody taught


def test_several_datasets_are_shown_one_by_one_and_resampled():
    rows = effects(made_up(datasets=3))
    assert {row["dataset"] for row in rows} == {"set-0", "set-1", "set-2", "all datasets"}
    for row in rows:
        if row["dataset"] == "all datasets" and row["row"] == BEFORE:
            low, high = float(row["bias_percent_low"]), float(row["bias_percent_high"])
            assert low < float(row["bias_percent"]) < high
            assert row["subjects"] == "24"
            assert row["p_value"] == ""


def test_what_is_not_tested_has_no_interval_over_datasets_either():
    values = made_up(datasets=3)
    rows = effects(values, overlapping=frozenset({"MSP"}))
    of = {row["row"]: row for row in rows if row["dataset"] == "all datasets"}
    for row, why in (("MSP", "folds overlap"), (MEAN_OF_OTHERS, "depend on each other")):
        assert of[row]["bias_percent"] != "" and of[row]["bias_percent_low"] == ""
        assert of[row]["note"].startswith("3 datasets; ") and why in of[row]["note"]
    assert of[BEFORE]["bias_percent_low"] != "" and of[BEFORE]["note"] == "3 datasets"
    page = site_effect_page(study(values, overlapping=frozenset({"MSP"})))
    (table,) = [each for each in page.tables if each.caption.startswith("All datasets")]
    assert "MSP has no interval (" in table.caption


def test_combat_of_regional_means_loses_a_rare_region_alone():
    pytest.importorskip("neuroCombat")
    both = made_up(datasets=2)
    taught = [
        replace(row, subject=f"{row.subject}-taught", reference="training")
        for row in made_up(datasets=2, seed=3)
        if row.method in (TARGET, BEFORE)
    ]
    asked = [replace(row, method="ComBat") for row in both.select(method="MSP")]
    rare = [replace(row, region="rare") for row in both if row.region == "left"]
    everything = [*both, *taught, *asked]

    def found(values):
        made = with_derived(study(Results(values)))
        rows = made.values.select(method="ComBat of regional means")
        return {(r.dataset, r.region, r.quantity, r.subject): r.value for r in rows}, made.notes

    whole, notes = found(everything)
    assert len(whole) == 2 * len(REGIONS) * len(KEYS) * 8 and not notes
    some, notes = found([*everything, *rare, replace(taught[0], region="rare")])
    assert some == whole
    assert len(notes) == 2 and "set-1 on prisma, FA, MD and RISH 2: rare left out" in notes[1]
    # Where one dataset has too few who teach, the other one keeps its row.
    few = [
        r for r in everything if r.dataset == "set-1" or r.subject in ("sub-00", "sub-00-taught")
    ]
    some, notes = found(few)
    assert some == {place: value for place, value in whole.items() if place[0] == "set-1"}
    (note,) = notes
    assert note.startswith("ComBat of regional means, set-0 on prisma, FA, MD and RISH 2: ")


def test_a_constant_map_and_an_empty_region_leave_the_rest():
    values = [
        replace(row, value=0.5) if row.quantity == "md" else row
        for row in made_up()
        if not (row.region == "right" and row.subject == "sub-00")
    ]
    rows = effects(Results(values))
    constant = [row for row in rows if row["quantity"] == "md"]
    assert all(row["icc"] == row["glass_delta"] == row["p_value"] == "" for row in constant)
    right = [row for row in rows if row["region"] == "right" and row["row"] == BEFORE]
    assert {row["subjects"] for row in right} == {"7"}


def test_nothing_to_compare_is_said_in_the_pages_place():
    (page,) = make_pages(study(made_up().select(method=TARGET)))
    assert "Not made: no image could be compared" in page.lead[0]


def test_every_value_is_in_a_tidy_table(page):
    rows = lines(page.files["regions"])
    given = {(r.subject, r.method, r.region, r.quantity): r.value for r in made_up()}
    found = {
        (r["subject"], r["row"], r["region"], r["quantity"]): float(r["value"])
        for r in rows
        if r["row"] != MEAN_OF_OTHERS
    }
    assert found == given


def test_what_was_written_is_read_back(page, tmp_path):
    for name, table in page.files.items():
        (tmp_path / f"{name}.csv").write_text(table.csv())
    (written,) = site_effects(with_derived(study(made_up())))
    (read,) = read_site_effect(tmp_path)
    assert read.effects == written.effects
    assert read.identified == written.identified
    assert read.rows == written.rows
    place = ("left", "fa")
    assert read.pairs("MSP", place) == written.pairs("MSP", place)
    assert effect_words(read, *place) == effect_words(written, *place)


def with_in_its_first_line(column, text):
    def damage(table):
        header, first, *others = csv.reader(io.StringIO(table))
        first[header.index(column)] = text
        return csv_text(header, [first, *others])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace("0.", "x", 1),
        lambda t: t[:-30],
        lambda t: "",
        with_in_its_first_line("mean", ""),
        with_in_its_first_line("subjects", "inf"),
        with_in_its_first_line("subjects", "2.5"),
    ],
)
def test_damaged_tables_are_refused(page, tmp_path, damage):
    with pytest.raises(UserError, match=r"regions\.csv"):
        read_site_effect(tmp_path)
    for name, table in page.files.items():
        (tmp_path / f"{name}.csv").write_text(table.csv())
    whole = (tmp_path / "site_effect.csv").read_text()
    (tmp_path / "site_effect.csv").write_text(damage(whole))
    with pytest.raises(UserError, match="is not a table of the site effect"):
        read_site_effect(tmp_path)


def test_the_site_effect_in_words():
    rows = made_up(2)
    values = {TARGET: (0.5, 0.3), BEFORE: (0.4, 0.24), "MSP": (0.5, 0.3), REPEAT: (0.51, 0.29)}
    few = [
        replace(row, value=values[row.method][int(row.subject[-1])])
        for row in rows.select(region="left", quantity="fa")
    ]
    (found,) = site_effects(study(Results(few)))
    assert effect_words(found, "left", "fa") == (
        "FA of left, 2 subjects: 20.0 % lower than on prisma before; as high after (MSP). "
        "Two scans of one subject on prisma differ by 2.5 %."
    )
    alone = [r for r in few if r.method in (TARGET, BEFORE) or r.subject == "sub-00"]
    (found,) = site_effects(study(Results(alone)))
    assert "; as high after (MSP, 1 subject). Two scans" in effect_words(found, "left", "fa")
    assert effect_words(found, "left", "fa").endswith("differ by 2.0 % in 1 subject.")
    page = site_effect_page(study(Results(alone)))
    assert any("not all rows are of the same 2 subjects" in each for each in page.limits)
    other = [replace(r, target="skyra") for r in alone if r.subject == "sub-00"]
    page = site_effect_page(study(Results([*alone, *other])))
    assert "On skyra nothing was measured of sub-01." in page.limits
    near = [replace(r, value=0.5001) if r.method == REPEAT else r for r in few]
    near = [replace(r, value=0.5) if r.method == TARGET else r for r in near]
    (found,) = site_effects(study(Results(near)))
    assert effect_words(found, "left", "fa").endswith("on prisma differ by 0.02 %.")
    (found,) = site_effects(study(Results(r for r in few if r.method in (TARGET, BEFORE))))
    assert effect_words(found, "left", "fa").endswith(
        "than on prisma before. No subject was scanned on prisma twice."
    )


def test_every_column_is_in_the_data_dictionary(page):
    for table in page.files.values():
        assert list(table.dictionary()) == table.csv().splitlines()[0].split(",")
        assert all(each["Description"] for each in table.dictionary().values())


# --- From files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(make_heads, tmp_path_factory):
    """Three heads; of two of them "the prediction" is the target's own scan; a label image."""
    folder = tmp_path_factory.mktemp("predicted")
    heads = make_heads(folder / "heads")
    for subject in ("sub-01", "sub-02"):
        scans = heads / subject / "ses-prisma"
        shutil.copytree(scans, folder / "copies" / subject / "ses-prisma")
    image = nib.load(heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz")
    labels = np.ones(image.shape[:3], dtype=np.int16)
    labels[6:] = 2
    nib.save(nib.Nifti1Image(labels, image.affine), folder / "labels.nii.gz")
    away = image.affine.copy()
    away[:3, 3] += 1000
    nib.save(nib.Nifti1Image(labels, away), folder / "elsewhere.nii.gz")
    (folder / "labels.tsv").write_text("index\tname\n1\tright half\n2\tleft half\n")
    return folder


def measured(predicted, folder, **asked):
    asked = {"predictions": {"copy": predicted / "copies"}, **asked}
    plan = make_plan([predicted / "heads"], **asked)
    job = Measurement(plan, plan.rounds[0], "prisma_st", {}, False, 5, folder, "cpu")
    job.run()
    return plan, job


def test_predictions_in_a_folder_are_measured(predicted, tmp_path):
    plan, job = measured(predicted, tmp_path, regions=predicted / "labels.nii.gz")
    assert plan.targets == ("prisma_st",)  # nothing else was predicted
    assert plan.subjects.test == ("sub-01", "sub-02")
    assert plan.tested == "copy"
    rows = effects(job.results(RegionValue))
    assert {row["region"] for row in rows} == {"right half", "left half"}
    copy = [row for row in rows if row["row"] == "copy"]
    assert {row["subjects"] for row in copy} == {"2"}
    assert {float(row["bias"]) for row in copy} == {0.0}
    assert {row["row"] for row in rows} == {BEFORE, "copy", SMOOTHED, MEAN_OF_OTHERS}
    assert any(float(row["bias_percent"]) > 1 for row in rows if row["row"] == BEFORE)
    errors = job.results(Result).select(method="copy", measure="sh_mse")
    assert [row.value for row in errors] == [0.0, 0.0]
    assert job.notes() == [
        f"copy, {subject} on prisma_st: it is the same as the scan on prisma_st, so no prediction"
        for subject in ("sub-01", "sub-02")
    ]


def test_a_row_of_fewer_voxels_is_told_of(predicted, tmp_path):
    """A tight mask leaves out the hard voxels; the input under the target's name is no method.

    Nor are two folders of one prediction two methods, which are predictions all the same.
    """
    heads = open_dataset(predicted / "heads")
    given = heads.acquisition("sub-01", "ge_st")
    inside = given.mask.copy()
    inside[:6] = False
    masks = {"tight": inside, "input": given.mask, "made": given.mask, "twin": given.mask}
    for name, mask in masks.items():
        folder = tmp_path / name / "sub-01"
        folder.mkdir(parents=True)
        image = fit_sh(replace(given, mask_path=None, given_mask=mask), order=ORDER)
        if name in {"made", "twin"}:
            image = replace(image, coefficients=0.9 * image.coefficients)
        stem = "sub-01_ses-prisma_acq-st_model-sh_param-coefficients_dwimap.nii.gz"
        write_sh(folder / stem, image)
    folders = {name: tmp_path / name for name in masks}
    _, job = measured(predicted, tmp_path / "out", predictions=folders, test=("sub-01",))
    told = ("the same as", "its mask covers")
    twice, tight, again, twin = [
        each for each in job.notes() if any(words in each for words in told)
    ]
    same = f'on prisma_st: it is the same as the row "{BEFORE}", so no prediction'
    assert (twice, again) == (f"tight, sub-01 {same}", f"input, sub-01 {same}")
    assert twin == 'twin, sub-01 on prisma_st: it is the same as the row "made"'
    asked = {"predictions": {"input": folders["input"]}, "test": ("sub-01",)}
    _, job = measured(predicted, tmp_path / "other", methods=("linear RISH",), **asked)
    assert (
        "input, sub-01 on prisma_st: it is the same as the input, so no prediction" in job.notes()
    )
    share = 100 * (inside & given.mask).sum() / given.mask.sum()
    assert (
        f"its mask covers only {share:.0f} % of the voxels in which another row is measured"
        in tight
    )


def test_predictions_lie_in_folders_of_subjects_or_beside_each_other(predicted, tmp_path):
    whose = (predicted / "heads", ("prisma_st",), ("sub-01", "sub-02"))
    in_folders = find_predictions("copy", predicted / "copies", *whose)
    for path in (predicted / "copies").rglob("sub-*_acq-st_dwi.*"):
        shutil.copy(path, tmp_path / path.name)
    flat = find_predictions("copy", tmp_path, *whose)  # as `harmonize` writes
    assert flat.subjects == in_folders.subjects
    assert [path.name for path in flat.images["sub-01", "prisma_st"]] == [
        path.name for path in in_folders.images["sub-01", "prisma_st"]
    ]
    with pytest.raises(UserError, match="is the dataset itself"):
        find_predictions("copy", predicted / "heads", *whose)


def test_what_predictions_say_they_were_made_from_is_the_input(predicted, tmp_path):
    heads = tmp_path / "unmarked"  # as most datasets are
    shutil.copytree(predicted / "heads", heads)
    (heads / "dataset_description.json").write_text('{"Name": "heads", "BIDSVersion": "1.9.0"}')
    copies = tmp_path / "copies"
    shutil.copytree(predicted / "copies", copies)
    with pytest.raises(UserError, match="it does not state which platform is the input"):
        make_plan([heads], predictions={"copy": copies})
    for image in copies.rglob("sub-*_dwi.nii.gz"):
        made = Provenance(target="prisma_st", input="ge_st", stage="last", title="MSP")
        sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps(made.to_sidecar()))
    assert make_plan([heads], predictions={"copy": copies}).input == "ge_st"


def test_a_region_without_a_measured_voxel_is_told_of(predicted, tmp_path):
    image = nib.load(predicted / "labels.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    dataset = open_dataset(predicted / "heads")
    outside = np.argwhere(~dataset.acquisition("sub-01", "prisma_st").mask)
    labels[tuple(outside[0])] = 9
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "labels.nii.gz")
    regions = read_regions(tmp_path / "labels.nii.gz")
    truth = Truth(fit_sh(dataset.acquisition("sub-01", "prisma_st"), order=ORDER))
    _, notes = measured_in_regions(truth, {"copy": truth.mapped}, regions, {}, {})
    assert notes == ["label 9 has no voxel in the masks of all images"]


def test_fibres_are_looked_for_in_the_regions_alone(predicted, tmp_path):
    image = nib.load(predicted / "labels.nii.gz")
    slab = np.zeros(image.shape, dtype=np.int16)
    slab[4:6] = 1
    nib.save(nib.Nifti1Image(slab, image.affine), tmp_path / "slab.nii.gz")
    dataset = open_dataset(predicted / "heads")
    truth = Truth(fit_sh(dataset.acquisition("sub-01", "prisma_st"), order=ORDER))
    copies = {"copy": predicted / "copies"}

    def in_regions(name):
        plan = make_plan([predicted / "heads"], predictions=copies, regions=name)
        return InRegions(plan, "prisma_st", 0, dataset).labelled("sub-01", truth.image.lattice)

    assert in_regions("tissue") is None
    labelled = in_regions(tmp_path / "slab.nii.gz")
    assert labelled.sum() == slab.sum()
    white = truth.tissue.white & (slab == 1)
    found = replace(truth, fibres_in=labelled, response=np.array([1.0, -0.3, 0.1, 0.0])).fibres
    assert 0 < len(found.voxels) == white.sum()
    assert set(found.voxels[:, 0]) <= {4, 5}
    assert not in_regions(predicted / "elsewhere.nii.gz").any()  # said where they are measured


def test_who_teaches_has_the_tissue_of_the_noise_free_twin(tmp_path):
    simulate(tmp_path / "heads", subjects=1, size="tiny")
    dataset = open_dataset(tmp_path / "heads")
    target = next(each for each in dataset.platforms if each.startswith("prisma"))
    plan = SimpleNamespace(
        input="ge_st", shells={None: 1200.0}, regions="tissue",
        finished={dataset.root: []}, subjects=Subjects((), (), ("sub-01",)),
    )  # fmt: skip
    regional = InRegions(plan, target, 0, dataset)  # type: ignore[arg-type]
    regional.add_taught("sub-01")
    counts = {row.region: row.value for row in regional.values if row.quantity == "voxels"}
    twin, scan = dataset.noise_free("sub-01", target), dataset.acquisition("sub-01", target)
    assert twin is not None
    white, noisy = (
        Truth(fit_sh(each, b_value=1200.0, order=ORDER)).tissue.white.sum() for each in (twin, scan)
    )
    assert counts["white matter"] == white != noisy


def test_labels_or_names_that_changed_are_another_plan(predicted, tmp_path):
    folder = tmp_path / "labels"
    for subject in ("sub-01", "sub-02"):
        (folder / subject).mkdir(parents=True)
        shutil.copy(predicted / "labels.nii.gz", folder / subject / f"{subject}_dseg.nii.gz")
    file = folder / "all.nii.gz"
    shutil.copy(predicted / "labels.nii.gz", file)
    one = folder / "sub-02/sub-02_dseg"
    for regions, table in ((folder, one.with_suffix(".tsv")), (file, folder / "all.tsv")):
        asked = {"predictions": {"copy": predicted / "copies"}, "regions": regions}
        plan = make_plan([predicted / "heads"], **asked)
        kept = plan.to_json()
        assert plan.to_json() == kept
        table.write_text("index\tname\n1\tone\n")
        named = plan.to_json()
        table.write_text("index\tname\n1\tother\n")
        assert kept != named != plan.to_json()
    before = make_plan([predicted / "heads"], predictions=asked["predictions"], regions=folder)
    kept = before.to_json()
    image = nib.load(file)
    nib.save(nib.Nifti1Image(3 - image.get_fdata(), image.affine), f"{one}.nii.gz")
    assert before.to_json() != kept


def test_predictions_of_whom_a_model_learned_from_are_told_of(predicted):
    made = Provenance("prisma_st", "ge_st", model_sha256="0", training_subjects=("sub-01",))
    found = find_predictions(
        "MSP", predicted / "copies", predicted / "heads", ["prisma_st"], ["sub-01", "sub-02"]
    )
    taught = replace(found, provenance={(who, "prisma_st"): made for who in ("sub-01", "sub-02")})
    with pytest.warns(MayHaveLearned, match="MSP: the model learned from people named sub-01"):
        assert taught.doubt(["sub-01", "sub-02"])
    assert taught.doubt(["sub-02"]) is None
    other = replace(made, learned_from=False)  # who has that name by chance
    named = {**taught.provenance, ("sub-01", "prisma_st"): other}
    assert replace(taught, provenance=named).doubt(["sub-01", "sub-02"]) is None
    same = replace(made, learned_from=True, training_subjects=("sub-07",))
    named = {("sub-02", "prisma_st"): same}
    with pytest.warns(MayHaveLearned, match="learned from sub-02, who are measured: its errors"):
        assert replace(taught, provenance=named).doubt(["sub-01", "sub-02"])


def test_labels_elsewhere_and_what_is_not_predicted_are_told_of(predicted, tmp_path):
    elsewhere = predicted / "elsewhere.nii.gz"
    # What `compare` refuses is no row, and what it tells of a shift is told.
    for name in ("b1000", "moved"):
        shutil.copytree(predicted / "copies/sub-02", tmp_path / name / "sub-02")
    (table,) = (tmp_path / "b1000").rglob("*.bval")
    table.write_text(table.read_text().replace("1200", "1000"))
    for path in (tmp_path / "moved").rglob("*.nii.gz"):
        image = nib.load(path)
        moved = image.affine.copy()
        moved[0, 3] += 10
        voxels = image.get_fdata(dtype=np.float32)
        nib.save(nib.Nifti1Image(voxels, moved), path)
    scan = open_dataset(predicted / "heads").acquisition("sub-02", "prisma_st")
    image = replace(fit_sh(scan, b_value=1200, order=ORDER), b_value=None)
    (tmp_path / "unknown/sub-02").mkdir(parents=True)
    name = "sub-02_ses-prisma_acq-st_model-sh_param-coefficients_dwimap.nii.gz"
    write_sh(tmp_path / "unknown/sub-02" / name, image)
    (tmp_path / "rescaled/sub-02").mkdir(parents=True)
    far = replace(image, b_value=3000.0, rescaled_from=1200.0)
    write_sh(tmp_path / "rescaled/sub-02" / name, far)
    folders = {each: tmp_path / each for each in ("b1000", "moved", "unknown", "rescaled")}
    asked = {"predictions": {"copy": predicted / "copies", **folders}}
    _, job = measured(
        predicted, tmp_path / "out", regions=elsewhere, test=("sub-02", "sub-03"), **asked
    )
    notes = job.notes()
    other_b, shifted, unknown, rescaled = (
        next(e for e in notes if e.startswith(f"{n}, sub-02")) for n in folders
    )
    assert "has b = 1000 s/mm² but the scan on prisma_st has 1200" in other_b
    assert "its brain is 10.0 mm from that in the target's scan" in shifted
    assert "its b-value is unknown, so it has no FA; add BValue to " in unknown
    assert (
        "so it cannot be compared with a scan of b = 1200; predict with a model trained at"
        in rescaled
    )
    with pytest.raises(UserError, match="to which the scan's 1200 was rescaled"):
        compare(scan, {"rescaled": far})
    (interpolated,) = interpolated_in([job])
    assert interpolated.startswith("moved on prisma_st: 1 prediction was interpolated linearly")
    assert interpolated.endswith("the centres of the brains are 10.0 mm apart")
    assert {"copy", "moved"} <= set(job.results(Result).methods)
    assert not {"b1000", "unknown", "rescaled"} & set(job.results(Result).methods)
    left = [each for each in notes if not each.startswith(tuple(folders))]
    missing, *labels = [each for each in left if not each.endswith("so no prediction")]
    assert missing == "copy, sub-03 on prisma_st: there is no prediction"
    assert len(labels) == 2
    assert all("no labelled voxel lies in the image" in each for each in labels)
    assert len(job.results(RegionValue)) == 0
    assert len(job.results(Result).select(method="copy"))


def write_maps(scan, folder, subject, factor=1.0):
    """Write FA and mean diffusivity of a scan's signal as another program would."""
    folder.mkdir(parents=True)
    maps = Scan(acquisition=scan).maps("signal")
    stem = f"{subject}_ses-prisma_acq-st"
    paths = {key: ImageFile(stem, key, model="tensor").at(folder) for key in ("fa", "md")}
    for key, path in paths.items():
        write_nifti(path, (factor if key == "fa" else 1) * maps[key], scan.affine)
    return paths["md"]


def test_maps_alone_are_compared_with_those_of_the_scans_signal(predicted, tmp_path):
    heads = open_dataset(predicted / "heads")
    for subject in ("sub-01", "sub-02"):
        scan = heads.acquisition(subject, "prisma_st")
        write_maps(scan, tmp_path / "perfect" / subject, subject)
        md = write_maps(scan, tmp_path / "maps" / subject, subject, 1.1)
    write_nifti(md, 1e6 * nib.load(md).get_fdata(), scan.affine)
    both = {
        "ComBat maps": tmp_path / "maps",
        "perfect": tmp_path / "perfect",
        "copy": predicted / "copies",
    }
    plan, job = measured(predicted, tmp_path / "out", predictions=both)
    known = ("voxel in the masks", "no prediction")
    assert [each for each in job.notes() if not any(words in each for words in known)] == [
        f"ComBat maps, sub-02 on prisma_st: {md}: has diffusivities that are not in "
        "mm²/s; give it in mm²/s"
    ]
    everything = effects(job.results(RegionValue))
    by_row = {
        name: {row["quantity"]: row for row in everything if row["row"] == name}
        for name in ("ComBat maps", "perfect", "copy", BEFORE, SMOOTHED)
    }
    own = by_row["ComBat maps"]
    assert {key: row["subjects"] for key, row in own.items()} == {
        "fa_signal": "2",
        "md_signal": "1",
    }
    for key, wanted in (("fa_signal", 10.0), ("md_signal", 0.0)):
        assert float(own[key]["bias_percent"]) == pytest.approx(wanted, abs=1e-4)
        assert float(by_row["perfect"][key]["bias"]) == pytest.approx(0, abs=1e-7)
        for row in (BEFORE, SMOOTHED):  # on the same footing
            assert abs(float(by_row[row][key]["bias_percent"])) > 0.1
    # Images stay among themselves, through the SH series.
    assert float(by_row["copy"]["fa"]["bias"]) == 0
    assert "fa_signal" not in by_row["copy"]
    assert "SH series" not in QUANTITIES["fa_signal"].explanation
    assert float(by_row["copy"]["fa"]["target_mean"]) < float(own["fa_signal"]["target_mean"])
    (page,) = [
        each for each in make_pages(study(job.results(RegionValue))) if each.title == "Site effect"
    ]
    assert sum("maps of the signal" in lead for lead in page.lead) == 1
    assert sum(lead.startswith("FA of the signal of ") for lead in page.lead) == 1
    assert plan.subjects.test == ("sub-01", "sub-02")
    # Maps have no SH error: Table 1 tests nothing, and is written.
    assert (plan.tested, row_to_test(plan, job.results(Result))) == ("ComBat maps", None)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fa", 45.0, "not FA; give it from 0 to 1"),
        ("fa", 1.2, ""),  # of noise
        ("colour_fa", 255.0, "not FA"),
        ("md", 0.05, "not in mm²/s"),
        ("md", 0.003, ""),
    ],
)
def test_finished_maps_are_in_their_units_and_infinite_voxels_are_missing(
    tmp_path, key, value, said
):
    shape = (2, 2, 2, 3) if key == "colour_fa" else (2, 2, 2)
    values = np.full(shape, value, np.float32)
    values[0, 0, 0], values[0, 0, 1], values[0, 1, 0] = np.inf, -np.inf, np.nan
    path = tmp_path / "map.nii.gz"
    write_nifti(path, values, np.eye(4))
    if said:
        with pytest.raises(UserError, match=said):
            map_on(path, Lattice((2, 2, 2), np.eye(4)), key)
        return
    wanted = np.full(shape, value, np.float32)
    wanted[0, 0], wanted[0, 1, 0] = 0, 0
    assert np.array_equal(map_on(path, Lattice((2, 2, 2), np.eye(4)), key), wanted)
    # On half the voxels' lattice, nothing of them leaks into their neighbours.
    moved = Lattice((1, 2, 2), np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert map_on(path, moved, key) == pytest.approx(value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"predictions": {"no harmonization": "copies"}}, "name of another row"),
        ({"predictions": {"copy": "nowhere"}}, "no such folder"),
        ({"predictions": {"copy": "heads/sub-01"}}, "no prediction of"),
        ({"regions": "nothing.nii.gz"}, "no such label image"),
        ({}, "there is nothing to evaluate"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(predicted, asked, said):
    asked = {
        key: {name: predicted / folder for name, folder in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in asked.items()
    }
    if "regions" in asked:
        asked["predictions"] = {"copy": predicted / "copies"}
    with pytest.raises(UserError, match=said):
        make_plan([predicted / "heads"], **asked)


def test_a_cohort_is_compared_anew_after_a_prediction_changed(
    predicted, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "harmonized"
    shutil.copytree(predicted / "copies", out)
    lines = ["participant_id scan target status seconds message", "sub-01 n/a x done 1.0 n/a"]
    (out / "cohort.tsv").write_text("\n".join(lines).replace(" ", "\t"))

    def planned(datasets, folder, asked, *_, later):  # without the work
        assert later == out / "proof"  # what is told of is there, and not in the folder made first
        keep_plan(make_plan([datasets], asked), folder / "plan.json")
        (folder / "report.html").touch()
        return [folder / "report.html"]

    monkeypatch.setattr("napari_msp.evaluation.evaluate._evaluate", planned)
    given = ["cohort", str(predicted / "heads"), str(out), "group", "--no-review-maps"]
    given += ["--regions", str(predicted / "labels.nii.gz")]
    plans = []
    for change in (lambda: None, lambda: shutil.rmtree(out / "sub-02")):
        change()
        assert main(given) == 0
        assert capsys.readouterr().out.split()[-1] == str(out / "proof" / "report.html")
        plans.append((out / "proof" / "plan.json").read_text())
    assert plans[0] != plans[1]
    # What is no evaluation is not taken away.
    (out / "proof" / "plan.json").unlink()
    assert main(given) == 2
    assert "proof: exists and is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_has_the_page(predicted):
    out = predicted / "out"
    copies = {"copy": predicted / "copies"}
    with (
        pytest.warns(HeadNoted, match="the same as the scan on prisma_st, so no prediction"),
        # These heads hold white matter alone.
        pytest.warns(HeadNoted, match="has no voxel in the masks of all images"),
    ):
        files = evaluate(predicted / "heads", out, predictions=copies, regions="tissue")
    assert {"report.html", "site_effect.csv", "methods.txt"} <= {path.name for path in files}
    assert json.loads((out / "site_effect.json").read_text())["icc"]["Description"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="site-effect"' in page
    assert "McGraw" in page
    assert "Figure 3. sub-01 on prisma_st" in page
    assert "\ncopy,prisma_st" in (out / "table1.csv").read_text()
