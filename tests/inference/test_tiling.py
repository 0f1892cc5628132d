"""Tiling is exact, bounded in memory, and can be cancelled."""

import threading

import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, ornt_transform

from napari_msp.data.lattice import CANONICAL, reorder
from napari_msp.errors import Cancelled, UserError
from napari_msp.inference.passes import (
    LIVE_LAYERS,
    bytes_per_voxel,
    most_bytes_per_voxel,
    polled,
)
from napari_msp.inference.tiling import (
    best_edges,
    in_memorys_order,
    plan_tiles,
    run_whole_image,
)
from napari_msp.options import Options
from napari_msp.signal.channels import Standardisation

CPU = torch.device("cpu")


def prediction(network, x, far=None):
    if hasattr(network, "singles"):
        return network(x, far=far).second
    return network.forward_features(x, far)[0]


def everywhere_on(scale, shape):
    """Masks that take nothing away."""
    return {scale: np.ones([scale * (length - 1) + 1 for length in shape], dtype=bool)}


def whole(network, channels, mask, **options):
    options = {"masks": everywhere_on(network.scale, mask.shape)} | options
    return run_whole_image(
        lambda x, far: {"y": prediction(network, x, far)},
        network,
        channels,
        mask,
        scale=network.scale,
        halo=network.halo,
        device=CPU,
        **options,
    )["y"]


def untiled(network, channels):
    x = torch.from_numpy(np.moveaxis(channels, -1, 0).copy())[None]
    with torch.no_grad():
        return np.moveaxis(prediction(network, x)[0].numpy(), 0, -1)


def holes(shape, seed=0):
    """A blob with holes, and one voxel far from it."""
    mask = np.random.default_rng(seed).random(shape) < 0.4
    mask[:, shape[1] // 2 + 2 :] = False
    mask[-1, -1, -1] = True
    return mask


@pytest.mark.parametrize("tile", [1, 4, 5, 100])
@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("kind", ["msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned"])
def test_tiles_equal_one_untiled_pass(kind, target, tile, make_network):
    network = make_network(kind, target, width=0.1)
    shape = (9, 12, 7) if tile > 1 else (4, 5, 3)
    channels = np.random.default_rng(1).normal(size=(*shape, 28)).astype(np.float32)
    everywhere = np.ones(shape, dtype=bool)
    expected = untiled(network, channels)
    found = whole(network, channels, everywhere, tile=tile)
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("stored", [[[0, -1], [1, 1], [2, 1]], [[2, 1], [0, -1], [1, -1]]])
def test_results_lie_as_they_are_stored_in_their_units_and_mask(stored, tile, make_network):
    network, orientation = make_network("hned", "connectom_sa", width=0.1), np.array(stored)
    rng = np.random.default_rng(5)
    channels = rng.normal(size=(6, 5, 7, 28)).astype(np.float32)
    mask = rng.random((6, 5, 7)) < 0.8
    fine = rng.random((11, 9, 13)) < 0.6
    units = Standardisation(*rng.uniform(1, 2, (2, 28)).astype(np.float32))
    plain = whole(network, channels, mask, tile=tile)
    found = whole(
        network,
        channels,
        mask,
        tile=tile,
        masks={2: fine},
        units=lambda name: units if name == "y" else None,
        stored=orientation,
    )
    wanted = plain * units.deviation + units.mean
    # Where no tile is, results are 0 in any unit.
    np.testing.assert_array_equal(found, np.where(fine[..., None] & (plain != 0), wanted, 0))
    lies = reorder(found, ornt_transform(CANONICAL, orientation))
    assert lies.flags.c_contiguous
    assert np.shares_memory(lies, found)
    # What a GPU writes there comes to the same.
    again = np.zeros_like(lies)
    place = apply_orientation(again, orientation)
    ready, there = in_memorys_order(torch.from_numpy(np.moveaxis(found, -1, 0).copy()), place)
    assert there.is_contiguous()
    there.copy_(ready)
    np.testing.assert_array_equal(again, lies)


def test_a_result_lies_where_the_network_wrote_it_unless_others_do_too(make_network):
    channels = np.random.default_rng(6).normal(size=(4, 5, 3, 28)).astype(np.float32)
    mask, before, given = np.ones((4, 5, 3), bool), channels.copy(), {}
    mask[1, 2, 1] = False

    def run(x, far):
        doubled = 2 * x
        given.update(input=x, twice=doubled, again=doubled, own=3 * x)
        return dict(given)

    found = run_whole_image(
        run,
        make_network("shresnet", "prisma_st"),
        channels,
        np.ones_like(mask),
        scale=1,
        halo=4,
        device=CPU,
        masks={1: mask},
        units=lambda _: Standardisation(*np.full((2, 28), 7, np.float32)),
        stored=np.array([[0, -1], [1, 1], [2, -1]]),
    )
    np.testing.assert_array_equal(channels, before)
    for name, factor in {"input": 1, "twice": 2, "again": 2, "own": 3}.items():
        wanted = np.where(mask[..., None], factor * before * 7 + 7, 0)
        np.testing.assert_array_equal(found[name], wanted)
    assert np.shares_memory(found["own"], given["own"].numpy())


@pytest.mark.parametrize("tile", [None, 4])
def test_a_voxels_channels_lie_side_by_side_by_every_stride(tile, make_network):
    """Torch reads the layout from the strides, that of the one example too."""
    network = make_network("shresnet", "prisma_st", width=0.1)  # some of its layers are small
    seen = []

    def run(x, far):
        seen.append((x, prediction(network, x, far)))
        return {"y": seen[-1][1]}

    shape = (6, 5, 7)
    run_whole_image(
        run,
        network,
        np.ones((*shape, 28), dtype=np.float32),
        np.ones(shape, dtype=bool),
        scale=1,
        halo=network.halo,
        device=CPU,
        masks=everywhere_on(1, shape),
        tile=tile,
    )
    for last in seen[-1]:  # others may be small ones, by which memory is measured
        wanted = torch.empty(last.shape, memory_format=torch.channels_last_3d)
        assert last.stride() == wanted.stride()


@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
def test_every_voxel_near_the_mask_is_computed(target, make_network):
    network = make_network("shresnet", target)
    shape = (11, 13, 9)
    channels = np.random.default_rng(2).normal(size=(*shape, 28)).astype(np.float32)
    mask = holes(shape)
    fine = np.zeros([network.scale * (n - 1) + 1 for n in shape], dtype=bool)
    step = network.scale
    for x, y, z in np.argwhere(mask):  # every voxel between an in-mask node and its neighbours
        fine[tuple(slice(max(step * a - step + 1, 0), step * a + step) for a in (x, y, z))] = True
    expected = untiled(network, channels)
    for tile in (None, 3, 5):
        found = whole(network, channels, mask, tile=tile)
        assert np.abs(found - expected)[fine].max() <= 1e-5 * np.ptp(expected)


def test_tiles_without_mask_are_left_out():
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[2:6, 3:7, 4:8] = True
    mask[33:36, 30:34, 31:35] = True
    tiles = plan_tiles(mask, halo=3, edge=8)
    assert 2 <= len(tiles) <= 16
    assert plan_tiles(np.zeros((5, 5, 5), bool), 3, 2) == []
    covered = np.zeros(mask.shape, dtype=int)
    for tile in tiles:
        covered[tile.core] += 1
        for part, crop in zip(tile.core, tile.crop, strict=True):
            assert crop.start == max(part.start - 3, 0)
            assert crop.stop == min(part.stop + 3, 40)
    assert covered.max() == 1
    assert (covered[mask] == 1).all()


def test_memory_bounds_the_tile(make_network):
    network = make_network("shresnet", "connectom_sa", width=0.1)
    channels = np.random.default_rng(3).normal(size=(25, 24, 23, 28)).astype(np.float32)
    mask = np.ones(channels.shape[:3], dtype=bool)
    budget = 12_000_000
    largest, calls = 0, []

    def watch(_, inputs, output):
        nonlocal largest
        largest = max(largest, 4 * (inputs[0].numel() + output.numel()))

    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.register_forward_hook(watch)
    found = whole(
        network,
        channels,
        mask,
        memory=budget,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert len(calls) > 8
    assert calls == [(i, calls[0][1]) for i in range(len(calls))]
    assert largest <= budget
    at_once = whole(network, channels, mask, memory=1e12)
    assert np.abs(found - at_once).max() <= 1e-5 * np.ptp(at_once)


BUDGETS = {
    ("msp", "prisma_st"): 15e6,
    ("msp", "connectom_sa"): 20e6,
    ("diqt", "prisma_st"): 6e6,
    ("diqt", "connectom_sa"): 20e6,
    ("shresnet", "prisma_st"): 6.5e6,
    ("shresnet", "connectom_sa"): 20e6,
}
"""Bytes in which the far layers of 26 × 22 × 21 voxels fit, and not the whole network."""


@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("kind", ["msp", "diqt", "shresnet"])
def test_beyond_memory_what_reaches_far_is_computed_once(kind, target, make_network):
    """Tiles of DIQT alone, whose halo is large, would each compute nearly all of it."""
    network = make_network(kind, target, width=0.1)
    shape = (26, 22, 21)
    channels = np.random.default_rng(5).normal(size=(*shape, 28)).astype(np.float32)
    seen = []
    own = network.singles[target] if kind == "msp" else network
    first = next(each for each in own.modules() if isinstance(each, torch.nn.Conv3d))
    first.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[2:]))
    calls = []
    found = whole(
        network,
        channels,
        np.ones(shape, dtype=bool),
        memory=BUDGETS[kind, target],
        progress=lambda done, of: calls.append((done, of)),
    )
    total = calls[-1][1]
    assert total > 1
    assert calls == [(done, total) for done in range(total + 1)]
    assert sum(each == shape for each in seen) == 1
    assert all(max(each) == 8 for each in seen if each != shape), "but for probes"
    expected = untiled(network, channels)
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


def test_memory_estimate_counts_the_largest_layer():
    layer = torch.nn.Conv3d(28, 50, 3, padding=1)
    found = bytes_per_voxel(lambda x: {"y": layer(x)}, layer, 28, CPU)
    assert found == pytest.approx(4 * (LIVE_LAYERS * (28 + 50) + 50))


@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("kind", ["msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned"])
def test_bound_of_the_memory_is_never_below_what_is_measured(kind, target, make_network):
    network = make_network(kind, target, width=0.1)
    with torch.inference_mode():
        found = bytes_per_voxel(lambda x: {"y": prediction(network, x)}, network, 28, CPU)
    assert found <= most_bytes_per_voxel(network, 28)


def test_cancelling_is_polled_before_every_convolution(make_network):
    network = make_network("diqt", "prisma_st")
    convolutions = sum(isinstance(m, torch.nn.Conv3d) for m in network.modules())
    channels = np.zeros((4, 4, 4, 28), dtype=np.float32)
    polls = 0

    def count():
        nonlocal polls
        polls += 1
        return False

    whole(network, channels, np.ones((4, 4, 4), bool), tile=4, cancelled=count)
    assert polls >= convolutions
    with pytest.raises(Cancelled):
        whole(network, channels, np.ones((4, 4, 4), bool), tile=4, cancelled=lambda: True)
    assert all("forward" not in vars(module) for module in network.modules())


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv3d(6, 10, 3, stride=2, padding=1),
        torch.nn.ConvTranspose3d(6, 10, 3, stride=2, padding=1),
        torch.nn.Conv3d(6, 10, 3, padding=1, bias=False),
        torch.nn.Conv3d(6, 10, 3, padding=1, groups=2),
    ],
)
def test_convolution_in_parts_gives_the_same(layer, monkeypatch):
    monkeypatch.setattr("napari_msp.inference.passes.LARGEST_CONVOLUTION", 1000.0)
    x = torch.randn(1, 6, 7, 8, 9)
    polls = []

    def poll() -> bool:
        polls.append(1)
        return False

    with torch.no_grad():
        expected = layer(x)
        with polled(layer, poll):
            found = layer(x)
    torch.testing.assert_close(found, expected)
    assert len(polls) == (10 if layer.groups == 1 else 1)


def test_little_is_computed_between_two_polls_of_a_full_width_diqt(monkeypatch):
    """What bounds the wait is the work of one call, not the clock of a test.

    A small volume with a bound as much smaller stands for a brain.
    """
    from napari_msp.networks.registry import build_single

    network = build_single("diqt", target="t", scales={"t": 2}).eval()
    bound = 1e7
    monkeypatch.setattr("napari_msp.inference.passes.LARGEST_CONVOLUTION", bound)
    work: list[float] = []
    polls = 0

    def poll():
        nonlocal polls
        polls += 1
        return False

    for name in ("conv3d", "conv_transpose3d"):
        real = getattr(torch.nn.functional, name)

        def counted(x, weight, *rest, real=real):
            work.append(x[:, 0].numel() * weight.numel())
            return real(x, weight, *rest)

        monkeypatch.setattr(f"napari_msp.inference.passes.functional.{name}", counted)
    with torch.no_grad(), polled(network, poll):
        network(torch.zeros(1, 28, 12, 12, 10))
    assert polls == len(work)
    assert max(work) <= 1.5 * bound
    assert sum(work) > 100 * bound


def test_cancelling_from_another_thread_ends_the_pass(make_network):
    network = make_network("diqt", "connectom_sa")
    channels = np.zeros((24, 24, 20, 28), dtype=np.float32)
    asked = threading.Event()
    threading.Timer(0.05, asked.set).start()
    with pytest.raises(Cancelled):
        while True:  # however quick the machine is, one pass meets the request
            whole(network, channels, np.ones(channels.shape[:3], bool), cancelled=asked.is_set)


@pytest.mark.parametrize("halo", [0, 3, 26])
@pytest.mark.parametrize("voxels", [0, 9_000, 40_000, 70_000, 1e9])
def test_best_edges_keep_within_memory_and_compute_no_more_than_cubes(halo, voxels):
    mask = np.ones((60, 48, 40), dtype=bool)

    def crops(edges):
        sizes = [[p.stop - p.start for p in t.crop] for t in plan_tiles(mask, halo, edges)]
        return [a * b * c for a, b, c in sizes]

    edges = best_edges(mask, halo, voxels)
    found = crops(edges)
    fitting = [sum(crops(edge)) for edge in range(8, 61) if max(crops(edge)) <= voxels]
    if fitting:
        assert max(found) <= voxels
        assert sum(found) <= min(fitting)
    elif max(found) > voxels:  # nothing fits
        assert edges == (8, 8, 8)
    if voxels == 1e9:
        assert len(found) == 1


def test_thin_images_are_cut_too():
    assert best_edges(np.ones((3, 3, 3), dtype=bool), 26, 0) == (3, 3, 3)


@pytest.mark.parametrize("memory", [0, -1.0, float("nan"), float("inf")])
def test_what_is_no_memory_is_refused(memory):
    with pytest.raises(UserError, match="is not a valid amount of memory; give more than 0"):
        Options(memory=memory)
