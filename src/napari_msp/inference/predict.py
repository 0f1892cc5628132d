"""Predict one target from an SH image that already lies on the model's grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_msp.arrays import FloatArray
from napari_msp.inference.stages import run_stages
from napari_msp.inference.tiling import Progress, run_whole_image
from napari_msp.networks.msp import Network
from napari_msp.options import Options
from napari_msp.signal.grid_frame import GridImage
from napari_msp.signal.standardisation import Standardisation

BRANCH = "branch of "
"""Stands before a platform's name, so that no platform's branch is taken for another output."""


@dataclass(frozen=True, eq=False, repr=False)
class GridPrediction:
    """What one pass gives, in canonical order, grid axes and SH units.

    Attributes
    ----------
    prediction
        The last stage.
    first_stage
        ŷ¹_T; None for a single network.
    disagreement
        (X, Y, Z, 4) in SH units, by order, 0 outside the mask; None where there are fewer than two
        terms.
    branches
        N_iT(z_i) by platform i; empty unless they were asked for.
    """

    prediction: GridImage
    first_stage: GridImage | None
    disagreement: FloatArray | None
    branches: dict[str, GridImage]


def predict_on_grid(
    network: Network,
    image: GridImage,
    source: Standardisation,
    target: Standardisation,
    *,
    alpha: float = 1.0,
    device: torch.device,
    options: Options | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> GridPrediction:
    """Predict a target platform's SH image on the refined lattice of `image`.

    Parameters
    ----------
    network
        In eval mode, on `device`.
    image
        Input SH image.
    source, target
        Standardisation of the input and of the target platform.
    alpha
        α of eq. (1).
    device, progress, cancelled
        As for `run_whole_image`.
    options
        Tile size, and whether the branches are kept, each as large as the prediction.
    """
    options = options or Options()
    deviation = torch.from_numpy(target.deviation).to(device)

    def run(x: Tensor) -> dict[str, Tensor]:
        stages = run_stages(network, x, alpha, deviation)
        named = {
            "prediction": stages.prediction,
            "first_stage": stages.first_stage,
            "disagreement": stages.disagreement,
        }
        if options.keep_stages:
            named |= {BRANCH + platform: value for platform, value in stages.branches.items()}
        return {name: value for name, value in named.items() if value is not None}

    outputs = run_whole_image(
        run,
        network,
        source.apply(image),
        image.mask,
        scale=network.scale,
        halo=network.halo,
        device=device,
        tile=options.tile,
        progress=progress,
        cancelled=cancelled,
    )
    lattice = image.lattice.refined(network.scale)
    mask = image.resampled_mask(lattice)

    def restored(name: str) -> GridImage:
        values = outputs[name]
        for slab, inside in zip(values, mask, strict=True):  # in place: these are large
            slab[...] = np.where(inside[..., None], target.undo(slab), 0)
        return GridImage(values, mask, lattice)

    disagreement = outputs.get("disagreement")
    return GridPrediction(
        prediction=restored("prediction"),
        first_stage=restored("first_stage") if "first_stage" in outputs else None,
        disagreement=None if disagreement is None else disagreement * mask[..., None],
        branches={
            name.removeprefix(BRANCH): restored(name) for name in outputs if name.startswith(BRANCH)
        },
    )
