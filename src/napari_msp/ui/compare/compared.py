"""A comparison: scans of one head, lined up, and the contents of their cells.

No Qt here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import same_shell
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.figures.grid import Cells, cells
from napari_msp.evaluation.figures.slices import slice_position
from napari_msp.evaluation.line_up import (
    Comparison,
    doubt_maps,
    doubts_of_truth,
    line_scans_up,
    on_lattice,
    same_b_value,
)
from napari_msp.evaluation.measures.catalogue import measure_mapped
from napari_msp.evaluation.measures.pair import Metrics
from napari_msp.formatting import numbered
from napari_msp.provenance import BROUGHT_BACK, STAGES
from napari_msp.scan import Scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import MAPS, Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.choices import OnDisk, at_shell_of
from napari_msp.ui.layers import apart

BEFORE = "before"
"""Key of the input itself among the measurements."""


@dataclass(frozen=True, eq=False)
class Question:
    """The images to compare.

    Attributes
    ----------
    truth
        Scan, one that is still to be read, or None.
    predictions
        One to four predictions, in the order of their columns.
    scan
        The input, loaded or not; None where there is none to show.
    """

    truth: Scan | OnDisk | None
    predictions: Sequence[Scan]
    scan: Scan | OnDisk | None


@dataclass(frozen=True)
class Part:
    """The part of a prediction that is shown in its place.

    Attributes
    ----------
    words
        Text such as "first stage".
    alpha
        α of equation (1), where it differs from the prediction's own.
    """

    words: str
    alpha: float | None = None


def mixed(alpha: float) -> Part:
    """Return a prediction's second stage at another α."""
    return Part(f"α={alpha:.2f}", alpha)


@dataclass(frozen=True, eq=False)
class Image:
    """One of the images of a comparison.

    Attributes
    ----------
    role
        Role of the image.
    name
        Short name of a prediction; "" for others.
    title
        Title in tabs; it changes with α.
    maps
        Maps on the comparison's lattice; the input's are on its own.
    """

    role: Literal["truth", "prediction", "input"]
    name: str
    title: str
    maps: Maps


@dataclass(frozen=True, eq=False)
class Compared:
    """Scans lined up.

    Attributes
    ----------
    truth, scan
        Ground truth and input; None where there is none.
    predictions
        Predictions by the short name of their cells.
    comparison
        Images of all on one lattice.
    disagreement
        Disagreement by prediction, (X, Y, Z) on the comparison's lattice, where a model has it.
    expected_error
        Expected error by prediction, likewise, in SH units², where a model is calibrated.
    before
        Input on the comparison's lattice; None where it cannot be measured.
    misplaced
        Texts about predictions that lie beside the truth.
    variants
        Parts that are shown in place of predictions, by prediction.
    """

    truth: Scan | None
    predictions: Mapping[str, Scan]
    scan: Scan | None
    comparison: Comparison
    disagreement: Mapping[str, FloatArray]
    expected_error: Mapping[str, FloatArray] = field(default_factory=dict)
    before: Maps | None = None
    misplaced: Sequence[str] = ()
    variants: Mapping[str, Part] = field(default_factory=dict)

    @property
    def scan_maps(self) -> Maps | None:
        """Maps of the input, on its own lattice."""
        return None if self.scan is None else self.scan.maps("sh")

    @property
    def reservations(self) -> list[str]:
        """Texts about what was done to images, and warnings from their making."""
        found = self.comparison.interpolated
        of: dict[str, list[str]] = {}
        for name, scan in self.predictions.items():
            made = scan.provenance
            for words in () if made is None else (*made.approximations, *made.said):
                of.setdefault(words, []).append(name)
        found += [f"{', '.join(names)}: {words}" for words, names in of.items()]
        doubts = doubts_of_truth(self.truth, self.comparison)
        return [*doubts, *self.comparison.doubts, *self.misplaced, *found]

    @property
    def interpolated_names(self) -> list[str]:
        """Names of predictions that are not seen in the voxels in which the network gave them."""
        to, own = self.comparison.lattice.canonical, self.comparison.lattices
        return [
            name
            for name in self.predictions
            if not own[name].canonical.matches(to) or self._brought_back(name)
        ]

    def _brought_back(self, name: str) -> bool:
        made = self.predictions[name].provenance
        return made is not None and BROUGHT_BACK in made.approximations

    @property
    def input_b_value(self) -> str:
        """b-value of the input, in words, if it differs from the predictions'; else ""."""
        scan, made = self.scan, next(iter(self.predictions.values()))
        if scan is None or scan.b_value is None or made.b_value is None:
            return ""
        if scan.sh.rescaled_from is not None:
            return f"rescaled from b = {scan.sh.rescaled_from:.0f} to {scan.b_value:.0f}"
        return "" if same_b_value(made, scan) else f"at b = {scan.b_value:.0f}"

    @property
    def input_title(self) -> str:
        """Title of the input beside predictions; "" where there is none."""
        if self.scan is None:
            return ""
        at = f" ({self.input_b_value})" if self.input_b_value else ""
        return f"input {self.scan.name}{at}"

    @property
    def scans_in_words(self) -> list[str]:
        """Names of the measured scans, as "ground truth: sub-01 prisma_st", and the b-value."""
        roles = (("ground truth", self.truth), ("input", self.scan))
        scans = [f"{role}: {scan.owner}{apart(scan)}" for role, scan in roles if scan is not None]
        made = next(iter(self.predictions.values())).b_value
        if self.input_b_value:
            scans[-1] += f", {self.input_b_value} s/mm² (predictions: b = {made:.0f})"
        elif made is not None:
            scans.append(f"b = {made:.0f} s/mm²")
        return scans

    @cached_property
    def seen(self) -> Mapping[str, Scan]:
        """Scans that the predictions' cells show, and that are saved from them."""
        images = self.comparison.predictions
        return {
            name: part_of(scan, self.variants[name], images[name].image)
            if name in self.variants
            else scan
            for name, scan in self.predictions.items()
        }

    def title(self, name: str) -> str:
        """Return a prediction's name with the part that is shown, such as "MSP first stage"."""
        return f"{name} {self.variants[name].words}" if name in self.variants else name

    @property
    def images(self) -> list[Image]:
        """Truth, predictions and input, as far as there are any."""
        lined_up = self.comparison
        found = [
            Image("prediction", name, self.title(name), maps)
            for name, maps in lined_up.predictions.items()
        ]
        if self.truth is not None and lined_up.truth is not None:
            found.insert(0, Image("truth", "", f"truth {self.truth.name}", lined_up.truth))
        if self.scan is not None:
            found.append(Image("input", "", self.input_title, self.scan.maps("sh")))
        return found

    def cells(self, name: str) -> Cells:
        """Return both rows of a map, by its name in `MAPS`."""
        doubts = self.disagreement, self.expected_error
        return cells(self.comparison, name, self.scan_maps, *doubts)

    def measured(self, name: str) -> Metrics | None:
        """Measure a prediction, or the input as `BEFORE`; None where that is impossible."""
        truth = self.comparison.truth
        maps = self.before if name == BEFORE else self.comparison.predictions[name]
        if truth is None or maps is None:
            return None
        return measure_mapped(maps, truth, self.comparison.mask & maps.image.mask)

    def error_before(self, name: str) -> float | None:
        """Return the input's mean error of a map, by its name in `MAPS`."""
        truth, chosen = self.comparison.truth, MAPS[name]
        if truth is None or self.before is None:
            return None
        mask = self.comparison.mask & self.before.image.mask
        error = chosen.error(self.before[name], truth[name], mask)
        return float(error[mask].mean(dtype=float))

    @property
    def file_stem(self) -> str:
        """Beginning of the names of files about it, such as "sub-01_DIQT_MSP-first-stage"."""
        subject = next(iter(self.predictions.values())).subject
        return "_".join(
            [subject, *(self.title(each).replace(" ", "-") for each in self.predictions)]
        )

    def caption(self, plane: str, index: int) -> str:
        """Return a caption: which heads and slice a figure shows, and labels of models.

        A reader who has the figure without its file name must be able to tell.
        """
        made = list(self.predictions.values())
        words = self.scans_in_words
        if self.truth is None:
            words.append("predicted: " + ", ".join(dict.fromkeys(each.owner for each in made)))
        words.append(f"{plane} slice at {slice_position(self.comparison.lattice, plane, index)}")
        labels: dict[str, list[str]] = {}
        for name, scan in self.predictions.items():
            if scan.provenance is not None and scan.provenance.label:
                labels.setdefault(scan.provenance.label, []).append(name)
        if self.truth is not None:
            words.append("numbers above errors: means over the whole mask")
        back = [f"{name}: {BROUGHT_BACK}" for name in self.predictions if self._brought_back(name)]
        words += [*self.comparison.interpolated, *back]
        return " · ".join([*words, *(f"{', '.join(of)}: {label}" for label, of in labels.items())])

    def save_figure(
        self, path: Path, shown: str, plane: str, index: int, *, signed: bool = False
    ) -> None:
        """Draw and write Figure 3 of one slice, in the format of the path's suffix.

        Parameters
        ----------
        path
            Path that ends in .png, .pdf or .svg.
        shown
            Name of a map that is added to those of the paper.
        plane, index
            Plane and number of the slice.
        signed
            Show prediction minus truth in place of squared errors, where that has a sign.

        Raises
        ------
        UserError
            If the suffix is another, the slice has no brain, or the folder cannot be written to.
        """
        from napari_msp.evaluation.figures.layout import check_format, write_figure
        from napari_msp.evaluation.figures.paper import SHOWN, figure3

        check_format(path)
        predictions = {self.title(name): each for name, each in self.comparison.predictions.items()}
        figure = figure3(
            replace(self.comparison, predictions=predictions),
            self.scan_maps,
            maps=tuple(dict.fromkeys((*SHOWN, shown))),
            axis=plane,
            slice_index=index,
            disagreement={self.title(name): each for name, each in self.disagreement.items()},
            expected_error={self.title(name): each for name, each in self.expected_error.items()},
            signed=signed,
            caption=self.caption(plane, index),
        )
        write_figure(path, figure)

    def with_prediction(self, name: str, image: SHImage, part: Part | None) -> Compared:
        """Put another image, on the comparison's lattice, in a prediction's place; None: itself."""
        others = {each: kept for each, kept in self.variants.items() if each != name}
        predictions = {**self.comparison.predictions, name: Maps(image)}
        return replace(
            self,
            comparison=replace(self.comparison, predictions=predictions),
            variants=others if part is None else {**others, name: part},
        )


def read_and_line_up(question: Question, say: Callable[[str], None]) -> Compared:
    """Read what is still on disk, check that all belong together, and line them up.

    Parameters
    ----------
    question
        Images to compare.
    say
        Called with what is being done.

    Raises
    ------
    UserError
        If the images are of several heads or b-values, or cannot be lined up.
    """
    if not question.predictions:
        raise UserError("none is chosen", field="predictions", remedy=Advice("tick at least one"))
    truth, scan = question.truth, question.scan
    b_value = question.predictions[0].b_value
    if isinstance(truth, OnDisk):
        say(f"Reading {truth.owner}")
        truth = truth.read(b_value)
    elif truth is not None:
        truth = at_shell_of(truth, b_value)
    if isinstance(scan, OnDisk):
        say(f"Reading {scan.owner}")
        scan = scan.read(question.predictions[0].sh.rescaled_from or b_value)
    elif scan is not None:
        scan = as_networks_got_it(at_shell_of(scan, b_value), question.predictions)
    say("Lining images up")
    predictions = short_names(question.predictions)
    comparison = line_scans_up(truth, predictions, scan)
    if truth is not None:
        say("Checking that the heads are aligned")
    return Compared(
        truth,
        predictions,
        scan,
        comparison,
        doubt_maps(predictions, comparison, "disagreement"),
        doubt_maps(predictions, comparison, "expected_error"),
        _before(truth, scan, comparison),
        comparison.misplaced,
    )


def part_of(scan: Scan, part: Part, image: SHImage) -> Scan:
    """Return the part in a prediction's place, such as its first stage, as a prediction itself."""
    made = scan.provenance
    if made is not None and part.words == STAGES["first"].strip():
        made = replace(made, stage="first")
    elif made is not None:
        made = replace(made, title=f"{made.title} {part.words}", alpha=part.alpha)
    return Scan(given_sh=image, given_subject=scan.subject, provenance=made)


def as_networks_got_it(scan: Scan, predictions: Sequence[Scan]) -> Scan:
    """Rescale an input to the predictions' b-value if they were made from a rescaled signal."""
    own, made = scan.acquisition, predictions[0].sh
    before = made.rescaled_from
    if own is None or before is None or scan.b_value is None or made.b_value is None:
        return scan
    if not same_shell(scan.b_value, before):
        return scan
    sh = fit_sh(own, b_value=scan.b_value, order=scan.sh.order, rescale_to=made.b_value)
    return replace(scan, given_sh=sh)


def short_names(scans: Sequence[Scan]) -> dict[str, Scan]:
    """Return scans by names as short as tells them apart: "MSP" rather than "MSP prisma_st"."""
    names = [scan.name or scan.subject for scan in scans]
    labels = [scan.label or name for scan, name in zip(scans, names, strict=True)]
    told = labels if len(set(labels)) == len(set(names)) else names
    return numbered(zip(told, scans, strict=True))


def _before(truth: Scan | None, scan: Scan | None, comparison: Comparison) -> Maps | None:
    """Return the input's maps on truth's lattice; None where the two cannot be compared."""
    if truth is None or scan is None or not same_b_value(truth, scan):
        return None
    if scan.sh.order != truth.sh.order:
        return None
    return Maps(on_lattice(scan.sh, comparison.lattice))
