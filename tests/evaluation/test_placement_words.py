"""What is said where voxels of one size do not lie on each other."""

import numpy as np
from scipy.spatial.transform import Rotation

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.line_up import placement

GRID = Lattice((10, 11, 12), np.diag([2.4, 2.4, 2.4, 1.0]))


def moved(change, shape=GRID.shape):
    return Lattice(shape, change @ GRID.affine)


def test_grids_of_one_voxel_size_say_what_tells_them_apart():
    shift, turn = np.eye(4), np.eye(4)
    shift[:3, 3] = (0.9, 0, 1.2)
    turn[:3, :3] = Rotation.from_euler("z", 3, degrees=True).as_matrix()
    sizes = "2.40 × 2.40 × 2.40 mm"
    said = {
        moved(shift): f"its voxels lie 1.50 mm beside the others (both {sizes})",
        moved(turn): f"its grid is turned by 3.0° (both {sizes})",
        moved(np.eye(4), (10, 11, 14)): "its grid has 10 × 11 × 14 and not 10 × 11 × 12 voxels "
        f"(both {sizes})",
    }
    for lattice, words in said.items():
        assert placement(lattice, GRID) == f"interpolated linearly, as {words}"
    coarse = Lattice((5, 5, 6), np.diag([4.8, 4.8, 4.8, 1.0]))
    assert placement(coarse, GRID) == f"interpolated linearly from 4.80 × 4.80 × 4.80 mm to {sizes}"
