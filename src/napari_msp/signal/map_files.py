"""Write the maps of one scan: SH image, SH average, FA and colour FA."""

from pathlib import Path

from napari_msp.bids import nifti_stem
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import UserError
from napari_msp.files import staged_folder
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import colour_fa, fractional_anisotropy, sh_average
from napari_msp.signal.sh_image import write_sh

PARAMETERS = {"coefficients": "sh", "average": "sh", "fa": "tensor", "colourfa": "tensor"}
"""Maps by BIDS `param` label, with the model that each comes from."""


def write_maps(
    acquisition: Acquisition, out: Path, *, b_value: float | None = None, force: bool = False
) -> list[Path]:
    """Write `<entities>_model-<m>_param-<p>_dwimap.nii.gz` for every map of a scan.

    FA and colour FA come from the signal by a tensor fit, not through the SH series.

    Parameters
    ----------
    acquisition
        A scan with a path.
    out
        Folder.
    b_value
        Shell of a scan that has several, in s/mm².
    force
        Replace files that are there already.

    Returns
    -------
    The files, in the order of `PARAMETERS`.

    Raises
    ------
    UserError
        Before anything is written.
    """
    if acquisition.path is None:
        raise ValueError("an acquisition in memory has no name to call its maps by")
    bare = nifti_stem(acquisition.path).removesuffix("_dwi")
    names = [
        f"{bare}_model-{model}_param-{parameter}_dwimap.nii.gz"
        for parameter, model in PARAMETERS.items()
    ]
    for name in names:
        if (out / name).exists() and not force:
            raise UserError(f"{out / name}: exists already; replace it with --force")
    sh = fit_sh(acquisition, b_value=b_value)
    maps = [
        sh_average(sh),
        fractional_anisotropy(acquisition, b_value),
        colour_fa(acquisition, b_value),
    ]
    with staged_folder(out) as stage:
        write_sh(stage / names[0], sh, like=acquisition.image)
        for name, values in zip(names[1:], maps, strict=True):
            write_nifti(stage / name, values, acquisition.affine, like=acquisition.image)
    return [out / name for name in names]
