"""Multi-Stage Prediction networks for diffusion-MRI harmonization.

The public names below are imported when they are first used: `import napari_msp` by itself loads
neither NumPy nor torch, Qt or napari.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_msp.data.acquisition import Acquisition, load_acquisition
    from napari_msp.data.phantom import simulate
    from napari_msp.errors import UserError
    from napari_msp.inference.harmonize import Prediction, harmonize
    from napari_msp.learning.train import train
    from napari_msp.model_file import Model, load_model
    from napari_msp.signal.fitting import evaluate as evaluate_sh
    from napari_msp.signal.fitting import fit_sh
    from napari_msp.signal.maps import (
        colour_fa,
        fractional_anisotropy,
        sh_average,
        squared_error,
    )
    from napari_msp.signal.sh_image import SHImage, load_sh, write_sh

    __version__: str

__all__ = [
    "Acquisition",
    "Model",
    "Prediction",
    "SHImage",
    "UserError",
    "__version__",
    "colour_fa",
    "evaluate_sh",
    "fit_sh",
    "fractional_anisotropy",
    "harmonize",
    "load_acquisition",
    "load_model",
    "load_sh",
    "sh_average",
    "simulate",
    "squared_error",
    "train",
    "write_sh",
]

# Where each name lives; "module:name" where it has another name there.
_HOMES = {
    "Acquisition": "data.acquisition",
    "Model": "model_file",
    "Prediction": "inference.harmonize",
    "SHImage": "signal.sh_image",
    "UserError": "errors",
    "colour_fa": "signal.maps",
    "evaluate_sh": "signal.fitting:evaluate",
    "fit_sh": "signal.fitting",
    "fractional_anisotropy": "signal.maps",
    "harmonize": "inference.harmonize",
    "load_acquisition": "data.acquisition",
    "load_model": "model_file",
    "load_sh": "signal.sh_image",
    "sh_average": "signal.maps",
    "simulate": "data.phantom",
    "squared_error": "signal.maps",
    "train": "learning.train",
    "write_sh": "signal.sh_image",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("napari-msp")
    elif name in _HOMES:
        module, _, there = _HOMES[name].partition(":")
        value = getattr(import_module(f"{__name__}.{module}"), there or name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
