"""Names of a run's files. They are known without torch, for a window that opens quickly."""

from pathlib import Path


def checkpoint_path(model: Path) -> Path:
    """Give the checkpoint's name beside a model's."""
    return model.with_name(model.stem + ".checkpoint.safetensors")
