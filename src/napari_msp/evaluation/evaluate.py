"""From the errors of many models over held-out heads to Table 1, tests and a report."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from napari_msp.errors import UserError
from napari_msp.evaluation.records import ErrorRecord, ErrorTable
from napari_msp.evaluation.report import METHODS, report_html
from napari_msp.evaluation.table import (
    compare_models,
    paired_csv,
    summarise,
    table_csv,
    table_markdown,
)
from napari_msp.files import atomic_path


def evaluate_predictions(
    records: Iterable[ErrorRecord],
    out: Path,
    *,
    reference: str | None = None,
    figures: dict[str, Path] | None = None,
    methods: str = METHODS,
) -> dict[str, Any]:
    """Write table1.csv, table1.md, pvalues.csv and report.html: all of them or none.

    Parameters
    ----------
    records
        Errors of each model on each patch of each held-out head, see `patch_records`.
    out
        Folder for the files.
    reference
        The model that is tested against the others, chosen before the errors were seen; None:
        every pair is tested.
    figures
        PNG files by caption, put into the report.
    methods
        The report's methods paragraph.

    Returns
    -------
    Mean error by model and target, and the paths written.

    Raises
    ------
    UserError
        When there is nothing to evaluate, an error is not finite, `reference` was not measured,
        or a figure cannot be read.
    """
    errors = ErrorTable(records)
    if reference is not None and reference not in errors.models:
        raise UserError(
            f"--reference: {reference} was not measured; choose from {', '.join(errors.models)}"
        )
    cells, heads = summarise(errors, "patch"), summarise(errors, "subject")
    tests = [
        test for level in ("patch", "subject") for test in compare_models(errors, level, reference)
    ]
    pictures = {caption: _read(path) for caption, path in (figures or {}).items()}
    contents = {
        "table1.csv": table_csv(errors, cells),
        "table1.md": table_markdown(errors, cells, tests),
        "pvalues.csv": paired_csv(tests),
        "report.html": report_html(errors, cells, heads, tests, pictures, methods),
    }
    with ExitStack() as stack:
        for name, text in contents.items():
            stack.enter_context(atomic_path(Path(out) / name)).write_text(text, encoding="utf-8")
    return {
        "mean": {
            model: {t: cells[model, t].mean for t in errors.targets if (model, t) in cells}
            for model in errors.models
        },
        "files": [str(Path(out) / name) for name in contents],
    }


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: the figure cannot be read ({error.strerror}); check the path"
        ) from error
