"""Maps computed elsewhere, such as FA: which of their zeros are measured values."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import entities, nifti_stem
from napari_msp.data.companions import look_for_mask
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import read_mask
from napari_msp.errors import UserError
from napari_msp.evaluation.line_up import map_onto
from napari_msp.evaluation.regions import Regions
from napari_msp.signal.maps import MAPS

NEVER_ZERO = {
    "fa", "md", "ad", "rd", "adc", "directionaverage",
    *(each.parameter for each in MAPS.values() if not each.coloured),
}  # fmt: skip
"""`param` of maps that are 0 only where nothing was measured."""

NAMED_SO = {"fa", "md", "adc"}
"""Last words of file names that other programs give to such maps."""

MOST_ZERO_INSIDE = 0.01
"""Share of a brain mask in which such a map may be 0, as fits fail in a few voxels (ours)."""


@dataclass(frozen=True, eq=False)
class FinishedMap:
    """A map computed elsewhere, measured as it is.

    Attributes
    ----------
    left_out, unsure
        (X, Y, Z) zeros connected to the image's edge: surely, or perhaps, not measured.
    """

    values: FloatArray
    lattice: Lattice
    left_out: MaskArray
    unsure: MaskArray

    @property
    def inside(self) -> MaskArray:
        """(X, Y, Z) mask of the measured voxels."""
        return np.asarray(np.isfinite(self.values) & ~self.left_out)

    def onto(self, lattice: Lattice) -> tuple[FloatArray, MaskArray]:
        """Return the map and its measured voxels' mask on a lattice, interpolated if needed."""
        if self.lattice.matches(lattice):
            return self.values, self.inside
        known = np.where(self.inside, self.values, 0)
        return map_onto(known, self.inside, self.lattice, lattice)

    def notes(self, regions: Regions) -> Iterator[str]:
        """Yield notes on how many labelled voxels are such zeros."""
        if not (self.left_out.any() or self.unsure.any()):
            return
        labelled = np.zeros(self.lattice.shape, dtype=bool)
        with suppress(UserError):  # no label lies there
            labelled = regions.on(self.lattice).labels > 0
        for zeros, so in (
            (self.left_out, "as outside a brain mask, and are not counted"),
            (self.unsure, "and are counted: if nothing was measured there, leave them unlabelled"),
        ):
            if count := int((zeros & labelled).sum()):
                of = int(labelled.sum())
                yield (
                    f"{count:,} of {of:,} labelled voxels ({100 * count / of:.1f} %) are exactly 0 "
                    f"up to the image's edge, {so}"
                )


def finished_map(path: Path, values: FloatArray, lattice: Lattice) -> FinishedMap:
    """Separate a map's zeros that are values (no lesion) from those where nothing was measured."""
    finite, nowhere = np.isfinite(values), np.zeros(values.shape, dtype=bool)
    known = values[finite]
    as_it_is = FinishedMap(values, lattice, nowhere, nowhere)
    if not (known == 0).any() or ((known == known.min()) | (known == known.max())).all():
        return as_it_is  # without zeros, or of two values: a mask
    empty, _ = ndimage.label(np.pad(~finite | (values == 0), 1, constant_values=True))
    zeros = np.asarray(finite & (empty == empty[0, 0, 0])[1:-1, 1:-1, 1:-1])
    parameter = entities(path).get("param", "").lower()
    last_word = nifti_stem(path).lower().replace("-", "_").rpartition("_")[2]
    if parameter not in NEVER_ZERO and last_word not in NAMED_SO:
        mask = _mask_of(path, lattice)
        if mask is None:
            return replace(as_it_is, unsure=zeros)
        if (values[mask] == 0).mean() > MOST_ZERO_INSIDE:
            return as_it_is
        zeros &= ~mask
    if (known == np.rint(known)).all():  # counts or labels, whatever the map's name
        return replace(as_it_is, unsure=zeros)
    return replace(as_it_is, left_out=zeros)


def _mask_of(path: Path, lattice: Lattice) -> MaskArray | None:
    with suppress(UserError):  # a mask that cannot be read, or chosen, tells nothing
        found = look_for_mask(path, lattice).path
        return None if found is None else read_mask(found, lattice).inside
    return None
