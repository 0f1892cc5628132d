"""The files that harmonize writes."""

import json
import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.errors import Choose, Overwrite, UserError
from napari_msp.files import sha256
from napari_msp.image_files import UNCERTAINTY, ImageFile, Uncertainty, changed_files
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.inference.prepare import Rescaled, UnlikeTraining
from napari_msp.inference.review_maps import MadeFrom
from napari_msp.model_file import load_model, save_model
from napari_msp.provenance import Provenance
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.maps import tensor_maps
from napari_msp.signal.sh_image import load_sh
from napari_msp.strict_json import read_json

STEM = "sub-01_ses-ge_acq-st"


@pytest.fixture
def dwi(small_scan, tmp_path):
    (tmp_path / "in").mkdir()
    return small_scan().write(tmp_path / "in", stem=STEM)


DESCRIBING = {"dataset_description.json", "README", ".bidsignore"}
FOR_REVIEW = {"review"}


def test_names_keep_the_entities(dwi, saved_model, tmp_path):
    written = harmonize_to_folder(dwi, saved_model, ["connectom_sa"], tmp_path / "out")
    assert [path.name for path in written] == [f"{STEM}_desc-connectomsaMsp_dwi.nii.gz"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    stem = f"{STEM}_desc-connectomsaMsp"
    assert names == {
        *(f"{stem}_dwi.{suffix}" for suffix in ("nii.gz", "bval", "bvec", "json")),
        f"{stem}_mask.nii.gz",
        f"{stem}_mask.json",
        f"{stem}_model-sh_param-coefficients_dwimap.nii.gz",
        f"{stem}_model-sh_param-coefficients_dwimap.json",
        f"{stem}FirstStage_model-sh_param-coefficients_dwimap.nii.gz",
        f"{stem}FirstStage_model-sh_param-coefficients_dwimap.json",
        *(
            f"{stem}_model-sh_param-disagreement{order}_dwimap.{suffix}"
            for order in ("", "0")
            for suffix in ("nii.gz", "json")
        ),
        *DESCRIBING,
        *FOR_REVIEW,
    }
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "napari-msp"
    provenance = json.loads((tmp_path / "out" / f"{stem}_dwi.json").read_text())
    assert provenance["Model"]["File"] == "model.safetensors"
    assert "not harmonized" in provenance["FirstVolume"]


@pytest.mark.reference("MRtrix sh2amp")
@pytest.mark.parametrize("gradients", ["target", "input", "file"])
def test_dwi_is_the_predicted_signal_times_b0(
    gradients, dwi, saved_model, tmp_path, mrtrix, spread_out
):
    """MRtrix reads our SH image and our gradient table, and gives the same DWI."""
    if gradients == "file":
        np.savetxt(tmp_path / "user.bvec", spread_out(12).T)
        np.savetxt(tmp_path / "user.bval", np.full((1, 12), 800.0))
    out = tmp_path / "out"
    chosen = str(tmp_path / "user.bvec") if gradients == "file" else gradients
    (path,) = harmonize_to_folder(dwi, saved_model, ["connectom_sa"], out, gradients=chosen)
    stem = str(path).removesuffix("_dwi.nii.gz")
    sh = f"{stem}_model-sh_param-coefficients_dwimap.nii.gz"
    grad = tmp_path / "table.b"
    mrtrix(
        "mrinfo",
        path,
        "-fslgrad",
        f"{stem}_dwi.bvec",
        f"{stem}_dwi.bval",
        "-export_grad_mrtrix",
        grad,
    )
    table = np.loadtxt(grad)
    np.savetxt(grad, table[1:])
    mrtrix("sh2amp", sh, grad, tmp_path / "amplitudes.nii")
    amplitudes = nib.load(tmp_path / "amplitudes.nii").get_fdata()
    data = nib.load(path).get_fdata()
    acquisition = load_acquisition(path)
    expected = np.clip(amplitudes, 0, 1) * data[..., :1]
    assert data.shape[3] == 1 + {"target": 30, "input": 30, "file": 12}[gradients]
    assert np.abs(data[..., 1:] - expected).max() <= 1e-4 * data[..., 0].max()
    assert acquisition.shell().b_value == pytest.approx(1200)


def test_written_images_read_back(dwi, saved_model, tmp_path):
    (path,) = harmonize_to_folder(dwi, saved_model, ["prisma_st"], tmp_path / "out")
    back = load_acquisition(path)
    assert back.mask_path is not None
    assert back.mask.sum() == load_acquisition(dwi).mask.sum()
    name = path.name.replace("_dwi.nii.gz", "_model-sh_param-coefficients_dwimap.nii.gz")
    image = load_sh(path.with_name(name))
    assert image.b_value == 1200
    assert image.coefficients.dtype == np.float32
    # Its DWI is that image, not one that was shrunk once more; where no signal had to be cut off.
    again = load_scan(path).sh
    whole = evaluate_sh(image, back.given_gradients.directions[1:])
    inside = image.mask & (whole > 0).all(axis=-1) & (whole < 1).all(axis=-1)
    assert inside.sum() > 20
    difference = np.abs(again.coefficients - image.coefficients)[inside]
    assert difference.max() < 1e-5
    assert again.regularisation is None
    header = nib.load(path).header
    assert header.get_data_dtype() == np.float32
    assert header.get_xyzt_units()[0] == "mm"


def test_the_written_b_values_are_the_one_that_the_signal_has(dwi, make_model, tmp_path):
    """Also where the target's own differed a little from volume to volume."""
    model = make_model()
    table = model.card.gradients["prisma_st"]
    jittered = [b and b + 40 * (-1) ** at for at, b in enumerate(table.b_values)]
    gradients = {
        **model.card.gradients,
        "prisma_st": table.model_copy(update={"b_values": jittered}),
    }
    changed = replace(model, card=model.card.model_copy(update={"gradients": gradients}))
    path = harmonize(changed, dwi, "prisma_st").save(tmp_path / "out")[0]
    written = np.loadtxt(path.with_name(path.name.replace("nii.gz", "bval")))
    assert set(written) == {0, 1200}


def test_existing_files_are_kept_unless_forced(dwi, saved_model, tmp_path):
    out = tmp_path / "out"
    (path,) = harmonize_to_folder(dwi, saved_model, ["prisma_st"], out)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already") as error:
        harmonize_to_folder(dwi, saved_model, ["prisma_st"], out)
    assert (error.value.subject, error.value.remedy) == (str(path), Overwrite())
    assert path.read_bytes() == b"mine"
    harmonize_to_folder(dwi, saved_model, ["prisma_st"], out, force=True)
    assert load_acquisition(path).image.shape[3] == 31


def test_what_another_process_wrote_meanwhile_is_kept(dwi, saved_model, tmp_path):
    out = tmp_path / "out"

    def be_quicker(*_):
        if not out.joinpath("made").exists():
            out.joinpath("made").touch()
            harmonize_to_folder(dwi, saved_model, ["prisma_st"], out)

    with pytest.raises(UserError, match="exists already"):
        harmonize_to_folder(dwi, saved_model, ["prisma_st"], out, progress=be_quicker)
    assert load_acquisition(next(out.glob("*_dwi.nii.gz"))).image.shape[3] == 31


def test_the_sidecar_names_the_model_that_was_used(dwi, saved_model, tmp_path):
    model, digest = load_model(saved_model), sha256(saved_model)
    saved_model.write_bytes(b"trained anew meanwhile")
    (path,) = harmonize_to_folder(dwi, model, ["prisma_st"], tmp_path / "out")
    said = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert said["Model"]["Sha256"] == digest


def test_what_lost_a_file_is_made_anew(dwi, saved_model, tmp_path):
    (path,) = harmonize_to_folder(dwi, saved_model, ["prisma_st"], tmp_path)
    named = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Files"]
    assert named == {
        each.name: each.stat().st_size
        for each in tmp_path.glob("*prismastMsp*")
        if each.suffix != ".json"
    }
    for name in named:
        (tmp_path / name).unlink()
        if name.endswith("dwimap.nii.gz"):  # deleted to save room
            with pytest.raises(UserError, match="exists already"):
                harmonize_to_folder(dwi, saved_model, ["prisma_st"], tmp_path)
        else:
            harmonize_to_folder(dwi, saved_model, ["prisma_st"], tmp_path)
            assert (tmp_path / name).stat().st_size == named[name]


def test_nothing_is_written_when_a_later_target_fails(dwi, saved_model, tmp_path, monkeypatch):
    from napari_msp.inference import harmonize, stages

    real = stages.predict_on_grid

    def fail_second(network, image, of_input, of_targets, **settings):
        if "connectom_sa" in of_targets:
            raise MemoryError
        return real(network, image, of_input, of_targets, **settings)

    monkeypatch.setattr(harmonize, "predict_on_grid", fail_second)
    with pytest.raises(MemoryError):
        harmonize_to_folder(dwi, saved_model, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gradients", ["target", "input"])
def test_a_prediction_in_memory_is_saved_as_harmonize_writes_it(
    gradients, dwi, saved_model, tmp_path
):
    model = load_model(saved_model)
    acquisition = load_acquisition(dwi)
    prediction = harmonize(model, acquisition, "connectom_sa", keep_stages=True)
    written = prediction.save(tmp_path / "saved", gradients=gradients)
    harmonize_to_folder(
        dwi, saved_model, ["connectom_sa"], tmp_path / "written", gradients=gradients
    )
    saved, expected = (
        {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("saved", "written")
    )
    assert saved == expected
    assert written[0].name == f"{STEM}_desc-connectomsaMsp_dwi.nii.gz"
    of_itself = {name for name in saved if not name.startswith("review/")} - DESCRIBING
    assert {path.name for path in written} == of_itself


def test_a_folder_that_cannot_be_written_is_named_as_it_was_chosen(dwi, saved_model, tmp_path):
    (tmp_path / "README").write_text("a file")
    chosen = tmp_path / "README" / "out"
    with pytest.raises(UserError, match="cannot write here") as told:
        harmonize_to_folder(dwi, saved_model, ["connectom_sa"], chosen)
    assert told.value.subject == str(chosen)


def test_a_scan_that_has_gone_since_is_asked_for_and_nothing_is_written(dwi, saved_model, tmp_path):
    prediction = harmonize(load_model(saved_model), dwi, "connectom_sa")
    away = dwi.rename(dwi.with_name("away.nii.gz"))
    with pytest.raises(UserError, match="is no longer there; put it back") as error:
        prediction.save(tmp_path / "saved")
    assert error.value.subject == str(dwi)
    assert not (tmp_path / "saved").exists()
    away.rename(dwi)
    assert prediction.save(tmp_path / "saved")


def test_saving_keeps_what_is_there_and_leaves_no_half(dwi, saved_model, tmp_path, monkeypatch):
    model = load_model(saved_model)
    acquisition = load_acquisition(dwi)
    prediction = harmonize(model, acquisition, "prisma_st")
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(UserError, match="full"):
        patch.setattr("napari_msp.inference.outputs.write_sh", _disk_full)
        prediction.save(out)
    assert not out.exists()
    written = prediction.save(out, describe=False)
    assert {path for path in out.iterdir() if path.is_file()} == set(written)
    with pytest.raises(UserError, match="exists already") as error:
        prediction.save(out)
    assert error.value.remedy == Overwrite()
    prediction.save(out, force=True)


def test_a_forced_save_leaves_nothing_of_the_earlier_prediction(dwi, saved_model, tmp_path):
    """Whatever the new one lacks would be read as its own: no expected error at another α."""
    kept = harmonize(load_model(saved_model), load_acquisition(dwi), "prisma_st", keep_stages=True)
    expecting = replace(kept, given_expected_error=np.ones_like(kept.b0))
    out, stem = tmp_path / "out", f"{STEM}_desc-prismastMsp"
    of_shell = "B3000_model-sh_param-coefficients_dwimap.nii.gz"

    def files():
        return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}

    kept.save(out)
    plain = files()
    expecting.save(out, force=True)
    assert len([name for name in files() - plain if "expectederror" in name]) == 3
    told = read_json(out / f"{stem}_model-sh_param-expectederror_dwimap.json")
    assert (told["Units"], len(told["Sources"])) == ("SH units²", 1)
    theirs = {
        f"{stem}_notes.txt",
        f"{stem}_model-tensor_param-fa_dwimap.nii.gz",
        f"other_{of_shell}",
    }
    older = {f"{stem}{of_shell}", f"{stem}FirstStage{of_shell}"}
    for again in (
        lambda: kept.at_alpha(0.3).save(out, force=True),
        lambda: harmonize_to_folder(dwi, saved_model, ["prisma_st"], out, force=True),
    ):
        expecting.save(out, force=True)
        for name in theirs | older:
            (out / name).touch()
        again()
        assert files() == plain | theirs


def test_one_more_map_of_a_prediction_is_known_wherever_its_files_are(
    dwi, saved_model, tmp_path, monkeypatch
):
    model, out, stem = load_model(saved_model), tmp_path / "out", f"{STEM}_desc-prismastMsp"
    prediction = harmonize(model, load_acquisition(dwi), "prisma_st")
    with monkeypatch.context() as patch:
        patch.setitem(UNCERTAINTY, "twice", Uncertainty("disagreement", "SH units", "Once more"))
        (image, *_) = prediction.save(out)
        file = ImageFile(stem, "twice")
        assert file.at(out).name in read_json(out / f"{stem}_dwi.json")["Files"]
        assert file.in_shells(out) == {None: file.at(out)}
        for path in (file.at(out), image):
            assert (MadeFrom(path).dataset, MadeFrom(path).stem) == (out, stem)
        file.at(out).write_bytes(b"half")
        assert changed_files(image) == [str(file)]
        of_shell = replace(file, shell=3000).at(out)
        of_shell.touch()
        replace(prediction, given_disagreement=None).save(out, force=True)
        assert not (of_shell.exists() or file.at(out).exists())
        assert not changed_files(image)


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "the disk is full")


def test_an_acquisition_without_a_path_names_no_file(dwi, saved_model, tmp_path):
    model = load_model(saved_model)
    acquisition = replace(load_acquisition(dwi), path=None)
    prediction = harmonize(model, acquisition, "prisma_st")
    with pytest.raises(UserError, match="in memory"):
        prediction.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gradients", ["sideways", "missing.bvec"])
def test_unknown_gradients_are_refused_before_any_work(gradients, dwi, saved_model, tmp_path):
    with pytest.raises(UserError, match="neither 'target', 'input' nor") as error:
        harmonize_to_folder(dwi, saved_model, [], tmp_path / "out", gradients=gradients)
    assert (error.value.field, error.value.remedy) == ("gradients", Choose("gradients"))
    assert not (tmp_path / "out").exists()


def test_all_that_keeps_a_scan_from_being_harmonized_is_said_at_once(
    small_scan, saved_model, tmp_path
):
    folder = tmp_path / "in"
    folder.mkdir()
    dwi = small_scan(np.diag([-2.0, 2, 2, 1]), b_values=(1000.0,)).write(folder, stem=STEM)
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{STEM}_desc-connectomsaMsp_dwi.nii.gz").write_bytes(b"an earlier one")
    with pytest.raises(UserError) as refused:
        harmonize_to_folder(dwi, saved_model, ["connectom_sa"], out)
    said = str(refused.value)
    for part in ("b = 1000", "2.00 × 2.00 × 2.00 mm", "exists already",
                 "rescale_b_value=True", "resample=True", "force=True"):  # fmt: skip
        assert part in said
    assert "\n" not in said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikeTraining)
        warnings.simplefilter("ignore", Rescaled)
        harmonize_to_folder(
            dwi, saved_model, ["connectom_sa"], out,
            rescale_b_value=True, resample=True, force=True,
        )  # fmt: skip
    with pytest.raises(UserError, match="exists already") as alone:
        harmonize_to_folder(
            dwi, saved_model, ["connectom_sa"], out, rescale_b_value=True, resample=True
        )
    assert isinstance(alone.value.remedy, Overwrite)


def test_all_that_was_warned_of_stands_in_the_sidecar(small_scan, saved_model, tmp_path):
    """As a cohort's table and a review count it: the mask and a shell that is left out too."""
    (tmp_path / "in").mkdir()
    dwi = small_scan(b_values=(1200.0, 3000.0)).write(tmp_path / "in", stem=STEM)
    for mask in tmp_path.rglob("*mask.nii.gz"):
        mask.unlink()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        harmonize_to_folder(dwi, saved_model, ["prisma_st"], tmp_path / "out")
    sidecar = json.loads((tmp_path / "out" / f"{STEM}_desc-prismastMsp_dwi.json").read_text())
    made = Provenance.from_sidecar(sidecar)
    assert {*made.warnings} == {each.message for each in told}
    for part in ("has no brain mask", "b = 3000 of the scan is not predicted"):
        assert any(part in each.words for each in made.warnings)


def test_every_target_and_the_table_are_among_what_is_said_at_once(
    small_scan, saved_model, tmp_path
):
    (tmp_path / "in").mkdir()
    dwi = small_scan(b_values=(1000.0,)).write(tmp_path / "in", stem=STEM)
    out = tmp_path / "out"
    out.mkdir()
    taken = [f"{STEM}_desc-{name}Msp_dwi.nii.gz" for name in ("connectomsa", "prismast")]
    for name in taken:
        (out / name).write_bytes(b"an earlier one")
    with pytest.raises(UserError) as refused:
        harmonize_to_folder(dwi, saved_model, [], out, gradients="sideways")
    said = str(refused.value)
    for part in (*taken, "b = 1000", "neither 'target', 'input' nor"):
        assert part in said
    assert said.count("force=True") == 1
    with pytest.raises(UserError, match="nowhere") as refused:
        harmonize_to_folder(dwi, saved_model, ["nowhere", "prisma_st"], out)
    assert taken[1] in str(refused.value)


def test_b0_images_at_60_stay_there(make_model, small_scan, tmp_path):
    """Of a target whose b=0 images are at b = 60; MD is that of the difference in b."""
    (tmp_path / "in").mkdir()
    dwi = small_scan().write(tmp_path / "in", stem=STEM)
    model = make_model()
    plain = harmonize(model, dwi, "connectom_sa")
    table = model.card.gradients["connectom_sa"]
    weighted = table.model_copy(update={"b0_weighting": 60.0})
    gradients = {**model.card.gradients, "connectom_sa": weighted}
    save_model(
        tmp_path / "m.safetensors",
        replace(model, card=model.card.model_copy(update={"gradients": gradients})),
    )
    prediction = harmonize(tmp_path / "m.safetensors", dwi, "connectom_sa")
    md = tensor_maps(prediction.sh).md
    np.testing.assert_allclose(md, tensor_maps(plain.sh).md / (1 - 60 / 1200), rtol=1e-4)
    assert prediction.first_stage is not None
    assert prediction.first_stage.b0_weighting == 60
    path = prediction.save(tmp_path / "out")[0]
    b_values = np.loadtxt(path.with_name(path.name.replace("nii.gz", "bval")))
    assert b_values[:2].tolist() == [60, 1200]
    with pytest.warns(DoubtfulScan, match="b = 60 counts as b=0"):
        written = load_acquisition(path)
    assert written.given_gradients.b0_weighting == 60
    assert written.given_gradients.b0_volumes.tolist() == [0]


def test_a_threshold_comes_too_late_for_an_open_scan(small_scan, saved_model, tmp_path):
    acquisition = small_scan().load(tmp_path)
    with pytest.raises(UserError, match=r"is already open, with b ≤ 50 counted as b=0"):
        harmonize(load_model(saved_model), acquisition, "connectom_sa", b0_threshold=60)
