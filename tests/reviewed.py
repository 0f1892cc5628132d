"""A folder of small predictions with review maps: a sphere each, with a bright square."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.data.nifti import write_nifti
from napari_msp.files import write_json
from napari_msp.image_files import ImageFile
from napari_msp.inference.review_maps import MadeFrom, ReviewImage, ReviewMaps, write_review_maps
from napari_msp.provenance import Provenance

SHAPE = (16, 20, 12)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
WORST = (4, 12, 5)
"""Voxel of the largest expected error."""

MADE = Provenance(
    target="prisma_st",
    input="ge_st",
    title="MSP",
    kind="msp",
    model_file="msp.safetensors",
    model_sha256="ab" * 32,
)


def image(value: float, shape=SHAPE, affine=AFFINE) -> ReviewImage:
    """A box of one value, with less in its half towards low x."""
    mask = np.zeros(shape, dtype=bool)
    mask[2:-2, 2:-2, 2:-2] = True
    average = np.where(mask, value, 0).astype(np.float32)
    average[: shape[0] // 2] *= 0.5
    colour = np.zeros((*shape, 3), dtype=np.float32)
    colour[mask] = (value, 0, 0)
    return ReviewImage.of(average, colour, mask, affine)


def maps(number: int, *, truth: bool = False, shape=SHAPE, affine=AFFINE) -> ReviewMaps:
    """Maps whose values say whose they are: input 0.5, prediction 0.5 + number / 100."""
    prediction = image(0.5 + number / 100, shape, affine)
    doubt = np.where(prediction.mask, 1e-3, 0).astype(np.float32)
    doubt[WORST] = 5e-3
    return ReviewMaps(
        image(0.5, shape, affine),
        prediction,
        image(0.6, shape, affine) if truth else None,
        doubt,
        "expected error",
        np.full(shape, 800.0, dtype=np.float32),
    )


def write_prediction(
    root: Path,
    subject: str,
    numbers: Mapping[str, float] | None = None,
    shape: tuple[int, int, int] = (4, 5, 6),
    seed: int = 0,
    **made: Any,
) -> Path:
    """Write a prediction's DWI and sidecar, without maps; give the DWI."""
    scan = f"sub-{subject}/ses-ge/dwi/sub-{subject}_ses-ge_acq-st_dwi.nii.gz"
    provenance = replace(MADE, sources=(f"bids:source:{scan}",), **made)
    folder = root / f"sub-{subject}" / "ses-ge" / "dwi"
    folder.mkdir(parents=True, exist_ok=True)
    stem = ImageFile.predicted(scan, provenance.target, provenance.kind).stem
    values = np.random.default_rng(seed).random((*shape, 3)).astype(np.float32)
    write_nifti(folder / f"{stem}_dwi.nii.gz", values, AFFINE)
    content = {**provenance.to_sidecar(), "Measures": dict(numbers or {})}
    write_json(folder / f"{stem}_dwi.json", content)
    return folder / f"{stem}_dwi.nii.gz"


def write(
    root: Path,
    number: int,
    *,
    with_maps: bool = True,
    target="prisma_st",
    shells: tuple[int | None, ...] = (None,),
    **options,
) -> str:
    """Write one prediction; give its key. Of several shells each has values of its own."""
    numbers = {"SNR": 6.0 if number == 3 else 20.0 + number / 10, "MaskVolume": 1400.0 + number}
    image = write_prediction(root, f"{number:02d}", numbers, seed=number, target=target)
    stem = image.name.removesuffix("_dwi.nii.gz")
    if with_maps:
        each = {shell: maps(number + (shell or 0) // 100, **options) for shell in shells}
        write_review_maps(MadeFrom(image, root=root), each)
    return f"sub-{number:02d}/ses-ge/dwi/{stem}"


def folder(root: Path, count: int = 9, **options) -> Path:
    """Write predictions of which sub-03 has little signal, so that it is listed first."""
    describe_derivative(root, root, HARMONIZED, root.parent / "heads")
    for number in range(1, count + 1):
        write(root, number, **options)
    return root
