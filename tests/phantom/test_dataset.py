"""The written dataset: layout, determinism, lattices, gradient files, errors."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.gradient_files import read_gradients
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.simulate import DatasetRecipe, recipe_of, simulate
from napari_msp.errors import Cancelled, UserError

NAMES = [("ge", "st"), ("prisma", "st"), ("connectom", "st"), ("connectom", "sa")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("heads") / "bids"
    seen = []
    simulate(out, subjects=2, size="tiny", progress=lambda *event: seen.append(event))
    return out, seen


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def stem(session: str, acquisition: str, subject: str = "01") -> str:
    return f"sub-{subject}_ses-{session}_acq-{acquisition}"


def test_layout_is_the_contract(dataset):
    out, seen = dataset
    expected = {"dataset_description.json", "participants.tsv", "README"}
    for derivative in ("brainmask", "noisefree"):
        for name in ("dataset_description.json", "README", ".bidsignore"):
            expected.add(f"derivatives/{derivative}/{name}")
    for subject in ("01", "02"):
        for session, acquisition in NAMES:
            folder = f"sub-{subject}/ses-{session}/dwi"
            name = stem(session, acquisition, subject)
            for suffix in ("nii.gz", "bval", "bvec", "json"):
                expected.add(f"{folder}/{name}_dwi.{suffix}")
                expected.add(f"derivatives/noisefree/{folder}/{name}_desc-noisefree_dwi.{suffix}")
            for suffix in ("nii.gz", "json"):
                expected.add(f"derivatives/brainmask/{folder}/{name}_desc-brain_mask.{suffix}")
    assert set(files_of(out)) == expected
    assert (out / "participants.tsv").read_text().split() == ["participant_id", "sub-01", "sub-02"]
    assert seen[0] == ("sub-01 ge_st", 1, 8)
    assert seen[-1] == ("sub-02 connectom_sa", 8, 8)


def test_descriptions_say_what_it_is(dataset):
    out, _ = dataset
    raw = json.loads((out / "dataset_description.json").read_text())
    assert raw["DatasetType"] == "raw"
    assert raw["NapariMSP"] == {"InputPlatform": "ge_st"}
    assert recipe_of(out) == DatasetRecipe("tiny", 0, 0.0)
    for derivative in ("brainmask", "noisefree"):
        path = out / "derivatives" / derivative / "dataset_description.json"
        described = json.loads(path.read_text())
        assert described["DatasetType"] == "derivative"
        assert described["GeneratedBy"][0]["Name"] == "napari-msp"
    sidecar = json.loads((out / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.json").read_text())
    assert sidecar["EchoTime"] == 0.089
    assert sidecar["Simulated"] is True
    sidecar = json.loads(
        (out / "sub-01/ses-connectom/dwi/sub-01_ses-connectom_acq-sa_dwi.json").read_text()
    )
    assert sidecar["EchoTime"] == 0.068


def test_same_seed_same_bytes_whatever_the_number_of_subjects(dataset, tmp_path):
    out, _ = dataset
    simulate(tmp_path / "again", subjects=1, size="tiny")
    first = {name: b for name, b in files_of(out).items() if "sub-01_" in name}
    again = {name: b for name, b in files_of(tmp_path / "again").items() if "sub-01_" in name}
    assert len(first) == 40
    assert again == first


def test_subjects_differ_in_anatomy(dataset):
    out, _ = dataset
    masks = [
        nib.load(
            out / f"derivatives/brainmask/sub-{s}/ses-connectom/dwi"
            f"/{stem('connectom', 'sa', s)}_desc-brain_mask.nii.gz"
        ).get_fdata()
        for s in ("01", "02")
    ]
    assert 0.005 < np.mean(masks[0] != masks[1]) < 0.2


def test_lattices_are_node_aligned(dataset):
    out, _ = dataset
    lattices = {}
    for (session, acquisition), platform in zip(NAMES, PLATFORMS, strict=True):
        name = stem(session, acquisition)
        image = nib.load(out / f"sub-01/ses-{session}/dwi/{name}_dwi.nii.gz")
        assert "".join(nib.aff2axcodes(image.affine)) == platform.orientation
        mask = nib.load(
            out / f"derivatives/brainmask/sub-01/ses-{session}/dwi/{name}_desc-brain_mask.nii.gz"
        )
        assert mask.shape == image.shape[:3]
        np.testing.assert_array_equal(mask.affine, image.affine)
        canonical = nib.as_closest_canonical(image)
        lattices[platform.name] = Lattice(canonical.shape[:3], canonical.affine)
    ge = lattices["ge_st"]
    np.testing.assert_allclose(ge.voxel_sizes, 2.4, rtol=1e-6)
    assert ge.offset_to(lattices["prisma_st"]) < 1e-5
    assert ge.offset_to(lattices["connectom_st"]) < 1e-5
    fine = lattices["connectom_sa"]
    assert fine.shape == tuple(2 * (n - 1) + 1 for n in ge.shape)
    np.testing.assert_allclose(fine.voxel_sizes, 1.2, rtol=1e-6)
    for corner in np.ndindex(2, 2, 2):
        index = np.array(corner) * (np.array(ge.shape) - 1)
        np.testing.assert_allclose(
            ge.affine @ [*index, 1], fine.affine @ [*(2 * index), 1], atol=1e-4
        )


def test_gradient_files_read_back_in_scanner_axes(dataset):
    out, _ = dataset
    for (session, acquisition), platform in zip(NAMES, PLATFORMS, strict=True):
        path = out / f"sub-01/ses-{session}/dwi/{stem(session, acquisition)}_dwi.nii.gz"
        base = path.with_name(path.name.removesuffix(".nii.gz"))
        image = nib.load(path)
        table = platform.table()
        bval, bvec = base.with_suffix(".bval"), base.with_suffix(".bvec")
        read = read_gradients(bval, bvec, image.affine, image.shape[3])
        np.testing.assert_allclose(read.directions, table.directions, atol=1e-7)
        np.testing.assert_array_equal(read.b_values, table.b_values)
        # FSL's first component points against scanner x in all our files: LAS images have their
        # first axis along -x and keep the sign, RAS images have it along x and negate it.
        np.testing.assert_allclose(
            np.loadtxt(bvec), table.directions.T * [[-1], [1], [1]], atol=1e-7
        )


def test_las_images_show_the_same_head(dataset):
    """Left and right of GE's flipped file must be those of Prisma's."""
    out, _ = dataset

    def b0(session: str) -> np.ndarray:
        name = f"{stem(session, 'st')}_desc-noisefree_dwi.nii.gz"
        image = nib.load(out / f"derivatives/noisefree/sub-01/ses-{session}/dwi/{name}")
        return Lattice(image.shape[:3], image.affine).to_canonical(image.get_fdata()[..., 0])

    ge, prisma = b0("ge"), b0("prisma")
    assert np.corrcoef(ge.ravel(), prisma.ravel())[0, 1] > 0.95
    assert np.corrcoef(ge[::-1].ravel(), prisma.ravel())[0, 1] < 0.6


def test_folder_in_use_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"mine: exists and is not empty; give a new folder"):
        simulate(out, subjects=1, size="tiny")
    assert files_of(tmp_path) == {"mine/thesis.txt": b"precious"}


@pytest.mark.parametrize(
    ("parameter", "value", "remedy"),
    [
        ("size", "huge", "choose from tiny, small, full with size="),
        ("subjects", 0, "give 1 to 10000 with subjects="),
        ("seed", -1, "give a whole number from 0, below 2^64 with seed="),
        ("misalignment", -1.0, "give from 0 to 10 mm with misalignment="),
    ],
)
def test_wrong_parameters_have_a_remedy(tmp_path, parameter, value, remedy):
    with pytest.raises(UserError) as error:
        simulate(tmp_path / "bids", **{"size": "tiny", parameter: value})
    assert error.value.field == parameter
    assert error.value.remedy is not None
    assert error.value.remedy.phrase() == remedy
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path):
    started = []

    def interrupt(*event):
        started.append(list(tmp_path.iterdir()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "bids", subjects=1, size="tiny", progress=interrupt)
    assert len(started[0]) == 1  # it was under way, under another name
    assert started[0][0].name != "bids"
    with pytest.raises(Cancelled):
        simulate(tmp_path / "bids", subjects=1, size="tiny", cancelled=lambda: True)
    assert list(tmp_path.iterdir()) == []
