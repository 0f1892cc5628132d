"""Scans whose voxels are no cubes: what they become on import, and what stays as it was."""

import json
import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.cli import main
from napari_msp.data.cubes import (
    MAKE_CUBES,
    Interpolated,
    check_voxel_size,
    cubes_for,
    interpolated_voxels,
)
from napari_msp.data.dataset import open_dataset
from napari_msp.data.importers import import_tree
from napari_msp.data.lattice import Lattice
from napari_msp.errors import RunJob, UserError, every
from napari_msp.signal.fitting import fit_sh

PATTERN = "{subject}/{scanner}/dwi.nii.gz"
NAME = "sub-01/ses-{0}/dwi/sub-01_ses-{0}_dwi.nii.gz"
TALL = np.diag([-2.0, 2.0, 4.0, 1.0])
TALL[:3, 3] = [11.0, -7.0, 5.0]
SHAPE = (10, 9, 8)


def put(tree, made, scanner, metadata=None):
    """Write a scan as `01/<scanner>/dwi.nii.gz`, with gradients, mask and JSON beside it."""
    folder = tree / "01" / scanner
    folder.mkdir(parents=True)
    made.write(folder, stem="scan")
    for file in sorted(folder.glob("scan_dwi.*")):
        file.rename(folder / file.name.replace("scan_", ""))
    (folder / "scan_mask.nii.gz").rename(folder / "dwi_mask.nii.gz")
    if metadata is not None:
        (folder / "dwi.json").write_text(json.dumps(metadata))
    return folder


def smooth(lattice, made):
    """A (X, Y, Z, N) signal of position in mm and volume, smooth over several voxels."""
    indices = np.moveaxis(np.indices(lattice.shape), 0, -1)
    x, y, z = np.moveaxis(indices @ lattice.affine[:3, :3].T + lattice.affine[:3, 3], -1, 0)
    wave = 300 + 40 * np.sin(x / 8) + 30 * np.cos(y / 9) + 50 * np.sin(z / 12)
    volumes = np.full(made.image.shape[-1], 0.5) + 0.01 * np.arange(made.image.shape[-1]) / 30
    volumes[made.b_values == 0] = 1
    return (wave[..., None] * volumes).astype(np.float32)


@pytest.fixture
def tree(tmp_path, scan):
    """One head on a scanner with tall voxels, and on one with cubes."""
    root = tmp_path / "tree"
    tall = scan(TALL, 30, shape=SHAPE)
    put(root, tall, "ge", {"EchoTime": 0.089, "SliceTiming": [0.0] * 8})
    put(root, scan(np.diag([-2.0, 2.0, 2.0, 1.0]), 30, shape=SHAPE), "prisma", {"EchoTime": 0.07})
    return root


def test_voxels_become_cubes_and_cubes_stay_as_they_are(tree, tmp_path):
    out = tmp_path / "bids"
    with pytest.warns(Interpolated, match=r"1 scan of 2\.00 × 2\.00 × 4\.00 mm .* to 2\.00 mm"):
        import_tree(tree, out, PATTERN, voxel_size="auto")
    heads = open_dataset(out)
    tall = nib.load(tree / "01/ge/dwi.nii.gz")
    made = heads.acquisition("sub-01", "ge")
    assert made.lattice.shape == (10, 9, 15)
    np.testing.assert_allclose(made.lattice.voxel_sizes, 2.0)
    np.testing.assert_allclose(made.affine @ [0, 0, 0, 1], tall.affine @ [0, 0, 0, 1])
    # Every other slice is one of the scan's, as it was; splines round.
    scanned = np.asarray(tall.dataobj, dtype=np.float32)
    np.testing.assert_allclose(made.voxels[:, :, ::2], scanned, rtol=1e-4, atol=0.01)
    stated = nib.load(tree / "01/ge/dwi_mask.nii.gz").get_fdata() > 0
    np.testing.assert_array_equal(made.mask[:, :, ::2], stated)
    # A slice between two is inside where either is: the mask of the nearest, both at a tie.
    np.testing.assert_array_equal(made.mask[:, :, 1::2], stated[:, :, :-1] | stated[:, :, 1:])
    for ending in ("bval", "bvec"):
        written = out / NAME.format("ge").replace("nii.gz", ending)
        assert written.read_bytes() == (tree / f"01/ge/dwi.{ending}").read_bytes()
    untouched = out / NAME.format("prisma")
    assert untouched.read_bytes() == (tree / "01/prisma/dwi.nii.gz").read_bytes()
    mask = out / "derivatives/brainmask" / NAME.format("prisma").replace("_dwi", "_desc-brain_mask")
    assert mask.read_bytes() == (tree / "01/prisma/dwi_mask.nii.gz").read_bytes()
    beside = untouched.with_name(untouched.name.replace("nii.gz", "json"))
    assert beside.read_bytes() == (tree / "01/prisma/dwi.json").read_bytes()


def test_sidecars_and_readme_say_so(tree, tmp_path):
    out = tmp_path / "bids"
    with pytest.warns(Interpolated):
        import_tree(tree, out, PATTERN, voxel_size=2.5)
    for path in (NAME, "derivatives/brainmask/" + NAME.replace("_dwi", "_desc-brain_mask")):
        said = json.loads((out / path.format("ge").replace("nii.gz", "json")).read_text())
        assert said["ResampledFrom"] == [2.0, 2.0, 4.0]
        assert said["ResampledTo"] == 2.5
        assert "cubic splines" in said["Resampling"]
    known = json.loads((out / NAME.format("ge").replace("nii.gz", "json")).read_text())
    assert known["EchoTime"] == 0.089
    assert "SliceTiming" not in known  # of slices that are no more
    assert (
        "1 scan of 2.00 × 2.00 × 4.00 mm interpolated to 2.50 mm." in (out / "README").read_text()
    )


def test_unasked_nothing_is_interpolated(tree, tmp_path):
    out = tmp_path / "bids"
    import_tree(tree, out, PATTERN)
    assert (out / NAME.format("ge")).read_bytes() == (tree / "01/ge/dwi.nii.gz").read_bytes()
    assert "Nothing was resampled." in (out / "README").read_text()


@pytest.mark.parametrize("oblique", [False, True])
def test_a_smooth_head_is_the_same_in_cubes(scan, tmp_path, oblique):
    affine = TALL.copy()
    if oblique:
        turn = np.linalg.qr(np.array([[9.0, 1, 2], [-1, 8, 1], [-2, 0, 9]]))[0]
        affine[:3, :3] = turn @ affine[:3, :3]
    made = scan(affine, 30, shape=(14, 12, 10))
    lattice = Lattice((14, 12, 10), affine)
    signal = smooth(lattice, made)
    folder = put(tmp_path / "tree", made, "ge")
    nib.save(nib.Nifti1Image(signal, affine), folder / "dwi.nii.gz")
    nib.save(
        nib.Nifti1Image(np.ones(lattice.shape, dtype=np.uint8), affine), folder / "dwi_mask.nii.gz"
    )
    with pytest.warns(Interpolated):
        import_tree(tmp_path / "tree", tmp_path / "bids", PATTERN, voxel_size="auto")
    cubes = open_dataset(tmp_path / "bids").acquisition("sub-01", "ge")
    inner = (slice(3, -3), slice(3, -3), slice(5, -5))  # a spline's mirror fades from the edge
    wanted = smooth(cubes.lattice, made)
    np.testing.assert_allclose(cubes.voxels[inner], wanted[inner], rtol=4e-3)
    given = fit_sh(open_dataset(tmp_path / "bids").acquisition("sub-01", "ge")).coefficients
    assert np.isfinite(given).all()
    # b-vectors mean the same directions in the scanner as before.
    before = made.load(tmp_path).gradients.directions
    np.testing.assert_allclose(cubes.gradients.directions, before, atol=1e-5)


def test_coarser_cubes_are_means_over_voxels(scan, tmp_path):
    made = scan(np.diag([2.0, 2, 2, 1]), 6, shape=(14, 12, 10)).load(tmp_path)
    noise = np.random.default_rng(0).normal(100, 10, made.image.shape).astype(np.float32)
    noisy = replace(made, image=nib.Nifti1Image(noise, made.affine), every_volume=True)
    cubes, _ = interpolated_voxels(noisy, noisy.lattice, noisy.lattice.scaled_to(4.0))
    assert cubes.mean() == pytest.approx(100, abs=1)
    assert cubes.std() < 5


def test_volumes_that_are_left_out_when_read_stay_in_the_file(tree, tmp_path):
    """A trace image with b = 0: the gradient table must stay the image's."""
    path = tree / "01/ge/dwi.nii.gz"
    image = nib.load(path)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    trace = voxels[..., 2:].mean(axis=-1, keepdims=True)
    nib.save(nib.Nifti1Image(np.append(voxels, trace, axis=-1), image.affine), path)
    for ending, row in (("bval", " 0"), ("bvec", " 0")):
        table = path.with_name(f"dwi.{ending}")
        table.write_text("\n".join(line + row for line in table.read_text().splitlines()))
    with pytest.warns(UserWarning):  # of the trace image, and of the cubes
        import_tree(tree, tmp_path / "bids", PATTERN, voxel_size="auto")
    made = nib.load(tmp_path / "bids" / NAME.format("ge"))
    assert made.shape == (10, 9, 15, voxels.shape[-1] + 1)
    read = open_dataset(tmp_path / "bids").acquisition("sub-01", "ge")
    assert read.voxels.shape[-1] == voxels.shape[-1]
    assert "left out" in " ".join(read.said())


@pytest.mark.parametrize(
    ("sizes", "wanted", "shape"),
    [
        ((2, 2, 4), "auto", (10, 9, 15)),
        ((2, 2, 4), 2.0, (10, 9, 15)),
        ((2, 2, 3), "auto", (10, 9, 12)),
        ((4, 2, 2), "auto", (19, 9, 8)),
        ((2, 2, 4), 3.0, (7, 7, 11)),
        ((2, 2, 2), "auto", None),
        ((2, 2, 2.02), "auto", None),
        ((2, 2, 2), 3.0, None),
    ],
)
def test_what_the_cubes_are(sizes, wanted, shape):
    cubes = cubes_for(Lattice(SHAPE, np.diag([*sizes, 1.0])), wanted)
    assert (None if cubes is None else cubes.shape) == shape


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), 11, "small"])
def test_no_edge(wrong, tree, tmp_path, capsys):
    with pytest.raises(UserError, match="is not a valid voxel size"):
        check_voxel_size(wrong)
    arguments = ["import", tree, tmp_path / "bids", "--pattern", PATTERN, "--voxel-size", wrong]
    assert main([str(each) for each in arguments]) == 2
    assert "is not a valid voxel size; give auto or a size up to 10 mm" in capsys.readouterr().err
    assert not (tmp_path / "bids").exists()


def test_the_commands_that_errors_name_are_there(tree, tmp_path, capsys):
    for remedy in every(MAKE_CUBES):
        assert isinstance(remedy, RunJob)
        assert remedy.setting == "voxel_size"
    out = tmp_path / "bids"
    arguments = ["import", tree, out, "--pattern", PATTERN, "--voxel-size", "auto"]
    with warnings.catch_warnings():
        warnings.simplefilter("always", Interpolated)
        assert main([str(each) for each in arguments]) == 0
    assert "warning: " in capsys.readouterr().err
    assert open_dataset(out).acquisition("sub-01", "ge").lattice.isotropic
