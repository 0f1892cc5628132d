"""How the coefficients of a real symmetric SH series are counted.

Even orders l = 0, 2, 4, …; m from -l to l; index l(l+1)/2 + m.
"""

from typing import Final

import numpy as np

from napari_msp.arrays import IntArray

ORDER: Final = 6
"""SH order of the method (paper): 28 coefficients."""


def even_orders(order: int = ORDER) -> list[int]:
    """List the orders 0, 2, …, `order`."""
    if order < 0 or order % 2:
        raise ValueError(f"SH order must be even and not negative, not {order}")
    return list(range(0, order + 1, 2))


def coefficient_count(order: int = ORDER) -> int:
    """Count the coefficients up to an even order.

    >>> coefficient_count(6)
    28
    """
    return (order + 1) * (order + 2) // 2


def order_of(count: int) -> int:
    """Give the even order that has `count` coefficients.

    >>> order_of(28)
    6

    Raises
    ------
    ValueError
        When no even order has.
    """
    order = 0
    while coefficient_count(order) < count:
        order += 2
    if coefficient_count(order) != count:
        raise ValueError(f"{count} is no number of coefficients of an even SH order")
    return order


def order_slices(order: int = ORDER) -> dict[int, slice]:
    """Give each order's slice of the coefficients.

    >>> order_slices(4)
    {0: slice(0, 1, None), 2: slice(1, 6, None), 4: slice(6, 15, None)}
    """
    return {
        degree: slice(coefficient_count(degree - 2), coefficient_count(degree))
        for degree in even_orders(order)
    }


def coefficient_orders(order: int = ORDER) -> IntArray:
    """(C,) order l of every coefficient."""
    degrees = even_orders(order)
    return np.repeat(degrees, [2 * degree + 1 for degree in degrees])
