"""Bring predictions of one head and one b-value onto one lattice, to be judged on one mask."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from napari_msp.alignment.registration import SURE, find_displacement
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import map_beside
from napari_msp.data.gradients import same_shell
from napari_msp.data.lattice import (
    Lattice,
    resample,
    resample_in_mask,
    resample_mask,
    resample_with_mask,
)
from napari_msp.data.masks import common_mask
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, Give, RunJob, UserError, either
from napari_msp.formatting import listed
from napari_msp.identity import may_be_same
from napari_msp.scan import Scan
from napari_msp.scan_sources import ScanLike, as_scan
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage

AS_STORED, REORDERED = "as stored", "reordered"
"""Placements that change no number."""

LEAST_SHARED = 0.98
"""Share of the voxels in which truth and all other predictions have brain that a prediction may
have without a word: it takes the rest from the others' numbers (our choice)."""

LEAST_MEASURED = 0.9
"""The same of two images alone, and of the truth: edges differ by a few percent (our choice)."""


def on_lattice(image: SHImage, lattice: Lattice) -> SHImage:
    """Give an SH image on another lattice; `placement` says what that takes.

    Coefficients are in scanner axes, so they need no rotation. Voxels that only stand in another
    order are reordered, bit for bit; all others are interpolated linearly between in-mask voxels.

    Returns
    -------
    SHImage
        With the lattice's shape and affine; 0 outside the mask.
    """
    if image.lattice.matches(lattice):
        return replace(image, affine=lattice.affine)
    if image.lattice.canonical.matches(lattice.canonical):
        return replace(
            image,
            coefficients=lattice.to_stored(image.lattice.to_canonical(image.coefficients)),
            mask=lattice.to_stored(image.lattice.to_canonical(image.mask)),
            affine=lattice.affine,
        )
    mask = resample_mask(image.mask, image.lattice, lattice)
    coefficients = resample_in_mask(image.coefficients, image.mask, image.lattice, lattice)
    coefficients[~mask] = 0
    return replace(image, coefficients=coefficients, mask=mask, affine=lattice.affine)


def map_onto(
    values: FloatArray, mask: MaskArray, source: Lattice, lattice: Lattice
) -> tuple[FloatArray, MaskArray]:
    """Interpolate a map, of three channels or none, linearly between in-mask voxels.

    Gives the map on `lattice`, 0 where there is none, and where there is one.
    """
    channels = values if values.ndim == 4 else values[..., None]
    found, inside = resample_with_mask(channels, mask, source, lattice)
    found = np.where(inside[..., None], found, 0)
    return found if values.ndim == 4 else found[..., 0], inside


def placement(source: Lattice, target: Lattice) -> str:
    """Say in words what `on_lattice` does between two lattices, such as "reordered"."""
    if source.matches(target):
        return AS_STORED
    if source.canonical.matches(target.canonical):
        return REORDERED
    sizes = source.edges, target.edges
    if sizes[0] == sizes[1]:
        return f"interpolated linearly, as {_what_differs(source, target)} (both {sizes[0]})"
    return f"interpolated linearly from {sizes[0]} to {sizes[1]}"


def _what_differs(source: Lattice, target: Lattice) -> str:
    """Say what tells apart two lattices whose voxels are of one size."""
    one, two = source.canonical, target.canonical
    turned = one.affine[:3, :3] / one.voxel_sizes @ (two.affine[:3, :3] / two.voxel_sizes).T
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))))
    shift = float(np.linalg.norm(one.affine[:3, 3] - two.affine[:3, 3]))
    if angle >= 0.1:
        return f"its grid is turned by {angle:.1f}°"
    apart = np.linalg.inv(one.affine)[:3, :3] @ (two.affine[:3, 3] - one.affine[:3, 3])
    if one.shape != two.shape and np.abs(apart - np.round(apart)).max() < 0.05:
        shapes = (" × ".join(map(str, each.shape)) for each in (one, two))
        return f"its grid has {' and not '.join(shapes)} voxels"
    return f"its voxels lie {shift:.2f} mm beside the others"


Comparable = ScanLike | Maps
"""What can be compared. Maps that a scan has computed already are not computed again."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Predictions, and where it exists the truth, on one lattice.

    Attributes
    ----------
    truth
        Untouched; None where there is none. All tensors come through the SH route, for truth and
        predictions alike.
    predictions
        By name, on the lattice of truth, or of the first prediction where there is no truth.
    mask
        (X, Y, Z) voxels in every mask: all predictions are judged on the same voxels.
    lattices
        By name, where a prediction's voxels lay before.
    """

    truth: Maps | None
    predictions: Mapping[str, Maps]
    mask: MaskArray
    lattices: Mapping[str, Lattice]

    def __repr__(self) -> str:
        against = "without truth" if self.truth is None else "with truth"
        return f"<{', '.join(self.predictions)} {against} on {int(self.mask.sum())} voxels>"

    @cached_property
    def placements(self) -> dict[str, str]:
        """By name, what was done to bring a prediction onto the lattice."""
        return {name: placement(own, self.lattice) for name, own in self.lattices.items()}

    @property
    def interpolated(self) -> list[str]:
        """Which predictions lie on other voxels than the reference's, and what was done to them."""
        return [
            f"{name} was {how}"
            for name, how in self.placements.items()
            if how not in (AS_STORED, REORDERED)
        ]

    @cached_property
    def left_out(self) -> list[str]:
        """Which images have no brain where all others have it, so that nobody is judged there."""
        truth = {} if self.truth is None else {"the ground truth": self.truth}
        masks = {name: maps.image.mask for name, maps in {**truth, **self.predictions}.items()}
        found = []
        for name in masks if len(masks) > 1 else ():
            others = np.logical_and.reduce([masks[each] for each in masks if each != name])
            there, lost = int(others.sum()), int((others & ~masks[name]).sum())
            one_of_several = name in self.predictions and len(self.predictions) > 1
            if lost > (1 - (LEAST_SHARED if one_of_several else LEAST_MEASURED)) * there:
                share = f"{lost:,} of {there:,} voxels ({100 * lost / there:.0f} %)"
                found.append(f"{name} has no brain in {share} of the others: they count for none")
        return found

    @cached_property
    def misplaced(self) -> list[str]:
        """Which predictions lie beside the truth, or that it may be another head's, by registering.

        Of another head it is where all are unlike it: one alone may be a poor prediction.
        """
        if self.truth is None:
            return []
        truth, images = self.truth.image, self.predictions.items()
        told = {name: find_displacement(truth, each.image) for name, each in images}
        found = {name: each for name, each in told.items() if each is not None}
        nearest = max((each.correlation for each in found.values()), default=1.0)
        if nearest < SURE:
            return [f"the ground truth {unlike(listed(list(found)), nearest)}"]
        return [
            f"{name} {each.lies('the ground truth', self.lattices[name])}, which counts as error "
            "until they are registered"
            for name, each in found.items()
            if each.too_far(self.lattices[name])
        ]

    @cached_property
    def reference(self) -> SHImage:
        """The image whose lattice and contrast are used: truth, else the first prediction."""
        first = next(iter(self.predictions.values()))
        return (first if self.truth is None else self.truth).image

    @cached_property
    def lattice(self) -> Lattice:
        """Where all its voxels lie."""
        return self.reference.lattice


def doubt_maps(
    sources: Mapping[str, Scan],
    comparison: Comparison,
    kind: Literal["disagreement", "expected_error"],
) -> dict[str, FloatArray]:
    """Give how sure predictions are, in memory or beside their files, on the comparison's lattice.

    Raises
    ------
    UserError
        When a file is no map.
    """
    found: dict[str, FloatArray] = {}
    for name, source in sources.items():
        values = getattr(source, kind, None)  # of a `Prediction`, whose file loads torch
        lattice = source.lattice
        beside = None if source.path is None else map_beside(source.path, kind.replace("_", ""))
        if values is None and beside is not None and beside.exists():
            image = open_nifti(beside)
            values = read_voxels(image, beside)
            if values.ndim != 3:
                problem = f"a map of {kind.replace('_', ' ')} has three axes"
                raise UserError(problem, beside, remedy=Advice("write it anew"))
            lattice = lattice_of(image)
        if values is not None:
            found[name] = resample(values, lattice, comparison.lattice)
    return found


def unlike(other: str, correlation: float) -> str:
    """Say that a scan may not be of the head that another is of, as in "sub-01 on prisma_st …"."""
    return (
        f"resembles {other} less than scans of one head resemble each other (correlation "
        f"{correlation:.2f} once aligned): are both of the same person, and corrected alike?"
    )


def doubts_of_truth(truth: Scan | None, comparison: Comparison) -> list[str]:
    """Say where errors say nothing of a target: truth is predicted, or the prediction itself."""
    if truth is None or comparison.truth is None:
        return []
    found = [
        f"{name} is the ground truth itself, to the last bit"
        for name, each in comparison.predictions.items()
        if _same_bits(each.image, comparison.truth.image)
    ]
    if truth.provenance is not None:
        found.append(f"the ground truth was not measured: it is a prediction ({truth.name})")
    return found


def _same_bits(image: SHImage, other: SHImage) -> bool:
    one, two = image.coefficients, other.coefficients
    middle = len(one) // 2  # nearly all that differ do so here, and a whole head is large
    return np.array_equal(one[middle], two[middle]) and np.array_equal(one, two)


def as_maps(image: Comparable) -> Maps:
    """Give an image's maps, each computed when first asked for, through the SH route."""
    return image if isinstance(image, Maps) else as_scan(image).at_shell().maps()


def line_up(truth: Comparable | None, predictions: Mapping[str, Comparable]) -> Comparison:
    """Bring predictions onto truth's lattice, or onto the first one's where there is no truth.

    Parameters
    ----------
    truth
        Never resampled.

    Raises
    ------
    UserError
        When there is no prediction, SH orders differ, or the brains hardly overlap.
    """
    if not predictions:
        raise UserError(
            "none was given", field="predictions", remedy=Give("predictions", "at least one")
        )
    given = {name: as_maps(image) for name, image in predictions.items()}
    true = None if truth is None else as_maps(truth)
    reference = (next(iter(given.values())) if true is None else true).image
    placed: dict[str, Maps] = {}
    mask = reference.mask
    for name, maps in given.items():
        if maps.image.order != reference.order:
            problem = f"is of SH order {maps.image.order}, the reference of {reference.order}"
            remedy = Advice("give images of one order")
            raise UserError(problem, name, field="predictions", remedy=remedy)
        own, lattice = maps.image.lattice, reference.lattice
        placed[name] = maps if own.matches(lattice) else Maps(on_lattice(maps.image, lattice))
        moved = placed[name].image.mask
        mask = mask & common_mask(
            reference.mask, lattice, moved, own, whose=name, other="the reference's"
        )
    if not mask.any():
        problem = "no voxel lies in all masks"
        remedy = Advice("give images of one region")
        raise UserError(problem, ", ".join(predictions), field="predictions", remedy=remedy)
    lattices = {name: maps.image.lattice for name, maps in given.items()}
    return Comparison(true, placed, mask, lattices)


@dataclass(frozen=True, eq=False)
class AtShell:
    """Scans of one shell that are compared, see `line_scans_up`."""

    truth: Scan | None
    predictions: Mapping[str, Scan]

    @property
    def reference(self) -> Scan:
        """Truth, else the first prediction."""
        return self.truth or next(iter(self.predictions.values()))


def split_by_shell(
    truth: Scan | None, predictions: Mapping[str, Scan]
) -> tuple[dict[int, AtShell], list[str]]:
    """Take scans of several shells apart: each shell that truth and all predictions have.

    Returns
    -------
    What can be compared by shell, lowest first, and in words what cannot be.
    """
    compared = [*([] if truth is None else [truth]), *predictions.values()]
    found: dict[int, AtShell] = {}
    for name, one in compared[0].by_shell().items():
        parts = [part for each in compared if (part := at_b_value(each, one.b_value)) is not None]
        if len(parts) == len(compared):
            first = None if truth is None else parts.pop(0)
            found[name] = AtShell(first, dict(zip(predictions, parts, strict=True)))
    if not found:
        shells = (", ".join(map(str, each.shells)) or "unknown" for each in compared)
        has = "; ".join(
            f"{called(each)} has b = {of}" for each, of in zip(compared, shells, strict=True)
        )
        unknown = [called(each) for each in compared if not each.shells]
        remedy = Advice(
            f"add BValue to the sidecar of {', '.join(unknown)}"
            if unknown
            else "give images of one b-value"
        )
        raise UserError("no shell is in all of them", has, "b_value", remedy)
    left = {
        shell: called(each)
        for each in compared
        for shell, part in each.by_shell().items()
        if not any(same_b_value(part, at.reference) for at in found.values())
    }
    return found, [
        f"b = {shell} of {whose} is not compared, as not every image has it"
        for shell, whose in left.items()
    ]


def at_b_value(scan: Scan, b_value: float | None) -> Scan | None:
    """Give the part of a scan that has a b-value to within 5 %; None where there is none."""
    if b_value is None:
        return None
    for part in scan.by_shell().values():
        known = part.b_value
        if known is not None and same_shell(known, b_value):
            return part
    return None


def line_scans_up(
    truth: Scan | None, predictions: Mapping[str, Scan], scan: Scan | None = None
) -> Comparison:
    """See that all are of one head and of one b-value, and line predictions up with truth.

    `scan` is the input, which may have another b-value.

    Raises
    ------
    UserError
        When they do not belong together, or cannot be lined up.
    """
    compared = [*([] if truth is None else [truth]), *predictions.values()]
    for other in compared:
        check_one_head(compared[0], other)
        check_same_b_value(compared[0], other)
    if compared and scan is not None:
        check_one_head(compared[0], scan)
    return line_up(truth, predictions)


def check_one_head(reference: Scan, other: Scan) -> None:
    """Refuse images of two people: see `identity`."""
    if may_be_same(reference.person, other.person):
        return
    one, two = reference.person, other.person
    whose = f"is of {two.label} but {called(reference)} is of {one.label}"
    raise UserError(
        f"{whose} of another dataset" if one.label == two.label else whose,
        called(other),
        remedy=Advice("give images of one head"),
    )


def same_b_value(first: Scan, second: Scan) -> bool:
    """Return whether two images have one known b-value, to within `B_VALUE_TOLERANCE`."""
    one, other = first.b_value, second.b_value
    return one is not None and other is not None and same_shell(other, one)


def check_same_b_value(reference: Scan, other: Scan) -> None:
    """Refuse an image of another b-value: signals then differ even in one scanner."""
    one, two = reference.b_value, other.b_value
    for scan in (reference, other):
        if scan.b_value is None:
            remedy = Advice("add BValue to the JSON file beside it")
            raise UserError("its b-value is unknown, so it has no FA", called(scan), remedy=remedy)
    if not same_b_value(reference, other):
        assert one is not None
        assert two is not None
        check_not_rescaled(other, one)
        raise UserError(
            f"has b = {two:.0f} s/mm² but {called(reference)} has {one:.0f}",
            called(other),
            remedy=either(
                Advice("give images of one b-value"),
                RunJob("harmonize", f"bring its signal to {one:.0f} s/mm² (an approximation)"),
            ),
        )


def check_not_rescaled(prediction: Scan, b_value: float) -> None:
    """Refuse what a model predicted from scans of a b-value that it does not know."""
    for part in prediction.by_shell().values():
        given = part.given_sh
        before = given.rescaled_from if isinstance(given, SHImage) else None
        if before is not None and same_shell(before, b_value):
            problem = (
                f"is at the model's b = {part.b_value:.0f} s/mm², to which the scan's {before:.0f} "
                f"was rescaled, so that no scan of b = {b_value:.0f} compares with it"
            )
            remedy = Advice(f"predict by a model that learned at b = {b_value:.0f}")
            raise UserError(problem, called(prediction), remedy=remedy)


def called(scan: Scan) -> str:
    """Name a scan in errors: its file, or in memory whose it is."""
    return str(scan.path) if scan.path is not None else scan.owner or "image in memory"
