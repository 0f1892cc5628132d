"""Report of an evaluation: one page that needs no other file, and the tables beside it."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, PackageLoader

from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.benchmark.analysis import (
    NO_EFFECTS,
    OVERLAP,
    Analysis,
    MethodTest,
    analyse,
)
from napari_msp.evaluation.benchmark.results import (
    FLOOR,
    EffectResult,
    PatchResult,
    Result,
    Results,
    grouped,
    results_csv,
)
from napari_msp.evaluation.benchmark.settings import Subjects
from napari_msp.evaluation.figures.layout import write_figure
from napari_msp.evaluation.proof.pages import ProofPage
from napari_msp.evaluation.report.methods_section import EvaluationRun, methods_paragraph
from napari_msp.evaluation.report.tables import (
    BIOLOGY,
    Cell,
    Measures,
    Table,
    Tables,
    against,
    at_shell,
)
from napari_msp.files import staged_folder
from napari_msp.formatting import counted, csv_text, ends, number

LIMITS = (
    "Patches of one head are not independent, so p-values over patches overstate the evidence; "
    "those over subjects do not.",
    "Residual misalignment between scans counts as error of every method alike.",
    "A low squared error favours smooth images; look at the figures too.",
    "The spread over datasets includes the difference of their subjects as well as of the methods.",
    "Numbers are valid for these platforms, protocols and subjects only.",
)
"""Limits of every evaluation."""

OVERLAPPING = (
    "Each subject is predicted by what almost the same others taught, so the folds' errors depend "
    "on each other: no test and no interval allows for that (Bengio 2004)."
)
"""Limit of an evaluation whose folds overlap, in place of the first one."""

TERMS = ("method", "needs", "gives back")

SUMMARY_COLUMNS = (
    "method", "target", "reference", "measure", "unit", "subjects", "datasets", "seeds", "mean",
    "sd", "low", "high", "sd_datasets", "sd_seeds", "best",
)  # fmt: skip
"""Columns of table1.csv; `low` and `high` end the mean's 95 % interval, see `mean_interval`."""

TEST_COLUMNS = (
    "level", "reference", "target", "first", "second", "pairs", "unequal", "first_mean",
    "second_mean", "change_percent", "low_percent", "high_percent", "rank_biserial",
    "median_difference", "p_value", "comparisons", "corrected_p_value", "note",
)  # fmt: skip
"""Columns of pvalues.csv; `low` and `high` end the change's interval, see `change_interval`."""


def write_report(
    results: Results[Result],
    patches: Results[PatchResult],
    run: EvaluationRun,
    figures: Mapping[str, Path],
    out: Path,
    measures: Measures,
    effects: Results[EffectResult] = NO_EFFECTS,
    pages: Sequence[ProofPage] = (),
    go_on: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write report.html, table1.csv, table1.md, pvalues.csv, methods.txt and their data.

    The data are measures.csv and patches.csv; methods.txt is the paragraph with its references.
    All files are written, or none.

    Parameters
    ----------
    figures
        PNG files by caption, in the order of the page.
    measures
        Descriptions of the measures, by key.
    effects
        Effects put into heads, as they were predicted; if there are any, biology.csv is written
        too.
    pages
        Pages of proof, see `napari_msp.evaluation.proof`: their tidy tables, each with a data
        dictionary, and their figures are written too.
    go_on
        Called before each figure is drawn; whatever it raises ends the work.

    Raises
    ------
    UserError
        When nothing was measured, or the tested method was not.
    """
    if not len(results):
        remedy = Advice("give a method and a subject that is held out")
        raise UserError("nothing was measured", remedy=remedy)
    pictures = {caption: path.read_bytes() for caption, path in figures.items()}
    found = analyse(results, patches, run.tested, effects, overlapping=bool(run.plan.folds))
    tables = Tables.of(found, measures)
    paragraph = methods_paragraph(run, found.tests)
    contents = {
        "measures.csv": results_csv(results, Result),
        "patches.csv": results_csv(patches, PatchResult),
        "table1.csv": summaries_csv(found, measures),
        "table1.md": tables.markdown(),
        "pvalues.csv": pvalues_csv(found.tests),
    }
    if len(effects):
        contents["biology.csv"] = results_csv(effects, EffectResult)
    for page in pages:
        for name, tidy in page.files.items():
            contents[f"{name}.csv"] = tidy.csv()
            contents[f"{name}.json"] = json.dumps(tidy.dictionary(), indent=2, ensure_ascii=False)
    contents["methods.txt"] = methods_text(paragraph, run, pages)
    drawn = [drawing for page in pages for drawing in page.drawings]
    with staged_folder(Path(out)) as stage:
        for drawing in drawn:
            go_on()
            write_figure(stage / f"{drawing.name}.png", drawing.figure)
        drawings = {each.name: (stage / f"{each.name}.png").read_bytes() for each in drawn}
        environment = Environment(loader=PackageLoader(__package__, "."), autoescape=True)
        contents["report.html"] = environment.get_template("report.html").render(
            run=run,
            tables=tables,
            lead=_lead(results, run),
            sentences=findings(found.tests),
            pictures=_encoded(pictures),
            pages=pages,
            drawings=_encoded(drawings),
            works=_works(run, pages),
            paragraph=paragraph,
            terms=_terms(run),
            training=_training(run),
            limits=_limits(run),
            pinned=_pinned(run, results),
            biology_title=BIOLOGY,
        )
        for name, text in contents.items():
            (stage / name).write_text(text, encoding="utf-8")
    return [Path(out) / name for name in (*contents, *(f"{each.name}.png" for each in drawn))]


def methods_text(paragraph: str, run: EvaluationRun, pages: Sequence[ProofPage]) -> str:
    """Return the methods section with its references, as plain text to paste."""
    paragraphs = [paragraph, *(page.methods for page in pages if page.methods)]
    return "\n\n".join([*paragraphs, "\n".join(["References", *_works(run, pages)])]) + "\n"


def _works(run: EvaluationRun, pages: Sequence[ProofPage]) -> list[str]:
    """List what the paragraph and all pages cite, each work once."""
    return sorted({*run.works, *(each for page in pages for each in page.references)})


def summaries_csv(found: Analysis, measures: Measures) -> str:
    """Return table1.csv: a row per method, target, truth and measure, with full precision.

    If there are several shells, they have a column behind the targets. If folds overlap, a last
    column says why there are no intervals.
    """
    columns = (*SUMMARY_COLUMNS, "note") if found.overlapping else SUMMARY_COLUMNS
    rows = [
        (s.shell, [
            s.method, s.target, s.reference, s.measure, measures[s.measure].unit,
            s.subjects, s.datasets, s.seeds, s.mean, s.deviation,
            *(s.interval or (None, None)), s.dataset_spread, s.seed_spread, int(s.best),
            *([OVERLAP] if found.overlapping else ()),
        ])
        for s in found.summaries.values()
    ]  # fmt: skip
    return _csv_by_shell(columns, rows)


def pvalues_csv(tests: Sequence[MethodTest]) -> str:
    """Return pvalues.csv: a row per test, with full precision; shells as in `summaries_csv`."""
    rows = [
        (t.shell, [
            t.level, t.reference, t.target, t.first, t.second, t.test.pairs, t.test.unequal,
            t.first_mean, t.second_mean, t.change, *(t.interval or (None, None)),
            t.test.rank_biserial, t.test.median_difference, t.test.p_value, t.comparisons,
            t.test.corrected_p_value, t.test.note,
        ])
        for t in tests
    ]  # fmt: skip
    return _csv_by_shell(TEST_COLUMNS, rows)


def _csv_by_shell(columns: Sequence[str], rows: list[tuple[int | None, list[object]]]) -> str:
    """Return rows as CSV with their shells, if there are any, behind the targets."""
    at = columns.index("target") + 1
    if all(shell is None for shell, _ in rows):
        return csv_text(columns, (row for _, row in rows))
    header = [*columns[:at], "shell", *columns[at:]]
    return csv_text(header, ([*row[:at], shell, *row[at:]] for shell, row in rows))


def _limits(run: EvaluationRun) -> list[str]:
    people = "Measure only people whom the model has not learned from."
    scans = "Measure a model that learned from scans of these scanners."
    return [
        *run.notes,
        *(f"{each}. {people}" for each in run.plan.doubts),
        *(f"{each}. {scans}" for each in run.plan.unfit),
        *((OVERLAPPING, *LIMITS[1:]) if run.plan.folds else LIMITS),
    ]


def _encoded(pictures: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode("ascii") for name, data in pictures.items()}


def _lead(results: Results[Result], run: EvaluationRun) -> str:
    methods = [method for method in results.methods if method != FLOOR]
    subjects = results.groups("dataset", "subject")
    counts = (
        (len(methods), "method"),
        (len(results.targets), "target platform"),
        *([(len(shells), "shell")] if (shells := results.names("shell")) != [None] else []),
        (len(subjects), "simulated test head" if run.simulated else "test subject"),
        (len(results.names("dataset")), "dataset"),
        *([(len(results.names("seed")), "training seed")] if run.training else []),
    )
    return ", ".join(counted(count, what) for count, what in counts) + "."


def findings(tests: Sequence[MethodTest]) -> list[str]:
    """Return one sentence per truth (and shell), from the tests over subjects.

    Each target names the strongest other method, so no sentence compares with a weak one.
    """
    over = (test for test in tests if test.level == "subject")
    families = grouped(over, lambda test: (test.reference, test.shell))
    return [_sentence(*family, of) for family, of in families.items()]


def _sentence(reference: str, shell: int | None, tests: Sequence[MethodTest]) -> str:
    by_target = grouped(tests, lambda test: test.target).values()
    strongest = [min(others, key=lambda test: test.second_mean) for others in by_target]
    wins = sum(test.first_mean <= test.second_mean for test in strongest)
    ties = sum(test.first_mean == test.second_mean for test in strongest)
    shared = f" (as low as another's on {ties})" if ties else ""
    each = "; ".join(f"{test.target} {_beside(test)}" for test in strongest)
    return (
        f"Against {against(reference)}{at_shell(shell)}, {strongest[0].first} has the lowest mean "
        f"SH MSE on {wins} of {len(strongest)} targets{shared}. Beside the best other method: "
        f"{each}."
    )


def _beside(test: MethodTest) -> str:
    """Describe a method relative to another, which may have no error."""
    if test.change is None:
        nor = f", nor has {test.first}" if test.first_mean == 0 else ""
        return f"{test.second} has no error{nor}"
    change = f"{number(test.change, 1, signed=True)} % {ends(test.interval, 1)}".rstrip()
    return f"{change} against {test.second}"


def _terms(run: EvaluationRun) -> Table | None:
    """Tabulate the inputs and outputs of each method."""
    if not run.methods:
        return None
    rows = [[Cell(name), Cell(each.needs), Cell(each.gives)] for name, each in run.methods.items()]
    return Table("What each method learns from, and what it gives back.", TERMS, rows)


def _training(run: EvaluationRun) -> Table | None:
    if not run.training:
        return None
    columns = list(run.training[0])
    rows = [[Cell(_plain(row.get(column, "–"))) for column in columns] for row in run.training]
    where = f", in {len(run.plan.folds)} folds together" if run.plan.folds else ""
    return Table(f"What each method was given and took{where}.", columns, rows)


def _plain(value: object) -> str:
    """Format whole numbers in groups of three digits, others short."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{round(value):,}".replace(",", " ")
    return f"{value:.3g}"


def _pinned(run: EvaluationRun, results: Results[Result]) -> dict[str, str]:
    """Return what another run must share with this one."""
    return {
        **({"Training seeds": ", ".join(map(str, results.names("seed")))} if run.training else {}),
        **(
            {f"Fold of {fold.test[0]}": _parts(fold) for fold in run.plan.folds}
            or {f"Subjects of {name}": _parts(split) for name, split in run.splits.items()}
        ),
        "Versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "Machine": run.machine,
    }


def _parts(split: Subjects) -> str:
    return "; ".join(f"{role} {' '.join(who) or 'none'}" for role, who in asdict(split).items())
