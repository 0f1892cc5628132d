"""Names for the kinds of array that the package passes round."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
MaskArray = NDArray[np.bool_]

AnyArray = TypeVar("AnyArray", FloatArray, MaskArray)
"""An array function keeps the kind that it is given."""
