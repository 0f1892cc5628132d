"""What software a result was made with."""

import importlib.metadata
import platform


def versions_of(*packages: str) -> dict[str, str]:
    """Give the version of Python, of napari-msp and of other packages, by name."""
    names = ("napari-msp", *packages)
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}
