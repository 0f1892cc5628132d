"""BIDS: names and entities, platforms, sidecars, dataset descriptions, for one BIDS version.

This module works from names and small JSON files only, and reads no image.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_msp.errors import Advice, UserError
from napari_msp.files import entries, write_json, write_text
from napari_msp.strict_json import read_json

BIDS_VERSION = "1.10.0"
"""Version of the standard that all written files follow."""

NIFTI_SUFFIXES = (".nii.gz", ".nii")
"""Endings of the images that are written, and the names by which others are known."""

MRTRIX_SUFFIXES = (".mif.gz", ".mif", ".mih")
"""Endings of MRtrix3's images, which its own `mrconvert` reads."""

IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, ".img.gz", ".hdr.gz", ".img", ".hdr", *MRTRIX_SUFFIXES)
"""Endings of images that are read, in any case, the usual ones first."""

DESCRIPTION = "dataset_description.json"

INPUT_MARK = "InputPlatform"
"""Field of `"NapariMSP"` in a dataset's description: the platform to predict from."""

ALIGNMENT = "Alignment"
"""Field of a scan's sidecar: how it was aligned to the input's head."""

_LABEL = re.compile(r"[A-Za-z0-9]+")


def image_suffix(path: str | Path) -> str:
    """Return the ending of an image's name as it is written; empty if it is not an image's.

    >>> image_suffix("DWI.NII.GZ"), image_suffix("dwi.bval")
    ('.NII.GZ', '')
    """
    name = Path(path).name
    found = next((each for each in IMAGE_SUFFIXES if name.lower().endswith(each)), "")
    return name[len(name) - len(found) :]


def nifti_stem(path: str | Path) -> str:
    """Return the name of an image file without its ending.

    >>> nifti_stem("sub-01_dwi.nii.gz")
    'sub-01_dwi'
    """
    suffix = image_suffix(path)
    if not suffix:
        known = ".nii, .nii.gz, .hdr with .img, or MRtrix3's .mif"
        raise UserError("is no image that can be read", path, remedy=Advice(f"give {known}"))
    return Path(path).name.removesuffix(suffix)


def gradient_files(image: Path) -> tuple[Path, Path]:
    """Return where an image's .bval and .bvec files are written: beside it, by its stem.

    `companions.find_gradients` decides where they are read from.
    """
    stem = nifti_stem(image)
    return image.with_name(stem + ".bval"), image.with_name(stem + ".bvec")


def sidecar_path(path: Path) -> Path:
    """Return the path of a NIfTI file's JSON sidecar."""
    return path.with_name(nifti_stem(path) + ".json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a NIfTI file's JSON sidecar; empty if there is none."""
    beside = sidecar_path(path)
    return read_json(beside, foreign=True) if beside.exists() else {}


def entities(path: str | Path) -> dict[str, str]:
    """Return the entities of a BIDS file name.

    >>> entities("sub-01_ses-ge_acq-st_dwi.nii.gz")
    {'sub': '01', 'ses': 'ge', 'acq': 'st'}
    """
    return dict(part.split("-", 1) for part in nifti_stem(path).split("_") if "-" in part)


def subject_and_platform(scan: str | Path) -> tuple[str, str] | None:
    """Return a scan's subject and platform by its name alone; None if the name lacks one.

    >>> subject_and_platform("sub-01_ses-ge_acq-st_dwi.nii.gz")
    ('sub-01', 'ge_st')
    >>> subject_and_platform("sub-01_acq-st_run-2_dwi.nii.gz")
    ('sub-01', 'st')
    """
    if not is_dwi(scan):
        return None
    platform = platform_of(scan)
    return (f"sub-{entities(scan)['sub']}", platform) if platform else None


def platform_of(path: str | Path) -> str:
    """Return an image's platform by its name; empty if the name has none.

    >>> platform_of("sub-01_ses-ge_acq-st_dseg.nii.gz")
    'ge_st'
    """
    named = entities(path)
    return platform_name(named.get("ses", ""), named.get("acq", ""))


def misplaced(path: str | Path) -> str:
    """Return how an image's name contradicts the folders it is in; empty if it does not.

    >>> misplaced("heads/sub-02/dwi/sub-01_dwi.nii.gz")
    'is in the folder sub-02 but named sub-01'
    >>> misplaced("heads/sub-1/ses-ge/dwi/sub-01_dwi.nii.gz")
    ''
    """
    named = entities(path)
    for folder in absolute(path).parents:
        key, _, label = folder.name.partition("-")
        if key in {"sub", "ses"} and label.lstrip("0") != named.get(key, label).lstrip("0"):
            return f"is in the folder {folder.name} but named {key}-{named[key]}"
        if key == "sub":
            break
    return ""


NOT_MAGNITUDE = "shows phase or part of a complex signal, not magnitude"


def name_doubts(path: Path) -> Iterator[str]:
    """Yield, in words, what an image's name says against it."""
    if wrong := misplaced(path):
        yield wrong
    if entities(path).get("part", "mag") != "mag":
        yield f"by its name it {NOT_MAGNITUDE}"


def is_dwi(path: str | Path) -> bool:
    """Return whether a name is that of a BIDS scan: `sub-<label>[_<entity>-<label>…]_dwi`.

    >>> is_dwi("sub-01_dwi.nii.gz"), is_dwi("sub-01_desc-brain_mask.nii.gz")
    (True, False)
    """
    if not image_suffix(path):
        return False
    *parts, last = nifti_stem(path).split("_")
    pairs = [part.partition("-") for part in parts]
    named = all(key.isalnum() and _LABEL.fullmatch(label) for key, _, label in pairs)
    return named and last == "dwi" and bool(pairs) and pairs[0][0] == "sub"


def platform_name(session: str, protocol: str) -> str:
    """Name a platform after its BIDS entities: both, or the one there is.

    >>> platform_name("ge", "st"), platform_name("ge", "")
    ('ge_st', 'ge')
    """
    return "_".join(each for each in (session, protocol) if each)


def bare_stem(path: str | Path) -> str:
    """Return a file name without suffix and without the ending that marks a DWI.

    >>> bare_stem("sub-01_ses-ge_acq-st_dwi.nii.gz")
    'sub-01_ses-ge_acq-st'
    """
    return nifti_stem(path).removesuffix("_dwi")


def undescribed_stem(path: str | Path) -> str:
    """Return `bare_stem` without `desc`, as a name has only one.

    >>> undescribed_stem("sub-01_space-T1w_desc-preproc_dwi.nii.gz")
    'sub-01_space-T1w'
    """
    return re.sub(r"_desc-[A-Za-z0-9]+", "", bare_stem(path))


def dataset_root(path: str | Path) -> Path | None:
    """Return the root of the BIDS dataset that contains `path`: its `sub-` folder's parent."""
    for folder in absolute(path).parents:
        if folder.name.startswith("sub-"):
            return folder.parent
    return None


def study_root(path: str | Path) -> Path | None:
    """Return the dataset that `path` belongs to, even if it is in its `derivatives/<name>/`."""
    root = dataset_root(path)
    if root is not None and root.parent.name == "derivatives":
        return root.parent.parent
    return root


def applicable(image: str | Path, extension: str) -> Iterator[list[Path]]:
    """Yield the files that BIDS lets an image inherit, one level of folders after the other.

    A file applies if it has the image's suffix and no entity that the image lacks: the inheritance
    principle of BIDS. The level nearest to the image comes first; levels without files are left
    out.

    Parameters
    ----------
    image
        An image whose path or name contains its subject.
    extension
        File extension, such as ".bval".
    """
    root = dataset_root(image)
    if root is None:
        return
    suffix = nifti_stem(image).rpartition("_")[2]
    own = entities(image).items()
    for folder in absolute(image).parents:
        found = []
        for path in sorted(folder.glob(f"*{suffix}{extension}")):
            *parts, last = path.name.removesuffix(extension).split("_")
            pairs = [part.partition("-") for part in parts]
            if last == suffix and {(key, label) for key, _, label in pairs} <= own:
                found.append(path)
        if found:
            yield found
        if folder == root:
            return


def read_metadata(image: Path) -> dict[str, Any]:
    """Read an image's metadata from JSON files: each field from the nearest file that has it."""
    content: dict[str, Any] = {}
    for level in reversed(list(applicable(image, ".json"))):
        for path in sorted(level, key=lambda each: len(each.name)):
            content |= read_json(path, foreign=True)
    return content | read_sidecar(image)


def is_simulated(image: str | Path | None) -> bool:
    """Return whether `simulate` made an image, or the image that our derivative was made from.

    False if that cannot be read, or there is no file.
    """
    if image is None:
        return False
    try:
        known = [read_metadata(Path(image))]
        if (root := study_root(image)) is not None:
            source = linked_source(root)
            known += [read_description(each) for each in (root, source) if each is not None]
    except UserError:
        return False
    return any(each.get("Simulated") is True for each in known)


def derivative_folders(scan: str | Path) -> list[Path]:
    """Return the folders in `derivatives/*/` that correspond to a scan's own folder."""
    root = dataset_root(scan)
    if root is None:
        return []
    inside = absolute(scan).parent.relative_to(root)
    return [each / inside for each in entries(root / "derivatives")]


def absolute(path: str | Path) -> Path:
    """Make a path absolute without following links: DataLad links to images kept elsewhere.

    What an image is follows from the link's names.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def dataset_description(
    name: str,
    *,
    derivative: bool,
    generated_by: str = "",
    input_platform: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the content of a dataset_description.json.

    Parameters
    ----------
    derivative
        Whether it was made from another dataset.
    generated_by
        What this package did, in words.
    input_platform
        The platform to predict from, if the dataset marks one.
    """
    maker = {"Name": "napari-msp", "Version": importlib.metadata.version("napari-msp")}
    if generated_by:
        maker["Description"] = generated_by
    mark = {} if input_platform is None else {"NapariMSP": {INPUT_MARK: input_platform}}
    return {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative" if derivative else "raw",
        "GeneratedBy": [maker],
        **mark,
        **more,
    }


HARMONIZED = "Scans harmonized by Multi-Stage Prediction networks"
"""Name of a dataset of predictions."""

BIDSIGNORE_TABLES = """\
# The validator has no rule for the gradient tables of derivatives yet.
*.bval
*.bvec
"""

BIDSIGNORE_DEVIATIONS = """\
# HCP's gradients from voxel to voxel, for which BIDS has no name.
*_grad_dev.nii*
"""

BIDSIGNORE = f"""\
# Names of the draft for diffusion derivatives (BEP016), which is not settled.
*_dwimap.nii.gz
*_dwimap.json
{BIDSIGNORE_TABLES}# Tables of this package's own, small maps and ratings of a review.
/cohort.tsv
/review
"""

BIDSIGNORE_FLAT = """\
# The files of single scans lie here without folders of subjects and sessions.
/*_desc-*
"""


def refuse_among_scans(root: Path, out: Path, field: str) -> None:
    """Refuse to write among a dataset's scans: results form a dataset of their own."""
    inside = out.relative_to(root).parts if out.is_relative_to(root) else (".",)
    if not inside or inside[0].startswith("sub-"):
        remedy = Advice("give derivatives/NAME in the dataset, or another folder")
        raise UserError("contains the scans to be harmonized", out, field, remedy)


def describe_derivative(
    folder: Path, into: Path, name: str, source: Path | None = None, *, flat: bool = False
) -> None:
    """Write the files that make a folder of results a BIDS derivative, unless it is a dataset.

    These are description, README (an existing one is kept), and what the validator is to ignore.

    Parameters
    ----------
    folder
        Folder to write to: `into`, or the stage whose files will be moved there.
    into
        The results' folder.
    source
        The dataset that they were made from, to which `bids:source:` refers; None: no dataset.
    flat
        Whether files are in `into` itself, not in folders of subjects.
    """
    if (into / DESCRIPTION).exists():
        return
    description = dataset_description(name, derivative=True)
    if source is not None:
        description["DatasetLinks"] = {"source": os.path.relpath(source, into)}
    write_json(folder / DESCRIPTION, description)
    about = f"""{name}, made by napari-msp {importlib.metadata.version("napari-msp")}.

The sidecar of each image says what it was made from, how, and what is doubtful about it. Tables
of b-values and b-vectors are in FSL's form; maps are named after BEP016, the draft for diffusion
derivatives.
"""
    ignored = BIDSIGNORE + (BIDSIGNORE_FLAT if flat else "")
    for file, text in (("README", about), (".bidsignore", ignored)):
        if not (into / file).exists():
            write_text(folder / file, text)


def describe_part(
    folder: Path, title: str, made_by: str, *, ignored: str = "", **more: Any
) -> None:
    """Write the files that make a folder in a dataset's `derivatives` a BIDS derivative.

    Parameters
    ----------
    folder
        The folder, such as `derivatives/brainmask`.
    made_by
        What this package did, in words.
    ignored
        Patterns for `.bidsignore` of files that the validator is to ignore.
    """
    about = dataset_description(title, derivative=True, generated_by=made_by, **more)
    write_json(folder / DESCRIPTION, about)
    write_text(folder / "README", f"{title}: {made_by}.\n")
    if ignored:
        write_text(folder / ".bidsignore", ignored)


def describe_dataset(
    folder: Path, name: str, readme: str, subjects: Iterable[str], **about: Any
) -> None:
    """Write the files that describe a whole dataset: description, README and participants.

    Parameters
    ----------
    **about
        As for `dataset_description`.
    """
    write_json(folder / DESCRIPTION, dataset_description(name, **about))
    write_text(folder / "README", readme)
    write_text(folder / "participants.tsv", "\n".join(["participant_id", *subjects]) + "\n")


def mask_sidecar(description: str, sources: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return the JSON sidecar of a brain mask.

    Parameters
    ----------
    description
        Origin of the mask, in words.
    sources
        BIDS URIs of the images that it was made from or belongs to.
    """
    return {
        "Type": "Brain",
        "Description": description,
        "Sources": list(sources),
        "SpatialReference": "orig",
        **more,
    }


def read_description(root: Path) -> dict[str, Any]:
    """Read a dataset's description; empty if there is none."""
    path = root / DESCRIPTION
    return read_json(path, foreign=True) if path.is_file() else {}


def linked_source(root: Path) -> Path | None:
    """Return the dataset that a derivative states it was made from; None if it states none."""
    links = read_description(root).get("DatasetLinks")
    source = links.get("source") if isinstance(links, Mapping) else None
    return root / source if isinstance(source, str) else None


def marked_input(root: Path) -> str | None:
    """Return the platform that a dataset marks as the one to predict from; None without a mark."""
    mark = read_description(root).get("NapariMSP")
    platform = mark.get(INPUT_MARK) if isinstance(mark, Mapping) else None
    return platform if isinstance(platform, str) and platform else None


def plain_label(text: str) -> str:
    """Reduce a text to what a BIDS label may contain: letters without accents, and digits.

    >>> plain_label("prisma_st"), plain_label("Zürich 2")
    ('prismast', 'Zurich2')
    """
    parted = unicodedata.normalize("NFKD", text)  # ü becomes u and its dots
    return "".join(each for each in parted if each.isascii() and each.isalnum())
