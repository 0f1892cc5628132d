"""What contradicts itself in an image's header, in a gradient table, or between files of one scan.

Nothing here changes a number: it says what is used, and by how much the other would differ.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import aff2axcodes

from napari_msp.arrays import FloatArray
from napari_msp.bids import bare_stem, gradient_files, nifti_stem, read_sidecar
from napari_msp.data.gradients import B0_MAXIMUM, GradientTable, read_gradients
from napari_msp.data.lattice import Lattice, direction_cosines, voxel_sizes
from napari_msp.data.nifti import LARGEST_VOXEL, REPAIRS, SMALLEST_VOXEL, qform_of
from napari_msp.errors import UserError

APART = 0.1
"""Distance of a voxel between sform and qform, in voxels, that is worth a word (our choice)."""

SIZES_DIFFER = 0.01
"""Relative difference of voxel sizes by pixdim and by the affine that is worth a word (ours)."""

SHEAR = 0.5
"""Angle in degrees by which voxel axes may miss a right angle before it is said (our choice)."""

B_VALUES_DIFFER = 30.0
"""Difference in s/mm² of b-values that two files give for one volume (our choice)."""

DIRECTIONS_DIFFER = 2.0
"""Angle in degrees between directions that two files give for one volume (our choice)."""

SCHEMES = ("dw_scheme", "DiffusionScheme")
"""Fields of a sidecar that may hold a gradient table: rows of direction, in scanner axes, and b."""

B_VALUES = ("DiffusionBValues", "BValues", "bvals", "bval", "b_values")
"""Fields of a sidecar that may hold the b-values."""


# --- Header -----------------------------------------------------------------------------------


def header_doubts(image: nib.Nifti1Image) -> Iterator[str]:
    """Say what contradicts itself in a header, and what was put right when it was opened."""
    yield from image.extra.get(REPAIRS, ())
    yield from _scaling(image)
    affine = image.affine
    yield from _orientation(image)
    lattice = Lattice((image.shape[0], image.shape[1], image.shape[2]), affine)
    sizes = lattice.voxel_sizes
    written = _sizes(sizes)
    if sizes.max() > LARGEST_VOXEL or sizes.min() < SMALLEST_VOXEL:
        yield f"voxels of {written} mm are no brain scan's: is the header's unit wrong?"
    stated = np.abs(np.array(image.header.get_zooms()[:3], dtype=float))
    if np.abs(stated / sizes - 1).max() > SIZES_DIFFER:
        yield f"voxels are {_sizes(stated)} mm by pixdim and {written} mm by the affine, as used"
    tilt = shear(affine)
    if tilt > SHEAR:
        yield (
            f"its affine is sheared by {tilt:.1f}°: b-vectors are taken along the nearest axes at "
            "right angles"
        )


def _scaling(image: nib.Nifti1Image) -> Iterator[str]:
    """Look whether the header scales by a number; nibabel keeps what it makes of it only."""
    if image.get_filename() is None:
        return
    file = image.file_map["header" if "header" in image.file_map else "image"]
    try:
        with file.get_prepare_fileobj("rb") as stream:
            header = type(image.header).from_fileobj(stream, check=False)
    except (OSError, EOFError, ValueError):  # it was readable a moment ago
        return
    if not np.isfinite(header["scl_slope"]):
        yield "its slope is not a number: voxels are taken as they are stored"


def _orientation(image: nib.Nifti1Image) -> Iterator[str]:
    """Compare sform and qform, where the header has both; say where it has none."""
    sform, qform = (int(image.header[f"{form}_code"]) for form in ("sform", "qform"))
    if not sform and not qform:
        codes = "".join(aff2axcodes(image.affine))
        yield (
            f"its header states no orientation (sform and qform codes are 0): {codes} is assumed, "
            "left and right may be exchanged"
        )
    other = qform_of(image)
    if not sform or other is None:
        return
    shape = image.shape[:3]
    used, second = Lattice(shape, image.affine), Lattice(shape, other)
    if used.offset_to(second) <= APART:
        return
    turn = direction_cosines(image.affine) @ direction_cosines(other).T
    if np.linalg.det(turn) < 0:
        yield "sform and qform are mirror images, left and right differ; the sform is used"
        return
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(shape) - 1
    apart = np.linalg.norm(((image.affine - other) @ corners.T)[:3], axis=0).max()
    sizes = _sizes(used.voxel_sizes), _sizes(second.voxel_sizes)
    spacing = f", voxels {sizes[0]} against {sizes[1]} mm" if sizes[0] != sizes[1] else ""
    yield (
        f"sform and qform differ by up to {apart:.1f} mm and {angle:.1f}°{spacing}; the sform is "
        "used"
    )


def shear(affine: FloatArray) -> float:
    """Give the largest angle in degrees by which two voxel axes miss a right angle."""
    axes = affine[:3, :3] / voxel_sizes(affine)
    cosines = np.abs(axes.T @ axes - np.diag(np.diag(axes.T @ axes)))
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0, 1))))


def _sizes(sizes: FloatArray) -> str:
    return " × ".join(f"{size:g}" for size in np.round(sizes.astype(float), 3))


# --- Gradient table ---------------------------------------------------------------------------


def table_doubts(table: GradientTable) -> Iterator[str]:
    """Say which b-values count as b=0 though the signal has decayed by them."""
    high = table.b_values[table.b0_volumes]
    high = high[high > B0_MAXIMUM]
    if len(high):
        yield (
            f"b = {high.mean():.0f} counts as b=0 (threshold {table.b0_threshold:g}): the ratio to "
            f"it is that of b − {high.mean():.0f}"
        )


def file_doubts(path: Path, table: GradientTable, affine: FloatArray, given: bool) -> Iterator[str]:
    """Say where other files of a scan contradict its gradient table.

    Parameters
    ----------
    path
        The image.
    table
        The table that is used.
    affine
        (4, 4) of the image.
    given
        Whether the table was named; else other tables beside the image are looked at, too.
    """
    if not given:
        yield from _other_tables(path, table, affine)
    try:
        sidecar = read_sidecar(path)
    except UserError:  # what says nothing contradicts nothing
        return
    yield from _sidecar_table(sidecar, table)


def _other_tables(path: Path, table: GradientTable, affine: FloatArray) -> Iterator[str]:
    used = gradient_files(path)
    stem, bare = nifti_stem(path), bare_stem(path)
    names = [(f"{bare}.bval", f"{bare}.bvec"), (f"{stem}.bvals", f"{stem}.bvecs")]
    names += [("bvals", "bvecs")]
    for bval, bvec in ((path.with_name(a), path.with_name(b)) for a, b in names):
        if bval == used[0] or not (bval.is_file() and bvec.is_file()):
            continue
        try:
            other = read_gradients(bval, bvec, affine)
        except UserError:
            continue
        for difference in _differences(table, other.b_values, other.directions):
            both = f"{bval.name} and {bvec.name}"
            yield f"{both} say otherwise ({difference}); {used[0].name} is used"


def _sidecar_table(sidecar: Mapping[str, Any], table: GradientTable) -> Iterator[str]:
    for field in SCHEMES:
        rows = _array(sidecar.get(field))
        if rows is not None and rows.ndim == 2 and rows.shape[1] == 4:
            lengths = np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
            units = np.divide(rows[:, :3], lengths, out=np.zeros((len(rows), 3)), where=lengths > 0)
            for difference in _differences(table, rows[:, 3], units):
                yield f"{field} of its sidecar says otherwise ({difference}); the .bval is used"
    for field in B_VALUES:
        values = _array(sidecar.get(field))
        if values is not None and values.ndim == 1 and len(values) > 1:
            for difference in _differences(table, values, None):
                yield f"{field} of its sidecar says otherwise ({difference}); the .bval is used"


def _differences(
    table: GradientTable, b_values: FloatArray, directions: FloatArray | None
) -> Iterator[str]:
    """Say the first way in which another table differs."""
    if len(b_values) != len(table):
        yield f"{len(b_values)} rows for {len(table)}"
        return
    apart = np.abs(b_values - table.b_values)
    first = int(np.argmax(apart))
    if apart[first] > max(B_VALUES_DIFFER, 0.05 * table.b_values[first]):
        yield f"volume {first} b = {b_values[first]:g} for {table.b_values[first]:g}"
        return
    if directions is None:
        return
    both = table.directions.any(axis=1) & directions.any(axis=1)
    cosines = np.abs((table.directions * directions).sum(axis=1))
    angles = np.where(both, np.degrees(np.arccos(np.clip(cosines, 0, 1))), 0)
    if angles.max() > DIRECTIONS_DIFFER:
        yield f"directions by up to {angles.max():.0f}°"


def _array(value: Any) -> FloatArray | None:
    """Give numbers as an array; None for anything else."""
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.ndim and np.isfinite(array).all() else None
