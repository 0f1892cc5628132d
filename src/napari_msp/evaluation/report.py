"""The report of an evaluation: one page that needs no other file, and the tables beside it."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.analysis import (
    MethodTest,
    Summaries,
    compare_methods,
    summarise,
)
from napari_msp.evaluation.benchmark.results import FLOOR, PatchResult, Result, Results, results_csv
from napari_msp.evaluation.display import counted
from napari_msp.evaluation.facts import Facts, methods_paragraph
from napari_msp.evaluation.findings import findings
from napari_msp.evaluation.page_style import STYLE
from napari_msp.evaluation.pvalue_table import pvalue_tables
from napari_msp.evaluation.table import Cell, Table
from napari_msp.evaluation.table1 import Measures, headline_tables, other_tables
from napari_msp.evaluation.table_files import pvalues_csv, summaries_csv, tables_markdown
from napari_msp.files import staged_folder

LIMITS = (
    "Patches of one head are not independent, so p-values over patches overstate the evidence; "
    "those over subjects do not.",
    "Residual misalignment between scans counts as error of every method alike.",
    "A low squared error favours smooth images; look at the figures too.",
    "The spread over datasets holds the difference of their subjects as well as of the methods.",
    "Numbers hold for these platforms, protocols and subjects only.",
)
"""Of every evaluation."""


def write_report(
    results: Results[Result],
    patches: Results[PatchResult],
    facts: Facts,
    figures: Mapping[str, Path],
    out: Path,
    measures: Measures,
) -> list[Path]:
    """Write report.html, table1.csv, table1.md, pvalues.csv and the rows that they rest on.

    The rows are measures.csv and patches.csv. All files are written or none.

    Parameters
    ----------
    results, patches
        What was measured.
    facts
        Of the run.
    figures
        PNG files by caption, in the order of the page.
    out
        Folder for the files.
    measures
        What a reader must know of each measure, by key.

    Returns
    -------
    The files.

    Raises
    ------
    UserError
        When nothing was measured, the tested method was not, or a figure cannot be read.
    """
    if not len(results):
        raise UserError("nothing was measured; give a method and a subject that is held out")
    pictures = {caption: _read(path) for caption, path in figures.items()}
    summaries = summarise(results)
    tests = compare_methods(results, patches, facts.tested) if facts.tested else []
    contents = {
        "measures.csv": results_csv(results, Result),
        "patches.csv": results_csv(patches, PatchResult),
        "table1.csv": summaries_csv(summaries, measures),
        "table1.md": tables_markdown(results, summaries, tests, measures),
        "pvalues.csv": pvalues_csv(tests),
        "report.html": report_html(results, summaries, tests, facts, pictures, measures),
    }
    with staged_folder(Path(out)) as stage:
        for name, text in contents.items():
            (stage / name).write_text(text, encoding="utf-8")
    return [Path(out) / name for name in contents]


def report_html(
    results: Results[Result],
    summaries: Summaries,
    tests: Sequence[MethodTest],
    facts: Facts,
    pictures: Mapping[str, bytes],
    measures: Measures,
) -> str:
    """Write the page.

    Parameters
    ----------
    pictures
        PNG bytes by caption.
    """
    sections = {
        "Errors": "".join(t.html() for t in headline_tables(results, summaries, measures)),
        "Tests": "".join(table.html() for table in pvalue_tables(tests)),
        "Figures": "".join(_figure(caption, data) for caption, data in pictures.items()),
        "Methods": f"<p>{escape(methods_paragraph(facts, tests))}</p>",
        "Training": _training(facts),
        "Limits": _bullets([*facts.limits, *LIMITS]),
        "How to repeat it": _repeat(facts, results),
        "Other measures": "".join(
            f"<h3>{escape(title)}</h3>{''.join(table.html() for table in tables)}"
            for title, tables in other_tables(results, summaries, measures).items()
        ),
    }
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in shown)
    found = "".join(f"<p>{escape(sentence)}</p>" for sentence in findings(tests))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Harmonization of {escape(facts.input)}: evaluation</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>How well is {escape(facts.input)} harmonized?</h1>",
            f'<p class="lead">{escape(_lead(results, facts))}</p>',
            f"<nav>{links}</nav>",
            f'<div class="found">{found}</div>' if found else "",
            *(f'<h2 id="{_anchor(title)}">{title}</h2>\n{body}' for title, body in shown.items()),
            "</body></html>\n",
        ]
    )


def _lead(results: Results[Result], facts: Facts) -> str:
    methods = [method for method in results.methods if method != FLOOR]
    counts = (
        (len(methods), "method"),
        (len(results.targets), "target platform"),
        (len(results.subjects), "simulated test head" if facts.simulated else "test subject"),
        (len(results.datasets), "dataset"),
        (len(results.seeds), "training seed"),
    )
    return ", ".join(counted(count, what) for count, what in counts) + "."


def _figure(caption: str, data: bytes) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _training(facts: Facts) -> str:
    if not facts.training:
        return ""
    columns = list(facts.training[0])
    rows = [[Cell(_plain(row.get(column, "–"))) for column in columns] for row in facts.training]
    return Table("What each method was given and took.", columns, rows).html()


def _plain(value: object) -> str:
    """Write whole numbers in groups of three, others short."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{round(value):,}".replace(",", " ")
    return f"{value:.3g}"


def _repeat(facts: Facts, results: Results[Result]) -> str:
    described = {
        "Training seeds": ", ".join(map(str, results.seeds)),
        **{
            f"Subjects of {name}": f"training {_names(split.training)}; validation "
            f"{_names(split.validation)}; test {_names(split.test)}"
            for name, split in facts.splits.items()
        },
        "Data are pinned by": facts.frozen,
        "Versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
        "Machine": facts.machine,
    }
    terms = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
        for name, text in described.items()
        if text
    )
    return f"<pre>{escape(facts.command)}</pre><dl>{terms}</dl>"


def _names(subjects: Sequence[str]) -> str:
    return " ".join(subjects) or "none"


def _bullets(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: the figure cannot be read ({error.strerror}); check the path"
        ) from error
