"""Write a set as a BIDS dataset, with noise-free twins where `open_dataset` looks for them."""

from pathlib import Path

import nibabel as nib
import numpy as np

from far.changes import CHANGES
from far.digests import digest
from far.sets import EDGE, HEADS, FarSet, Scan, make_head
from napari_msp.bids import DESCRIPTION, dataset_description, mask_sidecar
from napari_msp.data.gradient_files import write_gradients
from napari_msp.data.nifti import write_nifti
from napari_msp.files import new_folder, write_json, write_text


def write_set(out: Path, which: FarSet, heads: int = HEADS, edge: int = EDGE) -> list[str]:
    """Write a new dataset; give each head's digest."""
    digests = []
    about = f"far set {which.name}: {which.anatomy}, {which.signal}, seed {which.seed}"
    with new_folder(out) as folder:
        start_dataset(folder, about, which.scanners[0].name)
        for number in range(heads):
            scans = list(make_head(which, number, edge))
            for scan in scans:
                write_scan(folder, f"sub-{number + 1:02d}", scan)
            digests.append(digest(scans))
    return digests


def write_changed(out: Path, which: FarSet, change: str, number: int, edge: int = EDGE) -> None:
    """Write one head of a set, changed, as a new dataset.

    Parameters
    ----------
    change
        Its name.
    number
        Of the head, from 0.
    """
    with new_folder(out) as folder:
        start_dataset(folder, f"far set {which.name}, {change}", which.scanners[0].name)
        for scan in make_head(which, number, edge, CHANGES[change]):
            write_scan(folder, f"sub-{number + 1:02d}", scan)


def start_dataset(folder: Path, about: str, source: str, nature: str = "SIMULATED") -> None:
    """Describe a dataset, before its scans are written.

    Parameters
    ----------
    about
        What it is.
    source
        Platform to predict from.
    nature
        What every image is.
    """
    description = dataset_description(
        f"Simulated travelling heads, {about}",
        derivative=False,
        generated_by=f"benchmarks/far, {about}",
        input_platform=source,
        Simulated=True,
    )
    write_json(folder / DESCRIPTION, description)
    write_text(folder / "README", f"Every image here is {nature}: {about}.\n")
    for derivative in ("brainmask", "noisefree"):
        content = dataset_description(
            derivative, derivative=True, generated_by=about, Simulated=True
        )
        write_json(folder / "derivatives" / derivative / DESCRIPTION, content)


def write_scan(folder: Path, subject: str, scan: Scan) -> None:
    """Write a scan with its mask and its noise-free twin."""
    session, acquisition = scan.scanner.name.split("_")
    inside = Path(subject, f"ses-{session}", "dwi")
    stem = f"{subject}_ses-{session}_acq-{acquisition}"
    affine = scan.lattice.affine
    sidecar = {
        "EchoTime": scan.scanner.echo / 1000,
        "Simulated": True,
        "Simulation": {"Software": "napari-msp, benchmarks/far"},
    }

    def tables(path: Path) -> None:
        write_gradients(scan.table, path.with_suffix(".bval"), path.with_suffix(".bvec"), affine)
        write_json(path.with_suffix(".json"), sidecar)

    raw = folder / inside / f"{stem}_dwi"
    raw.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(scan.dwi.astype(np.int16), affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, raw.with_suffix(".nii.gz"))
    tables(raw)
    twin = folder / "derivatives" / "noisefree" / inside / f"{stem}_desc-noisefree_dwi"
    twin.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(twin.with_suffix(".nii.gz"), scan.noise_free, affine)
    tables(twin)
    mask = folder / "derivatives" / "brainmask" / inside / f"{stem}_desc-brain_mask.nii.gz"
    mask.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(mask, scan.mask, affine)
    source = f"bids::{inside / raw.name}.nii.gz"
    about = mask_sidecar("Simulated brain", [source], Simulated=True)
    write_json(mask.with_name(mask.name.replace(".nii.gz", ".json")), about)
