"""Checks of gradient tables: schemes, b-values, order of rows; and corrected tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import DESCRIPTION, dataset_description, gradient_files
from napari_msp.checking.comparisons import by_platform
from napari_msp.checking.summary import Finding, ScanSummary, warning
from napari_msp.data.contradictions import NOTABLE_B_VALUE, WEAK_B0, in_tissue, no_b0
from napari_msp.data.gradient_files import shift_in_words, write_table
from napari_msp.data.gradients import B0_MAXIMUM, GradientTable, same_shell, shell_name
from napari_msp.errors import Advice, Give
from napari_msp.files import new_folder, write_json, write_text
from napari_msp.formatting import counted
from napari_msp.signal.fitting import poor_directions, scheme_doubt, supported_order
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count


def check_scheme(where: str, gradients: GradientTable) -> Iterator[Finding]:
    """Check whether the signal can be normalised and SH fitted."""
    if not gradients.shells:
        advice = Advice("give a DWI")
        yield Finding("error", where, "has no diffusion-weighted volume", advice, "no DWI")
    if len(gradients.b0_volumes) == 0:
        error = no_b0(gradients, where)
        yield Finding("error", where, error.problem, error.remedy)
    needed = coefficient_count(ORDER)
    # A shell that cannot be fitted matters less if another one can.
    enough = any(len(shell.volumes) >= needed for shell in gradients.shells)
    for shell in gradients.shells:
        directions = gradients.directions[shell.volumes]
        if len(directions) < needed:
            problem = (
                f"b = {shell.b_value:.0f} has {counted(len(directions), 'direction')}, "
                f"SH order {ORDER} needs {needed}"
            )
            remedy = Advice("use another shell" if enough else "leave the scan out")
            yield Finding("warning" if enough else "error", where, problem, remedy, "directions")
            continue
        doubt = scheme_doubt(directions, ORDER)
        if doubt and supported_order(directions) == 0:
            why, better = poor_directions(directions, ORDER)
            problem = f"the directions of b = {shell.b_value:.0f} {why}"
            yield Finding("error", where, problem, Advice(f"give {better}"), "conditioning")
        elif doubt:
            problem = f"at b = {shell.b_value:.0f} {doubt}"
            yield warning(where, problem, "do not trust these terms", "conditioning")


def check_b_values(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Compare each scan's b-value with the input platform's."""
    common = common_b_value(scans, input_platform)
    # A scan without any shell is reported already, as no DWI.
    weighted = [scan for scan in scans if scan.gradients.shells]
    inputs = [scan for scan in weighted if scan.platform == input_platform]
    for scan in weighted:
        for shell in scan.gradients.shells:
            if shell.chained:
                problem = f"its {shell.chained}"
                yield Finding("error", scan.where, problem, Advice("leave the scan out"), "shells")
        values = [shell.b_value for shell in scan.gradients.shells]
        listed = ", ".join(f"{value:.0f}" for value in values)
        if input_platform and common is not None and not _has(scan, common):
            problem = (
                f"has b = {listed} s/mm² where the input platform has {common:.0f}: training "
                "refuses that"
            )
            remedy = Advice("leave the scan out, or use the shell that the others have")
            yield Finding("error", scan.where, problem, remedy, "b-value")
            continue
        if scan.platform == input_platform:
            kept = [b for b in values if all(_has(other, b) for other in weighted)]
            why, told = "other scans do not have: training leaves it out", len(values) > 1
        else:
            kept = [b for b in values if any(_has(other, b) for other in inputs)]
            why, told = "the input platform does not have: it cannot be predicted", bool(kept)
        lacked = [f"{b:.0f}" for b in values if b not in kept]
        if lacked and told:
            problem = f"has b = {', '.join(lacked)} s/mm², which {why}"
            shared = " ".join(f"{b:.0f}" for b in kept)
            give = Give("b_value", shared) if shared else Advice("leave it out")
            yield Finding("warning", scan.where, problem, give, "shells")


def check_near_b_values(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Report platforms whose shells match the input's although their b-values differ a little."""
    shells = {
        platform: [shell.b_value for scan in of_platform for shell in scan.gradients.shells]
        for platform, of_platform in by_platform(scans).items()
    }
    for name in dict.fromkeys(shell_name(each) for each in shells.get(input_platform, [])):
        known = float(np.median([b for b in shells[input_platform] if shell_name(b) == name]))
        for platform, b_values in shells.items():
            near = [each for each in b_values if same_shell(each, known)]
            own = float(np.median(near)) if near else known
            if abs(own / known - 1) > NOTABLE_B_VALUE:
                problem = f"b = {own:.0f} s/mm² where {input_platform} has {known:.0f}"
                yield _unlike_in_signal(platform, problem, own - known, "b-value")


def _unlike_in_signal(platform: str, problem: str, difference: float, flag: str) -> Finding:
    """Return a note on a difference in b (s/mm²) that shows in S/S0."""
    problem += f": this alone changes S/S0 by about {in_tissue(difference)}"
    remedy = Advice("do not take this for a scanner effect; FA and diffusivity are not affected")
    return Finding("note", platform, problem, remedy, flag)


def check_b0(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Compare the b-values of platforms' b=0 images with the input's."""
    usual = {
        platform: float(np.median([scan.gradients.b0_weighting for scan in of_platform]))
        for platform, of_platform in by_platform(scans).items()
    }
    known = usual.get(input_platform)
    for platform, own in usual.items():
        if known is not None and abs(own - known) > WEAK_B0:
            theirs = f"those of {input_platform} have {known:.0f}"
            problem = f"b=0 images have b = {own:.0f} s/mm² on average, but {theirs}"
            yield _unlike_in_signal(platform, problem, own - known, "b=0")


def _has(scan: ScanSummary, b_value: float) -> bool:
    return any(same_shell(shell.b_value, b_value) for shell in scan.gradients.shells)


def common_b_value(scans: Sequence[ScanSummary], input_platform: str) -> float | None:
    """Return the median b-value of the input's scans with one shell, else of all such scans."""
    single = [scan for scan in scans if len(scan.gradients.shells) == 1]
    of_input = [scan for scan in single if scan.platform == input_platform]
    values = [scan.gradients.shells[0].b_value for scan in of_input or single]
    return float(np.median(values)) if values else None


# --- Rows: tables that are shifted or reversed -------------------------------------------------
#
# With the right row for each volume, a voxel's signal follows a tensor, whatever the frame of the
# b-vectors; with wrong rows it does not. So all orders of rows that result from common mistakes are
# tried, and the one with the smallest residual is reported if it is far better than the given one.

SHIFTS = 5
"""Largest shift, in volumes and in either direction, that is tried (our choice)."""

SAMPLED = 20_000
"""In-mask voxels from which those that change most are selected, for speed (our choice)."""

TAKEN = 2000
"""Number of voxels in which tables are compared (our choice)."""

GROUPS = 40
"""Groups of voxels whose spread gives the uncertainty of a comparison (our choice)."""

SURE = 6.0
"""Standard errors by which another order must be better to be believed (our choice)."""

LEAST_GAIN = 0.1
"""Share of the residual that another order must remove to be believed (our choice)."""

NEXT = 4.0
"""The same between the best order and the next (our choice)."""

OUTSTANDING = 4.0
"""Standard deviations of randomly ordered tables by which the right order must be better than their
mean (our choice)."""

RANDOM_ORDERS = 30

TENSOR_TERMS = 6


@dataclass(frozen=True, eq=False)
class TableOrder:
    """One way to assign rows of a table to volumes.

    Attributes
    ----------
    name
        The mistake that was made if this order is the right one.
    b_rows, vector_rows
        (N,) for each volume the row of its b-value and that of its b-vector.
    """

    name: str
    b_rows: IntArray
    vector_rows: IntArray


@dataclass(frozen=True, eq=False)
class OrderVerdict:
    """How well the given order of rows explains the signal, and whether another is better.

    `z`: standard errors by which the best other order is better; `left`: its residual over that of
    the given one, geometric mean over voxels; `outstanding`: standard deviations by which the
    better of both surpasses random ones.
    """

    better: TableOrder | None
    z: float
    left: float
    outstanding: float

    @property
    def follows(self) -> bool:
        """Whether the signal follows the directions more than chance does."""
        return self.outstanding > OUTSTANDING


def judge_order(
    voxels: FloatArray, mask: MaskArray, b_values: FloatArray, vectors: FloatArray
) -> OrderVerdict | None:
    """Compare the given table with shifted and reversed ones.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal.
    mask
        (X, Y, Z) mask.
    b_values
        (N,) b-values in s/mm².
    vectors
        (N, 3) unit vectors in any frame; those of b=0 volumes may be anything.

    Returns
    -------
    The verdict; None if there are too few directions or voxels for one.
    """
    signal = _changing_voxels(voxels, mask, b_values > B0_MAXIMUM)
    weighted = int((b_values > B0_MAXIMUM).sum())
    if len(signal) < GROUPS or weighted <= TENSOR_TERMS + 1:
        return None
    given = _residuals(signal, b_values, vectors)
    orders = list(_orders(b_values, vectors))
    if not orders:
        return None
    found = [_residuals(signal, b_values[o.b_rows], vectors[o.vector_rows]) for o in orders]
    best, *others = np.argsort([each.sum() for each in found])
    z = _standard_errors(given - found[best])
    left = float(np.exp((found[best] - given).mean()))
    runner_up = _standard_errors(found[others[0]] - found[best]) if others else np.inf
    if z > SURE and left < 1 - LEAST_GAIN and runner_up > NEXT:
        order = orders[best]
        outstanding = _outstanding(signal, b_values[order.b_rows], vectors[order.vector_rows])
        if outstanding > OUTSTANDING:
            return OrderVerdict(order, z, left, outstanding)
    outstanding = _outstanding(signal, b_values, vectors)
    return OrderVerdict(None, z, left, outstanding)


def _changing_voxels(voxels: FloatArray, mask: MaskArray, weighted: MaskArray) -> FloatArray:
    """Return (V, N) log signal of the voxels that change most with direction and least by noise."""
    index = np.argwhere(mask)
    index = index[:: len(index) // SAMPLED + 1]
    signal: FloatArray = voxels[tuple(index.T)].astype(float)
    signal = signal[(signal > 0).mean(axis=1) > 0.9]
    if len(signal) == 0:
        return signal
    # By the volumes' middle range: a misplaced b=0 must not determine the voxels.
    low, high = np.percentile(signal[:, weighted], [10, 90], axis=1)
    signal = signal[np.sort(np.argsort(high - low)[::-1][:TAKEN])]
    floor = 0.02 * signal.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.maximum(signal, np.maximum(floor, 1e-12))))


def _orders(b_values: FloatArray, vectors: FloatArray) -> Iterator[TableOrder]:
    """Yield all other orders to try, the likeliest first, each table once."""
    count = len(b_values)
    every = np.arange(count)
    weighted = np.flatnonzero(b_values > B0_MAXIMUM)
    seen = {_key(b_values, vectors)}
    for order in _candidates(every, weighted):
        table = b_values[order.b_rows], vectors[order.vector_rows]
        lengths = np.linalg.norm(table[1], axis=1)
        if (lengths[table[0] > B0_MAXIMUM] < 0.5).any():
            continue  # a weighted volume would have no direction
        if (key := _key(*table)) not in seen:
            seen.add(key)
            yield order


def _candidates(every: IntArray, weighted: IntArray) -> Iterator[TableOrder]:
    shifts = [sign * by for by in range(1, SHIFTS + 1) for sign in (1, -1)]
    for by in shifts:
        moved, off = np.roll(every, by), shift_in_words(-by)
        yield TableOrder(f"the table is shifted by {off}", moved, moved)
        rows = every.copy()
        rows[weighted] = np.roll(weighted, by)
        yield TableOrder(f"the directions are shifted by {off}, b = 0 left out", rows, rows)
        name = f"the b-vectors are shifted by {off} against the b-values"
        yield TableOrder(name, every, moved)
    backwards = every.copy()
    backwards[weighted] = weighted[::-1]
    yield TableOrder("the directions are in reverse order", backwards, backwards)
    yield TableOrder("the table is in reverse order", every[::-1], every[::-1])
    yield TableOrder("the b-vectors are in reverse order", every, every[::-1])


def _key(b_values: FloatArray, vectors: FloatArray) -> bytes:
    shown = np.where(b_values[:, None] > B0_MAXIMUM, vectors, 0)
    return np.round(np.column_stack([b_values, shown]), 4).tobytes()


def _residuals(signal: FloatArray, b_values: FloatArray, vectors: FloatArray) -> FloatArray:
    """Return (V,) logarithms of the sum of squared residuals of tensors, one tensor per shell.

    This is the likelihood of the table if each voxel has its own noise, so voxels that pulse, or
    that eddy currents move across an edge, decide nothing.
    """
    table = GradientTable(b_values, vectors)
    left = signal[:, table.b0_volumes]
    rest = ((left - left.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    for shell in table.shells:
        x, y, z = vectors[shell.volumes].T
        design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
        if len(design) <= TENSOR_TERMS:
            design = np.ones((len(design), 1))
        basis, _ = np.linalg.qr(design)
        values = signal[:, shell.volumes]
        rest += (values**2).sum(axis=1) - ((values @ basis) ** 2).sum(axis=1)
    return np.asarray(np.log(np.maximum(rest, 1e-9)))


def _outstanding(signal: FloatArray, b_values: FloatArray, vectors: FloatArray) -> float:
    """Return by how many standard deviations a table is better than with random directions.

    What volumes have in common over all voxels, such as a gain, is taken out.
    """
    random = np.random.default_rng(0)
    shells = GradientTable(b_values, vectors).shells
    signal = signal - signal.mean(axis=0)
    totals = []
    for _ in range(RANDOM_ORDERS):
        rows = np.arange(len(b_values))
        for shell in shells:
            rows[shell.volumes] = random.permutation(shell.volumes)
        totals.append(_residuals(signal, b_values, vectors[rows]).sum())
    better = np.mean(totals) - _residuals(signal, b_values, vectors).sum()
    spread = float(np.std(totals, ddof=1))
    # Nearly equal directions fit in any order, which says nothing.
    return float(better) / spread if spread > 1e-6 * len(signal) else np.inf


def _standard_errors(gain: FloatArray) -> float:
    """Return a sum over voxels in standard errors, estimated from groups of neighbours."""
    groups = np.array([group.sum() for group in np.array_split(gain, GROUPS)])
    error = float(np.sqrt(((groups - groups.mean()) ** 2).sum()))
    return float(groups.sum()) / error if error > 0 else 0.0


# --- Corrected gradient tables -----------------------------------------------------------------

README = """\
Corrected gradient tables
=========================

The .bval and .bvec of each scan stand here under its image's own name, in the layout of {dataset}.
Give them with the image, or put them next to it in place of the table that it had: b-vectors that
eddy turned (.eddy_rotated_bvecs) are preferred to a .bvec, so remove them. Look at the fibres
with a corrected table before it takes the place of the other, and find out
which step of the processing went wrong: other scans went through it.

"""


@dataclass(frozen=True, eq=False)
class Correction:
    """A scan's wrong table, and its right content: (N,) b-values in s/mm² and (N, 3) b-vectors."""

    where: str
    reasons: tuple[str, ...]
    b_values: FloatArray
    vectors: FloatArray


def write_corrected(
    folder: str | Path, corrections: Sequence[Correction], dataset: str | Path
) -> None:
    """Write corrected tables in the layout of their dataset, with the reasons in a README."""
    with new_folder(folder) as stage:
        said = [README.format(dataset=Path(dataset).resolve().name)]
        for each in corrections:
            bval, bvec = gradient_files(stage / each.where)
            write_table(each.b_values, each.vectors, bval, bvec)
            said.append(f"{each.where}\n    {' and '.join(each.reasons)}\n")
        write_text(stage / "README", "".join(said))
        about = dataset_description(
            "Corrected gradient tables", derivative=True, generated_by="check, corrected tables"
        )
        write_json(stage / DESCRIPTION, about)
