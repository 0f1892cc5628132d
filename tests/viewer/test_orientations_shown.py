"""However a scan is stored, it is shown the same, and napari is not aborted."""

from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
from patterns import ORIENTATIONS

from napari_msp.ui.layers import make_layer
from napari_msp.ui.reader import read


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


@pytest.fixture
def head(scan):
    """A scan with nothing symmetric about it, and a mask that shows it."""
    made = scan(np.diag([2.0, 2.5, 3.0, 1.0]), 30, shape=(7, 6, 5))
    mask = np.ones(made.image.shape[:3], np.uint8)
    mask[:2, :3] = mask[5:, 4:] = mask[:, :, 0] = 0
    made.mask.dataobj[:] = mask
    return made


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_all_48_orientations_are_shown_alike(viewer, head, every, tmp_path):
    assert len(ORIENTATIONS) == 48
    orientations, seen = ORIENTATIONS[::every], []
    for orientation in orientations:
        path = head.stored_along(orientation).write(tmp_path)
        *_, sh_average = read(str(path))
        for layer in viewer.layers[-1:]:
            layer.visible = False  # quicker than removing it
        viewer.add_layer(make_layer(sh_average))
        viewer.dims.set_current_step(0, 3)
        seen.append(viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(np.int16))
    first = seen[0]
    assert first.std() > 25
    for mirrored in (first[::-1], first[:, ::-1], first[::-1, ::-1]):
        assert np.abs(first - mirrored).mean() > 12  # the picture would tell
    for orientation, canvas in zip(orientations, seen, strict=True):
        # A fit in another order of voxels differs in the last bit, a pixel by one step of 255.
        assert np.abs(canvas - first).max() <= 1, orientation


@pytest.mark.parametrize("turned", [0, 13, 47])
def test_an_oblique_scan_is_shown_along_its_own_grid(viewer, pixels, scan, turned, tmp_path):
    made = scan("oblique").stored_along(ORIENTATIONS[turned])
    viewer.open(made.write(tmp_path), plugin="napari-msp")
    viewer.reset_view()
    assert pixels().std() > 0.05
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, (2.5, 2.0, 2.0))
        np.testing.assert_array_equal(layer.affine.linear_matrix, np.eye(3))
        np.testing.assert_allclose(layer.metadata["affine"], made.image.affine, atol=1e-6)


def test_all_three_axes_can_be_looked_along(viewer, pixels, head, tmp_path):
    path = head.write(tmp_path)
    viewer.open(path, plugin="napari-msp")
    sizes = dict(zip("SPL", (3.0, 2.5, 2.0), strict=True))
    counts = dict(zip("SPL", head.image.shape[2::-1], strict=True))
    for order in permutations(range(3)):
        viewer.dims.order = order
        viewer.reset_view()
        canvas = pixels()
        rows, columns = (np.ptp(each) for each in np.nonzero(canvas.mean(-1) > 0.02))
        down, right = ("SPL"[axis] for axis in order[1:])
        # In true proportions, as far as the mask lets it be seen.
        assert rows / columns == pytest.approx(
            (sizes[down] * counts[down]) / (sizes[right] * counts[right]), rel=0.35
        )
    assert nib.aff2axcodes(head.image.affine) == ("R", "A", "S")
