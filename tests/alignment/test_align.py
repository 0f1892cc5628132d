"""Heads laid on each other: where they lie, what stays as it was, and what other tools read."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import napari_msp as msp
from napari_msp.alignment.moving import carry_deviation, interpolate_scan, move_scan
from napari_msp.alignment.report import distance_text, report_html
from napari_msp.bids import DESCRIPTION, dataset_description, nifti_stem
from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import write_scan
from napari_msp.data.phantom.subjects import draw_pose
from napari_msp.errors import Cancelled, Choose, Overwrite, Resample, RunJob, UserError
from napari_msp.files import write_json
from napari_msp.provenance import missing_steps

MISALIGNMENT = 6.0
"""Shift in mm; the turn is 5.7°."""

TARGETS = ("prisma_st", "connectom_sa")


@pytest.fixture(scope="module")
def travelled(tmp_path_factory):
    """One simulated head, moved on two platforms; few directions, for speed."""
    root = tmp_path_factory.mktemp("travelled")
    quick = tuple(
        replace(platform, directions=12, b0_volumes=2)
        for platform in PLATFORMS
        if platform.name != "connectom_st"
    )
    for scan in simulate_subject(0, quick, "tiny", 0, misalignment=MISALIGNMENT):
        write_scan(root, scan)
    about = dataset_description("Travelled", derivative=False, input_platform="ge_st")
    write_json(root / DESCRIPTION, about)
    return root


@pytest.fixture(scope="module")
def aligned(travelled, tmp_path_factory):
    return msp.align(travelled, tmp_path_factory.mktemp("aligned") / "by_affine")


@pytest.fixture(scope="module")
def resampled(travelled, tmp_path_factory):
    return msp.align(travelled, tmp_path_factory.mktemp("aligned") / "images", resample=True)


def scan_of(root: Path, platform: str) -> Path:
    session, protocol = platform.split("_")
    name = f"sub-01_ses-{session}_acq-{protocol}_dwi.nii.gz"
    return root / "sub-01" / f"ses-{session}" / "dwi" / name


def motion_of(root: Path, platform: str, kind: str = "_desc-mrtrix") -> Path:
    scan = scan_of(root, platform)
    between = f"from-{platform.replace('_', '')}_to-gest_mode-image{kind}_xfm.txt"
    return scan.with_name(scan.name.replace("dwi.nii.gz", between))


def true_motion(platform: str) -> np.ndarray:
    number = [each.name for each in PLATFORMS].index(platform)
    pose = draw_pose(MISALIGNMENT, np.random.default_rng([0, 0, 1, number]))
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = pose.rotation, pose.shift
    return motion


def brain_points(root: Path) -> np.ndarray:
    scan = open_dataset(root).acquisition("sub-01", "ge_st")
    indices = np.argwhere(scan.mask)
    return np.column_stack(
        [indices @ scan.affine[:3, :3].T + scan.affine[:3, 3], np.ones(len(indices))]
    )


# --- Where heads lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("platform", TARGETS)
def test_heads_lie_on_each_other(travelled, aligned, platform):
    points = brain_points(travelled)
    found = np.loadtxt(motion_of(aligned.out, platform))
    error = np.linalg.inv(found) @ true_motion(platform)
    apart = np.linalg.norm((points @ error.T - points)[:, :3], axis=1).mean() / 2.4
    assert apart < 0.1
    assert np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) < 0.5
    moved = np.linalg.norm((points @ true_motion(platform).T - points)[:, :3], axis=1).mean()
    assert moved > 3  # so that doing nothing fails


@pytest.mark.parametrize("kind", ["aligned", pytest.param("resampled", marks=pytest.mark.slow)])
def test_the_check_finds_them_aligned(kind, request):
    done = request.getfixturevalue(kind)
    checked = msp.check(done.out)
    doubts = {"misaligned", "unlike input", "not aligned", "lattice", "mirrored", "voxel size"}
    assert [each for each in checked.findings if each.flag in doubts] == []
    away = [row["displacement_voxels"] or 9 for row in checked.rows if row["platform"] != "ge_st"]
    assert len(away) == 2
    assert max(away) < 0.15
    before = [scan.before.distance or 0 for scan in done.scans if scan.before]
    assert min(before) > 1.5


# --- By affines alone --------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["ge_st", *TARGETS])
def test_no_voxel_and_no_number_of_the_table_is_touched(travelled, aligned, platform):
    before, after = (scan_of(each, platform) for each in (travelled, aligned.out))
    images = [nib.load(each) for each in (before, after)]
    assert images[0].get_data_dtype() == images[1].get_data_dtype() == np.int16
    np.testing.assert_array_equal(*(image.dataobj.get_unscaled() for image in images))
    for ending in ("bval", "bvec"):
        tables = [each.with_name(each.name.replace("nii.gz", ending)) for each in (before, after)]
        assert tables[0].read_bytes() == tables[1].read_bytes()
    masks = [
        open_dataset(each).acquisition("sub-01", platform).mask for each in (travelled, aligned.out)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])


@pytest.mark.parametrize("platform", TARGETS)
def test_both_forms_of_the_header_say_where_it_lies(travelled, aligned, platform):
    before, after = (nib.load(scan_of(each, platform)) for each in (travelled, aligned.out))
    motion = np.loadtxt(motion_of(aligned.out, platform))
    wanted = np.linalg.inv(motion) @ before.affine
    for form, code in (after.get_sform(coded=True), after.get_qform(coded=True)):
        np.testing.assert_allclose(form, wanted, atol=1e-4)
        assert code == 2  # NIFTI_XFORM_ALIGNED_ANAT


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the forms
def test_slopes_and_disagreeing_forms(tmp_path, scan):
    """Integers with a slope stay what they are; an old qform does not survive."""
    made = scan("oblique", 30)
    path = made.write(tmp_path)
    stored = nib.Nifti1Image(np.rint(made.image.get_fdata()).astype(np.int16), made.image.affine)
    stored.header.set_slope_inter(0.5, 3.0)
    stored.set_sform(made.image.affine, 1)
    stored.set_qform(np.diag([2.0, 2.0, 2.5, 1.0]), 1)
    stored.to_filename(path)
    acquisition = load_acquisition(path)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", [4, -7, 11], degrees=True).as_matrix()
    motion[:3, 3] = [3, -2, 5]
    placed = move_scan(acquisition, motion)
    out = tmp_path / "out"
    out.mkdir()
    placed.write(out / path.name, out / "mask.nii.gz")
    again = nib.load(out / path.name)
    np.testing.assert_array_equal(
        again.dataobj.get_unscaled(), acquisition.image.dataobj.get_unscaled()
    )
    assert (again.dataobj.slope, again.dataobj.inter) == (0.5, 3.0)
    np.testing.assert_allclose(again.get_qform(), again.get_sform(), atol=1e-4)
    turned = load_acquisition(out / path.name, mask=out / "mask.nii.gz").gradients.directions
    wanted = acquisition.gradients.directions @ motion[:3, :3]  # undoes the turn
    np.testing.assert_allclose(turned, wanted, atol=1e-5)


def test_hcps_grad_dev_goes_where_its_scan_goes(tmp_path, scan):
    path = scan("oblique", 30).write(tmp_path)
    shape = (*nib.load(path).shape[:3], 9)
    matrices = np.broadcast_to(np.diag([0.02, 0.02, 0.02]).ravel(), shape).astype(np.float32)
    deviation = nib.Nifti1Image(matrices, nib.load(path).affine)
    deviation.to_filename(path.with_name("grad_dev.nii.gz"))
    acquisition = load_acquisition(path)
    assert (
        "grad_dev.nii.gz is not used: without it, b is off by 4.0 %"
        in acquisition.reading.deviation
    )
    placed = move_scan(acquisition, true_motion("prisma_st"))
    out = tmp_path / "out" / path.name
    out.parent.mkdir()
    placed.write(out)
    note = carry_deviation(out, acquisition, placed)["GradientDeviation"]
    assert (note["File"], note["Used"]) == ("sub-01_grad_dev.nii.gz", False)
    said = load_acquisition(out).reading.deviation
    assert "sub-01_grad_dev.nii.gz is not used: without it, b is off by 4.0 %" in said
    interpolated = replace(placed, clipped=0.0)
    note = carry_deviation(out, acquisition, interpolated)["GradientDeviation"]
    assert note["File"] is None
    assert "b is off by 4.0 %" in note["Description"]
    assert "not copied" in note["Description"]


@pytest.mark.parametrize("volumes", [9, 8], ids=["it lies elsewhere", "and is none"])
def test_a_grad_dev_of_another_image_does_not_become_its_own(tmp_path, scan, volumes):
    path = scan("oblique", 30).write(tmp_path)
    affine = nib.load(path).affine.copy()
    affine[0, 3] += 40
    values = np.zeros((*nib.load(path).shape[:3], volumes), dtype=np.float32)
    nib.Nifti1Image(values, affine).to_filename(path.with_name("grad_dev.nii.gz"))
    acquisition = load_acquisition(path)
    assert "is not used, and cannot be read" in acquisition.reading.deviation
    out = tmp_path / "out" / path.name
    out.parent.mkdir()
    placed = move_scan(acquisition, true_motion("prisma_st"))
    placed.write(out)
    carry_deviation(out, acquisition, placed)
    np.testing.assert_allclose(nib.load(out.parent / "sub-01_grad_dev.nii.gz").affine, affine)
    assert "is not used, and cannot be read" in load_acquisition(out).reading.deviation


def test_of_a_grad_dev_without_numbers_it_is_said_that_it_stays(tmp_path, scan):
    path = scan("oblique", 30).write(tmp_path)
    values = np.full((*nib.load(path).shape[:3], 9), np.nan, dtype=np.float32)
    nib.Nifti1Image(values, nib.load(path).affine).to_filename(path.with_name("grad_dev.nii.gz"))
    acquisition = load_acquisition(path)
    placed = replace(move_scan(acquisition, None), clipped=0.0)
    note = carry_deviation(tmp_path / "out" / path.name, acquisition, placed)
    said = note["GradientDeviation"]["Description"]
    assert said == "not copied, as the scan was interpolated"


@pytest.mark.reference("MRtrix3 mrinfo")
@pytest.mark.parametrize("platform", TARGETS)
def test_directions_turn_with_the_head(travelled, aligned, platform, mrtrix):
    def table(root):
        path = scan_of(root, platform)
        stem = str(path).removesuffix(".nii.gz")
        lines = mrtrix("mrinfo", path, "-fslgrad", f"{stem}.bvec", f"{stem}.bval", "-dwgrad")
        return np.array([line.split() for line in lines.strip().splitlines()], dtype=float)

    before, after = table(travelled), table(aligned.out)
    turn = np.loadtxt(motion_of(aligned.out, platform))[:3, :3]
    np.testing.assert_allclose(after[:, :3], before[:, :3] @ turn, atol=1e-5)
    np.testing.assert_allclose(after[:, 3], before[:, 3], rtol=1e-6)
    assert np.abs(after[:, :3] - before[:, :3]).max() > 0.05


@pytest.mark.reference("MRtrix3 mrtransform")
@pytest.mark.parametrize("platform", TARGETS)
def test_mrtrix_moves_the_original_to_the_same_place(
    travelled, aligned, platform, mrtrix, tmp_path
):
    out = tmp_path / "moved.nii.gz"
    mrtrix(
        "mrtransform",
        scan_of(travelled, platform),
        out,
        "-linear",
        motion_of(aligned.out, platform),
    )
    # Its axes may be stored in another order: the corners of the image are compared.
    moved, ours = (
        nib.as_closest_canonical(nib.load(out)),
        nib.load(scan_of(aligned.out, platform)),
    )
    np.testing.assert_allclose(moved.affine, nib.as_closest_canonical(ours).affine, atol=1e-3)


@pytest.mark.reference("MRtrix3 transformconvert")
@pytest.mark.parametrize("platform", TARGETS)
def test_itks_file_says_the_same_as_mrtrixs(aligned, platform, mrtrix, tmp_path):
    out = tmp_path / "converted.txt"
    mrtrix("transformconvert", motion_of(aligned.out, platform, ""), "itk_import", out)
    np.testing.assert_allclose(
        np.loadtxt(out), np.loadtxt(motion_of(aligned.out, platform)), atol=1e-5
    )


def test_the_noise_free_twin_goes_along(aligned):
    heads = open_dataset(aligned.out)
    for platform in TARGETS:
        twin = heads.noise_free("sub-01", platform)
        np.testing.assert_allclose(twin.affine, heads.acquisition("sub-01", platform).affine)


def test_a_twin_that_lies_elsewhere_stays_behind_and_the_scan_goes_on(travelled, tmp_path):
    heads = tmp_path / "heads"
    shutil.copytree(travelled, heads)
    twins = list(heads.glob("derivatives/noisefree/sub-01/*/dwi/*.nii.gz"))
    for path in twins:
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 3] += 5
        nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(path)
    with pytest.warns(UserWarning, match="desc-noisefree_dwi.nii.gz: is not aligned with its scan"):
        made = msp.align(heads, tmp_path / "out")
    assert all(scan.image is not None for scan in made.scans)
    assert not list((tmp_path / "out").glob("derivatives/noisefree/*/*/*/*.nii.gz"))


# --- Images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("platform", "scale"), [("prisma_st", 1), ("connectom_sa", 2)])
def test_images_lie_on_the_inputs_lattice(travelled, resampled, platform, scale):
    source = open_dataset(travelled).acquisition("sub-01", "ge_st").lattice
    scan = open_dataset(resampled.out).acquisition("sub-01", platform)
    assert scan.lattice.matches(source.refined(scale))
    assert scan.voxels.min() >= 0
    told = json.loads(scan.path.with_name(scan.path.name.replace("nii.gz", "json")).read_text())
    assert told["Alignment"]["Interpolated"]
    assert 0 <= told["Alignment"]["ClippedShare"] < 0.01


@pytest.mark.reference("MRtrix3 mrtransform")
def test_mrtrix_interpolates_to_the_same_image(travelled, resampled, mrtrix, tmp_path):
    out = tmp_path / "moved.nii.gz"
    source = scan_of(travelled, "ge_st")
    options = ("-template", source, "-interp", "sinc")
    motion = motion_of(resampled.out, "prisma_st")
    mrtrix("mrtransform", scan_of(travelled, "prisma_st"), out, "-linear", motion, *options)
    scan = open_dataset(resampled.out).acquisition("sub-01", "prisma_st")
    inside = scan.mask & open_dataset(resampled.out).acquisition("sub-01", "ge_st").mask
    inside[:2] = inside[-2:] = inside[:, :2] = inside[:, -2:] = False
    inside[..., :2] = inside[..., -2:] = False
    inside = scan.lattice.to_canonical(inside)
    theirs = nib.as_closest_canonical(nib.load(out)).get_fdata()[inside]
    ours = scan.lattice.to_canonical(scan.voxels)[inside]
    # Both are band-limited interpolations, of noisy voxels.
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.995
    assert np.median(np.abs(theirs - ours)) < 0.01 * ours.mean()


def test_fibres_of_interpolated_images_run_as_the_inputs(resampled):
    heads = open_dataset(resampled.out)
    scans = [heads.acquisition("sub-01", each) for each in ("ge_st", "prisma_st")]
    colour = [msp.colour_fa(each) for each in scans]
    shared = scans[0].mask & scans[1].mask & (colour[0].max(-1) > 0.45) & (colour[1].max(-1) > 0.45)
    cosines = (colour[0] * colour[1]).sum(-1)[shared]
    norms = np.prod([np.linalg.norm(each[shared], axis=-1) for each in colour], axis=0)
    assert shared.sum() > 300
    assert np.median(cosines / norms) > 0.97


def test_voxels_become_cubes(travelled, tmp_path):
    done = msp.align(travelled, tmp_path / "cubes", voxel_size=3.0)
    heads = open_dataset(done.out)
    np.testing.assert_allclose(heads.acquisition("sub-01", "ge_st").lattice.voxel_sizes, 3.0)
    # As fine as the scan is, in whole fractions of the input's voxel: 3 / 1.2 is nearest to 2.
    np.testing.assert_allclose(heads.acquisition("sub-01", "connectom_sa").lattice.voxel_sizes, 1.5)
    [scan] = [scan for scan in done.scans if scan.platform == "ge_st"]
    kept = [scan.kept_energy[order] for order in sorted(scan.kept_energy)]
    assert 0.9 < kept[0] < 1.05
    assert kept[-1] < kept[0] - 0.01  # it takes from what is weakest


def test_a_stretch_is_undone_in_images(travelled, tmp_path):
    """The input against itself, stretched by 4 % along y, on another platform's name."""
    root = tmp_path / "stretched"
    for session, factor in (("ge", 1.0), ("prisma", 1.04)):
        for path in (scan_of(travelled, "ge_st"), mask_of(travelled, "ge_st")):
            place = str(path.relative_to(travelled)).replace("ses-ge", f"ses-{session}")
            copy = root / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            image = nib.load(path)
            affine = np.diag([1, factor, 1, 1]) @ image.affine
            nib.Nifti1Image(image.dataobj.get_unscaled(), affine).to_filename(copy)
            for ending in ("bval", "bvec"):
                table = path.with_name(path.name.replace("nii.gz", ending))
                if table.exists():
                    shutil.copy(table, copy.with_name(copy.name.replace("nii.gz", ending)))
    done = msp.align(root, tmp_path / "out", input="ge_st", affine=True, resample=True)
    motion = np.loadtxt(motion_of(done.out, "prisma_st"))
    np.testing.assert_allclose(motion[:3, :3], np.diag([1, 1.04, 1]), atol=0.004)


def mask_of(root, platform):
    scan = scan_of(root, platform)
    folder = root / "derivatives" / "brainmask" / scan.parent.relative_to(root)
    return folder / scan.name.replace("_dwi", "_desc-brain_mask")


# --- What is said ------------------------------------------------------------------------------


def test_the_dataset_says_what_it_is(travelled, aligned):
    description = json.loads((aligned.out / DESCRIPTION).read_text())
    assert description["DatasetType"] == "derivative"
    assert description["NapariMSP"] == {"InputPlatform": "ge_st"}
    source = aligned.out / description["DatasetLinks"]["source"]
    assert source.resolve() == travelled.resolve()
    scan = scan_of(aligned.out, "prisma_st")
    sidecar = json.loads(scan.with_name(scan.name.replace("nii.gz", "json")).read_text())
    [uri] = sidecar["Sources"]
    assert (source / uri.removeprefix("bids:source:")).is_file()
    assert sidecar["EchoTime"] == 0.089  # what the scan's own sidecar said
    np.testing.assert_allclose(
        sidecar["Alignment"]["ReferenceToScan"],
        np.loadtxt(motion_of(aligned.out, "prisma_st")),
        atol=1e-6,
    )


def test_the_page_needs_no_other_file(aligned):
    page = aligned.report.read_text()
    assert page.count("data:image/png;base64,") == 2
    assert 'src="http' not in page
    assert "href" not in page
    assert "sub-01" in page


def test_the_table_has_a_row_a_scan(aligned):
    lines = (aligned.out / "align.csv").read_text().splitlines()
    assert len(lines) == 4
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert (
        float(row["displacement_voxels_after"])
        < 0.15
        < 1.5
        < float(row["displacement_voxels_before"])
    )


# --- What goes on, and what does not -----------------------------------------------------------


def test_a_subject_without_the_input_and_one_without_a_target(travelled, tmp_path):
    root = tmp_path / "heads"
    for subject, platforms in (("02", ("prisma_st",)), ("03", ("ge_st", "prisma_st"))):
        for platform in platforms:
            scan, mask = scan_of(travelled, platform), mask_of(travelled, platform)
            beside = sorted(scan.parent.glob(scan.name.replace(".nii.gz", ".*")))
            for path in (*beside, mask):
                copy = root / str(path.relative_to(travelled)).replace("sub-01", f"sub-{subject}")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    done = msp.align(root, tmp_path / "out", input="ge_st")
    assert [scan.name for scan in done.scans if scan.image is None] == ["sub-02 prisma_st"]
    assert open_dataset(done.out).scans.keys() == {("sub-03", "ge_st"), ("sub-03", "prisma_st")}
    [told] = [each for each in done.findings if "left out" in each.problem]
    assert told.where == "sub-02 prisma_st"


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the volume that is left out
@pytest.mark.parametrize("resample", [False, True])
def test_a_trace_image_stays_in_the_file_and_out_of_the_images(travelled, tmp_path, resample):
    root = tmp_path / "heads"
    for platform in ("ge_st", "prisma_st"):
        for path in (scan_of(travelled, platform), mask_of(travelled, platform)):
            copy = root / path.relative_to(travelled)
            copy.parent.mkdir(parents=True)
            shutil.copy(path, copy)
            for ending in ("bval", "bvec"):
                table = path.with_name(path.name.replace("nii.gz", ending))
                if table.exists():
                    shutil.copy(table, copy.with_name(table.name))
    scan = scan_of(root, "prisma_st")
    image, stem = nib.load(scan), str(scan).removesuffix(".nii.gz")
    voxels = image.dataobj.get_unscaled()
    trace = voxels[..., 2:].mean(-1, keepdims=True)
    with_trace = np.concatenate([voxels, trace], axis=-1).astype(np.int16)
    nib.Nifti1Image(with_trace, image.affine).to_filename(scan)
    np.savetxt(f"{stem}.bval", np.append(np.loadtxt(f"{stem}.bval"), 0)[None], fmt="%g")
    vectors = np.column_stack([np.loadtxt(f"{stem}.bvec"), np.zeros(3)])
    np.savetxt(f"{stem}.bvec", vectors, fmt="%.8f")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done = msp.align(root, tmp_path / "out", input="ge_st", resample=resample)
    [said] = [str(each.message) for each in told]  # once, and of which file
    assert said.startswith(f"{scan}: left out: volume 14")
    assert nib.load(scan_of(done.out, "prisma_st")).shape[-1] == 14 + (not resample)
    again = open_dataset(done.out).acquisition("sub-01", "prisma_st")
    assert len(again.gradients) == 14
    [moved] = [each for each in done.scans if each.platform == "prisma_st"]
    assert (moved.after.distance or 9) < 0.15


def test_what_is_odd_is_not_said_again_of_interpolated_images(scan, tmp_path):
    made = scan("RAS", 30)
    signal = np.asarray(made.image.dataobj).copy()
    signal[..., 1] *= 3
    path = replace(made, image=nib.Nifti1Image(signal, made.image.affine)).write(tmp_path)
    given = load_acquisition(path)
    assert f"{path}: b=0 volume 1 is 3.00 times as bright" in str(given.doubts[0])
    placed = interpolate_scan(given, np.eye(4), np.eye(3), given.lattice)  # any warning is an error
    assert placed.acquisition.name == str(path)
    np.testing.assert_allclose(placed.acquisition.voxels, given.voxels, rtol=1e-4, atol=1e-2)


def test_what_is_there_is_not_replaced_unasked(travelled, aligned, tmp_path):
    with pytest.raises(UserError, match="contains an alignment") as refusal:
        msp.align(travelled, aligned.out)
    assert refusal.value.remedy == Overwrite()
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        msp.align(travelled, tmp_path, force=True)  # no alignment of ours
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_cancelling_leaves_nothing(travelled, tmp_path):
    out = tmp_path / "out"
    polled = []

    def cancelled():
        polled.append(1)
        return len(polled) > 5

    with pytest.raises(Cancelled):
        msp.align(travelled, out, cancelled=cancelled)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be(travelled, tmp_path):
    with pytest.raises(UserError) as refusal:
        msp.align(travelled, tmp_path / "out", affine=True)
    assert refusal.value.field == "affine"
    assert isinstance(refusal.value.remedy, Resample)
    with pytest.raises(UserError) as refusal:
        msp.align(travelled, tmp_path / "out", subjects=["sub-09"])
    assert refusal.value.remedy == Choose("subjects", ("sub-01",))
    with pytest.raises(UserError, match="not a valid voxel size"):
        msp.align(travelled, tmp_path / "out", voxel_size=-1)
    alone = tmp_path / "alone"
    shutil.copytree(travelled, alone, ignore=shutil.ignore_patterns("ses-prisma", "ses-connectom"))
    with pytest.raises(UserError, match="only on ge_st, so there is nothing to align"):
        msp.align(alone, tmp_path / "out")
    [image] = alone.glob("sub-01/ses-ge/dwi/*_dwi.nii.gz")
    for path in image.parent.glob(f"{nifti_stem(image)}.*"):
        copy = tmp_path / "unnamed/sub-01/dwi" / path.name.replace("_ses-ge_acq-st", "")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    with pytest.raises(UserError, match="as each names neither session") as refusal:
        msp.align(tmp_path / "unnamed", tmp_path / "out")
    assert isinstance(refusal.value.remedy, RunJob)
    assert refusal.value.remedy.job == "import"


def test_a_page_counts_its_scans(aligned):
    assert "2 scans were aligned with their subject's scan on ge_st" in told_on_the_page(aligned)
    [one] = [scan for scan in aligned.scans if scan.platform == TARGETS[0]]
    page = told_on_the_page(replace(aligned, scans=(one,)))
    assert "1 scan was aligned with its subject's scan on ge_st" in page
    assert "in median" not in page


def told_on_the_page(alignment) -> str:
    return " ".join(report_html(alignment).split())


def test_a_moved_scan_is_called_as_it_was_and_says_nothing_twice(scan, tmp_path):
    path = scan("oblique", 60).write(tmp_path)
    voxels = np.asarray(nib.load(path).dataobj).copy()
    voxels[..., -1] = 0
    nib.Nifti1Image(voxels, nib.load(path).affine).to_filename(path)
    acquisition = load_acquisition(path)
    with pytest.warns(DoubtfulScan):
        acquisition.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = move_scan(acquisition, None).acquisition
        again.tell()
    assert again.name == str(path)
    assert again.doubts


@pytest.mark.parametrize(("voxels", "text"), [(0.0, "<0.05"), (0.049, "<0.05"), (0.05, "0.05")])
def test_no_more_is_said_than_can_be_told(voxels, text):
    assert distance_text(voxels) == text


# --- Corrections that come before --------------------------------------------------------------

ALL = ("denoising", "Gibbs ringing", "eddy currents and motion", "susceptibility")


@pytest.mark.parametrize(
    ("name", "sidecar", "description", "beside", "missing"),
    [
        ("sub-01_dwi", {"EchoTime": 0.09, "ConversionSoftware": "dcm2niix"}, {}, (), ALL),
        ("sub-01_dwi", {"Simulated": True}, {}, (), ()),
        ("sub-01_desc-preproc_dwi", {}, {}, (), ()),
        ("sub-01_dwi", {}, {"GeneratedBy": [{"Name": "QSIPrep"}]}, (), ()),
        (
            "sub-01_dwi",
            {"Denoising": "patch2self", "GibbsRingingCorrection": True},
            {},
            (),
            ALL[2:],
        ),
        ("sub-01_dwi", {"Denoising": "none", "EddyCurrentCorrection": False}, {}, (), ALL),
        ("sub-01_dwi", {}, {}, ("sub-01.eddy_rotated_bvecs",), (ALL[0], ALL[1], ALL[3])),
        (
            "sub-01_dwi",
            {"ProcessingSteps": ["dwidenoise", "mrdegibbs", "topup", "eddy_cuda"]},
            {},
            (),
            (),
        ),
    ],
)
def test_what_a_scan_should_have_been_through(
    tmp_path, name, sidecar, description, beside, missing
):
    folder = tmp_path / "sub-01" / "dwi"
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text(json.dumps(sidecar))
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    for other in beside:
        (folder / other).touch()
    assert tuple(step.name for step in missing_steps(folder / f"{name}.nii.gz")) == missing
