"""Results of a cohort: the table `cohort.tsv`, and its summary."""

import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from napari_msp.cohort.jobs import CohortResult
from napari_msp.errors import Doubt, PlainWords, RunJob, UserError
from napari_msp.files import reserved, write_text
from napari_msp.formatting import counted

TABLE = "cohort.tsv"

COLUMNS = ("participant_id", "scan", "target", "status", "seconds", "message")

LARGEST_SHARE = 0.02
"""Largest share of time for writing the table, which is written whole and grows."""

MOST_NAMED = 20
"""Number of failed and of doubtful scans that a summary names; the table has them all."""

NONE = "n/a"
"""Text of an empty cell, such as the scan of a subject for whom none was chosen."""

Rows = dict[tuple[str, ...], tuple[str, ...]]
"""Rows of a table in the order of `COLUMNS`, by the first three: subject, scan and target."""


class CohortTable:
    """Table of a running cohort, perhaps beside others with other subjects or targets."""

    def __init__(self, out_dir: Path) -> None:
        self.path = out_dir / TABLE
        self._rows: Rows = {}
        self._due = 0.0

    def add(self, result: CohortResult) -> None:
        """Add a result; write the table if that is due."""
        for target in result.targets:
            each = result.on(target)
            said = each.message(PlainWords())  # whoever reads it
            row = (each.subject, each.scan, target, each.status, f"{each.seconds:.1f}", said)
            written = tuple(value or NONE for value in row)
            self._rows[written[:3]] = written
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write all results, ordered by their keys, and other runs' rows of other scans.

        A row that no scan was chosen for a subject is dropped once one is.
        """
        start = time.monotonic()
        with reserved(self.path, wait=True):
            chosen = {subject for subject, scan, _ in self._rows if scan != NONE}
            earlier = _earlier_rows(self.path)
            over = {key for key in earlier if key[0] in chosen and key[1] == NONE}
            rows = {key: row for key, row in earlier.items() if key not in over} | self._rows
            lines = ["\t".join(row) for row in (COLUMNS, *(row for _, row in sorted(rows.items())))]
            write_text(self.path, "\n".join(lines) + "\n")
        self._due = time.monotonic() + (time.monotonic() - start) / LARGEST_SHARE


def _earlier_rows(table: Path) -> Rows:
    """Read the rows of an earlier run; none if the file is no such table."""
    try:
        return _read_rows(table)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        warnings.warn(Doubt("is not a table of a cohort, and is replaced", table), stacklevel=3)
        return {}


def _read_rows(table: Path) -> Rows:
    """Read a table; raise a `ValueError` if it is not one."""
    header, *lines = table.read_text(encoding="utf-8").splitlines() or ["\t".join(COLUMNS)]
    rows = [tuple(line.split("\t")) for line in lines]
    if header.split("\t") != [*COLUMNS] or any(len(row) != len(COLUMNS) for row in rows):
        raise ValueError("its columns are others")
    return {row[:3]: row for row in rows}


@dataclass(frozen=True)
class CohortSummary:
    """Summary of the results of a cohort.

    Attributes
    ----------
    done, skipped, failed
        Messages by subject, for each status; the name includes the scan if a subject has several,
        and the target if a scan has.
    of
        What is counted: "subject", "scan" or "prediction".
    """

    done: dict[str, str]
    skipped: dict[str, str]
    failed: dict[str, str]
    of: str = "subject"

    @property
    def doubtful(self) -> dict[str, str]:
        """Those that were harmonized, now or earlier, but with a warning."""
        harmonized = sorted({**self.done, **self.skipped}.items())
        return {subject: said for subject, said in harmonized if said}

    def lines(self) -> Iterator[str]:
        """Yield the summary for people: counts, then the first failed or doubtful subjects."""
        yield (
            f"{counted(len(self.done), self.of)} harmonized, {len(self.skipped)} finished earlier, "
            f"{len(self.failed)} failed; {len(self.doubtful)} with a warning"
        )
        for what, subjects in (("failed", self.failed), ("warning", self.doubtful)):
            for subject, said in islice(subjects.items(), MOST_NAMED):
                yield f"{subject} {what}: {said}"
            if len(subjects) > MOST_NAMED:
                yield f"and {len(subjects) - MOST_NAMED} more {what}: see {TABLE}"


def summarise_cohort(out_dir: str | Path) -> CohortSummary:
    """Read the results of a cohort from the table in its folder.

    Raises
    ------
    UserError
        When there is no such table, or it is damaged.
    """
    table = Path(out_dir) / TABLE
    statuses: dict[str, dict[str, str]] = {"done": {}, "skipped": {}, "failed": {}}
    try:
        rows = _read_rows(table)
        scans = Counter(subject for subject, _ in {key[:2] for key in rows})
        targets = Counter(key[:2] for key in rows)
        for subject, scan, target, status, _, said in rows.values():
            which = [Path(scan).name if scan != NONE else "no scan"] * (scans[subject] > 1)
            which += [target] * (targets[subject, scan] > 1)
            name = f"{subject} ({', '.join(which)})" if which else subject
            statuses[status][name] = "" if said == NONE else said
    except FileNotFoundError as error:
        remedy = RunJob("cohort", "harmonize the participants first")
        raise UserError("has no table of a cohort", out_dir, "out_dir", remedy) from error
    except (OSError, ValueError, KeyError) as error:
        remedy = RunJob("cohort", "harmonize the participants again")
        raise UserError("is not a table of a cohort", table, "out_dir", remedy) from error
    several = max(scans.values(), default=1) > 1
    of = "prediction" if max(targets.values(), default=1) > 1 else "scan" if several else "subject"
    return CohortSummary(**statuses, of=of)
