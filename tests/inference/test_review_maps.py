"""Small maps for a review: what they hold, how exactly, and when they are stale."""

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.errors import UserError
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.inference.review_making import make_review_maps, open_review_maps
from napari_msp.inference.review_maps import (
    FORMAT,
    MadeFrom,
    ReviewImage,
    ReviewMaps,
    Without,
    has_review_maps,
    quick_digest,
    read_review_maps,
    root_of,
    shells_of_review_maps,
    sidecar_of,
    write_review_maps,
)
from napari_msp.scan_sources import load_scan

STEM = "sub-01_ses-ge_acq-st"
OF_SA = f"{STEM}_desc-connectomsaMsp"


def at(folder: Path) -> MadeFrom:
    """A prediction in a folder that is its dataset."""
    return MadeFrom(folder / f"{OF_SA}_dwi.nii.gz")


@pytest.fixture
def random():
    return np.random.default_rng(3)


@pytest.fixture
def maps(random):
    """Maps of every kind, with what is awkward: negative averages, and a tail that is long."""

    def image(shape, scale):
        mask = random.random(shape) > 0.4
        direction = random.normal(size=(*shape, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        fa = np.where(mask, random.random(shape), 0).astype("f4")
        average = np.where(mask, random.normal(0.3, 0.3, shape), 0).astype("f4")
        colour = (np.abs(direction) * fa[..., None]).astype("f4")
        affine = np.array([[0, 0, scale, -5], [-scale, 0, 0, 9], [0, scale, 0, 2], [0, 0, 0, 1]])
        return ReviewImage.of(average, colour, mask, affine.astype(float))

    scan, prediction = image((5, 6, 7), 2.4), image((9, 11, 13), 1.2)
    tail = np.where(prediction.mask, random.gamma(2, 1e-4, prediction.mask.shape), 0)
    tail[4, 4, 4] = 1.0
    b0 = random.gamma(3, 400, scan.mask.shape).astype("f4")
    truth = image((9, 11, 13), 1.2)
    return ReviewMaps(scan, prediction, truth, tail.astype("f4"), "expected error", b0, ("a", "b"))


def test_what_is_written_is_read_to_within_half_a_step(maps, tmp_path):
    write_review_maps(at(tmp_path), {None: maps})
    back = read_review_maps(at(tmp_path))
    for name in ("scan", "prediction", "truth"):
        given, read = getattr(maps, name), getattr(back, name)
        np.testing.assert_array_equal(read.mask, given.mask)
        np.testing.assert_allclose(read.lattice.affine, given.lattice.affine, atol=1e-6)
        assert np.abs(read.average - given.average).max() <= 0.00101
        np.testing.assert_array_equal(read.colour, given.colour)
        assert (read.average.dtype, read.colour.dtype) == (np.dtype("f4"), np.dtype("u1"))
    # A long tail is kept whole, and the usual values are not lost beside it.
    tail, given = back.uncertainty, maps.uncertainty
    assert tail.max() == pytest.approx(1.0, rel=1e-4)
    assert np.unravel_index(tail.argmax(), tail.shape) == (4, 4, 4)
    assert np.abs(tail - given).max() <= np.median(given[given > 0]) / 10
    assert np.abs(back.b0 - maps.b0).max() <= np.median(maps.b0) / 60
    assert back.uncertainty_name == "expected error"
    assert back.notes == ("a", "b")


def test_what_is_not_there_is_none(maps, tmp_path):
    alone = ReviewMaps(None, maps.prediction, b0=maps.b0)
    write_review_maps(at(tmp_path), {None: alone})
    back = read_review_maps(at(tmp_path))
    found = {each.name: getattr(back, each.name) for each in fields(back)}
    del found["prediction"]
    assert found.pop("notes") == ()
    assert found.pop("shells") == (None,)
    assert set(found.values()) == {None}


def test_files_are_small_integers_that_other_viewers_scale(maps, tmp_path):
    folder = write_review_maps(at(tmp_path), {None: maps}).parent
    assert folder == tmp_path / "review/maps/sub-01"
    kinds = {path.name: nib.load(path).get_data_dtype() for path in folder.glob("*.nii.gz")}
    assert kinds == {
        f"{OF_SA}{of}_{name}.nii.gz": np.dtype(kind)
        for of, name, kind in (
            *((of, "model-sh_param-average_dwimap", "i2") for of in ("", "Scan", "Truth")),
            *((of, "model-tensor_param-colourfa_dwimap", "u1") for of in ("", "Scan", "Truth")),
            *((of, "mask", "u1") for of in ("", "Scan", "Truth")),
            ("", "model-sh_param-expectederror_dwimap", "u2"),
            ("Scan", "dwiref", "u1"),
        )
    }
    image = nib.load(folder / f"{OF_SA}_model-sh_param-average_dwimap.nii.gz")
    assert np.abs(image.get_fdata() - maps.prediction.average).max() <= 0.00101
    np.testing.assert_allclose(image.affine, maps.prediction.lattice.affine, atol=1e-6)


@pytest.mark.reference("MRtrix mrconvert")
def test_mrtrix_reads_the_same(maps, tmp_path, mrtrix):
    folder = write_review_maps(at(tmp_path), {None: maps}).parent
    out = tmp_path / "out.nii"
    mrtrix("mrconvert", folder / f"{OF_SA}_model-tensor_param-colourfa_dwimap.nii.gz", out,
           "-datatype", "float32", "-strides", "1,2,3,4")  # fmt: skip
    assert sorted(np.round(nib.load(out).get_fdata().ravel(), 4)) == sorted(
        np.round(read_review_maps(at(tmp_path)).prediction.colour.ravel() / 255, 4)
    )


def test_a_prediction_made_anew_makes_its_maps_stale(maps, tmp_path):
    source = tmp_path / f"sub-01/dwi/{OF_SA}_model-sh_param-coefficients_dwimap.nii.gz"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"prediction")
    of = MadeFrom(source)
    write_review_maps(of, {None: maps})
    assert has_review_maps(of)
    source.write_bytes(b"prediction.")
    assert not has_review_maps(of)
    with pytest.raises(UserError, match="has changed since; make the maps again"):
        read_review_maps(of)
    source.unlink()  # left on the big disk: what was copied is reviewed
    assert read_review_maps(of).truth is not None


def test_a_prediction_of_the_same_name_has_maps_of_its_own(maps, tmp_path):
    name = f"{OF_SA}_model-sh_param-coefficients_dwimap.nii.gz"
    new, old = (tmp_path / each / name for each in ("sub-01/dwi", "old/sub-01/dwi"))
    for path in (new, old):
        path.parent.mkdir(parents=True)
        path.write_bytes(str(path).encode())
    files = {path: replace(at(path.parent), root=tmp_path) for path in (new, old)}
    write_review_maps(files[new], {None: maps})
    assert has_review_maps(files[new])
    assert not has_review_maps(files[old])
    write_review_maps(files[old], {None: replace(maps, truth=None)})
    assert read_review_maps(files[new]).truth is not None
    assert read_review_maps(files[old]).truth is None
    # Maps that lie where its own would, and are of the other.
    sidecar = sidecar_of(files[old])
    sidecar.write_bytes(sidecar_of(files[new]).read_bytes())
    with pytest.raises(UserError, match="prediction has changed since"):
        read_review_maps(files[old])
    # The same name with other shells than the maps are of.
    new.rename(new.with_name(name.replace(OF_SA, f"{OF_SA}B1200")))
    assert not has_review_maps(files[new])


@pytest.mark.parametrize("what", ["scan", "truth"])
def test_another_scan_or_truth_makes_maps_stale(what, maps, tmp_path):
    other = tmp_path / "heads" / f"{STEM}_dwi.nii.gz"
    other.parent.mkdir()
    of = MadeFrom(tmp_path / f"{OF_SA}_dwi.nii.gz", **{what: other})
    image = tmp_path / f"{OF_SA}_model-sh_param-coefficients_dwimap.nii.gz"
    image.write_bytes(b"prediction")
    write_review_maps(MadeFrom(of.prediction), {None: maps})
    assert has_review_maps(of)  # it is not there
    other.write_bytes(b"scan")
    with pytest.raises(UserError, match=f"the {what} has changed"):  # it has appeared
        read_review_maps(of)
    write_review_maps(of, {None: maps})
    assert has_review_maps(of)
    os.utime(other, (1, 1))  # copied: another time, and the same in it
    assert has_review_maps(of)
    other.with_name(f"{STEM}_dwi.bvec").write_text("1 0 0")
    assert not has_review_maps(of)
    write_review_maps(of, {None: maps})
    other.write_bytes(b"another")
    assert not has_review_maps(of)
    nobodys = Without("another person's")
    nothing = MadeFrom(of.prediction, nobodys, nobodys)
    assert has_review_maps(nothing)  # they were made when it was known whose


@pytest.mark.parametrize("lowest", [0.0, -30.0, -3000.0])
def test_bright_voxels_are_not_cut_beside_negative_ones(lowest, maps, tmp_path):
    """Interpolation rings around bright voxels, and few bright ones make the steps large."""
    b0 = np.full(maps.scan.mask.shape, 1.0, dtype=np.float32)
    b0[0], b0[1] = 2000.0, lowest
    write_review_maps(at(tmp_path), {None: replace(maps, b0=b0)})
    back = read_review_maps(at(tmp_path)).b0
    assert back is not None
    assert back[0].max() == pytest.approx(2000, abs=0.06)
    assert back[1].min() == pytest.approx(lowest, abs=0.06)


def test_one_byte_anywhere_a_digest_looks_changes_it(tmp_path, random):
    path = tmp_path / "file"
    content = bytearray(random.bytes(3_000_000))
    path.write_bytes(content)
    before = quick_digest(path)
    for place in (0, 1_500_000, len(content) - 1):  # the middle is in no block
        content[place] ^= 1
        path.write_bytes(content)
        assert (quick_digest(path) == before) is (place == 1_500_000)
        content[place] ^= 1
    path.write_bytes(content[:-1])
    assert quick_digest(path) != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("*_mask.nii.gz")).unlink(),
        lambda folder: next(folder.glob("*average*")).write_bytes(b"\x1f\x8b nothing"),
        lambda folder: next(folder.glob("*.json")).write_text("{}"),
        lambda folder: next(folder.glob("*.json")).write_text(
            f'{{"Format": {FORMAT}, "Shells": [{{}}]}}'
        ),
        lambda folder: next(folder.glob("*.json")).write_text(
            f'{{"Format": {FORMAT}, "Shells": 3}}'
        ),
        lambda folder: next(folder.glob("*.json")).write_text('{"Format": 0}'),
        lambda folder: shutil.rmtree(folder),
    ],
)
def test_damage_is_told(damage, maps, tmp_path):
    damage(write_review_maps(at(tmp_path), {None: maps}).parent)
    with pytest.raises(UserError, match="make the maps again"):
        read_review_maps(at(tmp_path))


def test_several_shells(maps, tmp_path):
    other = replace(maps, truth=None)
    write_review_maps(at(tmp_path), {1200: maps, 3000: other})
    assert shells_of_review_maps(at(tmp_path)) == (1200, 3000)
    assert read_review_maps(at(tmp_path)).truth is not None
    assert read_review_maps(at(tmp_path), 3000).truth is None
    # Which it is is said: the others are not judged by it.
    assert read_review_maps(at(tmp_path)).notes == ("b = 1200 of 1200, 3000 s/mm²", "a", "b")
    assert read_review_maps(at(tmp_path), 3000).notes[0] == "b = 3000 of 1200, 3000 s/mm²"
    with pytest.raises(UserError, match="no maps of b = 2000; choose from 1200, 3000"):
        read_review_maps(at(tmp_path), 2000)


def test_a_full_disk_leaves_the_older_ones(maps, tmp_path, monkeypatch):
    write_review_maps(at(tmp_path), {None: maps})
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cannot be written"):
        patch.setattr("pathlib.Path.write_bytes", _full)
        write_review_maps(at(tmp_path), {None: replace(maps, truth=None)})
    assert read_review_maps(at(tmp_path)).truth is not None


def _full(*_):
    raise OSError(28, "the disk is full")


class TestHarmonize:
    """What `harmonize` writes beside its results, and what is made from them later."""

    @pytest.fixture
    def study(self, make_heads, tmp_path):
        return make_heads(tmp_path / "heads", subjects=1, shape=(9, 8, 7))

    @pytest.fixture
    def harmonized(self, study, saved_model, tmp_path):
        dwi = study / f"sub-01/ses-ge/dwi/{STEM}_dwi.nii.gz"
        (path,) = harmonize_to_folder(dwi, saved_model, ["connectom_sa"], tmp_path / "out")
        return path

    def test_they_are_those_of_the_full_images(self, study, harmonized, saved_model):
        of = MadeFrom(harmonized)
        assert (of.dataset, of.stem) == (harmonized.parent, OF_SA)
        maps = read_review_maps(of)
        full = load_scan(harmonized.with_name(f"{OF_SA}_model-sh_param-coefficients_dwimap.nii.gz"))
        truth = load_scan(study / "sub-01/ses-connectom/dwi/sub-01_ses-connectom_acq-sa_dwi.nii.gz")
        scan = load_scan(study / f"sub-01/ses-ge/dwi/{STEM}_dwi.nii.gz")
        for image, whole in ((maps.prediction, full), (maps.truth, truth), (maps.scan, scan)):
            assert np.abs(image.average - whole.maps()["sh_average"]).max() <= 0.00101
            fa = np.linalg.norm(image.colour / 255, axis=-1)
            assert np.abs(fa - whole.maps("sh")["fa"]).max() <= 0.004
            np.testing.assert_array_equal(image.mask, whole.mask)
            np.testing.assert_allclose(image.lattice.affine, whole.lattice.affine, atol=1e-6)
        name = f"{OF_SA}_model-sh_param-disagreement_dwimap.nii.gz"
        spread = nib.load(harmonized.with_name(name)).get_fdata()
        assert maps.uncertainty_name == "disagreement"
        assert np.abs(maps.uncertainty - spread).max() <= np.median(spread[spread > 0]) / 60
        assert maps.b0 is not None
        assert np.abs(maps.b0 - scan.acquisition.b0).max() <= np.median(maps.b0) / 60

        # The sidecar says of what they are.
        sidecar = json.loads(sidecar_of(of).read_text())
        assert sidecar["Model"]["File"] == saved_model.name
        assert len(sidecar["Model"]["Sha256"]) == 64
        assert sidecar["GeneratedBy"].startswith("napari-msp ")
        name = f"{OF_SA}_model-sh_param-coefficients_dwimap.nii.gz"
        assert sidecar["Shells"][0]["Made"] == {
            "Of": name,
            "Digest": quick_digest(harmonized.with_name(name)),
        }

        # Made from the files later they are the same.
        written = read_review_maps(of)
        shutil.rmtree(of.dataset / "review")
        assert make_review_maps(of) == sidecar_of(of)
        made = read_review_maps(of)
        for name in ("scan", "prediction", "truth"):
            for each in ("average", "colour", "mask"):
                np.testing.assert_array_equal(
                    getattr(getattr(made, name), each), getattr(getattr(written, name), each)
                )
        np.testing.assert_array_equal(made.uncertainty, written.uncertainty)

    def test_a_scan_that_is_gone_is_said(self, study, harmonized):
        shutil.rmtree(study)
        make_review_maps(MadeFrom(harmonized))
        maps = read_review_maps(MadeFrom(harmonized))
        assert (maps.scan, maps.truth, maps.b0) == (None, None, None)
        assert maps.notes == (
            "the scan it was predicted from was not found (bids:source:sub-01/ses-ge/dwi/"
            f"{STEM}_dwi.nii.gz)",
        )

    def test_a_scan_that_must_not_be_shown_is_not_opened(self, harmonized, monkeypatch):
        opened = []

        def load(path):
            opened.append(str(path))
            return load_scan(path)

        monkeypatch.setattr("napari_msp.inference.review_making.load_scan", load)
        shutil.rmtree(harmonized.parent / "review")
        nobodys = MadeFrom(harmonized, Without("it is of another dataset"), Without(""))
        maps, made = open_review_maps(nobodys)
        assert made
        assert (maps.scan, maps.truth, maps.b0) == (None, None, None)
        assert maps.notes == ("it is of another dataset",)
        assert opened
        assert all("desc-connectomsaMsp" in each for each in opened)
        assert not open_review_maps(nobodys)[1]
        # Once it is known where the scan is the maps are made with it.
        assert open_review_maps(MadeFrom(harmonized, load_scan(opened[0]).path))[1]

    def test_what_harmonize_wrote_is_not_made_anew(self, study, harmonized):
        scan = study / f"sub-01/ses-ge/dwi/{STEM}_dwi.nii.gz"
        truth = study / "sub-01/ses-connectom/dwi/sub-01_ses-connectom_acq-sa_dwi.nii.gz"
        assert open_review_maps(MadeFrom(harmonized, scan, truth))[1] is False
        truth.write_bytes(truth.read_bytes() + b"\0")
        maps, made = open_review_maps(MadeFrom(harmonized, scan, truth))
        assert made
        assert maps.truth is not None

    def test_a_truth_that_cannot_be_read_costs_no_prediction(self, study, saved_model, tmp_path):
        (study / "sub-01/ses-connectom/dwi/sub-01_ses-connectom_acq-sa_dwi.bvec").unlink()
        dwi = study / f"sub-01/ses-ge/dwi/{STEM}_dwi.nii.gz"
        (path,) = harmonize_to_folder(dwi, saved_model, ["connectom_sa"], tmp_path / "out")
        maps = read_review_maps(MadeFrom(path))
        assert maps.truth is None
        assert "sub-01_ses-connectom_acq-sa_dwi.nii.gz is left out" in maps.notes[0]

    def test_they_can_be_left_out(self, study, saved_model, tmp_path):
        dwi = study / f"sub-01/ses-ge/dwi/{STEM}_dwi.nii.gz"
        out = tmp_path / "out"
        (path,) = harmonize_to_folder(dwi, saved_model, ["prisma_st"], out, review_maps=False)
        assert not (out / "review").exists()
        assert not has_review_maps(MadeFrom(path))

    def test_they_never_go_to_measured_data(self, study, tmp_path):
        assert root_of(study / "mine") == study / "mine"
