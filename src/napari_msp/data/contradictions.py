"""Contradictions within a scan: in its header, and between gradient table, files and volumes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import aff2axcodes

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import NIFTI_SUFFIXES, bare_stem, image_suffix, nifti_stem, read_sidecar
from napari_msp.data.companions import (
    BVALS,
    BVECS,
    FOLDER_BVALS,
    FOLDER_BVECS,
    FOLDER_MRTRIX_TABLES,
    MRTRIX_TABLES,
    ROTATED,
    GradientFiles,
    by_name,
    find_gradients,
)
from napari_msp.data.gradient_files import length_scales, read_gradients
from napari_msp.data.gradients import SHELL_GAP, GradientTable, likely_b0, scanner_to_image_axes
from napari_msp.data.lattice import Lattice, how_far_apart, sizes_text, voxel_sizes
from napari_msp.data.nifti import (
    LARGEST_VOXEL,
    REPAIRS,
    SMALLEST_VOXEL,
    lattice_of,
    open_nifti,
    qform_of,
    read_voxels,
)
from napari_msp.data.volumes import MOST_ODD, OddVolume, in_words
from napari_msp.errors import Advice, CountAsB0, UserError
from napari_msp.files import entries
from napari_msp.formatting import listed

APART = 0.1
"""Distance between a voxel's sform and qform places, in voxels, that is reported (our choice)."""

SIZES_DIFFER = 0.01
"""Relative difference between pixdim and the affine's voxel sizes that is reported (our choice)."""

SHEAR = 0.5
"""Angle in degrees by which voxel axes may miss a right angle unreported (our choice)."""

WEAK_B0 = 10.0
"""Mean b-value in s/mm² of b=0 images that changes S/S0: tissue has lost 1 % (our choice)."""

NOTABLE_B_VALUE = 0.01
"""Share by which b-values of one shell may differ unreported (our choice)."""

WRAPPED = -16_384
"""Value in an int16 image below which numbers beyond its range have wrapped around (our choice):
magnitudes are never negative, and denoising makes small negative values only."""

B_VALUES_DIFFER = 30.0
"""Reported difference in s/mm² between two files' b-values of one volume (our choice)."""

DIRECTIONS_DIFFER = 2.0
"""Reported angle in degrees between two files' directions of one volume (our choice)."""

RUNS_DIFFER = 20.0
"""Angle in degrees between one volume's directions that tells runs from repetitions: turning them
with the head's motion turns them less (our choice)."""

SCHEMES = ("dw_scheme", "DiffusionScheme")
"""Sidecar fields that may hold a gradient table: rows of direction (scanner axes) and b-value."""

B_VALUES = ("DiffusionBValues", "BValues", "bvals", "bval", "b_values")
"""Fields of a sidecar that may hold the b-values."""

MOST_VOXELS = 20_000
"""Number of in-mask voxels, evenly spread, over which the error is measured."""

MOST_APPENDED = 4
"""Most computed images that scanners append: if more b=0 rows fail, the table is wrong (ours)."""

FEWEST_DIRECTIONS = 28
"""Number of directions that SH order 6 needs, and that must remain when volumes are left out."""


# --- The header -------------------------------------------------------------------------------


def header_doubts(image: nib.Nifti1Image) -> Iterator[str]:
    """Yield, in words, a header's contradictions and what was repaired when it was opened."""
    yield from image.extra.get(REPAIRS, ())
    yield from _scaling(image)
    yield from _orientation(image)
    sizes = voxel_sizes(image.affine)
    written = sizes_text(sizes)
    if sizes.max() > LARGEST_VOXEL or sizes.min() < SMALLEST_VOXEL:
        yield f"voxels of {written} mm do not fit a brain scan: is the unit in the header wrong?"
    stated = np.abs(np.array(image.header.get_zooms()[:3], dtype=float))
    if np.abs(stated / sizes - 1).max() > SIZES_DIFFER:
        other = sizes_text(stated)
        yield f"voxels are {other} mm in pixdim but {written} mm in the affine, which is used"
    tilt = shear(image.affine)
    if tilt > SHEAR:
        yield (
            f"its affine is sheared by {tilt:.1f}°: b-vectors are read along the nearest "
            "perpendicular axes"
        )


def _scaling(image: nib.Nifti1Image) -> Iterator[str]:
    """Check that the header's slope is a number; nibabel keeps only its own reading of it."""
    if image.get_filename() is None:
        return
    file = image.file_map["header" if "header" in image.file_map else "image"]
    try:
        with file.get_prepare_fileobj("rb") as stream:
            header = type(image.header).from_fileobj(stream, check=False)
    except (OSError, EOFError, ValueError):  # it was readable a moment ago
        return
    if not np.isfinite(header["scl_slope"]):
        yield "its scaling slope is not a number: voxel values are used as stored"


def _orientation(image: nib.Nifti1Image) -> Iterator[str]:
    """Compare sform and qform if the header has both; report a header that has neither."""
    sform, qform = (int(image.header[f"{form}_code"]) for form in ("sform", "qform"))
    if not sform and not qform:
        codes = "".join(aff2axcodes(image.affine))
        yield (
            f"its header states no orientation (sform and qform codes are 0): {codes} is assumed, "
            "so left and right may be swapped"
        )
    other = qform_of(image)
    if not sform or other is None:
        return
    shape = image.shape[:3]
    used, second = Lattice(shape, image.affine), Lattice(shape, other)
    if used.offset_to(second) > APART:
        apart = how_far_apart(used, second)
        differ = f"differ by {apart}" if apart else "disagree about left and right"
        yield f"sform and qform {differ}; the sform is used"


def shear(affine: FloatArray) -> float:
    """Return the largest angle in degrees by which two voxel axes miss a right angle."""
    axes = affine[:3, :3] / voxel_sizes(affine)
    cosines = np.abs(axes.T @ axes - np.diag(np.diag(axes.T @ axes)))
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0, 1))))


def wrapped_doubt(image: nib.Nifti1Image, voxels: FloatArray) -> str:
    """Return a text on numbers that int16 could not hold; empty if there are none.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal of the image, as read.
    """
    scaled = image.header.get_slope_inter()[0] not in (None, 1)
    if image.get_data_dtype() != np.int16 or scaled or (lowest := np.nanmin(voxels)) >= WRAPPED:
        return ""
    return (
        f"{int((voxels < WRAPPED).sum()):,} values are negative, down to {lowest:,.0f}: numbers "
        "above 32,767 seem to have been saved as int16, which turns them negative, and are wrong; "
        "convert the scan again, as uint16 or float32"
    )


# --- The gradient table and other files -------------------------------------------------------


def in_tissue(difference: float) -> str:
    """Write how much signal a difference in b (s/mm²) amounts to, at 0.8e-3 mm²/s."""
    return f"{0.08 * abs(difference):.0f} % in tissue"


def table_doubts(table: GradientTable) -> Iterator[str]:
    """Yield, in words, how b-vector lengths were read, and that b=0 images have decayed."""
    if table.scaled is not None:
        low, high = table.scaled
        yield (
            f"its b-vectors do not have unit length: b-values were multiplied by their squared "
            f"lengths ({low:.2g} to {high:.2g}), as MRtrix3 does; give unit b-vectors if their "
            "lengths have no meaning"
        )
    if table.uneven is not None:
        low, high = table.uneven
        yield (
            f"its b-vectors have lengths of {low:.3g} to {high:.3g}, which cannot code b-values: "
            "they are used as unit vectors"
        )
    mean = table.b0_weighting
    if mean <= WEAK_B0:
        return
    b0 = table.b_values[table.b0_volumes]
    range_ = f"{b0.max():g}" if np.ptp(b0) == 0 else f"{b0.min():g} to {b0.max():g}"
    yield (
        f"b = {range_} counts as b=0 but is itself weighted: S/S0 and SH are those of a b-value "
        f"{mean:.0f} s/mm² lower, so compare them only with scans of similar b=0 (FA and "
        "diffusivity account for it)"
    )


def file_doubts(
    path: Path, table: GradientTable, affine: FloatArray, given: bool, *, unread: bool = True
) -> Iterator[str]:
    """Yield, in words, where other files of a scan contradict its gradient table.

    Parameters
    ----------
    given
        Whether the user named the table; if not, other tables beside the image are compared, too.
    unread
        Whether to say why the sidecar, if there is one, cannot be read.
    """
    if not given:
        yield from _other_tables(path, table, affine)
    try:
        sidecar = read_sidecar(path)
    except UserError as error:
        if unread:
            yield f"its sidecar {error.problem}: what it states about gradients and b=0 is unknown"
        return
    yield from _sidecar_table(sidecar, table)


def _other_tables(path: Path, table: GradientTable, affine: FloatArray) -> Iterator[str]:
    """Compare with all other tables in the folder, except those of other images."""
    try:
        used = find_gradients(path)
    except UserError:  # several apply, which is reported where one is looked for
        return
    if used.missing or used.bvec.name.lower().endswith(ROTATED):  # reported elsewhere
        return
    for bval, bvec in _left_aside(path, used):
        try:
            other = read_gradients(bval, bvec, affine)
        except UserError:
            continue
        names = dict.fromkeys(each.name for each in (bval, bvec) if each not in used)
        say = "disagree" if len(names) > 1 else "disagrees"
        own = used.bvec if bval in used else used.bval
        for difference in _differences(table, other.b_values, other.directions):
            yield f"{listed([*names])} {say} ({difference}); {own.name} is used"


def _left_aside(image: Path, used: GradientFiles) -> Iterator[tuple[Path, Path]]:
    """Yield the tables in an image's folder that are neither used nor another image's.

    They are those of its own name, those of the folder, and rotated b-vectors of any name.
    b-vectors without b-values of their own are taken with the b-values that are used.
    """
    names = by_name(image.parent, (each.name for each in entries(image.parent)))
    own = {nifti_stem(image).lower(), bare_stem(image).lower()}
    images = own | {nifti_stem(path).lower() for path in names.values() if image_suffix(path)}
    both = {*FOLDER_MRTRIX_TABLES, *(stem + end for stem in own for end in MRTRIX_TABLES)}
    for name, path in names.items():
        stem = next((name.removesuffix(end) for end in (*BVECS, ROTATED) if name.endswith(end)), "")
        vectors = name in FOLDER_BVECS or stem in own or (stem and "rotat" in name)
        if path in used or not (vectors or name in both):
            continue
        nearest = max((each for each in images if name.startswith(each)), key=len, default="")
        if nearest not in {"", *own}:
            continue
        likely = [*(stem + end for end in BVALS if stem), *FOLDER_BVALS]
        bval = next((names[each] for each in likely if each in names), used.bval)
        yield path if name in both else bval, path


def _sidecar_table(sidecar: Mapping[str, Any], table: GradientTable) -> Iterator[str]:
    for field in SCHEMES:
        rows = _array(sidecar.get(field))
        if rows is not None and rows.ndim == 2 and rows.shape[1] == 4:
            lengths = np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
            units = rows[:, :3] / np.where(lengths > 0, lengths, 1)
            scales = length_scales(rows[:, :3], rows[:, 3], table.b0_threshold)
            b_values = rows[:, 3] if scales is None else rows[:, 3] * scales
            for difference in _differences(table, b_values, units):
                yield f"{field} in its sidecar disagrees ({difference}); the .bval is used"
    for field in B_VALUES:
        values = _array(sidecar.get(field))
        if values is not None and values.ndim == 1 and len(values) > 1:
            for difference in _differences(table, values, None):
                yield f"{field} in its sidecar disagrees ({difference}); the .bval is used"


def _differences(
    table: GradientTable, b_values: FloatArray, directions: FloatArray | None
) -> Iterator[str]:
    """Yield, in words, the first way in which another table differs."""
    if len(b_values) != len(table):
        yield f"{len(b_values)} rows instead of {len(table)}"
        return
    apart = np.abs(b_values - table.b_values)
    first = int(np.argmax(apart))
    if apart[first] > max(B_VALUES_DIFFER, 0.05 * table.b_values[first]):
        yield f"volume {first} b = {b_values[first]:g} instead of {table.b_values[first]:g}"
        return
    if directions is None:
        return
    weighted = table.b_values > table.b0_threshold
    both = weighted & table.directions.any(axis=1) & directions.any(axis=1)
    cosines = np.abs((table.directions * directions).sum(axis=1))
    angles = np.where(both, np.degrees(np.arccos(np.clip(cosines, 0, 1))), 0)
    if angles.max() > DIRECTIONS_DIFFER:
        yield f"directions by up to {angles.max():.0f}°"


def _array(value: Any) -> FloatArray | None:
    """Return a value as an array of numbers; None if it is anything else."""
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.ndim and np.isfinite(array).all() else None


def are_parts(paths: Sequence[Path]) -> bool:
    """Return whether runs have different directions or b-values, so are not repetitions."""
    tables = []
    for path in paths:
        try:
            files = find_gradients(path)
            tables.append(read_gradients(files.bval, files.bvec, np.eye(4)))
        except UserError:  # reported when it is read
            return False
    first, *others = tables
    reach = np.cos(np.radians(RUNS_DIFFER))
    for each in others:
        if len(each) != len(first) or np.abs(each.b_values - first.b_values).max() > SHELL_GAP:
            return True
        cosines = np.abs((each.directions * first.directions).sum(axis=1))
        if (cosines[each.directions.any(axis=1) & first.directions.any(axis=1)] < reach).any():
            return True
    return False


# --- Volumes that are not what the table says -------------------------------------------------


def no_b0(table: GradientTable, name: str) -> UserError:
    """Return the error that no volume counts as b=0, saying which could."""
    low = table.b_values[likely_b0(table.b_values)]
    if len(low) == 0:
        problem = "no volume has b=0, and without one the signal cannot be normalised"
        return UserError(problem, name, "bval", Advice("give a scan that has one"))
    lowest = f"{low.min():g}" + (f" to {low.max():g}" if np.ptp(low) else "")
    problem = f"no volume has b ≤ {table.b0_threshold:g}, the lowest have b = {lowest} s/mm²"
    return UserError(problem, name, "b0_threshold", CountAsB0(float(low.max())))


def with_directionless(odd: Sequence[OddVolume], table: GradientTable) -> list[OddVolume]:
    """Add weighted volumes without direction: scanners append trace images like that."""
    known = {each.volume: each for each in odd}
    for volume in table.without_direction:
        why = "without a direction (a trace image?)"
        known.setdefault(int(volume), OddVolume(int(volume), "derived", why))
    return [known[volume] for volume in sorted(known)]


def refuse_too_few(
    table: GradientTable, kept: IntArray, odd: Sequence[OddVolume], name: str
) -> None:
    """Refuse a scan whose table belongs to another, or that has too few volumes left."""
    left = table.taken(kept)
    kinds = {each.kind for each in odd if each.volume not in table.without_direction}
    its_own = Advice("give the table that belongs to this image, in the order of its volumes")
    said = in_words(odd, table)
    if len(left.b0_volumes) == 0 and kinds == {"blank"}:
        problem = f"its b=0 image has no value above 0 ({said})"
        raise UserError(problem, name, "bval", Advice("check the image"))
    if len(left.b0_volumes) == 0:
        raise UserError(f"{said}: no b=0 volume is left", name, "bval", its_own)
    if "unweighted" in kinds and kinds & {"weighted", "derived"}:
        raise UserError(f"{said}: the table's rows do not match the volumes", name, "bval", its_own)
    lost = len(table.b0_volumes) - len(left.b0_volumes)
    if lost > max(MOST_APPENDED, len(left.b0_volumes)):
        problem = f"{said}: {lost} of {len(table.b0_volumes)} volumes listed as b=0 are not"
        raise UserError(problem, name, "bval", its_own)
    repair = Advice("repair these volumes, or leave the scan out")
    for shell in table.shells:
        before, after = len(shell.volumes), int(np.isin(shell.volumes, kept).sum())
        if before - after > max(MOST_ODD * before, 1):
            lost_here = f"{before - after} of {before} volumes at b = {shell.b_value:.0f}"
            raise UserError(f"{said}: {lost_here} do not fit the table", name, "bval", its_own)
        if after < FEWEST_DIRECTIONS <= before:
            problem = (
                f"{said}: without them b = {shell.b_value:.0f} has {after} directions, but SH "
                f"order 6 needs {FEWEST_DIRECTIONS}"
            )
            raise UserError(problem, name, "bval", repair)


# --- Gradients that differ from voxel to voxel -----------------------------------------------


def find_deviation(dwi: Path) -> Path | None:
    """Look for `grad_dev` beside an image."""
    names = ("grad_dev", f"{nifti_stem(dwi)}_grad_dev", f"{bare_stem(dwi)}_grad_dev")
    paths = (dwi.parent / (name + suffix) for name in names for suffix in NIFTI_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def deviation_path(image: Path) -> Path:
    """Return the path of an image's `grad_dev` (HCP), which is written beside it."""
    return image.with_name(f"{bare_stem(image)}_grad_dev.nii.gz")


def deviation_note(file: Path | None, said: str) -> dict[str, Any]:
    """Return the sidecar field of a scan that has a `grad_dev`.

    Parameters
    ----------
    file
        The `grad_dev` beside the image; None: it was not copied.
    said
        Text that states the error of not using it.
    """
    name = None if file is None else file.name
    return {"GradientDeviation": {"File": name, "Used": False, "Description": said}}


def read_deviation(path: Path, lattice: Lattice, mask: MaskArray) -> FloatArray:
    """Read (V, 3, 3) matrices of in-mask voxels: a voxel feels (1 + matrix) · gradient.

    HCP's file has nine volumes, the matrix row by row.

    Raises
    ------
    UserError
        When it is another kind of image, or on another lattice.
    """
    image = open_nifti(path)
    if len(image.shape) != 4 or image.shape[3] != 9:
        problem = f"has {' × '.join(map(str, image.shape))} values, not nine volumes"
        raise UserError(problem, path, remedy=Advice("give HCP's file"))
    if not lattice.matches(lattice_of(image)):
        remedy = Advice("resample it to the image")
        raise UserError("its voxel grid is not the image's", path, remedy=remedy)
    inside = np.argwhere(mask)
    chosen = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_VOXELS)).astype(int)]
    values: FloatArray = read_voxels(image, path)[tuple(chosen.T)].astype(float)
    return values[np.isfinite(values).all(axis=1)].reshape(-1, 3, 3)


def measure_deviation(matrices: FloatArray, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Measure the error of using the table's gradients instead of those that voxels feel.

    b' = |(1 + L) g|² b (HCP).

    Parameters
    ----------
    matrices
        (V, 3, 3), see `read_deviation`.
    vectors
        (N, 3) unit b-vectors along the image's axes, as in FSL's files.

    Returns
    -------
    of_b, angles
        (V,) mean errors over gradients: of b in percent, of directions in degrees.
    """
    felt = vectors.T + matrices @ vectors.T  # (V, 3, N)
    lengths = np.linalg.norm(felt, axis=1)
    cosines = np.einsum("vin,ni->vn", felt, vectors) / np.maximum(lengths, 1e-12)
    of_b = 100 * np.abs(lengths**2 - 1).mean(axis=1)
    return of_b, np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean(axis=1)


def deviation_doubt(path: Path, lattice: Lattice, mask: MaskArray, table: GradientTable) -> str:
    """Return a text on an unused `grad_dev` and the error that makes; empty without an error."""
    weighted = table.directions[table.b_values > table.b0_threshold]
    weighted = weighted[weighted.any(axis=1)]
    try:
        matrices = read_deviation(path, lattice, mask)
    except UserError as error:
        return f"{path.name} is not used, and cannot be read ({error.problem})"
    if not (len(matrices) and len(weighted)):
        return ""
    of_b, angles = measure_deviation(matrices, scanner_to_image_axes(weighted, lattice.affine))
    return (
        f"{path.name} is not used: without it, b is off by {of_b.mean():.1f} % and directions by "
        f"{angles.mean():.1f}° on average, in 5 % of voxels by over {np.percentile(of_b, 95):.1f} "
        f"% or {np.percentile(angles, 95):.1f}°"
    )
