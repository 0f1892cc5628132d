"""Compare predictions with truth: Figure 3 and the numbers, as in `napari-msp compare`."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from napari_msp.arrays import MaskArray
from napari_msp.data.gradients import same_shell, wanted_b_values
from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.figures.layout import check_format, write_figure
from napari_msp.evaluation.figures.paper import SHOWN, check_maps, figure3
from napari_msp.evaluation.line_up import (
    AtShell,
    Comparison,
    at_b_value,
    doubt_maps,
    doubts_of_truth,
    line_scans_up,
    line_up,
    name_in_errors,
    same_b_value,
    split_by_shell,
)
from napari_msp.evaluation.measures.catalogue import COMPARED, MEASURES, measure_mapped
from napari_msp.evaluation.measures.pair import Metrics
from napari_msp.evaluation.statistics import PairedTest, bonferroni, relative_change, wilcoxon
from napari_msp.files import staged_folder, write_json, write_text
from napari_msp.formatting import counted, csv_text, sh_mse
from napari_msp.scan import Scan
from napari_msp.scan_sources import ScanLike, as_scan
from napari_msp.signal.fitting import ShellLeftOut
from napari_msp.signal.maps import MAPS, Maps

FIGURE = "figure3"
METRICS = "metrics.json"
NUMBERS = "numbers.csv"

BEFORE = "before"
"""Row of the unharmonized input in the numbers."""

CHANGES = ("sh_mse", "colour_fa_mse")
"""Measures whose change from the first row is written too."""

UNITS = {
    **{key: MEASURES[key].described for key in COMPARED},
    "order_mse": "SH units²: as sh_mse, mean over voxels and the coefficients of one order.",
    "patch_mse": "SH units²: as sh_mse, one number a patch.",
}
"""Units and meanings of the numbers in `Metrics.to_json`."""

REGULARISATION_TOLERANCE = 0.01
"""Relative difference of λ that still counts as rounding (our choice)."""


@dataclass(frozen=True, eq=False, repr=False)
class ShellResult:
    """Results of the comparison of one shell.

    Attributes
    ----------
    truth, scan
        Scan on the target and input scan; None where there is none.
    metrics
        Numbers by prediction; empty without truth.
    more_maps
        Chosen maps that are not always measured, by their error's name in the metrics, such as
        "md_mse".
    no_harmonization
        How the input itself was placed, and its numbers, as the baseline to beat; None without an
        input that can be measured.
    tests
        Paired tests on patches by the names of two predictions.
    notes
        Facts that a reader must know to trust the numbers.
    """

    truth: Scan | None
    scan: Scan | None
    predictions: Mapping[str, Scan]
    comparison: Comparison
    metrics: Mapping[str, Metrics]
    more_maps: Mapping[str, str]
    no_harmonization: tuple[str, Metrics] | None
    tests: Mapping[tuple[str, str], PairedTest]
    notes: list[str]
    figure: Figure

    def __repr__(self) -> str:
        if self.truth is None:
            return f"<{counted(len(self.predictions), 'prediction')} compared without truth>"
        errors = {name: each.sh_mse for name, each in self.metrics.items()}
        if self.no_harmonization is not None:
            errors["no harmonization"] = self.no_harmonization[1].sh_mse
        said = ", ".join(f"{name} {sh_mse(error)}" for name, error in errors.items())
        return f"<compared with {_short_name(self.truth)}: SH MSE {said}>"

    @property
    def map_units(self) -> dict[str, str]:
        """Units of the errors of `more_maps`."""
        return {key: MAPS[each].error_unit for key, each in self.more_maps.items()}

    @property
    def input_metrics(self) -> Metrics | None:
        """Errors of the input itself; None if it was not measured."""
        return None if self.no_harmonization is None else self.no_harmonization[1]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and dictionaries."""
        before = self.no_harmonization
        return {
            "truth": None if self.truth is None else name_in_errors(self.truth),
            "input": None if self.scan is None else name_in_errors(self.scan),
            "lattice_of": name_in_errors(self.truth or next(iter(self.predictions.values()))),
            "voxels": int(self.comparison.mask.sum()),
            "predictions": {
                name: {
                    "path": name_in_errors(scan),
                    "placement": self.comparison.placements[name],
                    **(self.metrics[name].to_json() if name in self.metrics else {}),
                }
                for name, scan in self.predictions.items()
            },
            "no_harmonization": None
            if before is None or self.scan is None
            else {"path": name_in_errors(self.scan), "placement": before[0], **before[1].to_json()},
            "tests": [
                {"first": first, "second": second, "of": "patch_mse", **asdict(test)}
                for (first, second), test in self.tests.items()
            ],
            "units": UNITS | self.map_units,
            "notes": self.notes,
        }


class CompareResult(dict[int, ShellResult]):
    """Results of a comparison by shell; what is wanted most of the only shell stands here, too.

    Of several shells `result[3000]` has those of b = 3000; tests are corrected within each shell.
    """

    def __repr__(self) -> str:
        if len(self) == 1:
            return repr(self.only)
        return "\n".join(f"b = {shell}: {each!r}" for shell, each in self.items())

    @property
    def only(self) -> ShellResult:
        """All results of the only shell.

        Raises
        ------
        UserError
            When several shells were compared.
        """
        if len(self) == 1:
            return next(iter(self.values()))
        raise UserError("has several shells", "comparison", "b_value", Choose("b_value", (*self,)))

    @property
    def metrics(self) -> Mapping[str, Metrics]:
        """Numbers by prediction; empty without truth."""
        return self.only.metrics

    @property
    def notes(self) -> list[str]:
        """Facts that a reader must know to trust the numbers."""
        return self.only.notes

    @property
    def comparison(self) -> Comparison:
        """Truth and predictions on one lattice, as `figure3` draws them."""
        return self.only.comparison

    @property
    def figure(self) -> Figure:
        """Figure 3."""
        return self.only.figure

    def save(self, out: str | Path, figure_format: str = "png") -> list[Path]:
        """Write figure3.png, metrics.json and numbers.csv: all of them or none.

        Parameters
        ----------
        out
            Output folder. Of several shells there is a figure3_b<shell>.png each. Without truth
            numbers.csv has no rows.
        figure_format
            "png", "pdf" or "svg".
        """
        out = Path(out)
        names = [FIGURE] if len(self) == 1 else [f"{FIGURE}_b{shell}" for shell in self]
        figures = {
            f"{name}.{figure_format}": each.figure
            for name, each in zip(names, self.values(), strict=True)
        }
        check_format(out / next(iter(figures)))
        with staged_folder(out) as stage:
            for name, figure in figures.items():
                write_figure(stage / name, figure)
            write_text(stage / NUMBERS, self._numbers())
            write_json(stage / METRICS, self.to_json())
        return [out / name for name in (*figures, METRICS, NUMBERS)]

    def _numbers(self) -> str:
        """Return numbers.csv; the first column has the shell if there are several."""
        first = next(iter(self.values()))
        truth = "" if first.truth is None else _short_name(first.truth)
        header = _header(first.map_units)
        rows = {b: _rows(each.metrics, truth, each.input_metrics) for b, each in self.items()}
        if len(self) == 1:
            return csv_text(header, chain(*rows.values()))
        by_shell = ([shell, *row] for shell, of_shell in rows.items() for row in of_shell)
        return csv_text(["shell [s/mm^2]", *header], by_shell)

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json: plain numbers, lists and dictionaries."""
        if len(self) == 1:
            return self.only.to_json()
        return {"shells": {str(shell): each.to_json() for shell, each in self.items()}}


def numbers_csv(measured: Mapping[str, Metrics], truth: str) -> str:
    """Return each prediction's numbers as CSV with full precision, in ASCII for any spreadsheet.

    A change is the difference of an error from the first row's in percent of that; the first row is
    the input, called `BEFORE`, if it was measured, else the first prediction. The field is empty
    for the first row itself, and if that has no error. The last column names the truth.
    """
    return csv_text(_header({}), _rows(measured, truth, None))


def _header(more: Mapping[str, str]) -> list[str]:
    units = {**{key: MEASURES[key].unit for key in COMPARED}, **more}
    plain = {key: unit.replace("²", "^2") for key, unit in units.items()}
    measures = [f"{key} [{unit}]" if unit else key for key, unit in plain.items()]
    return ["prediction", "voxels", *measures, *(f"{key}_change [%]" for key in CHANGES), "truth"]


def _rows(
    measured: Mapping[str, Metrics], truth: str, before: Metrics | None
) -> Iterator[list[object]]:
    listed = {**({} if before is None else {BEFORE: before}), **measured}
    first = next(iter(listed.values()), None)
    for name, metrics in listed.items():
        values, known = metrics.values, None if metrics is first else first
        changes = [known and relative_change(values[key], known.values[key]) for key in CHANGES]
        finite = [each if np.isfinite(each) else None for each in values.values()]
        yield [name, metrics.voxels, *finite, *changes, truth]


def compare(
    truth: ScanLike | None,
    predictions: Mapping[str, ScanLike],
    out: str | Path | None = None,
    input_image: ScanLike | None = None,
    axis: str = "axial",
    slice_index: int | None = None,
    b_value: float | Sequence[float] | None = None,
    figure_format: str = "png",
    maps: str | Iterable[str] = SHOWN,
    b0_threshold: float | None = None,
) -> CompareResult:
    """Compare predictions of one head, with the truth if there is one, shell by shell.

    Parameters
    ----------
    truth
        Scan on the target platform; None if there is none.
    predictions
        Images by name. These, `truth` and `input_image` are files or in memory: SH images
        (`…_dwimap.nii.gz`; a list of them for several shells), or DWIs with .bval and .bvec beside
        them, to which SH are fitted.
    out
        Folder for figure3.png, metrics.json and numbers.csv, see `CompareResult.save`; None: they
        are not written.
    input_image
        Scan that was harmonized; shown, and measured as the "no harmonization" to beat.
    axis, slice_index
        Slice of the figure, see `figure3`.
    b_value
        Shell or shells in s/mm² to compare; None: all that truth and every prediction have.
    figure_format
        "png", "pdf" or "svg"; the suffix of figure3.
    maps
        Keys of `MAPS`, such as "md"; each gets a block of the figure. Mean errors of maps that are
        not always among the metrics are added to them.
    b0_threshold
        Largest b-value that counts as b=0, as for `load_acquisition`.

    Returns
    -------
    CompareResult
        The numbers, the tests and the figure; of several shells `result[1200]` has those of one.

    Raises
    ------
    UserError
        When images are unreadable or do not belong together: another person, brains that hardly
        overlap, b-values that differ by more than 5 %.

    Warns
    -----
    ShellLeftOut
        When images have shells that others lack.
    """
    if b_value is not None:
        wanted = wanted_b_values(b_value)
        b_value = wanted if len(wanted) > 1 else wanted[0]
    check_format(Path(f"{FIGURE}.{figure_format}"))
    maps = check_maps(maps)
    if not isinstance(predictions, Mapping):
        remedy = Advice('give {"MSP": image}')
        raise UserError("are not given by name", field="predictions", remedy=remedy)
    if input_image is not None and BEFORE in predictions:
        problem = f"is called {BEFORE}, like the input"
        raise UserError(problem, field="predictions", remedy=Advice("give it another name"))
    taken = partial(as_scan, b_value=b_value, b0_threshold=b0_threshold)
    sources = {name: taken(image, name=name) for name, image in predictions.items()}
    true = None if truth is None else taken(truth, name="truth")
    scan = None if input_image is None else taken(input_image, name="input image")
    several = [each for each in (true, *sources.values()) if each is not None]
    only = next((shell for each in several for shell in each.shells), 0)
    parts, left_out = {only: AtShell(true, sources)}, list[str]()
    if any(len(each.shells) > 1 for each in several):
        parts, left_out = split_by_shell(true, sources)
        if b_value is not None:  # the others were not asked for
            parts, left_out = _chosen(parts, b_value), []
        for words in left_out:
            warnings.warn(words, ShellLeftOut, stacklevel=2)
    result = CompareResult(
        (shell, _compare(at, scan, left_out, maps, axis, slice_index))
        for shell, at in parts.items()
    )
    first = next(iter(result.values()))
    for each in result.values():  # all shells of a head lie in the same place
        each.notes.extend(first.comparison.misplaced)
    if out is not None:
        result.save(out, figure_format)
    return result


def _chosen(parts: Mapping[int, AtShell], b_value: float | Sequence[float]) -> dict[int, AtShell]:
    """Return the shells that were asked for."""
    chosen: dict[int, AtShell] = {}
    for wanted in wanted_b_values(b_value):
        for shell, at in parts.items():
            known = at.reference.b_value or shell
            if same_shell(wanted, known) or wanted == shell:
                chosen[shell] = at
                break
        else:
            problem = f"b = {wanted:.0f} is not in all of the images"
            raise UserError(problem, field="b_value", remedy=Choose("b_value", tuple(parts)))
    return {shell: parts[shell] for shell in parts if shell in chosen}


def _compare(
    at: AtShell,
    scan: Scan | None,
    left_out: Sequence[str],
    maps: Sequence[str],
    axis: str,
    slice_index: int | None,
) -> ShellResult:
    """Compare scans of one shell; the input, `scan`, may have several."""
    true, sources = at.truth, at.predictions
    reference = true or next(iter(sources.values()), None)
    if scan is not None and reference is not None and len(scan.shells) > 1:
        scan = at_b_value(scan, reference.b_value)
        if scan is None:
            lacks = f"the input has no shell near b = {reference.b_value:.0f}, and is not shown"
            left_out = [*left_out, lacks]
    comparison = line_scans_up(true, sources, scan)
    assert reference is not None  # otherwise `line_scans_up` would have failed
    more_maps = {
        key: each
        for each in maps
        if (key := f"{each}_{MAPS[each].error_title.lower()}") not in COMPARED
    }
    metrics, tests, before, said = _measure(comparison, reference, scan, more_maps)
    notes = [
        *comparison.interpolated,
        *comparison.doubts,
        *doubts_of_truth(true, comparison),
        *_notes(reference, sources, scan),
        *left_out,
        *said,
    ]
    return ShellResult(
        true,
        scan,
        sources,
        comparison,
        metrics,
        more_maps,
        before,
        tests,
        notes,
        figure3(
            comparison,
            None if scan is None else scan.maps("sh"),
            maps=maps,
            axis=axis,
            slice_index=slice_index,
            disagreement=doubt_maps(sources, comparison, "disagreement") if true is None else None,
            caption=" · ".join(comparison.interpolated),
        ),
    )


def _measure(
    comparison: Comparison, reference: Scan, scan: Scan | None, more_maps: Mapping[str, str]
) -> tuple[
    dict[str, Metrics], dict[tuple[str, str], PairedTest], tuple[str, Metrics] | None, list[str]
]:
    """Return each prediction's numbers, paired tests, the input's own numbers, and notes."""
    truth = comparison.truth
    notes: list[str] = []
    if truth is None:
        return {}, {}, None, []

    def measured(image: Maps, mask: MaskArray) -> Metrics:
        found = measure_mapped(image, truth, mask)
        errors = {
            key: float(MAPS[each].error(image[each], truth[each], mask)[mask].mean(dtype=float))
            for key, each in more_maps.items()
        }
        return replace(found, values=found.values | errors)

    metrics = {
        name: measured(prediction, comparison.mask)
        for name, prediction in comparison.predictions.items()
    }
    pairs = list(combinations(metrics, 2))
    tests = bonferroni([wilcoxon(metrics[a].patches.mse, metrics[b].patches.mse) for a, b in pairs])
    if tests:
        notes.append(
            "p-values: Wilcoxon signed-rank on non-overlapping patches of one head, Bonferroni "
            "corrected; they say nothing about other heads"
        )
    before = None
    if scan is not None and (
        not same_b_value(reference, scan) or scan.sh.order != truth.image.order
    ):
        notes.append(
            f"{_short_name(scan)}: was not measured: its b-value or SH order is not the truth's"
        )
    elif scan is not None:
        alone = line_up(truth, {"input": scan})
        both = alone.mask & comparison.mask
        before = (alone.placements["input"], measured(alone.predictions["input"], both))
    return metrics, dict(zip(pairs, tests, strict=True)), before, notes


def _notes(reference: Scan, sources: Mapping[str, Scan], scan: Scan | None) -> list[str]:
    """Collect the facts that a reader must know to trust the numbers."""
    every = [reference, *sources.values(), *([scan] if scan is not None else [])]
    notes = [note for source in every for note in source.notes]
    weight = reference.sh.regularisation
    for source in every[1:]:
        other = source.sh.regularisation
        if weight is None or other is None:
            continue
        if abs(other - weight) > REGULARISATION_TOLERANCE * max(weight, other):
            notes.append(
                f"{_short_name(source)}: was fitted with λ = {other:g}, {_short_name(reference)} "
                f"with {weight:g}; this is right if their numbers of directions differ"
            )
    return list(dict.fromkeys(notes))


def _short_name(scan: Scan) -> str:
    return scan.path.name if scan.path is not None else name_in_errors(scan)
