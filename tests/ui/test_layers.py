"""Layer data are right without a viewer: order, place, scale, units, names."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.paper import SIGNED
from napari_msp.inference.prediction import Prediction
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import sh_average
from napari_msp.ui.layers import (
    KEY,
    LOOKS,
    Shown,
    map_layer,
    named_apart,
    scan_layers,
    scans_of,
    showing,
    titled,
)
from napari_msp.ui.viewer_axes import corner, from_shown, stored_index, to_shown
from napari_msp.ui.widgets.colours import PINK


@pytest.fixture
def record(scan, tmp_path):
    acquisition = scan("LAS").load(tmp_path)
    return Scan(acquisition=acquisition, given_subject="sub-01", given_platform="ge_st")


def test_scans_of_one_name_are_told_apart_everywhere(record):
    second = replace(record, acquisition=replace(record.acquisition, path=Path("elsewhere.nii")))
    one, other = (map_layer(each, "b0", each.acquisition.b0) for each in (record, second))
    shown = [SimpleNamespace(metadata=one[1]["metadata"])]
    (named,) = named_apart(shown, [other])
    assert named[1]["name"] == "sub-01 ge_st (2) · b0"
    assert list(titled([second])) == ["sub-01 ge_st (2)"]  # whatever became of the first
    made = Prediction(
        given_sh=second.sh,
        given_subject="sub-01",
        provenance=Provenance(target="prisma_st", input="ge_st", title="MSP"),
        target="prisma_st",
        b0=second.acquisition.b0,
        gradients=second.acquisition.gradients,
        source=second,
    )
    (named,) = named_apart([], [map_layer(made, "SH average", sh_average(made.sh))])
    assert named[1]["name"] == "sub-01 MSP prisma_st (2) · SH average"
    (named,) = named_apart(shown, [one])
    assert named[1]["name"] == "sub-01 ge_st · b0"
    third = replace(record, acquisition=replace(record.acquisition, path=Path("third.nii")))
    again = replace(second, acquisition=replace(second.acquisition))
    left = [SimpleNamespace(metadata=other[1]["metadata"])]  # the first has gone
    for each, number in ((third, 3), (again, 2)):
        (named,) = named_apart(left, [map_layer(each, "b0", each.acquisition.b0)])
        assert named[1]["name"] == f"sub-01 ge_st ({number}) · b0"


@pytest.mark.parametrize("affine", ["LAS", "permuted", "oblique"])
def test_layers_are_canonical_with_a_diagonal_scale(affine, scan, tmp_path):
    image = fit_sh(scan(affine).load(tmp_path))
    record = Scan(given_sh=image, given_subject="sub-01", given_platform="ge_st")
    data, options, kind = map_layer(record, "SH average", sh_average(image))
    assert kind == "image"
    assert options["name"] == "sub-01 ge_st · SH average"
    assert options["units"] == ("mm",) * 3
    canonical = image.lattice.to_canonical(sh_average(image))
    # Indices grow upwards, to the back and to the patient's left.
    np.testing.assert_array_equal(data, canonical.transpose(2, 1, 0)[:, ::-1, ::-1])
    sizes = np.linalg.norm(image.lattice.canonical.affine[:3, :3], axis=0)
    np.testing.assert_allclose(options["scale"], sizes[::-1])
    np.testing.assert_array_equal(options["metadata"]["affine"], image.affine)
    assert options["metadata"][KEY].scan is record
    assert "affine" not in options


def test_a_scan_is_shown_with_its_sh_average_on_top(record):
    layers = scan_layers(record)
    assert [options["name"].split(" · ")[1] for _, options, _ in layers] == [
        "b0",
        "colour FA",
        "SH average",
    ]
    assert [options["visible"] for _, options, _ in layers] == [False, False, True]
    colours = layers[1]
    assert colours[1]["rgb"]
    assert colours[0].shape[-1] == 3


def test_a_record_without_a_scan_has_no_b0(record):
    bare = Scan(given_sh=record.sh, given_subject="sub-01", given_platform="MSP prisma_st")
    assert [options["name"] for _, options, _ in scan_layers(bare)] == [
        "sub-01 MSP prisma_st · colour FA",
        "sub-01 MSP prisma_st · SH average",
    ]


@pytest.mark.parametrize("affine", ["LAS", "permuted", "oblique"])
def test_shown_order_is_undone(affine, scan, tmp_path):
    image = fit_sh(scan(affine).load(tmp_path))
    values = np.random.default_rng(0).normal(size=image.mask.shape)
    np.testing.assert_array_equal(
        from_shown(to_shown(values, image.lattice), image.lattice), values
    )


@pytest.mark.parametrize("affine", ["LAS", "permuted", "oblique"])
def test_a_position_leads_to_the_voxel_that_is_seen_there(affine, scan, tmp_path):
    lattice = fit_sh(scan(affine).load(tmp_path)).lattice
    stored = np.arange(np.prod(lattice.shape)).reshape(lattice.shape)
    data = to_shown(stored.astype(float), lattice)
    sizes = lattice.canonical.voxel_sizes[::-1]
    for index in np.ndindex(*data.shape):
        position = tuple(np.array(index) * sizes + corner(lattice) + 0.3 * sizes)
        assert stored[stored_index(position, lattice)] == data[index]
    assert stored_index((1e4, 0, 0), lattice) is None


def test_a_refined_lattice_falls_into_place_on_the_coarse_one():
    affine = np.diag([2.4, 2.4, 2.4, 1.0])
    affine[:3, 3] = (-20, 5, 7)
    coarse = Lattice((5, 6, 7), affine)
    # First and last voxel centres are shared, whatever the spacing.
    np.testing.assert_allclose(corner(coarse), corner(coarse.refined(2)), atol=1e-9)


def test_a_shifted_lattice_is_shown_shifted():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    moved = affine.copy()
    moved[:3, 3] = (2, 4, 6)
    first, second = (np.array(corner(Lattice((4, 4, 4), each))) for each in (affine, moved))
    # Right and anterior run against the axes shown.
    np.testing.assert_allclose(second - first, (6, -4, -2))


def test_equal_values_still_have_a_contrast(record):
    flat = np.ones(record.sh.mask.shape, dtype=np.float32)
    low, high = map_layer(record, "b0", flat)[1]["contrast_limits"]
    assert low < high


def test_a_file_that_was_opened_twice_is_one_scan(scan, tmp_path):
    path = scan(np.diag([2.0, 2.0, 2.0, 1.0]), 30, shape=(7, 6, 5)).write(tmp_path)
    first, second, other = load_scan(path), load_scan(path), load_scan(path)
    assert other.acquisition is not None
    mask = other.acquisition.mask.copy()
    mask[0] = ~mask[0]
    other = replace(other, acquisition=replace(other.acquisition, given_mask=mask))
    layers = [SimpleNamespace(metadata={KEY: Shown(each, "b0")}) for each in (first, second, other)]
    assert scans_of(layers) == [first, other]
    again = ((), {"metadata": {KEY: Shown(second, "b0")}}, "image")
    assert showing(layers, again) is layers[0]
    assert showing(layers[2:], again) is None  # with another mask
    assert showing(layers, ((), {"metadata": {KEY: Shown(second, "FA")}}, "image")) is None


def test_no_map_has_the_colour_of_crosshairs():
    names = {name for name, _ in LOOKS.values()}
    maps = [colormaps[name] for name in names] + [SIGNED]
    colours = np.concatenate([each(np.linspace(0, 1, 64))[:, :3] for each in maps])
    assert np.linalg.norm(colours - to_rgb(PINK), axis=1).min() > 0.3
