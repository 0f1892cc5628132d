"""Measurements of every image in every region, and rows of trivial predictors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.baselines.combat import ComBat, learn_scanner_effect
from napari_msp.evaluation.benchmark.results import RegionValue, Results
from napari_msp.evaluation.line_up import line_up
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    COMBAT_OF_REGIONS,
    MEAN_OF_OTHERS,
    TARGET,
)
from napari_msp.evaluation.regions import Regions, RegionVoxels
from napari_msp.formatting import listed
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER, even_orders, order_slices

SMOOTHING = 6.0
"""Full width at half maximum of the trivial smoother in mm (our choice)."""

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""

SH_UNITS = "SH units"

OF_SIGNAL = "_signal"
"""Ending of the keys of quantities computed from the scans' own signal."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that is measured of an image in a region.

    Attributes
    ----------
    of
        Map of `MAPS` that it is taken from; empty if it needs the SH image.
    compute
        Function of an image's maps that returns (X, Y, Z) or (X, Y, Z, C); if `of` names a map,
        any mapping with that map will do.
    of_signal
        Whether tensors are fitted to the scans' own signal, as other programs do; else they come
        through the SH series, for all images alike.
    kind
        "mean": the region's mean, a number of the image alone, on which scanners agree or not.
        "error": root mean square over the region's voxels (and channels) of the difference from
        the target's scan.
    """

    key: str
    label: str
    unit: str
    explanation: str
    of: str
    compute: Callable[[Any], FloatArray]
    kind: Literal["mean", "error"] = "mean"
    of_signal: bool = False

    @property
    def twin(self) -> "Quantity":
        """The same quantity of the scans' own signal."""
        return replace(
            self,
            key=f"{self.key}{OF_SIGNAL}",
            label=f"{self.label} of the signal",
            explanation=f"{self.explanation[:-1]}, of the scan's own signal.",
            of_signal=True,
        )

    @property
    def explained(self) -> "Quantity":
        """The quantity with a note that its tensors come through the SH series, if it has any."""
        if not self.of:
            return self
        return replace(self, explanation=f"{self.explanation[:-1]}, through the SH series.")


def _rish_of(order: int) -> Callable[[Maps], FloatArray]:
    """Return a function that computes `rish` of this order alone."""
    return lambda maps: np.asarray(np.square(_coefficients(order)(maps)).sum(axis=-1))


def _colour(channel: int) -> Callable[[Any], FloatArray]:
    return lambda maps: maps["colour_fa"][..., channel]


def _coefficients(order: int) -> Callable[[Maps], FloatArray]:
    return lambda maps: maps.image.coefficients[..., order_slices(maps.image.order)[order]]


_ALL = (
    Quantity("fa", "FA", "", "Fractional anisotropy.", "fa", lambda maps: maps["fa"]),
    Quantity("md", "MD", "mm²/s", "Mean diffusivity.", "md", lambda maps: maps["md"]),
    *(
        Quantity(
            f"colour_fa_{axis}",
            f"colour FA {colour}",
            "",
            f"FA times the principal direction's share {along}, without its sign.",
            "colour_fa",
            _colour(channel),
        )
        for channel, (axis, colour, along) in enumerate(
            (("x", "red", "left-right"), ("y", "green", "front-back"), ("z", "blue", "up"))
        )
    ),
    *(
        Quantity(
            f"rish{order}",
            f"RISH {order}",
            f"{SH_UNITS}²",
            f"Energy of the SH coefficients of order {order}.",
            "",
            _rish_of(order),
        )
        for order in even_orders(ORDER)
    ),
    *(
        Quantity(
            f"sh{order}_error",
            f"SH order {order}",
            SH_UNITS,
            f"Error of the SH coefficients of order {order}, voxel by voxel.",
            "",
            _coefficients(order),
            "error",
        )
        for order in even_orders(ORDER)
    ),
    Quantity("fa_error", "FA", "", "Error of FA.", "fa", lambda maps: maps["fa"], "error"),
    Quantity("md_error", "MD", "mm²/s", "Error of MD.", "md", lambda maps: maps["md"], "error"),
    Quantity(
        "colour_fa_error",
        "colour FA",
        "",
        "Error of the three colours of FA.",
        "colour_fa",
        lambda maps: maps["colour_fa"],
        "error",
    ),
)

QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {
        each.key: each
        for each in (*(each.explained for each in _ALL), *(each.twin for each in _ALL if each.of))
    }
)
"""All quantities by key, in the order of tables; those of the scans' own signal come last."""

MEANS = tuple(key for key, each in QUANTITIES.items() if each.kind == "mean")
ERRORS = tuple(key for key, each in QUANTITIES.items() if each.kind == "error")

VOXELS = "voxels"
"""Key of the number of voxels measured in a region."""


MapsByRow = Mapping[str, Mapping[str, FloatArray]]
"""FA, mean diffusivity or colour FA on the target's lattice, by row and the keys of `MAPS`."""

Measured = tuple[str, str, str, float]
"""Row, region, quantity and value."""


def measured_in_regions(
    truth: Truth,
    images: Mapping[str, Maps],
    regions: Regions,
    maps_alone: MapsByRow,
    signal_maps: MapsByRow,
) -> tuple[list[Measured], list[str]]:
    """Measure one head: every quantity of every image in every region that has a voxel.

    Parameters
    ----------
    images
        Maps by row, on any lattice: the input, predictions, a repeated scan, trivial predictors.
    maps_alone
        Maps of methods that give no image; 0 or nan outside their masks.
    signal_maps
        Maps of the scans' own signal, with which `maps_alone` are compared.

    Returns
    -------
    The values, and notes on regions that are not there.

    Raises
    ------
    UserError
        When the images do not belong together, or no region lies in them.
    """
    both = line_up(truth.mapped, images)
    here = regions.on(truth.image.lattice)
    mask = both.mask
    for each in (each for maps in maps_alone.values() for each in maps.values()):
        known = np.isfinite(each) & (each != 0)
        mask = mask & (known if known.ndim == 3 else known.any(axis=-1))
    left = set(np.unique(here.labels[mask]).tolist())
    notes = here.notes + [
        f"{name} has no voxel in the masks of all images"
        for label, name in here
        if label not in left and here.kept.get(label, 1.0) > 0
    ]
    of_images = {TARGET: truth.mapped, **both.predictions}
    voxels = RegionVoxels(here, mask)
    return list(_measured(voxels, of_images, {**signal_maps, **maps_alone})), notes


def _measured(
    voxels: RegionVoxels, of_images: Mapping[str, Maps], of_maps: MapsByRow
) -> Iterator[Measured]:
    """Measure images, then maps, which like their reference are computed from the signal."""
    rows: list[tuple[bool, str, Any]] = [(False, *each) for each in of_images.items()]
    rows += [(True, *each) for each in of_maps.items()]
    true = of_images[TARGET]
    for of_signal, row, maps in rows:
        for each in QUANTITIES.values():
            if each.of_signal != of_signal or (of_signal and each.of not in maps):
                continue
            wrong = each.kind == "error"
            if wrong and row == TARGET:
                continue
            truth = (each.compute(of_maps[TARGET] if of_signal else true),) if wrong else ()
            for _, region, (found, *scan) in voxels.of(each.compute(maps), *truth):
                if not len(found):
                    continue
                if wrong:
                    value = np.sqrt(np.square(found - scan[0]).mean())
                else:
                    value = found.mean(axis=1).mean()
                yield row, region, each.key, float(value)
    for _, region, (found,) in voxels.of(true["fa"]):
        yield TARGET, region, VOXELS, float(len(found))


# --- Trivial predictors -----------------------------------------------------------------------


def smoothed(image: SHImage) -> SHImage:
    """Blur an image inside its mask by a Gaussian of `SMOOTHING` mm at half maximum."""
    return replace(image, coefficients=blurred(image.coefficients, image.mask, image.lattice))


def blurred(values: FloatArray, mask: MaskArray, lattice: Lattice) -> FloatArray:
    """Blur (X, Y, Z) or (X, Y, Z, C) values as `smoothed` does; 0 outside the mask."""
    channels = values if values.ndim == 4 else values[..., None]
    sigma = [*(SMOOTHING / FWHM / lattice.voxel_sizes), 0]
    inside = mask[..., None].astype(np.float32)
    weights = gaussian_filter(inside, sigma)
    means = gaussian_filter(channels * inside, sigma) / np.maximum(weights, 1e-6)
    return np.where(inside > 0, means, 0).astype(np.float32).reshape(values.shape)


def mean_of_others(values: Results[RegionValue]) -> Iterator[RegionValue]:
    """Predict each person as the average of the other people's scans on the target.

    The average is over the people whom models learned from, if any, else over all measured people
    but the one predicted.
    """
    scans = values.select(method=TARGET)
    places = ("target", "shell", "dataset", "seed", "region", "quantity")
    taught = scans.select(reference="training").groups(*places)
    for place, part in scans.select(reference="scan").groups(*places).items():
        if part.rows[0].quantity not in MEANS:
            continue
        teachers = taught.get(place)
        for row in part:
            others = [o.value for o in teachers or part if o.subject != row.subject]
            if others:
                yield replace(row, method=MEAN_OF_OTHERS, value=float(np.mean(others)))


# --- Tables alone -----------------------------------------------------------------------------


def combat_of_regions(values: Results[RegionValue]) -> Iterator[RegionValue | str]:
    """Harmonize the input's regional means as most studies do: ComBat, each quantity over regions.

    It learns from the pairs of the training people, in the regions that all of them have, and only
    if ComBat is a row. Strings in between say what could not be computed of a dataset and quantity.
    """
    if not len(values.select(method=ComBat.name)):
        return
    problems: dict[tuple[str, str], list[str]] = {}
    for place, part in values.groups("target", "shell", "dataset", "seed", "quantity").items():
        if place[-1] not in MEANS:
            continue

        def tell(problem: str, of: RegionValue = part.rows[0]) -> None:
            where = f"{COMBAT_OF_REGIONS}, {of.dataset} on {of.column}"
            problems.setdefault((where, problem), []).append(QUANTITIES[of.quantity].label)

        taught = part.select(reference="training")
        pairs = [_by_subject(taught.select(method=row)) for row in (BEFORE, TARGET)]
        people = sorted(pairs[0].keys() & pairs[1].keys())
        known = [each[who].keys() for each in pairs for who in people]
        regions = [name for name in part.names("region") if all(name in each for each in known)]
        if not people or len(regions) < 2:
            few = "fewer than two regions have values in everybody who was learned from"
            tell(few if people else "nobody who was learned from has both scans measured")
            continue
        gone = [name for name in part.names("region") if name not in regions]
        if gone:
            tell(f"{listed(gone)} left out, as somebody who was learned from has no value there")
        source, target = (
            np.array([[each[who][name] for name in regions] for who in people]) for each in pairs
        )
        try:
            effect = learn_scanner_effect(source, target, paired=True)
        except UserError as error:
            tell(error.phrase())
            continue
        for row in part.select(reference="scan", method=BEFORE):
            if row.region in regions:
                index = regions.index(row.region)
                value = effect.gain[index] * row.value + effect.offset[index]
                yield replace(row, method=COMBAT_OF_REGIONS, value=float(value))
    for (where, problem), quantities in problems.items():
        yield f"{where}, {listed(quantities)}: {problem}"


def _by_subject(part: Results[RegionValue]) -> dict[str, dict[str, float]]:
    """Return each person's values by region."""
    found: dict[str, dict[str, float]] = {}
    for row in part:
        found.setdefault(row.subject, {})[row.region] = row.value
    return found
