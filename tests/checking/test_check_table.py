"""What `check` measures of each scan, and which scans and platforms it says stand out."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from nibabel import Nifti1Image
from nibabel.processing import resample_from_to
from scipy.spatial.distance import dice as scipy_dissimilarity
from scipy.spatial.transform import Rotation

from napari_msp.alignment.registration import BrainImage, Displacement
from napari_msp.checking.comparisons import check_input_position, check_outliers
from napari_msp.checking.dataset import check, check_unlike
from napari_msp.checking.gradients import check_b0, check_near_b_values
from napari_msp.checking.quality import measure_quality
from napari_msp.checking.summary import ScanComparison, ScanSummary
from napari_msp.checking.table import COLUMNS, table_text, write_table
from napari_msp.cli import main
from napari_msp.data.dataset import open_dataset
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import volume_of
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import write_scan
from napari_msp.data.phantom.subjects import draw_pose
from napari_msp.errors import UserError

SEED = 5
VOXEL = 2.4
PLATFORM_OFF = 2.0
"""Residual shift in mm of prisma_st in the misaligned study; it turns the heads too."""
SUBJECT_OFF = 3.0
"""The same for one scan on connectom_st."""
SHIFT_ACCURACY = 0.1
"""Largest error of a measured shift in voxels (measured: 0.07 in 90 pairs of scans)."""

# Few directions, for speed; of that each scan is warned.
QUICK = {p.name: replace(p, directions=6, b0_volumes=3) for p in PLATFORMS}


def simulate(subject, platforms, misalignment=0.0):
    chosen = tuple(QUICK[platform] for platform in platforms)
    return list(simulate_subject(subject, chosen, "tiny", SEED, misalignment=misalignment))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three subjects on three platforms: all of prisma_st and one scan on connectom_st are off."""
    root = tmp_path_factory.mktemp("study")
    (root / "dataset_description.json").write_text("{}")
    for subject in range(3):
        off = {"ge_st": 0.0, "prisma_st": PLATFORM_OFF, "connectom_st": SUBJECT_OFF}
        off |= {"connectom_st": 0.0} if subject < 2 else {}
        for platform, misalignment in off.items():
            for scan in simulate(subject, [platform], misalignment):
                write_scan(root, scan, noise_free=False)
    return root


@pytest.fixture(scope="module")
def checked(study):
    """Its check; the quality of one scan, whose volumes take long, stands for that of all."""
    known = []

    def once(scan):
        known[:] = known or [measure_quality(scan)]
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_msp.checking.scan.measure_quality", once)
        return check(study, input="ge_st")


def flagged(findings):
    """Places and flags of warnings, less those that the fixture brings on purpose."""
    return {(f.where, f.flag) for f in findings if f.flag not in ("directions", "")}


# --- Who is flagged --------------------------------------------------------------------------


def test_a_misaligned_platform_and_one_misaligned_scan_are_flagged_and_nothing_else(checked):
    assert flagged(checked.findings) == {
        ("prisma_st", "platform misaligned"),
        ("sub-01 prisma_st", "misaligned"),
        ("sub-02 prisma_st", "misaligned"),
        ("sub-03 prisma_st", "misaligned"),
        ("sub-03 connectom_st", "misaligned"),
        ("sub-03 connectom_st", "displacement high"),
    }
    told = next(f for f in checked.findings if f.where == "prisma_st")
    distances = [r["displacement_voxels"] for r in checked.rows if r["platform"] == "prisma_st"]
    assert told.message() == (
        f"is {np.median(distances):.1f} voxels from ge_st (median of 3 subjects); "
        "leave the platform out or register it again"
    )


def test_rows_carry_the_flags_of_their_scan_and_platform(checked):
    flags = {
        (row["subject"], row["platform"]): set(row["flags"]) - {"directions"}
        for row in checked.rows
    }
    assert {scan for scan, words in flags.items() if words} == {
        ("sub-01", "prisma_st"),
        ("sub-02", "prisma_st"),
        ("sub-03", "prisma_st"),
        ("sub-03", "connectom_st"),
    }
    assert flags["sub-01", "prisma_st"] == {"misaligned", "platform misaligned"}


# --- What is measured ------------------------------------------------------------------------


def test_the_shift_in_voxels_is_the_simulated_one(study, checked):
    errors = []
    for row in checked.rows:
        if row["platform"] == "ge_st":
            assert row["shift_voxels"] is None
            continue
        number = QUICK[row["platform"]].number
        scan = (row["subject"], row["platform"])
        size = {"prisma_st": PLATFORM_OFF}.get(row["platform"], 0.0)
        size = SUBJECT_OFF if scan == ("sub-03", "connectom_st") else size
        subject = int(row["subject"].removeprefix("sub-")) - 1
        expected = np.zeros(3)
        if size:
            pose = draw_pose(size, np.random.default_rng([SEED, subject, 1, number]))
            # The row tells the shift of the brain's centre, the pose that of the isocentre.
            expected = pose.from_head(centre_of(study, row["subject"])) - centre_of(
                study, row["subject"]
            )
            turned = np.degrees(Rotation.from_matrix(pose.rotation).magnitude())
            assert row["rotation_degrees"] == pytest.approx(turned, abs=0.5)
            stated = json.loads(sidecar(study, *scan).read_text())["Simulation"]
            np.testing.assert_allclose(stated["ResidualShift"], pose.shift, atol=1e-4)
            np.testing.assert_allclose(stated["ResidualTurn"], pose.turn, atol=1e-4)
        errors.append(np.linalg.norm(np.array(row["shift_xyz_voxels"]) - expected.ravel() / VOXEL))
        assert row["shift_mm"] == pytest.approx(VOXEL * row["shift_voxels"], rel=1e-6)
        assert row["shift_voxels"] == pytest.approx(np.linalg.norm(row["shift_xyz_voxels"]))
    assert max(errors) < SHIFT_ACCURACY


def centre_of(root, subject):
    """(3, 1) scanner coordinates of the middle of the input's mask."""
    scan = open_dataset(root).acquisition(subject, "ge_st")
    middle = np.argwhere(scan.mask).mean(axis=0)
    return (scan.affine[:3, :3] @ middle + scan.affine[:3, 3])[:, None]


def sidecar(root, subject, platform):
    image = open_dataset(root).scans[subject, platform]
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def test_the_noise_is_the_simulated_one(study):
    scan = open_dataset(study).acquisition("sub-01", "ge_st")
    sigma = json.loads(sidecar(study, "sub-01", "ge_st").read_text())["Simulation"]
    quality = measure_quality(scan)
    mean = float(scan.b0[scan.mask].mean())
    assert quality.snr is not None
    assert mean / quality.snr == pytest.approx(sigma["NoiseStandardDeviation"], rel=0.03)
    assert volume_of(scan.mask, scan.affine) == pytest.approx(scan.mask.sum() * VOXEL**3 / 1000)


@pytest.mark.reference("nibabel resample_from_to")
def test_dice_on_a_finer_flipped_lattice():
    coarse = Lattice((9, 8, 7), np.diag([2.4, 2.4, 2.4, 1.0]))
    fine = Lattice((17, 15, 13), np.diag([-1.2, 1.2, 1.2, 1.0]))
    fine.affine[0, 3] = 16 * 1.2
    masks = [np.indices(each.shape).sum(axis=0) % 5 < 3 for each in (coarse, fine)]
    other = resample_from_to(
        Nifti1Image(masks[1].astype(np.uint8), fine.affine), (coarse.shape, coarse.affine), order=0
    )
    expected = 1 - scipy_dissimilarity(masks[0].ravel(), other.get_fdata().ravel() > 0)
    fixed, moving = (
        BrainImage(mask.astype(float), mask.astype(float), mask, lattice)
        for mask, lattice in zip(masks, (coarse, fine), strict=True)
    )
    assert ScanComparison.of(fixed, moving, None).dice == pytest.approx(expected)
    assert 0.3 < expected < 0.9  # so that neither 0 nor 1 passes


# --- Outliers --------------------------------------------------------------------------------

NO_GRADIENTS = GradientTable(np.zeros(0), np.zeros((0, 3)))
LATTICE = Lattice((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))


def summary(subject=1, platform="prisma_st", mask_ml=None, shift=None, correlation=0.99):
    comparison = None
    if shift is not None:
        mean = float(np.linalg.norm(shift))
        moved = Displacement(np.eye(3), np.array(shift), np.zeros(3), mean, correlation)
        comparison = ScanComparison(0.97, moved, LATTICE)
    return ScanSummary(
        f"sub-{subject:02d}",
        platform,
        "file",
        LATTICE,
        NO_GRADIENTS,
        mask_ml=mask_ml,
        comparison=comparison,
    )


def scan_at(subject, platform, *b_values):
    directions = np.tile([1.0, 0, 0], (len(b_values), 1))
    table = GradientTable(np.array(b_values, dtype=float), directions)
    where = f"{subject} {platform}"
    return replace(summary(subject, platform), gradients=table, where=where)


def test_b_values_that_are_nearly_the_inputs():
    scans = [scan_at(1, "ge", 0, 1195, 1200, 3000), scan_at(2, "ge", 0, 1200)]
    scans += [scan_at(1, "prisma", 0, 1250, 1250), scan_at(1, "philips", 0, 1205, 2900, 2000)]
    near, high = check_near_b_values(scans, "ge")
    assert (near.severity, near.where) == ("note", "prisma")
    assert near.problem.startswith("b = 1250 s/mm² where ge has 1199: this alone changes S/S0")
    assert "about 4 % in tissue" in near.problem
    assert high.problem.startswith("b = 2900 s/mm² where ge has 3000")


def test_platforms_whose_b0_images_are_unlike_the_inputs():
    scans = [scan_at(subject, "ge", 0, 5, 1000) for subject in (1, 2, 3)]
    scans += [scan_at(1, "prisma", 0, 10), scan_at(1, "philips", 60 / 2, 50)]
    (platform,) = check_b0(scans, "ge")
    assert (platform.severity, platform.where) == ("note", "philips")
    assert "b = 40 s/mm² on average, but those of ge have 2: " in platform.problem


def test_scans_unlike_the_others_of_their_platform(heads):
    dataset = open_dataset(heads)
    fine = replace(LATTICE, affine=np.diag([1.0, 1, 1, 1]))
    scans = [scan_at(subject, "prisma_st", 0, 5, 1000) for subject in (1, 2, 3)]
    scans += [scan_at(subject, "ge_st", 0, 1000) for subject in (1, 2, 3)]
    scans[2] = replace(scans[2], lattice=fine)
    scans[3] = scan_at(1, "ge_st", 50, 1000)
    weak, voxels, field = check_unlike(dataset, scans)
    assert (weak.severity, weak.where, weak.flag) == ("warning", "1 ge_st", "b=0 unlike others")
    assert "b = 50 s/mm² on average where 2 others of its platform have 0: " in weak.problem
    assert (voxels.severity, voxels.where) == ("error", "3 prisma_st")
    assert voxels.problem.endswith("training refuses that")
    assert (field.severity, field.where) == ("warning", "3 prisma_st")


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        ([1400, 1401, 1402, 1403, 1500], []),  # 97 spreads away, and of no weight
        ([1400, 1401, 1402, 1403, 700], ["sub-05 prisma_st"]),
        ([1100, 1250, 1400, 1550, 2100], []),  # spread as widely as that
        ([1400, 700], []),  # of two, neither stands out
    ],
)
def test_mask_volumes(volumes, expected):
    scans = [summary(subject, mask_ml=volume) for subject, volume in enumerate(volumes, start=1)]
    told = list(check_outliers(scans))
    assert [finding.where for finding in told] == expected
    assert all("median of 5 subjects" in finding.message() for finding in told)


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ([(2.0, 0, 0), (2.2, 0, 0.1)], ["sub-01 ge_st"]),
        ([(2.0, 0, 0), (-2.0, 0, 0)], []),  # they disagree: each is off by itself
        ([(2.0, 0, 0), (2.1, 0, 0), (0.1, 0, 0)], []),  # one lies where the input does
        ([(0.3, 0, 0), (0.3, 0, 0)], []),
        ([(2.0, 0, 0)], []),  # of two scans, either may be off
    ],
)
def test_an_input_that_alone_is_off_is_told(shifts, expected):
    targets = [summary(platform=f"other_{i}", shift=shift) for i, shift in enumerate(shifts)]
    told = check_input_position(summary(platform="ge_st"), targets)
    assert [finding.where for finding in told] == expected


# --- Files and terminal ----------------------------------------------------------------------


def test_csv_and_json_hold_every_scan(checked, tmp_path):
    for name in ("check.csv", "check.json"):
        write_table(tmp_path / name, checked.rows, checked.findings, checked.input_platform)
    with (tmp_path / "check.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    content = json.loads((tmp_path / "check.json").read_text())
    assert len(lines) == len(content["scans"]) == 9
    row, line, scan = checked.rows[0], lines[0], content["scans"][0]
    assert tuple(row) == COLUMNS
    assert (line["subject"], line["platform"]) == ("sub-01", "connectom_st")
    assert (
        float(line["shift_y_voxels"]) == row["shift_xyz_voxels"][1] == scan["shift_xyz_voxels"][1]
    )
    assert [line[f"shape_{axis}"] for axis in "xyz"] == [str(n) for n in row["shape_xyz"]]
    assert lines[1]["platform"] == "ge_st"
    assert lines[1]["dice"] == ""
    assert content["scans"][1]["dice"] is None
    assert lines[2]["flags"] == "directions; misaligned; platform misaligned"
    assert content["input"] == "ge_st"
    assert "prisma_st" in {finding["where"] for finding in content["findings"]}


def test_the_terminal_shows_each_platform_once(checked):
    lines = table_text(checked.rows, "ge_st").splitlines()
    headings = [line for line in lines if "directions at" in line]
    assert [heading.split(":")[0] for heading in headings] == ["connectom_st", "ge_st", "prisma_st"]
    assert "2.40 mm, 32 × 20 × 14 voxels, 3 b=0, 6 directions at b = 1200" in headings[0]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [20, 80, 100, 160])
def test_the_table_is_as_wide_as_the_terminal_but_breaks_no_numbers(checked, width):
    lines = table_text(checked.rows, "ge_st", width).splitlines()
    rows = [line for line in lines if line.startswith("  sub-0")]
    assert len(rows) == 18
    assert all(len(row.split()) >= 9 for row in rows)
    words = [line for line in lines if line not in rows and not line.startswith("  subject")]
    assert 0.85 * max(width, 60) < max(map(len, words)) <= max(width, 60)
    if width >= 80:
        assert max(map(len, lines)) <= width


def test_each_shell_is_described(scan, tmp_path):
    folder = tmp_path / "sub-01/ses-ge/dwi"
    folder.mkdir(parents=True)
    both = scan(np.diag([-2.4, 2.4, 2.4, 1]), 45, b_values=(1200.0, 3000.0))
    bvec = both.write(folder, stem="sub-01_ses-ge").with_name("sub-01_ses-ge_dwi.bvec")
    vectors = np.loadtxt(bvec)
    vectors[:, -20:] = vectors[:, -40:-20]  # 25 of the outer shell's 45 directions differ
    np.savetxt(bvec, vectors)
    [row] = check(tmp_path, alignment=False).rows
    orders = row["shell_sh_order"]
    assert orders is not None
    assert row["shell_condition"] is not None
    inner, outer = (row["shell_condition"][each] or 0.0 for each in ("1200", "3000"))
    assert row["shell_directions"] == {"1200": 45, "3000": 45}
    assert orders["1200"] >= 6 > orders["3000"]
    assert inner < 10 < 1e6 < outer
    assert (row["sh_order"], row["condition"]) == (orders["1200"], inner)
    said = " ".join(table_text([row], "ge").split())
    for b_value, order in orders.items():
        assert f"45 directions at b = {b_value}, good for SH order {order}" in said
    [place, _] = [each for each in table_text([row, row], "ge").splitlines() if " sub-01 " in each][
        :2
    ]
    assert place.split()[1] == f"{inner:.3g}/>1e4"
    write_table(tmp_path / "t.csv", [row], [], "ge")
    with (tmp_path / "t.csv").open(newline="") as stream:
        [line] = csv.DictReader(stream)
    assert line["shell_sh_order"] == f"1200: {orders['1200']}; 3000: {orders['3000']}"


def copy_of(root, target):
    """One subject of a study on two platforms, its masks too."""
    for inside in ("sub-01", "derivatives/brainmask/sub-01"):
        others = shutil.ignore_patterns("*connectom*")
        shutil.copytree(root / inside, target / inside, ignore=others)
    return target


def test_a_scan_that_cannot_be_opened_has_a_row(study, tmp_path):
    root = copy_of(study, tmp_path / "data")
    open_dataset(root).scans["sub-01", "prisma_st"].write_bytes(b"no image")
    rows = {row["platform"]: row for row in check(root, input="ge_st", alignment=False).rows}
    assert rows["prisma_st"]["flags"] == ("unusable",)
    assert rows["ge_st"]["mask_voxels"]
    assert "prisma_st: – mm" in table_text(list(rows.values()), "ge_st")


def test_the_command_shows_and_writes_the_table(study, tmp_path, capsys):
    root, table = copy_of(study, tmp_path / "data"), tmp_path / "new" / "check.csv"
    assert (
        main(["check", str(root), "--input", "ge_st", "--table", str(table)]) == 1
    )  # too few directions
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == str(table)
    assert "prisma_st: 2.40 mm" in told
    assert len(table.read_text().splitlines()) == 3


def test_the_command_names_the_options_of_a_training(tmp_path, scan, capsys):
    made = scan(np.diag([2.4, 2.4, 2.4, 1.0]), 30, b_values=(1200.0, 2000.0))
    for subject, which in (("01", made), ("02", scan(np.diag([2.4, 2.4, 2.4, 1.0]), 30))):
        for session in ("ge", "prisma"):
            folder = tmp_path / f"sub-{subject}/ses-{session}/dwi"
            folder.mkdir(parents=True)
            which.write(folder, stem=f"sub-{subject}_ses-{session}_acq-st")
    main(["check", str(tmp_path), "--input", "ge_st"])
    assert "give 1200 with --shell" in capsys.readouterr().out


def test_the_command_refuses_a_table_that_it_cannot_write_before_it_works(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none"), "--table", str(tmp_path / "check.txt")]) != 0
    assert "must end in .csv or .json" in capsys.readouterr().err


def test_a_table_in_another_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.csv or \.json"):
        write_table(tmp_path / "check.txt", [], [], "ge_st")
    assert list(tmp_path.iterdir()) == []
