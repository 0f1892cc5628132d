"""Tables of the report: the headline of each truth, the other measures, the tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from napari_msp.evaluation.benchmark.analysis import (
    FEW_HEADS,
    LEVELS,
    OVERLAP,
    TESTED_MEASURE,
    Analysis,
    Level,
    MethodTest,
    Summary,
)
from napari_msp.evaluation.benchmark.results import FLOOR, EffectResult, Result, Results, grouped
from napari_msp.evaluation.biology import EFFECTS, recovery
from napari_msp.evaluation.measures.catalogue import Measure
from napari_msp.evaluation.statistics import interval_name
from napari_msp.formatting import (
    SQUARED_ERROR,
    NumberFormat,
    counted,
    ends,
    number,
    p_text,
    span,
)

BIOLOGY = "Biology put in"

OTHERS = "More measures"
"""Heading of measures without a group."""


@dataclass(frozen=True)
class Cell:
    """One cell: its main text, and smaller text behind or below it."""

    main: str
    more: str = ""
    bold: bool = False


EMPTY = Cell("–")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    `groups` are headings above the other columns, with the number of columns that each spans.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()

    def markdown(self) -> str:
        """Return it as a pipe table below its caption."""
        above = [name for name, count in self.groups for _ in range(count)]
        first, *others = self.columns
        if above:
            others = [f"{name}: {other}" for name, other in zip(above, others, strict=True)]
        lines = [
            self.caption,
            "",
            _line([first, *others]),
            "|---" + "|--:" * len(others) + "|",
            *(_line([_marked(cell) for cell in row]) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _marked(cell: Cell) -> str:
    main = f"**{cell.main}**" if cell.bold else cell.main
    return f"{main} {cell.more}" if cell.more else main


Measures = Mapping[str, Measure]
"""Descriptions of the measures, by key."""


@dataclass(frozen=True)
class Tables:
    """All tables of an evaluation, each made once, for table1.md and for the page.

    Attributes
    ----------
    headline
        A table per truth of the tested measure: methods in rows, targets (and shells) in columns.
    subjects
        A table per truth, target and shell, if folds overlap: methods in rows, each subject.
    tests_title
        Heading of the tests; if nothing may be tested, they are comparisons.
    others
        A table for each other measure, by the headings of their groups.
    """

    headline: Sequence[Table]
    subjects: Sequence[Table]
    effects: Sequence[Table]
    tests: Sequence[Table]
    tests_title: str
    others: Mapping[str, Sequence[Table]]

    @classmethod
    def of(cls, found: Analysis, measures: Measures) -> "Tables":
        """Make all tables."""
        shown = found.results.select(measure=TESTED_MEASURE)
        each = shown.groups("reference", "column").items() if found.overlapping else ()
        others: dict[str, list[Table]] = {}
        for key, measure in measures.items():
            if key in found.results.names("measure") and key != TESTED_MEASURE:
                others.setdefault(measure.group or OTHERS, []).append(_other(found, measures, key))
        return cls(
            [_headline(found, shown, measures, reference) for reference in shown.references],
            [_of_subjects(part, measures, *where) for where, part in each],
            effect_tables(found.effects, overlapping=found.overlapping),
            pvalue_tables(found.tests),
            "Comparisons" if found.overlapping else "Tests",
            others,
        )

    def markdown(self) -> str:
        """Return table1.md: headline, subjects if folds overlap, other measures, tests."""
        parts = ["# Table 1", *(table.markdown() for table in self.headline)]
        sections = {
            "Each subject": self.subjects,
            BIOLOGY: self.effects,
            **self.others,
            self.tests_title: self.tests,
        }
        for title, tables in sections.items():
            if tables:
                parts += [f"## {title}", *(table.markdown() for table in tables)]
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _of_subjects(part: Results[Result], measures: Measures, reference: str, column: str) -> Table:
    several = len(part.names("dataset")) > 1
    by_method = {
        method: rows.sample_means("dataset", "subject")
        for (method,), rows in part.groups("method").items()
    }
    who = sorted({each for values in by_method.values() for each in values})
    display = NumberFormat.of(
        (each for values in by_method.values() for each in values.values()), SQUARED_ERROR
    )
    measure = measures[TESTED_MEASURE]
    return Table(
        f"{measure.label} on {column} against {against(reference)}, in "
        f"{display.unit(measure.unit)}: each subject, by what the others taught"
        + (", mean over training seeds." if len(part.names("seed")) > 1 else "."),
        ["method", *(f"{dataset} {name}" if several else name for dataset, name in who)],
        [
            [
                Cell(method),
                *(Cell(display.text(by_method[method].get(each))) for each in who),
            ]
            for method in rows_of(part)
        ],
    )


def effect_tables(effects: Results[EffectResult], *, overlapping: bool = False) -> list[Table]:
    """Return a table per target, shell and dataset: methods in rows, what is left of effects."""
    several = len(effects.names("dataset")) > 1
    return [
        _effects_on(column + f" of {dataset}" * several, part, overlapping)
        for (column, dataset), part in effects.groups("column", "dataset").items()
    ]


def _effects_on(where: str, part: Results[EffectResult], overlapping: bool) -> Table:
    names = part.names("effect")
    true = {
        name: {(row.dataset, row.subject): row.true for row in part.select(effect=name)}
        for name in names
    }
    put = {name: sum(of.values()) / len(of) for name, of in true.items()}
    rows = [
        [Cell("put in, mean"), *(Cell(f"{put[name]:.3g}", EFFECTS[name].unit) for name in names)],
        *(
            [Cell(m), *(_kept(part.select(method=m, effect=e).rows, overlapping) for e in names)]
            for m in part.methods
        ),
    ]
    counts = {len(part.select(method=m, effect=e)) for m in part.methods for e in names}
    truth = against(part.references[0])
    interval = f"({OVERLAP})" if overlapping else f"[{interval_name(counts, 'heads')}]"
    return Table(
        f"What part of an effect put into heads is predicted on {where}: mean recovered over mean "
        f"true effect in {truth} {interval}; 1 keeps it whole, 0.9 is the goal for lesions. "
        f"n = {span(counts)}. "
        + " ".join(f"{name[0].upper()}{name[1:]}: {EFFECTS[name].explanation}" for name in names),
        ["method", *names],
        rows,
    )


def _kept(rows: Sequence[EffectResult], overlapping: bool) -> Cell:
    if not rows:
        return EMPTY
    found = recovery([row.true for row in rows], [row.value for row in rows])
    return Cell(number(found.ratio, 2), ends(None if overlapping else found.interval, 2))


def against(reference: str) -> str:
    """Return the name of a truth."""
    return {"scan": "the scans", "noise-free": "the noise-free twins"}.get(reference, reference)


def rows_of(results: Results[Result]) -> list[str]:
    """Return the methods in order, the floor last."""
    return sorted(results.methods, key=lambda method: method == FLOOR)


def _display(measures: Measures, key: str, shown: Iterable[Summary]) -> NumberFormat:
    return NumberFormat.of((each.mean for each in shown), measures[key].unit)


def _headline(
    found: Analysis, tested: Results[Result], measures: Measures, reference: str
) -> Table:
    key = TESTED_MEASURE
    part = tested.select(reference=reference)
    shown = [found.summaries[m, c, reference, key] for m, c in part.groups("method", "column")]
    display = _display(measures, key, shown)
    repeated = any(each.datasets > 1 or each.seeds > 1 for each in shown)

    def cell(method: str, column: str) -> Cell:
        summary = found.summaries.get((method, column, reference, key))
        return _mean(summary, display, headline=True, spread=repeated)

    subjects = [_most_subjects(found, key, reference, column) for column in part.columns]
    caption = (
        f"{measures[key].label} against {against(reference)}, in "
        f"{display.unit(measures[key].unit)}: mean (sd) over {span(subjects)} "
        f"subject{'' if max(subjects) == 1 else 's'}"
        + (
            f"; {OVERLAP}"
            if found.overlapping
            else f" [{interval_name(each.subjects for each in shown)}]"
        )
    )
    if repeated:
        datasets = max(each.datasets for each in shown)
        seeds = max(each.seeds for each in shown)
        caption += (
            f" ± sd of the means of {counted(datasets, 'dataset')} ± sd of the means of "
            f"{counted(seeds, 'training seed')}"
        )
    rows = [[Cell(m), *(cell(m, column) for column in part.columns)] for m in rows_of(part)]
    caption += f". Lowest mean in bold.{_of_fewer(shown)}"
    return Table(caption, ["method", *_with_subjects(part.columns, subjects)], rows)


def _most_subjects(found: Analysis, key: str, reference: str, column: str) -> int:
    """Count the subjects of a column: those of the method that has most."""
    where = (column, reference, key)
    return max(each.subjects for (_, *at), each in found.summaries.items() if tuple(at) == where)


def _with_subjects(columns: Sequence[str], subjects: Sequence[int]) -> list[str]:
    """Return the names of columns, with their number of subjects if these differ."""
    alike = len(set(subjects)) == 1
    return [
        column if alike else f"{column} (n = {count})"
        for column, count in zip(columns, subjects, strict=True)
    ]


def _mean(
    summary: Summary | None, display: NumberFormat, *, headline: bool = False, spread: bool = False
) -> Cell:
    """Format a mean and its deviation, with the number of subjects if others have more."""
    if summary is None:
        return EMPTY
    text = display.text
    more = [] if summary.complete else [f"n = {summary.subjects}"]
    if headline and summary.interval is not None:
        more.append(f"[{text(summary.interval[0])}, {text(summary.interval[1])}]")
    if spread:
        more.append(f"± {text(summary.dataset_spread)} ± {text(summary.seed_spread)}")
    main = f"{text(summary.mean)} ({text(summary.deviation)})"
    return Cell(main, " ".join(more), summary.best)


def _of_fewer(shown: Iterable[Summary]) -> str:
    if all(each.complete for each in shown):
        return ""
    return (
        " A mean with an n of its own is of fewer subjects than others', and is not marked as "
        "best: it may be low because the hard heads are missing."
    )


def _other(found: Analysis, measures: Measures, key: str) -> Table:
    part = found.results.select(measure=key)
    columns = [(r, c) for r in part.references for c in part.select(reference=r).columns]
    shown = [each for each in found.summaries.values() if each.measure == key]
    display = _display(measures, key, shown)

    def cell(method: str, reference: str, column: str) -> Cell:
        return _mean(found.summaries.get((method, column, reference, key)), display)

    measure = measures[key]
    unit = display.unit(measure.unit)
    subjects = [_most_subjects(found, key, r, c) for r, c in columns]
    name = measure.label[:1].upper() + measure.label[1:]
    return Table(
        f"{name}{f', in {unit}' if unit else ''}: mean (sd) over subjects. {measure.explanation} "
        f"In bold: {measure.better}.{_of_fewer(shown)}",
        ["method", *_with_subjects([column for _, column in columns], subjects)],
        [[Cell(m), *(cell(m, r, c) for r, c in columns)] for m in rows_of(part)],
        [
            (f"against {against(r)}", sum(other == r for other, _ in columns))
            for r in part.references
        ],
    )


def pvalue_tables(tests: Sequence[MethodTest]) -> list[Table]:
    """Return a table per level, truth and shell: other methods in rows, targets in columns."""
    families = grouped(tests, lambda test: (test.level, test.reference, test.shell))
    return [_tests_of(*key, family) for key, family in families.items()]


def _tests_of(
    level: Level, reference: str, shell: int | None, family: Sequence[MethodTest]
) -> Table:
    by_place = {(test.second, test.target): test for test in family}
    targets = list(dict.fromkeys(test.target for test in family))
    others = list(dict.fromkeys(test.second for test in family))
    first = family[0]
    samples = {test.test.pairs for test in family}
    notes = list(dict.fromkeys(test.test.note for test in family if test.test.note))
    compared = (
        f"{first.first} against each other method {LEVELS[level]} (n = {span(samples)}), truth: "
        f"{against(reference)}{at_shell(shell)}. Change of the mean SH MSE"
    )
    rows = [
        [Cell(other), *(_test_cell(by_place.get((other, target))) for target in targets)]
        for other in others
    ]
    if notes in ([OVERLAP], [FEW_HEADS]):
        caption = f"{compared}; rank-biserial correlation r, −1 where it errs less on every {level}"
        return Table(f"{caption}. Nothing is tested: {notes[0]}.", ["against", *targets], rows)
    caption = (
        compared
        + (f" [{interval_name(samples)}]" if level == "subject" else "")
        + "; rank-biserial correlation r, −1 where it errs less on every sample; p of Wilcoxon's "
        f"signed-rank test, two-sided, {_correction(first.comparisons)}. Bold: p < 0.05."
    )
    if notes:
        caption += f" Note: {'; '.join(notes)}."
    return Table(caption, ["against", *targets], rows)


def _correction(comparisons: int) -> str:
    if comparisons == 1:
        return "uncorrected, as this is the only comparison"
    return f"times the {comparisons} comparisons of this table (methods × targets; Bonferroni)"


def at_shell(shell: int | None) -> str:
    """Return words for the shell, if there are several."""
    return "" if shell is None else f" at b = {shell}"


def _test_cell(test: MethodTest | None) -> Cell:
    if test is None:
        return EMPTY
    if test.change is None:
        return Cell("–", f"{test.second} has no error")
    change = f"{number(test.change, 1, signed=True)} % {ends(test.interval, 1)}".rstrip()
    r = number(test.test.rank_biserial, 2)
    if test.test.note in (OVERLAP, FEW_HEADS):
        return Cell(change, f"r = {r}")
    return Cell(change, f"r = {r}, {p_text(test.test.corrected_p_value)}", test.significant)
