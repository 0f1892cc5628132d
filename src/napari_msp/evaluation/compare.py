"""Compare predictions with truth: Figure 3 and the numbers. The job of `napari-msp compare`."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from napari_msp.arrays import FloatArray
from napari_msp.bids import nifti_stem
from napari_msp.data.lattice import Lattice, resample
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, Give, UserError
from napari_msp.evaluation.comparison import Comparison, MappedImage, line_up
from napari_msp.evaluation.figures.figure3 import draw_figure3
from napari_msp.evaluation.figures.page import check_format, write_figure
from napari_msp.evaluation.metrics import UNITS, Metrics, measure_mapped, rows, write_numbers
from napari_msp.evaluation.sources import (
    Source,
    check_same_b_value,
    check_same_head,
    read_source,
    same_b_value,
)
from napari_msp.evaluation.statistics import PairedTest, bonferroni, wilcoxon
from napari_msp.files import staged_folder, write_json
from napari_msp.formatting import counted, short

FIGURE = "figure3"
METRICS = "metrics.json"
NUMBERS = "numbers.csv"

REGULARISATION_TOLERANCE = 0.01
"""Relative difference of λ that still counts as rounding (our choice)."""


@dataclass(frozen=True, eq=False)
class CompareResult:
    """What a comparison found.

    Attributes
    ----------
    truth, scan
        The target scan and the input; None where there is none.
    predictions
        By name.
    comparison
        Their images on one lattice.
    metrics
        The numbers by prediction; none without truth.
    no_harmonisation
        Those of the input itself, to be beaten; None without one that can be measured.
    tests
        Paired tests on patches by the names of two predictions.
    notes
        What a reader must know to trust the numbers.
    figure
        Figure 3.
    """

    truth: Source | None
    scan: Source | None
    predictions: Mapping[str, Source]
    comparison: Comparison
    metrics: Mapping[str, Metrics]
    no_harmonisation: tuple[str, Metrics] | None
    tests: Mapping[tuple[str, str], PairedTest]
    notes: list[str]
    figure: Figure

    def __repr__(self) -> str:
        if self.truth is None:
            return f"<{counted(len(self.predictions), 'prediction')} compared without truth>"
        errors = {name: each.sh_mse for name, each in self.metrics.items()}
        if self.no_harmonisation is not None:
            errors["no harmonisation"] = self.no_harmonisation[1].sh_mse
        said = ", ".join(f"{name} {short(error)}" for name, error in errors.items())
        return f"<compared with {self.truth.path.name}: SH MSE {said}>"

    def save(self, out: str | Path, figure_format: str = "png") -> list[Path]:
        """Write figure3.png, metrics.json and numbers.csv: all or none.

        Parameters
        ----------
        out
            Folder. Without truth the numbers hold no rows.
        figure_format
            "png", "pdf" or "svg".

        Returns
        -------
        The files.
        """
        out = Path(out)
        names = (f"{FIGURE}.{figure_format}", METRICS, NUMBERS)
        check_format(out / names[0])
        with staged_folder(out) as stage:
            write_figure(stage / names[0], self.figure)
            truth = "" if self.truth is None else self.truth.path.name
            write_numbers(stage / NUMBERS, rows(self.metrics), truth)
            write_json(stage / METRICS, self.to_json())
        return [out / name for name in names]

    def to_json(self) -> dict[str, Any]:
        """Give what metrics.json holds: plain numbers, lists and dictionaries."""
        before = self.no_harmonisation
        return {
            "truth": None if self.truth is None else str(self.truth.path),
            "input": None if self.scan is None else str(self.scan.path),
            "lattice_of": str((self.truth or next(iter(self.predictions.values()))).path),
            "voxels": int(self.comparison.mask.sum()),
            "predictions": {
                name: {
                    "path": str(source.path),
                    "placement": self.comparison.placements[name],
                    **(self.metrics[name].to_json() if name in self.metrics else {}),
                }
                for name, source in self.predictions.items()
            },
            "no_harmonisation": None
            if before is None or self.scan is None
            else {"path": str(self.scan.path), "placement": before[0], **before[1].to_json()},
            "tests": [
                {"first": first, "second": second, "of": "patch_mse", **test.to_json()}
                for (first, second), test in self.tests.items()
            ],
            "units": UNITS,
            "notes": self.notes,
        }


def compare(
    truth: str | Path | None,
    predictions: Mapping[str, str | Path],
    out: str | Path | None = None,
    input_image: str | Path | None = None,
    axis: str = "axial",
    slice_index: int | None = None,
    b_value: float | None = None,
    figure_format: str = "png",
) -> CompareResult:
    """Compare predictions of one head, with the truth where it exists.

    Parameters
    ----------
    truth
        The scan of the target platform; None where there is none.
    predictions
        Image by name. This, `truth` and `input_image` are SH images (`…_dwimap.nii.gz`), or DWIs
        with .bval and .bvec beside them, to which SH are fitted.
    out
        Folder for figure3.png, metrics.json and numbers.csv, see `CompareResult.save`; None: they
        are not written.
    input_image
        The scan that was harmonised; shown, and measured as the "no harmonisation" to beat.
    axis, slice_index
        Slice of the figure, see `figure3`.
    b_value
        Shell of scans that have several, in s/mm².
    figure_format
        "png", "pdf" or "svg"; the suffix of figure3.

    Raises
    ------
    UserError
        When images are unreadable or do not belong together: another subject's name, brains that
        hardly overlap, b-values that differ by more than 5 %.
    """
    check_format(Path(f"{FIGURE}.{figure_format}"))
    if not predictions:
        raise UserError(
            "none was given", field="predictions", remedy=Give("predictions", "at least one")
        )
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
    notes = _notes(reference, sources, scan)
    metrics, tests, before = _measure(comparison, reference, scan, notes)
    compared = CompareResult(
        true,
        scan,
        sources,
        comparison,
        metrics,
        before,
        tests,
        notes,
        draw_figure3(
            comparison,
            None if scan is None else MappedImage(scan.image),
            axis=axis,
            slice_index=slice_index,
            disagreement=_disagreement(sources, comparison) if true is None else None,
        ),
    )
    if out is not None:
        compared.save(out, figure_format)
    return compared


def _measure(
    comparison: Comparison, reference: Source, scan: Source | None, notes: list[str]
) -> tuple[dict[str, Metrics], dict[tuple[str, str], PairedTest], tuple[str, Metrics] | None]:
    """Give the numbers of each prediction, the paired tests, and the input's own numbers.

    What a reader must know of them is added to `notes`.
    """
    truth = comparison.truth
    if truth is None:
        return {}, {}, None
    metrics = {
        name: measure_mapped(prediction, truth, comparison.mask)
        for name, prediction in comparison.predictions.items()
    }
    pairs = list(combinations(metrics, 2))
    tests = bonferroni([wilcoxon(metrics[a].patches.mse, metrics[b].patches.mse) for a, b in pairs])
    if tests:
        notes.append(
            "p-values: Wilcoxon signed-rank on non-overlapping patches of one head, Bonferroni "
            "corrected; they tell nothing of other heads"
        )
    before = None
    if scan is not None and (
        not same_b_value(reference, scan) or scan.image.order != truth.image.order
    ):
        notes.append(f"{scan.path.name}: was not measured, its b-value or SH order is not truth's")
    elif scan is not None:
        alone = line_up(truth.image, {"input": scan.image})
        both = alone.mask & comparison.mask
        measured = measure_mapped(alone.predictions["input"], truth, both)
        before = (alone.placements["input"], measured)
    return metrics, dict(zip(pairs, tests, strict=True)), before


def _notes(reference: Source, sources: Mapping[str, Source], scan: Source | None) -> list[str]:
    """Collect what a reader must know to trust the numbers."""
    every = [reference, *sources.values(), *([scan] if scan is not None else [])]
    notes = [note for source in every for note in source.notes]
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


def _disagreement(sources: Mapping[str, Source], comparison: Comparison) -> dict[str, FloatArray]:
    """Read the disagreement maps that lie beside predictions, where they do."""
    found: dict[str, FloatArray] = {}
    for name, source in sources.items():
        path = source.path
        if "param-coefficients" not in nifti_stem(path):
            continue
        beside = path.with_name(path.name.replace("param-coefficients", "param-disagreement"))
        if not beside.exists():
            continue
        image = open_nifti(beside)
        values = read_voxels(image, beside)
        if values.ndim != 3:
            raise UserError(
                "a disagreement map has three axes", beside, remedy=Advice("write it anew")
            )
        x, y, z = values.shape
        found[name] = resample(values, Lattice((x, y, z), image.affine), comparison.lattice)
    return found
