"""Read and write NIfTI images with their headers intact; read MRtrix3 images by converting them."""

import gzip
import os
import shutil
import subprocess
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from gzip import GzipFile
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import MRTRIX_SUFFIXES, NIFTI_SUFFIXES, image_suffix, nifti_stem
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, Remedy, UserError
from napari_msp.files import atomic_path, scratch_folder, sha256, version_of
from napari_msp.foreign_errors import unreadable

GZIP_LEVEL = 1
"""Level for isal and zlib: a higher one saves a tenth of a DWI at 5 times the time, no SH bytes."""

DAMAGED = (OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error)
"""Errors that reading a damaged or truncated image may raise. A header with a wrong size asks for
memory that no machine has."""

CHECK_PATH, REPLACE = Advice("check the path"), Advice("replace it")

FETCH = Advice("fetch it (datalad get, git annex get or git lfs pull)")
"""Remedy for a dataset that holds placeholders instead of files."""

HEADERS = {(348).to_bytes(4, order) for order in ("little", "big")}
"""First bytes of an uncompressed NIfTI file."""


_CONVERTED: weakref.WeakValueDictionary[tuple[Path, tuple[int, ...]], nib.Nifti1Image] = (
    weakref.WeakValueDictionary()
)
"""Converted MRtrix3 images by file and version, for as long as something else uses them."""


def open_nifti(path: str | Path) -> nib.Nifti1Image:
    """Open a NIfTI image; its voxels stay on disk until they are needed.

    NIfTI in two files (.hdr and .img) is opened as one. MRtrix3 images are converted by its own
    `mrconvert`, which also writes the gradient table in their header beside the converted image.

    A header whose sform cannot be used, or whose lengths are in micrometres or metres, is repaired
    in memory; `header_doubts` reports the repairs.

    Raises
    ------
    UserError
        When the file is missing, is not NIfTI, or its affine cannot be used.
    """
    path = Path(path)
    if image_suffix(path).lower() in MRTRIX_SUFFIXES and path.is_file():
        return _open_mrtrix(path)
    try:
        if not os.access(path, os.R_OK):  # which nibabel takes for damage
            path.open("rb").close()
        with _quiet_nibabel():
            image = nib.load(path)
    except PermissionError as error:
        raise unreadable(path, error) from error
    except FileNotFoundError as error:
        nifti_stem(path)  # a wrong kind of name is the likelier mistake
        if path.is_symlink():
            raise UserError("is a link to a missing file", path, remedy=FETCH) from error
        raise UserError("there is no such file", path, remedy=CHECK_PATH) from error
    except (*DAMAGED, ImageFileError, HeaderDataError) as error:
        nifti_stem(path)
        # nibabel's text on a file's type repeats the file's name.
        reason = "unknown file type" if isinstance(error, ImageFileError) else error
        unknown = f"is not a readable NIfTI image ({reason})", REPLACE
        problem, remedy = _looks_like(path) or unknown
        raise UserError(problem, path, remedy=remedy) from error
    if isinstance(image, nib.Nifti1Pair) and not isinstance(image, nib.Nifti1Image):
        image = nib.Nifti1Image(image.dataobj, image.affine, image.header)
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        problem = "is an ANALYZE image, which does not state left and right"
        raise UserError(problem, path, remedy=Advice("convert the original data to .nii.gz"))
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is a subclass
        raise UserError("is not a NIfTI image", path, remedy=Advice("convert it to .nii.gz"))
    if len(image.shape) == 0 or min(image.shape) < 1:
        raise UserError(f"has shape {image.shape}, so no voxels", path, remedy=REPLACE)
    return _put_right(image, path)


def _put_right(image: nib.Nifti1Image, name: str | Path) -> nib.Nifti1Image:
    """Repair a header's axes and note how; refuse an affine that still cannot be used."""
    image.extra[REPAIRS] = [*_use_qform(image), *_use_millimetres(image)]
    if not usable(image.affine):
        remedy = Advice("correct the header's sform or qform")
        raise UserError("its affine is singular", name, remedy=remedy)
    return image


def _looks_like(path: Path) -> tuple[str, Remedy] | None:
    """Return what an unreadable file is by its first bytes, and a remedy; None if not known."""
    try:
        with path.open("rb") as file:
            first = file.read(200)
    except OSError:
        return None
    named = path.suffix.lower() == ".gz"
    if first.startswith(b"version https://git-lfs") or b"/annex/objects/" in first:
        return "is a placeholder for a file that was not downloaded", FETCH
    if first.startswith(b"\x1f\x8b") and not named:
        return "is compressed, but its name does not end in .gz", Advice("rename it to .nii.gz")
    if named and first[:4] in HEADERS:
        return "is not compressed, but its name ends in .gz", Advice("rename it to .nii")
    return None


def as_nifti(image: Any, name: str) -> nib.Nifti1Image:
    """Open an image in memory like `open_nifti` does a file; the given image stays as it is.

    Raises
    ------
    UserError
        When it has no affine, or an unusable one.
    """
    nifti = isinstance(image, nib.Nifti1Pair)
    known = nifti or not isinstance(image, nib.AnalyzeImage)
    if not isinstance(image, nib.spatialimages.SpatialImage) or not known:
        problem = f"is a {type(image).__name__}, which does not state where its voxels are"
        raise UserError(problem, name, remedy=Advice("give a nibabel NIfTI image"))
    if not isinstance(image, nib.Nifti1Image):
        image = nib.Nifti1Image(image.dataobj, image.affine, image.header if nifti else None)
    elif _unit(image) in UNITS or not usable(image.affine):
        image = type(image)(image.dataobj, image.affine, image.header)
    else:
        return image
    return _put_right(image, name)


REPAIRS = "repairs"
"""Key in an image's `extra` of the repairs to its header, in words."""

UNITS = {"micron": 1e-3, "meter": 1e3}
"""Millimetres per unit, for units of length other than mm that a header may state."""

LARGEST_VOXEL, SMALLEST_VOXEL = 20.0, 0.01
"""Voxel sizes in mm beyond which a header is doubted (our choice)."""


def usable(affine: FloatArray | None) -> bool:
    """Return whether an affine is finite and spans a volume."""
    if affine is None or not np.isfinite(affine).all():
        return False
    return abs(float(np.linalg.det(affine[:3, :3]))) >= 1e-9


def qform_of(image: nib.Nifti1Image) -> FloatArray | None:
    """Return an image's qform; None where its code is 0 or it cannot be read."""
    if not int(image.header["qform_code"]):
        return None
    try:
        qform: FloatArray = image.header.get_qform()
    except (HeaderDataError, ValueError):
        return None
    return qform if usable(qform) else None


def _use_qform(image: nib.Nifti1Image) -> Iterator[str]:
    """Use the qform if the sform, which has precedence, is unusable."""
    sform, qform = image.affine, qform_of(image)
    if not int(image.header["sform_code"]) or usable(sform) or qform is None:
        return
    empty = "empty" if not np.nan_to_num(sform[:3]).any() else "not usable"
    image.set_sform(None, 0)
    yield f"its sform is {empty}, the qform is used"


def _unit(image: nib.Nifti1Image) -> str:
    """Return the name of the header's unit of length; "unknown" for an invalid code."""
    try:
        return str(image.header.get_xyzt_units()[0])
    except KeyError:
        return "unknown"


def _use_millimetres(image: nib.Nifti1Image) -> Iterator[str]:
    """Convert lengths to mm if that makes the voxels a plausible size."""
    unit, affine = _unit(image), image.affine
    factor = UNITS.get(unit)
    if factor is None or not usable(affine):
        return
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    written = " × ".join(f"{size:g}" for size in sizes.round(4))
    if not (sizes * factor >= SMALLEST_VOXEL).all() or not (sizes * factor <= LARGEST_VOXEL).all():
        yield f"its header states lengths in {unit}s, but {written} is read as mm"
        return
    scaled, qform = np.diag([factor] * 3 + [1.0]) @ affine, qform_of(image)
    codes = int(image.header["sform_code"]), int(image.header["qform_code"])
    if qform is not None:
        image.set_qform(np.diag([factor] * 3 + [1.0]) @ qform, codes[1])
    # If neither has a code, the voxel sizes alone make the affine.
    image.header.set_zooms((*(sizes * factor), *image.header.get_zooms()[3:]))
    image.header.set_xyzt_units("mm", image.header.get_xyzt_units()[1])
    image.set_sform(scaled, codes[0] or (0 if qform is not None else 1))
    yield f"voxels of {written} {unit}s were read as mm"


def check_four_axes(image: nib.Nifti1Image, name: str) -> None:
    """Refuse an image that has not the four axes of a DWI, with a remedy from its shape."""
    shape, remedy = image.shape, "give another image"
    if len(shape) == 4:
        return
    if len(shape) == 3 and shape[2] > 3 * max(shape[:2]):
        remedy = "its volumes seem to be stacked along the third axis: split them"
    elif len(shape) > 4 and sum(length > 1 for length in shape[3:]) == 1:
        remedy = f"remove axes of length 1 ({' × '.join(map(str, shape))})"
    problem = f"has {len(shape)} axes, but a DWI has four"
    raise UserError(problem, name, "path", Advice(remedy))


def lattice_of(image: nib.Nifti1Image) -> Lattice:
    """Return an image's lattice."""
    return Lattice.of(image.shape, image.affine)


def _open_mrtrix(path: Path) -> nib.Nifti1Image:
    """Convert an MRtrix3 image; the result is kept for as long as it is in use."""
    key = path.resolve(), version_of(path)
    known = _CONVERTED.get(key)
    if known is not None:
        return known
    if shutil.which("mrconvert") is None:
        remedy = Advice("install MRtrix3, or convert it where MRtrix3 is installed")
        raise UserError("is an MRtrix3 image, which only MRtrix3 reads", path, remedy=remedy)
    kept = ExitStack()
    folder = kept.enter_context(scratch_folder())
    try:
        made = folder / f"{nifti_stem(path)}.nii"
        tables = ("-export_grad_fsl", made.with_suffix(".bvec"), made.with_suffix(".bval"))
        has_table = _run("mrinfo", path, "-quiet", "-property", "dw_scheme").strip()
        _run("mrconvert", path, made, "-quiet", *(tables if has_table else ()))
        image = open_nifti(made)
    except UserError as error:
        kept.close()
        raise UserError("is not a readable MRtrix3 image", path, error.field, REPLACE) from error
    weakref.finalize(image, kept.close)
    _CONVERTED[key] = image
    return image


def _run(program: str, *arguments: str | Path) -> str:
    """Run a program of MRtrix3 and return its output."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError(f"failed ({done.stderr.strip()})", program)
    return done.stdout


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel's remarks on headers off standard error: those that matter become errors."""
    before = nibabel_logger.disabled
    nibabel_logger.disabled = True  # setting its level would go through all loggers
    try:
        yield
    finally:
        nibabel_logger.disabled = before


def is_real(image: nib.Nifti1Image) -> bool:
    """Return whether each voxel holds one real number: no colours, no complex number."""
    kind = image.get_data_dtype()
    return kind.fields is None and kind.kind != "c"


def read_voxels(image: nib.Nifti1Image, path: str | Path | None = None) -> FloatArray:
    """Read all voxels as float32, scaled as the header says.

    Raises
    ------
    UserError
        When the file ends early or its compression is damaged.
    """
    if not is_real(image):
        problem = f"has {image.get_data_dtype()} voxels, not one real number each"
        raise UserError(problem, path, remedy=Advice("convert it to real numbers"))
    try:
        with np.errstate(over="ignore"):  # too large values become infinite, and are found
            return _volume_by_volume(image)
    except DAMAGED as error:
        raise UserError(f"its voxels cannot be read ({error})", path, remedy=REPLACE) from error


def _volume_by_volume(image: nib.Nifti1Image) -> FloatArray:
    """Read voxels volume by volume, without holding the whole image as it is stored.

    That would double the memory, and nibabel would hold Python's lock while it clears so much of
    it: a window would freeze.
    """
    stored = image.dataobj
    if not nib.is_proxy(stored):
        # A copy: callers may change it, and an image in memory belongs to its owner.
        return np.array(stored, dtype=np.float32)
    layout = (stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter)
    # One open file for all volumes: a compressed file is decompressed only once.
    with ImageOpener(stored.file_like, "rb") as file:
        volumes = nib.arrayproxy.ArrayProxy(file, layout)
        if len(image.shape) < 4:
            voxels: FloatArray = np.asarray(volumes, dtype=np.float32)
        else:
            voxels = np.empty(stored.shape, dtype=np.float32, order="F")
            for index in range(stored.shape[-1]):
                voxels[..., index] = volumes[..., index]
        # A compressed file's checksum is at its end, so read up to there.
        while file.read(2**16):
            pass
    return voxels


def write_nifti(
    path: Path,
    array: FloatArray | MaskArray,
    affine: FloatArray,
    like: nib.Nifti1Image | None = None,
) -> None:
    """Write an image atomically: float32, or uint8 for a mask.

    Parameters
    ----------
    path
        File name that ends in .nii or .nii.gz.
    array
        (X, Y, Z) or (X, Y, Z, N) values.
    affine
        (4, 4) voxel-to-scanner affine in mm.
    like
        Image whose sform and qform are kept, even if they differ; without one both are `affine`
        with code 1 (scanner).
    """
    if not str(path).endswith(NIFTI_SUFFIXES):
        raise UserError("is not a NIfTI file", path, remedy=Advice("give a .nii or .nii.gz"))
    dtype = np.uint8 if array.dtype == np.bool_ else np.float32
    image = nib.Nifti1Image(np.asarray(array, dtype=dtype), affine)
    sform, qform = (1, 1) if like is None else _codes(like)
    to_scanner = affine
    if like is not None and sform and qform:  # the affine is the sform
        to_scanner = like.get_qform() @ np.linalg.inv(like.affine) @ affine
    # An sform may contain a shear that a qform cannot: nibabel then writes the nearest rotation.
    image.set_qform(to_scanner, qform)
    image.set_sform(affine, sform)
    image.header.set_xyzt_units("mm", "sec")
    with atomic_path(Path(path)) as temporary, _opened(temporary) as stream:
        image.to_stream(stream)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing, through gzip if its name ends in .gz.

    It contains neither time nor name, so equal images are equal files.
    """
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with _gzip()("", "wb", GZIP_LEVEL, file, mtime=0) as stream:
            yield cast(BinaryIO, stream)


def _gzip() -> Callable[..., GzipFile]:
    """Return the compressor: isal's takes a quarter of zlib's time or less, for as few bytes."""
    try:
        from isal.igzip import IGzipFile
    except ImportError:  # it has no wheel for this machine
        return GzipFile
    faster: type[GzipFile] = IGzipFile
    return faster


def _codes(image: nib.Nifti1Image) -> tuple[int, int]:
    sform, qform = (int(image.header[f"{form}_code"]) for form in ("sform", "qform"))
    return (sform, qform) if sform or qform else (1, 1)


# --- Content of a file, without its voxels ------------------------------------------------------


def content_hash(image: Path, remedy: Remedy) -> str:
    """Return a hash of an image's content, and check without reading voxels that it is complete.

    A gzip file ends with checksum and length of its content: "crc32:<8 digits>:<bytes>". If these
    do not cover the whole image (not compressed, or in several parts), the file is read instead:
    "sha256:<digest>".
    """
    stored = open_nifti(image).dataobj
    wanted = stored.offset + int(np.prod(stored.shape, dtype=object)) * stored.dtype.itemsize
    try:
        if image.name.endswith(".gz"):
            with image.open("rb") as stream:
                stream.seek(-8, os.SEEK_END)
                tail = stream.read()
            checksum, length = (int.from_bytes(part, "little") for part in (tail[:4], tail[4:]))
            if length == wanted % 2**32:
                return f"crc32:{checksum:08x}:{wanted}"
        found = _read_length(image)
        if found < wanted:
            problem = f"is incomplete: {found:,} of its {wanted:,} bytes"
            raise UserError(problem, image, remedy=remedy)
        return f"sha256:{sha256(image)}"
    except OSError as error:
        raise unreadable(image, error) from error


def _read_length(image: Path) -> int:
    """Count the bytes that can be read."""
    length = 0
    unpacked: Any = gzip.open if image.name.endswith(".gz") else Path.open
    # What was read until an error counts.
    with suppress(OSError, EOFError, zlib.error), unpacked(image, "rb") as stream:
        while part := stream.read(1 << 20):
            length += len(part)
    return length
