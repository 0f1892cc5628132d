"""Patches and crops: what they hold, and how symmetries turn them."""

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import NotRegistered
from napari_msp.errors import UserError
from napari_msp.learning.heads import Head, load_head, prepare_study
from napari_msp.learning.optimisation import masked_error, sh_unit_weights, training_loss
from napari_msp.learning.sampling import (
    CropSampler,
    Examples,
    PatchSampler,
    Symmetry,
    smaller_crops,
)
from napari_msp.learning.schedule import Recipe, recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.channels import GridImage, Standardisation, measure_standardisation
from napari_msp.signal.spherical_harmonics import design_matrix, grid_symmetries

SCALES = {"prisma_st": 1, "connectom_sa": 2}
FEW = TrainingSettings(preset="paper", voxels_per_head=5)


@pytest.fixture(scope="module")
def loaded(heads):
    dataset = open_dataset(heads)
    return [load_head(dataset, s, "ge_st", list(SCALES), [1200.0]) for s in ("sub-01", "sub-02")]


@pytest.fixture(scope="module")
def examples(loaded):
    names = {"ge_st": [head.input for head in loaded]}
    names |= {target: [head.targets[target] for head in loaded] for target in SCALES}
    statistics = {name: measure_standardisation(each, True) for name, each in names.items()}
    return Examples(loaded, SCALES, "ge_st", statistics)


def test_every_in_mask_voxel_centres_one_patch_an_epoch(loaded, examples):
    sampler = PatchSampler(examples, Recipe(patch=3), TrainingSettings(seed=1))
    inside = sum(int(head.input.mask.sum()) for head in loaded)
    assert sampler.steps_per_epoch == -(-inside // 12)
    centres = []
    for step in range(sampler.steps_per_epoch):
        centres += [patch[:, 1, 1, 1].numpy().tobytes() for patch in sampler.batch(0, step).input]
    assert len(centres) == inside
    assert len(set(centres)) == inside


def test_epochs_and_phases_draw_in_another_order(examples):
    sampler = PatchSampler(examples, Recipe(patch=3), TrainingSettings(seed=1))
    first = sampler.batch(0, 0).input
    assert torch.equal(first, sampler.batch(0, 0).input)
    assert not torch.equal(first, sampler.batch(0, sampler.steps_per_epoch).input)
    assert not torch.equal(first, sampler.batch(1, 0).input)


def test_paper_patches_are_eleven_and_central_nineteen(examples):
    batch = PatchSampler(examples, Recipe(batch=4), FEW).batch(0, 0)
    assert batch.input.shape == (4, 28, 11, 11, 11)
    assert batch.targets["prisma_st"].shape == (4, 28, 11, 11, 11)
    assert batch.targets["connectom_sa"].shape == (4, 28, 19, 19, 19)
    assert batch.trim == {"prisma_st": 0, "connectom_sa": 1}


def test_patch_holds_the_standardised_surroundings(loaded, examples):
    start = np.array([-2, 3, 4])
    batch = examples.cut([(1, start)], 6, [None], trimmed=True)
    head = loaded[1]
    statistics = measure_standardisation([h.targets["connectom_sa"] for h in loaded], True)
    whole = statistics.apply(head.targets["connectom_sa"])
    expected = np.zeros((9, 9, 9, 28))
    # Fine voxel 2·start + 1 comes first; the first three lie before the volume's edge.
    expected[3:] = whole[0:6, 7:16, 9:18]
    found = np.moveaxis(batch.targets["connectom_sa"][0].numpy(), 0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not batch.masks["connectom_sa"][0, 0, :3].any()


def test_crops_stay_inside_and_are_turned(examples):
    sampler = CropSampler(examples, Recipe(8, 3, augment=True), TrainingSettings())
    batch = sampler.batch(0, 5)
    assert batch.input.shape == (3, 28, 8, 8, 8)
    assert batch.targets["connectom_sa"].shape == (3, 28, 15, 15, 15)
    assert batch.trim == {"prisma_st": 0, "connectom_sa": 0}
    plain = CropSampler(examples, Recipe(8, 3), TrainingSettings())
    assert not torch.equal(batch.input, plain.batch(0, 5).input)


def test_crop_larger_than_a_head_shrinks_to_it(examples):
    sampler = CropSampler(examples, Recipe(50, 1), TrainingSettings(steps_per_epoch=2))
    assert sampler.batch(0, 0).input.shape[2:] == (11, 11, 11)


@pytest.mark.parametrize("index", range(0, 48, 5))
def test_a_symmetry_turns_places_and_directions_together(index):
    """g(S x, S u) = f(x, u), by evaluating the series."""
    matrix = grid_symmetries()[index]
    random = np.random.default_rng(index)
    coefficients = random.normal(size=(28, 5, 5, 5)).astype(np.float32)
    directions = random.normal(size=(9, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    turned, mask = Symmetry(matrix)(
        torch.from_numpy(coefficients), torch.arange(125).view(5, 5, 5) % 7 == 0
    )
    before = np.einsum("nc,cxyz->nxyz", design_matrix(directions), coefficients)
    after = np.einsum("nc,cxyz->nxyz", design_matrix(directions @ matrix.T), turned.numpy())
    for place in np.ndindex(5, 5, 5):
        moved = tuple(np.round(matrix @ (np.array(place) - 2) + 2).astype(int))
        np.testing.assert_allclose(
            after[(slice(None), *moved)], before[(slice(None), *place)], atol=1e-4
        )
        assert bool(mask[moved]) == (np.ravel_multi_index(place, (5, 5, 5)) % 7 == 0)


def test_loss_sees_the_mask_only():
    prediction, target = torch.zeros(1, 28, 3, 3, 3), torch.zeros(1, 28, 3, 3, 3)
    mask = torch.zeros(1, 1, 3, 3, 3, dtype=torch.bool)
    mask[..., 1, 1, 1] = True
    target[:, :, 0, 0, 0] = 100.0
    assert masked_error(prediction, target, mask) == 0
    target[:, :, 1, 1, 1] = 2.0
    assert masked_error(prediction, target, mask) == pytest.approx(4.0)
    assert masked_error(prediction, target, torch.zeros_like(mask)) == 0


def test_weighted_loss_is_proportional_to_the_error_in_sh_units():
    random = np.random.default_rng(0)
    statistics = Standardisation(
        random.normal(size=28).astype(np.float32), random.uniform(0.01, 1, 28).astype(np.float32)
    )
    mask = torch.ones(1, 1, 2, 2, 2, dtype=torch.bool)
    weights = sh_unit_weights(statistics)
    ratios = []
    for _ in range(3):
        a, b = (random.normal(size=(2, 2, 2, 28)).astype(np.float32) for _ in range(2))
        first, second = (torch.from_numpy(np.moveaxis(c, -1, 0)[None].copy()) for c in (a, b))
        loss = masked_error(first, second, mask, weights)
        units = np.square(statistics.undo(a) - statistics.undo(b), dtype=float).mean()
        ratios.append(loss.item() / units)
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-4)


@pytest.mark.parametrize(("branch_losses", "second"), [(False, 1.0), (True, 1.0), (False, 3.0)])
def test_two_stage_loss_by_hand(examples, branch_losses, second):
    torch.manual_seed(0)
    singles = {
        name: build_single("shresnet", target=name, scales=SCALES, width=0.1) for name in SCALES
    }
    network = MSP(singles, "connectom_sa", width=0.1).eval()
    batch = PatchSampler(examples, Recipe(batch=2), FEW).batch(0, 0)
    outputs = network(batch.input, 0.3)

    def error(value, platform):
        trim = batch.trim[platform]
        inner = slice(trim, value.shape[-1] - trim)
        squares = (value[..., inner, inner, inner] - batch.targets[platform]).double().square()
        inside = batch.masks[platform].expand_as(squares)
        return squares[inside].mean()

    expected = error(outputs.first["prisma_st"], "prisma_st")
    expected += error(outputs.first["connectom_sa"], "connectom_sa")
    expected += second * error(outputs.second, "connectom_sa")
    if branch_losses:
        expected += error(outputs.branches["prisma_st"], "connectom_sa")
    found = training_loss(network, batch, 0.3, branch_losses, second_weight=second)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_target_off_the_lattice_is_resampled_and_said_so(make_heads, quick, tmp_path):
    root = make_heads(tmp_path, subjects=1)
    path = next(root.glob("sub-01/ses-prisma/dwi/*_dwi.nii.gz"))
    for each in (path, path.with_name(path.name.replace("_dwi", "_mask"))):
        image = nib.load(each)
        affine = image.affine.copy()
        affine[:3, 3] += 0.5
        data = np.asarray(image.dataobj)
        nib.Nifti1Image(data, affine).to_filename(each)
    head = load_head(open_dataset(root), "sub-01", "ge_st", list(SCALES), [1200.0])
    assert head.off_lattice == ("prisma_st",)
    assert head.targets["prisma_st"].lattice.matches(head.input.lattice)
    study = prepare_study(open_dataset(root), quick(held_out=()))
    (said,) = study.interpolated
    assert said.startswith("on prisma_st 1 of 1 scan (sub-01) is not on the input's voxel grid: ")
    assert smaller_crops(study, recipe_for(quick(crop=11))) == []
    (said,) = smaller_crops(study, recipe_for(quick(crop=12)))
    assert said.startswith("crops have an edge of 11 voxels instead of 12, because the image")


def changed(root, platform, change):
    """Change voxels and affine of sub-01's scan, and of its mask."""
    for path in root.glob(f"sub-01/ses-{platform}/dwi/*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(*change(image.get_fdata(), image.affine.copy())), path)
    return root


def moved(affine, millimetres):
    affine[0, 3] += millimetres
    return affine


def shifted(root, shift):
    return changed(root, "prisma", lambda data, affine: (data, moved(affine, shift)))


def with_air(data, affine):
    """Put 7 voxels of air to the left and to the right."""
    beside = [(7, 7)] + [(0, 0)] * (data.ndim - 1)
    return np.pad(data, beside), moved(affine, -7 * affine[0, 0])


def test_a_head_that_lies_elsewhere_on_a_target_is_told(make_heads, tmp_path):
    root = shifted(make_heads(tmp_path, subjects=1), 7.2)
    words = r"sub-01 on prisma_st: its brain is 7\.2 mm from that on ge_st: they are not reg"
    with pytest.warns(NotRegistered, match=words):
        load_head(open_dataset(root), "sub-01", "ge_st", ["prisma_st"], [1200.0])


@pytest.mark.parametrize(("shift", "share"), [(16.8, 36), (500.0, 0)])
def test_brains_that_hardly_overlap_teach_nothing(make_heads, tmp_path, shift, share):
    root = shifted(make_heads(tmp_path, subjects=1), shift)
    for platform in ("ge", "prisma"):
        changed(root, platform, with_air)
    with pytest.raises(
        UserError, match=rf"its brain overlaps only {share} % with the one on ge_st"
    ):
        load_head(open_dataset(root), "sub-01", "ge_st", ["prisma_st"], [1200.0])


def test_slabs_of_one_head_that_share_some_slices_teach(make_heads, tmp_path):
    """Brain that the other scan did not see says nothing against their places."""
    root = make_heads(tmp_path, subjects=1)
    changed(root, "ge", lambda data, affine: (data[:7], affine))
    changed(root, "prisma", lambda data, affine: (data[4:], moved(affine, 4 * affine[0, 0])))
    with pytest.warns(NotRegistered, match="or one is cut off"):
        head = load_head(open_dataset(root), "sub-01", "ge_st", ["prisma_st"], [1200.0])
    taught, known = head.targets["prisma_st"].mask, head.input.mask
    shared = taught.any(axis=(1, 2))
    assert shared.sum() == 3
    np.testing.assert_array_equal(taught[shared], known[shared])


def test_axes_of_a_tilted_target_are_the_inputs(loaded):
    """A head that lies tilted in both scanners gives the same training data as a straight one."""
    from scipy.spatial.transform import Rotation

    from napari_msp.learning.sampling import Channels
    from napari_msp.signal.channels import into_grid
    from napari_msp.signal.sh_image import SHImage
    from napari_msp.signal.spherical_harmonics import rotate

    straight = loaded[0].input
    turn = Rotation.from_euler("xyz", [20, -10, 30], degrees=True).as_matrix()
    affine = straight.lattice.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    tilted = into_grid(SHImage(rotate(straight.coefficients, turn), affine, straight.mask))
    np.testing.assert_allclose(
        Channels.of(tilted).coefficients, Channels.of(straight).coefficients, atol=1e-5
    )


def test_empty_mask_has_no_standardisation():
    empty = GridImage(
        np.zeros((2, 2, 2, 28), np.float32),
        np.zeros((2, 2, 2), bool),
        Lattice((2, 2, 2), np.eye(4)),
    )
    with pytest.raises(ValueError, match="no in-mask voxel"):
        measure_standardisation([empty], True)
    assert isinstance(
        Standardisation.from_json({"mean": [0.0], "deviation": [1.0]}).mean[0], np.float32
    )
    assert Head.__dataclass_fields__.keys() >= {"subject", "input", "targets"}
