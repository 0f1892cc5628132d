"""The models that come with this package, and where they lie. Loads no torch.

Those for teaching have a reduced width and were trained on simulated heads;
`scripts/train_teaching_models.sh` makes them anew. The base is what a training starts from.
"""

from importlib.resources import files
from pathlib import Path

TEACHING = ("DIQT", "MSP")
"""Titles of the networks that there is a teaching model of, in the order of figures."""


BASE = "base.safetensors"
"""File of the base: an ordinary model, learned from many simulated platforms."""


def base_model() -> Path | None:
    """Return the path of the base that a training starts from; None where there is none."""
    path = _models() / BASE
    return path if path.is_file() else None


def packaged_model(title: str) -> Path:
    """Return the path of a teaching model, one of `TEACHING`."""
    return _models() / f"{title.lower()}-teaching.safetensors"


def packaged_models() -> dict[str, Path]:
    """Return the paths of all teaching models by title."""
    return {title: packaged_model(title) for title in TEACHING}


def model_path(named: str | Path) -> Path:
    """Return a model's file: what is named, or a packaged one by its name without suffix."""
    path = Path(named)
    if path.suffix or path.exists():
        return path
    return {each.stem: each for each in packaged_models().values()}.get(str(named), path)


def _models() -> Path:
    return Path(str(files("napari_msp"))) / "models"
