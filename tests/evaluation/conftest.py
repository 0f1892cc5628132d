"""Small heads for the tests of evaluation."""

from collections.abc import Callable

import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.signal.sh_image import SHImage

HeadMaker = Callable[..., SHImage]

SHAPE = (22, 26, 12)
AFFINES = {
    "RAS": np.diag([2.0, 2.0, 3.0, 1.0]),
    "LAS": np.diag([-2.0, 2.0, 3.0, 1.0]),
    "permuted": np.array([[0, 0, -2.0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]]),
}
SHAPES = {"RAS": SHAPE, "LAS": SHAPE, "permuted": (26, 12, 22)}
CENTRE = np.array([1.0, -3.0, 4.0])


def lattice_of(storage: str) -> Lattice:
    """One set of voxel centres round CENTRE, stored in different orders."""
    affine, shape = AFFINES[storage].copy(), SHAPES[storage]
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Lattice(shape, affine)


def world(lattice: Lattice) -> np.ndarray:
    """(X, Y, Z, 3) scanner positions in mm, relative to CENTRE."""
    indices = np.moveaxis(np.indices(lattice.shape), 0, -1)
    return indices @ lattice.affine[:3, :3].T + lattice.affine[:3, 3] - CENTRE


def make_head(storage: str | Lattice = "RAS", b_value: float | None = 1200.0) -> SHImage:
    """An ellipsoid whose coefficients are smooth functions of the scanner position."""
    lattice = lattice_of(storage) if isinstance(storage, str) else storage
    at = world(lattice)
    mask = np.square(at / [19.0, 23.0, 16.0]).sum(-1) < 1
    phase = np.random.default_rng(3).uniform(0, 6, 28)
    wave = np.sin(at @ np.array([0.11, 0.07, 0.09]))[..., None]
    coefficients = 0.12 * np.cos(phase + 2 * wave) / np.sqrt(1 + np.arange(28))
    coefficients[..., 0] = 1.4 + 0.3 * wave[..., 0]
    coefficients[~mask] = 0
    return SHImage(coefficients.astype(np.float32), lattice.affine, mask, b_value, 0.006)


@pytest.fixture
def head() -> HeadMaker:
    """Make a head, see `make_head`."""
    return make_head


@pytest.fixture
def lattice() -> Callable[[str], Lattice]:
    """Make a lattice by the name of its storage."""
    return lattice_of


@pytest.fixture
def positions() -> Callable[[Lattice], np.ndarray]:
    """Give scanner positions round the head's centre, see `world`."""
    return world
