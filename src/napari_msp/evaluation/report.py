"""Write the report of an evaluation: tables, tests, figures, methods and limits in one page."""

import base64
from html import escape

from napari_msp.evaluation.records import ErrorTable
from napari_msp.evaluation.table import (
    Cells,
    NamedTest,
    cell_text,
    common_exponent,
    row_of,
)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c1c1c; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; padding-bottom: .4rem; color: #555; }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #333; }
.best { font-weight: 700; }
figure { margin: 1.5rem 0; } img { max-width: 100%; background: #000; }
"""

METHODS = (
    "Errors are mean squared differences of the spherical-harmonic coefficients of the "
    "b0-normalised signal (order 6, MRtrix3 basis, scanner axes), inside the brain mask of "
    "prediction and truth, on truth's own lattice: where lattices differ the prediction was "
    "interpolated, never the truth. Each head was cut into non-overlapping patches. Models were "
    "compared by Wilcoxon's signed-rank test on paired errors, two-sided, with Bonferroni's "
    "correction over all tests of a level; the effect size is the rank-biserial correlation."
)

LIMITS = (
    "Patches of one head are not independent, so p-values over patches overstate the evidence; "
    "those over subjects do not, but need at least six subjects to fall below 0.05 even without "
    "correction.",
    "Residual misalignment between scans counts as error of every model alike.",
    "A low squared error favours smooth images; look at the figures too.",
    "Numbers hold for these platforms, protocols and subjects only.",
)


def report_html(
    errors: ErrorTable,
    patches: Cells,
    heads: Cells,
    tests: list[NamedTest],
    figures: dict[str, bytes],
    methods: str = METHODS,
) -> str:
    """Write a page that needs no other file.

    Parameters
    ----------
    errors
        Gives models, targets and subjects.
    patches, heads
        Cells over patches and over subjects.
    tests
        Of either level.
    figures
        PNG bytes by caption.
    methods
        The methods paragraph.
    """
    subjects = errors.subjects
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>',
        f"<style>{STYLE}</style></head><body>",
        "<h1>Evaluation of harmonization models</h1>",
        f"<p>{len(errors.models)} models, {len(errors.targets)} targets, "
        f"{len(subjects)} held-out subjects: {escape(', '.join(subjects))}.</p>",
        "<h2>Errors</h2>",
        _table(errors, patches, "patches"),
        _table(errors, heads, "subjects"),
    ]
    if tests:
        parts += ["<h2>Paired tests</h2>", _tests(tests)]
    if figures:
        parts.append("<h2>Figures</h2>")
    for caption, picture in figures.items():
        encoded = base64.b64encode(picture).decode("ascii")
        parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in LIMITS)
    parts += [
        f"<h2>Methods</h2><p>{escape(methods)}</p>",
        f"<h2>Limits</h2><ul>{limits}</ul>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(errors: ErrorTable, cells: Cells, over: str) -> str:
    exponent = common_exponent(cells)
    head = "".join(f"<th>{escape(target)}</th>" for target in errors.targets)
    rows = []
    for model in errors.models:
        row = f"<td>{escape(model)}</td>"
        for target in errors.targets:
            cell = cells.get((model, target))
            mark = ' class="best"' if cell is not None and cell.best else ""
            row += f"<td{mark}>{cell_text(cell, exponent)}</td>"
        rows.append(f"<tr>{row}</tr>")
    return (
        f"<table><caption>SH MSE in 10<sup>{exponent}</sup> SH units², mean (sd) over {over}; "
        f"lowest mean in bold</caption><thead><tr><th>model</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _tests(tests: list[NamedTest]) -> str:
    names = ("target", "first", "second", "samples", "n", "p corrected", "effect", "note")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row_of(test)) + "</tr>"
        for test in tests
    )
    return (
        "<table><caption>Effect: rank-biserial correlation, negative where the first model errs "
        f"less</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
