"""Glyphs: the ODF beside DIPY's, and fibres seen along their direction and in its colour."""

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.core.sphere import Sphere
from dipy.reconst.shm import QballModel

from napari_msp.signal.glyphs import draw_glyphs, glyph_picture, largest_signal, odf, radii
from napari_msp.signal.spherical_harmonics import (
    design_matrix,
    fitting_matrix,
    rotation_matrix,
    spread_directions,
)

DIRECTIONS = spread_directions(60)

AXIAL = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
"""Right, down and towards us of a radiologist's axial plane: left, back and feet."""


def fibre(*along):
    """(28,) SH coefficients of the signal of a fibre along a direction."""
    unit = np.array(along) / np.linalg.norm(along)
    signal = np.exp(-1200 * (0.3e-3 + 1.4e-3 * np.square(DIRECTIONS @ unit)))
    return fitting_matrix(DIRECTIONS, 6, 1e-4) @ signal


def seen(tile):
    """Direction (right, down) of a glyph on its tile, and its length over breadth."""
    weight = tile[..., 3] / 255.0
    down, right = np.mgrid[: tile.shape[0], : tile.shape[1]] - (len(tile) - 1) / 2
    spread = np.cov(np.stack([right.ravel(), down.ravel()]), aweights=weight.ravel())
    lengths, axes = np.linalg.eigh(spread)
    return axes[:, 1], np.sqrt(lengths[1] / lengths[0])


@pytest.mark.filterwarnings("ignore:The legacy descoteaux07")
def test_the_odf_is_that_of_dipy():
    signal = np.exp(-1200 * (0.3e-3 + 1.4e-3 * np.square(DIRECTIONS @ np.array([0.6, 0, 0.8]))))
    table = gradient_table(np.r_[0, np.full(60, 1200.0)], bvecs=np.r_[[[0, 0, 0]], DIRECTIONS])
    model = QballModel(table, 6, smooth=0, assume_normed=True)
    vertices = spread_directions(100)
    theirs = model.fit(np.r_[1, signal]).odf(Sphere(xyz=vertices))
    ours = design_matrix(vertices) @ odf(fitting_matrix(DIRECTIONS, 6, 0.0) @ signal)
    np.testing.assert_allclose(ours / ours.mean(), theirs / theirs.mean(), rtol=1e-6)


def test_radii_run_from_0_to_1_in_each_voxel_or_share_a_scale():
    both = np.stack([fibre(1, 0, 0), 0.3 * fibre(0, 1, 1)])
    basis = design_matrix(spread_directions(362))
    series, offsets = radii(both, "odf")
    values = series @ basis.T - offsets[:, None]
    np.testing.assert_allclose(values.min(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(values.max(axis=1), 1, atol=1e-5)
    largest = largest_signal(both)
    series, offsets = radii(both, "signal", largest)
    assert largest == pytest.approx((both @ basis.T).max(), rel=0.02)
    np.testing.assert_allclose(series * largest - offsets[:, None], both, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("along", [(1, 0, 0), (0, 1, 0), (2, 1, 0), (1, -2, 0.5), (0, 0, 1)])
@pytest.mark.parametrize("view", [AXIAL, AXIAL[[0, 2, 1]] * [[1], [1], [-1]]])
def test_a_fibre_is_seen_where_it_runs_and_in_its_colour(along, view):
    unit = np.array(along) / np.linalg.norm(along)
    tile = draw_glyphs(fibre(*along)[None], "odf", view, 32)[0]
    axis, longer = seen(tile)
    across = view[:2] @ unit
    if np.linalg.norm(across) > 0.1:
        assert abs(axis @ across) / np.linalg.norm(across) > 0.99
        assert longer > 1.15
    else:
        assert longer < 1.1
    # The end that is nearer lies where the fibre leads, and is coloured by it.
    right, down = across * 0.9 * (1 if view[2] @ unit >= 0 else -1)
    colour = tile[int(16 + 16 * down), int(16 + 16 * right), :3].astype(float)
    np.testing.assert_allclose(colour / np.linalg.norm(colour), np.abs(unit), atol=0.3)
    # The signal is weakest along the fibre.
    axis, longer = seen(draw_glyphs(fibre(*along)[None], "signal", view, 32)[0])
    if np.linalg.norm(across) > 0.8:
        assert abs(axis @ across) / np.linalg.norm(across) < 0.2
        assert longer > 1.2


def test_what_is_nearer_hides_what_is_behind():
    # Seen from the feet, the lobe that comes down and to the left is in front: with a mirrored
    # view it is the other one, and light falls on it alike.
    tilted = fibre(1, 0, -0.9)[None]
    tile = draw_glyphs(tilted, "odf", AXIAL, 48)[0].astype(int)
    behind = draw_glyphs(tilted, "odf", AXIAL * [[1], [1], [-1]], 48)[0].astype(int)
    sphere = np.zeros((1, 28))
    sphere[0, 0] = np.sqrt(4 * np.pi)
    ball = draw_glyphs(sphere, "signal", AXIAL, 48)[0].astype(int)
    assert np.abs(tile - behind).max() > 30
    # A ball of radius 1 fills its tile, lit from the upper left.
    assert ball[..., 3].mean() / 255 == pytest.approx(np.pi / 4, abs=0.02)
    bright = ball[..., :3].sum(axis=-1)
    assert bright[12:20, 12:20].mean() > 1.5 * bright[28:36, 28:36].mean()


def test_turning_a_series_and_the_view_alike_changes_nothing_but_colours():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = rotation_matrix(turn) @ fibre(1, 2, 3)
    one = draw_glyphs(fibre(1, 2, 3)[None], "odf", AXIAL, 24)[0]
    other = draw_glyphs(turned[None], "odf", AXIAL @ turn.T, 24)[0]
    assert np.abs(one[..., 3].astype(int) - other[..., 3]).mean() < 2


def test_voxels_that_are_no_squares_keep_round_glyphs_in_their_middle():
    inside = np.array([[True, False]])
    picture = glyph_picture(np.tile(fibre(1, 1, 0), (1, 2, 1)), inside, "odf", AXIAL, (24, 48))
    assert picture.shape == (24, 96, 4)
    assert not picture[:, 48:].any()
    tile = draw_glyphs(fibre(1, 1, 0)[None], "odf", AXIAL, 24)[0]
    np.testing.assert_array_equal(picture[:, 12:36], tile)
    assert not picture[:, :12].any()
