"""Findings of a check, singly and as a text; and the summary kept of each scan."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from napari_msp.alignment.registration import BrainImage, Displacement
from napari_msp.arrays import FloatArray
from napari_msp.bids import absolute
from napari_msp.checking.quality import ScanQuality
from napari_msp.checking.turns import TurnEvidence
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice, resample_mask
from napari_msp.data.masks import dice
from napari_msp.errors import PYTHON, Advice, Remedy, UserError, Words
from napari_msp.formatting import counted

Severity = Literal["error", "warning", "note"]
"""Severities, the gravest first."""


@dataclass(frozen=True)
class Finding:
    """One fact that is wrong, doubtful or worth knowing.

    Attributes
    ----------
    severity
        "error": the scan or dataset cannot be used as it is; "warning": it can, with worse
        results; "note": for information.
    where
        File (relative to the dataset), subject, platform, or subject and platform.
    remedy
        Remedy; its parameters are those of a training.
    flag
        The finding in a word or two, for the table of scans; empty if it is not about one scan or
        platform.
    """

    severity: Severity
    where: str
    problem: str
    remedy: Remedy | None = None
    flag: str = ""

    def message(self, words: Words = PYTHON) -> str:
        """Write the problem and the remedy in a front end's words."""
        return UserError(self.problem, remedy=self.remedy).phrase(words)


def warning(where: str, problem: str, advice: str, flag: str = "") -> Finding:
    """Return a warning whose remedy lies outside this program."""
    return Finding("warning", where, problem, Advice(advice), flag)


def place_of(path: Path, root: Path) -> str:
    """Return the path of a file relative to the dataset at `root`."""
    return path.relative_to(root).as_posix()


def finding_from(error: UserError, root: Path, where: str) -> Finding:
    """Turn an error into a finding; paths are relative to the dataset's root."""
    if error.subject is not None:
        subject, folder = absolute(error.subject), absolute(root)
        if subject != folder and subject.is_relative_to(folder):
            where = place_of(subject, folder)
    return Finding("error", where, error.problem, error.remedy)


@contextmanager
def errors_as_findings(findings: list[Finding], root: Path, where: str) -> Iterator[None]:
    """Add an error to `findings` and leave the block: one fault must not hide the next."""
    try:
        yield
    except UserError as error:
        findings.append(finding_from(error, root, where))


def has_errors(findings: Iterable[Finding]) -> bool:
    """Return whether the dataset cannot be used as it is."""
    return any(finding.severity == "error" for finding in findings)


def report_text(findings: Iterable[Finding], words: Words = PYTHON) -> str:
    """Write the findings as a text: gravest first, equal messages together."""
    findings = list(findings)
    if not findings:
        return "Nothing to report.\n"
    severities = get_args(Severity)
    counts = Counter(finding.severity for finding in findings)
    lines = [", ".join(counted(counts[each], each) for each in severities)]
    for severity in severities:
        places: dict[str, list[str]] = {}
        for finding in findings:
            if finding.severity == severity:
                places.setdefault(finding.message(words), []).append(finding.where)
        if places:
            lines += ["", f"{severity.capitalize()}s"]
        for message, where in places.items():
            if len(where) == 1:
                lines.append(f"  {where[0]}: {message}")
            else:
                lines.append(f"  {message}")
                lines += [f"      {place}" for place in where]
    return "\n".join(lines) + "\n"


# --- What is kept of a scan ------------------------------------------------------------------


@dataclass(frozen=True)
class HeadImages:
    """The images by which a subject's scans are aligned.

    Attributes
    ----------
    tensors
        (X, Y, Z, 6): xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask. None
        if directions do not determine them.
    """

    brain: BrainImage
    tensors: FloatArray | None


@dataclass(frozen=True, eq=False)
class TableInFile:
    """A gradient table in the axes of its .bvec file, with the evidence of the scan alone.

    Attributes
    ----------
    b_values, vectors
        (N,) in s/mm² and (N, 3), with the right row for each volume.
    to_scanner
        (3, 3) orthogonal matrix from the axes of the file to the scanner's.
    slip
        What had misplaced the rows, in words; empty if they were right.
    coherence
        Evidence of the scan's own fibres about turns; None without enough fibres.
    complete
        Whether it has a row for every volume of the file, so that it can replace the file's.
    """

    b_values: FloatArray
    vectors: FloatArray
    to_scanner: FloatArray
    slip: str = ""
    coherence: TurnEvidence | None = None
    complete: bool = True


@dataclass(frozen=True)
class ScanComparison:
    """A scan compared with the input scan of its subject, whose lattice is canonical.

    `dice` is the overlap of both masks; `displacement`, from the input's head to the scan's, is
    None if it cannot be measured.
    """

    dice: float
    displacement: Displacement | None
    input_lattice: Lattice

    @classmethod
    def of(
        cls, fixed: BrainImage, moving: BrainImage, found: Displacement | None
    ) -> "ScanComparison":
        """Compare a brain with the input's, from which it was `found` displaced."""
        mask = resample_mask(moving.mask, moving.lattice, fixed.lattice)
        return cls(dice(fixed.mask, mask), found, fixed.lattice.canonical)

    @property
    def numbers(self) -> dict[str, float]:
        """The measurements, by their names in tables."""
        found = self.displacement
        if found is None:
            return {"dice": self.dice}
        return {
            "dice": self.dice,
            "shift_mm": float(np.linalg.norm(found.shift)),
            "rotation_degrees": found.angle,
            "displacement_voxels": found.in_voxels(self.input_lattice),
            "correlation": found.correlation,
        }

    @property
    def shift(self) -> FloatArray | None:
        """(3,) shift of the brain's centre to the right, front and top, in voxels of the input."""
        if self.displacement is None:
            return None
        return np.asarray(
            np.linalg.solve(self.input_lattice.affine[:3, :3], self.displacement.shift)
        )

    @property
    def distance(self) -> float | None:
        """Mean displacement of the brain, by shift and turn, in voxels of the input."""
        return self.numbers.get("displacement_voxels")

    @property
    def too_far(self) -> bool:
        """Whether the head is known to be too far from the input's."""
        return self.displacement is not None and self.displacement.too_far(self.input_lattice)


@dataclass(frozen=True)
class ScanSummary:
    """The data of one scan for later comparisons, its lattice as stored; voxels are not kept.

    Attributes
    ----------
    images
        Images for alignment; None if not wanted, impossible, or no longer needed.
    mask_voxels, mask_ml, quality, table
        Measurements; None if the voxels or the mask cannot be read.
    comparison
        Comparison with the input; None for the input itself, or if there is nothing to compare.
    aligned
        Whether its affine was moved so that its head coincides with the input's.
    """

    subject: str
    platform: str
    where: str
    lattice: Lattice
    gradients: GradientTable
    images: HeadImages | None = None
    mask_voxels: int | None = None
    mask_ml: float | None = None
    quality: ScanQuality | None = None
    comparison: ScanComparison | None = None
    table: TableInFile | None = None
    aligned: bool = False

    @property
    def name(self) -> str:
        """Subject and platform, such as "sub-01 prisma_st"."""
        return f"{self.subject} {self.platform}"
