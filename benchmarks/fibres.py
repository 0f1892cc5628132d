"""Compare fibre peaks with MRtrix3's on a scan, by the same response.

    python benchmarks/fibres.py DWI [--mask MASK] [--order 4]

DWI is NIfTI with .bval and .bvec beside it; MRtrix3 must be installed. Of the scan's white matter
some thousand voxels are compared. First MRtrix3's dwi2fod gets what is deconvolved here, the SH
series on 60 directions; then the scan itself, which no SH fit has smoothed.
"""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.acquisition import load_acquisition
from napari_msp.evaluation.measures.fibres import (
    PeakErrors,
    Peaks,
    fibre_distributions,
    peaks_of,
    response_of,
    some_of,
)
from napari_msp.evaluation.measures.pair import tissue_of
from napari_msp.signal.fitting import evaluate_sh, fit_sh
from napari_msp.signal.maps import tensor_maps
from napari_msp.signal.spherical_harmonics import spread_directions

VOXELS = 3000
UNITS = 1000.0
"""Of S/S0 in the image that MRtrix3 gets."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dwi", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--order", type=int, default=4, help="of SH and of fibre distributions")
    options = parser.parse_args()
    scan = load_acquisition(options.dwi, mask=options.mask)
    image = fit_sh(scan, order=options.order)
    response = response_of([image])
    voxels = some_of(tissue_of(tensor_maps(image), image.mask).white, VOXELS)
    ours = peaks_of(fibre_distributions(image, response, voxels))
    directions = spread_directions(60)
    with TemporaryDirectory() as name:
        folder = Path(name)
        where = np.zeros(image.mask.shape, np.uint8)
        where[tuple(voxels.T)] = 1
        save(folder / "voxels.nii", where, image.affine)
        signal = np.concatenate(
            [np.ones((*image.mask.shape, 1)), evaluate_sh(image, directions)], axis=-1
        )
        save(folder / "series.nii", UNITS * signal, image.affine)
        rows = np.r_[np.zeros((1, 3)), directions]
        b_values = np.r_[0.0, np.full(60, image.b_value or 0.0)]
        np.savetxt(folder / "series.b", np.c_[rows, b_values])
        np.savetxt(folder / "response.txt", UNITS * response[None])
        stem = options.dwi.name.removesuffix(".gz").removesuffix(".nii")
        gradients = ["-fslgrad", *(options.dwi.with_name(stem + e) for e in (".bvec", ".bval"))]
        print(f"{len(voxels)} voxels, order {options.order}", flush=True)
        for what, dwi, table in (
            ("the series", folder / "series.nii", ["-grad", folder / "series.b"]),
            ("the scan", options.dwi, gradients),
        ):
            theirs = peaks_by_mrtrix(folder, dwi, table, options.order, voxels)
            print(f"{what}: {told(PeakErrors.of(ours, theirs))}")


def peaks_by_mrtrix(
    folder: Path, dwi: Path, table: Sequence[object], order: int, voxels: IntArray
) -> Peaks:
    """Deconvolve and find peaks by MRtrix3."""
    names = ("response.txt", "fod.nii", "peaks.nii", "voxels.nii")
    response, fod, found, where = (folder / name for name in names)
    run("dwi2fod", "csd", dwi, response, fod, *table, "-mask", where, "-lmax", order)
    run("sh2peaks", fod, found, "-num", 4, "-mask", where)
    vectors = np.nan_to_num(np.asarray(nib.load(found).dataobj)[tuple(voxels.T)])
    vectors = vectors.reshape(len(voxels), 4, 3)
    sizes = np.linalg.norm(vectors, axis=-1)
    return Peaks(vectors / np.where(sizes > 0, sizes, 1)[..., None], sizes)


def told(errors: PeakErrors) -> str:
    """Say how far peaks are apart, and how many have no partner."""
    first, second = (errors.angle[:, rank] for rank in (0, 1))
    worst = np.nanpercentile(first, 95)
    return (
        f"first peaks {np.nanmedian(first):.2f}° apart in median ({worst:.1f}° at the 95th "
        f"percentile, n = {np.isfinite(first).sum()}), second ones {np.nanmedian(second):.2f}° "
        f"(n = {np.isfinite(second).sum()}); {errors.missed:.1f} % of MRtrix3's peaks missed, "
        f"{errors.false:.1f} % more found"
    )


def save(path: Path, values: FloatArray, affine: FloatArray) -> None:
    kind = np.uint8 if values.dtype == np.uint8 else np.float32
    nib.save(nib.Nifti1Image(values.astype(kind), affine), path)


def run(command: str, *arguments: object) -> None:
    words = [command, *map(str, arguments), "-quiet", "-force", "-nthreads", "1"]
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
