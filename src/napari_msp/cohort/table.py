"""`cohort.tsv`: what became of everybody, kept while a cohort runs and summed up afterwards."""

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_msp.cohort.jobs import CohortResult
from napari_msp.errors import RunJob, UserError, Words
from napari_msp.files import write_text
from napari_msp.formatting import counted

TABLE = "cohort.tsv"

LARGEST_SHARE = 0.02
"""Of the time that writing the table may take: it is written whole, and grows with the cohort."""


class Table:
    """The table of a cohort that runs.

    Parameters
    ----------
    out_dir
        Where it lies.
    words
        In which it says why a scan failed.
    """

    def __init__(self, out_dir: Path, words: Words) -> None:
        self.path, self._words = out_dir / TABLE, words
        self._results: list[CohortResult] = []
        self._due = 0.0

    def add(self, result: CohortResult) -> None:
        """Take a result; write it when that is due."""
        self._results.append(result)
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write all results, ordered by subject."""
        start = time.monotonic()
        lines = ["participant_id\tscan\tstatus\tseconds\tmessage"]
        for each in sorted(self._results, key=lambda result: result.subject):
            said = each.message(self._words)
            row = (each.subject, each.scan, each.status, f"{each.seconds:.1f}", said)
            lines.append("\t".join(value or "n/a" for value in row))
        write_text(self.path, "\n".join(lines) + "\n")
        self._due = time.monotonic() + (time.monotonic() - start) / LARGEST_SHARE


@dataclass(frozen=True)
class CohortSummary:
    """What became of the subjects of a cohort.

    Attributes
    ----------
    done, skipped, failed
        Subjects by the status of their scan; with what is said about each.
    doubtful
        Subjects that were harmonized with a warning, and what it says.
    """

    done: dict[str, str]
    skipped: dict[str, str]
    failed: dict[str, str]

    @property
    def doubtful(self) -> dict[str, str]:
        """Subjects that were harmonized, but with a warning."""
        return {subject: said for subject, said in self.done.items() if said}

    def lines(self) -> Iterator[str]:
        """Say it for people: the counts, then each subject that wants a look."""
        yield (
            f"{counted(len(self.done), 'subject')} harmonized ({len(self.doubtful)} with a "
            f"warning), {len(self.skipped)} finished earlier, {len(self.failed)} failed"
        )
        for what, subjects in (("failed", self.failed), ("warning", self.doubtful)):
            for subject, said in subjects.items():
                yield f"{subject} {what}: {said}"


def summarise_cohort(out_dir: str | Path) -> CohortSummary:
    """Read what became of a cohort's subjects from the table in its folder.

    Parameters
    ----------
    out_dir
        Where `run_cohort` wrote.

    Raises
    ------
    UserError
        When there is no such table, or it is damaged.
    """
    table = Path(out_dir) / TABLE
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        statuses: dict[str, dict[str, str]] = {"done": {}, "skipped": {}, "failed": {}}
        for row in rows:
            said = "" if row["message"] == "n/a" else row["message"]
            statuses[row["status"]][row["participant_id"]] = said
    except FileNotFoundError as error:
        remedy = RunJob("cohort", "harmonize the participants first")
        raise UserError("has no table of a cohort", out_dir, "out_dir", remedy) from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        remedy = RunJob("cohort", "harmonize the participants again")
        raise UserError("is no table of a cohort", table, "out_dir", remedy) from error
    return CohortSummary(**statuses)
