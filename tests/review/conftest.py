"""Folders of predictions without networks: sidecars and small images as `harmonize` writes them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.inference.review_maps import MadeFrom, ReviewImage, ReviewMaps, write_review_maps
from reviewed import write_prediction


@pytest.fixture
def predict() -> Callable[..., Path]:
    """Write a prediction, see `write_prediction`."""
    return write_prediction


@pytest.fixture(scope="session")
def pristine_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve predictions, of which sub-07 has little signal and sub-03 a small mask."""
    root = tmp_path_factory.mktemp("cohort") / "predictions"
    describe_derivative(root, root, HARMONIZED, root.parent / "heads")
    for number in range(1, 13):
        numbers = {
            "SNR": 8.0 if number == 7 else 20.0 + 0.5 * number,
            "MaskVolume": 900.0 if number == 3 else 1400.0 + 10 * number,
            "DisagreementOfOrder0": 0.01 + 0.0001 * number,
        }
        write_prediction(root, f"{number:02d}", numbers, seed=number)
    return root


@pytest.fixture
def cohort(pristine_cohort: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may write to."""
    return Path(shutil.copytree(pristine_cohort, tmp_path / "predictions"))


def write_small_maps(root: Path, image: Path, bright: float = 1.0) -> None:
    """Write maps of a prediction: balls whose left half is brighter."""
    shape = (20, 24, 18)
    x, y, z = (np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)) - 0.5
    mask = x**2 + y**2 + z**2 < 0.2
    affine = np.diag([-6.0, 6.0, 6.0, 1.0])  # so that voxel 0 lies furthest to the right
    affine[:3, 3] = [57.0, -69.0, -51.0]
    average = (np.where(mask, 0.5 + 0.4 * (x > 0), 0) * bright).astype(np.float32)
    colour = np.where(mask[..., None], [0.7, 0.0, 0.1], 0).astype(np.float32)
    of = ReviewImage.of(average, colour, mask, affine)
    error = np.where(mask, 0.002, 0).astype(np.float32)
    files = MadeFrom(image, root=root)
    write_review_maps(files, {None: ReviewMaps(of, of, None, error, "expected error")})


@pytest.fixture(scope="session")
def pristine_pictures(pristine_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same twelve with small maps."""
    root = Path(shutil.copytree(pristine_cohort, tmp_path_factory.mktemp("maps") / "predictions"))
    for image in sorted(root.rglob("*_dwi.nii.gz")):
        write_small_maps(root, image)
    return root


@pytest.fixture
def with_maps(pristine_pictures: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may write to."""
    return Path(shutil.copytree(pristine_pictures, tmp_path / "predictions"))
