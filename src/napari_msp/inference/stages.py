"""The stages of a prediction, computed in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from nibabel.orientations import io_orientation
from torch import Tensor

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import CANONICAL
from napari_msp.errors import Poll
from napari_msp.inference.tiling import TileProgress, run_whole_image
from napari_msp.networks.base import order_channels
from napari_msp.networks.msp import Network, SharedMSP, by_target, stages_of
from napari_msp.options import Options
from napari_msp.signal.channels import GridImage, Standardisation


class Output(NamedTuple):
    """Key of an output of a pass: target, kind, and the platform of a branch N_iT.

    All are (B, 28·S, X, Y, Z) standardised, for S shells, except the disagreement: (B, 4·S, X, Y,
    Z) in SH units, for the orders 0, 2, 4, 6, the root mean over the order's coefficients of the
    variance of the P-1 terms {ŷ¹_T, N_iT(z_i)}.
    """

    target: str
    what: Literal["prediction", "first stage", "disagreement", "branch"]
    platform: str = ""


def outputs_of(
    network: Network | SharedMSP,
    x: Tensor,
    alpha: float,
    deviations: Mapping[str, Tensor],
    far: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[Output, Tensor]]:
    """Run a network, or all that share their first stages, once; yield the outputs.

    Parameters
    ----------
    x
        (B, 28·S, X, Y, Z) standardised input.
    deviations
        (28·S,) deviations of each target's standardisation, in the network's order. The names may
        be others than those by which the start of a run knows its targets.
    far
        Result of `network.far(x)`, if it was run before.
    """
    found = stages_of(network, x, alpha, far).items()
    for (target, deviation), (known_as, stages) in zip(deviations.items(), found, strict=True):
        yield Output(target, "prediction"), stages.second
        if stages.first:
            yield Output(target, "first stage"), stages.first[known_as]
        if stages.branches:
            terms = [stages.first[known_as], *stages.branches.values()]
            yield Output(target, "disagreement"), _disagreement(terms, deviation)
        for platform, value in stages.branches.items():
            yield Output(target, "branch", platform), value


def _disagreement(terms: list[Tensor], deviation: Tensor) -> Tensor:
    weights = deviation.square()[:, None, None, None]
    parts = [_spread_by_order(planes, weights) for planes in zip(*map(_planes, terms), strict=True)]
    return torch.cat(parts, dim=2)


def _spread_by_order(terms: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    mean = terms[0] + terms[1]
    for term in terms[2:]:
        mean += term
    mean /= len(terms)
    spread = torch.zeros_like(mean)
    for term in terms:
        spread += (term - mean).square_()
    spread /= len(terms)
    spread *= weights
    spread = spread.contiguous()  # so that sums have the same order for any layout of the terms
    by_order = [spread[:, part].mean(dim=1) for part in order_channels(spread.shape[1])]
    return torch.stack(by_order, dim=1).sqrt()


def _planes(image: Tensor) -> tuple[Tensor, ...]:
    """Split an image for several steps on each part; on a CPU into planes that fit its cache."""
    return torch.split(image, 1 if image.device.type == "cpu" else image.shape[2], dim=2)


@dataclass(frozen=True, eq=False, repr=False)
class GridPrediction:
    """The result of one pass, in canonical order, grid axes and SH units.

    Attributes
    ----------
    first_stage
        ŷ¹_T; None for a single network.
    disagreement
        (X, Y, Z, 4·S) in SH units, by shell and order, 0 outside the mask; None with fewer than two
        terms.
    branches
        N_iT(z_i) by platform i; empty unless requested.
    """

    prediction: GridImage
    first_stage: GridImage | None
    disagreement: FloatArray | None
    branches: dict[str, GridImage]


def predict_on_grid(
    network: Network | SharedMSP,
    image: GridImage,
    source: Standardisation,
    targets: Mapping[str, Standardisation],
    *,
    alpha: float = 1.0,
    device: torch.device,
    stored_affine: FloatArray | None = None,
    options: Options | None = None,
    progress: TileProgress | None = None,
    cancelled: Poll | None = None,
) -> dict[str, GridPrediction]:
    """Predict target platforms' SH images on refined lattices of `image`.

    Parameters
    ----------
    network
        Network in eval mode, on `device`: of one target, or MSPs that share their first stages,
        which are run once.
    source
        Standardisation of the input.
    targets
        Standardisation of the outputs of each target of `network`, in its order.
    device, progress, cancelled
        As for `run_whole_image`.
    stored_affine
        Affine of an image in whose stored order results are laid out in memory, so that reordering
        costs nothing; None: canonical order.
    options
        Tile size or memory, and whether to keep the branches, each as large as the prediction.
    """
    options = options or Options()
    deviations = {
        target: torch.from_numpy(each.deviation).to(device) for target, each in targets.items()
    }
    known = by_target(network).values()
    scales = {target: each.scale for target, each in zip(targets, known, strict=True)}
    masks = {
        scale: image.resampled_mask(image.lattice.refined(scale)) for scale in {*scales.values()}
    }

    def run(x: Tensor, far: Mapping[str, Tensor] | None) -> dict[Output, Tensor]:
        return {
            output: value
            for output, value in outputs_of(network, x, alpha, deviations, far)
            if options.keep_stages or output.what != "branch"
        }

    def units(output: Output) -> Standardisation | None:
        return None if output.what == "disagreement" else targets[output.target]

    outputs = run_whole_image(
        run,
        network,
        source.apply(image),
        image.mask,
        scale=lambda output: scales[output.target],
        masks=masks,
        units=units,
        stored=CANONICAL if stored_affine is None else io_orientation(stored_affine),
        halo=network.halo,
        device=device,
        tile=options.tile,
        memory=options.bytes,
        precision=options.precision,
        progress=progress,
        cancelled=cancelled,
    )
    found = {}
    for target, scale in scales.items():
        lattice = image.lattice.refined(scale)
        placed = {
            output: GridImage(outputs.pop(output), masks[scale], lattice, image.shells)
            for output in [each for each in outputs if each.target == target]
        }
        spread = placed.get(Output(target, "disagreement"))
        found[target] = GridPrediction(
            prediction=placed[Output(target, "prediction")],
            first_stage=placed.get(Output(target, "first stage")),
            disagreement=None if spread is None else spread.coefficients,
            branches={each.platform: of for each, of in placed.items() if each.what == "branch"},
        )
    return found
