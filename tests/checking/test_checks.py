"""Checks of a dataset: each fault is told in its own words, a good dataset has none."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.alignment.registration import brain_image, estimate_displacement
from napari_msp.checking.comparisons import MISALIGNMENT_ACCURACY
from napari_msp.checking.dataset import check
from napari_msp.checking.summary import Finding, has_errors, report_text
from napari_msp.checking.table import table_text
from napari_msp.data.dataset import open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import write_scan
from napari_msp.data.phantom.subjects import draw_pose
from napari_msp.errors import Cancelled, Choose, Give, UserError

AFFINE = np.diag([2.4, 2.4, 2.4, 1.0])
SHAPE = (10, 9, 8)


def own(made, subject, platform):
    """Give a scan that is no other subject's or platform's: a little brighter."""
    brighter = 1 + 0.001 * int(subject) + 0.0001 * len(platform)
    signal = np.asarray(made.image.dataobj) * np.float32(brighter)
    return replace(made, image=nib.Nifti1Image(signal, made.image.affine))


def write(root, subject, platform, made, sidecar=True):
    """Put a scan of `conftest.make_scan` into a BIDS dataset; give its image."""
    session, protocol = platform.split("_")
    folder = root / f"sub-{subject}/ses-{session}/dwi"
    folder.mkdir(parents=True)
    stem = f"sub-{subject}_ses-{session}_acq-{protocol}"
    path = own(made, subject, platform).write(folder, stem=stem)
    if sidecar:
        path.with_name(path.name.replace("nii.gz", "json")).write_text('{"EchoTime": 0.089}')
    return path


@pytest.fixture
def dataset(tmp_path, scan):
    """A faultless subject on two platforms, one lattice."""
    made = scan(AFFINE, 45, shape=SHAPE)
    for platform in ("ge_st", "prisma_st"):
        write(tmp_path, "02", platform, made)
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


@pytest.fixture
def two_subjects(dataset, scan):
    """The same with another subject before it."""
    made = scan(AFFINE, 45, shape=SHAPE)
    for platform in ("ge_st", "prisma_st"):
        write(dataset, "01", platform, made)
    return dataset


def path_of(root, subject="02", platform="prisma_st", ending="nii.gz"):
    session, protocol = platform.split("_")
    name = f"sub-{subject}_ses-{session}_acq-{protocol}_dwi.{ending}"
    return root / f"sub-{subject}/ses-{session}/dwi" / name


def replace_scan(root, made, subject="02", platform="prisma_st"):
    """Write another scan in a scan's place."""
    folder = path_of(root, subject, platform).parent
    stem = path_of(root, subject, platform).name.removesuffix("_dwi.nii.gz")
    own(made, subject, platform).write(folder, stem=stem)


def found(root, severity=None, **options):
    findings = check(root, alignment=False, **{"input": "ge_st"} | options).findings
    return [f"{f.where}: {f.message()}" for f in findings if severity in (None, f.severity)]


def only(root, severity, *parts):
    """Require exactly one finding, of a severity, with these words."""
    findings = check(root, input="ge_st", alignment=False).findings
    assert [f.severity for f in findings] == [severity], report_text(findings)
    told = f"{findings[0].where}: {findings[0].message()}"
    for part in parts:
        assert part in told
    assert "\n" not in told


def test_a_good_dataset_has_no_findings(two_subjects):
    assert check(two_subjects, input="ge_st", alignment=False).findings == []
    assert report_text([]) == "Nothing to report.\n"


def test_everything_is_told_at_once(two_subjects):
    path_of(two_subjects, "01", "ge_st", "bvec").unlink()
    path_of(two_subjects, "01", "prisma_st").write_bytes(b"no image")
    path_of(two_subjects, "02", "ge_st", "bval").write_text("0 0 1200")
    path_of(two_subjects, ending="nii.gz").unlink()
    told = "\n".join(found(two_subjects, "error"))
    assert "sub-01_ses-ge_acq-st_dwi.bvec: is missing" in told
    assert "sub-01_ses-prisma_acq-st_dwi.nii.gz: is not a readable NIfTI" in told
    assert "sub-02_ses-ge_acq-st_dwi.bvec: has 3 rows" in told
    assert str(two_subjects) not in told


def test_no_dataset_at_all(tmp_path):
    findings = check(tmp_path, input="ge_st").findings
    assert has_errors(findings)
    assert "import" in findings[0].message()
    assert findings[0].where == str(tmp_path)


class TestScans:
    def test_missing_on_a_target(self, two_subjects):
        path_of(two_subjects).unlink()
        only(two_subjects, "warning", "sub-02", "no scan on prisma_st: training learns that target")

    def test_missing_on_the_input(self, two_subjects):
        path_of(two_subjects, platform="ge_st").unlink()
        only(two_subjects, "warning", "sub-02", "no scan on ge_st, the input")

    def test_badly_named(self, dataset):
        other = path_of(dataset).with_name("sub-02_ses_prisma_dwi.nii.gz")
        other.write_bytes(path_of(dataset).read_bytes())
        only(dataset, "warning", other.name, "is left out")

    def test_cut_short(self, dataset):
        path = path_of(dataset)
        path.write_bytes(path.read_bytes()[:-3000])
        only(dataset, "error", path.name, "voxels cannot be read")

    def test_not_finite(self, dataset):
        path = path_of(dataset)
        image = nib.load(path)
        voxels = image.get_fdata()
        voxels[4, 4, 4, 5] = np.nan
        nib.Nifti1Image(voxels.astype(np.float32), image.affine).to_filename(path)
        only(dataset, "error", path.name, "NaN or infinite")

    def test_echo_time_not_stated(self, dataset):
        path_of(dataset, ending="json").write_text(json.dumps({"RepetitionTime": 7.2}))
        only(dataset, "note", "sub-02_ses-prisma_acq-st_dwi.json", "EchoTime")

    @pytest.mark.parametrize("stated", ["89", "NaN"])
    def test_echo_time_that_is_none(self, dataset, stated):
        path_of(dataset, ending="json").write_text(f'{{"EchoTime": {stated}}}')
        only(dataset, "warning", "sub-02_ses-prisma_acq-st_dwi.json", "is not a time in seconds")

    def test_sidecar_that_is_no_json(self, dataset):
        path_of(dataset, ending="json").write_text("{")
        only(dataset, "error", "sub-02_ses-prisma_acq-st_dwi.json", "not valid JSON")

    def test_no_description(self, dataset):
        (dataset / "dataset_description.json").unlink()
        only(dataset, "warning", "dataset_description.json", "is missing")

    def test_no_such_input_platform(self, dataset):
        with pytest.raises(UserError) as refusal:
            check(dataset, input="philips_st", progress=lambda *_: pytest.fail("began"))
        assert refusal.value.remedy == Choose("input", ("ge_st", "prisma_st"))

    def test_an_input_platform_that_nothing_names(self, dataset):
        with pytest.raises(Cancelled):
            check(dataset, cancelled=lambda: True)
        checked = check(dataset)
        [finding] = checked.findings
        assert "platforms are not compared" in finding.problem
        assert finding.remedy == Choose("input", ("ge_st", "prisma_st"))
        assert [row["dropped_slices"] for row in checked.rows] == [0, 0]
        assert "Against" not in table_text(checked.rows, checked.input_platform)

    def test_the_input_platform_that_the_dataset_marks(self, dataset):
        mark = {"NapariMSP": {"InputPlatform": "prisma_st"}}
        (dataset / "dataset_description.json").write_text(json.dumps(mark))
        assert check(dataset, alignment=False).input_platform == "prisma_st"


class TestGradients:
    def test_no_b0(self, dataset):
        path = path_of(dataset, ending="bval")
        path.write_text(path.read_text().replace("0 0 ", "1200 1200 ", 1))
        vectors = np.loadtxt(path_of(dataset, ending="bvec"))
        vectors[:, :2] = vectors[:, 2:4]
        np.savetxt(path_of(dataset, ending="bvec"), vectors)
        only(dataset, "error", "no volume has b=0")

    def test_table_of_another_image(self, dataset, scan):
        folder = dataset / "other"
        folder.mkdir()
        scan(AFFINE, 30).write(folder)
        for ending in ("bval", "bvec"):
            path_of(dataset, ending=ending).write_bytes(
                (folder / f"sub-01_dwi.{ending}").read_bytes()
            )
        only(dataset, "error", "gradient table has 32 rows")

    def test_another_b_value(self, dataset, scan):
        replace_scan(dataset, scan(AFFINE, 45, b_values=(1000.0,), shape=SHAPE))
        only(dataset, "error", "b = 1000", "input platform has 1200")

    def test_nearly_the_same_b_value(self, dataset, scan):
        replace_scan(dataset, scan(AFFINE, 45, b_values=(1195.0,), shape=SHAPE))
        assert found(dataset) == []

    def test_several_shells(self, two_subjects, scan):
        root, both = two_subjects, scan(AFFINE, 45, b_values=(1200.0, 3000.0), shape=SHAPE)
        replace_scan(root, both)
        only(root, "warning", "ses-prisma", "b = 3000 s/mm², which the input", "give 1200")
        replace_scan(root, both, platform="ge_st")
        only(
            root, "warning", "ses-ge", "b = 3000 s/mm², which other scans do not have", "give 1200"
        )
        [finding] = check(root, input="ge_st", alignment=False).findings
        assert finding.remedy == Give("b_value", "1200")

    def test_chained_b_values(self, dataset, scan):
        steps = tuple(float(b) for b in range(1100, 1301, 50))
        replace_scan(dataset, scan(AFFINE, 30, b_values=steps, shape=SHAPE))
        only(dataset, "error", "run from 1100 to 1300", "no shell")

    def test_too_few_directions(self, dataset, scan):
        replace_scan(dataset, scan(AFFINE, 20, shape=SHAPE))
        only(dataset, "error", "has 20 directions", "needs 28")

    def test_directions_that_hardly_differ(self, dataset, scan):
        along = np.tile([[0.6, 0.0, 0.8]], (45, 1))
        replace_scan(dataset, scan(AFFINE, along, shape=SHAPE))
        only(dataset, "error", "the directions of b = 1200 hardly differ")

    @pytest.mark.parametrize(
        ("directions", "why"),
        [
            ([(np.cos(a), np.sin(a), 0) for a in np.linspace(0, 3, 45)], "lie in one plane"),
            ([(np.cos(a), np.sin(a), 1) for a in np.linspace(0, 6, 45)], "are too similar"),
        ],
    )
    def test_directions_that_are_too_poor(self, dataset, scan, directions, why):
        units = np.array(directions) / np.linalg.norm(directions, axis=1, keepdims=True)
        replace_scan(dataset, scan(AFFINE, units, shape=SHAPE))
        only(
            dataset,
            "error",
            f"the directions of b = 1200 {why}",
            "28 directions or more that are spread",
        )

    def test_near_duplicates(self, dataset, scan, spread_out):
        directions = spread_out(16)
        rng = np.random.default_rng(0)
        twins = directions + 0.01 * rng.normal(size=directions.shape)
        twins /= np.linalg.norm(twins, axis=1, keepdims=True)
        scheme = np.concatenate([directions, twins])
        replace_scan(dataset, scan(AFFINE, scheme, shape=SHAPE))
        only(dataset, "warning", "ill-conditioned at SH order 6", "supports order 4")


class TestMasks:
    def mask(self, dataset, change):
        path = path_of(dataset)
        path = path.with_name(path.name.replace("_dwi", "_mask"))
        image = nib.load(path)
        mask = np.asarray(image.dataobj).copy()
        change(mask)
        nib.Nifti1Image(mask, image.affine).to_filename(path)

    def test_empty(self, dataset):
        self.mask(dataset, lambda mask: mask.fill(0))
        only(dataset, "error", "no voxel is inside")

    def test_full(self, dataset):
        self.mask(dataset, lambda mask: mask.fill(1))
        only(dataset, "warning", "contains every voxel")

    def test_holes(self, dataset):
        def dig(mask):
            mask[4:7, 3:5, 3:6] = 0

        self.mask(dataset, dig)
        only(dataset, "warning", "holes (18 voxels)")

    def test_pieces(self, dataset):
        def cut(mask):
            mask[5] = 0

        self.mask(dataset, cut)
        only(dataset, "warning", "in 2 pieces", "50 %")

    def test_another_lattice(self, dataset):
        path = path_of(dataset)
        path = path.with_name(path.name.replace("_dwi", "_mask"))
        nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)).to_filename(path)
        only(dataset, "error", "its voxel grid is not the image's")

    def test_several(self, dataset):
        path = path_of(dataset)
        beside = path.with_name(path.name.replace("_dwi", "_mask"))
        for name in ("one", "two"):
            folder = dataset / "derivatives" / name
            inside = folder / path.parent.relative_to(dataset)
            inside.mkdir(parents=True)
            (folder / "dataset_description.json").write_text("{}")
            target = inside / path.name.replace("_dwi", "_desc-brain_mask")
            target.write_bytes(beside.read_bytes())
        beside.unlink()
        only(dataset, "error", "several files may be its brain mask")


class TestIntensities:
    def voxels(self, dataset, change):
        image = nib.load(path_of(dataset))
        voxels = image.get_fdata(dtype=np.float32)
        change(voxels)
        nib.Nifti1Image(voxels, image.affine).to_filename(path_of(dataset))

    def test_weighted_signal_above_b0(self, dataset):
        def brighten(voxels):
            voxels[..., 2:20] *= 10

        self.voxels(dataset, brighten)
        only(dataset, "warning", "above b=0", "40 %")

    def test_no_signal_inside_the_mask(self, dataset):
        def blank(voxels):
            voxels[2, 2] = 0

        self.voxels(dataset, blank)
        only(dataset, "warning", "voxels of the mask (1.4 %) have no signal")

    def test_voxels_that_some_volumes_lack(self, dataset):
        def cut(voxels):
            voxels[2, 2, :, 3] = voxels[2, 3, :, 0] = 0
            voxels[5::2, 5::2, ::2, 5] = 0  # as corrections for noise leave them

        self.voxels(dataset, cut)
        only(dataset, "warning", "3 % of the mask is 0 in some volumes")


class TestContradictions:
    """What loading warns of is a finding, and nothing stops the rest."""

    def change(self, dataset, change):
        image = nib.load(path_of(dataset))
        nib.Nifti1Image(*change(image.get_fdata(dtype=np.float32), image.affine)).to_filename(
            path_of(dataset)
        )

    def test_a_blank_volume_is_left_out(self, dataset):
        def blank(voxels, affine):
            voxels[..., 7] = 0
            return voxels, affine

        self.change(dataset, blank)
        only(dataset, "warning", "left out: volume 7, b = 1200 but empty")
        (row,) = [
            row
            for row in check(dataset, input="ge_st", alignment=False).rows
            if (row["subject"], row["platform"]) == ("sub-02", "prisma_st")
        ]
        assert row["directions"] == 44

    def test_no_b0_is_left(self, dataset):
        def blank(voxels, affine):
            voxels[..., :2] = 0
            return voxels, affine

        self.change(dataset, blank)
        only(dataset, "error", "b=0 image has no value above 0 (volumes 0 and 1, b = 0 but empty)")

    def test_a_header_that_contradicts_itself(self, dataset):
        image = nib.load(path_of(dataset))
        moved = image.affine.copy()
        moved[0, 3] += 5
        image.set_qform(moved, 1)
        image.to_filename(path_of(dataset))
        only(dataset, "warning", "sform and qform differ by up to 5.0 mm and 0.0°")

    def test_b0_at_60(self, dataset):
        for platform in ("ge_st", "prisma_st"):
            bval = path_of(dataset, platform=platform, ending="bval")
            values = np.loadtxt(bval)
            np.savetxt(bval, np.where(values == 0, 60, values)[None], fmt="%g")
        assert any("no volume has b" in each for each in found(dataset, "error"))
        assert found(dataset, "error", b0_threshold=60) == []


class TestLattices:
    def test_node_aligned_and_twice_as_fine(self, dataset, scan):
        fine = Lattice(SHAPE, AFFINE).refined(2)
        write(dataset, "02", "connectom_sa", scan(fine.affine, 45, shape=fine.shape))
        assert found(dataset) == []

    def test_pixel_shuffle_lattice(self, dataset, scan):
        """Twice the voxels over the same extent lie a quarter of a voxel off."""
        affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
        affine[:3, 3] -= 0.6
        replace_scan(dataset, scan(affine, 45, shape=(20, 18, 16)))
        only(dataset, "warning", "not on the voxel grid", "20 × 18 × 16 voxels, not 19 × 17 × 15")

    def test_shifted(self, dataset, scan):
        affine = AFFINE.copy()
        affine[0, 3] += 0.6
        replace_scan(dataset, scan(affine, 45, shape=SHAPE))
        only(dataset, "warning", "up to 0.25 voxels away")

    def test_stored_in_another_order(self, dataset, scan):
        flipped = scan(AFFINE, 45, shape=SHAPE).stored_along(np.array([[1, -1], [0, 1], [2, -1]]))
        replace_scan(dataset, flipped)
        assert found(dataset) == []

    def test_no_whole_number(self, dataset, scan):
        replace_scan(dataset, scan(np.diag([1.7, 1.7, 1.7, 1.0]), 45, shape=(14, 12, 11)))
        only(dataset, "error", "ge_st to prisma_st", "1.7 × 1.7 × 1.7")

    def test_anisotropic(self, dataset, scan):
        replace_scan(dataset, scan(np.diag([2.4, 2.4, 2.9, 1.0]), 45, shape=SHAPE))
        told = found(dataset, "error")
        assert any("2.40 × 2.40 × 2.90 mm" in line for line in told)


# --- Alignment -------------------------------------------------------------------------------

MISALIGNMENT = 2.0


@pytest.fixture(scope="module")
def travelled():
    """One simulated head, moved on prisma_st and connectom_sa; few directions, for speed."""
    quick = tuple(
        replace(platform, directions=12, b0_volumes=2)
        for platform in PLATFORMS
        if platform.name != "connectom_st"
    )
    return {
        scan.platform.name: scan
        for scan in simulate_subject(0, quick, "tiny", 0, misalignment=MISALIGNMENT)
    }


@pytest.fixture(scope="module")
def travelled_dataset(travelled, tmp_path_factory):
    root = tmp_path_factory.mktemp("travelled")
    for scan in travelled.values():
        write_scan(root, scan, noise_free=False)
    return root


def brain_of(root, platform):
    acquisition = open_dataset(root).acquisition("sub-01", platform)
    return brain_image(acquisition, acquisition.shell())


def points_of(brain):
    return np.argwhere(brain.mask) @ brain.lattice.affine[:3, :3].T + brain.lattice.affine[:3, 3]


@pytest.mark.parametrize("platform", ["prisma_st", "connectom_sa"])
def test_known_misalignment_is_measured(travelled, travelled_dataset, platform):
    number = travelled[platform].platform.number
    pose = draw_pose(MISALIGNMENT, np.random.default_rng([0, 0, 1, number]))
    np.testing.assert_allclose(
        pose.shift, travelled[platform].pose.shift
    )  # that is what was simulated

    fixed = brain_of(travelled_dataset, "ge_st")
    displacement = estimate_displacement(fixed, brain_of(travelled_dataset, platform))

    points = points_of(fixed)
    truth = pose.from_head(points.T).T
    error = np.linalg.norm(displacement.apply(points) - truth, axis=1).mean()
    assert error < MISALIGNMENT_ACCURACY
    mean = np.linalg.norm(truth - points, axis=1).mean()
    assert mean > 1.2  # so that an estimate of zero fails
    assert displacement.mean == pytest.approx(mean, abs=MISALIGNMENT_ACCURACY)
    assert displacement.correlation > 0.97


@pytest.mark.parametrize(("distance", "angle"), [(0.0, 0.0), (8.0, 8.0)])
def test_a_moved_header_is_measured(travelled_dataset, distance, angle):
    """The same scan, put elsewhere by its affine: nothing but the motion differs."""
    brain = brain_of(travelled_dataset, "ge_st")
    points = points_of(brain)
    centre = points.mean(axis=0)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0, 0.8])).as_matrix()
    shift = distance * np.array([0.0, 0.6, -0.8])
    motion[:3, 3] = centre - motion[:3, :3] @ centre + shift
    moved = replace(brain, lattice=Lattice(brain.lattice.shape, motion @ brain.lattice.affine))

    displacement = estimate_displacement(brain, moved)

    truth = points @ motion[:3, :3].T + motion[:3, 3]
    assert np.linalg.norm(displacement.apply(points) - truth, axis=1).max() < 0.02
    assert displacement.angle == pytest.approx(angle, abs=0.02)
    np.testing.assert_allclose(displacement.shift, shift, atol=0.02)


def test_a_head_at_the_other_end_of_the_room_is_found(travelled_dataset):
    brain = brain_of(travelled_dataset, "ge_st")
    away = brain.lattice.affine.copy()
    away[0, 3] += 500
    found = estimate_displacement(brain, replace(brain, lattice=Lattice(brain.lattice.shape, away)))
    np.testing.assert_allclose(found.shift, [500, 0, 0], atol=0.02)
    assert found.angle == pytest.approx(0, abs=0.02)


def test_brains_that_share_too_little(travelled_dataset):
    brain = brain_of(travelled_dataset, "ge_st")
    crumb = np.zeros_like(brain.mask)
    crumb[4:9, 4:9, 4:9] = True
    with pytest.raises(UserError, match="overlap too little"):
        estimate_displacement(brain, replace(brain, mask=crumb))


def test_the_check_warns_of_misalignment_and_of_nothing_else(travelled_dataset):
    findings = [
        finding
        for finding in check(travelled_dataset, input="ge_st").findings
        if "needs 28" not in finding.message()  # twelve directions are the fixture's choice
        and finding.where != "dataset_description.json"
        and "BIDS asks" not in finding.message()
    ]
    assert [(f.severity, f.where) for f in findings] == [
        ("warning", "sub-01 connectom_sa"),
        ("warning", "sub-01 prisma_st"),
    ]
    assert all("more than 0.5 voxel" in f.message() for f in findings)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_b_vectors_are_found(travelled, tmp_path, axis):
    for platform in ("ge_st", "prisma_st"):
        write_scan(tmp_path, travelled[platform], noise_free=False)
    bvec = path_of(tmp_path, "01", ending="bvec")
    vectors = np.loadtxt(bvec)
    vectors[axis] *= -1
    np.savetxt(bvec, vectors)
    told = [f for f in check(tmp_path, input="ge_st").findings if "mirrored" in f.message()]
    assert [(f.severity, f.where) for f in told] == [("error", "sub-01 prisma_st")]
    assert f"{'xyz'[axis]} is mirrored" in told[0].message()


# --- Report ----------------------------------------------------------------------------------


def test_the_report_puts_the_gravest_first_and_equal_messages_together():
    findings = [
        Finding("note", "c.json", "EchoTime is not stated"),
        Finding("warning", "b.nii.gz", "the mask has holes"),
        Finding("error", "a.bvec", "is missing"),
        Finding("note", "d.json", "EchoTime is not stated"),
    ]
    assert report_text(findings).splitlines() == [
        "1 error, 1 warning, 2 notes",
        "",
        "Errors",
        "  a.bvec: is missing",
        "",
        "Warnings",
        "  b.nii.gz: the mask has holes",
        "",
        "Notes",
        "  EchoTime is not stated",
        "      c.json",
        "      d.json",
    ]
    assert has_errors(findings)
    assert not has_errors(findings[:2])
