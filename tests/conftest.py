"""What all tests share: counting comparisons with references, MRtrix3, small acquisitions."""

import os

# In processes that tests start, too: arrays are small here, and threads mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import gc
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dipy.core.sphere import HemiSphere, disperse_charges
from hypothesis import HealthCheck, settings
from scipy.spatial.transform import Rotation

from napari_msp import packaged
from napari_msp.bids import DESCRIPTION, dataset_description
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.phantom import scan as phantom
from napari_msp.data.phantom.head import ScannerGrid, SimulatedHead, make_head
from napari_msp.data.phantom.subjects import Pose, Subject
from napari_msp.files import write_json

SLAB = Path(__file__).parents[2] / "shared/data/philips_slab/sub-01_dwi.nii.gz"
"""A slab of a real scan that some checkouts have beside them."""

TINY = 150_000
"""Voxels of the grid on which a tiny head is made, at most."""

HEADS = 8
"""That are kept."""

PATIENCE = 180_000
"""Milliseconds in which what a window does has to happen; only a test that fails waits so long."""

settings.register_profile(
    "ours",
    derandomize=True,  # the same examples everywhere
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),  # a busy machine is slow
)
settings.load_profile("ours")


@pytest.fixture(scope="session", autouse=True)
def no_packaged_base() -> Generator[None, None, None]:
    """Let trainings start from nothing: what they give must not hang on the base's weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "BASE", "none.safetensors")
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None, None, None]:
    """Keep to one thread, whatever a test before set."""
    torch = sys.modules.get("torch")  # which is not for every test
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def heads_made_once() -> Generator[None, None, None]:
    """Keep the last tiny simulated heads: to make one takes longer than to scan it once more."""
    kept: dict[bytes, SimulatedHead] = {}

    def once(subject: Subject, pose: Pose, grid: ScannerGrid, *bundles: Any) -> SimulatedHead:
        if np.prod(grid.shape) > TINY:
            return make_head(subject, pose, grid, *bundles)
        key = pickle.dumps((subject, pose, grid, bundles))
        if key not in kept:
            kept[key] = make_head(subject, pose, grid, *bundles)
        if len(kept) > HEADS:
            kept.pop(next(iter(kept)))
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "make_head", once)
        yield


@pytest.fixture
def qtbot(qtbot: Any) -> Any:
    """Let what is waited for take long: five seconds are little on a busy machine."""
    for name in ("active", "callback", "exposed", "signal", "signals", "until"):
        patient = partial(getattr(qtbot, f"wait_{name}"), timeout=PATIENCE)
        setattr(qtbot, f"wait_{name}", patient)
        setattr(qtbot, f"wait{name.title()}", patient)
    return qtbot


@pytest.fixture
def runs_of_singles(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often the single network of each target is run from now on."""
    from napari_msp.networks.base import SingleNetwork  # torch is not for every test

    runs: Counter[str] = Counter()
    real = SingleNetwork.run

    def counted(self: SingleNetwork, *given: Any) -> Any:
        runs[self.target] += 1
        return real(self, *given)

    monkeypatch.setattr(SingleNetwork, "run", counted)
    return runs


# --- Comparisons with independent references -------------------------------------------------

_RAN = pytest.StashKey[Counter[str]]()
_SKIPPED = pytest.StashKey[Counter[str]]()


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # what is imported until the tests begin is no garbage
    config.addinivalue_line("markers", "slow: by nature, left to `make test-slow`")
    config.stash[_RAN] = Counter()
    config.stash[_SKIPPED] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the quick tests first, each group in its usual order; leave out those without data.

    Tests on the real slab repeat, on a scan, what others compare on made-up ones: where there is no
    slab they are not collected, which is no skipped comparison.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if not SLAB.exists():
        without = [item for item in items if "slab_path" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported, and look more seldom at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count the comparisons; in CI, turn a skipped one into a failure."""
    report = yield
    names = [mark.args[0] for mark in item.iter_markers("reference")]
    if names and report.skipped:
        item.config.stash[_SKIPPED].update(names)
        if in_ci():
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"comparison with {', '.join(names)} did not run: {reason}"
    elif names and report.when == "call":
        item.config.stash[_RAN].update(names)
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ran, skipped = config.stash[_RAN], config.stash[_SKIPPED]
    each = ", ".join(f"{name} {count}" for name, count in sorted(ran.items()))
    line = f"comparisons with independent references: {ran.total()} ran"
    line += f" ({each})" if each else ""
    line += f", {skipped.total()} skipped"
    if skipped:
        line += f" ({', '.join(sorted(skipped))})"
    if not SLAB.exists():
        line += "; tests on the real slab left out: it is not beside this checkout"
    terminalreporter.write_line(line, red=bool(skipped), green=not skipped)


# --- References ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mrtrix() -> Callable[..., str]:
    """Run an MRtrix3 command: mrtrix("amp2sh", source, target, "-lmax", "6")."""
    if shutil.which("amp2sh") is None:
        pytest.skip("MRtrix3 is not installed")  # a failure in CI, by the hook above

    def run(command: str, *arguments: object) -> str:
        result = subprocess.run(
            [command, *map(str, arguments), "-quiet", "-force", "-nthreads", "1"],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"{command}: {result.stderr}"
        return result.stdout

    return run


@pytest.fixture(scope="session")
def slab_path() -> Path:
    """The real slab's image; tests that want it are left out where it is absent."""
    return SLAB


# --- Small acquisitions ----------------------------------------------------------------------

AFFINES = {
    "RAS": np.diag([2.0, 2.0, 2.5, 1.0]),
    "LAS": np.diag([-2.0, 2.0, 2.5, 1.0]),
    "permuted": np.array([[0, 0, 2.5, 0], [-2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]]),
    "oblique": np.eye(4),
}
AFFINES["oblique"][:3, :3] = Rotation.from_euler("zyx", [25, -15, 35], degrees=True).as_matrix()
AFFINES["oblique"] = AFFINES["oblique"] @ np.diag([-2.0, 2.0, 2.5, 1.0])
for _affine in AFFINES.values():
    _affine[:3, 3] = [-7.0, 11.0, 3.0]


@cache
def spread(count: int) -> np.ndarray:
    """(count, 3) unit vectors, pushed apart over the sphere as electric charges with their twins.

    Each lies on a random side, as in real tables, where the sides are not all one half.
    """
    rng = np.random.default_rng(count)
    start = rng.normal(size=(count, 3))
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    hemisphere, _ = disperse_charges(HemiSphere(xyz=start), 500)
    directions = np.asarray(hemisphere.vertices) * rng.choice([-1.0, 1.0], size=(count, 1))
    directions.setflags(write=False)  # shared by all who ask
    return directions


def fsl_vectors(directions: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Scanner directions as a .bvec file holds them, by FSL's own description.

    FSL works in voxel axes that are mirrored in x where the image is stored neurologically.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = np.linalg.solve(axes, directions.T).T
    return along * [-1, 1, 1] if np.linalg.det(axes) > 0 else along


@dataclass(frozen=True)
class Scan:
    """A made-up scan: image, mask, and a gradient table in scanner axes."""

    image: nib.Nifti1Image
    mask: nib.Nifti1Image
    b_values: np.ndarray
    directions: np.ndarray

    def write(self, folder: Path, stem: str = "sub-01", suffix: str = ".nii.gz") -> Path:
        """Write image, mask and FSL's two gradient files; give the image's path."""
        path = folder / f"{stem}_dwi{suffix}"
        self.image.to_filename(path)
        self.mask.to_filename(folder / f"{stem}_mask{suffix}")
        np.savetxt(folder / f"{stem}_dwi.bval", self.b_values[None], fmt="%g")
        vectors = fsl_vectors(self.directions, self.image.affine)
        np.savetxt(folder / f"{stem}_dwi.bvec", vectors.T, fmt="%.9f")
        return path

    def load(self, folder: Path, **options: str) -> Acquisition:
        return load_acquisition(self.write(folder, **options))

    def stored_along(self, orientation: np.ndarray) -> "Scan":
        """The same scan with voxels stored along other axes (a nibabel orientation)."""
        return replace(
            self,
            image=self.image.as_reoriented(orientation),
            mask=self.mask.as_reoriented(orientation),
        )

    @property
    def weighted(self) -> np.ndarray:
        """(N,) which volumes are not b=0."""
        return self.b_values > 50

    @property
    def normalised(self) -> np.ndarray:
        """(X, Y, Z, M) float64 signal over the mean b=0."""
        signal = np.asarray(self.image.dataobj, dtype=float)
        return signal[..., self.weighted] / signal[..., ~self.weighted].mean(-1, keepdims=True)


def make_scan(
    affine: np.ndarray | str = "LAS",
    directions: np.ndarray | int = 60,
    b_values: tuple[float, ...] = (1200.0,),
    shape: tuple[int, int, int] = (8, 7, 6),
    noise: float = 0.0,
) -> Scan:
    """Fibres that turn with the voxel, in part isotropic; two b=0 volumes, then each shell."""
    affine = AFFINES[affine] if isinstance(affine, str) else affine
    table = spread(directions) if isinstance(directions, int) else directions
    x, y, z = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    azimuth, polar = 4 * x + 2 * y, 0.3 + 2.2 * z + y
    fibre = np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=-1
    )
    share = (0.15 + 0.7 * np.roll(y, 1, axis=2))[..., None]
    base = (700 + 400 * x + 200 * z * y)[..., None]
    volumes, values, rows = [base, base], [0.0, 0.0], [np.zeros((2, 3))]
    for b in b_values:
        along = np.square(fibre @ table.T)
        stick = np.exp(-b * (0.3e-3 + 1.4e-3 * along))
        volumes.append(base * (share * stick + (1 - share) * np.exp(-b * 0.8e-3)))
        values += [b] * len(table)
        rows.append(table)
    signal = np.concatenate(volumes, axis=-1)
    signal += noise * np.random.default_rng(7).normal(size=signal.shape)
    mask = np.ones(shape, dtype=np.uint8)
    mask[0], mask[:, -1] = 0, 0
    image = nib.Nifti1Image(signal.astype(np.float32), affine)
    return Scan(image, nib.Nifti1Image(mask, affine), np.array(values), np.concatenate(rows))


@pytest.fixture(scope="session")
def scan() -> Callable[..., Scan]:
    """Make a small scan, see `make_scan`."""
    return make_scan


@pytest.fixture(scope="session")
def spread_out() -> Callable[[int], np.ndarray]:
    """Make well-spread directions, see `spread`."""
    return spread


@pytest.fixture(params=sorted(AFFINES))
def affine(request: pytest.FixtureRequest) -> np.ndarray:
    """Affines of each kind, one at a time."""
    return AFFINES[request.param].copy()


# --- Small travelling heads ------------------------------------------------------------------

PLATFORMS = {"ge_st": (1, 0.85), "prisma_st": (1, 1.0), "connectom_sa": (2, 1.1)}
"""Of the small heads: lattice scale, and the power that stands for the platform's b-value."""


def write_heads(
    root: Path,
    subjects: int = 3,
    shape: tuple[int, int, int] = (13, 12, 11),
    directions: int = 30,
    b_values: tuple[float, ...] = (1200.0,),
) -> Path:
    """Write a travelling-heads dataset whose platforms differ by a power of the signal.

    Much quicker than the simulated heads of the package, and with nothing to look at.
    """
    for number in range(1, subjects + 1):
        fine_shape = (2 * shape[0] - 1, 2 * shape[1] - 1, 2 * shape[2] - 1)
        axes = np.diag([-1.2, 1.2, 1.2, 1.0])
        fine = make_scan(axes, directions, b_values, shape=fine_shape, noise=5.0)
        signal = np.asarray(fine.image.dataobj) * (1 + 0.02 * number)
        mask = np.zeros(fine_shape, dtype=np.uint8)
        mask[2:-2, 2:-4, 4:-2] = 1
        base = signal[..., :2].mean(-1, keepdims=True)
        for platform, (scale, power) in PLATFORMS.items():
            every = slice(None, None, 2 // scale)
            affine = np.diag([-2.4 / scale, 2.4 / scale, 2.4 / scale, 1.0])
            values = (base * np.clip(signal / base, 1e-3, 1) ** power)[every, every, every]
            scan = Scan(
                nib.Nifti1Image(values.astype(np.float32), affine),
                nib.Nifti1Image(np.ascontiguousarray(mask[every, every, every]), affine),
                fine.b_values,
                fine.directions,
            )
            session, protocol = platform.split("_")
            folder = root / f"sub-{number:02d}" / f"ses-{session}" / "dwi"
            folder.mkdir(parents=True)
            scan.write(folder, stem=f"sub-{number:02d}_ses-{session}_acq-{protocol}")
    about = dataset_description("Small heads", derivative=False, input_platform="ge_st")
    write_json(root / DESCRIPTION, about)
    return root


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small travelling heads, three subjects on three platforms."""
    return write_heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="session")
def make_heads() -> Callable[..., Path]:
    """Write small travelling heads, see `write_heads`."""
    return write_heads
