"""The models that come with this package, and their files. Loads no torch.

Teaching models have a reduced width and were trained on simulated heads;
`scripts/train_teaching_models.sh` makes them anew. Training starts from the base.
"""

from importlib.resources import files
from pathlib import Path

from napari_msp.errors import Advice, UserError

TEACHING = ("DIQT", "MSP")
"""Titles of the networks with a teaching model, in the order of figures."""


BASE = "base.safetensors"
"""File of the base: an ordinary model, trained on many simulated platforms."""


def base_model() -> Path | None:
    """Return the path of the base that a training starts from; None if it is missing."""
    path = _models() / BASE
    return path if path.is_file() else None


def packaged_model(title: str) -> Path:
    """Return the path of a teaching model, one of `TEACHING`."""
    return _models() / f"{title.lower()}-teaching.safetensors"


def packaged_models() -> dict[str, Path]:
    """Return the paths of all teaching models by title."""
    return {title: packaged_model(title) for title in TEACHING}


def model_path(named: str | Path) -> Path:
    """Return a model's file: the given path, or a packaged model by its name without suffix."""
    if not isinstance(named, str | Path):
        remedy = Advice("give its file, or what load_model returns")
        raise UserError(f"is a {type(named).__name__}, not a model", "model", remedy=remedy)
    path = Path(named)
    if path.suffix or path.exists():
        return path
    return {each.stem: each for each in packaged_models().values()}.get(str(named), path)


def _models() -> Path:
    return Path(str(files("napari_msp"))) / "models"
