"""Save what layers show, with the true affine: the SH image behind them, or one map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msp.bids import NIFTI_SUFFIXES
from napari_msp.errors import Advice, UserError
from napari_msp.ui.phrasing import reason_first

if TYPE_CHECKING:
    import nibabel as nib

    from napari_msp.scan import Scan
    from napari_msp.ui.layers import LayerData, Shown


@reason_first()
def write_sh_image(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save the SH image behind layers, as MRtrix3 reads it; its sidecar says how it was made.

    Parameters
    ----------
    path
        File to write; .nii.gz is added unless it ends in .nii or .nii.gz.
    layers
        One or more layers, all of one scan or one prediction.

    Returns
    -------
    Paths of the files.

    Raises
    ------
    UserError
        If a layer is not the plugin's, several images are behind the layers, or none of them is a
        map of the image itself (instead of b0, its mask, an error or what a branch adds), since the
        file would then hold something else.
    """
    from napari_msp.bids import sidecar_path
    from napari_msp.signal.sh_image import write_sh
    from napari_msp.ui.layers import MAP_TITLES

    scans = {(id(each.scan), each.alpha): each for each in map(_shown, layers)}
    quantities = list(dict.fromkeys(_shown(each).quantity for each in layers))
    if not set(MAP_TITLES).intersection(quantities):
        shown = " and ".join(quantities)
        remedy = Advice("save it in napari's dialog, as the file type Shown map")
        raise UserError(f"The {shown} would not be saved, but the SH image", remedy=remedy)
    if len(scans) > 1:
        names = ", ".join(each.scan.owner for each in scans.values())
        remedy = Advice("select layers of one")
        raise UserError(f"The layers show different SH images ({names})", remedy=remedy)
    scan = next(iter(scans.values())).seen
    target = _with_suffix(path)
    write_sh(target, scan.sh, scan.sidecar(), like=_like(scan))
    return [str(target), str(sidecar_path(target))]


@reason_first()
def write_map(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save the map that a layer shows, in stored order with its true affine.

    Parameters
    ----------
    path
        File to write, as for `write_sh_image`.
    layers
        The one layer.

    Returns
    -------
    Path of the file.

    Raises
    ------
    UserError
        If there are several layers, or the layer is not the plugin's, or was cropped or moved.
    """
    from napari_msp.data.nifti import write_nifti
    from napari_msp.ui.layers import lattice_shown
    from napari_msp.ui.viewer_axes import from_shown

    if len(layers) > 1:
        remedy = Advice("select one layer and save the selected one")
        raise UserError("One map is saved at a time", remedy=remedy)
    data, options, _ = layers[0]
    shown = _shown(layers[0])
    lattice = lattice_shown(data, options)
    if lattice is None:
        remedy = Advice("save the layer that it was made from")
        raise UserError(f"The layer {options['name']} was cropped or moved", remedy=remedy)
    target = _with_suffix(path)
    write_nifti(target, from_shown(data, lattice), lattice.affine, like=_like(shown.scan))
    return [str(target)]


def _shown(layer: LayerData) -> Shown:
    from napari_msp.ui.layers import KEY, Shown

    _, options, kind = layer
    shown = options.get("metadata", {}).get(KEY)
    if not isinstance(shown, Shown):
        problem = f"The layer {options.get('name', kind)} is not of MSP Harmonization"
        raise UserError(problem, remedy=Advice("choose another file type to save it"))
    return shown


def _like(scan: Scan) -> nib.Nifti1Image | None:
    """Return the image whose header says what the coordinates mean."""
    from napari_msp.ui.layers import source_of

    acquisition = source_of(scan).acquisition
    return None if acquisition is None else acquisition.image


def _with_suffix(path: str) -> Path:
    """Add the suffix that was not typed; the dialog could not ask about the resulting file."""
    target = Path(path)
    if target.name.endswith(NIFTI_SUFFIXES):
        return target
    target = target.with_name(target.name + NIFTI_SUFFIXES[0])
    if target.exists():
        raise UserError(f"{target.name} exists already", remedy=Advice("save under another name"))
    return target
