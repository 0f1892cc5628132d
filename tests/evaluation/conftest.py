"""Small heads for the tests of evaluation."""

from collections.abc import Callable

import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.benchmark.results import FLOOR, PatchResult, Result, Results
from napari_msp.evaluation.measures.catalogue import Measure
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


# --- A made-up evaluation ----------------------------------------------------------------------

METHODS = {"alignment": 1.2, "SHResNet": 1.0, "<b>|single": 0.97, "MSP": 0.9, FLOOR: 0.5}
TARGETS = {"prisma_st": 38e-5, "connectom_sa": 220e-5}
MEASURES = {
    "sh_mse": (1.0, ("scan", "noise-free")),
    "fa_error_white": (2e4, ("noise-free",)),
    "bias_fluid": (-3e3, ("noise-free",)),
    "brand_new": (1.0, ("scan",)),
}
RUNS = (("heads-1", 0), ("heads-1", 1), ("heads-1", 2), ("heads-2", 0), ("heads-3", 0))


def described_as(label, unit, explanation, group=None, better="lowest") -> Measure:
    return Measure(label, label, unit, explanation, lambda pair: 0.0, group, better)


DESCRIBED = {
    "sh_mse": described_as("SH MSE", "SH units²", "Over voxels and coefficients."),
    "fa_error_white": described_as(
        "FA error in white matter", "%", "Mean absolute error of FA.", "Maps"
    ),
    "bias_fluid": described_as("Bias in fluid", "%", "Of the mean signal.", "Bias", "nearest 0"),
    "brand_new": described_as("Brand-new measure", "", "Known to no heading."),
}


def make_evaluation(subjects: int = 6) -> tuple[Results[Result], Results[PatchResult]]:
    """Five runs of a cross of datasets and seeds; subject and run move all methods alike."""
    rng = np.random.default_rng(1)
    results, patches = [], []
    for dataset, seed in RUNS:
        for subject in range(subjects):
            base = 1 + 0.1 * subject + 0.05 * seed + 0.02 * int(dataset[-1])
            for target, size in TARGETS.items():
                for method, gain in METHODS.items():
                    error = base * size * gain * rng.uniform(0.98, 1.02)
                    who = (method, target, dataset, seed, f"sub-{subject:02d}")
                    for measure, (factor, references) in MEASURES.items():
                        for reference in references:
                            if method == FLOOR and (reference, measure) != ("scan", "sh_mse"):
                                continue
                            results.append(Result(*who, reference, measure, factor * error))
                    if method != FLOOR:
                        patches += [
                            PatchResult(*who, "scan", f"{k}-5-5", error * rng.uniform(0.8, 1.2))
                            for k in range(3)
                        ]
    return Results(results), Results(patches)


@pytest.fixture(scope="session")
def evaluation() -> tuple[Results[Result], Results[PatchResult]]:
    """Results and patches of a made-up evaluation."""
    return make_evaluation()


@pytest.fixture(scope="session")
def described() -> dict[str, Measure]:
    """What a reader must know of the measures of the made-up evaluation."""
    return DESCRIBED
