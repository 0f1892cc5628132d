"""Write a figure for a screen (PNG) or for print (PDF, SVG), the same bytes every time."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from napari_msp.errors import UserError
from napari_msp.evaluation.page import DPI
from napari_msp.files import atomic_path

VECTOR_DPI = 600
"""Of the pictures embedded in a PDF or SVG, so that voxels keep sharp edges in print."""

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": "napari-msp"}},
    "pdf": {"dpi": VECTOR_DPI, "metadata": {"CreationDate": None, "Creator": "napari-msp"}},
    "svg": {"dpi": VECTOR_DPI, "metadata": {"Date": None, "Creator": "napari-msp"}},
}
"""How each is written; nothing in a file says when it was."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, to be searched and edited
    "svg.hashsalt": "napari-msp",  # else element names are drawn by lot
    "pdf.fonttype": 42,
}


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure in the format of its suffix, atomically.

    Parameters
    ----------
    path
        Ends in .png, .pdf or .svg. In the last two text is text and only the pictures are pixels.

    Raises
    ------
    UserError
        When the suffix is another one, or the folder cannot be written to.
    """
    check_format(path)
    with atomic_path(path) as temporary:
        save(figure, temporary)


def check_format(path: Path) -> None:
    """Refuse a name whose suffix is no format: before the work, not after.

    Raises
    ------
    UserError
        With the formats there are.
    """
    if _format(path) not in FORMATS:
        raise UserError(
            f"{path}: a figure is written as PNG, PDF or SVG; give a name that ends in .png, .pdf "
            "or .svg"
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix."""
    kind = _format(path)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format=kind, facecolor=figure.get_facecolor(), **FORMATS[kind])


def _format(path: Path) -> str:
    return Path(path).suffix.lower().removeprefix(".")
