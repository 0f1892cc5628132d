"""Brain masks: read as their tools meant them, made where there is none, doubted where odd."""

import errno
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt
from scipy.spatial.transform import Rotation

from napari_msp.bids import gradient_files, read_sidecar
from napari_msp.data.acquisition import (
    Acquisition,
    DoubtfulScan,
    EstimatedMask,
    load_acquisition,
)
from napari_msp.data.companions import look_for_mask
from napari_msp.data.dataset import open_dataset
from napari_msp.data.gradient_files import read_gradients
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import check_mask, coverage, estimate_mask, mask_doubts, read_mask
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import Give, UserError
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import Maps, fractional_anisotropy

OBLIQUE = np.array([[-1.9, 0.3, 0.2, 4], [0.35, 2.0, -0.4, -7], [0.1, 0.45, 2.1, 11], [0, 0, 0, 1]])
LATTICE = Lattice((5, 4, 3), OBLIQUE)
INSIDE = np.zeros(LATTICE.shape, bool)
INSIDE[1:4, 1:3, 1] = True
INSIDE[4, 3, 2] = True  # so that no mirror image is the same


def values(how: str) -> np.ndarray:
    """What tools write for `INSIDE`."""
    rng = np.random.default_rng(3)
    labels = rng.integers(2, 2036, LATTICE.shape)
    match how:
        case "0 and 1":
            return INSIDE.astype(np.uint8)
        case "0 and 255":
            return (INSIDE * 255).astype(np.uint8)
        case "floats":
            return INSIDE.astype(np.float32)
        case "another number":
            return (INSIDE * 0.7).astype(np.float32)
        case "a small number":
            return (INSIDE * 0.4).astype(np.float32)
        case "labels":
            return (INSIDE * labels).astype(np.int16)
        case "labels as floats":
            return (INSIDE * labels).astype(np.float32)
        case "probabilities":
            return np.where(INSIDE, 0.5 + rng.random(INSIDE.shape) / 2, 0.49).astype(np.float32)
        case "interpolated":
            return np.where(INSIDE, 0.8, -4e-4 + 0.4 * (labels > 1000)).astype(np.float32)
        case "one volume":
            return INSIDE[..., None].astype(np.uint8)
        case "five axes":
            return INSIDE[..., None, None].astype(np.uint8)
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("0 and 1", ""),
        ("0 and 255", ""),
        ("floats", ""),
        ("another number", ""),
        ("a small number", "0 and 0.4, which is inside"),
        ("labels", "labels above 0 are inside"),
        ("labels as floats", "labels above 0 are inside"),
        ("probabilities", "probabilities, inside from 0.5 on"),
        ("interpolated", "probabilities, inside from 0.5 on"),
        ("one volume", ""),
        ("five axes", ""),
    ],
)
def test_values_as_tools_mean_them(tmp_path: Path, how: str, said: str) -> None:
    path = tmp_path / "brain_mask.nii.gz"
    nib.Nifti1Image(values(how), OBLIQUE).to_filename(path)
    brain = read_mask(path, LATTICE)
    np.testing.assert_array_equal(brain.inside, INSIDE)
    assert brain.origin.startswith("brain_mask.nii.gz")
    assert said in brain.origin
    assert ("(" in brain.origin) == bool(said)


def test_scaled_bytes_are_probabilities(tmp_path: Path) -> None:
    """As SPM writes them: bytes, with a slope of 1/255 in the header."""
    image = nib.Nifti1Image(np.where(INSIDE, 140, 100).astype(np.uint8), OBLIQUE)
    image.header.set_slope_inter(1 / 255, 0)
    image.to_filename(tmp_path / "c1_mask.nii")
    stored = nib.load(tmp_path / "c1_mask.nii")
    assert 0 < np.asarray(stored.dataobj).max() < 1
    np.testing.assert_array_equal(read_mask(tmp_path / "c1_mask.nii", LATTICE).inside, INSIDE)


ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_voxels_stored_in_another_order(codes: str) -> None:
    """All 48 orders of one oblique lattice, by nibabel's own reordering of the files."""
    stored = nib.Nifti1Image(INSIDE.astype(np.uint8), OBLIQUE)
    from_image = nib.orientations.io_orientation(OBLIQUE)
    to_codes = nib.orientations.ornt_transform(from_image, axcodes2ornt(codes))
    other = stored.as_reoriented(to_codes)
    found = check_mask(np.asarray(other.dataobj), LATTICE, "m", other.affine)
    np.testing.assert_array_equal(found.inside, INSIDE)


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (np.where(INSIDE, 1, np.nan), "has NaN or infinite voxels"),
        (np.where(INSIDE, np.inf, 0), "has NaN or infinite voxels"),
        (np.where(INSIDE, 1, -1), "negative values"),
        (np.zeros(INSIDE.shape), "no voxel is inside"),
        (np.full(INSIDE.shape, 0.2) + 0.1 * INSIDE, "no voxel is inside"),
        (np.where(INSIDE, 312.7, 0.4), "neither labels nor probabilities"),
        (np.repeat(INSIDE[..., None], 2, axis=3).astype(float), "this one has 4"),
        (INSIDE + 1.0, "values from 1 to 2 and no 0"),
        (INSIDE[:4].astype(float), r"not the image's \(4 × 4 × 3 against 5 × 4 × 3\)"),
    ],
)
def test_what_is_no_mask_is_refused(odd: np.ndarray, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        check_mask(odd, LATTICE, "odd.nii.gz")
    assert (error.value.subject, error.value.field) == ("odd.nii.gz", "mask")
    assert error.value.remedy is not None


def test_grey_levels_of_a_byte_are_not_taken_for_labels() -> None:
    lattice = Lattice((9, 9, 9), np.eye(4))
    grey = np.arange(729).reshape(9, 9, 9) % 256
    with pytest.raises(UserError, match="up to 255, which may be probabilities"):
        check_mask(grey.astype(np.float32), lattice, "soft.nii.gz")
    few = grey % 45 * (grey < 200)  # as FreeSurfer's aseg
    few[0, 0, 0] = 255
    assert check_mask(few.astype(np.float32), lattice, "aseg").inside.sum() == (few > 0).sum()


@pytest.mark.parametrize("shift", [0.04, 0.06, 1.0])
def test_another_place_is_another_lattice(shift: float) -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += OBLIQUE[:3, 0] * shift
    if shift < 0.05:
        assert check_mask(values("0 and 1"), LATTICE, "m", moved).inside.any()
        return
    with pytest.raises(UserError, match=f"up to {shift * 1.935:.1f} mm and 0.0° away"):
        check_mask(values("0 and 1"), LATTICE, "m", moved)


def test_a_mask_whose_header_is_not_the_images_is_not_to_be_resampled(tmp_path: Path) -> None:
    """As tools write that know an image's qform only: the same voxels, turned by 20°."""
    turned = OBLIQUE.copy()
    turned[:3] = Rotation.from_euler("z", 20, degrees=True).as_matrix() @ OBLIQUE[:3]
    with pytest.raises(
        UserError, match=r"its header puts it up to 3\.1 mm and 20\.0° away"
    ) as error:
        check_mask(values("0 and 1"), LATTICE, "m", turned)
    assert "copy the image's header to it, otherwise resample" in str(error.value)
    corner = np.linalg.norm((turned - OBLIQUE)[:3] @ [0, 0, 2, 1])  # farthest from the axis
    assert f"up to {corner:.1f} mm" in str(error.value)
    other_order = turned[:, [1, 0, 2, 3]]  # voxels that a header cannot put right
    with pytest.raises(UserError, match="mirrors and moves it; resample it"):
        check_mask(values("0 and 1"), Lattice((5, 4, 3), OBLIQUE), "m", other_order)


# --- Estimated masks --------------------------------------------------------------------------


def head(
    shape: tuple[int, int, int], size: float, radius: float, csf: float = 3.0
) -> tuple[Acquisition, np.ndarray]:
    """A ball of tissue round a core of CSF, with eyes, in noise; b = 1000 darkens the CSF."""
    middle = (np.array(shape) - 1) / 2
    at = np.moveaxis(np.indices(shape), 0, -1) - middle
    distance = np.linalg.norm(at, axis=-1) * size
    brain = distance < radius
    core = distance < 0.6 * radius
    rng = np.random.default_rng(5)
    b0 = np.where(core, csf, np.where(brain, 1.0, 0.02))
    weighted = np.where(core, 0.1, np.where(brain, 0.45, 0.02))
    signal = np.stack([b0, weighted], axis=-1) + 0.02 * rng.normal(size=(*shape, 2))
    table = GradientTable(np.array([0.0, 1000.0]), np.array([[0.0, 0, 0], [1, 0, 0]]))
    image = nib.Nifti1Image((1000 * np.abs(signal)).astype(np.float32), np.diag([size] * 3 + [1]))
    return Acquisition(image, table), brain


@pytest.mark.parametrize(
    ("shape", "size", "radius"),
    [
        ((60, 60, 60), 3.0, 68.0),  # a whole head in air
        ((40, 40, 8), 3.0, 55.0),  # a slab
        ((24, 24, 24), 3.0, 48.0),  # a field that the brain nearly fills
    ],
)
def test_bright_csf_hides_no_tissue(
    shape: tuple[int, int, int], size: float, radius: float
) -> None:
    """Otsu's threshold on b=0 alone falls between CSF and tissue."""
    acquisition, brain = head(shape, size, radius)
    found = acquisition.mask
    with pytest.warns(EstimatedMask) as said:
        acquisition.tell()
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.98
    [warning] = said
    assert re.search(r"estimated .*; [\d,]+ ml, \d+ % of the field$", str(warning.message))
    assert acquisition.brain.estimated


@pytest.mark.reference("MRtrix dwi2mask")
def test_as_good_as_dwi2mask(tmp_path: Path) -> None:
    import subprocess

    acquisition, brain = head((30, 30, 30), 4.0, 52.0)
    nib.save(acquisition.image, tmp_path / "dwi.nii")
    (tmp_path / "grad.b").write_text("0 0 0 0\n1 0 0 1000\n")
    command = ["dwi2mask", "-quiet", "-grad", "grad.b", "dwi.nii", "theirs.nii"]
    subprocess.run(command, cwd=tmp_path, check=True)
    theirs = np.asarray(nib.load(tmp_path / "theirs.nii").dataobj) > 0
    ours = acquisition.mask
    dice = [2 * (each & brain).sum() / (each.sum() + brain.sum()) for each in (ours, theirs)]
    assert dice[0] > dice[1] - 0.005


def test_nothing_bright_is_no_brain() -> None:
    flat = np.full((10, 10, 10), 7, np.float32)
    with pytest.raises(UserError, match="no brain was found") as error:
        estimate_mask([flat, flat], np.eye(4), "dwi.nii.gz")
    assert (error.value.subject, error.value.remedy) == ("dwi.nii.gz", Give("mask", "a brain mask"))


# --- Doubts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b=0 of a whole head in air, its brain, and its affine."""
    acquisition, brain = head((60, 60, 60), 3.0, 68.0, csf=1.5)
    return acquisition.b0, brain, acquisition.affine


Whole = tuple[np.ndarray, np.ndarray, np.ndarray]


def doubts(whole: Whole, mask: np.ndarray) -> list[str]:
    return list(mask_doubts(mask, whole[0], whole[2]))


def test_a_good_mask_is_not_doubted(whole: Whole) -> None:
    _, brain, affine = whole
    assert doubts(whole, brain) == []
    ml = brain.sum() * 27 / 1000
    assert coverage(brain, affine) == f"{ml:,.0f} ml, {100 * brain.mean():.0f} % of the field"
    assert 1200 < ml < 1500


def test_slabs_and_small_fields_raise_no_false_alarm(whole: Whole) -> None:
    b0, brain, affine = whole
    for part in (np.s_[:, :, 26:34], np.s_[:, 20:40, 20:40], np.s_[30:, :, :]):
        assert list(mask_doubts(brain[part], b0[part], affine)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda brain: brain & (np.indices(brain.shape)[0] < 30),
            "leaves out a region as bright at b=0",
        ),
        (
            lambda brain: brain & (np.indices(brain.shape)[0] < 22),
            r"an adult brain has 600 to 2,200",
        ),
        (lambda brain: np.ones_like(brain), r"5,832 ml"),
        (lambda brain: np.ones_like(brain), r"touches 100 % of one side"),
        (lambda brain: np.ones_like(brain), "almost no b=0 signal"),
    ],
)
def test_an_odd_mask_is_doubted(
    whole: Whole, change: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    assert any(re.search(said, each) for each in doubts(whole, change(whole[1])))


def test_the_neck_may_leave_the_field_below(whole: Whole) -> None:
    b0, brain, affine = whole
    cut = brain.copy()
    cut[20:40, 20:40, :30] = True
    assert not any("side" in each for each in doubts((np.where(cut, 1500, b0), cut, affine), cut))
    cut = np.moveaxis(cut, 2, 0)
    assert any("side" in each for each in doubts((np.where(cut, 1500, b0), cut, affine), cut))


def test_an_estimate_says_that_it_is_odd() -> None:
    acquisition, _ = head((60, 60, 60), 3.0, 40.0)  # 268 ml in the field of a whole head
    with pytest.warns(
        EstimatedMask, match=r"; it has 2\d\d ml, but an adult brain has 600 to 2,200"
    ):
        acquisition.tell()


# --- What is kept -----------------------------------------------------------------------------


def test_what_was_used_is_kept(tmp_path: Path, scan: Callable[..., Any]) -> None:
    path = scan("LAS", 30).write(tmp_path)
    acquisition = load_acquisition(path)
    [mask] = acquisition.provenance
    assert mask.startswith("brain mask: sub-01_mask.nii.gz, ")
    assert json.dumps(acquisition.provenance)


def test_a_mask_that_was_made_is_written_and_told_of(
    tmp_path: Path, scan: Callable[..., Any]
) -> None:
    made = scan("LAS", 30, shape=(24, 22, 20))
    middle = np.array([11, 11, 9]).reshape(3, 1, 1, 1)
    ball = np.linalg.norm(np.indices((24, 22, 20)) - middle, axis=0) < 8
    signal = np.asarray(made.image.dataobj) * np.where(ball, 1, 0.01)[..., None]
    path = replace(made, image=nib.Nifti1Image(signal, made.image.affine)).write(tmp_path)
    (tmp_path / "sub-01_mask.nii.gz").unlink()

    with pytest.warns(EstimatedMask):
        opened = load_scan(path)
        files = opened.save(tmp_path / "maps")
    assert (ball[opened.mask]).all() and opened.mask.sum() > 0.95 * ball.sum()

    said = json.loads(files[0].with_name(files[0].name.replace("nii.gz", "json")).read_text())
    [mask] = said["Inputs"]
    assert mask.startswith("brain mask: estimated by Otsu's threshold")
    assert "% of the field" in mask
    written = tmp_path / "maps/sub-01_desc-brain_mask.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj) > 0, opened.mask)
    known = json.loads((tmp_path / "maps/sub-01_desc-brain_mask.json").read_text())
    assert (known["Type"], known["Estimated"]) == ("Brain", True)
    # Found beside its scan, it is still known for what it is.
    for ending in ("nii.gz", "json"):
        shutil.copy(tmp_path / f"maps/sub-01_desc-brain_mask.{ending}", tmp_path)
    [mask] = load_acquisition(path).provenance
    assert "which an earlier run estimated" in mask


class TestVoxelsWithoutSignal:
    """A slice that is 0 throughout inside the mask, and a voxel that is 0 in weighted volumes."""

    @pytest.fixture
    def whole(self, scan):
        return scan("RAS", shape=(5, 6, 5))

    @pytest.fixture
    def holed(self, whole):
        signal = np.array(whole.image.dataobj)
        signal[:, :, 2] = 0
        signal[2, 2, 1, 2:] = 0
        return replace(whole, image=nib.Nifti1Image(signal, whole.image.affine))

    def test_are_left_out_of_all_that_is_measured(self, whole, holed, tmp_path):
        path = holed.write(tmp_path)
        scan = load_scan(path)
        assert scan.mask.sum() == 79  # to look at it tells nothing, to compute with it does, once
        with pytest.warns(DoubtfulScan, match=r"21 of 100 .* \(21.0 %\) have no signal") as warned:
            _ = scan.sh
            acquisition = scan.acquisition
            assert acquisition is not None
            fractional_anisotropy(acquisition)
            fit_sh(replace(acquisition, given_mask=scan.mask))
        assert [warning.message.subject for warning in warned] == [str(path)]
        assert not scan.mask[:, :, 2].any()
        assert not scan.mask[2, 2, 1]
        given = np.asarray(whole.mask.dataobj) > 0
        clear = given & scan.mask
        (tmp_path / "whole").mkdir()
        truth = whole.load(tmp_path / "whole")
        for name, values in scan.maps("signal").items():
            np.testing.assert_array_equal(values[~clear], 0)
            expected = Maps(fit_sh(truth), truth)[name]
            np.testing.assert_array_equal(values[clear], expected[clear])
        scan.save(tmp_path / "maps")
        said = read_sidecar(tmp_path / "maps/sub-01_model-sh_param-coefficients_dwimap.nii.gz")
        assert any("have no signal and are left out" in each for each in said["Warnings"])

    def test_stray_ones_are_named_in_sidecars_alone(self, scan, tmp_path):
        made = scan("RAS", shape=(12, 12, 10))
        signal = np.array(made.image.dataobj)
        signal[5, 5, 5] = 0
        image = nib.Nifti1Image(signal, made.image.affine)
        acquisition = replace(made, image=image).load(tmp_path)
        assert acquisition.mask.sum() == 1209
        assert acquisition.doubts == ()
        assert "1 of 1,210 voxels of the mask (0.1 %) have no signal and are left out" in (
            acquisition.provenance
        )


def test_a_given_mask_of_background_is_told_of_once(
    scan: Callable[..., Any], tmp_path: Path
) -> None:
    """An inverted one, say: what is predicted in air is nothing."""
    made = scan()
    voxels = np.asarray(made.image.dataobj, dtype=np.float32)
    brain = np.zeros(voxels.shape[:3], bool)
    brain[1:-1, 1:-1, 1:-1] = True
    voxels[~brain] *= 0.01
    image = nib.Nifti1Image(voxels, made.image.affine)
    files = gradient_files(made.write(tmp_path))
    inverted = load_acquisition(image, *files, mask=np.ones_like(brain))
    with pytest.warns(
        DoubtfulScan, match=r"the mask has almost no .* is it this scan's brain mask\?"
    ):
        inverted.tell()
    inverted.tell()  # warns of nothing
    assert sum("no b=0 signal" in doubt for doubt in inverted.said()) == 1
    load_acquisition(image, *files, mask=brain).tell()


def test_folders_that_may_not_be_listed_do_not_pass_for_empty(
    scan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub-01/dwi").mkdir(parents=True)
    dwi = scan().write(tmp_path / "sub-01/dwi")
    dwi.with_name("sub-01_mask.nii.gz").unlink()
    (tmp_path / "derivatives").mkdir()
    closed: list[Path] = []
    listed = Path.iterdir

    def iterdir(folder: Path) -> Any:
        if folder in closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    denied = r"cannot be read \(Permission denied\); ask its owner"
    private = tmp_path / "derivatives/private/sub-01/dwi"
    private.mkdir(parents=True)
    for folder in (tmp_path / "derivatives", dwi.parent, private):
        closed[:] = [folder]
        with pytest.raises(UserError, match=denied) as error:
            look_for_mask(dwi)
        assert error.value.subject == str(folder)
    generic = tmp_path / "sub-01/dlabel/diff/brain_mask.nii.gz"
    brain = tmp_path / "derivatives/brainmask/sub-01/dwi/sub-01_mask.nii.gz"
    for mask in (generic, brain):
        mask.parent.mkdir(parents=True)
    scan().mask.to_filename(generic)
    with pytest.raises(UserError, match=denied):
        look_for_mask(dwi)  # the private folder may have a better one
    scan().mask.to_filename(brain)
    found = look_for_mask(dwi)
    assert found.path == brain
    [passed_over] = found.passed_over
    assert passed_over.startswith(f"{private} cannot be read")
    for folder in (tmp_path, dwi.parents[1], dwi.parent):
        closed[:] = [folder]
        with pytest.raises(UserError, match=denied):
            open_dataset(tmp_path)
        with pytest.raises(UserError, match=denied):
            open_dataset(tmp_path, only=["sub-01"])
    # Whoever wants others alone need not ask for the right to see this one.
    (tmp_path / "sub-02/dwi").mkdir(parents=True)
    scan().image.to_filename(tmp_path / "sub-02/dwi/sub-02_dwi.nii.gz")
    heads = open_dataset(tmp_path, only=["sub-02"])
    assert heads.subjects == ["sub-02"]
    assert any("sub-01: left out, as it cannot be read" in each for each in heads.notes)


def test_what_one_may_not_read_is_not_called_damaged(
    scan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = scan().write(tmp_path), Path.open
    bval, bvec = gradient_files(path)

    def refused(file: Path, *how: Any, **more: Any) -> Any:
        if file.suffix in {".gz", ".bval"}:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(file, *how, **more)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr("os.access", lambda *_: False)
    for read in (lambda: open_nifti(path), lambda: read_gradients(bval, bvec, np.eye(4))):
        with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); ask its"):
            read()
