"""One voxel closely: its signal all round a plane."""

import numpy as np
import pytest

from napari_msp.evaluation.figures.slices import PLANES
from napari_msp.signal.fitting import evaluate_sh, fit_sh
from napari_msp.signal.spherical_harmonics import (
    PLANE_SIDES,
    fitting_matrix,
    plane_directions,
    signal_profile,
    spread_directions,
)


@pytest.mark.parametrize("plane", PLANE_SIDES)
def test_the_profile_is_the_evaluated_image(scan, tmp_path, plane):
    image = fit_sh(scan().load(tmp_path))
    angles, signal = signal_profile(image.coefficients[image.mask], plane, count=24)
    assert angles == pytest.approx(np.arange(24) * np.pi / 12)
    expected = evaluate_sh(image, plane_directions(plane, angles))[image.mask]
    np.testing.assert_allclose(signal, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("plane", "fibre", "lowest"),
    [
        ("axial", (0, 1, 0), 90),  # front-back is up
        ("axial", (-1, 1, 0), 45),  # to the left, which is on the right, and to the front
        ("axial", (1, 1, 0), 135),
        ("coronal", (-1, 0, 1), 45),
        ("sagittal", (0, -1, 1), 45),  # to the back, which is on the right, and upwards
    ],
)
def test_a_tensors_signal_is_lowest_along_its_fibre(plane, fibre, lowest):
    axis = np.array(fibre) / np.linalg.norm(fibre)
    tensor = 0.4e-3 * np.eye(3) + 1.2e-3 * np.outer(axis, axis)

    def measured(directions):
        return np.exp(-1000 * np.einsum("ni,ij,nj->n", directions, tensor, directions))

    sampled = spread_directions(90)
    coefficients = fitting_matrix(sampled, 6, 0.0) @ measured(sampled)
    angles, signal = signal_profile(coefficients, plane)
    assert np.degrees(angles[signal[:90].argmin()]) == pytest.approx(lowest, abs=1)
    # What is left over is beyond order 6.
    np.testing.assert_allclose(signal, measured(plane_directions(plane, angles)), atol=2e-3)


def test_sides_are_those_of_the_figure():
    for plane, (right, top) in PLANE_SIDES.items():
        letters = PLANES[plane].letters  # left, right, top, bottom
        assert (right, top) == (letters[1], letters[2])


def test_an_unknown_plane_is_refused():
    with pytest.raises(ValueError, match="'oblique'; choose from axial"):
        signal_profile(np.zeros(28), "oblique")
