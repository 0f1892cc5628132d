"""The check of one scan alone: its files, voxels, mask and signal."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from napari_msp.alignment.registration import brain_image
from napari_msp.arrays import MaskArray
from napari_msp.bids import ALIGNMENT, name_doubts, read_metadata, sidecar_path
from napari_msp.checking.b_vectors import examine_table, with_table
from napari_msp.checking.gradients import check_scheme
from napari_msp.checking.quality import ScanQuality, measure_quality
from napari_msp.checking.slices import DroppedSlice
from napari_msp.checking.summary import (
    Finding,
    HeadImages,
    ScanSummary,
    TableInFile,
    errors_as_findings,
    finding_from,
    place_of,
    warning,
)
from napari_msp.checking.turns import determine_tensors, quick_tensors
from napari_msp.data.acquisition import Acquisition, DoubtfulScan
from napari_msp.data.companions import GradientFiles, find_gradients, look_for_mask
from napari_msp.data.contradictions import file_doubts, header_doubts, table_doubts
from napari_msp.data.cubes import MAKE_CUBES
from napari_msp.data.gradient_files import read_gradients
from napari_msp.data.masks import largest_piece, mask_doubts, volume_of
from napari_msp.data.nifti import check_four_axes, open_nifti
from napari_msp.errors import Advice, UserError
from napari_msp.foreign_errors import shortened

SMALLEST_HOLE = 10
"""Total number of voxels in the mask's holes that is reported (our choice)."""

LEAST_CONNECTED = 0.98
"""Share of the mask that its largest piece must have (our choice)."""

MOST_ABOVE_B0 = 0.02
"""Share of in-mask samples with S > S0 that is attributed to noise (our choice)."""

LEAST_NDC = 0.4
"""Neighbouring-DWI correlation below which a scan is of low quality (Yeh 2019)."""

MOST_GHOST = 0.015
"""Nyquist ghost, as a share of the signal, that is accepted (our choice; measured: up to 0.001 in
simulated heads without one, 0.005 in a real one)."""

MOST_WRAP = 0.05
"""Signal at the ends of the field of view, as a share of the brain's, that is accepted (our
choice)."""

NAMED = 3
"""Number of volumes that a message names, the worst ones."""


def check_scan(
    path: Path,
    root: Path,
    subject: str,
    platform: str,
    *,
    with_images: bool,
    b0_threshold: float | None = None,
) -> tuple[list[Finding], ScanSummary | None]:
    """Check one scan.

    Parameters
    ----------
    path, root
        The scan's image, and the folder to which reported paths are relative.
    with_images
        Whether to make the images for alignment.
    b0_threshold
        As for `load_acquisition`.

    Returns
    -------
    The findings, and the summary; None for it if later comparisons cannot use the scan.
    """
    where = place_of(path, root)
    findings = list(check_sidecar(path, root))
    acquisition = _open(path, root, findings, b0_threshold)
    if acquisition is None:
        return findings, None
    lattice, aligned = acquisition.lattice, _was_aligned(path)
    if not lattice.isotropic:
        problem = f"voxels are {lattice.edges}, but training needs cubic voxels"
        findings.append(Finding("error", where, problem, MAKE_CUBES, "voxel size"))
    header = [each.words for each in acquisition.first_doubts if isinstance(each, DoubtfulScan)]
    findings += [warning(where, each, "correct what is wrong", "header") for each in header]
    scan = ScanSummary(
        subject, platform, where, lattice, acquisition.given_gradients, aligned=aligned
    )
    readable = _readable(acquisition, root, where, findings)
    if readable is None:
        return findings, scan
    acquisition, inside = readable, readable.brain.inside
    shape = list(check_mask(where, inside))
    findings += shape or check_brain(where, acquisition)
    intensities = list(check_intensities(where, acquisition))
    findings += intensities
    if acquisition.left_out or not (intensities or acquisition.every_volume):
        # Otherwise the same is reported with its share, or by the order of the rows.
        findings += check_volumes(where, acquisition)
    if deviation := acquisition.reading.deviation:
        advice = "trust voxels far from the magnet's centre less"
        findings.append(warning(where, deviation, advice, "grad_dev"))
    quality = measure_quality(acquisition)
    findings += check_quality(where, quality)
    if not quality.dropped:
        findings += check_cut(where, acquisition)
    found, table = examine_table(where, acquisition)
    return [*findings, *found], replace(
        scan,
        gradients=acquisition.gradients,
        images=_head_images(acquisition, table) if with_images else None,
        mask_voxels=int(inside.sum()),
        mask_ml=volume_of(inside, acquisition.affine),
        quality=quality,
        table=replace(table, complete=not acquisition.left_out),
    )


def _was_aligned(path: Path) -> bool:
    try:
        return ALIGNMENT in read_metadata(path)
    except UserError:  # reported with the sidecar
        return False


def _open(
    path: Path, root: Path, findings: list[Finding], b0_threshold: float | None
) -> Acquisition | None:
    """Open the parts of a scan one by one, so that problems of each are added."""
    where = place_of(path, root)
    image = mask_path = None
    with errors_as_findings(findings, root, where):
        image = open_nifti(path)
    with errors_as_findings(findings, root, where):
        found = look_for_mask(path)
        mask_path = found.path
        if mask_path is None:
            words = ["has no mask: each run makes one from the image", *found.passed_over]
            advice = "add one to derivatives"
            findings.append(warning(where, "; ".join(words), advice, "no mask"))
    # Without an image its table is still checked; any affine will do for that.
    affine = np.eye(4) if image is None else image.affine
    gradients = None
    with errors_as_findings(findings, root, where):
        files = find_gradients(path, image)
        findings += check_gradient_files(path, root, files)
        if not files.missing:
            # The acquisition compares the number of volumes, so that another image's table is still
            # checked.
            gradients = read_gradients(files.bval, files.bvec, affine, b0_threshold=b0_threshold)
    if gradients is None:
        return None
    findings += check_scheme(where, gradients)
    if image is None or len(gradients.b0_volumes) == 0:
        return None
    with errors_as_findings(findings, root, where):
        check_four_axes(image, str(path))
        said = [*name_doubts(path), *header_doubts(image), *table_doubts(gradients)]
        # An unreadable sidecar is a finding of its own.
        said += file_doubts(path, gradients, image.affine, given=False, unread=False)
        doubts = tuple(DoubtfulScan(each, str(path)) for each in said)
        return Acquisition(image, gradients, mask_path, path, first_doubts=doubts)
    return None


def _readable(
    acquisition: Acquisition, root: Path, where: str, findings: list[Finding]
) -> Acquisition | None:
    """Read voxels and mask, which the acquisition keeps.

    Returns
    -------
    The acquisition; with all volumes if it is refused for odd ones, but its rows are merely
    misplaced. None if it cannot be used.
    """
    try:
        _ = acquisition.voxels, acquisition.mask
        return acquisition
    except UserError as error:
        whole = replace(acquisition, every_volume=True)
        if error.field == "bval" and _rows_slipped(whole):
            return whole
        findings.append(finding_from(error, root, where))
    return None


def _rows_slipped(whole: Acquisition) -> bool:
    """Return whether another order of its rows makes a table fit, which is then reported."""
    try:
        return bool(whole.b0[whole.mask].any() and examine_table("", whole)[1].slip)
    except UserError:
        return False


def _head_images(acquisition: Acquisition, table: TableInFile) -> HeadImages | None:
    """Make the images for alignment, from the lowest shell; None without one."""
    if table.slip:
        acquisition = with_table(acquisition, table)
    if not acquisition.gradients.shells:
        return None
    shell = acquisition.gradients.shells[0]
    fitted = determine_tensors(acquisition.directions(shell))
    tensors = quick_tensors(acquisition, shell) if fitted else None
    return HeadImages(brain_image(acquisition, shell), tensors)


# --- Files beside the image -------------------------------------------------------------------


def check_sidecar(path: Path, root: Path) -> Iterator[Finding]:
    """Check the JSON file beside an image, and those that it inherits."""
    where = place_of(sidecar_path(path), root)
    try:
        content = read_metadata(path)
    except UserError as error:
        yield finding_from(error, root, where)
        return
    if "EchoTime" not in content:
        advice = Advice("add it (in seconds) if the protocol is known")
        yield Finding("note", where, "EchoTime is not stated", advice)
        return
    stated = content["EchoTime"]
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 1:
        problem = f"EchoTime is {shortened(json.dumps(stated))}, which is not a time in seconds"
        yield warning(where, problem, "correct it: 89 ms is 0.089")


def check_gradient_files(path: Path, root: Path, files: GradientFiles) -> Iterator[Finding]:
    """Report gradient files that an image lacks, and those that it has from elsewhere."""
    for file in files.missing:
        advice = Advice("put it next to the image")
        yield Finding("error", place_of(file, root), "is missing", advice)
    if files.note:
        yield Finding(
            "note", place_of(path, root), files.note, Advice("check that this is intended")
        )


# --- Voxels, mask and signal ------------------------------------------------------------------


def check_volumes(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    """Report the volumes that are not what the table says, and are left out."""
    for doubt in acquisition.reading.doubts:
        if doubt.words != acquisition.reading.deviation:
            yield warning(where, doubt.words, "look at them", "volumes")


def check_brain(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    """Check whether the mask is plausible as a brain's, by size, place and the b=0 image."""
    made = "the mask that is made" if acquisition.brain.estimated else "the mask"
    for doubt in mask_doubts(acquisition.brain.inside, acquisition.b0, acquisition.affine):
        advice = "look at it over the b=0 image, and give a better one"
        yield warning(where, f"{made} {doubt}", advice, "mask doubtful")


def check_mask(where: str, mask: MaskArray) -> Iterator[Finding]:
    """Check whether a mask is one piece without holes, as a brain is."""
    if mask.all():
        problem = "the mask contains every voxel, including background"
        yield warning(where, problem, "make a mask of the brain", "mask full")
    holes = int(binary_fill_holes(mask).sum() - mask.sum())
    if holes >= SMALLEST_HOLE:
        problem = f"the mask has holes ({holes} voxels), nothing is computed in them"
        yield warning(where, problem, "fill them", "mask holes")
    pieces, count = label(mask)
    if count > 1:
        largest = np.bincount(pieces.ravel())[1:].max() / mask.sum()
        if largest < LEAST_CONNECTED:
            problem = f"the mask is in {count} pieces, the largest contains {100 * largest:.0f} %"
            yield warning(where, problem, "keep only one", "mask pieces")


def check_intensities(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    """Compare the weighted signal inside the mask with that of b=0."""
    inside, b0 = acquisition.mask, acquisition.b0
    if acquisition.without_signal in acquisition.said():
        advice = "shrink the mask, or find out why they have no signal"
        yield warning(where, acquisition.without_signal, advice, "no signal")
    for shell in acquisition.gradients.shells:
        # One volume at a time: memory may not hold a copy of the whole shell.
        volumes = (acquisition.voxels[..., volume][inside] for volume in shell.volumes)
        above = np.mean([(volume > b0[inside]).mean() for volume in volumes])
        if above > MOST_ABOVE_B0:
            problem = (
                f"{100 * above:.0f} % of the in-mask signal at b = {shell.b_value:.0f} is above "
                "b=0, more than noise explains"
            )
            advice = "check the order of the b-values and the mask"
            yield warning(where, problem, advice, "above b=0")


MOST_CUT = 0.01
"""Share of the mask that may be 0 in some volumes in one piece (our choice)."""


def check_cut(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    """Look for voxels that are 0 in some volumes: beyond the edge of volumes that were moved.

    Noise correction makes voxels 0 or negative, too, but scattered.
    """
    inside = acquisition.mask
    cut = np.zeros(inside.shape, dtype=bool)
    for volume in range(len(acquisition.gradients)):
        cut |= acquisition.voxels[..., volume] == 0
    cut &= inside
    share = largest_piece(cut).sum() / inside.sum() if cut.any() else 0.0
    if share > MOST_CUT:
        problem = (
            f"{100 * share:.0f} % of the mask is 0 in some volumes (outside their field of view "
            "after motion correction?): S/S0 and SH are wrong there"
        )
        yield warning(where, problem, "leave this region out of the mask", "cut volumes")


# --- Quality ----------------------------------------------------------------------------------


ORDINALS = ("first", "second", "third")


def check_quality(where: str, quality: ScanQuality) -> Iterator[Finding]:
    """Report what is wrong with how a scan was acquired, and name the worst volumes."""
    if quality.dropped:
        count = len(quality.dropped)
        noun = "slice has" if count == 1 else "slices have"
        along = f"slices along the {ORDINALS[quality.slice_axis]} axis, {quality.slice_axis_by}"
        problem = f"{count} {noun} dropped out: {_named_slices(quality.dropped)} ({along})"
        advice = "leave these volumes out, or let eddy replace the slices"
        yield warning(where, problem, advice, "dropped slices")
    if quality.moved:
        moved, total = quality.moved, len(quality.b_values)
        named = [f"{each.volume} by {each.shift:.1f} mm and {each.turn:.1f}°" for each in moved]
        problem = (
            f"{len(moved)} of {total} volumes moved against the others of their shell: volume "
            f"{_listed(named)}"
        )
        advice = "correct the scan for motion, with eddy or dwifslpreproc, before use"
        yield warning(where, problem, advice, "moved")
    if quality.ndc is not None and quality.ndc < LEAST_NDC:
        problem = (
            f"neighbouring directions hardly resemble each other (correlation {quality.ndc:.2f}, "
            f"{LEAST_NDC:g} is the least for a good scan)"
        )
        yield warning(where, problem, "look at the volumes, the b-vectors and the mask", "NDC")
    if quality.ghost_axis is not None:
        along = f"along its {ORDINALS[quality.ghost_axis]} axis"
        if (quality.ghost or 0) > MOST_GHOST:
            problem = f"a ghost of {quality.ghost:.1%} lies half a field of view away {along}"
            yield warning(where, problem, "have the scanner's ghost correction checked", "ghost")
        if (quality.wrap or 0) > MOST_WRAP:
            problem = f"{quality.wrap:.0%} of the brain's signal lies at the image's end {along}"
            advice = "check whether the head wraps around; a larger field of view helps"
            yield warning(where, problem, advice, "wrap")


def _named_slices(slices: Sequence[DroppedSlice]) -> str:
    """Write the slices of the worst volumes, counted from 0."""
    by_volume = groupby(sorted(slices, key=attrgetter("volume")), key=attrgetter("volume"))
    volumes = [(volume, list(group)) for volume, group in by_volume]
    volumes.sort(key=lambda entry: -max(each.depth for each in entry[1]))
    named = []
    for volume, group in volumes:
        depth = max(each.depth for each in group)
        places = _ranges([each.slice for each in group])
        noun, reach = ("slice", "by") if len(group) == 1 else ("slices", "by up to")
        named.append(f"{noun} {places} of volume {volume} {reach} {depth:.0%}")
    return _listed(named)


def _ranges(numbers: Sequence[int]) -> str:
    """Write whole numbers, consecutive ones as ranges.

    >>> _ranges([7, 3, 4, 5])
    '3–5, 7'
    """
    ordered = sorted(numbers)
    rows = groupby(enumerate(ordered), key=lambda entry: entry[1] - entry[0])
    parts = [[number for _, number in row] for _, row in rows]
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


def _listed(named: Sequence[str]) -> str:
    """Join the first few, and add how many more there are."""
    more = len(named) - NAMED
    return ", ".join(named[:NAMED]) + (f" and {more} more" if more > 0 else "")
