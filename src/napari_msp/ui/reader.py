"""Open scans, SH images and other images of heads that are dropped onto the viewer.

napari asks this module about every NIfTI file: it imports next to nothing before it reads one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.bids import absolute, dataset_root, image_suffix, nifti_stem, read_sidecar
from napari_msp.data.companions import by_name, is_scan, likely_scans
from napari_msp.errors import Advice, UserError
from napari_msp.ui.phrasing import reason_first

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from napari_msp.arrays import IntArray
    from napari_msp.ui.layers import LayerData
    from napari_msp.ui.reading import Control

Paths = str | Sequence[str]
"""One path, or several that napari was told to stack."""

BELOW = {"": ("dwi", "ses-", "sub-"), "sub-": ("dwi", "ses-"), "ses-": ("dwi",), "dwi": ()}
"""First letters of folders that are searched for scans, by those of their parent's name: opening a
folder never walks a whole disk."""

MOST_ENTRIES, ENTRIES_OF_A_FOLDER, MOST_ASKED = 50_000, 100, 100
"""Limits while the window waits (our choice): entries of a folder, how many entries opening a
folder counts as, and images that are looked at."""

NOTHING: list[Any] = [(None,)]
"""napari's value for "nothing to add, and nothing is wrong"."""

LABELS = ("seg", "mask", "label", "parc", "atlas")
"""Parts of file names that images of labels have (our choice); masked intensities have them too."""

LOAD = "Load acquisition"
"""Name of the widget that offers more choices."""


def get_reader(path: Paths) -> Callable[[Paths], list[Any]] | None:
    """Return the reader of scans, SH images and volumes; None leaves a file to others.

    A scan is a NIfTI image with .bval and .bvec beside it, an SH image one whose sidecar names
    MRtrix3's basis, a volume one of three axes and real numbers, such as a T1-weighted image or
    labels. An image of four axes that is a DWI by its name or by one of the two tables is taken
    too: its reader says what it lacks. A folder is read if it holds one scan; several scans and
    DICOM are left to `LOAD`, which offers them.
    """
    listed = _listed(path)
    if len(listed) == 1 and listed[0].is_dir():
        from napari_msp.data.dicom import looks_like_dicom

        scans = scans_in(listed[0])
        return partial(read, scans=scans) if scans or looks_like_dicom(listed[0]) else None
    ours = all(_is_dwi(each) or _is_sh(each) or _is_volume(each) for each in listed)
    return read if ours else None


@reason_first()
def read(path: Paths, scans: Sequence[Path] | None = None) -> list[Any]:
    """Return layers of b0 (of a scan), colour FA and SH average, or of a volume.

    Of a scan with several shells, the lowest that has enough directions is shown. Layers that the
    window shows already are not added again: the same file opened twice is one scan. A folder of
    several scans or of DICOM gives no layers: it opens `LOAD` with the folder chosen.

    Parameters
    ----------
    path
        Path of a file or a folder, or several paths of files.
    scans
        Scans of the folder, if it was searched already.

    Raises
    ------
    UserError
        If a file cannot be used, or a folder offers a choice and there is no window to ask in.

    Warns
    -----
    UserWarning
        If there are other shells to choose from.
    """
    from napari_msp.errors import Cancelled
    from napari_msp.ui.background import wait_for
    from napari_msp.ui.docks import current_viewer, open_widget
    from napari_msp.ui.layers import named_apart, not_shown

    viewer, paths = current_viewer(), _listed(path)
    if paths[0].is_dir():
        folder, paths = paths[0], scans_in(paths[0]) if scans is None else list(scans)
        if len(paths) != 1:
            if viewer is None:
                remedy = Advice("give one image of them, as NIfTI with .bval and .bvec beside it")
                raise UserError("holds several scans, or DICOM", folder, remedy=remedy)
            open_widget(viewer, LOAD).form.path.choose(folder)
            return NOTHING
    try:
        volumes, maps = wait_for(lambda control: _layers(paths, control), "Opening")
    except Cancelled:
        return NOTHING
    if viewer is not None:
        maps = named_apart(viewer.layers, not_shown(viewer.layers, maps))
    return [*volumes, *maps] or NOTHING


def _layers(paths: Sequence[Path], control: Control) -> tuple[list[LayerData], list[LayerData]]:
    """Return layers of volumes, and layers of scans."""
    from napari_msp.scan_sources import load_scan
    from napari_msp.ui.layers import scan_layers
    from napari_msp.ui.reading import read_scan

    volumes, maps = [], []
    for path in paths:
        if _is_dwi(path):
            scan = read_scan(load_scan(path, _shell(path)), control.say)
            control.say("Making maps")
        else:
            control.say(f"Reading {path.name}")
            if not _is_sh(path):
                volumes.append(_volume_layer(path))
                continue
            scan = load_scan(path)
        maps += scan_layers(scan, check=control.check)
    return volumes, maps


def _volume_layer(path: Path) -> LayerData:
    """Return a Labels layer if name and values are those of labels, else an Image layer."""
    import numpy as np

    from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
    from napari_msp.evaluation.regions import read_regions
    from napari_msp.ui.layers import labels_layer, lattice_layer

    name = nifti_stem(path)
    if any(part in name.lower() for part in LABELS):
        with suppress(UserError):
            regions = read_regions(path)
            if _in_pieces(regions.labels):
                return labels_layer(name, regions)
    image = open_nifti(path)
    values = read_voxels(image, path)
    counted = np.isfinite(values) & (values != 0)  # 0 is the background around the head
    return lattice_layer(name, "b0", values, lattice_of(image), counted)


def _in_pieces(labels: IntArray) -> bool:
    """Return whether most neighbours inside the head have one label, unlike a masked image's."""
    pairs = equal = 0
    for axis in range(3):
        along = labels.swapaxes(0, axis)
        here, beside = along[:-1], along[1:]
        inside = (here > 0) & (beside > 0)
        pairs += int(inside.sum())
        equal += int((inside & (here == beside)).sum())
    return 2 * equal >= pairs


def _shell(path: Path) -> float | None:
    """Choose the shell that is shown, and warn where there are others to choose from."""
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.ui.reading import usual_shell

    acquisition = load_acquisition(path)
    b_value = usual_shell(acquisition)
    others = [
        each.b_value for each in acquisition.given_gradients.shells if each.b_value != b_value
    ]
    if b_value is not None and others:
        listed = ", ".join(f"{each:.0f}" for each in others)
        warnings.warn(
            f"b = {b_value:.0f} s/mm² is shown; {LOAD} offers the other shells of {path.name} "
            f"(b = {listed}) too",
            stacklevel=2,
        )
    return b_value


def scans_in(folder: Path) -> list[Path]:
    """Return the images of at most two scans, from where datasets and scanners' exports have them.

    Each folder is listed once; its names tell which images are worth reading.
    """
    found: list[Path] = []
    asked = 0
    for where, names, inherits in _folders(folder):
        files = by_name(where, names)
        for path in likely_scans(files, inherits):
            asked += 1
            if is_scan(path, files):
                found.append(path)
            if len(found) == 2 or asked == MOST_ASKED:
                return found
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Yield folders that may hold scans: path, names in it, and whether BIDS has tables for it."""
    root = dataset_root(folder / "any")
    above = [each for each in absolute(folder).parents if root in (each, *each.parents)]
    waiting = [(folder, "", any(_has_table(_names(each)) for each in above))]
    left = MOST_ENTRIES
    while waiting and left > 0:
        where, kind, inherits = waiting.pop()
        names: list[str] = []
        inside: list[str] = []
        with suppress(OSError), os.scandir(where) as listing:  # it may not be readable
            for entry in islice(listing, left):
                names.append(entry.name)
                if entry.name[:4] in BELOW[kind] and entry.is_dir():
                    inside.append(entry.name)
        left -= len(names) + ENTRIES_OF_A_FOLDER
        inherits = inherits or _has_table(names)
        if kind in ("", "dwi"):
            yield where, names, inherits
        waiting += [(where / each, each[:4], inherits) for each in sorted(inside, reverse=True)]


def _names(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except OSError:  # it may not be readable
        return []


def _has_table(names: list[str]) -> bool:
    return any(name.endswith("dwi.bval") for name in names)


def _listed(path: Paths) -> list[Path]:
    return [Path(each) for each in ([path] if isinstance(path, str) else path)]


def _is_dwi(path: Path) -> bool:
    """Return whether a file is a DWI: by its tables, or by its name or one table if one lacks."""
    if not _is_image(path) or is_scan(path):
        return _is_image(path)
    stem = path.name.removesuffix(image_suffix(path))
    named = stem.lower().endswith("dwi") or any(
        path.with_name(stem + ending).is_file() for ending in (".bval", ".bvec")
    )
    # The trace or mean of a series is named alike and has no table.
    image = _opened(path) if named and not _is_sh(path) else None
    return image is not None and len(image.shape) == 4


def _is_volume(path: Path) -> bool:
    """Return whether an image has three axes and is neither of colours nor complex."""
    from napari_msp.data.nifti import is_real

    image = _opened(path)
    return image is not None and len(image.shape) == 3 and is_real(image)


def _opened(path: Path) -> Nifti1Image | None:
    """Open an image; None if it is none or cannot be opened."""
    from napari_msp.data.nifti import open_nifti

    try:
        return open_nifti(path) if _is_image(path) else None
    except UserError:
        return None


def _is_sh(path: Path) -> bool:
    if not _is_image(path):
        return False
    try:
        basis = read_sidecar(path)["OrientationEncoding"]["SphericalHarmonicBasis"]
    except (UserError, LookupError, TypeError):
        return False
    return str(basis).lower() == "mrtrix3"


def _is_image(path: Path) -> bool:
    return image_suffix(path) != ""
