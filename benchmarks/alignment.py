"""How well moved heads are laid on each other: residuals, what FA and SH lose, and the real slab.

    python benchmarks/alignment.py [--size small] [--subjects 3] [--dipy] [--rows FILE]
                                   [--slab SLAB_DWI]

Simulated heads are moved on every platform but the input by 0 to 8 mm and 0 to 15°, with noise, and
aligned by their affines. The residual is the mean distance, over the input's mask, of where a point
of the head is from where the alignment puts it. FA and SH errors are those of the aligned scans,
interpolated once onto the lattice of scans that never moved, against those; beside them the errors
of the misaligned scans, and of never-moved scans with another noise (of whole heads not for
connectom_sa, which has eight times as many voxels). `--dipy` does the same with DIPY's mutual
information. `--rows` keeps each scan's numbers in a file: run again, it goes on where it stopped.
The real slab is divided into even and odd directions (its only b=0 serves both), one half is moved
and interpolated onto the slab's lattice, and the motion recovered.
"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from napari_msp.alignment.moving import interpolate_scan
from napari_msp.alignment.registration import (
    BrainImage,
    Displacement,
    brain_image,
    estimate_displacement,
)
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.lattice import Lattice, interpolate, resample_mask
from napari_msp.data.phantom.changes import bundles_after
from napari_msp.data.phantom.head import SimulatedHead, grid_of, make_head
from napari_msp.data.phantom.platforms import PLATFORMS, Platform, lattice_for, platform_named
from napari_msp.data.phantom.scan import MARGIN, _scan
from napari_msp.data.phantom.subjects import CENTRE, Pose, Subject, aligned, draw_subject
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy

LARGEST_SHIFT, LARGEST_TURN = 8.0, 15.0
"""In mm and degrees."""

B_VALUE = 1200.0
"""Of the simulated shell, in s/mm²."""

WAYS = ("aligned", "misaligned", "never moved, other noise")
"""What is compared with never-moved scans."""


def draw(rng: np.random.Generator) -> Pose:
    """Draw a turn about the brain's centre, and a shift."""
    axis, way = rng.standard_normal((2, 3))
    angle = np.radians(rng.uniform(0, LARGEST_TURN)) / np.linalg.norm(axis)
    turn = Rotation.from_rotvec(angle * axis).as_matrix()
    shift = rng.uniform(0, LARGEST_SHIFT) * way / np.linalg.norm(way)
    return Pose(turn, CENTRE - turn @ CENTRE + shift)


def scanned(
    head: SimulatedHead, person: Subject, platform: Platform, size: str, noise: int
) -> Acquisition:
    scan = _scan(head, person, platform, size, (B_VALUE,), noise, aligned())
    image = nib.Nifti1Image(scan.dwi, scan.lattice.affine)
    return Acquisition(image, scan.table, given_mask=scan.mask)


def residual(found: Displacement, pose: Pose, fixed: BrainImage) -> tuple[float, float]:
    """Give the mean distance in voxels of the input, and the angle in degrees, that are left."""
    points = fixed.points
    truth = pose.from_head(points.T).T
    apart = np.linalg.norm(found.apply(points) - truth, axis=1).mean()
    left = Rotation.from_matrix(found.rotation.T @ pose.rotation).magnitude()
    return float(apart / fixed.lattice.voxel_sizes.mean()), float(np.degrees(left))


def by_dipy(fixed: BrainImage, moving: BrainImage) -> Displacement:
    """Align by DIPY's mutual information, inside both masks, from coarse to fine."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform3D

    engine = AffineRegistration(
        metric=MutualInformationMetric(nbins=32, sampling_proportion=None),
        level_iters=[1000, 200, 50],
        sigmas=[3.0, 1.0, 0.0],
        factors=[4, 2, 1],
        verbosity=0,
    )
    images = [np.where(each.mask, each.values, 0).astype(float) for each in (fixed, moving)]
    found = engine.optimize(
        *images,
        RigidTransform3D(),
        None,
        static_grid2world=fixed.lattice.affine,
        moving_grid2world=moving.lattice.affine,
        static_mask=fixed.mask.astype(np.int32),
        moving_mask=moving.mask.astype(np.int32),
    ).affine
    return Displacement(found[:3, :3], found[:3, 3], np.zeros(3), 0.0, 0.0)


def errors(scan: Acquisition, truth: Acquisition) -> tuple[float, float]:
    """Give the mean absolute error of FA and the SH MSE of a scan on truth's lattice."""
    inside = scan.mask & truth.mask
    fa = np.abs(fractional_anisotropy(scan) - fractional_anisotropy(truth))[inside].mean()
    square = np.square(fit_sh(scan).coefficients - fit_sh(truth).coefficients)
    return float(fa), float(square[inside].mean())


def simulated(size: str, subjects: int, seed: int, dipy: bool, rows: Path | None) -> None:
    """Print a line a scan, and what they come to."""
    known = rows_of(rows)
    print(f"{'scan':20} moved: mm     °  left: voxels     °     s   FA error ×1e3 and SH MSE ×1e5")
    print(f"{'':55} {'aligned':>14} {'misaligned':>14} {'other noise':>14}")
    rng = np.random.default_rng(seed)
    people = [draw_subject(seed, index) for index in range(subjects)]
    scans = [(person, platform, draw(rng)) for person in people for platform in PLATFORMS[1:]]
    table = []
    for person, platform, pose in sorted(scans, key=lambda each: each[1].scale):
        name = f"sub-{person.label} {platform.name}"
        key = f"{size} {seed} {name}" + (" dipy" if dipy else "")
        if key not in known:
            known[key] = aligned_scan(size, person, platform, pose, seed, dipy)
            if rows is not None:
                rows.write_text(json.dumps(known, indent=1) + "\n")
        row = known[key]
        table.append(row)
        numbers = " ".join(
            f"{1e3 * row[f'{way} FA']:7.1f} {1e5 * row[f'{way} SH']:6.1f}"
            for way in WAYS
            if f"{way} FA" in row
        )
        print(
            f"{name:20} {row['shift']:9.1f} {row['turn']:5.1f} {row['voxels']:13.3f} "
            f"{row['degrees']:5.2f} {row['seconds']:5.1f} {numbers}",
            flush=True,
        )
    print(f"\n{len(table)} scans, size {size}: {told(table)}")
    for way in WAYS:
        both = np.array(
            [[each[f"{way} FA"], each[f"{way} SH"]] for each in table if f"{way} FA" in each]
        )
        if len(both):
            fa, sh = np.median(both, axis=0) * (1e3, 1e5)
            low, high = both.min(axis=0) * (1e3, 1e5), both.max(axis=0) * (1e3, 1e5)
            print(
                f"{way}: FA error {fa:.1f}e-3 ({low[0]:.1f} to {high[0]:.1f}), "
                f"SH MSE {sh:.1f}e-5 ({low[1]:.1f} to {high[1]:.1f}) (medians of {len(both)})"
            )


def rows_of(path: Path | None) -> dict[str, dict[str, float]]:
    """Read what an earlier run measured, by size, seed and scan."""
    if path is None or not path.exists():
        return {}
    known: dict[str, dict[str, float]] = json.loads(path.read_text())
    return known


def told(rows: list[dict[str, float]]) -> str:
    """Say what residuals and seconds come to."""
    values = np.array([[row["voxels"], row["degrees"], row["seconds"]] for row in rows])
    (voxels, turn, seconds), worst = np.median(values, axis=0), values.max(axis=0)
    return (
        f"residual median {voxels:.3f} voxels, {turn:.3f}°; worst {worst[0]:.3f}, "
        f"{worst[1]:.3f}°; {seconds:.1f} s a scan, at most {worst[2]:.1f}"
    )


def aligned_scan(
    size: str, person: Subject, platform: Platform, pose: Pose, seed: int, dipy: bool
) -> dict[str, float]:
    """Move a head, scan it, align the scan; give what is left and what FA and SH lose."""
    fine = grid_of(lattice_for(size, platform_named("connectom_sa"))).extended(MARGIN)
    bundles = bundles_after((), person.tissue)
    still = make_head(person, aligned(), fine, bundles)
    source = scanned(still, person, PLATFORMS[0], size, seed)
    scan = scanned(make_head(person, pose, fine, bundles), person, platform, size, seed)
    fixed, moving = (brain_image(each, each.shell()) for each in (source, scan))
    began = time.perf_counter()
    found = (by_dipy if dipy else estimate_displacement)(fixed, moving)
    took = time.perf_counter() - began
    away, turn = residual(found, pose, fixed)
    row = {
        "shift": float(np.linalg.norm(pose.from_head(CENTRE[:, None])[:, 0] - CENTRE)),
        "turn": float(np.degrees(Rotation.from_matrix(pose.rotation).magnitude())),
        "voxels": away,
        "degrees": turn,
        "seconds": took,
    }
    if size == "full" and platform.scale > 1:
        return row
    never, other = (scanned(still, person, platform, size, noise) for noise in (seed, seed + 1))
    stay = np.eye(4)
    laid = interpolate_scan(scan, found.matrix, found.rotation, never.lattice).acquisition
    left = interpolate_scan(scan, stay, stay[:3, :3], never.lattice).acquisition
    for way, each in zip(WAYS, (laid, left, other), strict=True):
        row[f"{way} FA"], row[f"{way} SH"] = errors(each, never)
    return row


def slab(path: Path, moves: int) -> None:
    """Recover known motions of the real slab between its even and its odd directions."""
    scan = load_acquisition(path)
    shell = scan.shell()
    fixed, moving = (
        brain_image(scan, replace(shell, volumes=shell.volumes[start::2])) for start in (0, 1)
    )
    rng = np.random.default_rng(0)
    centre = fixed.points.mean(axis=0)
    left = []
    for _ in range(moves):
        drawn = draw(rng)
        shift = drawn.shift + (centre - CENTRE) - drawn.rotation @ (centre - CENTRE)
        motion = np.eye(4)
        motion[:3, :3], motion[:3, 3] = drawn.rotation, shift
        # Interpolated onto the slab's own lattice, as if the head had moved between the scans.
        there = Lattice(moving.lattice.shape, motion @ moving.lattice.affine)
        weighted, b0 = (
            np.maximum(interpolate(each, there, moving.lattice), 0)
            for each in (moving.weighted, moving.b0)
        )
        mask = resample_mask(moving.mask, there, moving.lattice) & (b0 > 0)
        found = estimate_displacement(fixed, BrainImage(weighted, b0, mask, moving.lattice))
        left.append(residual(found, Pose(drawn.rotation, shift), fixed))
    median, worst = np.median(left, axis=0), np.max(left, axis=0)
    print(f"\nreal slab, {moves} motions: residual", end=" ")
    print(f"median {median[0]:.3f} voxels, {median[1]:.3f}°; worst {worst[0]:.3f}, {worst[1]:.3f}°")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", default="small", choices=("tiny", "small", "full"))
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dipy", action="store_true", help="with DIPY's mutual information")
    parser.add_argument("--rows", type=Path, help="keeps what was measured")
    parser.add_argument("--slab", type=Path, help="the real slab's DWI")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.subjects:
        simulated(options.size, options.subjects, options.seed, options.dipy, options.rows)
    if options.slab is not None:
        slab(options.slab, 12)


if __name__ == "__main__":
    main()
