"""What a check finds: each thing by itself, and all as a text."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from napari_msp.bids import absolute
from napari_msp.errors import PYTHON, Remedy, UserError, Words
from napari_msp.formatting import counted

Severity = Literal["error", "warning", "note"]
"""Gravest first."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, doubtful or worth knowing.

    Attributes
    ----------
    severity
        "error": the scan or dataset cannot be used as it is; "warning": it can, with worse
        results; "note": for information.
    where
        File (relative to the dataset), subject, platform, or subject and platform.
    remedy
        What helps; its parameters are those of a training.
    flag
        The same in a word or two, for the table of scans; empty when it is not of one scan or
        platform.
    """

    severity: Severity
    where: str
    problem: str
    remedy: Remedy | None = None
    flag: str = ""

    def message(self, words: Words = PYTHON) -> str:
        """Say what it is and what helps, in a front end's words."""
        return UserError(self.problem, remedy=self.remedy).phrase(words)


def place_of(path: Path, root: Path) -> str:
    """Name a file of the dataset at `root`."""
    return path.relative_to(root).as_posix()


def finding_from(error: UserError, root: Path, where: str) -> Finding:
    """Turn an error into a finding; paths are given from the dataset's root."""
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
    """Write the findings for reading: gravest first, equal messages together."""
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
