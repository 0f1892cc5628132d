"""The Align form's choice and its findings, the work it starts, and a scan's two heads. No Qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from napari_msp.alignment.align import align, check_out
from napari_msp.alignment.report import SQUARE, AlignedScan, Alignment, distance_text
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.cubes import check_voxel_size
from napari_msp.data.dataset import (
    TravellingHeads,
    further_platforms,
    input_platform,
    open_dataset,
    why_alone,
)
from napari_msp.data.lattice import Lattice, resample
from napari_msp.errors import Advice, Overwrite, UserError
from napari_msp.formatting import counted, listed
from napari_msp.scan import Scan
from napari_msp.ui.layers import KEY, LOOKS, LayerData, map_layer, window_of
from napari_msp.ui.phrasing import FormWords, said, sentence, without_folder
from napari_msp.ui.reading import Control, Report, abandonable

LABELS: Mapping[str, str] = {
    "dataset": "&Dataset",
    "out": "&Output folder",
    "input": "&Input",
    "resample": "Ima&ges",
    "affine": "&Motion",
    "subjects": "Sub&jects",
    "voxel_size": "Cubes of (mm)",
    "run": "Scan's &run",
    "b0_threshold": "b=0 up &to",
}
"""Align's labels of its fields, which are parameters of `napari_msp.align`."""

WORDS = FormWords(LABELS)

NO_DATASET = "Choose a BIDS folder of travelling heads; it is only read."

REPLACED = "It contains an alignment, which is replaced only if you confirm."

MOST_NAMED = 3
"""Largest number of scans that are named in a message; more are counted."""

# --- What is asked for ------------------------------------------------------------------------


@dataclass(frozen=True)
class AlignChoice:
    """The form's answers: parameters of `napari_msp.align`.

    Attributes
    ----------
    dataset, out
        Dataset and output folder; None: not named yet.
    input
        Input platform; "": the one that the dataset marks.
    subjects
        Subjects to align; empty: all.
    voxel_size
        Edge of cubes in mm, or the text that was typed where it is no number.
    run, b0_threshold, affine, resample
        Parameters of `napari_msp.align`.
    """

    dataset: Path | None = None
    out: Path | None = None
    input: str = ""
    subjects: tuple[str, ...] = ()
    run: str | None = None
    b0_threshold: float | None = None
    affine: bool = False
    resample: bool = False
    voxel_size: float | str | None = None

    @property
    def interpolates(self) -> bool:
        """Whether images are interpolated, without which no stretch can be shown."""
        return self.resample or self.voxel_size is not None

    @property
    def source(self) -> tuple[Path | None, str | None, float | None]:
        """The choices that determine which scans there are."""
        return self.dataset, self.run, self.b0_threshold


@dataclass(frozen=True)
class AlignFindings:
    """Findings about a choice.

    Attributes
    ----------
    choice
        Choice, with input and output folder filled in where they were left open.
    heads
        The dataset; None where there is none.
    offered
        Output folder that was filled in.
    problems, doubts, notes
        Texts by field of `AlignChoice`; a problem prevents the alignment.
    """

    choice: AlignChoice = AlignChoice()
    heads: TravellingHeads | None = None
    offered: Path | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether the scans can be aligned."""
        return self.heads is not None and not self.problems


def examine(choice: AlignChoice, known: AlignFindings | None = None) -> AlignFindings:
    """Examine a choice; no voxel is read.

    Parameters
    ----------
    choice
        Choice of the form.
    known
        Earlier findings: their dataset is not listed again, and the folder that they offered gives
        way to another.
    """
    if choice.dataset is None:
        return AlignFindings(choice, notes={"dataset": NO_DATASET})
    known = known or AlignFindings()
    heads = known.heads if known.choice.source == choice.source else None
    try:
        if heads is None:
            heads = open_dataset(choice.dataset, run=choice.run, b0_threshold=choice.b0_threshold)
    except UserError as error:
        at = "dataset" if error.field is None or error.field not in LABELS else error.field
        return AlignFindings(choice, problems={at: said(error, WORDS)})
    return _about(heads, choice, known.offered)


def _about(heads: TravellingHeads, choice: AlignChoice, offered: Path | None) -> AlignFindings:
    """Fill in what was left open, and find what is wrong with the rest."""
    problems: dict[str, str] = {}
    notes: dict[str, str] = {}
    root = heads.root.absolute()
    if choice.out in (None, offered):
        offered = root.with_name(f"{root.name}-aligned")
        choice = replace(choice, out=offered)
    if choice.input not in heads.platforms:
        choice = replace(choice, input="")
        try:
            choice = replace(choice, input=input_platform(heads))
        except UserError:
            problems["input"] = "Choose the platform to align the others with"
    subjects = tuple(each for each in choice.subjects if each in heads.subjects)
    choice = replace(choice, subjects=subjects)
    people, platforms = len(heads.subjects), len(heads.platforms)
    notes["dataset"] = f"{counted(people, 'subject')} on {counted(platforms, 'platform')}."
    notes["subjects"] = "All, unless some are ticked."
    lacking = [each for each in heads.subjects if not heads.has(each, choice.input)]
    if choice.input and lacking:
        notes["input"] = f"{listed(lacking)} will be left out: no scan on {choice.input}."
    if platforms == 1 and choice.voxel_size is None:
        alone = (
            f"All scans are on {heads.platforms[0]}{why_alone(heads)}: there is nothing to align"
        )
        remedy = further_platforms(heads, Advice("add those of another, or choose cubes"))
        problems["dataset"] = said(UserError(alone, remedy=remedy), WORDS)
    assert choice.out is not None
    try:
        check_out(choice.out, root, force=False)
    except UserError as error:
        if isinstance(error.remedy, Overwrite):
            notes["out"] = REPLACED
        else:
            problems["out"] = said(error, WORDS)
    if choice.voxel_size is not None:
        try:
            check_voxel_size(choice.voxel_size)  # type: ignore[arg-type]  # it is what it refuses
        except UserError as error:
            problems["voxel_size"] = said(error, WORDS)
    doubts = {"dataset": without_folder("\n".join(heads.notes), heads.root)} if heads.notes else {}
    return AlignFindings(choice, heads, offered, problems, doubts, notes)


# --- The work ---------------------------------------------------------------------------------


def align_heads(choice: AlignChoice, force: bool, control: Control) -> Alignment:
    """Align as the form says; reports a `Report` for each scan. A core is left to the window.

    Parameters
    ----------
    choice
        Choice that was found ready.
    force
        Replace an earlier alignment.
    control
        Control of the job.

    Raises
    ------
    UserError, Cancelled
        See `napari_msp.align`.
    """
    from threadpoolctl import threadpool_limits

    def progress(scan: str, done: int, total: int) -> None:
        control.report(Report(f"{scan} is done", done, total))

    assert choice.dataset is not None
    assert choice.out is not None
    control.say("Reading the first head")
    with threadpool_limits(1, user_api="blas"):
        return align(
            choice.dataset,
            choice.out,
            input=choice.input or None,
            subjects=choice.subjects,
            run=choice.run,
            b0_threshold=choice.b0_threshold,
            affine=choice.affine and choice.interpolates,
            resample=choice.resample,
            voxel_size=choice.voxel_size,  # type: ignore[arg-type]  # checked before
            force=force,
            progress=progress,
            cancelled=control.cancelled,
        )


def summary(alignment: Alignment) -> str:
    """Return the result in a sentence or two."""
    after = [scan.after.distance for scan in alignment.scans if scan.after is not None]
    away = [each for each in after if each is not None]
    lost = [scan.name for scan in alignment.scans if scan.image is None]
    words = [f"{counted(len(after), 'scan')} aligned with {alignment.input_platform}"]
    if len(away) == 1:
        words.append(f"now {distance_text(away[0])} voxels away")
    elif away:
        median, most = (distance_text(float(each)) for each in (np.median(away), max(away)))
        in_median = f" in median, {most}" if median != most else ""
        words.append(f"now {median} voxels away{in_median} at most")
    left_out = f" Left out: {some(lost)}." if lost else ""
    return f"{', '.join(words)}.{left_out}"


def remarks(alignment: Alignment, warned: Sequence[str], dataset: Path) -> list[str]:
    """Return all doubts as sentences, each once: findings, and warnings on the way."""
    places: dict[str, list[str]] = {}
    for finding in alignment.findings:
        places.setdefault(finding.message(WORDS), []).append(finding.where)
    found = [f"{some(where)}: {message}" for message, where in places.items()]
    texts = (without_folder(text, dataset) for text in dict.fromkeys([*found, *warned]))
    return [sentence(text) for text in texts]


def some(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others.

    Examples
    --------
    >>> some(["a", "b"]), some(list("abcdefg"))
    ('a and b', 'a, b, c and 4 others')
    """
    if len(names) <= MOST_NAMED + 1:
        return listed(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} others"


# --- The heads of a scan ----------------------------------------------------------------------

View = Literal["input", "before", "after"]

INPUT, BEFORE, AFTER = "b0", "b0 before", "b0 after"
BOARDS: Mapping[str, str] = {
    BEFORE: "checkerboard before",
    AFTER: "checkerboard after",
}
"""Quantities of checkerboards, by those of b=0 images: their squares come from the input and from
the scan in turn. They are the last parts of layers' names."""


def quantity_of(view: View, board: bool) -> str:
    """Return the quantity that is shown.

    Examples
    --------
    >>> quantity_of("after", True), quantity_of("input", True)
    ('checkerboard after', 'b0')
    """
    quantity = {"input": INPUT, "before": BEFORE, "after": AFTER}[view]
    return BOARDS.get(quantity, quantity) if board else quantity


def head_layers(
    choice: AlignChoice, alignment: Alignment, scan: AlignedScan, control: Control
) -> dict[str, LayerData]:
    """Return the input's b=0 and that of a scan, before and after, as layers by what they show.

    All lie on the input's axes, where they are aligned: on its lattice, divided where the scan is
    finer. They are pictures to look at; no scan stands behind them.

    Parameters
    ----------
    choice
        Choice by which it was aligned.
    alignment
        Alignment whose files are read.
    scan
        Scan of the alignment that was written.
    control
        Control of the job.
    """
    assert choice.dataset is not None
    made = open_dataset(alignment.out, b0_threshold=choice.b0_threshold)
    fixed = made.acquisition(scan.subject, alignment.input_platform)
    control.say(f"Reading {scan.subject} {alignment.input_platform}")
    still = abandonable(lambda: fixed.b0, control.check)
    named = Scan(acquisition=fixed, path=fixed.path)
    looks = LOOKS[INPUT][1]
    limits = window_of(still[fixed.mask], looks)
    layers = {INPUT: _picture(named, INPUT, still, fixed.lattice, limits)}
    if scan.platform == alignment.input_platform:
        return layers
    control.say(f"Reading {scan.name}")
    moved = made.acquisition(scan.subject, scan.platform)
    values = abandonable(lambda: moved.b0, control.check)
    given = open_dataset(choice.dataset, run=choice.run, b0_threshold=choice.b0_threshold)
    old = given.acquisition(scan.subject, scan.platform)
    # Where only the affine was rewritten the voxels are the same.
    before = values if scan.clipped is None else abandonable(lambda: old.b0, control.check)
    ratio = fixed.lattice.voxel_sizes.mean() / moved.lattice.voxel_sizes.mean()
    lattice = fixed.lattice.refined(max(1, round(float(ratio))))
    window = window_of(values[moved.mask], looks)
    under = _scaled(resample(still, fixed.lattice, lattice), limits)
    squares = board(lattice)
    named = Scan(acquisition=moved, path=moved.path)
    for quantity, array, source in ((BEFORE, before, old.lattice), (AFTER, values, moved.lattice)):
        control.say(f"Comparing {scan.name} with the input")
        shown = resample(array, source, lattice)
        mixed = np.where(squares, under, _scaled(shown, window))
        layers[quantity] = _picture(named, quantity, shown, lattice, window)
        layers[BOARDS[quantity]] = _picture(named, BOARDS[quantity], mixed, lattice, (0.0, 1.0))
    return layers


def board(lattice: Lattice) -> MaskArray:
    """Return a checkerboard, (X, Y, Z), true in every other cube of `SQUARE` mm."""
    steps = (
        np.floor(np.arange(count) * size / SQUARE)
        for count, size in zip(lattice.shape, lattice.voxel_sizes, strict=True)
    )
    x, y, z = np.meshgrid(*steps, indexing="ij", sparse=True)
    squares: MaskArray = (x + y + z) % 2 == 0
    return squares


def _scaled(values: FloatArray, limits: tuple[float, float]) -> FloatArray:
    low, high = limits
    scaled: FloatArray = np.clip((values - low) / (high - low), 0, 1)
    return scaled


def _picture(
    scan: Scan, quantity: str, values: FloatArray, lattice: Lattice, limits: tuple[float, float]
) -> LayerData:
    """Return a hidden layer without a scan: on another's lattice, it must not be saved as one.

    It has letters nevertheless, like all images of heads.
    """
    everywhere = np.ones(lattice.shape, dtype=bool)
    data, options, kind = map_layer(
        scan, quantity, values, lattice=lattice, mask=everywhere, limits=limits, visible=False
    )
    options["metadata"][KEY] = None
    return data, options, kind
