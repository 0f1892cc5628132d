"""How far one pass is: by tiles, and within a tile by the convolutions that were polled."""

from __future__ import annotations

from collections.abc import Callable

from napari_msp.arrays import MaskArray
from napari_msp.inference.polling import expected_polls
from napari_msp.inference.tiles import plan_tiles
from napari_msp.networks.msp import Network

FINEST = 0.02
"""Smallest advance that is worth telling."""


class PassProgress:
    """Give `tile` and `cancelled` to `predict_target`.

    On a CPU a whole head is one tile that takes minutes, so tiles alone tell nothing.

    Parameters
    ----------
    network
        What is run, on the CPU.
    mask
        (X, Y, Z) of its input.
    cancelled
        Whether to stop.
    tell
        Called with words such as "tile 3 of 12" and the share of the pass that is done.
    """

    def __init__(
        self,
        network: Network,
        mask: MaskArray,
        cancelled: Callable[[], bool],
        tell: Callable[[str, float], None],
    ) -> None:
        self._network, self._mask = network, mask
        self._cancelled, self._tell = cancelled, tell
        self._done, self._total = 0, 0
        self._polls, self._expected = 0, 0
        self._told = 0.0

    def tile(self, done: int, total: int) -> None:
        """Take how many tiles are done."""
        if done == 0:
            self._expected = self._foretold() if total == 1 else 0
        elif done < total:
            self._expected = self._polls  # of the tile before; most are alike
        self._done, self._total, self._polls = done, total, 0
        self._say(done / total)

    def cancelled(self) -> bool:
        """Tell whether to stop; called before every convolution, and after the last tile, too."""
        self._polls += 1
        if self._done < self._total and self._polls < self._expected:
            share = (self._done + self._polls / self._expected) / self._total
            if share - self._told >= FINEST:
                self._say(share)
        return self._cancelled()

    def _say(self, share: float) -> None:
        self._told = share
        self._tell(f"tile {min(self._done + 1, self._total)} of {self._total}", share)

    def _foretold(self) -> int:
        tiles = plan_tiles(self._mask, self._network.halo)
        x, y, z = (part.stop - part.start for part in tiles[0].crop)
        return expected_polls(self._network, (x, y, z))
