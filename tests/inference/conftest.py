"""Untrained models and a scan for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from napari_msp.model_card import Gradients, ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork
from napari_msp.networks.msp import MSP, SharedMSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30

SCALES = {"prisma_st": 1, "connectom_sa": 2}
SHALLOW: dict[str, dict[str, Any]] = {"diqt": {"depth": 1}, "shresnet": {"blocks": 1}}


def untrained(kind: str, target: str, width: float = 0.15, **shells: Any) -> Any:
    """A network with weights as drawn, and BatchNorm statistics that matter."""
    if kind == "msp":
        kinds = {"prisma_st": "shresnet", "connectom_sa": "diqt"}
        singles = {each: untrained(kinds[each], each, width, **shells) for each in SCALES}
        network: Any = MSP(singles, target, width=width)
    else:
        network = build_single(
            kind, target=target, scales=SCALES, width=width, **SHALLOW.get(kind, {}), **shells
        )
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return network.eval()


@pytest.fixture
def make_network() -> Callable[..., Any]:
    """Build an untrained network, see `untrained`."""
    torch.manual_seed(4)
    return untrained


@pytest.fixture
def make_model(spread_out: Callable[[int], np.ndarray]) -> Callable[..., Model]:
    """Build an untrained model for scans of 2.4 mm at b = 1200."""
    torch.manual_seed(4)

    def make(
        kind: str = "msp",
        voxel_size: float = 2.4,
        b_value: float | tuple[float, ...] = 1200.0,
        trunk: str = "each",
        first_stages: Literal["own", "shared"] = "own",
    ) -> Model:
        b_values = b_value if isinstance(b_value, tuple) else (b_value,)
        shells = len(b_values)
        random = np.random.default_rng(0)
        deviation = np.repeat([0.4, 0.1, 0.03, 0.01], [1, 5, 9, 13])
        statistics = {
            name: Statistics(
                mean=[
                    value
                    for each in b_values
                    for value in (1.5 * 1200 / each, *random.normal(scale=0.02, size=27))
                ],
                deviation=deviation.tolist() * shells,
            )
            for name in ("ge_st", *SCALES)
        }
        networks = {
            target: untrained(kind, target, shells=shells, trunk=trunk) for target in SCALES
        }
        if first_stages == "shared":
            singles = dict(networks["prisma_st"].singles.items())
            networks = dict(SharedMSP.on(singles, width=0.15).eval().networks)
        directions = [(float(x), float(y), float(z)) for x, y, z in spread_out(30)]
        card = ModelCard(
            kind=kind,
            label="test",
            input="ge_st",
            voxel_size=voxel_size,
            scales=SCALES,
            architectures={target: each.config() for target, each in networks.items()},
            first_stages=first_stages,
            alpha=0.7,
            sh=SHSettings(
                regularisation_at_30=REGULARISATION_AT_30,
                b_value=b_values[0],
                shells=b_values if shells > 1 else (),
            ),
            standardisation=statistics,
            gradients={
                target: Gradients(
                    b_values=np.repeat(b_values, 30).tolist(), directions=directions * shells
                )
                for target in SCALES
            },
            training={"subjects": ["sub-01"]},
            versions={},
        )
        return Model(card, ModelNetwork(networks, card.alpha))

    return make


@pytest.fixture
def small_scan(scan: Callable[..., Any]) -> Callable[..., Any]:
    """A scan of 2.4 mm voxels with as many as the model wants."""

    def make(affine: np.ndarray | None = None, **options: Any) -> Any:
        default = np.diag([-2.4, 2.4, 2.4, 1.0])
        default[:3, 3] = [11.0, -7.0, 5.0]
        options = {"directions": 30, "shape": (9, 8, 7), "noise": 5.0} | options
        return scan(default if affine is None else affine, **options)

    return make


@pytest.fixture
def saved_model(make_model: Callable[..., Model], tmp_path: Path) -> Path:
    """An untrained MSP on disk."""
    from napari_msp.model_file import save_model

    save_model(tmp_path / "model.safetensors", make_model())
    return tmp_path / "model.safetensors"
