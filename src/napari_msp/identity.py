"""Identity of the scanned person.

Scans are of one person if dataset and label agree, or if a digest of a scan is shared. A session
names the scan, not the person. sub-01 of two datasets are two people; the same scan under two names
is one person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from napari_msp.bids import entities, study_root
from napari_msp.data.nifti import DAMAGED, open_nifti, read_voxels
from napari_msp.errors import Doubt, UserError
from napari_msp.files import sha256

if TYPE_CHECKING:
    from napari_msp.data.acquisition import Acquisition


@dataclass(frozen=True)
class Person:
    """A person who was scanned.

    Attributes
    ----------
    label
        Subject label, such as "sub-01"; empty if no name has one.
    dataset
        Key of the label's dataset, see `dataset_key`; empty outside a dataset.
    scans
        Digests of the person's scans, see `scan_digest`.
    """

    label: str = ""
    dataset: str = ""
    scans: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"Label": self.label, "Dataset": self.dataset, "Scans": sorted(self.scans)}

    @classmethod
    def from_json(cls, content: Any) -> Person:
        """Read the result of `to_json`; fields that are missing or of a wrong type stay unknown."""
        if not isinstance(content, Mapping):
            return cls()
        label, dataset, scans = (content.get(name) for name in ("Label", "Dataset", "Scans"))
        return cls(
            label if isinstance(label, str) else "",
            dataset if isinstance(dataset, str) else "",
            frozenset(each for each in scans if isinstance(each, str))
            if isinstance(scans, list)
            else frozenset(),
        )


def same_person(first: Person, second: Person) -> bool | None:
    """Return whether two scans are of one person.

    Returns
    -------
    None if that cannot be known: one of them is in no dataset, and they share no known scan.

    Examples
    --------
    >>> same_person(Person("sub-01", "a"), Person("sub-01", "a"))
    True
    >>> same_person(Person("sub-01", "a"), Person("sub-01", "b"))
    False
    >>> same_person(Person("sub-01", "a", frozenset("x")), Person("sub-07", "b", frozenset("xy")))
    True
    >>> same_person(Person("sub-01"), Person("sub-01", "b")) is None
    True
    """
    if first.scans & second.scans:
        return True
    if first.dataset and second.dataset:
        return (first.dataset, first.label) == (second.dataset, second.label)
    return None


def copies(people: Mapping[str, Person]) -> Iterator[tuple[str, str]]:
    """Yield names whose scans also have another name, and that other name.

    Among those who share a scan, the first is the original and the others are copies.

    Examples
    --------
    >>> a, b, c = (Person(scans=frozenset(scans)) for scans in ("x", "y", "xz"))
    >>> list(copies({"sub-01": a, "sub-02": b, "sub-03": c}))
    [('sub-03', 'sub-01')]
    """
    first: dict[str, str] = {}
    for name, person in people.items():
        known = next((first[scan] for scan in sorted(person.scans) if scan in first), None)
        if known is not None:
            yield name, known
        for scan in person.scans:
            first.setdefault(scan, name)


class CopiedScan(Doubt):
    """The same scan exists under two names."""


def may_be_same(first: Person, second: Person) -> bool:
    """Return whether two scans may be of one person: if that cannot be known, names decide.

    A missing name matches every other.
    """
    known = same_person(first, second)
    if known is not None:
        return known
    return not first.label or not second.label or first.label == second.label


def taught_by(person: Person, people: Iterable[Person]) -> bool | None:
    """Return whether a person is one of others; None if that cannot be known.

    A `Person` without label and scans may be anybody.
    """
    found = [same_person(person, each) for each in people]
    return True if True in found else None if None in found else False


def known_among(person: Person, people: Iterable[Person]) -> bool:
    """Return whether a person is, or may be for all that is known, among others with a name."""
    return any(
        bool(person.label or person.scans) and may_be_same(person, each)
        for each in people
        if each.label or each.scans
    )


def person_of(path: str | Path, siblings: Iterable[str | Path] = ()) -> Person:
    """Return the person whose scan is in a file, by its place, its name and its voxels.

    Parameters
    ----------
    path
        A DWI file.
    siblings
        Other scans of the same person, whose digests are included.
    """
    path = Path(path)
    label = entities(path).get("sub")
    root = study_root(path)
    digests = {file_digest(each) for each in (path, *siblings)} - {""}
    return Person(
        f"sub-{label}" if label else "",
        "" if root is None or not label else dataset_key(root),
        frozenset(digests),
    )


def dataset_key(root: str | Path) -> str:
    """Identify a dataset on this machine without revealing its path."""
    return hashlib.sha256(str(Path(root).resolve()).encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """Return `scan_digest` of an image in a file; empty where it cannot be read."""
    try:
        return scan_digest(open_nifti(Path(path)))
    except UserError:
        return ""


def same_scan(first: str | Path, second: str | Path) -> bool:
    """Return whether two files hold the same scan: all volumes are equal.

    Shells or parts that were split from one scan share b=0 images, but are two.
    """
    if not (digest := file_digest(first)) or digest != file_digest(second):
        return False
    one, other = (open_nifti(Path(path)) for path in (first, second))
    if one.shape != other.shape:
        return False
    try:  # the last volume alone distinguishes most
        if not np.array_equal(np.asarray(one.dataobj[..., -1]), np.asarray(other.dataobj[..., -1])):
            return False
        return np.array_equal(read_voxels(one), read_voxels(other), equal_nan=True)
    except (*DAMAGED, UserError):
        return False


def scan_digest(image: nib.Nifti1Image) -> str:
    """Digest a scan: the shape and the voxels of the first volume, as float32.

    Noise makes the first volume of every scan unique, and reading it costs little. File names,
    headers and compression do not matter.

    Returns
    -------
    16 hexadecimal digits; empty if the volume is uniform or cannot be read.
    """
    try:
        first = image.dataobj[..., 0] if len(image.shape) == 4 else image.dataobj
        volume = np.ascontiguousarray(first, dtype=np.float32)
    except DAMAGED:
        return ""
    if volume.size == 0 or not np.isfinite(volume).all() or volume.min() == volume.max():
        return ""
    digest = hashlib.sha256(repr(tuple(image.shape[:3])).encode())
    digest.update(volume.tobytes())
    return digest.hexdigest()[:16]


def files_read(acquisition: Acquisition, digest: Callable[[Path], str] = sha256) -> dict[str, str]:
    """Return SHA-256 digests of everything a scan is read from, to detect whether it changed.

    Image and mask are identified by their files, the gradient table by its numbers. No voxels are
    read. Empty if the image is in memory.

    Parameters
    ----------
    digest
        Function that digests a file; a caller that caches digests need not read it again.
    """
    path = acquisition.path
    if path is None:
        return {}
    beside = (Path(each.filename) for each in acquisition.image.file_map.values() if each.filename)
    parts = {path, *(each for each in beside if each.parent == path.parent)}  # .hdr and .img
    table = acquisition.given_gradients
    numbers = hashlib.sha256(np.float64(table.b0_threshold).tobytes())
    for values in (table.b_values, table.directions):
        # Processors differ in the last digits, and in the sign of 0.
        numbers.update((np.round(np.array(values, dtype=float), 6) + 0.0).tobytes())
    if acquisition.mask_path is not None:
        mask = digest(acquisition.mask_path)
    elif acquisition.given_mask is not None:
        mask = hashlib.sha256(np.packbits(acquisition.given_mask).tobytes()).hexdigest()
    else:
        mask = "estimated"
    return {
        "Image": "+".join(digest(each) for each in sorted(parts)),
        "Gradients": numbers.hexdigest(),
        "Mask": mask,
    }
