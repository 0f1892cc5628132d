"""Multi-Stage Prediction networks for diffusion-MRI harmonization.

The public names, listed in `__init__.pyi`, are imported when they are first used: `import
napari_msp` by itself loads neither NumPy nor torch, Qt or napari.
"""

from typing import Any

import lazy_loader

_imported, _, _listed = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_listed, "__version__"]


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _imported(name)
    from importlib.metadata import version

    return version("napari-msp")


def __dir__() -> list[str]:
    return __all__
