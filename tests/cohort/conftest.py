"""A model of one target, quick to run."""

from pathlib import Path
from typing import Any

import pytest

from napari_msp.model_card import Gradients, ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork, save_model
from napari_msp.networks.registry import build_single

TARGET = "prisma_st"


@pytest.fixture
def one_target_model(tmp_path: Path, spread_out: Any) -> Path:
    """An untrained network of one target, as a file."""
    network = build_single("shresnet", target=TARGET, scales={TARGET: 1}, width=0.1)
    plain = Statistics(mean=[0.0] * 28, deviation=[1.0] * 28)
    table = Gradients(
        b_values=[1200.0] * 30,
        directions=[(float(x), float(y), float(z)) for x, y, z in spread_out(30)],
    )
    card = ModelCard(
        kind="shresnet",
        label="",
        alpha=1.0,
        input="ge_st",
        voxel_size=2.4,
        scales={TARGET: 1},
        architectures={TARGET: network.config()},
        sh=SHSettings(regularisation_at_30=0.006, b_value=1200.0),
        standardisation={"ge_st": plain, TARGET: plain},
        gradients={TARGET: table},
        training={},
        versions={},
    )
    path = tmp_path / "model.safetensors"
    save_model(path, Model(card, ModelNetwork({TARGET: network}, 1.0)))
    return path
