"""A `grad_dev` beside a scan: what error it makes not to use it."""

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.data.contradictions import find_deviation, measure_deviation
from napari_msp.data.gradients import scanner_to_image_axes

HCP = np.array([[0.02, 0.01, 0.0], [-0.03, 0.0, 0.0], [0.0, 0.0, -0.01]])
"""A matrix that is not symmetric, so that its transpose is another one."""


def hcp_reference(matrix, vectors):
    """HCP's own MATLAB lines: L = reshape(grad_dev, 3, 3); v = bvecs * (I + L); n² and v / n."""
    columns = matrix.ravel().reshape(3, 3, order="F")
    felt = vectors @ (np.eye(3) + columns)
    lengths = np.sqrt(np.diag(felt @ felt.T))
    cosines = np.diag(felt @ vectors.T) / lengths
    return 100 * np.abs(lengths**2 - 1).mean(), np.degrees(np.arccos(cosines)).mean()


@pytest.mark.reference("HCP's published MATLAB lines")
def test_error_is_that_of_hcps_own_lines(spread_out):
    vectors = np.asarray(spread_out(40))
    found = np.concatenate(measure_deviation(HCP[None], vectors))
    assert tuple(found) == pytest.approx(hcp_reference(HCP, vectors), rel=1e-6)


@pytest.mark.parametrize(
    ("matrix", "b", "angle"),
    [(np.zeros((3, 3)), 0, 0), (0.05 * np.eye(3), 10.25, 0), (-0.05 * np.eye(3), 9.75, 0)],
)
def test_a_pure_scale_changes_b_alone(spread_out, matrix, b, angle):
    of_b, angles = measure_deviation(matrix[None], np.asarray(spread_out(12)))
    assert of_b == pytest.approx(b)
    assert angles == pytest.approx(angle, abs=1e-5)


def test_a_small_turn_changes_directions_alone():
    turn = np.zeros((3, 3))
    turn[0, 1], turn[1, 0] = -0.02, 0.02  # about z, by 0.02 rad
    of_b, angles = measure_deviation(turn[None], np.array([[1.0, 0, 0], [0, 1, 0]]))
    assert angles == pytest.approx(np.degrees(np.arctan(0.02)))
    assert of_b == pytest.approx(100 * 0.02**2)


def test_each_voxel_has_its_own(spread_out):
    scales = np.sqrt(1 + np.arange(101) / 1000) - 1  # b is off by 0 to 10 %
    of_b, _ = measure_deviation(scales[:, None, None] * np.eye(3), np.asarray(spread_out(12)))
    assert of_b == pytest.approx(np.linspace(0, 10, 101), abs=1e-9)


class TestBesideAScan:
    def write(self, path, name="grad_dev.nii.gz", volumes=9, mask_only=True):
        image = nib.load(path)
        values = np.full((*image.shape[:3], volumes), 0.3, np.float32)
        mask = np.asarray(nib.load(path.with_name("sub-01_mask.nii.gz")).dataobj) > 0
        if volumes == 9:
            values[mask] = HCP.ravel()  # what lies outside the mask is of no matter
        nib.Nifti1Image(values, image.affine).to_filename(path.with_name(name))

    @pytest.mark.parametrize("name", ["grad_dev.nii.gz", "sub-01_dwi_grad_dev.nii.gz"])
    def test_it_is_said_once_with_the_size_of_the_error(self, tmp_path, scan, affine, name):
        path = scan(affine).write(tmp_path)
        self.write(path, name)
        assert find_deviation(path) == path.with_name(name)
        acquisition = load_acquisition(path)
        vectors = scanner_to_image_axes(acquisition.given_gradients.directions[2:], affine)
        b, angle = hcp_reference(HCP, vectors)
        with pytest.warns(DoubtfulScan, match="grad_dev") as warned:
            acquisition.tell()
            acquisition.tell()
        assert len(warned) == 1
        assert (
            f"{name} is not used: without it, b is off by {b:.1f} % and directions by {angle:.1f}°"
            in acquisition.doubts[0].words
        )

    def test_one_that_cannot_be_read_is_said_too(self, tmp_path, scan):
        path = scan().write(tmp_path)
        self.write(path, volumes=3)
        with pytest.warns(DoubtfulScan, match=r"is not used.*not nine volumes"):
            load_acquisition(path).tell()
