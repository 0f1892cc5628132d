"""Whether two trainings learned the same."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def same_weights(one: Path, other: Path) -> bool:
    """Whether two model files hold the same weights, to the bit."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)
