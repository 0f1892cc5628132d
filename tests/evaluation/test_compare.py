"""The compare job: both files or none, numbers on truth's lattice, errors with a mend."""

import csv
import json
import re
from dataclasses import replace
from string import ascii_lowercase

import numpy as np
import pytest
from perturbed import perturbed

from napari_msp.bids import sidecar_path
from napari_msp.cli import main
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import Choose, UserError
from napari_msp.evaluation import compare as job
from napari_msp.evaluation.compare import compare
from napari_msp.evaluation.figures.paper import figure3
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.evaluation.statistics import wilcoxon
from napari_msp.files import write_json
from napari_msp.identity import person_of
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import MAPS, Maps
from napari_msp.signal.sh_image import write_sh
from napari_msp.strict_json import read_json


@pytest.fixture
def images(head, lattice):
    return {
        "truth": head(),
        "diqt": perturbed(head("LAS"), 0.05),
        "msp": perturbed(head(lattice("RAS").refined(2)), 0.02),
        "input": perturbed(head(), 0.1),
    }


@pytest.fixture
def paths(images, tmp_path):
    folder = tmp_path / "in"
    for name, image in images.items():
        write_sh(folder / f"sub-01_{name}_dwimap.nii.gz", image)
    return {name: folder / f"sub-01_{name}_dwimap.nii.gz" for name in images}


def predictions(paths):
    return {"DIQT": paths["diqt"], "MSP": paths["msp"]}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_numbers_are_measured_on_truths_own_lattice(images, paths, tmp_path):
    compared = compare(paths["truth"], predictions(paths), tmp_path / "out", paths["input"])
    result = compared.to_json()
    assert names(tmp_path / "out") == {"figure3.png", "metrics.json", "numbers.csv"}
    assert (tmp_path / "out" / "figure3.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    small_print = " ".join(text.get_text() for text in compared.figure.texts)
    assert "MSP was averaged and interpolated linearly" in small_print
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(result))

    found = written["predictions"]
    assert found["DIQT"]["placement"] == "reordered"
    assert found["MSP"]["placement"].startswith("averaged and interpolated linearly from 1.00")
    alone = measure(images["msp"], images["truth"])
    assert found["MSP"]["sh_mse"] == pytest.approx(alone.sh_mse, rel=1e-6)
    assert found["MSP"]["patch_mse"] == pytest.approx(alone.patches.mse.tolist(), rel=1e-6)
    assert found["MSP"]["voxels"] == images["truth"].mask.sum()
    before = written["no_harmonization"]["sh_mse"]
    assert before == pytest.approx(measure(images["input"], images["truth"]).sh_mse)
    assert before > found["DIQT"]["sh_mse"] > found["MSP"]["sh_mse"]

    lines = (tmp_path / "out" / "numbers.csv").read_text(encoding="utf-8").splitlines()
    table = list(csv.DictReader(lines))
    assert [row["prediction"] for row in table] == ["before", "DIQT", "MSP"]
    assert {row["truth"] for row in table} == {"sub-01_truth_dwimap.nii.gz"}
    assert float(table[0]["sh_mse [SH units^2]"]) == before
    for row in table[1:]:
        sh_mse = found[row["prediction"]]["sh_mse"]
        assert float(row["sh_mse [SH units^2]"]) == sh_mse
        change = 100 * (sh_mse / before - 1)
        assert float(row["sh_mse_change [%]"]) == pytest.approx(change)
    assert written["notes"][0].startswith("MSP was averaged and interpolated linearly from 1.00")
    with pytest.raises(UserError, match="not given by name"):
        compare(paths["truth"], [paths["msp"]])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs a comparison"):
        figure3(paths["truth"])
    with pytest.raises(UserError, match="is called before"):
        compare(paths["truth"], {"before": paths["msp"]}, input_image=paths["input"])

    (test,) = written["tests"]
    assert (test["first"], test["second"]) == ("DIQT", "MSP")
    expected = wilcoxon(found["DIQT"]["patch_mse"], found["MSP"]["patch_mse"])
    assert test["p_value"] == expected.p_value
    assert test["rank_biserial"] == 1  # DIQT errs more in every patch


def test_scans_are_fitted_first(scan, tmp_path):
    truth_path = scan(noise=0.0).write(tmp_path, stem="sub-01_truth")
    (tmp_path / "again").mkdir()
    truth = fit_sh(scan().load(tmp_path / "again", stem="sub-01_again"))
    write_sh(tmp_path / "a_dwimap.nii.gz", perturbed(truth, 0.01))
    result = compare(truth_path, {"a": tmp_path / "a_dwimap.nii.gz"}, tmp_path / "out")
    assert result.metrics["a"].sh_mse == pytest.approx(1e-4, rel=0.1)
    assert any("sub-01_truth_dwi.nii.gz: SH of order 6 were fitted" in n for n in result.notes)


def test_without_truth_there_is_a_figure_and_no_invented_number(images, tmp_path, monkeypatch):
    stem = "sub-01_model-sh_param-{}_dwimap.nii.gz"
    path = tmp_path / stem.format("coefficients")
    write_sh(path, images["msp"])
    values = np.full(images["msp"].mask.shape, 0.04, dtype=np.float32)
    write_nifti(tmp_path / stem.format("disagreement"), values, images["msp"].affine)
    drawn = {}
    real = job.figure3  # type: ignore[attr-defined]

    def spy(comparison, scan, **options):
        drawn.update(options)
        return real(comparison, scan, **options)

    monkeypatch.setattr(job, "figure3", spy)
    result = compare(None, {"MSP": path}, tmp_path / "out")
    written = result.to_json()
    assert written["truth"] is None
    assert written["tests"] == []
    assert set(written["predictions"]["MSP"]) == {"path", "placement"}
    np.testing.assert_allclose(drawn["disagreement"]["MSP"], 0.04)
    assert (tmp_path / "out" / "figure3.png").exists()
    assert len((tmp_path / "out" / "numbers.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(("kind", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_figure_for_print(paths, tmp_path, kind, start):
    compare(paths["truth"], {"MSP": paths["msp"]}, tmp_path / "out", figure_format=kind)
    assert names(tmp_path / "out") == {f"figure3.{kind}", "metrics.json", "numbers.csv"}
    assert (tmp_path / "out" / f"figure3.{kind}").read_bytes().startswith(start)


def test_an_unknown_format_is_refused(paths, tmp_path):
    with pytest.raises(UserError, match=r"figure3\.jpg: a figure is written as PNG, PDF or SVG"):
        compare(paths["truth"], {"MSP": paths["msp"]}, tmp_path / "out", figure_format="jpg")
    assert not (tmp_path / "out").exists()


def test_what_a_reader_must_know_is_noted(images, paths, tmp_path):
    write_sh(paths["diqt"], replace(images["diqt"], rescaled_from=1000.0, regularisation=0.012))
    write_sh(paths["input"], replace(images["input"], b_value=700.0))
    result = compare(paths["truth"], predictions(paths), tmp_path / "out", paths["input"])
    notes = "\n".join(result.notes)
    assert "from b = 1000 to 1200 s/mm²" in notes
    assert "λ = 0.012" in notes
    assert "was not measured: its b-value" in notes
    assert result.only.no_harmonization is None
    assert "has no brain" not in notes


def test_a_hole_that_one_prediction_makes_in_all_numbers_is_told(images, capsys, paths, tmp_path):
    whole = images["diqt"]
    there = np.flatnonzero(whole.mask & images["truth"].mask)
    hole = whole.mask.copy()
    hole.flat[there[: len(there) // 10]] = False
    write_sh(paths["diqt"], replace(whole, coefficients=whole.coefficients * hole[..., None]))
    given = [f"--prediction={name}={paths[name.lower()]}" for name in ("DIQT", "MSP")]
    out = tmp_path / "out"
    assert main(["compare", f"--truth={paths['truth']}", *given, f"--out={out}"]) == 0
    told = r"DIQT has no brain in [\d,]+ of [\d,]+ voxels \(10 %\) of the others"
    assert re.search(told, capsys.readouterr().err)
    assert re.search(told, (out / "metrics.json").read_text())


def test_a_prediction_that_lies_beside_the_truth_is_told(images, capsys, paths, tmp_path):
    moved = images["msp"].affine.copy()
    moved[0, 3] += 4
    write_sh(paths["msp"], replace(images["msp"], affine=moved))
    out = tmp_path / "out"
    given = [f"--prediction={name}={path}" for name, path in predictions(paths).items()]
    assert main(["compare", f"--truth={paths['truth']}", *given, f"--out={out}"]) == 0
    [note] = [each for each in read_json(out / "metrics.json")["notes"] if "MSP lies " in each]
    assert re.match(r"MSP lies \d\.\d mm, .* from the ground truth .* which counts as error", note)
    assert capsys.readouterr().err.count(f"warning: {note}") == 1


def spoil_b_value(images, paths):
    write_sh(paths["msp"], replace(images["msp"], b_value=1000.0))


def spoil_sidecar(images, paths):
    write_sh(paths["msp"], replace(images["msp"], b_value=None))


def spoil_position(images, paths):
    moved = images["msp"].affine.copy()
    moved[0, 3] += 500
    write_sh(paths["msp"], replace(images["msp"], affine=moved))


def spoil_subject(images, paths):
    paths["msp"] = paths["msp"].with_name("sub-02_msp_dwimap.nii.gz")
    write_sh(paths["msp"], images["msp"])


def spoil_existence(images, paths):
    paths["msp"] = paths["msp"].with_name("gone_dwimap.nii.gz")


def spoil_volumes(images, paths):
    write_nifti(paths["msp"], images["msp"].coefficients[..., :27], images["msp"].affine)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_b_value, r"msp_dwimap.* b = 1000 s/mm² but .*truth_dwimap.* 1200.*harmonize"),
        (spoil_sidecar, r"msp_dwimap.*add BValue to .*msp_dwimap\.json"),
        (spoil_position, r"MSP: its brain overlaps only 0 % with .*; give scans of one head"),
        (spoil_subject, r"sub-02_msp.*is of sub-02 but .* is of sub-01; give images of one head"),
        (spoil_existence, r"gone_dwimap\.nii\.gz: there is no such file"),
        (spoil_volumes, r"msp_dwimap.* is not that of an SH image"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    images, paths, tmp_path, spoil, message
):
    spoil(images, paths)
    with pytest.raises(UserError) as caught:
        compare(paths["truth"], predictions(paths), tmp_path / "out")
    assert re.search(message, caught.value.phrase())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_b_values_within_five_percent_are_one(images, paths, tmp_path):
    write_sh(paths["msp"], replace(images["msp"], b_value=1150.0))
    compare(paths["truth"], {"MSP": paths["msp"]}, tmp_path / "out")
    notes = json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"]
    [said] = [note for note in notes if "b = " in note]
    assert said.startswith("MSP has b = 1150 s/mm², the ground truth 1200: this alone changes S/S0")


def test_a_bad_slice_or_no_prediction_leaves_nothing(paths, tmp_path):
    with pytest.raises(UserError) as caught:
        compare(paths["truth"], predictions(paths), tmp_path / "out", slice_index=99)
    assert caught.value.field == "slice_index"
    with pytest.raises(UserError) as caught:
        compare(paths["truth"], {}, tmp_path / "out")
    assert caught.value.field == "predictions"
    assert not (tmp_path / "out").exists()


def test_a_failing_write_leaves_the_old_pair(paths, tmp_path, monkeypatch):
    out = tmp_path / "out"
    compare(paths["truth"], {"MSP": paths["msp"]}, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(path, content):
        raise OSError("No space left on device")

    monkeypatch.setattr(job, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        compare(paths["truth"], {"DIQT": paths["diqt"]}, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_result_without_files_is_a_line_and_can_be_saved_later(paths, tmp_path):
    result = compare(str(paths["truth"]), {"MSP": str(paths["msp"])})
    assert repr(result).startswith("<compared with sub-01_truth_dwimap.nii.gz: SH MSE MSP ")
    assert len(repr(result)) < 100
    assert repr(compare(None, {"MSP": paths["msp"]})) == "<1 prediction compared without truth>"
    files = result.save(tmp_path / "out")
    assert {path.name for path in files} == names(tmp_path / "out")


def write_dataset(root, person, image):
    path = root / person / "ses-ge" / "dwi" / f"{person}_ses-ge_acq-st_model-sh_dwimap.nii.gz"
    write_sh(path, image)
    return path


def test_two_datasets_sub_01_are_two_people(images, tmp_path):
    mine = write_dataset(tmp_path / "mine", "sub-01", images["truth"])
    other = write_dataset(tmp_path / "other", "sub-01", perturbed(images["truth"], 0.01))
    with pytest.raises(UserError) as caught:
        compare(mine, {"MSP": other})
    assert caught.value.subject == str(other)
    assert "is of sub-01 but" in caught.value.problem
    assert caught.value.problem.endswith("is of sub-01 of another dataset")
    assert caught.value.remedy is not None


def test_a_prediction_is_of_whom_its_sidecar_says(images, tmp_path):
    truth = write_dataset(tmp_path / "mine", "sub-01", images["truth"])
    person = person_of(truth)
    path = tmp_path / "elsewhere" / "sub-07_dwimap.nii.gz"
    write_sh(path, images["msp"])
    sidecar = sidecar_path(path)
    provenance = Provenance("ge_st", "prisma_st", person=person.to_json())
    write_json(sidecar, {**read_json(sidecar), **provenance.to_sidecar()})
    assert compare(truth, {"MSP": path}).metrics["MSP"].voxels
    other = write_dataset(tmp_path / "other", "sub-01", perturbed(images["truth"], 0.01))
    with pytest.raises(UserError, match="another dataset"):
        compare(other, {"MSP": path})


def test_the_same_scan_under_two_names_is_one_person(scan, tmp_path):
    one, two = (
        tmp_path / name / person / "dwi" for name, person in (("a", "sub-01"), ("b", "sub-9"))
    )
    for folder in (one, two):
        folder.mkdir(parents=True)
    first, second = scan().write(one, stem="sub-01"), scan().write(two, stem="sub-9")
    assert compare(first, {"again": second}).metrics["again"].sh_mse == 0


def test_images_in_memory_are_compared_without_a_file(images):
    truth = Scan(given_sh=images["truth"], given_subject="sub-01", given_platform="prisma_st")
    result = compare(truth, {"DIQT": images["diqt"]}, input_image=images["input"])
    assert result.metrics["DIQT"].sh_mse == measure(images["diqt"], images["truth"]).sh_mse
    assert result.only.no_harmonization is not None
    assert repr(result).startswith("<compared with sub-01 prisma_st: SH MSE DIQT ")
    assert json.loads(json.dumps(result.to_json()))["truth"] == "sub-01 prisma_st"


def test_any_map_of_the_registry_can_be_chosen(images, tmp_path):
    given = images["truth"], {"MSP": images["diqt"]}
    result = compare(*given, tmp_path, images["input"], maps=tuple(MAPS))
    blocks = {str(axes.get_label()).split(" · ")[0] for axes in result.figure.axes}
    of_tensors = [f"{each.title} (SH series)" for each in list(MAPS.values())[1:]]
    titles = [MAPS["sh_average"].title, *of_tensors]
    assert blocks == {
        f"({letter}) {each}" for letter, each in zip(ascii_lowercase, titles, strict=False)
    }
    found = result.to_json()["predictions"]["MSP"]
    truth = Maps(images["truth"])
    mask = result.comparison.mask
    placed = result.comparison.predictions["MSP"]
    angles = np.degrees(
        np.arccos(np.abs(np.sum(placed["direction"] * truth["direction"], -1)).clip(0, 1))
    )
    assert found["direction_angle"] == pytest.approx(angles[mask].mean(), rel=1e-5)
    assert found["md_mse"] == pytest.approx(
        np.square(placed["md"] - truth["md"])[mask].mean(dtype=float), rel=1e-5
    )
    written = list(csv.DictReader((tmp_path / "numbers.csv").read_text().splitlines()))
    assert [row["prediction"] for row in written] == ["before", "MSP"]
    assert float(written[1]["md_mse [(mm^2/s)^2]"]) == found["md_mse"]
    assert float(written[0]["direction_angle [degrees]"]) > 0
    assert "MSE" in " ".join(text.get_text() for text in result.figure.texts)
    assert any(text.get_text().startswith("angle ") for text in result.figure.texts)
    default = compare(images["truth"], {"MSP": images["diqt"]}).to_json()["predictions"]["MSP"]
    assert not {"md_mse", "direction_angle"} & set(default)
    with pytest.raises(UserError) as caught:
        compare(images["truth"], {"MSP": images["diqt"]}, maps=("fibres",))
    assert (caught.value.field, caught.value.remedy) == ("maps", Choose("maps", tuple(MAPS)))


def test_an_image_of_unknown_b_value_is_refused_with_the_remedy(images):
    unknown = replace(images["diqt"], b_value=None)
    with pytest.raises(UserError, match="its b-value is unknown") as caught:
        compare(images["truth"], {"DIQT": unknown})
    assert caught.value.remedy is not None
