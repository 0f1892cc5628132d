"""Align each subject's scans to the head on the input platform, as a new dataset."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from napari_msp.alignment.moving import AlignmentJob, Placed, placed_at, write_scan
from napari_msp.alignment.registration import (
    LEAST_CORRELATION,
    BrainImage,
    Freedom,
    brain_image,
    estimate_displacement,
)
from napari_msp.alignment.report import (
    REPORT,
    TABLE,
    AlignedScan,
    Alignment,
    heads_figure,
    write_report,
)
from napari_msp.bids import (
    BIDSIGNORE_DEVIATIONS,
    BIDSIGNORE_TABLES,
    DESCRIPTION,
    describe_dataset,
    describe_part,
)
from napari_msp.checking.summary import Finding, ScanComparison, place_of
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.cubes import Auto, check_voxel_size, edge_of
from napari_msp.data.dataset import (
    TravellingHeads,
    further_platforms,
    input_platform,
    open_dataset,
    why_alone,
)
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import Lattice
from napari_msp.errors import (
    Advice,
    Choose,
    Overwrite,
    Poll,
    Progress,
    Resample,
    UserError,
    stop_if,
)
from napari_msp.files import new_folder, refuse_occupied, write_text
from napari_msp.formatting import counted, listed
from napari_msp.options import several
from napari_msp.provenance import PreprocessingStep, advice, missing_steps
from napari_msp.signal.fitting import fit_sh, supported_order
from napari_msp.signal.spherical_harmonics import rish

README = """\
Aligned travelling heads
========================

Each subject's scans aligned with that subject's head on {source} by napari-msp {version}, from

    {dataset}

{how} {report} shows every scan before and after, {table} has the numbers. Beside each scan lie the
motion that was undone, for ITK and ANTs (..._xfm.txt) and for mrtransform of MRtrix3
(..._desc-mrtrix_xfm.txt), both from points of the input to points of the scan as it was.
"""

AFFINES = "Nothing was interpolated: the affines say where the heads lie, voxels are as scanned."
BIDSIGNORE = """\
# Motions between scans, and the report: the standard has no names for them yet.
*_xfm.txt
/align.*
"""

IMAGES = (
    "Images were interpolated once, by cubic splines, averaged before where voxels become coarser; "
    "negative values were set to 0."
)


def align(
    dataset: str | Path,
    out: str | Path,
    *,
    input: str | None = None,
    subjects: str | Iterable[str] = (),
    run: int | str | None = None,
    b0_threshold: float | None = None,
    affine: bool = False,
    resample: bool = False,
    voxel_size: float | Auto | None = None,
    force: bool = False,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> Alignment:
    """Align each subject's scans to that subject's head on the input platform.

    A rigid motion is written into the scan's affine: no voxel is interpolated, truth remains what
    was scanned, and b-vectors follow the image. Nothing else is corrected.

    Parameters
    ----------
    dataset
        BIDS folder; only read.
    out
        BIDS folder to create, with the report and the motions.
    input
        The platform to whose heads the others are aligned; None: the one that the dataset marks.
    subjects
        Subjects to align; empty: all.
    run
        Run to take of a repeated scan.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: 50.
    affine
        Whether to undo stretch and shear as well, which requires interpolated images.
    resample
        Whether to interpolate images, once, to the input's lattice, or to a refined one (a whole
        number of voxels per input voxel) where a target is finer.
    voxel_size
        Edge of isotropic voxels in mm, to which the input is interpolated too; images of all
        platforms are then interpolated. "auto": the input's smallest edge.
    force
        Whether to replace an earlier alignment.
    progress
        Called with a scan's name, the number of scans done and their total.
    cancelled
        Polled throughout.

    Returns
    -------
    Alignment

    Raises
    ------
    UserError
        When there is no such dataset, platform or subject, or `out` cannot be written.
    Cancelled
        When `cancelled()` was true; nothing is left behind.
    """
    wanted, out = several(subjects), Path(out)
    heads = open_dataset(dataset, run=run, b0_threshold=b0_threshold, only=wanted)
    source = input_platform(heads, input)
    chosen = _subjects(heads, wanted)
    if affine and not (resample or voxel_size is not None):
        problem = "stretch and shear need interpolated images"
        why = "interpolate the images"
        raise UserError(problem, field="affine", remedy=Resample(why=why))
    if voxel_size is not None:
        check_voxel_size(voxel_size)
    elif len(heads.platforms) == 1:
        problem = f"has scans only on {source}{why_alone(heads)}, so there is nothing to align"
        remedy = further_platforms(heads, Advice("add the scans of another platform"))
        raise UserError(problem, heads.root, remedy=remedy)
    check_out(out, heads.root, force)
    heads.tell()

    platforms = [source, *(each for each in heads.platforms if each != source)]
    names = [
        (subject, each) for subject in chosen for each in platforms if heads.has(subject, each)
    ]
    scans: list[AlignedScan] = []
    findings: list[Finding] = []
    with new_folder(out, replace=force) as stage:
        how = resample or voxel_size is not None
        job = AlignmentJob(
            heads, source, affine, how, voxel_size, stage, partial(stop_if, cancelled)
        )
        for subject in chosen:
            for scan, found in _align_subject(job, subject, platforms):
                scans.append(scan)
                findings += found
                if progress is not None:
                    progress(scan.name, len(scans), len(names))
        findings += _missing_corrections(heads, [heads.scans[each] for each in names])
        result = Alignment(out, source, tuple(scans), tuple(findings))
        _describe(job, result)
    return result


def _subjects(heads: TravellingHeads, wanted: Sequence[str]) -> list[str]:
    for subject in wanted:
        if subject not in heads.subjects:
            remedy = Choose("subjects", tuple(heads.subjects))
            raise UserError(f"has no subject {subject}", heads.root, "subjects", remedy)
    return [each for each in heads.subjects if not wanted or each in wanted]


# --- Where it is written ----------------------------------------------------------------------


def check_out(out: Path, dataset: Path, force: bool) -> None:
    """Refuse a folder in which the aligned dataset cannot be made.

    Raises
    ------
    UserError
        When it is or contains the dataset, or has content; an earlier alignment may be replaced.
    """
    if dataset.resolve().is_relative_to(out.resolve()):
        problem = "is the dataset itself, or contains it"
        raise UserError(problem, out, "out", Advice("give another folder"))
    try:
        refuse_occupied(out)
    except UserError as error:
        if not all((out / name).is_file() for name in (DESCRIPTION, REPORT, TABLE)):
            raise
        if not force:
            raise UserError("contains an alignment already", out, "out", Overwrite()) from error


# --- One subject ------------------------------------------------------------------------------


def _align_subject(
    job: AlignmentJob, subject: str, platforms: Iterable[str]
) -> Iterator[tuple[AlignedScan, list[Finding]]]:
    """Align one subject's scans, the input first."""
    present = [each for each in platforms if job.dataset.has(subject, each)]
    if job.source not in present:
        problem = f"has no scan on {job.source}to align the others with: left out"
        for platform in present:
            found = Finding("warning", f"{subject} {platform}", problem, Advice("add one"))
            yield AlignedScan(subject, platform, None), [found]
        return
    try:
        reference = _Reference.of(job, subject)
    except UserError as error:
        for platform in present:
            yield AlignedScan(subject, platform, None), [_left_out(subject, platform, error)]
        return
    for platform in present:
        job.poll()
        try:
            if platform == job.source:
                yield _write_input(job, subject, reference), []
            else:
                scan = _align_scan(job, subject, platform, reference)
                yield scan, list(_doubts(scan, job.source))
        except UserError as error:
            yield AlignedScan(subject, platform, None), [_left_out(subject, platform, error)]


def _left_out(subject: str, platform: str, error: UserError) -> Finding:
    about = f"{Path(error.subject).name} " if error.subject else ""
    problem = f"left out: {about}{error.problem}"
    return Finding("error", f"{subject} {platform}", problem, error.remedy, "left out")


@dataclass(frozen=True, eq=False)
class _Reference:
    """The input's head, to which the subject's other scans are aligned."""

    scan: Acquisition
    shell: Shell
    brain: BrainImage
    lattice: Lattice

    @classmethod
    def of(cls, job: AlignmentJob, subject: str) -> "_Reference":
        scan = job.dataset.acquisition(subject, job.source)
        lattice = scan.lattice
        if job.voxel_size is not None:
            lattice = lattice.scaled_to(edge_of(lattice, job.voxel_size), covering=True)
        shell = _lowest_shell(scan)
        scan.tell()
        return cls(scan, shell, brain_image(scan, shell), lattice)

    def lattice_for(self, scan: Lattice) -> Lattice:
        """Return the lattice to interpolate a scan to: as fine as it, in whole parts of a voxel."""
        ratio = self.lattice.voxel_sizes.mean() / scan.voxel_sizes.mean()
        return self.lattice.refined(max(1, round(float(ratio))))


def _lowest_shell(scan: Acquisition, near: float = 0.0) -> Shell:
    shell = scan.gradients.nearest_shell(near)
    return scan.shell() if shell is None else shell  # raises, with the reason


def _write_input(job: AlignmentJob, subject: str, reference: _Reference) -> AlignedScan:
    """Write the input in its place, interpolated only to another voxel size."""
    scan = reference.scan
    lattice = None if job.voxel_size is None else reference.lattice
    placed = placed_at(scan, None, lattice, job.poll)
    image = write_scan(job, subject, job.source, scan, placed, None)
    energy = _kept_energy(scan, placed)
    return AlignedScan(subject, job.source, image, clipped=placed.clipped, kept_energy=energy)


def _align_scan(
    job: AlignmentJob, subject: str, platform: str, reference: _Reference
) -> AlignedScan:
    scan = job.dataset.acquisition(subject, platform)
    shell = _lowest_shell(scan, reference.shell.b_value)
    scan.tell()
    brain = brain_image(scan, shell)
    freedom: Freedom = "affine" if job.affine else "rigid"
    found = estimate_displacement(reference.brain, brain, freedom, job.poll)
    lattice = reference.lattice_for(scan.lattice) if job.resample else None
    placed = placed_at(scan, found, lattice, job.poll)
    image = write_scan(job, subject, platform, scan, placed, found)
    # Measured again on the written scan, not derived from the motion.
    if job.resample:
        written = placed.acquisition
        after = brain_image(written, _lowest_shell(written, reference.shell.b_value))
    else:
        after = replace(brain, lattice=Lattice(brain.lattice.shape, placed.image.affine))
    left = estimate_displacement(reference.brain, after, "rigid", job.poll)
    return AlignedScan(
        subject,
        platform,
        image,
        ScanComparison.of(reference.brain, brain, found),
        ScanComparison.of(reference.brain, after, left),
        placed.clipped,
        _kept_energy(scan, placed),
        heads_figure(reference.brain, brain, after),
    )


def _doubts(scan: AlignedScan, source: str) -> Iterator[Finding]:
    if scan.before is None or scan.after is None or scan.after.displacement is None:
        return
    # If two heads differ, the aligned one may just pass; `check` looks before.
    found = [each.displacement for each in (scan.before, scan.after) if each.displacement]
    correlation = min(each.correlation for each in found)
    if correlation < LEAST_CORRELATION:
        problem = f"hardly resembles {source} (correlation {correlation:.2f} when aligned)"
        remedy = Advice("look at its pictures, and check that both show one subject")
        yield Finding("warning", scan.name, problem, remedy, "unlike input")
    if scan.after.too_far:
        problem = f"still lies {scan.after.distance:.2f} voxels from {source} on average"
        remedy = Advice("look at its pictures; distortion that differs cannot be undone by moving")
        yield Finding("warning", scan.name, problem, remedy, "misaligned")


def _kept_energy(scan: Acquisition, placed: Placed) -> dict[int, float]:
    """Return each SH order's energy after interpolation over that before, in the mask."""
    if placed.clipped is None:
        return {}
    energies = []
    for each in (scan, placed.acquisition):
        shell = _lowest_shell(each)
        order = min(6, supported_order(each.directions(shell)))
        if order < 2:
            return {}
        sh = fit_sh(each, b_value=shell.b_value, order=order)
        energies.append(rish(sh.coefficients[sh.mask]).mean(axis=0, dtype=float))
    return {2 * index: float(b / a) for index, (a, b) in enumerate(zip(*energies, strict=True))}


# --- The dataset as a whole -------------------------------------------------------------------


def _missing_corrections(heads: TravellingHeads, scans: Iterable[Path]) -> Iterator[Finding]:
    """Report each set of corrections that no file mentions, once."""
    lacking: dict[tuple[PreprocessingStep, ...], list[Path]] = {}
    for scan in scans:
        if steps := missing_steps(scan):
            lacking.setdefault(steps, []).append(scan)
    for steps, which in lacking.items():
        where = place_of(which[0], heads.root)
        also = f" and {counted(len(which) - 1, 'other')}" if len(which) > 1 else ""
        problem = (
            f"it is not stated that it{also} went through {listed([step.name for step in steps])}, "
            "which must come before aligning and are not done here"
        )
        remedy = Advice(f"if they are raw: {advice(steps)}")
        yield Finding("warning", where, problem, remedy, "raw")


def _describe(job: AlignmentJob, result: Alignment) -> None:
    """Write the files that describe the dataset as a whole, and the report."""
    stage, root = job.stage, job.dataset.root
    how = "affine" if job.affine else "rigid"
    made_by = f"align, {how}, {'interpolated' if job.resample else 'by affines alone'}"
    subjects = sorted({scan.subject for scan in result.scans if scan.image is not None})
    if not subjects:
        first = result.findings[0]
        raise UserError("no scan could be aligned", root, remedy=Advice(first.message()))
    readme = README.format(
        source=job.source,
        version=version("napari-msp"),
        dataset=root,
        how=IMAGES if job.resample else AFFINES,
        report=REPORT,
        table=TABLE,
    )
    describe_dataset(
        stage,
        f"{root.resolve().name}, heads aligned",
        readme,
        subjects,
        derivative=True,
        generated_by=made_by,
        input_platform=job.source,
        SourceDatasets=[{"URL": root.resolve().as_uri()}],
        DatasetLinks={"source": os.path.relpath(root.resolve(), result.out.resolve())},
    )
    write_text(stage / ".bidsignore", BIDSIGNORE_TABLES + BIDSIGNORE_DEVIATIONS + BIDSIGNORE)
    derivatives = {"brainmask": "Brain masks", "noisefree": "The same scans without noise"}
    for name, title in derivatives.items():
        folder = stage / "derivatives" / name
        if folder.exists():
            there = (result.out / "derivatives" / name).resolve()
            links = {"source": os.path.relpath(root.resolve(), there)}
            describe_part(folder, title, made_by, ignored=BIDSIGNORE_TABLES, DatasetLinks=links)
    write_report(stage, result)
