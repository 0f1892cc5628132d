"""Move a scan to its place, by its affine alone or interpolated once, and write it there.

Its mask, sidecars and motion, HCP's `grad_dev`, and a simulated scan's noise-free twin are moved
along.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.alignment.registration import Displacement
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import (
    ALIGNMENT,
    gradient_files,
    mask_sidecar,
    nifti_stem,
    plain_label,
    read_metadata,
    read_sidecar,
    sidecar_path,
    undescribed_stem,
)
from napari_msp.checking.summary import place_of
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.companions import find_gradients
from napari_msp.data.contradictions import SCHEMES, deviation_note, deviation_path, find_deviation
from napari_msp.data.cubes import OF_SLICES, Auto, interpolated_voxels
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.gradient_files import write_gradients
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice, resample_mask
from napari_msp.data.nifti import lattice_of, open_nifti, write_nifti
from napari_msp.errors import Doubt
from napari_msp.files import atomic_path, write_json, write_text

ALIGNED = 2
"""NIfTI's code for coordinates aligned to those of another image."""

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Matrix from scanner axes of NIfTI and MRtrix to those of DICOM and ITK."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A scan at the place of the input's head.

    Attributes
    ----------
    image
        The DWI, with voxels and data type as scanned unless it was interpolated.
    gradients
        Directions turned with the head, in scanner axes.
    clipped
        Share of in-mask samples that interpolation made negative and that were set to 0; None
        without interpolation.
    tables
        Files of b-values and b-vectors that are still right; None: they are written anew.
    """

    image: nib.Nifti1Image
    gradients: GradientTable
    mask: MaskArray
    name: str
    clipped: float | None = None
    tables: tuple[Path, Path] | None = None

    @cached_property
    def acquisition(self) -> Acquisition:
        """The scan as an acquisition in memory, named after its file."""
        made = Acquisition(
            self.image,
            self.gradients,
            given_mask=self.mask,
            every_volume=True,
            given_name=self.name,
        )
        made.mark_told(made.doubts)  # as those of the scan that it is
        return made

    def write(self, dwi: Path, mask: Path | None = None) -> None:
        """Write the DWI with its gradient table, and the mask if wanted."""
        with atomic_path(dwi) as temporary:
            nib.save(self.image, temporary)
        written = gradient_files(dwi)
        if self.tables is None:
            write_gradients(self.gradients, *written, self.image.affine)
        else:
            for given, copy in zip(self.tables, written, strict=True):
                shutil.copyfile(given, copy)
        if mask is not None:
            write_nifti(mask, self.mask, self.image.affine, like=self.image)


def move_scan(acquisition: Acquisition, motion: FloatArray | None) -> Placed:
    """Move a scan by its affine: voxels are neither interpolated nor stored differently.

    b-vectors are along the image's axes, so in the file they stay as they were.

    Parameters
    ----------
    motion
        (4, 4) rigid motion of scanner coordinates in mm, from the input's head to the scan's; None
        for the input itself, whose header stays.
    """
    back = np.eye(4) if motion is None else np.linalg.inv(motion)
    image = acquisition.image
    stored = image.dataobj
    raw = stored.get_unscaled() if nib.is_proxy(stored) else np.asarray(stored)
    header = image.header.copy()
    placed = type(image)(raw, back @ image.affine, header)
    if nib.is_proxy(stored):
        placed.header.set_slope_inter(stored.slope, stored.inter)  # else the integers are rescaled
    if motion is not None:
        for put in (placed.set_qform, placed.set_sform):  # tools differ in which one they use
            put(back @ image.affine, ALIGNED)
    # All volumes stay in the file, including unused ones.
    turned = _turned(acquisition.given_gradients, back[:3, :3])
    path, tables = acquisition.path, None
    if path is not None and tuple(find_gradients(path, image)) == gradient_files(path):
        tables = gradient_files(path)
    return Placed(placed, turned, acquisition.brain.inside, acquisition.name, tables=tables)


def interpolate_scan(
    acquisition: Acquisition,
    motion: FloatArray,
    turn: FloatArray,
    lattice: Lattice,
    poll: Callable[[], None] = lambda: None,
) -> Placed:
    """Move a scan and interpolate it, once, onto a lattice.

    Uses cubic splines; negative values, which no magnitude has, are set to 0. A mask voxel takes
    the value of the nearest one. Unused volumes are left out.

    Parameters
    ----------
    motion
        (4, 4) motion of scanner coordinates in mm, from the input's head to the scan's.
    turn
        (3, 3) rotation of the motion, which turns directions (finite strain, Alexander 2001).
    poll
        Called before each volume; may raise to end the work.
    """
    source = Lattice(acquisition.lattice.shape, np.linalg.inv(motion) @ acquisition.affine)
    mask = resample_mask(acquisition.mask, source, lattice)
    voxels, negative = interpolated_voxels(acquisition, source, lattice, poll)
    clipped = float(negative[mask].mean()) if mask.any() else 0.0
    image = nib.Nifti1Image(voxels, lattice.affine)
    image.header.set_xyzt_units("mm", "sec")
    for put in (image.set_qform, image.set_sform):
        put(lattice.affine, ALIGNED)
    return Placed(image, _turned(acquisition.gradients, turn.T), mask, acquisition.name, clipped)


def placed_at(
    acquisition: Acquisition,
    found: Displacement | None,
    lattice: Lattice | None,
    poll: Callable[[], None],
) -> Placed:
    """Undo a scan's motion (None: there is none), interpolating only if a lattice is given."""
    if lattice is None:
        return move_scan(acquisition, None if found is None else found.matrix)
    motion, turn = (np.eye(4), np.eye(3)) if found is None else (found.matrix, found.rotation)
    return interpolate_scan(acquisition, motion, turn, lattice, poll)


def _turned(table: GradientTable, rotation: FloatArray) -> GradientTable:
    return replace(table, directions=table.directions @ rotation.T)


def write_itk(path: Path, motion: FloatArray) -> None:
    """Write a motion for ITK and ANTs: from points of the input to points of the scan.

    Resampling the scan with it aligns the scan to the input.
    """
    matrix = RAS_TO_LPS @ motion @ RAS_TO_LPS
    numbers = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    write_text(
        path,
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{each:.12g}' for each in numbers)}\nFixedParameters: 0 0 0\n",
    )


def write_mrtrix(path: Path, motion: FloatArray) -> None:
    """Write the same motion for `mrtransform -linear`."""
    write_text(path, "".join(" ".join(f"{x:.12g}" for x in row) + "\n" for row in motion))


# --- With everything that belongs to it -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AlignmentJob:
    """The settings of a dataset's alignment, and the folder (`stage`) that files are written to."""

    dataset: TravellingHeads
    source: str
    affine: bool
    resample: bool
    voxel_size: float | Auto | None
    stage: Path
    poll: Callable[[], None]


def write_scan(
    job: AlignmentJob,
    subject: str,
    platform: str,
    scan: Acquisition,
    placed: Placed,
    found: Displacement | None,
) -> Path:
    """Write a scan with mask, sidecars, motion and, if simulated, the noise-free twin."""
    heads = job.dataset
    path = heads.scans[subject, platform]
    stem = nifti_stem(path)
    folder = path.parent.relative_to(heads.root)
    image = folder / f"{stem}.nii.gz"
    masks = Path("derivatives", "brainmask") / folder
    mask = masks / f"{undescribed_stem(path)}_desc-brain_mask.nii.gz"
    for each in (image, mask):
        (job.stage / each).parent.mkdir(parents=True, exist_ok=True)
    placed.write(job.stage / image, job.stage / mask)
    reference = heads.scans[subject, job.source].relative_to(heads.root)
    source = f"bids:source:{place_of(path, heads.root)}"
    about = {
        "Description": f"Laid on the head of {subject} on {job.source}",
        "SkullStripped": not scan.b0[~scan.brain.inside].any(),
        **_still_true(read_metadata(path), placed, found),
        "Sources": [source],
        "SpatialReference": f"bids:source:{reference.as_posix()}",
        ALIGNMENT: _about(job, placed, found),
        **carry_deviation(job.stage / image, scan, placed),
    }
    if placed.clipped is not None and scan.said():
        about["Warnings"] = list(scan.said())
    write_json(sidecar_path(job.stage / image), about)
    said, uri = f"{scan.brain.origin}, moved with its scan", f"bids::{image.as_posix()}"
    about_mask = mask_sidecar(said, [uri], **scan.brain.sidecar)
    write_json(sidecar_path(job.stage / mask), about_mask)
    if found is not None:
        between = f"from-{plain_label(platform)}_to-{plain_label(job.source)}_mode-image"
        stem = f"{undescribed_stem(path)}_{between}"
        write_itk(job.stage / folder / f"{stem}_xfm.txt", found.matrix)
        write_mrtrix(job.stage / folder / f"{stem}_desc-mrtrix_xfm.txt", found.matrix)
    _write_twin(job, (subject, platform), scan, placed, found, about)
    return image


def carry_deviation(image: Path, scan: Acquisition, placed: Placed) -> dict[str, Any]:
    """Copy HCP's `grad_dev` along, and return the note for the scan's sidecar.

    Its matrices are in the image's axes, so they stay as they are. It is not copied if the image
    was interpolated, as they would have to be turned, or if it is on another lattice than the scan.
    """
    source = None if scan.path is None else find_deviation(scan.path)
    if source is None:
        return {}
    if placed.clipped is not None:
        said = (scan.reading.deviation, "not copied, as the scan was interpolated")
        return deviation_note(None, "; ".join(filter(None, said)))
    known = open_nifti(source)
    fits = len(known.shape) == 4 and scan.lattice.matches(lattice_of(known))
    affine = placed.image.affine if fits else known.affine
    nib.Nifti1Image(known.dataobj, affine, known.header).to_filename(deviation_path(image))
    return deviation_note(deviation_path(image), scan.reading.deviation)


OF_ITS_AXES = ("PhaseEncodingAxis", "PhaseEncodingDirection", "SliceEncodingDirection")
"""Sidecar fields that name an axis of the voxels."""


def _still_true(
    metadata: dict[str, Any], placed: Placed, found: Displacement | None
) -> dict[str, Any]:
    """Return a scan's metadata without fields that a move or an interpolation makes false."""
    stale: set[str] = set()
    if found is not None or placed.clipped is not None:
        stale |= {*SCHEMES}  # directions in scanner axes
    if placed.clipped is not None:
        stale |= {*OF_SLICES, *OF_ITS_AXES}
    return {key: value for key, value in metadata.items() if key not in stale}


class LeftBehind(Doubt):
    """A noise-free twin does not match its scan and is not copied along."""


def _write_twin(
    job: AlignmentJob,
    identity: tuple[str, str],
    scan: Acquisition,
    placed: Placed,
    found: Displacement | None,
    about: Mapping[str, Any],
) -> None:
    """Move the noise-free twin of a simulated scan like the scan itself."""
    twin = job.dataset.noise_free(*identity, scan)
    if twin is None or twin.path is None:
        return
    if not twin.lattice.matches(scan.lattice):
        said = "is not aligned with its scan, so it is not copied"
        warnings.warn(LeftBehind(said, twin.path.name), stacklevel=2)
        return
    lattice = None if placed.clipped is None else lattice_of(placed.image)
    again = placed_at(twin, found, lattice, job.poll)
    path = job.stage / twin.path.relative_to(job.dataset.root)
    path.parent.mkdir(parents=True, exist_ok=True)
    again.write(path)
    write_json(sidecar_path(path), {**about, **read_sidecar(twin.path)})


def _about(job: AlignmentJob, placed: Placed, found: Displacement | None) -> dict[str, Any]:
    content: dict[str, Any] = {"Reference": job.source, "Interpolated": placed.clipped is not None}
    if found is not None:
        content |= {
            "Motion": "affine" if job.affine else "rigid",
            "ReferenceToScan": found.matrix.round(9).tolist(),
            "Shift": found.shift.round(4).tolist(),
            "Turn": round(found.angle, 4),
            "Correlation": round(found.correlation, 4),
        }
    if placed.clipped is not None:
        content |= {"Interpolation": "cubic spline", "ClippedShare": placed.clipped}
    return content
