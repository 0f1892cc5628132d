"""Maps of a scan and of an SH image beside MRtrix3 and DIPY."""

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bench.comparing import Comparison, Setting, Sides, Subject, Table
from bench.timing import seconds_of
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.gradients import scanner_to_image_axes
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import MAPS, TENSOR_DIRECTIONS, Maps, tensor_maps
from napari_msp.signal.sh_image import SHImage, write_sh
from napari_msp.signal.spherical_harmonics import spread_directions

SHAPE, QUICK_SHAPE = (96, 96, 60), (48, 48, 40)
B_VALUE, DIRECTIONS, SNR, S0 = 1200.0, 32, 25.0, 800.0

MRTRIX = ("amp2sh", "sh2amp", "dwi2tensor", "tensor2metric", "mrconvert")

ABOUT = """\
A simulated scan of 96 × 96 × 60 voxels and 33 volumes, some 300,000 voxels of it in the mask: SH
fit, FA, colour FA, mean diffusivity and first eigenvector, all of them from the signal, then from
the SH image alone. MRtrix's are `amp2sh`, `dwi2tensor` and `tensor2metric` (`sh2amp` for an SH
image, on the same 60 directions); *in memory* they read and write uncompressed files that lie in
memory, with the start of its programs, some 30 ms together, counted; *with files* both sides read
and write `.nii.gz`. DIPY's are its regularised SH fit and its weighted tensor fit, without any
reweighting.
"""

# --- What is fitted --------------------------------------------------------------------------


def head(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Write a head-shaped blob of noisy tensors, with table and mask; give the image's path."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    mask = np.square(grid).sum(axis=0) < 1.04  # a little more than half of the voxels
    directions = np.concatenate([np.zeros((1, 3)), spread_directions(DIRECTIONS)])
    b_values = np.concatenate([[0.0], np.full(DIRECTIONS, B_VALUE)])
    fibre = rng.normal(size=(*shape, 3)).astype(np.float32)
    fibre /= np.linalg.norm(fibre, axis=-1, keepdims=True)
    across = rng.uniform(0.2e-3, 1e-3, size=(*shape, 1)).astype(np.float32)
    more = rng.uniform(0, 1.2e-3, size=(*shape, 1)).astype(np.float32)
    decay = across + more * np.square(fibre @ directions.T.astype(np.float32))
    signal = S0 * mask[..., None] * np.exp(-b_values.astype(np.float32) * decay)
    real, imaginary = (
        rng.normal(scale=S0 / SNR, size=signal.shape).astype(np.float32) for _ in range(2)
    )
    signal = np.hypot(signal + real, imaginary)
    affine = np.diag([-2.4, 2.4, 2.4, 1.0])
    path = folder / "head.nii.gz"
    nib.save(nib.Nifti1Image(signal.astype(np.int16), affine), path)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / "head_mask.nii.gz")
    np.savetxt(folder / "head.bval", b_values[None])
    np.savetxt(folder / "head.bvec", scanner_to_image_axes(directions, affine).T)
    return path


@dataclass(frozen=True)
class Head:
    """The scan in memory and on disk.

    Attributes
    ----------
    path
        Its `.nii.gz`.
    acquisition
        Read.
    memory
        Folder whose files lie in memory.
    """

    path: Path
    acquisition: Acquisition
    memory: Path

    @property
    def table(self) -> list[object]:
        """MRtrix's option for its gradients."""
        stem = self.path.with_name("head")
        return ["-fslgrad", stem.with_suffix(".bvec"), stem.with_suffix(".bval")]

    @property
    def mask_path(self) -> Path:
        """Its mask's file."""
        return self.path.with_name("head_mask.nii.gz")

    def fresh(self) -> Acquisition:
        """Give the scan with its voxels read and nothing computed."""
        return self.acquisition.with_gradients(self.acquisition.gradients)


@contextmanager
def made(setting: Setting) -> Iterator[Head]:
    """Make the scan once a run; its folder in memory is gone afterwards."""
    path = setting.folder / "head.nii.gz"
    if not path.exists():
        head(setting.folder, QUICK_SHAPE if setting.quick else SHAPE)
    acquisition = load_acquisition(path, mask=path.with_name("head_mask.nii.gz"))
    assert acquisition.mask.any() and len(acquisition.gradients)
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if room.is_dir() else None) as memory:
        yield Head(path, acquisition, Path(memory))


# --- Ours ------------------------------------------------------------------------------------


def all_maps(scan: Scan, route: str) -> Mapping[str, FloatArray]:
    """Compute the SH image and every map of a scan."""
    maps: Maps = scan.maps("sh" if route == "sh" else "signal")
    return {name: maps[name] for name in MAPS}


def ours(known: Head) -> Mapping[str, FloatArray]:
    return all_maps(Scan(acquisition=known.fresh()), "signal")


def ours_of_sh(image: SHImage) -> Mapping[str, FloatArray]:
    return all_maps(Scan(given_sh=image), "sh")


def ours_with_files(path: Path, out: Path, **given: Path) -> None:
    load_scan(path, **given).save(out, force=True)  # type: ignore[arg-type]


# --- MRtrix ----------------------------------------------------------------------------------


def mrtrix(program: str, *arguments: object) -> None:
    subprocess.run([program, "-quiet", "-force", *map(str, arguments)], check=True)


def mrtrix_maps(dwi: Path, mask: Path, table: list[object], out: Path, suffix: str) -> None:
    """Compute SH, FA, mean diffusivity, first eigenvector · FA."""
    mrtrix("amp2sh", dwi, out / f"sh{suffix}", "-lmax", 6, *table)
    mrtrix_tensor(dwi, mask, table, out, suffix)


def mrtrix_tensor(dwi: Path, mask: Path, table: list[object], out: Path, suffix: str) -> None:
    tensor = out / f"tensor{suffix}"
    mrtrix("dwi2tensor", dwi, tensor, "-mask", mask, *table)
    maps = [out / f"{name}{suffix}" for name in ("fa", "md", "vector")]
    options = zip(("-fa", "-adc", "-vector"), maps, strict=True)
    mrtrix("tensor2metric", tensor, "-mask", mask, *(each for pair in options for each in pair))


def sampling(known: Head) -> tuple[Path, Path]:
    """Write the directions on which an SH image is sampled, without and with S0 in front."""
    spread = spread_directions(TENSOR_DIRECTIONS)
    paths = known.path.with_name("spread.txt"), known.path.with_name("spread.b")
    np.savetxt(paths[0], spread)
    weighted = np.column_stack([spread, np.full(TENSOR_DIRECTIONS, B_VALUE)])
    np.savetxt(paths[1], np.vstack([np.zeros((1, 4)), weighted]))
    return paths


def mrtrix_of_sh(sh: Path, mask: Path, spread: tuple[Path, Path], out: Path, suffix: str) -> None:
    """Sample an SH image as we do, with S0 = 1 in front, and fit a tensor."""
    sampled, dwi = out / f"sampled{suffix}", out / f"dwi{suffix}"
    mrtrix("sh2amp", sh, spread[0], sampled)
    mrtrix("mrcat", mask, sampled, dwi, "-axis", 3)
    mrtrix_tensor(dwi, mask, ["-grad", spread[1]], out, suffix)


def converted(known: Head, path: Path, name: str, table: bool = False) -> Path:
    """Lay a file in memory, uncompressed."""
    to = known.memory / f"{name}.mif"
    mrtrix("mrconvert", path, to, *(known.table if table else []))
    return to


@contextmanager
def beside_mrtrix(of_sh: bool, setting: Setting) -> Iterator[Sides]:
    """Compare maps of the scan, or of its SH image, in memory."""
    with made(setting) as known:
        mask, inside = converted(known, known.mask_path, "mask"), known.acquisition.mask
        if of_sh:
            image = fit_sh(known.acquisition)
            inside = image.mask
            write_sh(known.memory / "fitted.nii", image)
            sh = converted(known, known.memory / "fitted.nii", "fitted")
            call: Callable[[], Any] = partial(ours_of_sh, image)
            theirs = partial(mrtrix_of_sh, sh, mask, sampling(known), known.memory, ".mif")
        else:
            dwi = converted(known, known.path, "dwi", table=True)
            call = partial(ours, known)
            theirs = partial(mrtrix_maps, dwi, mask, [], known.memory, ".mif")

        def figures(gave: Mapping[str, FloatArray], _: None) -> Mapping[str, str]:
            return differences(gave, mrtrix_gave(known.memory), inside)

        yield Sides(call, theirs, figures=figures)


@contextmanager
def beside_mrtrix_with_files(setting: Setting) -> Iterator[Sides]:
    with made(setting) as known:
        theirs, out = setting.folder / "mrtrix", setting.folder / "ours"
        theirs.mkdir(exist_ok=True)
        yield Sides(
            partial(ours_with_files, known.path, out, mask=known.mask_path),
            partial(mrtrix_maps, known.path, known.mask_path, known.table, theirs, ".nii.gz"),
        )


def mrtrix_gave(folder: Path) -> Mapping[str, FloatArray]:
    """Read what MRtrix wrote."""
    for name in ("fa", "md", "vector"):
        mrtrix("mrconvert", folder / f"{name}.mif", folder / f"{name}.nii")
    fa, md, vector = (
        nib.load(folder / f"{name}.nii").get_fdata() for name in ("fa", "md", "vector")
    )
    return {"fa": fa, "md": md, "direction": vector / np.maximum(fa, 1e-9)[..., None]}


# --- DIPY ------------------------------------------------------------------------------------


def dipy_maps(known: Head) -> Mapping[str, FloatArray]:
    """Fit SH and a weighted tensor as DIPY does, in its mask."""
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import Sphere
    from dipy.reconst.shm import sf_to_sh

    scan = known.acquisition
    (shell,) = scan.gradients.shells
    inside = scan.voxels[scan.mask]
    ratio = inside[:, shell.volumes] / np.maximum(inside[:, :1], 1e-6)
    sphere = Sphere(xyz=scan.gradients.directions[shell.volumes])
    sf_to_sh(ratio, sphere, sh_order_max=6, basis_type="tournier07", legacy=False, smooth=0.006)
    table = gradient_table(scan.gradients.b_values, bvecs=scan.gradients.directions)
    return dipy_tensor(table, inside)


def dipy_maps_of_sh(image: SHImage) -> Mapping[str, FloatArray]:
    """Sample an SH image and fit a weighted tensor as DIPY does, in its mask."""
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import Sphere
    from dipy.reconst.shm import sh_to_sf

    spread = spread_directions(TENSOR_DIRECTIONS)
    signal = sh_to_sf(
        image.coefficients[image.mask], Sphere(xyz=spread), sh_order_max=6,
        basis_type="tournier07", legacy=False,
    )  # fmt: skip
    signal = np.concatenate([np.ones((len(signal), 1)), signal], axis=1)
    b_values = np.concatenate([[0.0], np.full(TENSOR_DIRECTIONS, image.b_value)])
    table = gradient_table(b_values, bvecs=np.concatenate([np.zeros((1, 3)), spread]))
    return dipy_tensor(table, signal)


def dipy_tensor(table: Any, signal: FloatArray) -> Mapping[str, FloatArray]:
    """Fit a weighted tensor as DIPY does, without reweighting."""
    from dipy.reconst.dti import TensorModel, color_fa

    fit = TensorModel(table, fit_method="WLS").fit(signal)
    colour = color_fa(fit.fa, fit.evecs)
    return {"fa": fit.fa, "md": fit.md, "direction": fit.directions, "colour": colour}


@contextmanager
def beside_dipy(setting: Setting) -> Iterator[Sides]:
    with made(setting) as known:
        yield Sides(partial(ours, known), partial(dipy_maps, known))


@contextmanager
def of_sh_beside_dipy(setting: Setting) -> Iterator[Sides]:
    with made(setting) as known:
        image = fit_sh(known.acquisition)
        yield Sides(partial(ours_of_sh, image), partial(dipy_maps_of_sh, image))


# --- Where the time goes ----------------------------------------------------------------------


def steps(setting: Setting) -> list[list[str]]:
    """Time each step of ours, and MRtrix's command that does as much."""
    with made(setting) as known:
        dwi = converted(known, known.path, "dwi", table=True)
        mask = converted(known, known.mask_path, "mask")
        memory, image = known.memory, fit_sh(known.acquisition)
        maps = {name: memory / f"{name}.mif" for name in ("fa", "adc", "vector")}
        options = [each for name, path in maps.items() for each in (f"-{name}", path)]
        tensors = tensor_maps(known.acquisition)

        def read() -> None:
            assert len(load_acquisition(known.path, mask=known.mask_path).gradients)

        def write() -> None:
            write_sh(setting.folder / "written.nii.gz", image)

        to_files = partial(mrtrix, "mrconvert", memory / "sh.mif", setting.folder / "sh.nii.gz")
        both: list[tuple[str, Callable[[], Any], str, Callable[[], Any]]] = [
            (
                "read the scan, .nii.gz; ours: and look whether volumes are what its table says",
                read, "mrconvert", partial(converted, known, known.path, "read"),
            ),
            (
                "SH fit",
                lambda: fit_sh(known.fresh()), "amp2sh",
                partial(mrtrix, "amp2sh", dwi, memory / "sh.mif", "-lmax", 6),
            ),
            (
                "tensor fit; ours: and FA, mean diffusivity, first eigenvector",
                lambda: tensor_maps(known.fresh()), "dwi2tensor",
                partial(mrtrix, "dwi2tensor", dwi, memory / "tensor.mif", "-mask", mask),
            ),
            (
                "colour FA; MRtrix: FA, mean diffusivity, first eigenvector · FA",
                lambda: tensors.colour, "tensor2metric",
                partial(mrtrix, "tensor2metric", memory / "tensor.mif", "-mask", mask, *options),
            ),
            (
                "tensor fit of the SH image, with its maps; MRtrix: samples, fit, maps",
                lambda: tensor_maps(image), "sh2amp, dwi2tensor, tensor2metric",
                partial(mrtrix_of_sh, memory / "sh.mif", mask, sampling(known), memory, ".mif"),
            ),
            ("write the SH image, .nii.gz", write, "mrconvert", to_files),
        ]  # fmt: skip
        return [
            [what, f"{seconds(mine):.3f}", name, f"{seconds(theirs):.3f}"]
            for what, mine, name, theirs in both
        ]


def seconds(call: Callable[[], Any]) -> float:
    """Time a call; the median of three."""
    return statistics.median(seconds_of(call, 3))


# --- How far they differ ---------------------------------------------------------------------


def differences(
    gave: Mapping[str, FloatArray], theirs: Mapping[str, FloatArray], mask: MaskArray
) -> Mapping[str, str]:
    """Say how far FA, mean diffusivity and direction differ in a mask."""
    fa = np.abs(gave["fa"] - np.clip(theirs["fa"], 0, 1))[mask]
    md = np.abs(gave["md"] - theirs["md"])[mask]
    cosine = np.abs((gave["direction"].astype(float) * theirs["direction"]).sum(axis=-1))
    clear = mask & (theirs["fa"] > 0.2) & (theirs["fa"] < 1)
    off = np.degrees(np.arccos(np.clip(cosine[clear], 0, 1)))

    def worst(values: FloatArray, unit: str = "") -> str:
        return f"{np.percentile(values, 99.9):.1g}{unit} (largest {values.max():.1g}{unit})"

    return {
        "FA differs in 999 of 1,000 voxels by at most": worst(fa),
        "mean diffusivity by": worst(md, " mm²/s"),
        "direction, where FA is over 0.2, by": worst(off, "°"),
    }


def _comparison(
    name: str,
    peer: str,
    prepare: Callable[[Setting], AbstractContextManager[Sides]],
    goal: float,
    repeats: int = 3,
) -> Comparison:
    needs = MRTRIX if peer == "MRtrix" else ()
    return Comparison(
        name=name, peer=peer, prepare=prepare, goal=goal, needs=needs, repeats=repeats
    )


IN_MEMORY, OF_SH = "all maps of a scan, in memory", "all maps of an SH image, in memory"

SUBJECT = Subject(
    "maps",
    ABOUT,
    [
        _comparison(IN_MEMORY, "MRtrix", partial(beside_mrtrix, False), 1.0, 7),
        _comparison("all maps of a scan, with files", "MRtrix", beside_mrtrix_with_files, 1.0),
        _comparison(IN_MEMORY, "DIPY", beside_dipy, 5.0),
        _comparison(OF_SH, "MRtrix", partial(beside_mrtrix, True), 1.0, 7),
        _comparison(OF_SH, "DIPY", of_sh_beside_dipy, 5.0),
    ],
    [
        Table(
            name="where the time of maps goes, in seconds",
            columns=["step", "ours", "MRtrix's command", "its seconds"],
            rows=steps,
            needs=MRTRIX,
        )
    ],
)
