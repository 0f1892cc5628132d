"""Acquisitions: what is found on disk, when it is read, and what is refused."""

import re
import shutil
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table

from napari_msp.bids import gradient_files
from napari_msp.data.acquisition import Acquisition, DoubtfulScan, EstimatedMask, load_acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.errors import Advice, Choose, Give, UserError, either
from napari_msp.signal.fitting import normalise


def message(*parts):
    """Match `parts` literally, in this order, on one line."""
    return ".*".join(map(re.escape, parts))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_was_written_is_read(tmp_path, scan, suffix):
    made = scan("oblique")
    acquisition = load_acquisition(made.write(tmp_path, suffix=suffix))
    np.testing.assert_array_equal(acquisition.voxels, made.image.get_fdata())
    np.testing.assert_allclose(acquisition.affine, made.image.affine, atol=1e-6)
    np.testing.assert_allclose(acquisition.gradients.directions, made.directions, atol=1e-6)
    np.testing.assert_array_equal(acquisition.mask, made.mask.get_fdata() > 0)
    np.testing.assert_allclose(
        normalise(acquisition.voxels[..., acquisition.shell().volumes], acquisition.b0[..., None]),
        made.normalised,
        atol=1e-6,
    )


def test_voxels_are_read_only_when_asked_for(tmp_path, scan):
    path = scan().write(tmp_path, suffix=".nii")
    with path.open("r+b") as file:
        file.truncate(400)  # header only

    acquisition = load_acquisition(path)
    assert acquisition.lattice.shape == (8, 7, 6)
    assert len(acquisition.gradients) == 62

    with pytest.raises(UserError, match=message("sub-01_dwi.nii", "voxels cannot be read")):
        _ = acquisition.voxels


def test_scaled_integers_are_read_in_scanner_units(tmp_path, scan):
    path = scan().write(tmp_path)
    stored = np.arange(8 * 7 * 6 * 62).reshape(8, 7, 6, 62).astype(np.int16)
    image = nib.Nifti1Image(stored, nib.load(path).affine)
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.25, 10)
    image.to_filename(path)
    assert nib.load(path).dataobj.slope == 0.25
    expected = np.asarray(nib.load(path).dataobj)

    acquisition = load_acquisition(path)
    voxels = acquisition.voxels
    assert "no diffusion is seen" in acquisition.reading.doubts[0].words

    np.testing.assert_allclose(voxels, expected, rtol=1e-6)
    assert voxels.dtype == np.float32
    assert nib.load(path).get_data_dtype() == np.int16
    np.testing.assert_allclose(voxels.reshape(-1)[:3], [10, 10.25, 10.5])


class TestNormalisation:
    def acquisition(self, values, b_values):
        image = nib.Nifti1Image(np.array(values, np.float32).reshape(1, 1, 1, -1), np.eye(4))
        directions = np.tile([0.0, 0.0, 1.0], (len(b_values), 1))
        return Acquisition(image, GradientTable(np.array(b_values, float), directions))

    def normalised(self, values, b_values):
        acquisition = self.acquisition(values, b_values)
        return normalise(
            acquisition.voxels[..., acquisition.shell().volumes], acquisition.b0[..., None]
        ).ravel()

    def test_is_by_the_mean_b0_wherever_it_stands(self):
        np.testing.assert_allclose(
            self.normalised([90, 50, 110, 25], [0, 1000, 5, 1000]), [0.5, 0.25]
        )

    def test_stays_between_0_and_1(self):
        np.testing.assert_array_equal(
            self.normalised([100, 120, -5, 30], [0, 1000, 1000, 1000]),
            np.array([1, 0, 0.3], np.float32),
        )

    @pytest.mark.parametrize("b0", [0, -3])
    def test_is_0_where_b0_has_no_signal(self, b0):
        np.testing.assert_array_equal(self.normalised([b0, 5, 7], [0, 1000, 1000]), [0, 0])

    def test_voxels_that_are_not_finite_are_refused(self):
        with pytest.raises(UserError, match=r"infinite voxels: 1 .*\(the first is 0, 0, 0\)"):
            self.normalised([100, np.nan, 7], [0, 1000, 1000])

    def test_voxels_that_are_not_finite_outside_a_given_mask_are_0(self, scan, tmp_path):
        made = scan()
        data = np.asarray(made.image.dataobj).copy()
        data[0, 2, 3, 5] = np.nan  # the mask leaves out the first slice of x
        image = nib.Nifti1Image(data, made.image.affine)
        acquisition = replace(made, image=image).load(tmp_path)
        assert not acquisition.voxels[0, 2, 3].any()
        assert np.isfinite(acquisition.voxels).all()


class TestShells:
    @pytest.fixture
    def acquisition(self, tmp_path, scan):
        return scan(directions=10, b_values=(700.0, 1200.0, 2000.0)).load(tmp_path)

    def test_one_of_several_is_chosen(self, acquisition):
        shell = acquisition.shell(1210)
        assert shell.b_value == 1200
        np.testing.assert_array_equal(shell.volumes, np.arange(12, 22))
        np.testing.assert_allclose(
            acquisition.directions(shell), acquisition.gradients.directions[12:22]
        )

    def test_an_open_choice_is_an_error_that_lists_them(self, acquisition):
        with pytest.raises(UserError, match=message("b = 700, 1200, 2000", "b_value=")) as error:
            acquisition.shell()
        assert error.value.field == "b_value"
        assert error.value.remedy == Choose("b_value", (700, 1200, 2000))

    def test_a_far_b_value_is_an_error_that_lists_them(self, acquisition):
        with pytest.raises(UserError, match=message("no shell near b = 1000", "700, 1200, 2000")):
            acquisition.shell(1000)

    def test_the_only_shell_needs_no_choice(self, tmp_path, scan):
        assert scan(directions=10).load(tmp_path).shell().b_value == 1200


class TestMask:
    @pytest.fixture
    def dataset(self, tmp_path, scan):
        """A BIDS dataset with one scan, whose mask is moved out of it."""
        folder = tmp_path / "sub-01/ses-ge/dwi"
        folder.mkdir(parents=True)
        path = scan().write(folder, stem="sub-01_ses-ge_acq-st")
        shutil.move(folder / "sub-01_ses-ge_acq-st_mask.nii.gz", tmp_path / "mask.nii.gz")
        return path

    def derive(self, dataset, pipeline):
        root = dataset.parents[3]
        folder = root / "derivatives" / pipeline / "sub-01/ses-ge/dwi"
        folder.mkdir(parents=True)
        target = folder / "sub-01_ses-ge_acq-st_desc-brain_mask.nii.gz"
        return shutil.copy(root / "mask.nii.gz", target)

    @pytest.mark.parametrize(
        "name",
        [
            "sub-01_ses-ge_acq-st_dwi_mask.nii.gz",
            "sub-01_ses-ge_acq-st_mask.nii.gz",
            "sub-01_ses-ge_acq-st_desc-brain_mask.nii.gz",
        ],
    )
    def test_is_found_beside_the_image(self, dataset, name):
        beside = shutil.copy(dataset.parents[3] / "mask.nii.gz", dataset.parent / name)
        acquisition = load_acquisition(dataset)
        assert acquisition.mask_path == beside
        assert acquisition.mask.sum() == 7 * 6 * 6

    def test_is_found_in_derivatives(self, dataset):
        derived = self.derive(dataset, "brainmask")
        assert load_acquisition(dataset).mask_path == derived

    def test_two_in_derivatives_are_the_users_choice(self, dataset):
        chosen = self.derive(dataset, "brainmask")
        self.derive(dataset, "another")
        with pytest.raises(UserError, match="several files may be its brain mask") as error:
            load_acquisition(dataset)
        assert load_acquisition(dataset, mask=chosen).mask_path == chosen
        assert error.value.subject == str(dataset)
        assert (error.value.field, error.value.remedy) == ("mask", Give("mask", "one"))

    def test_a_fourth_axis_of_one_is_no_matter(self, dataset, tmp_path):
        mask = nib.load(tmp_path / "mask.nii.gz")
        four = tmp_path / "four.nii.gz"
        nib.Nifti1Image(np.asarray(mask.dataobj)[..., None], mask.affine).to_filename(four)
        assert load_acquisition(dataset, mask=four).mask.sum() == 7 * 6 * 6

    def test_without_one_the_bright_ball_is_the_brain(self, tmp_path):
        distance = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0)
        noise = np.random.default_rng(1).normal(size=distance.shape)
        ball = np.where(distance < 14, 1000, 10) + noise
        signal = np.stack([ball, ball / 2], axis=-1).astype(np.float32)
        table = GradientTable(np.array([0.0, 1000.0]), np.array([[0.0, 0, 0], [1, 0, 0]]))
        acquisition = Acquisition(nib.Nifti1Image(signal, np.eye(4)), table)
        mask = acquisition.mask
        with pytest.warns(EstimatedMask, match="has no brain mask, so one was estimated"):
            acquisition.tell()
        assert mask[distance < 13].all()
        assert not mask[distance > 14].any()


def test_a_b0_that_was_cut_off_is_doubted():
    signal = np.random.default_rng(0).normal(100, 20, (12, 12, 12, 8)).astype(np.float32)
    signal[..., 1:] /= 2
    table = GradientTable(np.array([0.0] + [1000] * 7), np.array([[0.0, 0, 0]] + [[1, 0, 0]] * 7))

    def said(values):
        image = nib.Nifti1Image(values, np.eye(4))
        scan = Acquisition(image, table, given_mask=np.ones((12, 12, 12), bool), every_volume=True)
        return " ".join(each.words for each in scan.reading.doubts)

    assert "cut off" not in said(signal)
    assert "cut off" not in said(np.sign(signal))  # one value is a synthetic image
    clipped = np.minimum(signal, 140)
    assert "b=0 volume 0 seems to be cut off at 140, the value of 2 % of its" in said(clipped)


def test_a_phase_image_is_doubted_by_its_name(tmp_path, scan):
    path = scan(directions=6).write(tmp_path, stem="sub-01_part-phase")
    with pytest.warns(DoubtfulScan, match="shows phase or part of a complex signal"):
        load_acquisition(path)


class TestRefused:
    @pytest.fixture
    def path(self, tmp_path, scan):
        return scan(directions=6).write(tmp_path)

    @pytest.mark.parametrize("name", ["dwi.mgz", "dwi.txt", "dwi"])
    def test_another_suffix(self, tmp_path, name):
        with pytest.raises(UserError, match=message(name, "no image that can be read")):
            load_acquisition(tmp_path / name)

    @pytest.mark.parametrize("gone", ["bval", "bvec"])
    def test_no_gradients(self, path, gone):
        (path.parent / f"sub-01_dwi.{gone}").unlink()
        with pytest.raises(UserError, match="is missing") as error:
            load_acquisition(path)
        assert error.value.subject == str(path.parent / f"sub-01_dwi.{gone}")
        beside = either(Advice("put it next to the image"), Give(gone))
        assert (error.value.field, error.value.remedy) == (gone, beside)

    def test_no_b0(self, path):
        (path.parent / "sub-01_dwi.bval").write_text("1200 " * 8)
        vectors = np.tile([[1.0], [0], [0]], 8)
        np.savetxt(path.parent / "sub-01_dwi.bvec", vectors)
        with pytest.raises(UserError, match="no volume has b=0"):
            load_acquisition(path)


def test_gradients_and_mask_may_be_named(tmp_path, scan):
    path = scan(directions=6).write(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names: dict[str, Any] = {}
    for kind, name in [
        ("bval", "sub-01_dwi.bval"),
        ("bvec", "sub-01_dwi.bvec"),
        ("mask", "sub-01_mask.nii.gz"),
    ]:
        names[kind] = str(shutil.move(tmp_path / name, elsewhere / f"x_{name}"))
    acquisition = load_acquisition(str(path), **names)
    assert acquisition.mask.sum() == 7 * 6 * 6
    assert len(acquisition.gradients) == 8


class TestInMemory:
    """What is on disk can be given in memory too, and is then the same."""

    @pytest.fixture
    def path(self, tmp_path, scan):
        return scan("oblique").write(tmp_path)

    def table(self, path):
        return np.loadtxt(path.with_name("sub-01_dwi.bval")), np.loadtxt(
            path.with_name("sub-01_dwi.bvec")
        )

    def same(self, found, expected):
        np.testing.assert_array_equal(found.voxels, expected.voxels)
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_array_equal(found.gradients.b_values, expected.gradients.b_values)
        np.testing.assert_allclose(found.gradients.directions, expected.gradients.directions)

    @pytest.mark.parametrize("transposed", [False, True])
    def test_arrays(self, path, transposed):
        expected = load_acquisition(path)
        bvals, bvecs = self.table(path)
        mask = np.asarray(nib.load(path.with_name("sub-01_mask.nii.gz")).dataobj)
        found = load_acquisition(
            nib.load(path), bvals, bvecs.T if transposed else bvecs, mask=mask > 0
        )
        self.same(found, expected)
        assert found.path is None
        assert found.has_mask

    def test_a_mask_image_and_dipys_table(self, path):
        from dipy.core.gradients import gradient_table

        bvals, bvecs = self.table(path)
        mask = nib.load(path.with_name("sub-01_mask.nii.gz"))
        table = gradient_table(bvals, bvecs=bvecs.T)
        self.same(
            load_acquisition(nib.load(path), mask=mask, gradients=table), load_acquisition(path)
        )

    def test_text_paths(self, path):
        texts = [str(path.with_name(f"sub-01_{name}")) for name in ("dwi.bval", "dwi.bvec")]
        mask = str(path.with_name("sub-01_mask.nii.gz"))
        found = load_acquisition(str(path), texts[0], texts[1], mask)
        self.same(found, load_acquisition(path))

    def test_a_table_is_wanted(self, path):
        with pytest.raises(UserError, match="has no bval") as error:
            load_acquisition(nib.load(path))
        assert [each.remedy for each in error.value.parts] == [Give("bval"), Give("bvec")]

    def test_a_mask_of_another_image_is_refused(self, path):
        bvals, bvecs = self.table(path)
        with pytest.raises(UserError, match="voxel grid is not the image's") as error:
            load_acquisition(nib.load(path), bvals, bvecs, mask=np.ones((3, 3, 3), dtype=bool))
        assert error.value.field == "mask"

    def test_masks_of_numbers_are_masks_wherever_they_come_from(self, path):
        expected = load_acquisition(path)
        mask, (bvals, bvecs) = expected.brain.inside, self.table(path)
        given: Any
        for given in (mask.astype(np.uint8), mask.astype(">f4"), mask.tolist()):
            made = load_acquisition(nib.load(path), bvals, bvecs, given)
            self.same(made, expected)
            assert replace(made, given_mask=given).brain.inside.dtype == bool
            for other in (mask[1:], np.zeros_like(mask), np.where(mask, np.nan, 0)):
                with pytest.raises(UserError) as error:
                    replace(made, given_mask=other)
                assert error.value.field == "mask"

    def test_a_table_of_words_is_no_table(self, path):
        bvals, bvecs = self.table(path)
        words: Any = ["many"] * len(bvals)
        with pytest.raises(UserError, match="bval: is not a table of numbers"):
            load_acquisition(nib.load(path), words, bvecs)


def test_an_image_in_memory_stays_as_it_is(heads):
    """A trace image at its front moves no volume of the owner's array."""
    path = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    own, stem = nib.load(path), str(path).removesuffix(".nii.gz")
    values = np.asarray(own.dataobj, dtype=np.float32)
    b_values, vectors = np.loadtxt(f"{stem}.bval"), np.loadtxt(f"{stem}.bvec")
    trace = values[..., b_values > 0].mean(axis=-1, keepdims=True)
    image = nib.Nifti1Image(np.concatenate([trace, values], axis=-1), own.affine)
    table = np.insert(b_values, 0, 0), np.insert(vectors, 0, 0, axis=1)
    before = np.array(image.dataobj)
    mask = nib.load(f"{stem.removesuffix('_dwi')}_mask.nii.gz")
    for _ in range(2):
        acquisition = load_acquisition(image, *table, mask)
        assert acquisition.voxels.shape[-1] == len(b_values)
        assert [odd.volume for odd in acquisition.left_out] == [0]
        np.testing.assert_array_equal(np.asarray(image.dataobj), before)


class TestImagesOfNibabels:
    def test_images_of_other_formats_and_units(self, scan, tmp_path):
        made = scan()
        given = gradient_files(made.write(tmp_path))
        voxels = np.asarray(made.image.dataobj, dtype=np.float32)
        mgh = load_acquisition(nib.MGHImage(voxels, made.image.affine), *given)
        np.testing.assert_allclose(mgh.affine, made.image.affine, atol=1e-5)
        np.testing.assert_array_equal(mgh.voxels, voxels)
        microns = nib.Nifti1Image(voxels, np.diag([1e3, 1e3, 1e3, 1]) @ made.image.affine)
        microns.header.set_xyzt_units("micron")
        with pytest.warns(DoubtfulScan, match="microns were read as mm"):
            read = load_acquisition(microns, *given)
        np.testing.assert_allclose(read.affine[:3, :3], made.image.affine[:3, :3], rtol=1e-5)
        assert microns.header.get_xyzt_units()[0] == "micron"  # the given one stays as it is
        with pytest.raises(UserError, match="is a ndarray, which does not state where"):
            load_acquisition(voxels, *given)

    def test_b_tensors_that_are_not_linear(self, scan, tmp_path):
        made = scan()
        vectors = np.loadtxt(gradient_files(made.write(tmp_path))[1]).T
        linear, planar = (
            gradient_table(made.b_values, bvecs=vectors, btens=each) for each in ("LTE", "PTE")
        )
        assert len(load_acquisition(made.image, gradients=linear).given_gradients.shells) == 1
        with pytest.raises(UserError, match="planar, spherical"):
            load_acquisition(made.image, gradients=planar)
        with pytest.raises(UserError, match="both a gradient table and b-values"):
            load_acquisition(made.image, bval=made.b_values, gradients=linear)
