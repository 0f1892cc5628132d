"""Untrained models of full width, and a head for them: what inference is measured on."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import torch

from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.model_card import ErrorFit, Gradients, ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.layers import Width
from napari_msp.networks.msp import MSP, Network, SharedMSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.expected_error import FEATURES, number_of_weights
from napari_msp.signal.spherical_harmonics import spread_directions

SCALES = {"prisma_st": 1, "connectom_st": 1, "connectom_sa": 2}

SINGLES = {"prisma_st": "shresnet", "connectom_st": "shresnet", "connectom_sa": "diqt"}
"""The paper's choice for each target."""

TWO = ("prisma_st", "connectom_sa")

VOXEL, B_VALUE = 2.4, 1200.0


def model(
    kind: str, targets: Sequence[str] = TWO, width: Width = "paper", shared: bool = True
) -> Model:
    """Build an untrained model; an MSP has shared first stages or its own for each target."""
    torch.manual_seed(0)
    scales = {target: SCALES[target] for target in targets}
    networks: dict[str, Network] = {}
    if kind != "msp":
        networks = {target: single(kind, target, scales, width) for target in targets}
    elif shared:
        known = {each: single(SINGLES[each], each, scales, width) for each in targets}
        networks.update(SharedMSP.on(known, width=width).networks)
    else:
        for target in targets:
            own = {each: single(SINGLES[each], each, scales, width) for each in targets}
            networks[target] = MSP(own, target, width=width)
    spread = np.repeat([0.4, 0.1, 0.03, 0.01], [1, 5, 9, 13]).tolist()
    statistics = Statistics(mean=[1.9, *[0.0] * 27], deviation=spread)
    directions = [(float(x), float(y), float(z)) for x, y, z in spread_directions(60)]
    gradients = Gradients(b_values=[B_VALUE] * 60, directions=directions)
    weights = np.random.default_rng(0).normal(scale=1e-3, size=number_of_weights(FEATURES))
    calibration = ErrorFit(
        mean=[0.0] * FEATURES,
        deviation=[1.0] * FEATURES,
        weights=weights.tolist(),
        subjects=["sub-benchmark"],
    )
    card = ModelCard(
        kind=kind,
        label="benchmark",
        input="ge_st",
        voxel_size=VOXEL,
        scales=scales,
        architectures={target: each.config() for target, each in networks.items()},
        first_stages="shared" if kind == "msp" and shared else "own",
        alpha=1.0,
        sh=SHSettings(regularisation_at_30=0.006, b_value=B_VALUE),
        standardisation=dict.fromkeys(("ge_st", *targets), statistics),
        gradients=dict.fromkeys(targets, gradients),
        training={"subjects": ["sub-benchmark"]},
        expected_error=dict.fromkeys(targets, calibration),
        versions={},
    )
    return Model(card, ModelNetwork(networks, card.alpha))


def single(kind: str, target: str, scales: dict[str, int], width: Width) -> SingleNetwork:
    """Build a single network whose batch statistics are not all alike."""
    network = build_single(kind, target=target, scales=scales, width=width)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return network.eval()


def head(edge: int = 61) -> Acquisition:
    """Make a scan of edge³ voxels, 30 directions and 3 b=0 images; half of it is in the mask."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, edge)] * 3, indexing="ij"), axis=-1)
    mask = np.square(grid).sum(axis=-1) <= 1.0
    directions = spread_directions(30)
    decay = 0.3e-3 + 1.2e-3 * np.square(grid @ directions.T)
    signal = np.concatenate([np.ones((*mask.shape, 3)), np.exp(-B_VALUE * decay)], axis=-1)
    signal = 1000 * signal * (0.2 + 0.8 * mask[..., None])
    signal = np.abs(signal + rng.normal(scale=20, size=signal.shape)).astype(np.float32)
    return load_acquisition(
        nib.Nifti1Image(signal, np.diag([-VOXEL, VOXEL, VOXEL, 1.0])),
        bval=np.repeat([0.0, B_VALUE], [3, 30]),
        bvec=np.concatenate([np.zeros((3, 3)), directions]),
        mask=mask,
    )
