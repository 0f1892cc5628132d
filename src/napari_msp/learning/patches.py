"""Cut standardised examples out of heads, turned by grid symmetries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.learning.heads import Channels, Head
from napari_msp.signal.rotation import rotation_matrix
from napari_msp.signal.standardisation import Standardisation


@dataclass(frozen=True)
class Batch:
    """Standardised examples.

    Attributes
    ----------
    input
        (B, 28, p, p, p).
    targets
        (B, 28, q, q, q) for each platform, q = k(p-1)+1, less a margin of `trim` at each end.
    masks
        (B, 1, q, q, q) bool for each platform: where the loss counts.
    trim
        Voxels that a prediction loses at each end before it is compared.
    """

    input: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    trim: dict[str, int]

    def to(self, device: torch.device) -> "Batch":
        """Give the same batch on a device."""
        return replace(
            self,
            input=self.input.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
            masks={name: value.to(device) for name, value in self.masks.items()},
        )


class Examples:
    """Cut standardised examples out of heads.

    Parameters
    ----------
    heads
        Training subjects.
    scales
        Lattice scale of each target.
    source, standardisation
        The input platform's name, and the statistics of all platforms.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        scales: Mapping[str, int],
        source: str,
        standardisation: Mapping[str, Standardisation],
    ) -> None:
        self.scales = dict(scales)
        self.inputs = [Channels.of(head.input) for head in heads]
        self.targets = [
            {target: Channels.of(head.targets[target]) for target in scales} for head in heads
        ]
        self._input_scaler = _Scaler(standardisation[source])
        self._scalers = {target: _Scaler(standardisation[target]) for target in scales}

    def cut(
        self,
        places: Sequence[tuple[int, IntArray]],
        edge: int,
        symmetries: Sequence["Symmetry | None"],
        trimmed: bool,
    ) -> Batch:
        """Cut a batch.

        Parameters
        ----------
        places
            Head and first voxel of each example, in input voxels; parts outside the volume are 0.
        edge
            Of an example in input voxels.
        symmetries
            Grid symmetry by which each example is turned, before standardising.
        trimmed
            Leave out k-1 target voxels at each end: the paper's central 19 of 21.
        """
        trim = {target: (scale - 1) * trimmed for target, scale in self.scales.items()}
        inputs = [
            self._input_scaler(*_turned(_take(self.inputs[head], start, edge), symmetry))[0]
            for (head, start), symmetry in zip(places, symmetries, strict=True)
        ]
        targets: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for target, scale in self.scales.items():
            size = scale * (edge - 1) + 1 - 2 * trim[target]
            cuts = [
                self._scalers[target](
                    *_turned(
                        _take(self.targets[head][target], scale * start + trim[target], size),
                        symmetry,
                    )
                )
                for (head, start), symmetry in zip(places, symmetries, strict=True)
            ]
            targets[target] = torch.stack([values for values, _ in cuts])
            masks[target] = torch.stack([mask for _, mask in cuts]).unsqueeze(1)
        return Batch(torch.stack(inputs), targets, masks, trim)


class Symmetry:
    """A grid symmetry that turns an example's voxels and its SH coefficients together.

    Parameters
    ----------
    matrix
        (3, 3) signed permutation.
    """

    def __init__(self, matrix: FloatArray) -> None:
        goes_to = np.abs(matrix).argmax(axis=0)  # input axis j becomes output axis goes_to[j]
        self._sources = [int(np.flatnonzero(goes_to == axis)[0]) for axis in range(3)]
        self._flipped = [axis for axis in range(3) if matrix[axis].sum() < 0]
        self._mixing = torch.from_numpy(rotation_matrix(matrix).astype(np.float32))

    def __call__(self, coefficients: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Turn (28, p, p, p) coefficients and a (p, p, p) mask."""
        moved = coefficients.permute(0, *(axis + 1 for axis in self._sources))
        moved = moved.flip([axis + 1 for axis in self._flipped])
        turned = (self._mixing @ moved.flatten(1)).view(moved.shape)
        return turned, mask.permute(*self._sources).flip(self._flipped)


class _Scaler:
    """Standardise (28, …) channels and set them to 0 outside the mask."""

    def __init__(self, standardisation: Standardisation) -> None:
        self._mean = torch.from_numpy(standardisation.mean).view(-1, 1, 1, 1)
        self._deviation = torch.from_numpy(standardisation.deviation).view(-1, 1, 1, 1)

    def __call__(self, coefficients: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (coefficients - self._mean) / self._deviation * mask, mask


def _turned(cut: tuple[Tensor, Tensor], symmetry: Symmetry | None) -> tuple[Tensor, Tensor]:
    return cut if symmetry is None else symmetry(*cut)


def _take(channels: Channels, start: IntArray, size: int) -> tuple[Tensor, Tensor]:
    """Cut a cube; what lies outside the volume is 0 and out of the mask."""
    shape = channels.mask.shape
    parts = tuple(
        slice(max(int(first), 0), min(int(first) + size, length))
        for first, length in zip(start, shape, strict=True)
    )
    padding: list[int] = []
    for first, length in reversed(list(zip(start, shape, strict=True))):
        padding += [max(-int(first), 0), max(int(first) + size - length, 0)]
    values = channels.coefficients[(slice(None), *parts)]
    mask = channels.mask[parts]
    if any(padding):
        values, mask = functional.pad(values, padding), functional.pad(mask, padding)
    return values, mask
