"""Ways to get a scan: from a file, from files of several shells, or from an object in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_msp.bids import nifti_stem, read_sidecar, sidecar_path
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.companions import is_scan
from napari_msp.data.gradients import wanted_b_values
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import Advice, Give, UserError
from napari_msp.provenance import Provenance, provenance_of
from napari_msp.scan import Scan
from napari_msp.signal.fitting import check_given_shells
from napari_msp.signal.sh_image import SHImage, load_sh, usable_sh
from napari_msp.signal.spherical_harmonics import order_of

ScanLike = Scan | Acquisition | SHImage | Mapping[int, SHImage] | str | Path | Sequence[str | Path]


def load_scan(
    path: str | Path | Sequence[str | Path],
    b_value: float | Sequence[float] | None = None,
    *,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
    b0_threshold: float | None = None,
) -> Scan:
    """Open a DWI, or an SH image if no .bval lies beside it.

    Parameters
    ----------
    path, bval, bvec, mask, b0_threshold
        As for `load_acquisition`; or the SH images of several shells.
    b_value
        Shell of a scan with several in s/mm², or several shells; None: all.

    Returns
    -------
    Scan
        The scan; a DWI's voxels are read, and SH fitted, on first use.

    Raises
    ------
    UserError
        When the file is neither, an SH image's b-value is unknown, or there is no such shell.
    """
    if not isinstance(path, str | Path):
        if len(path) > 1:
            scans = [load_scan(each) for each in path]
            joined = _joined(scans)
            wanted = joined.shells if b_value is None else wanted_b_values(b_value)
            chosen = [joined.at_shell(each).shells[0] for each in wanted]
            return _joined([scan for scan in scans if scan.shells[0] in chosen])
        if not path:
            raise UserError("no file is given", field="path", remedy=Give("path", "one"))
        (path,) = path
    path = Path(path)
    named = bval is not None or bvec is not None or is_scan(path)
    if named or _lacks_its_table(path):
        acquisition = load_acquisition(path, bval, bvec, mask, b0_threshold=b0_threshold)
        check_given_shells(acquisition, b_value)  # an impossible choice is an error at once
        return as_scan(acquisition, b_value)
    image = load_sh(path)
    if image.b_value is None:
        remedy = Advice(f"add BValue to {sidecar_path(path)}")
        raise UserError("its b-value is unknown, so it has no FA", path, remedy=remedy)
    provenance = Provenance.from_sidecar(read_sidecar(path))
    return Scan(given_sh=image, path=path, provenance=provenance)


def _joined(scans: Sequence[Scan]) -> Scan:
    """Make one scan from the SH images of its shells."""
    first = scans[0]
    if len(scans) == 1:
        return first
    images: dict[int, SHImage] = {}
    for scan in sorted(scans, key=lambda scan: scan.b_value or 0.0):
        path = scan.path or "scan"
        if scan.acquisition is not None:
            raise UserError("is not an SH image", path, remedy=Advice("give only the DWI"))
        if scan.shells[0] in images:
            problem = f"has b = {scan.shells[0]}, like another of these images"
            raise UserError(problem, path, remedy=Advice("give one SH image for each shell"))
        if not scan.lattice.matches(first.lattice) or scan.subject != first.subject:
            problem = f"does not belong to the same scan as {first.path}"
            raise UserError(problem, path, remedy=Advice("give the shells of one scan"))
        images[scan.shells[0]] = scan.sh
    return replace(first, given_sh=images)


def _lacks_its_table(path: Path) -> bool:
    """Tell a DWI without gradient table from an SH image by its name and number of volumes."""
    shape = open_nifti(path).shape
    if len(shape) != 4 or nifti_stem(path).endswith("_dwimap"):
        return False
    try:
        order_of(shape[3])
    except ValueError:
        return True
    return False


def as_scan(
    scan: ScanLike,
    b_value: float | Sequence[float] | None = None,
    b0_threshold: float | None = None,
    name: str = "SH image",
) -> Scan:
    """Return a scan, made from an acquisition, an SH image or a file if necessary.

    Parameters
    ----------
    b_value
        Shell of a DWI with several in s/mm², or several shells; None: all.
    b0_threshold
        Threshold for a file, as for `load_acquisition`.
    name
        Name of an SH image in memory, for messages.

    Raises
    ------
    UserError
        As `load_scan`; when it is none of these, has coefficients that are not finite, or is
        already open with other volumes counted as b=0.
    """
    if isinstance(scan, str | Path | Sequence):
        return load_scan(scan, b_value, b0_threshold=b0_threshold)
    if isinstance(scan, Acquisition):
        made = None if scan.path is None else provenance_of(scan.path)
        known = Scan(acquisition=scan, shell=b_value, path=scan.path, provenance=made)
        b_value = None
    elif isinstance(scan, Scan):
        known = scan
    elif isinstance(scan, SHImage | Mapping):
        known = Scan(given_sh=scan)
    else:
        remedy = Advice("give its file, or what load_acquisition, load_sh or fit_sh returns")
        raise UserError(f"is a {type(scan).__name__}, not a scan", "scan", remedy=remedy)
    if known.given_sh is not None:
        several = isinstance(known.given_sh, Mapping)
        given = known.given_sh if isinstance(known.given_sh, Mapping) else {0: known.given_sh}
        usable = {shell: usable_sh(image, known.owner or name) for shell, image in given.items()}
        if any(usable[shell] is not given[shell] for shell in given):  # otherwise it keeps its maps
            known = replace(known, given_sh=usable if several else usable[0])
    counted = None if known.acquisition is None else known.acquisition.given_gradients.b0_threshold
    if counted is not None and b0_threshold not in (None, counted):
        problem = f"is already open, with b ≤ {counted:g} counted as b=0"
        remedy = Advice("give the threshold when opening the scan")
        raise UserError(problem, known.owner, "b0_threshold", remedy)
    one = None if b_value is None or np.ndim(b_value) else wanted_b_values(b_value)[0]
    return known if one is None else known.at_shell(one)
