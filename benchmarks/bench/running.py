"""One run: what is asked for is measured, compared with what was kept, and kept where due."""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import keeping, machine
from bench.comparing import Comparison, Setting, Subject, Table, missing
from bench.timing import measure


class Bench:
    """A run over some subjects.

    Parameters
    ----------
    subjects
        In the order of the page.
    setting
        How it is made.
    results, page
        What was kept, for programs and for people. Of a quick run only the first is written.
    keep
        Replace what was kept; what was not there is kept in any case.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        setting: Setting,
        results: Path,
        page: Path,
        keep: bool = False,
    ) -> None:
        self._subjects, self._setting, self._keep = subjects, setting, keep
        self._results, self._page = results, page
        self._known = keeping.load(results)
        form = "quick" if setting.quick else "full"
        self._kept = self._known.setdefault(form, keeping.Kept())
        self._machine = machine.describe(setting.threads)

    def run(self, only: Sequence[str] = ()) -> int:
        """Measure; give the exit status: 1 where a ratio fell or something failed.

        Parameters
        ----------
        only
            Names of subjects, or parts of names of comparisons and tables, in the order in which
            they are to be measured: what was measured is kept, whenever the run ends. None: all.
        """
        print(f"{self._machine}\n", flush=True)
        wrong: list[str] = []
        for subject, each in self._asked(only, wrong):
            name = f"{subject.name}, {each.key}"
            if absent := missing(each):
                print(f"{name}: left out: {' and '.join(absent)} not installed", flush=True)
                continue
            try:
                said = self._measure(subject, each)
            except Exception as error:  # one that fails does not hide the others
                said = f"failed: {type(error).__name__}: {error}"
                print(f"{name}: {said}", flush=True)
            wrong += [f"{name}: {said}"] if said else []
            self._write()
        if wrong:
            print("\n" + "\n".join(wrong), file=sys.stderr)
        return 1 if wrong else 0

    def _asked(
        self, only: Sequence[str], wrong: list[str]
    ) -> list[tuple[Subject, Comparison | Table]]:
        """Give what is named, each once; names of nothing go to what is wrong."""
        every = [(subject, each) for subject in self._subjects for each in subject.all]
        if not only:
            return every
        found = {
            one: [pair for pair in every if one == pair[0].name or one in pair[1].key]
            for one in only
        }
        wrong += [f"nothing is called {one}" for one, pairs in found.items() if not pairs]
        chosen = {(s.name, e.key): (s, e) for pairs in found.values() for s, e in pairs}
        return list(chosen.values())

    def _write(self) -> None:
        keeping.save(self._results, self._known)
        if not self._setting.quick:
            self._page.write_text(keeping.page(self._kept, self._subjects), encoding="utf-8")

    def _measure(self, subject: Subject, each: Comparison | Table) -> str:
        """Measure one and keep it where that is due; say what fell on this kind of machine."""
        if isinstance(each, Table):
            self._tabulate(subject, each)
            return ""
        hardware = machine.hardware(self._setting.threads)
        row = keeping.Row(measure(each, self._setting), hardware, self._machine)
        rows = self._kept.rows.setdefault(subject.name, {})
        before = rows.get(each.key)
        if before is None or self._keep:
            rows[each.key] = row
        print(f"{subject.name}, {each.name}: {keeping.in_words(each, row)}", flush=True)
        for figure, value in row.outcome.figures.items():
            print(f"    {figure}: {value}", flush=True)
        fell = "" if before is None else keeping.regression(row, before)
        if before is not None and fell and not keeping.same_machine(row, before):
            print(f"    {fell}; the former on another machine: {before.hardware}", flush=True)
            return ""
        if fell:
            print(f"    {fell}", flush=True)
        return fell

    def _tabulate(self, subject: Subject, table: Table) -> None:
        cells = [list(row) for row in table.rows(self._setting)]
        print(f"{subject.name}, {table.name}:\n")
        print(keeping.markdown([list(table.columns), *cells]), flush=True)
        tables = self._kept.tables.setdefault(subject.name, {})
        if self._keep or table.key not in tables:
            tables[table.key] = keeping.Cells(self._machine, cells)
