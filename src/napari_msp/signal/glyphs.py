"""Draw SH series as glyphs: surfaces whose radius is the series, lit and coloured by direction.

Each glyph is drawn from one side, by ray casting in a cube of voxels. What this needs of the basis
is the same for all glyphs, so hundreds of them cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.signal.spherical_harmonics import (
    coefficient_orders,
    design_matrix,
    order_of,
    rotate,
    spread_directions,
)

Kind = Literal["odf", "signal"]

TITLES: Mapping[Kind, str] = {"odf": "ODF", "signal": "signal"}

Picture = NDArray[np.uint8]
"""(rows, columns, 4): red, green, blue and opacity."""

LIGHT = np.array([-0.35, -0.45, 0.82])
"""Direction of the light: right, down, and towards the viewer (our choice: the upper left)."""

AMBIENT = 0.3
"""Share of ambient light (our choice)."""

GLOSS, SHINE = 0.2, 12
"""Strength and narrowness of the highlight that shows bumps, as in MRtrix3's mrview (ours)."""

MANY = 362
"""Number of directions on a half-sphere at which extremes of a series are sought (our choice)."""

AT_ONCE = 64
"""Number of glyphs drawn together: their cubes stay in a processor's cache."""

LARGEST_PERCENTILE = 98.0
"""Percentile of an image's strongest signals that is drawn half a voxel long (our choice)."""


def odf(coefficients: FloatArray) -> FloatArray:
    """Return the orientation distribution function by analytical q-ball imaging.

    The Funk-Radon transform of the signal: order l is multiplied by 2π P_l(0) (Descoteaux 2007).

    Parameters
    ----------
    coefficients
        (..., C) coefficients of the signal S/S0.

    Returns
    -------
    (..., C) coefficients of the ODF, which is not normalised.
    """
    orders = coefficient_orders(order_of(coefficients.shape[-1]))
    weights = 2 * np.pi * eval_legendre(orders, 0.0)
    return np.asarray(coefficients * weights.astype(coefficients.dtype))


def radii(coefficients: FloatArray, kind: Kind, largest: float = 1.0) -> tuple[FloatArray, ...]:
    """Return the SH coefficients of a glyph's radius, and the offset to subtract from their sum.

    Parameters
    ----------
    coefficients
        (N, C) coefficients of the signal S/S0.
    kind
        "signal": S/S0 over `largest`, on one scale for all. "odf": each voxel's ODF scaled from its
        minimum to its maximum, 0 to 1 (min-max normalisation, Tuch 2004): shapes can be compared,
        sizes mean nothing, and noise is drawn large where nothing has a direction.
    largest
        S/S0 that gets radius 1.

    Returns
    -------
    coefficients, offsets
        (N, C) and (N,), float32: the radius along u is the series at u minus the offset.
    """
    if kind == "signal":
        series = np.asarray(coefficients, dtype=np.float32) / np.float32(largest)
        return series, np.zeros(len(series), dtype=np.float32)
    series = odf(np.asarray(coefficients, dtype=np.float32))
    seen = series @ _spread_basis(order_of(series.shape[-1])).T
    least, most = seen.min(axis=1), seen.max(axis=1)
    span = np.where(most > least, most - least, 1).astype(np.float32)
    return series / span[:, None], least / span


def largest_signal(coefficients: FloatArray) -> float:
    """Return the S/S0 drawn half a voxel long, so that nearly all glyphs of an image fit.

    Parameters
    ----------
    coefficients
        (N, C) coefficients of voxels with brain.
    """
    if not len(coefficients):
        return 1.0
    series = np.asarray(coefficients, dtype=np.float32)
    strongest = (series @ _spread_basis(order_of(series.shape[-1])).T).max(axis=1)
    found = float(np.percentile(strongest, LARGEST_PERCENTILE))
    return found if found > 0 else 1.0


def glyph_picture(
    coefficients: FloatArray,
    inside: MaskArray,
    kind: Kind,
    view: FloatArray,
    size: tuple[int, int],
    largest: float = 1.0,
) -> Picture:
    """Draw the glyphs of a slice, each as large as its voxel's shorter side.

    Parameters
    ----------
    coefficients
        (R, C, 28) coefficients of the signal S/S0 in scanner axes; rows and columns as displayed.
    inside
        (R, C) where to draw a glyph.
    kind, largest
        See `radii`.
    view
        (3, 3) matrix whose rows are the directions to the right, downwards and towards the viewer,
        in scanner axes.
    size
        Height and width of a voxel in pixels.

    Returns
    -------
    (R · height, C · width, 4) picture.
    """
    rows, columns = inside.shape
    high, wide = size
    edge = min(size)
    picture = np.zeros((rows, high, columns, wide, 4), dtype=np.uint8)
    top, left = (high - edge) // 2, (wide - edge) // 2
    down, right = np.nonzero(inside)
    tiles = draw_glyphs(coefficients[down, right], kind, view, edge, largest)
    picture[down, top : top + edge, right, left : left + edge] = tiles
    return picture.reshape(rows * high, columns * wide, 4)


def draw_glyphs(
    coefficients: FloatArray, kind: Kind, view: FloatArray, edge: int, largest: float = 1.0
) -> Picture:
    """Draw glyphs, each on a square of `edge` pixels; half an edge is a radius of 1.

    Parameters
    ----------
    coefficients
        (N, C) coefficients of the signal S/S0 in scanner axes.
    kind, largest, view
        See `glyph_picture`.

    Returns
    -------
    (N, edge, edge, 4) pictures.
    """
    cube = _cube(order_of(coefficients.shape[-1]), edge)
    series, offsets = radii(coefficients, kind, largest)
    turned = rotate(series, view)
    to_scanner = np.asarray(view, dtype=np.float32)
    tiles = np.empty((len(series), edge, edge, 4), dtype=np.uint8)
    for start in range(0, len(series), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        tiles[part] = cube.look(turned[part], offsets[part], to_scanner)
    return tiles


class _Cube:
    """A cube of points around a glyph's centre, its first axis towards the viewer."""

    def __init__(self, order: int, edge: int) -> None:
        self.edge, self.depth = edge, edge // 2
        self.at = ((np.arange(edge) + 0.5) * (2 / edge) - 1).astype(np.float32)
        # Half of the cube is enough: a series of even orders is symmetric about the centre.
        nearer, down, right = np.meshgrid(
            self.at[::-1][: self.depth], self.at, self.at, indexing="ij"
        )
        points = np.stack([right, down, nearer], axis=-1).reshape(-1, 3)
        self.length = np.linalg.norm(points, axis=1)
        self.basis = _quick_basis(_unit(points), order).T
        self.light = (LIGHT / np.linalg.norm(LIGHT)).astype(np.float32)
        halfway = self.light + np.array([0, 0, 1], dtype=np.float32)
        self.halfway = halfway / np.linalg.norm(halfway)

    def look(self, series: FloatArray, offsets: FloatArray, to_scanner: FloatArray) -> Picture:
        """Draw glyphs whose series are in the cube's axes: right, down, towards the viewer."""
        edge, count = self.edge, len(series)
        half = series @ self.basis
        half -= offsets[:, None]
        half -= self.length
        half = half.reshape(count, self.depth, edge, edge)
        # Distance inside the surface, from front to back.
        inside = np.empty((count, edge, edge, edge), dtype=np.float32)
        inside[:, : self.depth] = half
        inside[:, self.depth :] = half[:, ::-1, ::-1, ::-1]
        most = inside[:, 0].copy()
        first = np.zeros(most.shape, dtype=np.int16)
        for plane in range(edge - 1, 0, -1):
            np.maximum(most, inside[:, plane], out=most)
            np.copyto(first, plane, where=inside[:, plane] > 0)
        np.copyto(first, 0, where=inside[:, 0] > 0)
        opacity = np.clip(most * (edge / 2) + 0.5, 0, 1).reshape(count, -1)
        which, pixel = np.nonzero(opacity)
        row, column = np.divmod(pixel, edge)
        layer = first[which, row, column].astype(np.intp)
        rim = np.flatnonzero(most[which, row, column] <= 0)  # grazed: its nearest point is drawn
        layer[rim] = inside[which[rim], :, row[rim], column[rim]].argmax(axis=1)

        def value(plane: IntArray, down: IntArray, right: IntArray) -> FloatArray:
            there = (each.clip(0, edge - 1) for each in (plane, down, right))
            return np.asarray(inside[(which, *there)])

        here, before = value(layer, row, column), value(layer - 1, row, column)
        # The surface lies between the two points, nearer to the one that is closer to it.
        share = np.where((before < 0) & (here > 0), here / np.maximum(here - before, 1e-9), 0)
        depth = self.at[::-1][layer] + share * (2 / edge)
        place = np.stack([self.at[column], self.at[row], depth], axis=1)
        outwards = np.stack(
            [
                value(layer, row, column - 1) - value(layer, row, column + 1),
                value(layer, row - 1, column) - value(layer, row + 1, column),
                value(layer + 1, row, column) - value(layer - 1, row, column),
            ],
            axis=1,
        )
        normals = _unit(outwards)
        shade = AMBIENT + (1 - AMBIENT) * np.clip(normals @ self.light, 0, 1)
        gloss = GLOSS * np.clip(normals @ self.halfway, 0, 1) ** SHINE
        colours = np.abs(_unit(place) @ to_scanner)
        tiles = np.zeros((count, edge * edge, 4), dtype=np.uint8)
        lit = colours * shade[:, None] + gloss[:, None]
        tiles[which, pixel, :3] = np.clip(lit * 255 + 0.5, 0, 255)
        tiles[which, pixel, 3] = opacity[which, pixel] * 255 + 0.5
        return tiles.reshape(count, edge, edge, 4)


@lru_cache(maxsize=8)
def _cube(order: int, edge: int) -> _Cube:
    return _Cube(order, edge)


def _quick_basis(directions: FloatArray, order: int) -> FloatArray:
    """Evaluate the basis for very many directions, as polynomials of the basis's order."""
    powers = [(i, j, order - i - j) for i in range(order + 1) for j in range(order + 1 - i)]

    def terms(at: FloatArray) -> FloatArray:
        x, y, z = at.T
        return np.stack([x**i * y**j * z**k for i, j, k in powers], axis=1)

    known = spread_directions(4 * len(powers))
    weights = np.linalg.lstsq(terms(known), design_matrix(known, order), rcond=None)[0]
    return (terms(directions) @ weights).astype(np.float32)


@lru_cache(maxsize=4)
def _spread_basis(order: int) -> FloatArray:
    return design_matrix(spread_directions(MANY), order).astype(np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))
