"""Write a scan where it belongs: by its affine alone, or interpolated once onto another lattice."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import gradient_files
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.beside import find_gradients
from napari_msp.data.cubes import interpolated_voxels
from napari_msp.data.gradients import GradientTable, write_gradients
from napari_msp.data.lattice import Lattice, resample_mask
from napari_msp.data.nifti import write_nifti
from napari_msp.files import atomic_path, write_text

ALIGNED = 2
"""NIfTI's code for coordinates that were aligned to another image's."""

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Scanner axes of NIfTI and MRtrix into those of DICOM and ITK."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A scan laid on the input's head.

    Attributes
    ----------
    image
        The DWI; voxels and their type as they were scanned, unless it was interpolated.
    gradients
        Directions turned with the head, in scanner axes.
    mask
        (X, Y, Z).
    name
        The scan's, for messages.
    clipped
        Share of in-mask samples that interpolation made negative, and that were set to 0; None
        where nothing was interpolated.
    tables
        Files of b-values and b-vectors that are right as they are; None: they are written anew.
    """

    image: nib.Nifti1Image
    gradients: GradientTable
    mask: MaskArray
    name: str
    clipped: float | None = None
    tables: tuple[Path, Path] | None = None

    @cached_property
    def acquisition(self) -> Acquisition:
        """It as an acquisition in memory, called by its file's name.

        What is odd about its volumes was said when the file was read, and is not said again.
        """
        return Acquisition(
            self.image,
            self.gradients,
            given_mask=self.mask,
            every_volume=True,
            given_name=self.name,
            told=True,
        )

    def write(self, dwi: Path, mask: Path | None = None) -> None:
        """Write the DWI with its gradient table, and the mask where one is wanted."""
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


def moved(acquisition: Acquisition, motion: FloatArray | None) -> Placed:
    """Move a scan by its affine: no voxel is interpolated, or even stored anew.

    b-vectors go along the image's axes, so that in the file they stay what they were.

    Parameters
    ----------
    motion
        (4, 4) rigid, of scanner coordinates in mm: from the input's head to the scan's; None for
        the input itself, whose header stays.
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
        for put in (placed.set_qform, placed.set_sform):  # tools differ in which they believe
            put(back @ image.affine, ALIGNED)
    # All volumes stay in the file, also those that are not in use.
    turned = _turned(acquisition.given_gradients, back[:3, :3])
    path, tables = acquisition.path, None
    if path is not None and tuple(find_gradients(path, image)) == gradient_files(path):
        tables = gradient_files(path)
    return Placed(placed, turned, acquisition.mask, acquisition.name, tables=tables)


def interpolated(
    acquisition: Acquisition,
    motion: FloatArray,
    turn: FloatArray,
    lattice: Lattice,
    poll: Callable[[], None] = lambda: None,
) -> Placed:
    """Move a scan and interpolate it, once, onto a lattice.

    By cubic splines; negative values, which no magnitude has, are set to 0. A mask voxel is what
    the nearest one was. Volumes that are not in use are left out.

    Parameters
    ----------
    motion
        (4, 4) of scanner coordinates in mm: from the input's head to the scan's.
    turn
        (3, 3) its rotation, by which directions turn (the finite strain of Alexander 2001).
    lattice
        Where the result lies.
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


def _turned(table: GradientTable, rotation: FloatArray) -> GradientTable:
    return replace(table, directions=table.directions @ rotation.T)


def write_itk(path: Path, motion: FloatArray) -> None:
    """Write a motion as ITK and ANTs read it: from points of the input to points of the scan.

    Resampling the scan with it lays the scan on the input.
    """
    matrix = RAS_TO_LPS @ motion @ RAS_TO_LPS
    numbers = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    write_text(
        path,
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{each:.12g}' for each in numbers)}\nFixedParameters: 0 0 0\n",
    )


def write_mrtrix(path: Path, motion: FloatArray) -> None:
    """Write the same motion as `mrtransform -linear` reads it."""
    write_text(path, "".join(" ".join(f"{x:.12g}" for x in row) + "\n" for row in motion))
