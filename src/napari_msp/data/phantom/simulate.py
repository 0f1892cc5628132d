"""Write a simulated travelling-heads dataset."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.bids import (
    BIDSIGNORE_TABLES,
    DESCRIPTION,
    describe_dataset,
    describe_part,
    mask_sidecar,
)
from napari_msp.data.gradient_files import write_gradients
from napari_msp.data.gradients import SHELL_GAP
from napari_msp.data.nifti import write_nifti
from napari_msp.data.phantom.platforms import (
    B_VALUE,
    INPUT_PLATFORM,
    PLATFORMS,
    SIZES,
    Platform,
    platform_named,
)
from napari_msp.data.phantom.scan import SimulatedScan, pose_of, simulate_subject
from napari_msp.data.phantom.subjects import Pose, Subject, draw_subject
from napari_msp.errors import Choose, Give, Poll, Progress, UserError, reporter
from napari_msp.files import new_folder, write_json
from napari_msp.formatting import counted, listed
from napari_msp.options import several
from napari_msp.strict_json import read_json

DEMO_SEED = 2026
"""Seed of the head of the demo and the viewer's sample, which no packaged model learned from."""

DEMO_SUBJECT = "sub-01"

MOST_REPEATS = 20
"""Largest number of repeats: more say nothing new about how scans differ (our choice)."""

MOST_SUBJECTS = 10_000
"""Largest number of subjects: a terabyte of them, at size "small"."""

README = """\
Simulated travelling heads
==========================

Every image here is SIMULATED; no person was scanned. {subjects}, each on {some}four platforms:
ge_st, prisma_st and connectom_st (2.4 mm, 30 directions, TE 89 ms) and connectom_sa (1.2 mm,
60 directions, TE 68 ms), all at b = {b_values} s/mm2.

Made by napari-msp: {made_by}
Residual misalignment: {misalignment} mm.

The JSON beside each scan says what was simulated. derivatives/brainmask contains brain masks,
derivatives/noisefree the same scans without noise (same point spread and gradient field).

The anatomy derives from the ICBM 152 2009 template: Copyright (C) 1993-2009 Louis Collins,
McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University.
"""


def simulate(
    out: str | Path,
    subjects: int = 6,
    size: str = "small",
    seed: int = 0,
    *,
    b_value: float | Sequence[float] = B_VALUE,
    misalignment: float = 0.0,
    noise: bool = True,
    noise_free: bool = True,
    repeats: int = 1,
    targets: str | Iterable[str] | None = None,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> None:
    """Write a travelling-heads dataset as BIDS.

    A subject is the same however many others are made. The dataset appears under its name
    only when it is complete.

    Parameters
    ----------
    out
        Folder to create; it may exist if it is empty. Its description marks the platform to
        predict from.
    subjects
        Number of heads that travel.
    size
        "tiny" (a block, for tests), "small" (a slab) or "full" (the whole brain).
    seed
        Same seed, same files to the last byte.
    b_value
        b-value of the shell in s/mm², or of several, each with as many directions, over the same
        b=0s.
    misalignment
        Residual misalignment between a subject's scans in mm.
    noise
        Whether scans have noise; without it no twins are written.
    noise_free
        Whether to write the noise-free twins too.
    repeats
        Number of scans of each subject on every platform but the one to predict from: `run-1`,
        `run-2` …, repositioned as `misalignment` says, each with noise of its own.
    targets
        Platforms to scan on besides the one to predict from; None: all. A scan does not depend on
        which others there are.
    progress
        Called with a scan's name, the number of scans written and their total.
    cancelled
        Polled after every scan; True raises Cancelled, and nothing is written.

    Raises
    ------
    UserError
        When `out` contains something already, cannot be written, or a parameter makes no sense.
    """
    out, report = Path(out), reporter(progress, cancelled)
    _check(subjects, size, seed, misalignment)
    if not 1 <= repeats <= MOST_REPEATS:
        remedy = Give("repeats", f"1 to {MOST_REPEATS}")
        raise UserError(f"{repeats} is not a valid number of scans", field="repeats", remedy=remedy)
    b_values = _shells(b_value)
    scanners = _scanners(None if targets is None else several(targets))
    again = tuple(each for each in scanners if each.name != INPUT_PLATFORM)
    total = subjects * (len(scanners) + (repeats - 1) * len(again))
    with new_folder(out) as folder:
        made_by = f"simulate {counted(subjects, 'subject')}, size {size}, seed {seed}"
        made_by += "" if noise else ", without noise"
        made_by += f", {repeats} scans on each target" if repeats > 1 else ""
        recipe = DatasetRecipe(size, seed, misalignment, b_values, noise)
        names = [each.name for each in scanners]
        if len(names) < len(PLATFORMS):
            made_by += f", on {listed(names)}"
        _describe(folder, made_by, subjects, recipe, names, twins=noise and noise_free)
        done = 0
        for index, run in product(range(subjects), range(1, repeats + 1)):
            for scan in simulate_subject(
                index,
                scanners if run == 1 else again,
                size,
                seed,
                b_value=b_values,
                misalignment=misalignment,
                run=run,
            ):
                named = run if repeats > 1 and scan.platform in again else None
                write_scan(folder, scan, noise=noise, noise_free=noise_free, run=named)
                done += 1
                report(f"sub-{scan.subject.label} {scan.platform.name}", done, total)


def _scanners(targets: Sequence[str] | None) -> tuple[Platform, ...]:
    """Return the platform to predict from and targets by name, in the platforms' own order."""
    known = [each.name for each in PLATFORMS if each.name != INPUT_PLATFORM]
    for name in targets or ():
        if name not in known:
            remedy = Choose("targets", tuple(known))
            raise UserError("there is no such target", name, "targets", remedy)
    wanted = {INPUT_PLATFORM, *(known if targets is None else targets)}
    return tuple(each for each in PLATFORMS if each.name in wanted)


@dataclass(frozen=True)
class DatasetRecipe:
    """The parameters from which a dataset's heads can be made again, see `simulate`."""

    size: str
    seed: int
    misalignment: float
    b_values: tuple[float, ...] = (B_VALUE,)
    noise: bool = True

    def lies(self, subject: int, platform: str) -> tuple[Subject, Pose]:
        """Draw a subject, counted from 0, and the head's position in the scan of a platform."""
        pose = pose_of(self.seed, subject, platform_named(platform), self.misalignment)
        return draw_subject(self.seed, subject), pose


def recipe_of(dataset: Path) -> DatasetRecipe | None:
    """Read how a dataset was simulated; None if it was not, or does not say."""
    path = dataset / DESCRIPTION
    told = read_json(path).get("Simulation") if path.exists() else None
    if not isinstance(told, dict):
        return None
    size, seed, moved, b_values = (
        told.get(name) for name in ("Size", "Seed", "Misalignment", "BValues")
    )
    noise = told.get("Noise") is not False
    if (
        size in SIZES
        and isinstance(seed, int)
        and isinstance(moved, int | float)
        and isinstance(b_values, list)
        and all(isinstance(each, int | float) for each in b_values)
    ):
        return DatasetRecipe(str(size), seed, float(moved), tuple(map(float, b_values)), noise)
    return None


def write_scan(
    dataset: Path,
    scan: SimulatedScan,
    *,
    noise: bool = True,
    noise_free: bool = True,
    run: int | None = None,
) -> None:
    """Write one scan, its mask and, beside a noisy scan, its noise-free twin into a dataset.

    Parameters
    ----------
    run
        Number of the repetition; None if there is only one, and names have none.
    """
    dataset = Path(dataset)
    session, acquisition = scan.platform.name.split("_")
    inside = Path(f"sub-{scan.subject.label}", f"ses-{session}", "dwi")
    entities = f"sub-{scan.subject.label}_ses-{session}_acq-{acquisition}"
    entities += "" if run is None else f"_run-{run}"
    raw = dataset / inside / f"{entities}_dwi"
    _write_dwi(raw, scan, noisy=noise)

    masks = dataset / "derivatives" / "brainmask" / inside
    write_nifti(masks / f"{entities}_desc-brain_mask.nii.gz", scan.mask, scan.lattice.affine)
    write_json(
        masks / f"{entities}_desc-brain_mask.json",
        mask_sidecar("Simulated brain", [f"bids::{inside / raw.name}.nii.gz"], Simulated=True),
    )
    if noise and noise_free:
        twin = dataset / "derivatives" / "noisefree" / inside / f"{entities}_desc-noisefree_dwi"
        _write_dwi(twin, scan, noisy=False, SkullStripped=False, SpatialReference="orig")


def _write_dwi(stem: Path, scan: SimulatedScan, *, noisy: bool, **about: Any) -> None:
    """Write a scan's image with or without noise, its gradient table and its sidecar."""
    affine = scan.lattice.affine
    if noisy:
        _write_whole_numbers(stem.with_suffix(".nii.gz"), scan.dwi, affine)
    else:
        write_nifti(stem.with_suffix(".nii.gz"), scan.noise_free, affine)
    write_gradients(scan.table, stem.with_suffix(".bval"), stem.with_suffix(".bvec"), affine)
    write_json(stem.with_suffix(".json"), _sidecar(scan, noisy=noisy) | about)


def _check(subjects: int, size: str, seed: int, misalignment: float) -> None:
    if not 1 <= subjects <= MOST_SUBJECTS:
        problem = f"{subjects} is not a valid number of subjects"
        remedy = Give("subjects", f"1 to {MOST_SUBJECTS}")
        raise UserError(problem, field="subjects", remedy=remedy)
    if not 0 <= seed < 2**64:
        remedy = Give("seed", "a whole number from 0, below 2^64")
        raise UserError(f"{seed} is not a valid seed", field="seed", remedy=remedy)
    if size not in SIZES:
        raise UserError("there is no such size", size, "size", Choose("size", tuple(SIZES)))
    if not 0 <= misalignment <= 10:
        problem = f"{misalignment} mm is not a valid misalignment"
        remedy = Give("misalignment", "from 0 to 10 mm")
        raise UserError(problem, field="misalignment", remedy=remedy)


LARGEST_B_VALUE = 10_000
"""Largest b-value in s/mm²: the signal model is not valid beyond (our choice)."""


def _shells(b_value: float | Sequence[float]) -> tuple[float, ...]:
    """Return the shells, lowest first."""
    given = [b_value] if isinstance(b_value, int | float) else list(b_value)
    remedy = Give("b_value", f"from 100 to {LARGEST_B_VALUE} s/mm²")
    for each in given:
        if not 100 <= each <= LARGEST_B_VALUE:  # also refuses nan
            raise UserError(f"b = {each:g} is not a valid shell", field="b_value", remedy=remedy)
    shells = tuple(sorted(float(each) for each in given))
    if any(high - low <= SHELL_GAP for low, high in pairwise(shells)):
        problem = f"shells of b = {', '.join(f'{each:g}' for each in shells)} cannot be told apart"
        remedy = Give("b_value", f"more than {SHELL_GAP:.0f} s/mm² apart")
        raise UserError(problem, field="b_value", remedy=remedy)
    return shells


def _write_whole_numbers(path: Path, array: FloatArray, affine: FloatArray) -> None:
    """Write int16, as scanners do: a third of the size of float32."""
    image = nib.Nifti1Image(array.astype(np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _describe(
    folder: Path,
    made_by: str,
    subjects: int,
    recipe: DatasetRecipe,
    platforms: Sequence[str],
    *,
    twins: bool,
) -> None:
    """Write the files that describe the dataset as a whole."""
    readme = README.format(
        made_by=made_by,
        subjects=counted(subjects, "subject"),
        some="" if len(platforms) == len(PLATFORMS) else f"{listed(platforms)}, of ",
        b_values=" and ".join(f"{each:g}" for each in recipe.b_values),
        misalignment=f"{recipe.misalignment:g}",
    )
    describe_dataset(
        folder,
        "Simulated travelling heads",
        readme,
        (f"sub-{index + 1:02d}" for index in range(subjects)),
        derivative=False,
        generated_by=made_by,
        input_platform=INPUT_PLATFORM,
        License="CC0-1.0, with the notice of the ICBM 152 template in the README",
        Simulated=True,
        Simulation={
            "Size": recipe.size,
            "Seed": recipe.seed,
            "Misalignment": recipe.misalignment,
            "BValues": list(recipe.b_values),
            "Noise": recipe.noise,
        },
    )
    names = {"brainmask": "Brain masks"}
    if twins:
        names["noisefree"] = "The same scans without noise"
    for derivative, name in names.items():
        part = folder / "derivatives" / derivative
        describe_part(part, name, made_by, ignored=BIDSIGNORE_TABLES, Simulated=True)


def _sidecar(scan: SimulatedScan, *, noisy: bool) -> dict[str, Any]:
    platform = scan.platform
    return {
        "Manufacturer": platform.manufacturer,
        "ManufacturersModelName": f"{platform.model} (simulated)",
        "MagneticFieldStrength": 3,
        "EchoTime": platform.echo_time / 1000,
        "RepetitionTime": platform.repetition_time / 1000,
        "PhaseEncodingAxis": "j",
        "Simulated": True,
        "Simulation": {
            "Software": "napari-msp",
            "Noise": "Rician" if noisy else "none",
            "SNR": platform.snr if noisy else None,
            "NoiseStandardDeviation": round(scan.sigma, 4) if noisy else 0.0,
            "BValueScale": platform.b_scale,
            "PointSpreadStandardDeviation": list(platform.blur),
            "GradientNonlinearity": {
                "Transverse": platform.gradient_field.transverse,
                "Longitudinal": platform.gradient_field.longitudinal,
            },
            "ResidualShift": [round(float(x), 4) for x in scan.pose.shift],
            "ResidualTurn": [round(float(x), 4) for x in scan.pose.turn],
        },
    }


def phantom_digest() -> str:
    """Fingerprint the first tiny head of seed 0 on all platforms.

    Bytes of the images would not do: `exp` and the BLAS differ in the last bit between processors.
    Hashed are instead three significant digits of the mean of every volume inside the mask, with
    and without noise, and the gradient tables to three decimals. A change of one part in ten
    thousand alters some of these many numbers; rounding errors, ten thousand times smaller and
    averaged out, alter none (our choice).
    """
    hashed = hashlib.sha256()
    for scan in simulate_subject(0, size="tiny", seed=0):
        for line in _lines(scan):
            hashed.update(line.encode())
    return hashed.hexdigest()[:12]


def _lines(scan: SimulatedScan) -> list[str]:
    """Describe a scan by a few digits."""
    lines = [f"{scan.platform.name} {scan.lattice.shape} {int(scan.mask.sum()) / 100:.0f}"]
    for images in (scan.dwi, scan.noise_free):
        lines += [f"{mean:.2e}" for mean in images[scan.mask].mean(axis=0, dtype=float)]
    table = np.column_stack([scan.table.b_values, scan.table.directions])
    # Adding 0 turns -0.000 into 0.000.
    lines += [" ".join(f"{value:.3f}" for value in row) for row in np.round(table, 3) + 0.0]
    return lines
