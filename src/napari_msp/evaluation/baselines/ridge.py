"""Ridge regression in closed form, its sums gathered in portions."""

from collections.abc import Iterable

import numpy as np
from scipy.linalg import solve

from napari_msp.arrays import FloatArray


def ridge_regression(
    portions: Iterable[tuple[FloatArray, FloatArray]], penalty: float
) -> FloatArray:
    """Regress several outputs on predictors and a constant.

    Minimises |X W - Y|² + n · penalty · |W|², the constant's row of W not counted. Only X'X and
    X'Y are kept, in float64, so that memory does not grow with the number n of rows.

    Parameters
    ----------
    portions
        (rows, P) predictors with their (rows, Q) outputs.
    penalty
        Against predictors of variance 1.

    Returns
    -------
    (P + 1, Q) float32 weights; the last row is the constant's.

    Raises
    ------
    ValueError
        When there is no row.
    """
    rows = 0
    squares, products = np.zeros((0, 0)), np.zeros((0, 0))
    for predictors, outputs in portions:
        extended = with_constant(predictors)
        if rows == 0:
            squares = np.zeros((extended.shape[1],) * 2)
            products = np.zeros((extended.shape[1], outputs.shape[1]))
        squares += extended.T @ extended
        products += extended.T @ outputs
        rows += len(outputs)
    if rows == 0:
        raise ValueError("there is no row to learn a regression from")
    squares[np.diag_indices(len(squares) - 1)] += rows * penalty
    return np.asarray(solve(squares, products, assume_a="pos"), dtype=np.float32)


def with_constant(predictors: FloatArray) -> FloatArray:
    """Append a column of ones to (rows, P) predictors."""
    return np.concatenate([predictors, np.ones_like(predictors[:, :1])], axis=1)
