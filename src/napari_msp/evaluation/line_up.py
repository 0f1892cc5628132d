"""Bring predictions of one head and one b-value onto one lattice, to be judged on one mask."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from napari_msp.alignment.registration import SURE, find_displacement
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.contradictions import NOTABLE_B_VALUE, in_tissue
from napari_msp.data.gradients import same_shell, shell_name
from napari_msp.data.lattice import (
    Lattice,
    averaging_widths,
    resample,
    resample_with_mask,
)
from napari_msp.data.masks import common_mask
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, Give, RunJob, UserError, either
from napari_msp.formatting import listed
from napari_msp.identity import may_be_same
from napari_msp.image_files import map_beside
from napari_msp.scan import Scan
from napari_msp.scan_sources import ScanLike, as_scan
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage

AS_STORED, REORDERED = "as stored", "reordered"
"""Placements that change no number."""

LEAST_SHARED = 0.98
"""Share of the voxels in which truth and all other predictions have brain that a prediction must
cover, or a note is given: the others are not judged on the rest either (our choice)."""

LEAST_MEASURED = 0.9
"""The same for two images alone, and for truth: edges differ by a few percent (our choice)."""


def on_lattice(image: SHImage, lattice: Lattice) -> SHImage:
    """Resample an SH image onto another lattice; `placement` says in words how.

    Coefficients are in scanner axes, so they need no rotation. Voxels that only stand in another
    order are reordered, bit for bit; all others are interpolated linearly between in-mask voxels,
    finer ones averaged before.

    Returns
    -------
    SHImage
        Has the lattice's shape and affine; 0 outside the mask.
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
    own = image.lattice
    coefficients, mask = resample_with_mask(image.coefficients, image.mask, own, lattice)
    coefficients[~mask] = 0
    return replace(image, coefficients=coefficients, mask=mask, affine=lattice.affine)


def map_onto(
    values: FloatArray, mask: MaskArray, source: Lattice, lattice: Lattice
) -> tuple[FloatArray, MaskArray]:
    """Interpolate a map, with or without a channel axis, linearly between in-mask voxels.

    Return the map on `lattice`, 0 where it has no value, and the mask of where it has one.
    """
    channels = values if values.ndim == 4 else values[..., None]
    found, inside = resample_with_mask(channels, mask, source, lattice)
    found = np.where(inside[..., None], found, 0)
    return found if values.ndim == 4 else found[..., 0], inside


def placement(source: Lattice, target: Lattice) -> str:
    """Return in words what `on_lattice` does between two lattices, such as "reordered"."""
    if source.matches(target):
        return AS_STORED
    if source.canonical.matches(target.canonical):
        return REORDERED
    sizes = source.size_in_words, target.size_in_words
    if sizes[0] == sizes[1]:
        return f"interpolated linearly, as {_what_differs(source, target)} (both {sizes[0]})"
    how = "averaged and interpolated" if averaging_widths(source, target).any() else "interpolated"
    return f"{how} linearly from {sizes[0]} to {sizes[1]}"


def _what_differs(source: Lattice, target: Lattice) -> str:
    """Return in words how two lattices with voxels of one size differ."""
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
    return f"its voxels are {shift:.2f} mm off the others"


Comparable = ScanLike | Maps
"""Images that can be compared. Maps that a scan has already computed are not computed again."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Predictions, and where it exists the truth, on one lattice.

    Attributes
    ----------
    truth
        Truth, never resampled; None where there is none. All tensors come through the SH series,
        for truth and predictions alike.
    predictions
        Maps by name, on the lattice of truth or, without truth, of the first prediction.
    mask
        (X, Y, Z) voxels in every mask: all predictions are judged on the same voxels.
    lattices
        Lattices by name, on which the predictions lay before.
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
        """How each prediction was brought onto the lattice, by name."""
        return {name: placement(own, self.lattice) for name, own in self.lattices.items()}

    @property
    def interpolated(self) -> list[str]:
        """Predictions that were interpolated onto the reference's voxels, and how, in words."""
        return [
            f"{name} was {how}"
            for name, how in self.placements.items()
            if how not in (AS_STORED, REORDERED)
        ]

    @property
    def _images(self) -> dict[str, SHImage]:
        truth = {} if self.truth is None else {"the ground truth": self.truth}
        return {name: maps.image for name, maps in {**truth, **self.predictions}.items()}

    @cached_property
    def left_out(self) -> list[str]:
        """Images without brain where all others have it, where none is judged then, in words."""
        masks = {name: image.mask for name, image in self._images.items()}
        found = []
        for name in masks if len(masks) > 1 else ():
            others = np.logical_and.reduce([masks[each] for each in masks if each != name])
            there, lost = int(others.sum()), int((others & ~masks[name]).sum())
            one_of_several = name in self.predictions and len(self.predictions) > 1
            if lost > (1 - (LEAST_SHARED if one_of_several else LEAST_MEASURED)) * there:
                share = f"{lost:,} of {there:,} voxels ({100 * lost / there:.0f} %)"
                found.append(
                    f"{name} has no brain in {share} of the others: these voxels are not measured"
                )
        return found

    @property
    def doubts(self) -> list[str]:
        """Why the numbers may mislead, in words: voxels left out, and b-values that differ."""
        b_values = {name: image.b_value for name, image in self._images.items()}
        return [*self.left_out, *b_values_apart(b_values)]

    @cached_property
    def misplaced(self) -> list[str]:
        """Predictions that, by registration, lie beside the truth or are of another head, in words.

        The truth is of another head if all predictions are unlike it; one alone may just be poor.
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
        """Lattice of all its voxels: the reference's."""
        return self.reference.lattice


def doubt_maps(
    sources: Mapping[str, Scan],
    comparison: Comparison,
    kind: Literal["disagreement", "expected_error"],
) -> dict[str, FloatArray]:
    """Return maps of the predictions' doubt, from memory or files, on the comparison's lattice.

    Raises
    ------
    UserError
        When a file is not a map.
    """
    found: dict[str, FloatArray] = {}
    for name, source in sources.items():
        values = getattr(source, kind, None)  # of a `Prediction`, whose module loads torch
        lattice = source.lattice
        beside = None
        if source.path is not None:
            shell = shell_name(source.b_value or 0)
            beside = map_beside(source.path, kind.replace("_", ""), shell)
        if values is None and beside is not None and beside.exists():
            image = open_nifti(beside)
            values = read_voxels(image, beside)
            if values.ndim != 3:
                problem = f"a map of {kind.replace('_', ' ')} has three axes"
                raise UserError(problem, beside, remedy=Advice("write it again"))
            lattice = lattice_of(image)
        if values is not None:
            found[name] = resample(values, lattice, comparison.lattice)
    return found


def unlike(other: str, correlation: float) -> str:
    """Return a note that a scan may be of another head than `other`, say "sub-01 on prisma_st"."""
    return (
        f"resembles {other} less than scans of one head resemble each other (correlation "
        f"{correlation:.2f} once aligned): are both of the same person, and corrected alike?"
    )


def doubts_of_truth(truth: Scan | None, comparison: Comparison) -> list[str]:
    """Return notes where errors mean little: truth is predicted, or is the prediction itself."""
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
    """Return an image's maps, each computed when first asked for, through the SH series."""
    return image if isinstance(image, Maps) else as_scan(image).at_shell().maps("sh")


def line_up(truth: Comparable | None, predictions: Mapping[str, Comparable]) -> Comparison:
    """Bring predictions onto the lattice of truth or, without truth, of the first prediction.

    Parameters
    ----------
    truth
        Truth, never resampled; may be None.

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
            problem = f"has SH order {maps.image.order}, but the reference has {reference.order}"
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
    """Scans of one shell that are compared with each other, see `line_scans_up`."""

    truth: Scan | None
    predictions: Mapping[str, Scan]

    @property
    def reference(self) -> Scan:
        """Truth, else the first prediction."""
        return self.truth or next(iter(self.predictions.values()))


def split_by_shell(
    truth: Scan | None, predictions: Mapping[str, Scan]
) -> tuple[dict[int, AtShell], list[str]]:
    """Split scans by shell, and keep each shell that truth and all predictions have.

    Returns
    -------
    Comparable scans by shell, lowest first, and notes on shells that cannot be compared.
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
            f"{name_in_errors(each)} has b = {of}"
            for each, of in zip(compared, shells, strict=True)
        )
        unknown = [name_in_errors(each) for each in compared if not each.shells]
        add = f"add BValue to the sidecar of {', '.join(unknown)}"
        remedy = Advice(add if unknown else "give images of one b-value")
        raise UserError("no shell is in all of them", has, "b_value", remedy)
    left = {
        shell: name_in_errors(each)
        for each in compared
        for shell, part in each.by_shell().items()
        if not any(same_b_value(part, at.reference) for at in found.values())
    }
    return found, [
        f"b = {shell} of {whose} is not compared, as not every image has it"
        for shell, whose in left.items()
    ]


def at_b_value(scan: Scan, b_value: float | None) -> Scan | None:
    """Return the part of a scan at a b-value, to within 5 %; None where there is none."""
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
    """Check that all are of one head and one b-value, and bring predictions onto truth's lattice.

    `scan` is the input, which may have another b-value.

    Raises
    ------
    UserError
        When they do not belong together, or cannot be brought onto one lattice.
    """
    compared = [*([] if truth is None else [truth]), *predictions.values()]
    for other in compared:
        check_one_head(compared[0], other)
        check_same_b_value(compared[0], other)
    if compared and scan is not None:
        check_one_head(compared[0], scan)
    return line_up(truth, predictions)


def check_one_head(reference: Scan, other: Scan) -> None:
    """Refuse images of two people, see `identity`."""
    if may_be_same(reference.person, other.person):
        return
    one, two = reference.person, other.person
    whose = f"is of {two.label} but {name_in_errors(reference)} is of {one.label}"
    whose += " of another dataset" if one.label == two.label else ""
    raise UserError(whose, name_in_errors(other), remedy=Advice("give images of one head"))


def b_values_apart(b_values: Mapping[str, float | None]) -> list[str]:
    """Return, in words, which images of one shell have another b-value than the first one."""
    known = {name: each for name, each in b_values.items() if each is not None}
    first = next(iter(known), "")
    return [
        f"{name} has b = {known[name]:.0f} s/mm², {first} {known[first]:.0f}: this alone changes "
        f"S/S0 by about {in_tissue(known[name] - known[first])}"
        for name in known
        if abs(known[name] / known[first] - 1) > NOTABLE_B_VALUE
    ]


def same_b_value(first: Scan, second: Scan) -> bool:
    """Return whether two images have one known b-value, to within `B_VALUE_TOLERANCE`."""
    one, other = first.b_value, second.b_value
    return one is not None and other is not None and same_shell(other, one)


def check_same_b_value(reference: Scan, other: Scan) -> None:
    """Refuse an image of another b-value: its signal would differ even in the same scanner."""
    one, two = reference.b_value, other.b_value
    if one is None or two is None:
        unknown = name_in_errors(reference if one is None else other)
        remedy = Advice("add BValue to the JSON file beside it")
        raise UserError("its b-value is unknown, so it has no FA", unknown, remedy=remedy)
    if not same_shell(two, one):
        check_not_rescaled(other, one)
        problem = f"has b = {two:.0f} s/mm² but {name_in_errors(reference)} has {one:.0f}"
        rescale = f"bring its signal to {one:.0f} s/mm² (an approximation)"
        ways = either(Advice("give images of one b-value"), RunJob("harmonize", rescale))
        raise UserError(problem, name_in_errors(other), remedy=ways)


def check_not_rescaled(prediction: Scan, b_value: float) -> None:
    """Refuse a prediction from scans that were rescaled from a b-value unknown to the model."""
    for part in prediction.by_shell().values():
        given = part.given_sh
        before = given.rescaled_from if isinstance(given, SHImage) else None
        if before is not None and same_shell(before, b_value):
            problem = (
                f"is at the model's b = {part.b_value:.0f} s/mm², to which the scan's {before:.0f} "
                f"was rescaled, so it cannot be compared with a scan of b = {b_value:.0f}"
            )
            remedy = Advice(f"predict with a model trained at b = {b_value:.0f}")
            raise UserError(problem, name_in_errors(prediction), remedy=remedy)


def name_in_errors(scan: Scan) -> str:
    """Return a scan's name in errors: its file or, if in memory, its owner."""
    return str(scan.path) if scan.path is not None else scan.owner or "image in memory"
