"""Array types, and processing of in-mask voxels in blocks by several threads.

Results are the same to the bit for any number of threads: a block's size is fixed, and BLAS
computes inside it with a single thread, so no sum depends on their number or on who took which
block. Memory is that of a few blocks per thread.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, wraps
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
MaskArray = NDArray[np.bool_]

Value = TypeVar("Value")
AnyArray = TypeVar("AnyArray", FloatArray, IntArray, MaskArray)
"""An array function returns the type that it is given."""

VOXELS_AT_ONCE = 8192
"""Voxels per block: large enough for NumPy, small enough for a core's cache."""


class InMask:
    """The in-mask voxels of an image, in memory order.

    Parameters
    ----------
    image
        (X, Y, Z, N) image.
    mask
        (X, Y, Z) mask.

    Attributes
    ----------
    places
        (V,) flat indices of the voxels in C order, for storing results.
    """

    places: IntArray

    def __init__(self, image: FloatArray, mask: MaskArray) -> None:
        # Images read from files store volume by volume; those made in memory may store each voxel's
        # values together.
        self.shape = mask.shape
        self._by_volume = image.flags.f_contiguous
        order = "F" if self._by_volume else "C"
        self._values = image.reshape((-1, image.shape[-1]), order=order)  # type: ignore[call-overload]
        self._index = np.flatnonzero(mask.ravel(order))  # type: ignore[arg-type]
        self.places = self._index
        if self._by_volume:
            numbers = np.arange(mask.size).reshape(mask.shape)
            self.places = numbers.ravel(order="F")[self._index]

    def __len__(self) -> int:
        return len(self._index)

    def take(self, block: slice) -> FloatArray:
        """Return a copy of a block's values, (N, B)."""
        index = self._index[block]
        if self._by_volume:
            return np.asarray(self._values.T.take(index, axis=1))
        return np.ascontiguousarray(self._values[index].T)


def for_each_block(
    work: Callable[[slice], None], count: int, at_once: int = VOXELS_AT_ONCE
) -> None:
    """Call `work` with each block of `count` voxels, on as many threads as BLAS may use.

    These are all cores, or as many as OMP_NUM_THREADS or a caller's `threadpool_limits` allow.

    Parameters
    ----------
    work
        Function that processes a block; threads call it concurrently.
    count
        Number of voxels, or of other items.
    at_once
        Number of items per block.
    """
    starts = range(0, count, at_once)
    blocks = [slice(start, min(start + at_once, count)) for start in starts]
    with _single_threaded_blas() as threads:
        if min(threads, len(blocks)) < 2:
            for block in blocks:
                work(block)
            return
        with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
            for _ in pool.map(work, blocks):
                pass


def shared_by_threads(
    setting: Callable[[], AbstractContextManager[Value]],
) -> Callable[[], AbstractContextManager[Value]]:
    """Let the first thread that needs a process-wide setting make it, and the last one undo it.

    Parameters
    ----------
    setting
        Context manager that makes the setting; all threads get its value.
    """
    lock, stack, held = threading.Lock(), ExitStack(), list[Value]()

    @contextmanager
    @wraps(setting)
    def shared() -> Iterator[Value]:
        with lock:
            held.append(held[-1] if held else stack.enter_context(setting()))
            value = held[-1]
        try:
            yield value
        finally:
            with lock:
                held.pop()
                if not held:
                    stack.close()

    return shared


@shared_by_threads
@contextmanager
def _single_threaded_blas() -> Iterator[int]:
    """Limit NumPy's BLAS to one thread during the block; yield how many it could use.

    A caller's own `threadpool_limits` must begin before it and end after it: two that overlap
    restore what each one found, and the first one's limit may stay.
    """
    blas = _blas()
    known = [each.num_threads for each in blas.lib_controllers]
    with blas.limit(limits=1):
        yield max(known, default=os.cpu_count() or 1)


@cache
def _blas() -> Any:
    """Return NumPy's BLAS, searched only once as that takes some milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
