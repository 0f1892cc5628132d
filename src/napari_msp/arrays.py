"""Names for the kinds of array that the package passes round."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
MaskArray = NDArray[np.bool_]
