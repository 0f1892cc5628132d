"""Everything that is wrong with a travelling-heads dataset, told at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import B_VALUE_TOLERANCE, Acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.gradients import GradientTable, Shell, read_gradients
from napari_msp.data.lattice import SIZE_TOLERANCE, Lattice, scale_between
from napari_msp.data.masks import find_mask
from napari_msp.data.nifti import nifti_stem, open_nifti
from napari_msp.data.orientation import direction_cosines
from napari_msp.data.registration import (
    BrainImage,
    estimate_displacement,
    mean_diffusion_image,
)
from napari_msp.errors import UserError
from napari_msp.files import read_json
from napari_msp.signal.conditioning import CONDITION_LIMIT, condition_number, supported_order
from napari_msp.signal.sh_index import ORDER, coefficient_count

Severity = Literal["error", "warning", "note"]

MISALIGNMENT_LIMIT = 0.5
"""Mean displacement in voxels of the input above which alignment is warned of (our choice)."""

MISALIGNMENT_ACCURACY = 0.3
"""Mean error in mm of the measured displacement on simulated heads with 2.4 mm voxels (measured:
0.05 to 0.23 mm over shifts from 0 to 3 mm and twelve pairs of scans)."""

LEAST_CORRELATION = 0.9
"""Correlation of two aligned scans below which they may not be of one head (our choice; simulated
scans reach 0.99 on one head and 0.87 on two)."""

MOST_ABOVE_B0 = 0.02
"""Share of in-mask samples with S > S0 that is put down to noise (our choice)."""

MOST_WITHOUT_SIGNAL = 0.001
"""Share of in-mask voxels that may lack a b=0 signal (our choice)."""

SMALLEST_HOLE = 10
"""Voxels that the mask's holes must have in all to be worth a warning (our choice)."""

LEAST_CONNECTED = 0.98
"""Share of the mask that its largest piece must hold (our choice)."""

FLIP_MARGIN = 0.05
"""By how much mirroring b-vectors must improve the agreement of fibre directions (mean |cosine|,
0.5 for unrelated ones) before it is believed (our choice)."""

FLIP_VOXELS = 3000
"""The most anisotropic voxels, in which fibre directions are compared (our choice)."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, doubtful or worth knowing.

    Attributes
    ----------
    severity
        "error": the scan or dataset cannot be used as it is; "warning": it can, with worse
        results; "note": for information.
    where
        File (relative to the dataset), subject or platform.
    message
        What it is, then the mend.
    """

    severity: Severity
    where: str
    message: str


@dataclass(frozen=True)
class _Scan:
    """What later comparisons need of one scan; its voxels are let go."""

    where: str
    lattice: Lattice
    gradients: GradientTable
    brain: BrainImage | None
    tensor: FloatArray | None


def check_dataset(
    root: str | Path,
    *,
    input_platform: str = "ge_st",
    alignment: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Finding]:
    """Look for everything wrong with a dataset, never stopping at the first thing.

    Parameters
    ----------
    root
        BIDS folder.
    input_platform
        The platform that the others are compared with.
    alignment
        Whether to measure residual misalignment and the agreement of fibre directions between the
        platforms of each subject.
    progress
        Called with a scan's name, the number of scans checked and their total.

    Returns
    -------
    list of Finding
        In the order of the dataset. Empty only if there is nothing to say.
    """
    root = Path(root)
    try:
        dataset = open_dataset(root)
    except UserError as error:
        return [_from_error(error, root, str(root))]
    findings = list(_check_layout(dataset))
    if input_platform not in dataset.platforms:
        chosen = dataset.platforms[0]
        findings.append(
            Finding(
                "warning",
                "dataset",
                f"no scan is on {input_platform}; {chosen} is taken as the input platform "
                f"(there are {', '.join(dataset.platforms)}), choose one with --input",
            )
        )
        input_platform = chosen
    findings += _check_missing(dataset, input_platform)

    scans: dict[tuple[str, str], _Scan] = {}
    done = 0
    for subject in dataset.subjects:
        for platform in dataset.platforms:
            if not dataset.has(subject, platform):
                continue
            scan = _check_scan(dataset, subject, platform, alignment, findings)
            if scan is not None:
                scans[subject, platform] = scan
            done += 1
            if progress is not None:
                progress(f"{subject} {platform}", done, len(dataset.scans))
        of_subject = {p: scan for (s, p), scan in scans.items() if s == subject}
        findings += _compare_platforms(subject, of_subject, input_platform)
        if alignment and input_platform in of_subject:
            findings += _check_alignment(subject, of_subject, input_platform)
        for platform, scan in of_subject.items():  # images are needed no longer
            scans[subject, platform] = _Scan(scan.where, scan.lattice, scan.gradients, None, None)
    findings += _check_b_values(scans, input_platform)
    return findings


def has_errors(findings: Iterable[Finding]) -> bool:
    """Tell whether the dataset cannot be used as it is."""
    return any(finding.severity == "error" for finding in findings)


def report_text(findings: Iterable[Finding]) -> str:
    """Give the findings for reading: gravest first, equal messages together."""
    findings = list(findings)
    if not findings:
        return "Nothing to report.\n"
    counts = Counter(finding.severity for finding in findings)
    lines = [", ".join(_counted(counts[each], each) for each in ("error", "warning", "note"))]
    for severity in ("error", "warning", "note"):
        places: dict[str, list[str]] = {}
        for finding in findings:
            if finding.severity == severity:
                places.setdefault(finding.message, []).append(finding.where)
        if places:
            lines += ["", f"{severity.capitalize()}s"]
        for message, where in places.items():
            if len(where) == 1:
                lines.append(f"  {where[0]}: {message}")
            else:
                lines.append(f"  {message}")
                lines += [f"      {place}" for place in where]
    return "\n".join(lines) + "\n"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _from_error(error: UserError, root: Path, where: str) -> Finding:
    """Turn an error into a finding; paths are told from the dataset's root."""
    message = str(error).replace(f"{root}/", "").removeprefix(f"{where}: ")
    return Finding("error", where, message)


# --- The dataset as a whole ------------------------------------------------------------------


def _check_layout(dataset: TravellingHeads) -> Iterator[Finding]:
    description = dataset.root / "dataset_description.json"
    if not description.exists():
        yield Finding(
            "warning",
            description.name,
            "is missing; BIDS tools refuse a dataset without it, add it",
        )
    else:
        try:
            read_json(description)
        except UserError as error:
            yield _from_error(error, dataset.root, description.name)
    for folder in sorted((dataset.root / "derivatives").glob("*/")):
        if not (folder / description.name).exists():
            where = (folder / description.name).relative_to(dataset.root).as_posix()
            yield Finding("note", where, "is missing; BIDS asks for one in each derivative, add it")
    known = set(dataset.scans.values())
    for path in sorted(dataset.root.glob("sub-*/**/*_dwi.nii*")):
        if path not in known:
            yield Finding(
                "warning",
                path.relative_to(dataset.root).as_posix(),
                "is passed over: scans are named sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz and "
                "each once; rename or remove it",
            )


def _check_missing(dataset: TravellingHeads, input_platform: str) -> Iterator[Finding]:
    for subject in dataset.subjects:
        for platform in dataset.platforms:
            if dataset.has(subject, platform):
                continue
            if platform == input_platform:
                message = f"has no scan on {platform}, the input: training leaves it out; add one"
                yield Finding("warning", subject, message)
            else:
                message = (
                    f"has no scan on {platform}: training on that target stops; add one, or train "
                    "without that target or subject"
                )
                yield Finding("error", subject, message)


def _check_b_values(scans: dict[tuple[str, str], _Scan], input_platform: str) -> Iterator[Finding]:
    """Compare every scan with the b-value that the input platform has."""
    single = {
        key: scan.gradients.shells[0].b_value
        for key, scan in scans.items()
        if len(scan.gradients.shells) == 1
    }
    of_input = [value for (_, platform), value in single.items() if platform == input_platform]
    if not single:
        return
    common = float(np.median(of_input or list(single.values())))
    for (_, platform), scan in scans.items():
        values = [shell.b_value for shell in scan.gradients.shells]
        told = ", ".join(f"{value:.0f}" for value in values)
        near = any(abs(value - common) <= B_VALUE_TOLERANCE * common for value in values)
        if not near:
            yield Finding(
                "error",
                scan.where,
                f"has b = {told} s/mm² where the input platform has {common:.0f}: training refuses "
                "that; leave the scan out, or take the shell that the others have",
            )
        elif len(values) > 1 and platform == input_platform:
            yield Finding(
                "error",
                scan.where,
                f"has several shells (b = {told} s/mm²): training takes an input with one; keep "
                f"b = {common:.0f} and the b=0 volumes",
            )


# --- One scan --------------------------------------------------------------------------------


def _check_scan(
    dataset: TravellingHeads,
    subject: str,
    platform: str,
    alignment: bool,
    findings: list[Finding],
) -> _Scan | None:
    """Check one scan, adding to `findings`; None when later comparisons cannot use it."""
    path = dataset.scans[subject, platform]
    where = path.relative_to(dataset.root).as_posix()

    def caught(error: UserError) -> None:
        findings.append(_from_error(error, dataset.root, where))

    findings += _check_sidecar(dataset.root, path)
    image = mask_path = None
    try:
        image = open_nifti(path)
    except UserError as error:
        caught(error)
    try:
        mask_path = find_mask(path)
        if mask_path is None:
            message = "has no mask: median_otsu makes one for each run; add one to derivatives"
            findings.append(Finding("warning", where, message))
    except UserError as error:
        caught(error)

    gradients = _read_table(dataset.root, path, image.affine if image else np.eye(4), findings)
    if gradients is not None:
        findings += _check_scheme(where, gradients)
    if image is None or gradients is None or len(gradients.b0_volumes) == 0:
        return None
    try:
        acquisition = Acquisition(image, gradients, mask_path, path)
    except UserError as error:
        caught(error)
        return None
    findings += _check_voxel_sizes(where, acquisition.lattice)
    try:
        _ = acquisition.voxels
    except UserError as error:
        caught(error)
        return _Scan(where, acquisition.lattice, gradients, None, None)
    try:
        mask = acquisition.mask
    except UserError as error:
        caught(error)
        return _Scan(where, acquisition.lattice, gradients, None, None)
    findings += _check_mask(where, mask)
    findings += _check_intensities(where, acquisition)
    brain = tensor = None
    if alignment and gradients.shells:
        shell = gradients.shells[0]
        brain = mean_diffusion_image(acquisition, shell)
        tensor = _tensors(acquisition, shell)
    return _Scan(where, acquisition.lattice, gradients, brain, tensor)


def _check_sidecar(root: Path, path: Path) -> Iterator[Finding]:
    sidecar = path.with_name(nifti_stem(path) + ".json")
    where = sidecar.relative_to(root).as_posix()
    content = {}
    if sidecar.exists():
        try:
            content = read_json(sidecar)
        except UserError as error:
            yield _from_error(error, root, where)
            return
    if "EchoTime" not in content:
        yield Finding(
            "note", where, "EchoTime is not stated; add it (in seconds) if the protocol is known"
        )


def _read_table(
    root: Path, path: Path, affine: FloatArray, findings: list[Finding]
) -> GradientTable | None:
    stem = path.with_name(nifti_stem(path))
    bval, bvec = stem.with_name(stem.name + ".bval"), stem.with_name(stem.name + ".bvec")
    missing = [file for file in (bval, bvec) if not file.exists()]
    for file in missing:
        where = file.relative_to(root).as_posix()
        findings.append(Finding("error", where, "is missing; put it beside the image"))
    if missing:
        return None
    try:
        # The number of volumes is compared by the acquisition, so that a table that belongs to
        # another image is still looked at.
        return read_gradients(bval, bvec, affine)
    except UserError as error:
        findings.append(_from_error(error, root, path.relative_to(root).as_posix()))
        return None


def _check_scheme(where: str, gradients: GradientTable) -> Iterator[Finding]:
    if not gradients.shells:
        yield Finding("error", where, "holds no diffusion-weighted volume; give a DWI")
    if len(gradients.b0_volumes) == 0:
        message = "no volume has b=0; the signal cannot be normalised without one, add it"
        yield Finding("error", where, message)
    for shell in gradients.shells:
        directions = gradients.directions[shell.volumes]
        needed = coefficient_count(ORDER)
        if len(directions) < needed:
            yield Finding(
                "error",
                where,
                f"b = {shell.b_value:.0f} has {len(directions)} directions, SH order {ORDER} needs "
                f"{needed}; leave the scan out",
            )
            continue
        condition = condition_number(directions, ORDER)
        if condition > CONDITION_LIMIT:
            yield Finding(
                "warning",
                where,
                f"the scheme of b = {shell.b_value:.0f} is ill-conditioned at SH order {ORDER} "
                f"(condition number {condition:.0f}, it supports order "
                f"{supported_order(directions)}): higher terms come from the regularisation; "
                "distrust them",
            )


def _check_voxel_sizes(where: str, lattice: Lattice) -> Iterator[Finding]:
    sizes = lattice.voxel_sizes
    if np.ptp(sizes) > SIZE_TOLERANCE * sizes.mean():
        told = " × ".join(f"{size:.2f}" for size in sizes)
        yield Finding(
            "error",
            where,
            f"voxels are {told} mm, training needs isotropic ones; resample the scan",
        )


def _check_mask(where: str, mask: MaskArray) -> Iterator[Finding]:
    if mask.all():
        yield Finding(
            "warning", where, "the mask holds every voxel, background too; make one of the brain"
        )
    holes = int(binary_fill_holes(mask).sum() - mask.sum())
    if holes >= SMALLEST_HOLE:
        yield Finding(
            "warning",
            where,
            f"the mask has holes ({holes} voxels), nothing is computed in them; fill them",
        )
    pieces, count = label(mask)
    if count > 1:
        largest = np.bincount(pieces.ravel())[1:].max() / mask.sum()
        if largest < LEAST_CONNECTED:
            yield Finding(
                "warning",
                where,
                f"the mask is in {count} pieces, the largest holds {100 * largest:.0f} %; keep one",
            )


def _check_intensities(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    mask, b0 = acquisition.mask, acquisition.b0
    without = float((b0[mask] <= 0).mean())
    if without > MOST_WITHOUT_SIGNAL:
        yield Finding(
            "warning",
            where,
            f"{100 * without:.1f} % of the mask has no b=0 signal; make the mask tighter",
        )
    inside = mask & (b0 > 0)
    if not inside.any():
        return
    for shell in acquisition.gradients.shells:
        above = np.mean(
            [
                (acquisition.voxels[..., volume][inside] > b0[inside]).mean()
                for volume in shell.volumes
            ]
        )
        if above > MOST_ABOVE_B0:
            yield Finding(
                "warning",
                where,
                f"{100 * above:.0f} % of the in-mask signal at b = {shell.b_value:.0f} is above "
                "b=0, more than noise explains; check the order of the b-values and the mask",
            )


# --- The platforms of one subject ------------------------------------------------------------


def _compare_platforms(
    subject: str, scans: dict[str, _Scan], input_platform: str
) -> Iterator[Finding]:
    """Compare lattices with the node-aligned ones that the networks give."""
    if input_platform not in scans:
        return
    source = scans[input_platform].lattice.canonical
    for platform, scan in scans.items():
        if platform == input_platform:
            continue
        found = scan.lattice.canonical
        try:
            scale = scale_between(
                source.voxel_sizes, found.voxel_sizes, f"{input_platform} to {platform}"
            )
        except UserError as error:
            yield Finding("error", scan.where, str(error))
            continue
        wanted = source.refined(scale)
        if not found.matches(wanted):
            if found.shape != wanted.shape:
                shapes = (" × ".join(map(str, each.shape)) for each in (found, wanted))
                reason = "it has {} voxels, not {}".format(*shapes)
            else:
                reason = f"its voxels lie up to {found.offset_to(wanted):.2f} voxels away"
            yield Finding(
                "warning",
                scan.where,
                f"is not on the lattice that a network of scale {scale} gives for {input_platform} "
                f"({reason}): training resamples it, which smooths it; reslice it from the "
                "original in one step",
            )


def _check_alignment(
    subject: str, scans: dict[str, _Scan], input_platform: str
) -> Iterator[Finding]:
    fixed = scans[input_platform]
    if fixed.brain is None or fixed.tensor is None:
        return
    size = float(fixed.lattice.voxel_sizes.mean())
    for platform, scan in scans.items():
        if platform == input_platform or scan.brain is None or scan.tensor is None:
            continue
        where = f"{subject} {platform}"
        try:
            found = estimate_displacement(fixed.brain, scan.brain)
        except UserError as error:
            yield Finding("warning", where, f"alignment with {input_platform}: {error}")
            continue
        measured = (
            f"lies {found.mean:.1f} mm from {input_platform} on average "
            f"(shift {np.linalg.norm(found.shift):.1f} mm, turn {found.angle:.1f}°, "
            f"± {MISALIGNMENT_ACCURACY} mm)"
        )
        if found.correlation < LEAST_CORRELATION:
            yield Finding(
                "warning",
                where,
                f"hardly resembles {input_platform} (correlation {found.correlation:.2f} when "
                "aligned); make sure that both are of one subject, and the masks of the brain",
            )
        elif found.mean > MISALIGNMENT_LIMIT * size:
            yield Finding(
                "warning",
                where,
                f"{measured}, more than {MISALIGNMENT_LIMIT:g} voxel: a network learns that as if "
                "it were the scanner's; register the scans again",
            )
        else:
            yield Finding("note", where, measured)
        yield from _check_directions(where, fixed, scan, input_platform)


def _check_directions(
    where: str, fixed: _Scan, moving: _Scan, input_platform: str
) -> Iterator[Finding]:
    """Compare fibre directions with and without mirrored b-vectors."""
    assert fixed.brain is not None and moving.brain is not None
    assert fixed.tensor is not None and moving.tensor is not None
    indices = np.argwhere(fixed.brain.mask)
    to_moving = np.linalg.inv(moving.lattice.affine) @ fixed.lattice.affine
    nearest = np.rint(indices @ to_moving[:3, :3].T + to_moving[:3, 3]).astype(int)
    on_image = ((nearest >= 0) & (nearest < moving.lattice.shape)).all(axis=1)
    indices, nearest = indices[on_image], nearest[on_image]
    shared = moving.brain.mask[tuple(nearest.T)]
    strength, direction = _principal(fixed.tensor[tuple(indices[shared].T)])
    other_strength, other = _principal(moving.tensor[tuple(nearest[shared].T)])
    anisotropic = np.argsort(strength * other_strength)[-FLIP_VOXELS:]
    direction, other = direction[anisotropic], other[anisotropic]
    if len(direction) == 0:
        return
    axes = direction_cosines(moving.lattice.affine)

    def agreement(mirrored: list[float]) -> float:
        turned = other @ (axes @ np.diag(mirrored) @ axes.T).T
        return float(np.abs((turned * direction).sum(axis=1)).mean())

    as_given = agreement([1, 1, 1])
    mirrors = {"x": [-1.0, 1.0, 1.0], "y": [1.0, -1.0, 1.0], "z": [1.0, 1.0, -1.0]}
    best = max(mirrors, key=lambda axis: agreement(mirrors[axis]))
    if agreement(mirrors[best]) > as_given + FLIP_MARGIN:
        yield Finding(
            "error",
            where,
            f"fibres agree better with {input_platform} when one table's b-vectors are mirrored in "
            f"{best} (mean |cosine| {agreement(mirrors[best]):.2f} against {as_given:.2f}); check "
            "which of the two tables is wrong and negate that component",
        )


def _tensors(acquisition: Acquisition, shell: Shell) -> FloatArray:
    """Fit diffusion tensors by linear least squares, quick and good enough for directions.

    Returns
    -------
    (X, Y, Z, 6) float32: xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask.
    """
    mask = acquisition.mask
    x, y, z = acquisition.directions(shell).T
    design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    b0 = np.maximum(acquisition.b0[mask], 1e-6)[:, None]
    ratio = np.clip(acquisition.voxels[mask][:, shell.volumes] / b0, 1e-3, 1.0)
    tensors = np.zeros((*mask.shape, 6), dtype=np.float32)
    tensors[mask] = -np.log(ratio) @ np.linalg.pinv(design).T
    return tensors


def _principal(tensors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give (N,) linear anisotropy in [0, 1] and (N, 3) first eigenvectors of (N, 6) tensors."""
    xx, yy, zz, xy, xz, yz = np.moveaxis(tensors.astype(float), -1, 0)
    matrices = np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), -1, 0)
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(values, 1e-9)
    linear = (values[:, 2] - values[:, 1]) / values.sum(axis=1)
    return linear, vectors[:, :, 2]
