"""Compare predictions with truth: Figure 3 and the numbers. The job of `napari-msp compare`."""

from itertools import combinations
from pathlib import Path
from typing import Any

from napari_msp.arrays import FloatArray
from napari_msp.bids import nifti_stem
from napari_msp.data.lattice import Lattice, resample
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import UserError
from napari_msp.evaluation.comparison import Comparison, MappedImage, line_up
from napari_msp.evaluation.figures.figure3 import draw_figure3
from napari_msp.evaluation.figures.page import check_format, write_figure
from napari_msp.evaluation.metrics import UNITS, Metrics, measure_mapped
from napari_msp.evaluation.numbers import rows, write_numbers
from napari_msp.evaluation.sources import (
    Source,
    check_same_b_value,
    check_same_head,
    read_source,
    same_b_value,
)
from napari_msp.evaluation.statistics import bonferroni, wilcoxon
from napari_msp.files import atomic_path, write_json

FIGURE = "figure3"
METRICS = "metrics.json"
NUMBERS = "numbers.csv"

REGULARISATION_TOLERANCE = 0.01
"""Relative difference of λ that still counts as rounding (our choice)."""


def compare(
    truth: Path | None,
    predictions: dict[str, Path],
    out: Path,
    input_image: Path | None = None,
    axis: str = "axial",
    slice_index: int | None = None,
    b_value: float | None = None,
    figure_format: str = "png",
) -> dict[str, Any]:
    """Compare predictions of one head, with the truth where it exists.

    Parameters
    ----------
    truth
        The scan of the target platform; None where there is none.
    predictions
        Image by name. This, `truth` and `input_image` are SH images (`…_dwimap.nii.gz`), or DWIs
        with .bval and .bvec beside them, to which SH are fitted.
    out
        Folder for figure3.png, metrics.json and numbers.csv: all are written or none. Without
        truth the last holds no rows.
    input_image
        The scan that was harmonised; shown, and measured as the "no harmonisation" to beat.
    axis, slice_index
        Slice of the figure, see `figure3`.
    b_value
        Shell of scans that have several, in s/mm².
    figure_format
        "png", "pdf" or "svg"; the suffix of figure3.

    Returns
    -------
    What metrics.json holds.

    Raises
    ------
    UserError
        When images are unreadable or do not belong together: another subject's name, brains that
        hardly overlap, b-values that differ by more than 5 %.
    """
    picture = Path(out) / f"{FIGURE}.{figure_format}"
    check_format(picture)
    if not predictions:
        raise UserError("--prediction: none was given; name at least one, as NAME=IMAGE")
    sources = {name: read_source(path, b_value) for name, path in predictions.items()}
    true = None if truth is None else read_source(truth, b_value)
    scan = None if input_image is None else read_source(input_image, b_value)
    reference = true or next(iter(sources.values()))
    for source in sources.values():
        check_same_head(reference, source)
        check_same_b_value(reference, source)
    if scan is not None:
        check_same_head(reference, scan)

    comparison = line_up(
        None if true is None else true.image,
        {name: source.image for name, source in sources.items()},
    )
    mapped_scan = None if scan is None else MappedImage(scan.image)
    result: dict[str, Any] = {
        "truth": None if truth is None else str(truth),
        "input": None if input_image is None else str(input_image),
        "lattice_of": str(reference.path),
        "voxels": int(comparison.mask.sum()),
        "predictions": {
            name: {"path": str(path), "placement": comparison.placements[name]}
            for name, path in predictions.items()
        },
        "no_harmonisation": None,
        "tests": [],
        "units": UNITS,
        "notes": _notes(reference, sources, scan),
    }
    measured: dict[str, Metrics] = {}
    if comparison.truth is not None:
        measured = _add_metrics(result, comparison, reference, scan)
    figure = draw_figure3(
        comparison,
        mapped_scan,
        axis=axis,
        slice_index=slice_index,
        disagreement=_disagreement(predictions, comparison) if truth is None else None,
    )
    with (
        atomic_path(picture) as drawn,
        atomic_path(picture.with_name(METRICS)) as metrics,
        atomic_path(picture.with_name(NUMBERS)) as numbers,
    ):
        write_figure(drawn, figure)
        write_numbers(numbers, rows(measured), "" if truth is None else Path(truth).name)
        write_json(metrics, result)
    return result


def _add_metrics(
    result: dict[str, Any], comparison: Comparison, reference: Source, scan: Source | None
) -> dict[str, Metrics]:
    """Fill in the numbers of each prediction, of the input itself, and the paired tests.

    Returns
    -------
    The metrics by prediction.
    """
    truth = comparison.truth
    assert truth is not None
    measured: dict[str, Metrics] = {}
    for name, prediction in comparison.predictions.items():
        measured[name] = measure_mapped(prediction, truth, comparison.mask)
        result["predictions"][name].update(measured[name].to_json())
    pairs = list(combinations(measured, 2))
    tests = bonferroni(
        [wilcoxon(measured[a].patches.mse, measured[b].patches.mse) for a, b in pairs]
    )
    result["tests"] = [
        {"first": a, "second": b, "of": "patch_mse", **test.to_json()}
        for (a, b), test in zip(pairs, tests, strict=True)
    ]
    if tests:
        result["notes"].append(
            "p-values: Wilcoxon signed-rank on non-overlapping patches of one head, Bonferroni "
            "corrected; they tell nothing of other heads"
        )
    if scan is not None:
        _add_input(result, comparison, reference, scan)
    return measured


def _add_input(
    result: dict[str, Any], comparison: Comparison, reference: Source, scan: Source
) -> None:
    """Fill in the numbers of the input itself: the "no harmonisation" to beat."""
    truth = comparison.truth
    assert truth is not None
    if not same_b_value(reference, scan) or scan.image.order != truth.image.order:
        result["notes"].append(
            f"{scan.path.name}: was not measured, its b-value or SH order is not truth's"
        )
        return
    alone = line_up(truth.image, {"input": scan.image})
    both = alone.mask & comparison.mask
    result["no_harmonisation"] = {
        "path": str(scan.path),
        "placement": alone.placements["input"],
        **measure_mapped(alone.predictions["input"], truth, both).to_json(),
    }


def _notes(reference: Source, sources: dict[str, Source], scan: Source | None) -> list[str]:
    """Collect what a reader must know to trust the numbers."""
    notes: list[str] = []
    every = [reference, *sources.values(), *([scan] if scan is not None else [])]
    for source in every:
        notes += [note for note in source.notes if note not in notes]
    weight = reference.image.regularisation
    for source in every[1:]:
        other = source.image.regularisation
        if weight is None or other is None:
            continue
        if abs(other - weight) > REGULARISATION_TOLERANCE * max(weight, other):
            notes.append(
                f"{source.path.name}: was fitted with λ = {other:g}, {reference.path.name} with "
                f"{weight:g}; for other numbers of directions that is as it should be"
            )
    return list(dict.fromkeys(notes))


def _disagreement(predictions: dict[str, Path], comparison: Comparison) -> dict[str, FloatArray]:
    """Read the disagreement maps that lie beside predictions, where they do."""
    found: dict[str, FloatArray] = {}
    for name, path in predictions.items():
        if "param-coefficients" not in nifti_stem(path):
            continue
        beside = path.with_name(path.name.replace("param-coefficients", "param-disagreement"))
        if not beside.exists():
            continue
        image = open_nifti(beside)
        values = read_voxels(image, beside)
        if values.ndim != 3:
            raise UserError(f"{beside}: a disagreement map has three axes; write it anew")
        x, y, z = values.shape
        found[name] = resample(values, Lattice((x, y, z), image.affine), comparison.lattice)
    return found
