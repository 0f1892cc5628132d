"""The models that come with this package, and where they lie. Loads no torch.

They are for teaching: reduced width, trained on simulated heads. `scripts/train_teaching_models.sh`
makes them anew.
"""

from importlib.resources import files
from pathlib import Path

TEACHING = ("DIQT", "MSP")
"""Titles of the networks that there is a teaching model of, in the order of figures."""


def packaged_model(title: str) -> Path:
    """Give the path of a teaching model.

    Parameters
    ----------
    title
        One of `TEACHING`.
    """
    return Path(str(files("napari_msp"))) / "models" / f"{title.lower()}-teaching.safetensors"


def packaged_models() -> dict[str, Path]:
    """Give the paths of all of them by title."""
    return {title: packaged_model(title) for title in TEACHING}
