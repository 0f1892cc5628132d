"""The far sets that bases are chosen by and measured on: frozen, and strangers to the phantom."""

from pathlib import Path

import far
import numpy as np
import pytest
from far.digests import KEPT, digest
from far.scanners import spiral, spread_along
from far.signals import MODELS
from far.writing import write_set

from napari_msp.data.dataset import open_dataset
from napari_msp.signal.fitting import supported_order
from napari_msp.strict_json import read_json

TINY = {
    "amber": "54f97bc5efaa",
    "basalt": "5b976addc201",
    "cobalt": "0e55415ea134",
    "flint": "98be708a07f2",
    "garnet": "dc3781d34dfe",
    "jasper": "47f702694e79",
}
"""Digest of the first head of each set on 13³ voxels."""


@pytest.mark.slow
@pytest.mark.parametrize("name", far.SETS)
def test_a_far_set_is_what_it_was(name):
    assert digest(far.make_head(far.SETS[name], 0, edge=13)) == TINY[name]


def test_every_head_has_a_digest():
    kept = read_json(KEPT)
    assert set(kept) == set(far.SETS)
    assert all(len(set(digests)) == far.sets.HEADS for digests in kept.values())


def test_far_sets_share_no_code_with_the_phantom():
    for path in Path(far.__file__).parent.glob("*.py"):
        for line in path.read_text().splitlines():
            assert "phantom" not in line or "import" not in line


@pytest.fixture(scope="module")
def scans():
    return list(far.make_head(far.SETS["basalt"], 0, edge=13))


def test_a_written_set_is_a_dataset_with_twins(scans, tmp_path, monkeypatch):
    which = far.SETS["basalt"]
    monkeypatch.setattr(far.writing, "make_head", lambda *_: scans)
    assert write_set(tmp_path / "basalt", which, heads=1) == [TINY["basalt"]]
    dataset = open_dataset(tmp_path / "basalt")
    assert dataset.platforms == ["new_st", "old_st", "strong_sa", "strong_st"]
    for scan in scans:
        name = scan.scanner.name
        read, twin = dataset.acquisition("sub-01", name), dataset.noise_free("sub-01", name)
        assert (np.asarray(read.image.dataobj) == scan.dwi).all()
        assert (np.asarray(twin.image.dataobj) == scan.noise_free).all()
        assert (read.mask == scan.mask).all()
        assert np.abs(read.gradients.directions - scan.table.directions).max() < 1e-6
    sizes = {p: dataset.acquisition("sub-01", p).lattice.voxel_sizes[0] for p in dataset.platforms}
    assert sizes["old_st"] == pytest.approx(2.4)
    assert sizes["strong_sa"] == pytest.approx(1.2)


def test_noise_free_truth_differs_from_the_scan_by_noise_alone(scans):
    scan = scans[0]
    ratio = scan.dwi[scan.mask] / scan.noise_free[scan.mask]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert not np.array_equal(scan.dwi, scan.noise_free)


@pytest.mark.parametrize("count", [30, 45])
def test_directions_determine_order_six(count):
    directions = spiral(count, 3)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(count))
    assert supported_order(directions) >= 6 if count >= 45 else supported_order(directions) >= 4


def test_a_point_spread_keeps_constants_and_widens_with_the_window():
    fine, wanted = np.arange(-20, 21) * 1.2, np.arange(-4, 5) * 2.4
    sharp, soft = (spread_along(fine, wanted, 0.8, 2.4, window) for window in (1.0, 0.75))
    assert sharp.sum(axis=1) == pytest.approx(np.ones(9), abs=1e-5)
    assert soft.sum(axis=1) == pytest.approx(np.ones(9), abs=1e-5)
    assert soft[4].max() < sharp[4].max()


@pytest.mark.parametrize("name", MODELS)
def test_signals_fall_with_b_and_most_along_fibres(name):
    model = MODELS[name].drawn(np.random.default_rng(0))
    b = np.array([0.0, 500.0, 1500.0, 2500.0])
    for left in (model.grey(b), model.isotropic(b), model.fibres(b, np.full(4, 0.5))):
        assert left[0] == pytest.approx(1)
        assert (np.diff(left) < 0).all()
    along, across = model.fibres(np.full(2, 1200.0), np.array([1.0, 0.0]))
    assert along < 0.5 < across
