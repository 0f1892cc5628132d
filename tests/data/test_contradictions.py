"""What contradicts itself in a header or between files: told, with its size and what is used."""

import gzip
import json
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.data.contradictions import header_doubts, shear
from napari_msp.data.gradients import scanner_to_image_axes
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import UserError

GOOD = np.array([[-2.0, 0, 0, 7], [0, 2, 0, -11], [0, 0, 2.5, 3], [0, 0, 0, 1]])


def write(path, change: Callable[[nib.Nifti1Image], object] | None = None, raw=()):
    """Write an image with good forms, changed; `raw` fields are put in past nibabel's checks."""
    image = nib.Nifti1Image(np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4), GOOD)
    image.set_qform(GOOD, 1)
    image.set_sform(GOOD, 1)
    image.header.set_xyzt_units("mm", "sec")
    if change is not None:
        change(image)
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    offsets = {"scl_slope": 112, "scl_inter": 116, "srow_x": 280, "quatern_b": 256, "pixdim": 80}
    for field, values in raw:
        data = np.asarray(values, "<f4").tobytes()
        content[offsets[field] : offsets[field] + len(data)] = data
    path.write_bytes(content)
    return path


def turned(degrees, shift=0.0):
    affine = GOOD.copy()
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[0, 3] += shift
    return affine


def sheared(degrees):
    affine = GOOD.copy()
    affine[0, 1] = 2 * np.tan(np.radians(degrees))
    return affine


ZERO, NAN = np.zeros(12), np.full(12, np.nan)

TABLE = {
    "nothing": (None, (), [], GOOD),
    "an empty sform": (None, [("srow_x", ZERO)], ["its sform is empty, the qform is used"], GOOD),
    "an sform of NaN": (None, [("srow_x", NAN)], ["sform is empty, the qform is used"], GOOD),
    "a flat sform": (
        None,
        [("srow_x", np.diag([2.0, 2, 0, 1])[:3].ravel())],
        ["its sform is not usable, the qform is used"],
        GOOD,
    ),
    "a qform of NaN": (None, [("quatern_b", [np.nan] * 3)], [], GOOD),
    "forms that differ by a shift": (
        lambda i: i.set_sform(turned(0, 3), 1),
        (),
        ["sform and qform differ by up to 3.0 mm and 0.0°; the sform is used"],
        turned(0, 3),
    ),
    "forms that differ by a turn": (
        lambda i: i.set_sform(turned(5), 2),
        (),
        ["mm and 5.0°; the sform is used"],
        turned(5),
    ),
    "forms that differ by less than rounding": (
        lambda i: i.set_sform(turned(0, 0.05), 1),
        (),
        [],
        turned(0, 0.05),
    ),
    "forms that differ in spacing": (
        lambda i: i.set_sform(GOOD @ np.diag([1, 1, 1.2, 1]), 1),
        (),
        ["voxels 2 × 2 × 3 against 2 × 2 × 2.5 mm", "2 × 2 × 2.5 mm in pixdim but 2 × 2 × 3"],
        GOOD @ np.diag([1, 1, 1.2, 1]),
    ),
    "forms that are mirror images": (
        lambda i: i.set_sform(np.diag([-1.0, 1, 1, 1]) @ GOOD, 1),
        (),
        ["sform and qform disagree about left and right; the sform is used"],
        np.diag([-1.0, 1, 1, 1]) @ GOOD,
    ),
    "no orientation": (
        lambda i: (i.set_sform(GOOD, 0), i.set_qform(GOOD, 0)),
        (),
        ["states no orientation (sform and qform codes are 0): LAS is assumed"],
        None,
    ),
    "a shear": (
        lambda i: (i.set_sform(sheared(6), 1), i.set_qform(None, 0)),
        (),
        ["sheared by 6.0°"],
        sheared(6),
    ),
    "voxels of 2 m": (
        lambda i: (i.set_sform(np.diag([-2000.0, 2000, 2000, 1]), 1), i.set_qform(None, 0)),
        [("pixdim", [2000, 2000, 2000])],
        ["voxels of 2000 × 2000 × 2000 mm do not fit a brain scan"],
        np.diag([-2000.0, 2000, 2000, 1]),
    ),
    "micrometres": (
        lambda i: (
            i.set_qform(np.diag([1000.0, 1000, 1000, 1]) @ GOOD, 1),
            i.set_sform(np.diag([1000.0, 1000, 1000, 1]) @ GOOD, 1),
            i.header.set_xyzt_units("micron", "sec"),
        ),
        (),
        ["voxels of 2000 × 2000 × 2500 microns were read as mm"],
        GOOD,
    ),
    "metres, qform alone": (
        lambda i: (
            i.set_qform(np.diag([0.001, 0.001, 0.001, 1]) @ GOOD, 1),
            i.set_sform(None, 0),
            i.header.set_xyzt_units("meter", "sec"),
        ),
        (),
        ["voxels of 0.002 × 0.002 × 0.0025 meters were read as mm"],
        GOOD,
    ),
    "micrometres that are mm": (
        lambda i: i.header.set_xyzt_units("micron", "sec"),
        (),
        ["lengths in microns, but 2 × 2 × 2.5 is read as mm"],
        GOOD,
    ),
    "no unit": (lambda i: i.header.set_xyzt_units("unknown", "unknown"), (), [], GOOD),
    "a slope of NaN": (
        None,
        [("scl_slope", [np.nan]), ("scl_inter", [0])],
        ["slope is not a number"],
        GOOD,
    ),
    "a slope of 0": (None, [("scl_slope", [0])], [], GOOD),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_contradicts_itself_in_a_header(tmp_path, case):
    change, raw, said, affine = TABLE[case]
    image = open_nifti(write(tmp_path / "i.nii", change, raw))
    doubts = list(header_doubts(image))
    assert len(doubts) == len(said), doubts
    for words, doubt in zip(said, sorted(doubts, key=lambda d: "in pixdim" in d), strict=True):
        assert words in doubt
    if affine is not None:
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    # The voxels are those that are stored, whatever the slope.
    np.testing.assert_array_equal(np.asarray(image.dataobj).ravel()[:4], [0, 1, 2, 3])


@pytest.mark.parametrize(("raw", "says"), [(ZERO, "singular"), (NAN, "singular")])
def test_without_a_usable_form_it_is_refused(tmp_path, raw, says):
    path = write(tmp_path / "i.nii", lambda i: i.set_qform(None, 0), [("srow_x", raw)])
    with pytest.raises(UserError, match=says):
        open_nifti(path)


@pytest.mark.parametrize("degrees", [0, 2, 11])
def test_shear_is_measured_in_degrees(degrees):
    assert shear(sheared(degrees)) == pytest.approx(degrees, abs=1e-6)


class TestScans:
    """The same through `load_acquisition`: warned of once, and kept."""

    @pytest.fixture
    def path(self, tmp_path, scan):
        return scan("oblique", directions=30).write(tmp_path)

    def doubts(self, path, **options):
        with pytest.warns(DoubtfulScan) as warned:
            acquisition = load_acquisition(path, **options)
        assert [each.message for each in warned] == list(acquisition.first_doubts)
        assert {each.subject for each in acquisition.first_doubts} == {str(path)}
        return tuple(each.words for each in acquisition.first_doubts)

    def test_an_empty_sform(self, path):
        image = nib.load(path)
        expected = load_acquisition(path)
        image.set_qform(image.affine, 1)
        image.to_filename(path)
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[280:328] = bytes(48)  # srow_x, srow_y and srow_z
        path.write_bytes(gzip.compress(content))
        assert self.doubts(path) == ("its sform is empty, the qform is used",)
        with pytest.warns(DoubtfulScan):
            found = load_acquisition(path)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
        np.testing.assert_allclose(
            found.gradients.directions, expected.gradients.directions, atol=1e-5
        )

    @pytest.mark.parametrize("where", [3, 4])
    def test_an_empty_axis(self, path, where):
        image = nib.load(path)
        values = np.expand_dims(np.asarray(image.dataobj), where)
        nib.Nifti1Image(values, image.affine).to_filename(path)
        with pytest.raises(UserError, match=r"has 5 axes.*remove axes of length 1 \(8 × 7 × 6 ×"):
            load_acquisition(path)

    def test_volumes_behind_one_another(self, path):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        stacked = np.moveaxis(values, 3, 2).reshape(*values.shape[:2], -1)
        nib.Nifti1Image(stacked, image.affine).to_filename(path)
        with pytest.raises(UserError, match=r"3 axes.*stacked along the third"):
            load_acquisition(path)

    @pytest.mark.parametrize(
        ("rows", "says"), [(31, "append a trace"), (33, "was removed or lost")]
    )
    def test_one_row_too_few_or_too_many(self, path, rows, says):
        path.with_name("sub-01_dwi.bval").write_text("0 " + "1000 " * (rows - 1))
        with pytest.raises(UserError, match=says):
            load_acquisition(path)

    @pytest.mark.parametrize("names", [("sub-01.bval", "sub-01.bvec"), ("bvals", "bvecs")])
    def test_another_table_beside_it(self, path, names):
        given = [path.with_name(f"sub-01_dwi.{kind}") for kind in ("bval", "bvec")]
        others = [path.with_name(name) for name in names]
        for one, other in zip(given, others, strict=True):
            other.write_bytes(one.read_bytes())
        assert load_acquisition(path).first_doubts == ()  # it says the same
        others[0].write_text(given[0].read_text().replace("1200", "2400", 1))
        (doubt,) = self.doubts(path)
        assert doubt == (
            f"{names[0]} and {names[1]} disagree (volume 2 b = 2400 instead of 1200); "
            "sub-01_dwi.bval is used"
        )
        turned = Rotation.from_euler("x", 10, degrees=True).apply(np.loadtxt(given[1]).T)
        others[0].write_bytes(given[0].read_bytes())
        np.savetxt(others[1], turned.T)
        (doubt,) = self.doubts(path)
        assert "directions by up to 10°" in doubt
        # A table that was named is meant.
        assert load_acquisition(path, bval=given[0], bvec=given[1]).first_doubts == ()

    @pytest.mark.parametrize(
        ("name", "whose"),
        [
            ("sub-01_dwi.b", "its own"),
            ("grad.txt", "its own"),
            ("sub-01_dwi_rotated.bvec", "its own"),
            ("eddy_unwarped_images.eddy_rotated_bvecs", "its own"),
            ("sub-02_dwi_rotated.bvec", "another's"),
        ],
    )
    def test_turned_b_vectors_left_aside(self, path, name, whose):
        known = load_acquisition(path)
        turned = Rotation.from_euler("x", 15, degrees=True).apply(known.gradients.directions)
        other = path.with_name(name)
        if name.endswith((".b", ".txt")):
            np.savetxt(other, np.column_stack([turned, known.gradients.b_values]))
        else:
            np.savetxt(other, scanner_to_image_axes(turned, known.affine).T)
        if whose == "another's":
            path.with_name("sub-02_dwi.nii.gz").write_bytes(path.read_bytes())
            assert load_acquisition(path).first_doubts == ()
            return
        (doubt,) = self.doubts(path)
        assert doubt.startswith(f"{name} disagrees (directions by up to 15°); sub-01_dwi.b")

    @pytest.mark.parametrize(
        ("field", "change", "says"),
        [
            ("dw_scheme", lambda rows: rows, None),
            ("dw_scheme", lambda rows: rows * [1, 1, 1, 2], "volume 2 b = 2400 instead of 1200"),
            ("DiffusionScheme", lambda rows: rows[:, [1, 0, 2, 3]], "directions by up to"),
            ("DiffusionScheme", lambda rows: "Bipolar", None),
            ("bvals", lambda rows: rows[:, 3], None),
            ("BValues", lambda rows: rows[1:, 3], "31 rows instead of 32"),
        ],
    )
    def test_a_sidecar_that_says_otherwise(self, path, field, change, says):
        table = load_acquisition(path).gradients
        rows = np.column_stack([table.directions, table.b_values])
        content = change(rows)
        content = content.tolist() if isinstance(content, np.ndarray) else content
        path.with_name("sub-01_dwi.json").write_text(json.dumps({field: content}))
        if says is None:
            assert load_acquisition(path).first_doubts == ()
            return
        (doubt,) = self.doubts(path)
        assert doubt.startswith(f"{field} in its sidecar disagrees ({says}")

    def test_a_sidecar_that_cannot_be_read(self, path):
        path.with_name("sub-01_dwi.json").write_bytes(b"")
        (doubt,) = self.doubts(path)
        assert doubt.startswith("its sidecar is not valid JSON (")

    @pytest.mark.parametrize("brightest", [30_000, 34_000])
    def test_numbers_beyond_int16(self, path, brightest):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        stored = (
            (values * (brightest / values.max())).astype(np.int64).astype(np.uint16).view(np.int16)
        )
        nib.Nifti1Image(stored, image.affine).to_filename(path)
        acquisition = load_acquisition(path)
        said = [each.words for each in acquisition.reading.doubts if "int16" in each.words]
        assert len(said) == (brightest > 32_767)
        for words in said:
            assert words.startswith(
                f"{int((stored < 0).sum()):,} values are negative, down to -32,"
            )
