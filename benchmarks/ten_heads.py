"""How long the proof of a study takes: ten whole heads at 2.4 mm, three regions, fibres in these.

    python benchmarks/ten_heads.py [FOLDER] [--heads 10]

Two heads are simulated on ge_st and prisma_st. Each person is one of them with diffusivities of
their own and noise of their own, scanned once on ge_st and twice on prisma_st; "made" is a scan on
prisma_st with half the noise, as a finished prediction. Then `evaluate` is run once, as a user runs
it, and timed; what is made stays in FOLDER.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import nibabel as nib
import numpy as np

from napari_msp.arrays import IntArray
from napari_msp.bids import dataset_description
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import SimulatedScan, simulate_subject
from napari_msp.data.phantom.simulate import write_scan
from napari_msp.evaluation.measures.pair import tissue_of
from napari_msp.files import write_json, write_text
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import tensor_maps

PLATFORMS = (platform_named("ge_st"), platform_named("prisma_st"))
SEED = 21
SPREAD = 0.05
"""Of people's diffusivities, as a part of their mean."""

REGIONS = {1: "white left", 2: "white right", 3: "grey"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--heads", type=int, default=10)
    options = parser.parse_args()
    folder = options.folder or Path(mkdtemp(prefix="ten_heads_"))
    if not (folder / "heads").exists():
        make(folder, options.heads)
    command = [
        "evaluate", "heads", "--predictions", "made=predictions", "--regions", "labels",
        "--fibres", "--run", "1", "--out", "proof",
    ]  # fmt: skip
    print(f"$ napari-msp {' '.join(command)}", flush=True)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "napari_msp", *command], cwd=folder, check=True)
    seconds = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{options.heads} heads: {seconds:.0f} s on {os.cpu_count()} cores, of the processor "
        f"{used.ru_utime + used.ru_stime:.0f} s; {used.ru_maxrss / 2**20:.1f} GiB at most"
    )


def make(folder: Path, heads: int) -> None:
    """Write heads, predictions and labels."""
    rng = np.random.default_rng(SEED)
    known = [tuple(simulate_subject(number, PLATFORMS, "full", SEED)) for number in (0, 1)]
    labels = [regions(target) for _, target in known]
    for number in range(heads):
        source, target = known[number % 2]
        power = 1 + SPREAD * rng.normal()
        name = f"{number + 1:02d}"
        write_scan(folder / "heads", person(source, number, power, rng), noise_free=False)
        for run in (1, 2):
            scan = person(target, number, power, rng)
            write_scan(folder / "heads", scan, noise_free=False, run=run)
        made = person(target, number, power, rng, noise=0.5)
        write_scan(folder / "predictions", made, noise_free=False)
        path = folder / "labels" / f"sub-{name}" / f"sub-{name}_dseg.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(labels[number % 2], target.lattice.affine), path)
        rows = "".join(f"{index}\t{called}\n" for index, called in REGIONS.items())
        write_text(path.with_name(f"sub-{name}_dseg.tsv"), f"index\tname\n{rows}")
    about = dataset_description(
        "Ten heads", derivative=False, generated_by="benchmarks/ten_heads.py",
        input_platform=PLATFORMS[0].name,
    )  # fmt: skip
    write_json(folder / "heads" / "dataset_description.json", about)


def person(
    scan: SimulatedScan, number: int, power: float, rng: np.random.Generator, noise: float = 1.0
) -> SimulatedScan:
    """Give a scan of somebody whose diffusivities are `power` times as large."""
    b0 = scan.noise_free[..., scan.table.b0_volumes].mean(axis=-1, keepdims=True)
    share = scan.noise_free / np.where(b0 > 0, b0, 1)
    signal = b0 * np.clip(share, 0, None) ** power
    sigma = noise * scan.sigma
    real, imaginary = rng.normal(0, sigma, (2, *signal.shape)).astype(np.float32)
    voxels = np.rint(np.hypot(signal + real, imaginary)).astype(np.float32)
    return replace(scan, subject=replace(scan.subject, index=number), dwi=voxels)


def regions(scan: SimulatedScan) -> IntArray:
    """(X, Y, Z) labels of white matter left and right, and grey matter."""
    image = nib.Nifti1Image(scan.noise_free, scan.lattice.affine)
    clear = fit_sh(Acquisition(image, scan.table, given_mask=scan.mask))
    tissue = tissue_of(tensor_maps(clear), clear.mask)
    axis = scan.lattice.affine[0, :3] @ np.indices(scan.mask.shape).reshape(3, -1)
    left = (axis + scan.lattice.affine[0, 3] < 0).reshape(scan.mask.shape)
    labels: IntArray = np.zeros(scan.mask.shape, dtype=np.int16)
    labels[tissue.white & left], labels[tissue.white & ~left], labels[tissue.grey] = 1, 2, 3
    return labels


if __name__ == "__main__":
    main()
