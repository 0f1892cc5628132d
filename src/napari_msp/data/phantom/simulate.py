"""Write a simulated travelling-heads dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import write_gradients
from napari_msp.data.nifti import write_nifti
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import Scan, simulate_subject
from napari_msp.data.phantom.sizes import SIZES
from napari_msp.errors import UserError
from napari_msp.files import new_folder, write_json, write_text

BIDS_VERSION = "1.10.0"

README = """\
Simulated travelling heads
==========================

Every image here is SIMULATED; no person was scanned. {subjects} subjects, each on four platforms:
ge_st, prisma_st and connectom_st (2.4 mm, 30 directions, TE 89 ms) and connectom_sa (1.2 mm,
60 directions, TE 68 ms), all at b = 1200 s/mm2.

Made by napari-msp {command}
Residual misalignment: {misalignment} mm.

The JSON beside each scan says what was simulated. derivatives/brainmask holds brain masks,
derivatives/noisefree the same scans without noise (same point spread and gradient field).

The anatomy derives from the ICBM 152 2009 template: Copyright (C) 1993-2009 Louis Collins,
McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University.
"""


def simulate(
    out: Path,
    subjects: int = 6,
    size: str = "small",
    seed: int = 0,
    *,
    misalignment: float = 0.0,
    noise: bool = True,
    noise_free: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write a travelling-heads dataset as BIDS.

    A subject is the same however many others are asked for. The dataset appears under its name
    only when it is complete.

    Parameters
    ----------
    out
        Folder to make; it may exist when it is empty.
    subjects
        How many heads travel.
    size
        "tiny" (a block, for tests), "small" (a slab) or "full" (the whole brain).
    seed
        Same seed, same files to the last byte.
    misalignment
        Residual misalignment between a subject's scans in mm.
    noise
        False leaves the noise out of the scans themselves, and writes no twins.
    noise_free
        Whether to write the noise-free twins too.
    progress
        Called with a scan's name, the number of scans written and their total.

    Raises
    ------
    UserError
        When `out` holds something already, cannot be written, or an option makes no sense.
    """
    out = Path(out)
    _check(subjects, size, seed, misalignment)
    total = subjects * len(PLATFORMS)
    with new_folder(out) as folder:
        command = f"simulate --subjects {subjects} --size {size} --seed {seed}"
        command += "" if noise else " --no-noise"
        _describe(folder, command, subjects, misalignment, twins=noise and noise_free)
        done = 0
        for index in range(subjects):
            for scan in simulate_subject(index, PLATFORMS, size, seed, misalignment=misalignment):
                write_scan(folder, scan, noise=noise, noise_free=noise_free)
                done += 1
                if progress is not None:
                    progress(f"sub-{scan.subject.label} {scan.platform.name}", done, total)


def write_scan(dataset: Path, scan: Scan, *, noise: bool = True, noise_free: bool = True) -> None:
    """Write one scan, its mask and, beside a noisy scan, its noise-free twin into a dataset."""
    session, acquisition = scan.platform.session, scan.platform.acquisition
    inside = Path(f"sub-{scan.subject.label}", f"ses-{session}", "dwi")
    entities = f"sub-{scan.subject.label}_ses-{session}_acq-{acquisition}"
    affine = scan.lattice.affine

    raw = dataset / inside / f"{entities}_dwi"
    if noise:
        _write_whole_numbers(raw.with_suffix(".nii.gz"), scan.dwi, affine)
    else:
        write_nifti(raw.with_suffix(".nii.gz"), scan.noise_free, affine)
    write_gradients(scan.table, raw.with_suffix(".bval"), raw.with_suffix(".bvec"), affine)
    write_json(raw.with_suffix(".json"), _sidecar(scan, noisy=noise))

    masks = dataset / "derivatives" / "brainmask" / inside
    write_nifti(masks / f"{entities}_desc-brain_mask.nii.gz", scan.mask, affine)
    write_json(
        masks / f"{entities}_desc-brain_mask.json",
        {"Type": "Brain", "Sources": [f"bids::{inside / raw.name}.nii.gz"], "Simulated": True},
    )
    if noise and noise_free:
        twin = dataset / "derivatives" / "noisefree" / inside / f"{entities}_desc-noisefree_dwi"
        write_nifti(twin.with_suffix(".nii.gz"), scan.noise_free, affine)
        write_gradients(scan.table, twin.with_suffix(".bval"), twin.with_suffix(".bvec"), affine)
        write_json(twin.with_suffix(".json"), _sidecar(scan, noisy=False))


def _check(subjects: int, size: str, seed: int, misalignment: float) -> None:
    if subjects < 1:
        raise UserError(f"--subjects {subjects}: give at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: give 0 or a positive whole number")
    if size not in SIZES:
        raise UserError(f"--size {size}: there is no such size; give one of {', '.join(SIZES)}")
    if not 0 <= misalignment <= 10:
        raise UserError(f"misalignment {misalignment} mm: give a value from 0 to 10")


def _write_whole_numbers(path: Path, array: FloatArray, affine: FloatArray) -> None:
    """Write int16, as scanners do: a third of the size of float32."""
    image = nib.Nifti1Image(array.astype(np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _describe(
    folder: Path, command: str, subjects: int, misalignment: float, *, twins: bool
) -> None:
    """Write what describes the dataset as a whole."""
    generator = {"Name": "napari-msp", "Description": command}
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "Simulated travelling heads",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0-1.0, with the notice of the ICBM 152 template in the README",
            "GeneratedBy": [generator],
            "Simulated": True,
        },
    )
    names = {"brainmask": "Brain masks"}
    if twins:
        names["noisefree"] = "The same scans without noise"
    for derivative, name in names.items():
        write_json(
            folder / "derivatives" / derivative / "dataset_description.json",
            {
                "Name": name,
                "BIDSVersion": BIDS_VERSION,
                "DatasetType": "derivative",
                "GeneratedBy": [generator],
                "Simulated": True,
            },
        )
    lines = ["participant_id", *(f"sub-{index + 1:02d}" for index in range(subjects))]
    write_text(folder / "participants.tsv", "\n".join(lines) + "\n")
    write_text(
        folder / "README",
        README.format(command=command, subjects=subjects, misalignment=f"{misalignment:g}"),
    )


def _sidecar(scan: Scan, *, noisy: bool) -> dict[str, Any]:
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
            "ResidualShift": [round(float(x), 4) for x in scan.shift],
        },
    }
