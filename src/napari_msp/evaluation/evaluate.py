"""Table 1 of any travelling heads: run the benchmark, draw the figures, write the report."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_msp.device import choose_device
from napari_msp.errors import Advice, Doubt, Poll, UserError, reporter
from napari_msp.evaluation.benchmark.make_plan import make_plan
from napari_msp.evaluation.benchmark.methods import BEST_SINGLE, FIRST_STAGE, MSP
from napari_msp.evaluation.benchmark.plan import Plan, keep_plan
from napari_msp.evaluation.benchmark.run import Benchmark, Outcome
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.evaluation.figures.curves import curves_figure
from napari_msp.evaluation.figures.layout import write_figure
from napari_msp.evaluation.figures.paper import figure2, figure3
from napari_msp.evaluation.line_up import line_up
from napari_msp.evaluation.measures.catalogue import MEASURES
from napari_msp.evaluation.proof.make_pages import make_pages
from napari_msp.evaluation.proof.pages import BEFORE, ProofData
from napari_msp.evaluation.proof.site_effect_files import PROOF
from napari_msp.evaluation.regions import TISSUE
from napari_msp.evaluation.report.description import describe
from napari_msp.evaluation.report.report import write_report
from napari_msp.evaluation.report.tables import at_shell
from napari_msp.files import new_folder, refuse_unwritable, reserved
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.prepare import NotForScans
from napari_msp.model_file import load_model
from napari_msp.networks.registry import title
from napari_msp.options import changed
from napari_msp.processes import OnProgress
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan

SHOWN = 2
"""Number of predictions side by side in Figure 3, as in the paper."""


def evaluate(
    datasets: str | Path | Sequence[str | Path],
    out: str | Path,
    settings: EvaluationSettings | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    command: str = "",
    progress: OnProgress | None = None,
    cancelled: Poll | None = None,
    **changes: Any,
) -> list[Path]:
    """Fill Table 1 and write it, its figures and the report.

    Parameters
    ----------
    datasets
        BIDS folders of travelling heads.
    out
        Output folder. It keeps trainings and measurements, so that an interrupted evaluation
        resumes where it was.
    settings
        Methods, models, subjects and budget.
    device
        "auto", "cpu", "cuda" or "mps".
    workers
        Number of parallel processes. Several of them on one GPU compete for it. None: one per core
        if networks are trained on the CPU, else one.
    command
        Command shown in the report for repeating the evaluation.
    progress
        Function called after every job, and before figures, pages and report are made.
    cancelled
        Polled whenever progress is reported; True raises Cancelled, and what is done stays done.
    **changes
        Values that replace the settings', by name: `evaluate("heads", "out", methods=["all"])`.

    Returns
    -------
    The files written.

    Raises
    ------
    UserError
        When datasets, methods or models do not fit together, or another evaluation was begun or
        is under way in `out`.

    Warns
    -----
    HeadNoted
        When something about single heads could not be used, or is doubtful.
    """
    if workers is not None and workers < 1:
        raise UserError(
            f"{workers} is not a valid number of processes",
            field="workers",
            remedy=Advice("give 1 or more"),
        )
    asked = changed(settings or EvaluationSettings(), changes)
    report = reporter(progress, cancelled)
    return _evaluate(datasets, Path(out), asked, device, report, workers, command)


def _evaluate(
    datasets: str | Path | Sequence[str | Path],
    out: Path,
    asked: EvaluationSettings,
    device: str,
    report: OnProgress,
    workers: int | None = None,
    command: str = "",
    later: Path | None = None,
) -> list[Path]:
    """Do the work of `evaluate`; `later` is the final place of the folder."""
    several = [datasets] if isinstance(datasets, str | Path) else datasets
    plan = make_plan(several, asked)
    on_cpu = choose_device(device).type == "cpu"
    if workers is None:
        workers = (os.cpu_count() or 1) if on_cpu and asked.methods else 1
    refuse_unwritable(out / "plan.json")
    out.mkdir(parents=True, exist_ok=True)
    with reserved(out):
        parts = _parts_of_report(plan)
        benchmark = Benchmark(plan, out, device, workers, report, sum(parts.values()))
        keep_plan(plan, out / "plan.json", (later or out) / "plan.json")
        outcome = benchmark.run()
        _tell(outcome.notes, later or out)
        begin, go_on = benchmark.progress.begin, benchmark.progress.go_on
        begin(FIGURES, parts[FIGURES])
        figures = _figures(plan, outcome, out, device, go_on)
        pages = []
        if plan.regions:
            begin(PAGES, parts[PAGES])
            pages = make_pages(_study(plan, outcome), go_on)
        begin(REPORT, parts[REPORT])
        written = write_report(
            outcome.results,
            outcome.patches,
            describe(plan, outcome, command, device),
            figures,
            out,
            MEASURES,
            outcome.effects,
            pages,
            go_on,
        )
        benchmark.progress.end("wrote the report")
        return [*written, *figures.values()]


FIGURES, PAGES, REPORT = "drawing figures", "writing pages of proof", "writing the report"
"""Steps that turn a benchmark's results into a report, as they are announced."""


def _parts_of_report(plan: Plan) -> dict[str, float]:
    """Return the approximate duration of each step as a job's weight, see `A_SECOND`."""
    columns = len(plan.targets) * len(plan.b_values)
    predicted = 20.0 * min(len(plan.asked.models), SHOWN) * len(plan.targets)
    proof = {PAGES: 15.0 * columns} if plan.regions else {}
    return {FIGURES: 10 * columns + predicted, **proof, REPORT: 5 + sum(proof.values())}


def prove(
    dataset: str | Path,
    predictions: str | Path,
    *,
    regions: str | Path = TISSUE,
    device: str = "auto",
    progress: OnProgress | None = None,
    cancelled: Poll | None = None,
    **changes: Any,
) -> list[Path]:
    """Compare a folder's predictions with the targets' own scans, and write that into its `PROOF`.

    An earlier comparison is replaced: it was of the predictions of its time.

    Parameters
    ----------
    dataset
        BIDS folder with the targets' scans.
    predictions
        Folder that `cohort` or `harmonize` wrote.
    regions, device, progress, cancelled, **changes
        As for `evaluate`.

    Returns
    -------
    The files written.

    Raises
    ------
    UserError
        As `evaluate`; also when `PROOF` exists and was not written by an evaluation.
    """
    predictions = Path(predictions)
    out = predictions / PROOF
    given = {"harmonized": predictions}
    asked = changed(EvaluationSettings(predictions=given, regions=regions), changes)
    with new_folder(out, replace=(out / "plan.json").is_file()) as made:
        report = reporter(progress, cancelled)
        written = _evaluate(dataset, made, asked, device, report, later=out)
        names = [path.relative_to(made) for path in written]
    return [out / name for name in names]


class HeadNoted(Doubt):
    """Something about single heads could not be used, or limits the trust in the numbers."""


MOST_TOLD = 20
"""Number of notes that are shown one by one; the report has all (our choice)."""


def _tell(notes: Sequence[str], out: Path) -> None:
    for note in notes[:MOST_TOLD]:
        warnings.warn(note, HeadNoted, stacklevel=4)
    if len(notes) > MOST_TOLD:
        more = f"{len(notes) - MOST_TOLD} more notes are in {out / 'report.html'}, under Limits"
        warnings.warn(more, HeadNoted, stacklevel=4)


def _study(plan: Plan, outcome: Outcome) -> ProofData:
    """Return the input of the pages of proof."""
    overlapping = set(plan.methods) - {BEFORE} if plan.folds else set()
    overlapping |= plan.made_in_folds
    clear = "noise-free" in outcome.results.references
    if plan.regions == TISSUE:
        where = "white matter, grey matter and fluid, by FA and mean diffusivity of " + (
            "the noise-free twin of the target's scan" if clear else "the target's scan"
        )
    else:
        where = f"given by labels ({Path(plan.regions).name})"
    selected = plan.regions == TISSUE and not clear
    return ProofData(
        outcome.values,
        plan.input,
        where,
        frozenset(overlapping),
        selected=selected,
        effects=outcome.effects,
    )


def _figures(
    plan: Plan, outcome: Outcome, out: Path, device: str, go_on: Callable[[], None]
) -> dict[str, Path]:
    """Draw Figures 2 and 3 of the first test subject, shell by shell, and the validation curves.

    `go_on` is called between figures, and may end the work.
    """
    dataset = plan.open(plan.datasets[0])
    subject = plan.rounds[0].subjects.test[0]
    scans = {
        name: load_scan(
            dataset.scans[subject, name], plan.b_value, b0_threshold=plan.asked.b0_threshold
        )
        for name in (plan.input, *plan.targets)
        if dataset.has(subject, name)
    }
    shells = plan.shells.items()
    figures: dict[str, Path] = {}

    def keep(name: str, caption: str, figure: object) -> None:
        path = out / f"{name}.png"
        write_figure(path, figure)  # type: ignore[arg-type]
        figures[caption] = path
        go_on()

    for shell, b in shells:
        images = {name: scan.at_shell(b).sh for name, scan in scans.items()}
        keep(
            f"figure2{_end(shell)}",
            f"Figure 2. {subject} on each platform{at_shell(shell)}, averaged over directions",
            figure2(images),
        )
    for target in plan.targets:
        shown = _shown(plan, outcome, target)
        if target not in scans:
            continue
        source = scans[plan.input]
        # This was reported when it was planned.
        with warnings.catch_warnings(action="ignore", category=NotForScans):
            predicted: dict[str, Scan] = {
                name: harmonize(load_model(path), source, target, device=device)
                for name, path in shown.items()
            }
        measured = outcome.results.select(subject=subject, target=target).methods
        for each in plan.finished[plan.datasets[0]]:
            if len(predicted) < SHOWN and each.name in measured:  # so it can be opened
                predicted[each.name] = load_scan(each.images[subject, target])
        if not predicted:
            continue
        for shell, b in shells:
            go_on()
            predictions = {name: each.at_shell(b) for name, each in predicted.items()}
            lined_up = line_up(scans[target].at_shell(b), predictions)
            keep(
                f"figure3_{subject}_{target}{_end(shell)}",
                f"Figure 3. {subject} on {target}{at_shell(shell)}: truth, predictions and their "
                "errors",
                figure3(lined_up, source.at_shell(b).maps("sh")),
            )
    curves = _curves(plan, outcome)
    if curves:
        keep("curves", "Error on the validation subjects while training", curves_figure(curves))
    return figures


def _end(shell: int | None) -> str:
    return "" if shell is None else f"_b{shell}"


def _shown(plan: Plan, outcome: Outcome, target: str) -> dict[str, Path]:
    """Choose the models that Figure 3 shows: the paper's DIQT and MSP if they exist."""
    models = {
        method: trainings[target][0].model
        for method, trainings in outcome.trainings[plan.rounds[0]].items()
        if len(trainings.get(target, ())) == 1
    }
    wanted = [*(name for name in (title("diqt"), MSP) if name in models), *models]
    chosen = {name: models[name] for name in dict.fromkeys(wanted)}
    given = {path.stem: path for path in plan.asked.models if target in load_model(path).targets}
    return dict(list((chosen | given).items())[:SHOWN])


def _curves(plan: Plan, outcome: Outcome) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the validation errors of the first round, by target and method."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for method, by_target in outcome.trainings[plan.rounds[0]].items():
        for target, trainings in by_target.items():
            # The best single network already has its curve; the first stage is part of another.
            if len(trainings) != 1 or method in (BEST_SINGLE, FIRST_STAGE):
                continue
            joined: list[tuple[int, float]] = []
            # Phases follow each other: first an MSP's single networks, then all in unison.
            for validations in trainings[0].validations().values():
                begun = joined[-1][0] if joined else 0
                joined += [(begun + step, error) for step, error in validations.get(target, [])]
            if joined:  # there is no validation if heads are very few, or nothing is trained
                curves.setdefault(target, {})[method] = joined
    return curves
