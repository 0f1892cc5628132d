"""Check that b-vectors fit the image: their rows its volumes, and their axes its fibres.

Fibre directions change least along fibres. That holds in any brain and needs no other scan, so it
reveals swapped, cycled and mirrored axes and large turns (Schilling 2019 and Jeurissen 2014 use the
same fact differently). Another scan of the same head reveals smaller turns: fibres must point the
same way in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from napari_msp.arrays import FloatArray
from napari_msp.checking.gradients import Correction, judge_order
from napari_msp.checking.summary import Finding, ScanSummary, TableInFile, warning
from napari_msp.checking.turns import (
    AXIS_ORDERS,
    FIBRE_VOXELS,
    LEAST_LINEAR,
    NO_TURN,
    TurnEvidence,
    angle,
    as_said,
    coherence_of,
    describe,
    nearest_order,
    principal,
    snap_to_axes,
)
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import (
    B0_MAXIMUM,
    GradientTable,
    image_to_scanner_axes,
    scanner_to_image_axes,
)
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, Give, Remedy, either

SURE = 4.0
"""Standard errors by which turned b-vectors must fit better for the given ones to be called wrong.
Correct tables stay below 2 (measured)."""

LEAST_TURN_ALONE = 12.0
"""Smallest turn in degrees that is detected from one scan alone. Its fibres determine the frame to
7° in whole heads, as anatomy differs between axes (measured)."""

LEAST_TURN = 3.0
"""Turn in degrees between two scans below which it is attributed to distortion (our choice)."""

LEAST_AGREEMENT = 0.6
"""Mean squared cosine of two scans' fibres, at the best turn, below which the comparison is
meaningless (our choice; 1/3 is chance, scans of one simulated head reach 0.97)."""

ELSEWHERE = 45.0
"""Degrees from a turn from which others are its rivals, not its neighbours (our choice)."""

FAULT_COST = 2.5
"""Standard errors of evidence that each table called wrong must be worth (our choice): of two
explanations the one with fewer wrong tables wins. All tables of a head wrong alike is one fault."""

DECIDED = 2.0
"""Lead over the next explanation from which one is reported as a fact (our choice)."""


# --- One scan alone ----------------------------------------------------------------------------


def examine_table(where: str, acquisition: Acquisition) -> tuple[list[Finding], TableInFile]:
    """Find out which rows belong to which volumes, and what the fibres say about turns.

    Returns findings on the order of rows, and the table with its rows in the right order.
    """
    table, affine = acquisition.gradients, acquisition.affine
    stated, vectors = table.b_values, scanner_to_image_axes(table.directions, affine)
    # More volumes may count as b=0 here than elsewhere.
    b_values = np.where(stated <= table.b0_threshold, np.minimum(stated, B0_MAXIMUM), stated)
    to_scanner = image_to_scanner_axes(np.eye(3), affine).T
    findings: list[Finding] = []
    slip = ""
    verdict = judge_order(acquisition.voxels, acquisition.mask, b_values, vectors)
    if verdict is not None and verdict.better is not None:
        order = verdict.better
        slip = order.name
        b_values, vectors = b_values[order.b_rows], vectors[order.vector_rows]
        stated = stated[order.b_rows]
        problem = (
            f"{order.name}: when corrected, tensors leave {100 * verdict.left:.0f} % of the "
            f"residual ({verdict.z:.0f} standard errors)"
        )
        findings.append(Finding("error", where, problem, CORRECT, "table order"))
    elif verdict is not None and not verdict.follows:
        order_tried = "in this order or any other order tried"
        problem = f"the signal does not follow the b-vectors better than by chance, {order_tried}"
        advice = "find the table that belongs to this image"
        findings.append(warning(where, problem, advice, "b-vectors unlike signal"))
    shells = GradientTable(b_values, vectors).shells
    coherence = coherence_of(acquisition, b_values, vectors, shells[0]) if shells else None
    return findings, TableInFile(stated, vectors, to_scanner, slip, coherence)


def doubts_of(acquisition: Acquisition) -> list[Finding]:
    """Return what is wrong with the table of a single scan; its voxels are read."""
    findings, table = examine_table(acquisition.name, acquisition)
    lattice, gradients = acquisition.lattice, acquisition.gradients
    scan = ScanSummary("", "", acquisition.name, lattice, gradients, table=table)
    return [*findings, *check_turns([scan], None)[0]]


AT_SOURCE: Remedy = Advice("correct the table at its source")

CORRECT: Remedy = either(Give("corrected", "a folder for the corrected table"), AT_SOURCE)
"""Remedy against a table whose right form is known."""


def with_table(acquisition: Acquisition, table: TableInFile) -> Acquisition:
    """Return an acquisition with its rows in the right order, for later measurements."""
    directions = image_to_scanner_axes(table.vectors, acquisition.affine)
    threshold = acquisition.gradients.b0_threshold
    return acquisition.with_gradients(GradientTable(table.b_values, directions, threshold))


# --- Two scans of one head ---------------------------------------------------------------------


def compare_fibres(source: ScanSummary, target: ScanSummary) -> TurnEvidence | None:
    """Compare the fibres of two aligned scans.

    The score of a turn of the target's b-vectors is the mean squared cosine between its fibres and
    the source's, from 1/3 for unrelated ones to 1. The heads' own turn is taken out.

    Returns
    -------
    Evidence in the axes of the target's .bvec file; None if the brains share too few fibres.
    """
    if source.images is None or target.images is None or target.table is None:
        return None
    found = None if target.comparison is None else target.comparison.displacement
    if found is None:
        return None
    fixed, moving = source.images, target.images
    if fixed.tensors is None or moving.tensors is None:
        return None
    index = np.argwhere(fixed.brain.mask)
    linear, fibres = principal(fixed.tensors[tuple(index.T)])
    kept = linear > LEAST_LINEAR
    kept_index = index[kept]
    step = max(1, len(kept_index) // FIBRE_VOXELS)
    index, linear, fibres = kept_index[::step], linear[kept][::step], fibres[kept][::step]
    affine = fixed.brain.lattice.affine
    points = index @ affine[:3, :3].T + affine[:3, 3]
    tensors = _tensors_at(moving.tensors, moving.brain.lattice, found.apply(points))
    other_linear, others = principal(tensors)
    shared = (other_linear > LEAST_LINEAR) & (np.abs(tensors).sum(axis=1) > 0)
    if shared.sum() < 2:
        return None
    to_file = target.table.to_scanner  # rows times this matrix: from scanner axes to the file's
    fibres, others = (fibres @ found.rotation.T @ to_file)[shared], (others @ to_file)[shared]
    weight = (linear * other_linear)[shared]
    weight /= weight.sum()
    return TurnEvidence.of(
        np.einsum("n,ni,nj->nij", weight, fibres, fibres),
        np.einsum("ni,nj->nij", others, others),
        weight,
        points[shared],
    )


def _tensors_at(images: FloatArray, lattice: Lattice, points: FloatArray) -> FloatArray:
    """Return (N, 6) tensors at (N, 3) scanner points, 0 outside the brain."""
    to_voxel = np.linalg.inv(lattice.affine)
    at = to_voxel[:3, :3] @ points.T + to_voxel[:3, 3:]
    parts = [map_coordinates(images[..., k], at, order=1) for k in range(6)]
    return np.stack(parts, axis=1)


# --- Which table is wrong ---------------------------------------------------------------------


def check_turns(
    scans: Sequence[ScanSummary], source: ScanSummary | None
) -> tuple[list[Finding], list[Correction]]:
    """Find a subject's tables with wrong axes, by each scan's fibres and between scans.

    Returns
    -------
    The findings, and the certain corrections: of the order of rows, of the axes, or of both.
    """
    turns: dict[str, FloatArray] = {}
    found: list[Finding] = []
    pairs = {} if source is None else _pairs(source, scans)
    if source is not None and pairs:
        turns, found = _judge_together(source, pairs)
    for scan in scans:
        if scan.name in pairs or (pairs and scan is source) or scan.table is None:
            continue
        turn = _alone(scan.table)
        if turn is not None:
            turns[scan.name] = turn
            found.append(_told(scan, turn, _by_itself(scan.table, turn)))
    corrections = [_correction(scan, turns.get(scan.name, NO_TURN)) for scan in scans]
    return found, [each for each in corrections if each is not None]


def _alone(table: TableInFile | None) -> FloatArray | None:
    """Return the turn that a scan's own fibres establish with certainty; None without one."""
    if table is None or table.coherence is None:
        return None
    found = table.coherence.best
    if table.coherence.advantage(found) < SURE:
        return None
    turn = snap_to_axes(found, _accuracy_alone(table.coherence))
    if np.allclose(turn, NO_TURN) or table.coherence.advantage(turn) < SURE:
        return None
    # If another order of axes is nearly as good, the right one is open.
    others = [each for each in AXIS_ORDERS if angle(each, turn) > ELSEWHERE]
    rival = min(table.coherence.advantage(turn, each) for each in others)
    return turn if rival > DECIDED else None


def _accuracy_alone(evidence: TurnEvidence) -> float:
    """Return the accuracy in degrees of a turn from a scan's own fibres."""
    return max(LEAST_TURN_ALONE, 3 * evidence.uncertainty)


@dataclass(frozen=True, eq=False)
class _ScanPair:
    """The input and another scan of the subject.

    Attributes
    ----------
    evidence
        How well turns of the target's b-vectors make its fibres agree with the input's.
    turn
        The best one; NO_TURN if they agree already or nothing makes them agree.
    across
        (3, 3) orthogonal matrix from the axes of the input's .bvec file to those of the target's,
        without the head's turn between the scans.
    """

    target: ScanSummary
    evidence: TurnEvidence
    turn: FloatArray
    across: FloatArray

    def of_target(self, input_turn: FloatArray) -> FloatArray:
        """Return the target's turn for a given turn of the input."""
        return np.asarray(self.across @ input_turn @ self.across.T @ self.turn)

    def of_input(self, target_turn: FloatArray) -> FloatArray:
        """Return the input's turn for a given turn of the target."""
        return np.asarray(self.across.T @ target_turn @ self.turn.T @ self.across)


def _pairs(source: ScanSummary, scans: Sequence[ScanSummary]) -> dict[str, _ScanPair]:
    """Compare all other scans with the input where possible, by the scans' names."""
    pairs: dict[str, _ScanPair] = {}
    for target in scans:
        evidence = None if target is source else compare_fibres(source, target)
        if evidence is None or source.table is None or target.table is None:
            continue
        turn = snap_to_axes(evidence.best, LEAST_TURN)
        agreement = evidence.score(evidence.best)
        if evidence.advantage(turn) < SURE or agreement < LEAST_AGREEMENT:
            turn = NO_TURN
        assert target.comparison is not None and target.comparison.displacement is not None
        rotation = target.comparison.displacement.rotation
        across = target.table.to_scanner.T @ rotation @ source.table.to_scanner
        pairs[target.name] = _ScanPair(target, evidence, turn, across)
    return pairs


@dataclass(frozen=True, eq=False)
class _Explanation:
    """A hypothesis on which tables are wrong, and how.

    `merit` is the evidence of the scans' own fibres in standard errors, minus the cost of wrong
    tables.
    """

    turns: dict[str, FloatArray]
    merit: float


def _judge_together(
    source: ScanSummary, pairs: dict[str, _ScanPair]
) -> tuple[dict[str, FloatArray], list[Finding]]:
    """Judge the input and the scans that were compared with it.

    Comparisons show how tables differ, not which is wrong. So every turn that the input may need is
    tried, from which the others' follow; own fibres and the number of wrong tables decide.
    """
    tried = [(NO_TURN, LEAST_TURN)]
    tried += [(pair.of_input(NO_TURN), LEAST_TURN) for pair in pairs.values()]
    # A scan's own fibres are less exact, so larger deviations still count as a plain axis order.
    if (own := _alone(source.table)) is not None:
        tried.append((own, LEAST_TURN_ALONE))
    for pair in pairs.values():
        if (own := _alone(pair.target.table)) is not None:
            tried.append((pair.of_input(own), LEAST_TURN_ALONE))
    found = [_explain(source, pairs, turn, accuracy) for turn, accuracy in tried]
    best, *others = sorted(found, key=lambda each: -each.merit)
    other = next((each for each in others if set(each.turns) != set(best.turns)), None)
    scans = {source.name: source} | {name: pair.target for name, pair in pairs.items()}
    if other is None or best.merit - other.merit > DECIDED:
        return best.turns, [
            _told(scans[name], turn, _reasons(source, pairs, scans[name], turn))
            for name, turn in best.turns.items()
        ]
    return {}, [
        _undecided(source, pair) for pair in pairs.values() if not np.allclose(pair.turn, NO_TURN)
    ]


def _explain(
    source: ScanSummary, pairs: dict[str, _ScanPair], input_turn: FloatArray, accuracy: float
) -> _Explanation:
    """Derive the turns of all of the subject's tables from a turn of the input."""
    needed = [(source, snap_to_axes(input_turn, accuracy))]
    needed += [(p.target, snap_to_axes(p.of_target(input_turn), accuracy)) for p in pairs.values()]
    turns = {scan.name: turn for scan, turn in needed if not np.allclose(turn, NO_TURN)}
    # Corrected fibres of one head agree, so their evidence on the frame is one piece, of which
    # every scan gives an estimate. On small turns anatomy has the greater say.
    as_given = [NO_TURN, *(pair.turn for pair in pairs.values())]
    gains = [
        scan.table.coherence.advantage(turn, other)
        for (scan, turn), other in zip(needed, as_given, strict=True)
        if scan.table is not None
        and scan.table.coherence is not None
        and angle(turn, other) > _accuracy_alone(scan.table.coherence)
    ]
    first = needed[0][1]
    alike = all(angle(turn, first) < LEAST_TURN_ALONE for _, turn in needed)
    wrong = 1 if alike and len(turns) == len(needed) else len(turns)
    return _Explanation(turns, float(np.mean(gains or [0.0])) - FAULT_COST * wrong)


# --- Words and corrections ---------------------------------------------------------------------


def _place(scan: ScanSummary) -> str:
    """Return a scan's name; the file's if it names no platform."""
    return scan.name if scan.platform else scan.where


def _told(scan: ScanSummary, turn: FloatArray, reasons: str) -> Finding:
    assert scan.table is not None
    what = describe(turn, scan.table.to_scanner)
    flag = "b-vectors turned" if np.allclose(nearest_order(turn), NO_TURN) else "b-vectors' axes"
    problem = f"the b-vectors do not fit the image: {what} ({reasons})"
    return Finding("error", _place(scan), problem, CORRECT, flag)


def _reasons(
    source: ScanSummary, pairs: dict[str, _ScanPair], scan: ScanSummary, turn: FloatArray
) -> str:
    """Write why a table is considered wrong."""
    said = []
    pair = pairs.get(scan.name)
    if pair is not None and not np.allclose(pair.turn, NO_TURN):
        said.append(_agreement(pair, source))
    elif scan is source:
        wrong = [each for each in pairs.values() if not np.allclose(each.turn, NO_TURN)]
        said += [_agreement(each, each.target) for each in wrong[:1]]
        if len(wrong) > 1:
            said.append(f"so with {len(wrong)} other scans")
    if scan.table is not None and (own := _by_itself(scan.table, turn)):
        said.append(own)
    return ", ".join(said)


def _agreement(pair: _ScanPair, other: ScanSummary) -> str:
    evidence = pair.evidence
    return (
        f"mean squared cosine of its fibres and those on {other.platform} "
        f"{evidence.score(NO_TURN):.2f}, when corrected {evidence.score(evidence.best):.2f}, "
        f"to within {2 * evidence.uncertainty:.1f}°"
    )


def _by_itself(table: TableInFile, turn: FloatArray) -> str:
    """Write the evidence of a scan's own fibres for a turn; empty if they are not for it."""
    better = 0.0 if table.coherence is None else table.coherence.advantage(turn)
    if better < DECIDED:
        return ""
    return f"its own fibres are then smoother along themselves by {better:.0f} standard errors"


def _undecided(source: ScanSummary, pair: _ScanPair) -> Finding:
    assert pair.target.table is not None
    what = describe(pair.turn, pair.target.table.to_scanner)
    problem = (
        f"its b-vectors and those on {source.platform} do not agree, one of the two tables is "
        f"wrong. If it is this one: {what} ({_agreement(pair, source)})"
    )
    remedy = Advice("find out which table is wrong, and correct it at its source")
    return Finding("error", pair.target.name, problem, remedy, "b-vectors disagree")


def _correction(scan: ScanSummary, turn: FloatArray) -> Correction | None:
    """Return the right table of a scan; None if the given one is not known to be wrong."""
    table = scan.table
    if table is None or not table.complete:
        return None
    reasons = [table.slip] if table.slip else []
    if not np.allclose(turn, NO_TURN):
        reasons.append(describe(turn, table.to_scanner))
    if not reasons:
        return None
    return Correction(scan.where, tuple(reasons), table.b_values, table.vectors @ as_said(turn).T)
