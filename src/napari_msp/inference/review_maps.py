"""Small maps of a prediction that a review opens at once: written, read, detected when stale.

A predicted SH image of a whole head has some 300 MB, and its maps take seconds to compute. These
maps are a few MB of 8 and 16 bits in `review/maps/` of the predictions' folder, NIfTI that any
viewer opens: SH average, colour FA and mask of scan, prediction and truth, each on its own lattice,
the prediction's uncertainty, and the scan's unprocessed b=0 image. All tensors are fitted to the SH
series, so that the images are comparable. `review_making` makes them.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import DESCRIPTION, absolute, entities, gradient_files
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import DAMAGED
from napari_msp.errors import Advice, Choose, UserError
from napari_msp.files import staged_folder, stamp_of, write_json
from napari_msp.image_files import COEFFICIENTS, ImageFile, stem_of
from napari_msp.strict_json import read_json

MAPS_FOLDER = Path("review", "maps")
"""Folder of the maps in the predictions' folder; it has one folder per subject."""

FORMAT = 2
"""Version of the files; other versions are made again. 1 clipped bright voxels of images with
negative ones, and did not record scan and truth."""

UncertaintyName = Literal["expected error", "disagreement"]

AVERAGE_STEP, COLOUR_STEP = 0.002, 1 / 255
"""Smallest difference that is kept, in SH units and in FA (our choice: no eye sees less)."""

STEPS_TO_MEDIAN = 32
"""Steps per median, for maps with long tails; the maximum always fits."""

COMPRESSION = 6
"""Level of zlib (our choice): level 9 saves 2 % and takes twice as long."""

DIGESTED, BLOCK = 16, 1 << 16
"""Number and bytes of the blocks of a file that `quick_digest` reads."""


@dataclass(frozen=True, eq=False)
class ReviewImage:
    """The maps of one image that are shown, on its own lattice.

    Attributes
    ----------
    average
        (X, Y, Z) float32, the paper's SH average.
    colour
        (X, Y, Z, 3) uint8, |e₁| · FA: 255 is FA 1.
    mask, lattice
        (X, Y, Z) brain mask, and the lattice.
    """

    average: FloatArray
    colour: NDArray[np.uint8]
    mask: MaskArray
    lattice: Lattice

    @classmethod
    def of(
        cls, average: FloatArray, colour_fa: FloatArray, mask: MaskArray, affine: FloatArray
    ) -> ReviewImage:
        """Make it from maps in SH units and FA, and a (4, 4) voxel-to-scanner affine in mm."""
        colour = np.rint(255 * np.clip(colour_fa, 0, 1)).astype(np.uint8)
        return cls(average, colour, mask, Lattice.of(mask.shape, affine))


@dataclass(frozen=True, eq=False)
class ReviewMaps:
    """The data that a review shows of one prediction.

    Attributes
    ----------
    scan
        Image of the scan it was predicted from; None if that could not be read.
    truth
        Image of the target platform's own scan of the same head; None if there is none.
    uncertainty
        (X, Y, Z) on the prediction's lattice: expected error in SH units², else disagreement in SH
        units; None if the model provides neither.
    uncertainty_name
        Name of the uncertainty.
    b0
        (X, Y, Z) mean b=0 image of the scan on its lattice, not masked: the previous step.
    notes
        Texts: which of several shells it is, and why something is missing.
    shell, shells
        Shell that was read and all shells, by name; None and (None,) if there is only one.
    """

    scan: ReviewImage | None
    prediction: ReviewImage
    truth: ReviewImage | None = None
    uncertainty: FloatArray | None = None
    uncertainty_name: UncertaintyName | None = None
    b0: FloatArray | None = None
    notes: tuple[str, ...] = ()
    shell: int | None = None
    shells: tuple[int | None, ...] = (None,)


@dataclass(frozen=True)
class Without:
    """Why a scan is not shown, though there may be one: another person's, or one not readable."""

    why: str


@dataclass(frozen=True)
class MadeFrom:
    """A prediction, and the files that its maps are made from; None: those that its sidecar names.

    Attributes
    ----------
    prediction
        Its DWI or its SH image.
    root
        Root of the predictions' dataset; None: `root_of` the prediction's folder.
    """

    prediction: Path
    scan: Path | Without | None = None
    truth: Path | Without | None = None
    root: Path | None = None

    @cached_property
    def dataset(self) -> Path:
        """The root, looked for if it was not given."""
        return self.root or root_of(self.prediction.parent)

    @property
    def stem(self) -> str:
        """Beginning of the names of all files of the prediction."""
        return stem_of(self.prediction)


def root_of(folder: Path) -> Path:
    """Return the root of the dataset that the predictions in a folder belong to.

    It is the nearest described folder, if that is a derivative: maps are never written to measured
    data. Otherwise it is the folder itself.
    """
    folder = absolute(folder)
    for each in (folder, *folder.parents):
        if (each / DESCRIPTION).exists():
            kind = read_json(each / DESCRIPTION, foreign=True).get("DatasetType")
            return each if kind == "derivative" else folder
    return folder


# --- Files -----------------------------------------------------------------------------------

_IMAGES = {"prediction": "", "scan": "Scan", "truth": "Truth"}
"""Suffixes of the images' file names after the prediction's."""


def write_review_maps(
    files: MadeFrom,
    maps: Mapping[int | None, ReviewMaps],
    *,
    written_in: Path | None = None,
    about: Mapping[str, Any] | None = None,
    stage: Path | None = None,
) -> Path:
    """Write the maps of a prediction, replacing older ones.

    Parameters
    ----------
    files
        Files that they are made from: if one changes, or appears, the maps are stale.
    maps
        Maps by shell; the key is None if there is only one.
    written_in
        Folder in which the prediction's files are still staged.
    about
        Further notes for the sidecar, such as the model.
    stage
        Folder that the caller will move to the sidecar's place, see `sidecar_of`.

    Returns
    -------
    Path of the sidecar, which is beside the maps.
    """
    stem, place = files.stem, files.prediction.parent
    beside = {"scan": files.scan, "truth": files.truth}
    notes: dict[str, Any] = {
        "Description": f"Small maps of {stem} for a review: rounded, for the eye alone",
        "Format": FORMAT,
        "GeneratedBy": f"napari-msp {importlib.metadata.version('napari-msp')}",
        **(about or {}),
        "Beside": {what: _state(path) for what, path in beside.items() if isinstance(path, Path)},
        "Shells": [],
    }
    sidecar = sidecar_of(files)
    with (
        nullcontext(stage)
        if stage is not None
        else staged_folder(sidecar.parent, replaced=partial(is_review_map, stems=[stem])) as made_in
    ):
        for shell, each in maps.items():
            noted, image = None, ImageFile(stem, COEFFICIENTS, shell)
            if (source := image.at(written_in or place)).exists():
                of = Path(os.path.relpath(image.at(place), files.dataset)).as_posix()
                noted = {"Of": of, "Digest": quick_digest(source)}
            notes["Shells"].append(_write_shell(made_in, stem, shell, each) | {"Made": noted})
        write_json(made_in / sidecar.name, notes)
    return sidecar


def is_review_map(name: str, stems: Collection[str]) -> bool:
    """Return whether a file in a folder of maps is one of these predictions'."""
    file = ImageFile.parse(name)
    return file is not None and bool({file.stem, replace(file, beside="").beginning} & {*stems})


def _write_shell(stage: Path, stem: str, shell: int | None, maps: ReviewMaps) -> dict[str, Any]:
    """Write the maps of one shell; return their part of the sidecar."""
    images = {name: image for name in _IMAGES if (image := getattr(maps, name)) is not None}
    for name, image in images.items():
        files, affine = _files(stem, shell, name), image.lattice.affine
        _write(files["average"].at(stage), image.average, affine, AVERAGE_STEP)
        _write(files["colour"].at(stage), image.colour / np.float32(255), affine, COLOUR_STEP)
        _write(files["mask"].at(stage), image.mask, affine, 1.0)
    if maps.uncertainty is not None:
        path = ImageFile(stem, parameter_of(maps.uncertainty_name), shell).at(stage)
        _write(path, maps.uncertainty, maps.prediction.lattice.affine)
    if maps.scan is not None and maps.b0 is not None:
        _write(_b0_file(stem, shell).at(stage), maps.b0, maps.scan.lattice.affine)
    return {
        "Shell": shell,
        "Images": list(images),
        "Uncertainty": maps.uncertainty_name,
        "B0": maps.scan is not None and maps.b0 is not None,
        "Notes": list(maps.notes),
    }


def read_review_maps(files: MadeFrom, shell: int | None = None) -> ReviewMaps:
    """Read the maps of a prediction.

    Parameters
    ----------
    files
        Files that they must be made from.
    shell
        Shell by name, if there are several; None: the first.

    Raises
    ------
    UserError
        When there are none, they are damaged or another prediction's, or the prediction, its scan
        or its truth has changed since. A missing file (left on another disk, say) is not compared.
    """
    stem, sidecar = files.stem, sidecar_of(files)
    try:
        shells = {each["Shell"]: each for each in _current(files)["Shells"]}
        if not shells or (shell not in shells and shell is not None):
            raise UserError(
                f"has no maps of b = {shell}", sidecar, "shell", Choose("shell", tuple(shells))
            )
        notes = shells[next(iter(shells)) if shell is None else shell]
        names, named = [str(each) for each in notes["Images"]], notes["Uncertainty"]
        said = tuple(str(each) for each in notes["Notes"])
        if len(shells) > 1:  # shells that were not seen must not be judged by this one
            every = ", ".join(str(each) for each in shells)
            said = (f"b = {notes['Shell']} of {every} s/mm²", *said)
        own = None if notes["Shell"] is None else int(notes["Shell"])
        wanted = {
            (name, what): file for name in names for what, file in _files(stem, own, name).items()
        }
        if named is not None:
            wanted["prediction", "uncertainty"] = ImageFile(stem, parameter_of(named), own)
        if notes["B0"]:
            wanted["scan", "b0"] = _b0_file(stem, own)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError("is not a sidecar of review maps", sidecar, remedy=MAKE_ANEW) from error
    with ThreadPoolExecutor(len(wanted)) as pool:  # zlib and NumPy release Python's lock
        paths = [file.at(sidecar.parent) for file in wanted.values()]
        read = dict(zip(wanted, pool.map(_read, paths), strict=True))
    values, images = {what: of for what, (of, _) in read.items()}, {}
    for name in names:
        (average, affine), mask = read[name, "average"], values[name, "mask"] > 0
        images[name] = ReviewImage.of(average, values[name, "colour"], mask, affine)
    return ReviewMaps(
        images.get("scan"),
        images["prediction"],
        images.get("truth"),
        values.get(("prediction", "uncertainty")),
        named,
        values.get(("scan", "b0")),
        said,
        notes["Shell"],
        tuple(shells),
    )


MAKE_ANEW = Advice("make the maps again")


def shells_of_review_maps(files: MadeFrom) -> tuple[int | None, ...]:
    """Return the shells that have maps; (None,) for a single shell, empty without maps."""
    try:
        return tuple(each["Shell"] for each in read_json(sidecar_of(files))["Shells"])
    except (UserError, KeyError, TypeError):
        return ()


def has_review_maps(files: MadeFrom) -> bool:
    """Return whether there are up-to-date maps of a prediction, see `read_review_maps`; fast."""
    try:
        _current(files)
    except UserError:
        return False
    return True


def sidecar_of(files: MadeFrom) -> Path:
    """Return the JSON file of a prediction's maps, in the folder of its subject.

    A prediction elsewhere in the dataset (an older one that was moved away) has its maps in the
    same place below the folder of maps.

    >>> root, image = Path("out"), "sub-01/dwi/sub-01_desc-saMsp_dwi.nii.gz"
    >>> sidecar_of(MadeFrom(root / image, root=root)).as_posix()
    'out/review/maps/sub-01/sub-01_desc-saMsp_review.json'
    >>> sidecar_of(MadeFrom(root / "old" / image, root=root)).as_posix()
    'out/review/maps/old/sub-01/sub-01_desc-saMsp_review.json'
    """
    label = entities(files.prediction).get("sub")
    subject = f"sub-{label}" if label else ""
    parts = Path(os.path.relpath(files.prediction.parent, files.dataset)).parts
    parts = parts[: parts.index(subject)] if subject in parts else parts
    if ".." in parts:  # it is outside the folder
        parts = ()
    image = ImageFile(files.stem, "review", suffix=".json")
    return image.at(files.dataset.joinpath(MAPS_FOLDER, *parts, subject))


def quick_digest(path: str | Path) -> str:
    """Digest a file's size, its beginning, its end and blocks between, however large it is.

    It detects that a compressed image was rewritten: its end has a checksum of all voxels.
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


def _current(files: MadeFrom) -> dict[str, Any]:
    """Read the sidecar of maps that are up to date with these files."""
    sidecar = sidecar_of(files)
    if not sidecar.exists():
        raise UserError("there are no review maps", sidecar, remedy=MAKE_ANEW)
    notes = read_json(sidecar)
    try:
        if notes["Format"] != FORMAT:
            raise UserError("is from another version", sidecar, remedy=MAKE_ANEW)
        changed = _changed(notes, files)
    except (AttributeError, KeyError, TypeError, OSError) as error:
        raise UserError("is not a sidecar of review maps", sidecar, remedy=MAKE_ANEW) from error
    if changed:
        raise UserError(f"the {changed} has changed since", sidecar, remedy=MAKE_ANEW)
    return notes


def _changed(notes: Mapping[str, Any], files: MadeFrom) -> str:
    """Return what has changed since the maps were made: "prediction", "scan", "truth"; or empty."""
    known = [each["Made"] for each in notes["Shells"] if each["Made"] is not None]
    made = {files.dataset / each["Of"]: each["Digest"] for each in known}
    if any(path.exists() and quick_digest(path) != digest for path, digest in made.items()):
        return "prediction"
    place = absolute(files.prediction.parent)
    there = {
        place / path.name for path in ImageFile(files.stem, COEFFICIENTS).in_shells(place).values()
    }
    of = {absolute(path) for path in made}
    if of and (of != there if there else any(path.parent != place for path in of)):
        return "prediction"
    for what, path in (("scan", files.scan), ("truth", files.truth)):
        if isinstance(path, Path) and not _is_still(notes["Beside"].get(what), path):
            return what
    return ""


def _state(path: Path) -> dict[str, Any]:
    """Return the present state of a scan: of its image and the gradient table beside it."""
    files = _of_scan(path)
    try:
        digests = [quick_digest(each) for each in files]
    except OSError:  # it is not readable; the maps say so
        digests = []
    return {"File": path.name, "Stamps": [*map(stamp_of, files)], "Digests": digests}


def _of_scan(path: Path) -> list[Path]:
    return [each for each in (path, *gradient_files(path)) if each.is_file()]


def _is_still(noted: Mapping[str, Any] | None, path: Path) -> bool:
    """Return whether a scan is unchanged; a missing one is not compared."""
    if not path.is_file():
        return True
    if noted is None:
        return False  # there was none
    stamps = [*map(stamp_of, _of_scan(path))]
    return bool(noted["Stamps"] == stamps or noted["Digests"] == _state(path)["Digests"])


def _files(stem: str, shell: int | None, image: str) -> dict[str, ImageFile]:
    """Return the files of one image: prediction, scan or truth."""
    average = ImageFile(stem, "average", shell, beside=_IMAGES[image])
    return {
        "average": average,
        "colour": replace(average, what="colourfa", model="tensor"),
        "mask": replace(average, what="mask"),
    }


def parameter_of(uncertainty: str | None) -> str:
    """Return the `param` of an uncertainty in the names of files."""
    return (uncertainty or "uncertainty").replace(" ", "")


def _b0_file(stem: str, shell: int | None) -> ImageFile:
    return ImageFile(stem, "dwiref", shell, beside=_IMAGES["scan"])


def _write(
    path: Path, values: FloatArray | MaskArray, affine: FloatArray, step: float | None = None
) -> None:
    """Write an image in integer steps of 8 or 16 bits; None: a step that suits its values."""
    values = np.nan_to_num(values.astype(np.float32), nan=0.0)
    smallest, largest = float(values.min(initial=0)), float(values.max(initial=0))
    if step is None:
        inside = values[values > 0]
        step = float(np.median(inside)) / STEPS_TO_MEDIAN if len(inside) else 1.0
    unsigned = np.uint8 if largest / step < np.iinfo(np.uint8).max + 0.5 else np.uint16
    kind: Any = np.int16 if smallest / step <= -0.5 else unsigned
    bounds = np.iinfo(kind)
    step = max(step, largest / bounds.max, smallest / bounds.min if bounds.min else 0.0)
    stored = np.clip(np.rint(values / np.float32(step)), bounds.min, bounds.max).astype(kind)
    image = nib.Nifti1Image(stored, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(step, 0)
    path.write_bytes(gzip.compress(image.to_bytes(), COMPRESSION, mtime=0))


def _read(path: Path) -> tuple[FloatArray, FloatArray]:
    """Read an image that `_write` wrote, as float32, and its affine."""
    gzipped = _zlib()
    try:
        # All at once: nibabel would read it in pieces, which takes a quarter longer.
        content = gzipped.decompress(path.read_bytes(), 31)  # zlib's code for gzip
        image = nib.Nifti1Image.from_bytes(content)
        stored = np.asarray(image.dataobj.get_unscaled())
    except (*DAMAGED, gzipped.error, HeaderDataError) as error:
        raise UserError(f"cannot be read ({error})", path, remedy=MAKE_ANEW) from error
    slope = np.float32(image.dataobj.slope)
    return np.multiply(stored, slope, dtype=np.float32), np.asarray(image.affine)


def _zlib() -> Any:
    """Return the decompressor: isal's takes half of zlib's time."""
    try:
        return import_module("isal.isal_zlib")
    except ImportError:  # it has no wheel for this machine
        return import_module("zlib")
