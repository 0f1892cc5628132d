"""Small maps of a prediction that a review opens at once: written, read, noticed when stale.

A predicted SH image of a whole head has some 300 MB, and its maps take seconds to compute. These
are a few MB of 8 and 16 bits in `review/maps/` of the predictions' folder, NIfTI that any viewer
opens: SH average, colour FA and mask of scan, prediction and truth, each on its own lattice, how
sure the prediction is, and the scan's b=0 image as it was before anything was done. All tensors go
the same route, through the SH series, so that the images compare.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import (
    DESCRIPTION,
    Provenance,
    entities,
    map_beside,
    map_name,
    nifti_stem,
    shell_stem,
    source_path,
)
from napari_msp.data.nifti import DAMAGED, open_nifti, read_voxels
from napari_msp.errors import Advice, Cancelled, Choose, UserError
from napari_msp.files import read_json, staged_folder, write_json
from napari_msp.scan import Scan, load_scan
from napari_msp.signal.maps import Maps

if TYPE_CHECKING:
    from napari_msp.inference.harmonize import Prediction

MAPS_FOLDER = Path("review", "maps")
"""Where they lie in the predictions' folder; one folder a subject below it."""

FORMAT = 1
"""Of the files; others are made anew."""

UncertaintyName = Literal["expected error", "disagreement"]

AVERAGE_STEP, COLOUR_STEP = 0.002, 1 / 255
"""Smallest difference that is kept, in SH units and in FA (our choice: no eye sees less)."""

STEPS_TO_MEDIAN = 32
"""Of maps with long tails: their median's share that is kept; their maximum always fits."""

COMPRESSION = 6
"""Of zlib (our choice): level 9 gains 2 % and takes twice as long."""

GZIP = 31
"""What zlib calls that format."""

DIGESTED, BLOCK = 16, 1 << 16
"""Blocks of a file that `quick_digest` reads, and their bytes."""


@dataclass(frozen=True, eq=False)
class ReviewImage:
    """What is looked at of one image, on its own lattice.

    Attributes
    ----------
    average
        (X, Y, Z) float32, the paper's SH average.
    colour_fa
        (X, Y, Z, 3) float32, |e₁| · FA.
    fa
        (X, Y, Z) float32.
    mask
        (X, Y, Z) where there is brain.
    affine
        (4, 4) voxel-to-scanner affine in mm.
    """

    average: FloatArray
    colour_fa: FloatArray
    fa: FloatArray
    mask: MaskArray
    affine: FloatArray


@dataclass(frozen=True, eq=False)
class ReviewMaps:
    """What a review shows of one prediction.

    Attributes
    ----------
    scan
        What it was predicted from; None where that could not be read.
    prediction
        The predicted image.
    truth
        The target platform's own scan of the same head; None where there is none.
    uncertainty
        (X, Y, Z) on the prediction's lattice: expected error in SH units², else disagreement in SH
        units; None where the model gives neither.
    uncertainty_name
        Which of them.
    b0
        (X, Y, Z) mean b=0 image of the scan on its lattice, not masked: the step before.
    notes
        Why something is missing, in words.
    """

    scan: ReviewImage | None
    prediction: ReviewImage
    truth: ReviewImage | None = None
    uncertainty: FloatArray | None = None
    uncertainty_name: UncertaintyName | None = None
    b0: FloatArray | None = None
    notes: tuple[str, ...] = ()


def _length(colour: FloatArray) -> FloatArray:
    """Give FA, the length of colour FA: e₁ has length 1."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", colour, colour)))


# --- Files -----------------------------------------------------------------------------------

_IMAGES = {"prediction": "", "scan": "Scan", "truth": "Truth"}
"""Images by what their files' names add to the prediction's."""


def write_review_maps(
    folder: str | Path,
    stem: str,
    maps: Mapping[int | None, ReviewMaps],
    *,
    sources: Mapping[int | None, Path] | None = None,
    place: Path | None = None,
    about: Mapping[str, Any] | None = None,
    stage: Path | None = None,
) -> Path:
    """Write the maps of a prediction, in place of older ones.

    Parameters
    ----------
    folder
        The predictions' root.
    stem
        What the names of the prediction's files begin with.
    maps
        By shell; None is the only one.
    sources
        The SH image of each: when it changes the maps are stale.
    place
        Folder in which those are to lie in the end, where they are staged too.
    about
        Further notes for the sidecar, such as the model.
    stage
        Folder that somebody else will move to where the sidecar lies, see `sidecar_of`.

    Returns
    -------
    The sidecar, beside which they lie.
    """
    folder = Path(folder)
    notes: dict[str, Any] = {
        "Description": f"Small maps of {stem} for a review: rounded, for the eye alone",
        "Format": FORMAT,
        "GeneratedBy": f"napari-msp {importlib.metadata.version('napari-msp')}",
        **(about or {}),
        "Shells": [],
    }
    sidecar = sidecar_of(folder, stem)
    with nullcontext(stage) if stage is not None else staged_folder(sidecar.parent) as made_in:
        for shell, each in maps.items():
            source = (sources or {}).get(shell)
            noted = None if source is None else _source(source, place or source.parent, folder)
            notes["Shells"].append(_write_shell(made_in, stem, shell, each) | {"Made": noted})
        write_json(made_in / sidecar.name, notes)
    return sidecar


def _source(source: Path, place: Path, folder: Path) -> dict[str, str]:
    file = Path(os.path.relpath(place / source.name, folder)).as_posix()
    return {"Of": file, "Digest": quick_digest(source)}


def _write_shell(stage: Path, stem: str, shell: int | None, maps: ReviewMaps) -> dict[str, Any]:
    """Write the maps of one shell; give what the sidecar says of them."""
    part = stem if shell is None else shell_stem(stem, shell)
    images = {name: image for name in _IMAGES if (image := getattr(maps, name)) is not None}
    for name, image in images.items():
        files = _files(part + _IMAGES[name])
        _write(stage / files["average"], image.average, image.affine, AVERAGE_STEP)
        _write(stage / files["colour"], image.colour_fa, image.affine, COLOUR_STEP)
        _write(stage / files["mask"], image.mask, image.affine, 1.0)
    if maps.uncertainty is not None:
        path = stage / _uncertainty_file(part, maps.uncertainty_name)
        _write(path, maps.uncertainty, maps.prediction.affine)
    if maps.scan is not None and maps.b0 is not None:
        _write(stage / _b0_file(part), maps.b0, maps.scan.affine)
    return {
        "Shell": shell,
        "Images": list(images),
        "Uncertainty": maps.uncertainty_name,
        "B0": maps.scan is not None and maps.b0 is not None,
        "Notes": list(maps.notes),
    }


def read_review_maps(folder: str | Path, stem: str, shell: int | None = None) -> ReviewMaps:
    """Read the maps of a prediction.

    Parameters
    ----------
    folder, stem
        As for `write_review_maps`.
    shell
        Which, by name, where there are several; None: the first.

    Raises
    ------
    UserError
        When there are none, they are damaged, or the prediction has changed since. Where the
        prediction itself is not there (it was left on the big disk) the maps do without.
    """
    folder = Path(folder)
    sidecar = sidecar_of(folder, stem)
    try:
        shells = {each["Shell"]: each for each in _current(folder, sidecar)["Shells"]}
        if not shells or (shell not in shells and shell is not None):
            raise UserError(
                f"has no maps of b = {shell}", sidecar, "shell", Choose("shell", tuple(shells))
            )
        notes = shells[next(iter(shells)) if shell is None else shell]
        names, named = [str(each) for each in notes["Images"]], notes["Uncertainty"]
        said = tuple(str(each) for each in notes["Notes"])
        part = stem if notes["Shell"] is None else shell_stem(stem, int(notes["Shell"]))
        wanted = {
            (name, what): file
            for name in names
            for what, file in _files(part + _IMAGES[name]).items()
        }
        if named is not None:
            wanted["prediction", "uncertainty"] = _uncertainty_file(part, named)
        if notes["B0"]:
            wanted["scan", "b0"] = _b0_file(part)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError("is no sidecar of review maps", sidecar, remedy=MAKE_ANEW) from error
    with ThreadPoolExecutor(len(wanted)) as pool:  # zlib and NumPy leave Python's lock alone
        paths = [sidecar.parent / file for file in wanted.values()]
        read = dict(zip(wanted, pool.map(_read, paths), strict=True))
    images = {}
    for name in names:
        average, affine = read[name, "average"]
        colour = read[name, "colour"][0]
        mask = read[name, "mask"][0] > 0
        images[name] = ReviewImage(average, colour, _length(colour), mask, affine)
    uncertainty, b0 = read.get(("prediction", "uncertainty")), read.get(("scan", "b0"))
    return ReviewMaps(
        images.get("scan"),
        images["prediction"],
        images.get("truth"),
        None if uncertainty is None else uncertainty[0],
        named,
        None if b0 is None else b0[0],
        said,
    )


MAKE_ANEW = Advice("make the maps anew")


def shells_of_review_maps(folder: str | Path, stem: str) -> tuple[int | None, ...]:
    """Give the shells that there are maps of; (None,) where there is one, empty without maps."""
    sidecar = sidecar_of(folder, stem)
    try:
        return tuple(each["Shell"] for each in read_json(sidecar)["Shells"])
    except (UserError, KeyError, TypeError):
        return ()


def has_review_maps(folder: str | Path, stem: str) -> bool:
    """Return whether there are maps of a prediction as it is now; quick."""
    try:
        _current(Path(folder), sidecar_of(folder, stem))
    except UserError:
        return False
    return True


def sidecar_of(folder: str | Path, stem: str) -> Path:
    """Give the JSON file of a prediction's maps, in the folder of its subject."""
    subject = entities(f"{stem}.nii").get("sub")
    parent = Path(folder, MAPS_FOLDER)
    return (parent / f"sub-{subject}" if subject else parent) / f"{stem}_review.json"


def quick_digest(path: str | Path) -> str:
    """Digest a file's size, its beginning, its end and blocks between, however large it is.

    Good to tell whether a compressed image was written anew: its end has a checksum of all voxels.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        last = max(0, size - BLOCK)
        for place in sorted({last * number // (DIGESTED - 1) for number in range(DIGESTED)}):
            file.seek(place)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def _current(folder: Path, sidecar: Path) -> dict[str, Any]:
    """Read the sidecar of maps that are not stale."""
    if not sidecar.exists():
        raise UserError("there are no review maps", sidecar, remedy=MAKE_ANEW)
    notes = read_json(sidecar)
    try:
        if notes["Format"] != FORMAT:
            raise UserError("is of another version", sidecar, remedy=MAKE_ANEW)
        for each in notes["Shells"]:
            made = each["Made"]
            path = None if made is None else folder / made["Of"]
            if path is not None and path.exists() and quick_digest(path) != made["Digest"]:
                raise UserError("the prediction has changed since", sidecar, remedy=MAKE_ANEW)
    except (KeyError, TypeError, OSError) as error:
        raise UserError("is no sidecar of review maps", sidecar, remedy=MAKE_ANEW) from error
    return notes


def _files(part: str) -> dict[str, str]:
    return {
        "average": map_name(part, "sh", "average"),
        "colour": map_name(part, "tensor", "colourfa"),
        "mask": f"{part}_mask.nii.gz",
    }


def _uncertainty_file(part: str, name: str | None) -> str:
    return map_name(part, "sh", (name or "uncertainty").replace(" ", ""))


def _b0_file(part: str) -> str:
    return f"{part}{_IMAGES['scan']}_dwiref.nii.gz"


def _write(
    path: Path, values: FloatArray | MaskArray, affine: FloatArray, step: float | None = None
) -> None:
    """Write an image in whole steps of 8 or 16 bits; None: steps that go with its values."""
    values = np.nan_to_num(values.astype(np.float32), nan=0.0)
    largest = float(values.max(initial=0))
    if step is None:
        inside = values[values > 0]
        finest = float(np.median(inside)) / STEPS_TO_MEDIAN if len(inside) else 1.0
        step = max(finest, largest / np.iinfo(np.uint16).max)
    kind = _kind(float(values.min(initial=0)) / step, largest / step)
    bounds = np.iinfo(kind)
    stored = np.clip(np.rint(values / np.float32(step)), bounds.min, bounds.max).astype(kind)
    image = nib.Nifti1Image(stored, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(step, 0)
    path.write_bytes(gzip.compress(image.to_bytes(), COMPRESSION, mtime=0))


def _kind(smallest: float, largest: float) -> type[np.uint8 | np.uint16 | np.int16]:
    if smallest <= -0.5:
        return np.int16
    return np.uint8 if largest < np.iinfo(np.uint8).max + 0.5 else np.uint16


def _read(path: Path) -> tuple[FloatArray, FloatArray]:
    """Read an image that `_write` wrote, float32, and its affine."""
    gzipped = _zlib()
    try:
        # At once: nibabel would read by pieces, which takes a fourth longer.
        image = nib.Nifti1Image.from_bytes(gzipped.decompress(path.read_bytes(), GZIP))
        stored = np.asarray(image.dataobj.get_unscaled())
    except (*DAMAGED, gzipped.error, HeaderDataError) as error:
        raise UserError(f"cannot be read ({error})", path, remedy=MAKE_ANEW) from error
    slope = np.float32(image.dataobj.slope)
    return np.multiply(stored, slope, dtype=np.float32), np.asarray(image.affine)


def _zlib() -> Any:
    """Give what decompresses: isal's takes half of zlib's time."""
    try:
        return import_module("isal.isal_zlib")
    except ImportError:  # it has no wheel for this machine
        return import_module("zlib")


# --- Making them -----------------------------------------------------------------------------

Poll = Callable[[], bool]


def maps_of_prediction(
    prediction: Prediction, truth: Scan | str | None = None, cancelled: Poll | None = None
) -> dict[int | None, ReviewMaps]:
    """Make the maps of a prediction in memory, by shell; None is the only one.

    Parameters
    ----------
    prediction
        What `harmonize` gave.
    truth
        The target platform's scan of the same head; or why there is none.
    cancelled
        Polled between images.
    """
    parts = prediction.by_shell()
    made: dict[int | None, ReviewMaps] = {}
    for shell, part in parts.items():
        name: UncertaintyName = "disagreement"
        uncertainty = part.disagreement
        if part.expected_error is not None:
            name, uncertainty = "expected error", part.expected_error
        sure = None if uncertainty is None else (name, uncertainty)
        own = shell if len(parts) > 1 else None
        made[own] = _maps(part.maps(), prediction.source, truth, sure, cancelled)
    return made


def make_review_maps(
    prediction: str | Path,
    *,
    scan: str | Path | None = None,
    truth: str | Path | None = None,
    cancelled: Poll | None = None,
) -> Path:
    """Make the maps of a prediction from its files, and write them.

    Parameters
    ----------
    prediction
        Its DWI or its SH image.
    scan
        What it was predicted from; None: as its sidecar says.
    truth
        The target platform's scan of the same head; None: the one in the scan's dataset.
    cancelled
        Polled between images.

    Returns
    -------
    Their sidecar, see `write_review_maps`.

    Raises
    ------
    UserError
        When the SH image is not there or cannot be read. A scan or a truth that cannot be read is
        left out, and the maps' `notes` say why.
    Cancelled
        When `cancelled` said so.
    """
    path = Path(prediction)
    folder, stem = place_of(path)
    sources = _sh_images(path.parent, stem)
    first = load_scan(next(iter(sources.values())))
    made_by = first.provenance
    notes: list[str] = []
    if scan is None:
        uri = made_by.sources[0] if made_by and made_by.sources else "no name"
        scan = source_path(uri, folder)
        if scan is None:
            notes.append(f"the scan that it was predicted from is not there ({uri or 'no name'})")
    measured = _opened(scan, notes)
    if truth is None and measured is not None and made_by is not None:
        truth = measured.siblings.get(made_by.target)
    known = _opened(truth, notes)
    maps: dict[int | None, ReviewMaps] = {}
    for shell, file in sources.items():
        one = load_scan(file)
        made = _maps(one.maps(), measured, known, _uncertainty(file), cancelled)
        maps[shell] = replace(made, notes=(*notes, *made.notes))
    return write_review_maps(folder, stem, maps, sources=sources, about=about_prediction(made_by))


def truth_of(scan: Scan | None, target: str) -> Scan | str | None:
    """Open the target platform's scan of the same head; None where there is none, or why not."""
    path = None if scan is None else scan.siblings.get(target)
    notes: list[str] = []
    return _opened(path, notes) or (notes[0] if notes else None)


def place_of(prediction: str | Path) -> tuple[Path, str]:
    """Give the root of a prediction's dataset, and what the names of its files begin with.

    The root is the nearest folder above that is described, where that is a derivative: maps never
    go to measured data. Else it is the prediction's own folder.
    """
    path = Path(os.path.abspath(prediction))  # noqa: PTH100 - links are kept, see `bids`
    root = path.parent
    for folder in path.parents:
        if (folder / DESCRIPTION).exists():
            kind = read_json(folder / DESCRIPTION, foreign=True).get("DatasetType")
            root = folder if kind == "derivative" else root
            break
    ending = r"(_dwi|(B\d+)?_model-[A-Za-z]+_param-[A-Za-z0-9]+_dwimap)$"
    return root, re.sub(ending, "", nifti_stem(path))


def _sh_images(folder: Path, stem: str) -> dict[int | None, Path]:
    """Find the SH images of a prediction's shells; None is the only one."""
    alone = folder / map_name(stem, "sh", "coefficients")
    if alone.exists():
        return {None: alone}
    ending = alone.name.removeprefix(stem)
    found = {
        int(match[1]): path
        for path in folder.glob(f"{glob.escape(stem)}B*{ending}")
        if (match := re.fullmatch(rf"{re.escape(stem)}B(\d+){re.escape(ending)}", path.name))
    }
    if not found:
        raise UserError("there is no such file", alone, remedy=Advice("give a prediction"))
    return dict(sorted(found.items()))


def _opened(path: str | Path | None, notes: list[str]) -> Scan | None:
    if path is None:
        return None
    try:
        return load_scan(path)
    except UserError as error:
        notes.append(f"{Path(path).name} is left out: {error.problem}")
        return None


def _uncertainty(coefficients: Path) -> tuple[UncertaintyName, FloatArray] | None:
    names: tuple[UncertaintyName, ...] = ("expected error", "disagreement")
    for name in names:
        path = map_beside(coefficients, name.replace(" ", ""))
        if path is not None and path.exists():
            return name, read_voxels(open_nifti(path), path)
    return None


def about_prediction(made: Provenance | None) -> dict[str, Any]:
    """Say by which model a prediction was made, and of which version the software was."""
    if made is None:
        return {}
    model = {"File": made.model_file, "Sha256": made.model_sha256, "Title": made.title}
    return {"Target": made.target, "Model": model, "Sources": list(made.sources)}


def _maps(
    maps: Maps,
    scan: Scan | None,
    truth: Scan | str | None,
    uncertainty: tuple[UncertaintyName, FloatArray] | None,
    cancelled: Poll | None,
) -> ReviewMaps:
    """Put together what is looked at of one shell."""
    image = maps.image
    notes: list[str] = []
    if isinstance(truth, str):
        notes.append(truth)
        truth = None
    scan_image = _image_at(scan, image.rescaled_from or image.b_value, notes, cancelled)
    truth_image = _image_at(truth, image.b_value, notes, cancelled)
    _poll(cancelled)
    acquisition = None if scan is None else scan.acquisition
    name, values = (None, None) if uncertainty is None else uncertainty
    return ReviewMaps(
        scan_image,
        review_image(maps),
        truth_image,
        values,
        name,
        acquisition.b0 if acquisition is not None and scan_image is not None else None,
        tuple(notes),
    )


def _image_at(
    scan: Scan | None, b_value: float | None, notes: list[str], cancelled: Poll | None
) -> ReviewImage | None:
    """Give what is looked at of the shell of a scan; None, and why, where that cannot be had."""
    _poll(cancelled)
    if scan is None:
        return None
    try:
        return review_image(scan.at_shell(b_value).maps())
    except UserError as error:
        name = scan.path.name if scan.path is not None else scan.owner
        notes.append(f"{name} is left out: {error.problem}")
        return None


def review_image(maps: Maps) -> ReviewImage:
    """Take what is looked at from the maps of an image."""
    image = maps.image
    affine = np.asarray(image.affine)
    return ReviewImage(maps["sh_average"], maps["colour_fa"], maps["fa"], image.mask, affine)


def _poll(cancelled: Poll | None) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled
