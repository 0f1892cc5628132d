"""A benchmark in words: what a reader must know of it, and the methods paragraph that says it.

It is gathered from the plan, its trainings and their models.
"""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_msp.device import choose_device
from napari_msp.evaluation.benchmark.analysis import MethodTest
from napari_msp.evaluation.benchmark.methods import all_methods
from napari_msp.evaluation.benchmark.plan import Plan
from napari_msp.evaluation.benchmark.results import FLOOR, Result, Results
from napari_msp.evaluation.benchmark.run import Outcome
from napari_msp.evaluation.benchmark.settings import Subjects
from napari_msp.evaluation.benchmark.trainings import Training, Trainings, trainings_of
from napari_msp.evaluation.biology import EFFECTS
from napari_msp.evaluation.measures.fibres import COUNTED, FARTHEST_MATCH, MOST_VOXELS, SEEDS
from napari_msp.evaluation.regions import TISSUE
from napari_msp.evaluation.statistics import FOR_BOOTSTRAP, FOR_INTERVAL, RESAMPLES
from napari_msp.files import versions_of
from napari_msp.formatting import counted, listed
from napari_msp.model_file import Model, load_model
from napari_msp.signal.spherical_harmonics import ORDER


@dataclass(frozen=True)
class EvaluationRun:
    """A run of the evaluation.

    Attributes
    ----------
    tested
        The method that is tested against the others, chosen beforehand; None: no tests.
    b_value
        Of the shell or the shells, in s/mm²; None where platforms differ.
    seeds
        Of the training; the first dataset was run with each, the others with the first one.
    methods
        What each method is, half a sentence by name.
    terms
        What each method needs and what it gives back, in a few words by name.
    training
        Rows of the training table, such as method, parameters, steps, learning rate, trials and
        seconds; the heading is the key. All rows have the first one's keys.
    folds
        Where each subject was test once: the split of each, the same in every dataset.
    doubts
        Who was measured though a model may have learned from them, in words.
    unfit
        Which models are for simulated heads only though other scans were measured, in words.
    also_measured
        What was measured beside errors, a sentence each.
    notes
        What of single heads could not be used, or must be known to trust its numbers, in words.
    """

    command: str
    splits: Mapping[str, Subjects]
    input: str
    targets: Sequence[str]
    simulated: bool
    seeds: Sequence[int]
    tested: str | None
    methods: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    training: Sequence[Mapping[str, object]] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    b_value: float | Sequence[float] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    folds: Sequence[Subjects] = ()
    ended: Mapping[str, str] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    unfit: Sequence[str] = ()
    also_measured: Sequence[str] = ()
    notes: Sequence[str] = ()


# --- Gathered ------------------------------------------------------------------------------------


def row_to_test(plan: Plan, results: Results[Result]) -> str | None:
    """Name the row that is tested against the others; none that could not be measured.

    Finished predictions may be maps alone, or fit nobody; those that were made in folds are not
    tested.
    """
    row = plan.tested
    return row if row in results.methods and row not in plan.made_in_folds else None


def describe(plan: Plan, outcome: Outcome, command: str, device: str) -> EvaluationRun:
    """Gather what a reader must know of a benchmark that was run."""
    training = _training_rows(plan, outcome)
    methods = all_methods()
    return EvaluationRun(
        command=command,
        splits={path.name: plan.subjects for path in plan.datasets},
        input=plan.source,
        targets=plan.targets,
        simulated="noise-free" in outcome.results.references,
        seeds=plan.seeds,
        tested=row_to_test(plan, outcome.results),
        methods={
            name: methods[name].explanation.rstrip(".")
            if name in methods and name not in dict(plan.predictions)
            else _given(plan, name)
            for name in outcome.results.methods
            if name != FLOOR
        },
        terms={
            name: (methods[name].needs, methods[name].gives) if name in methods else GIVEN
            for name in outcome.results.methods
            if name != FLOOR
        },
        training=training,
        settings=_settings(plan) if training else {},
        b_value=plan.b_value,
        versions=versions_of("torch", "numpy", "scipy", "dipy"),
        machine=f"{platform.machine()}, {choose_device(device)}",
        folds=plan.folds,
        ended=_ended(plan, outcome),
        doubts=plan.doubts,
        unfit=plan.unfit,
        notes=outcome.notes,
        also_measured=_also_measured(plan),
    )


GIVEN = ("nothing: it is trained", "image")
"""What a model that was given needs and gives."""


def _also_measured(plan: Plan) -> list[str]:
    """Say in a methods section's words what was measured beside errors."""
    sentences = []
    if plan.fibres or plan.bundle:
        whose = "training" if plan.subjects.training else "test"
        sentences.append(
            "Fibre distributions are of constrained spherical deconvolution (Tournier 2007, "
            f"DIPY) of the SH series, of order {ORDER}, with one response a target, measured in "
            f"the voxels of highest FA in the {whose} subjects' scans on it."
        )
    if plan.fibres:
        sentences.append(
            f"Peaks from {COUNTED:.0%} of a voxel's largest were matched within "
            f"{FARTHEST_MATCH:.0f}°, in at most {MOST_VOXELS} voxels of white matter a head"
            + (", all in the regions." if plan.regions not in ("", TISSUE) else ".")
        )
    if plan.bundle:
        sentences.append(
            f"Left-right fibres were tracked deterministically from up to {SEEDS} seeds of truth, "
            "and the voxels visited compared by Dice's overlap."
        )
    if plan.biology:
        sentences.append(
            f"Effects ({', '.join(EFFECTS)}) were put into the simulated test heads, which were "
            "scanned again with the same noise and predicted again; the part of each that is left "
            "is the mean recovered over the mean true effect."
        )
    return sentences


def _given(plan: Plan, name: str) -> str:
    """Say what was given."""
    if name in dict(plan.predictions):
        made = {
            each.title or each.kind
            for dataset in plan.datasets
            for finished in plan.finished(dataset)
            if finished.name == name
            for each in finished.provenance.values()
        }
        told = made and made != {name}
        return "finished predictions" + (f" of {', '.join(sorted(made))}" if told else "")
    shared = any(_shares(load_model(path)) for path in plan.models if path.stem == name)
    return "a trained model" + ", first stages shared by all targets" * shared


def _settings(plan: Plan) -> dict[str, str]:
    """Say what every network was given."""
    budget = plan.budget
    tried = list(dict.fromkeys(plan.rates_in(each) for each in plan.rounds))
    rates = "; or ".join(
        f"{_list(rates)} tried for every network on validation subjects, "
        f"{budget.tuning_steps} steps each on {_list(plan.tuning_targets)}; controls of the single "
        "networks' own width have theirs"
        if len(rates) > 1
        else f"{rates[0]:g} for every network, none tried"
        for rates in tried
    )
    ending = (
        f"at most {budget.steps} a target, fewer where nothing was gained on the validation "
        f"subjects for {budget.patience} times {budget.epoch} steps: the best averaged weights "
        "are kept"
        if plan.rounds[0].subjects.validation
        else f"{budget.steps} a target, fixed beforehand"
    )
    of_base = (
        "; from base as wide as the base, an MSP tuned as a whole from the first step"
        if plan.base is not None
        else ""
    )
    return {
        "Steps": f"{ending}; for an MSP {budget.first_steps} of its first stage "
        f"(each target's own) and {budget.steps - budget.first_steps} in unison, all in unison "
        "where first stages are shared",
        "Crops": f"{budget.batch} a step of {budget.crop} voxels an axis, "
        + ("turned by grid symmetries" if budget.augment else "never turned, as in the paper"),
        "Width": f"{budget.width:g} of the full one{of_base}",
        "Learning rates": rates,
    }


def _list(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))


def _training_rows(plan: Plan, outcome: Outcome) -> list[dict[str, object]]:
    """Say what each method was given and took, on the first round, or that of all folds."""
    rows: list[dict[str, object]] = []
    first = plan.rounds[0]
    tried = Counter(each.method for each in outcome.trials if each.fold == first.fold)
    chosen = len(plan.rates_in(first)) > 1
    for method, by_target in outcome.trainings[first].items():
        trainings = trainings_of(outcome.trainings[each][method] for each in plan.first_rounds)
        models = {training.model: load_model(training.model) for training in trainings}
        rows.append(
            {
                "method": method,
                "kinds": ", ".join(_kinds(by_target))
                + " shared by all targets" * any(map(_shares, models.values())),
                "weights a target": _weights(by_target, models),
                "learning rate": ", ".join(
                    dict.fromkeys(_rate(training.settings.learning_rate) for training in trainings)
                ),
                "rates tried": tried.get(method, "–") if chosen else "–",
                "steps a target": _steps(trainings, models),
                "seconds": round(sum(model.training["seconds"] for model in models.values())),
            }
        )
    return rows


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:g}"


def _steps(trainings: Sequence[Training], models: Mapping[Path, Model]) -> str:
    """Say after how many steps trainings ended; shared first stages learn for all targets."""
    done = []
    for training in trainings:
        model = models[training.model]
        phases = 1 if _shares(model) else len(model.targets)
        done.append(round(model.training["steps"] / phases))
    low, high = min(done), max(done)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _ended(plan: Plan, outcome: Outcome) -> dict[str, str]:
    """Say how each training of the first round ended, phase by phase."""
    trained = outcome.trainings[plan.rounds[0]]
    return {
        f"{method}: {phase}": words
        for method, by_target in trained.items()
        for training in trainings_of([by_target])
        for phase, words in load_model(training.model).training.get("ended", {}).items()
    } | {
        f"{method}: {platform}": f"no step of training; people its statistics are of: {people}"
        for method, by_target in trained.items()
        for training in trainings_of([by_target])
        for platform, people in load_model(training.model).training.get("statistics", {}).items()
    }


def _kinds(by_target: Trainings) -> dict[str, None]:
    return dict.fromkeys(
        f"{target} {training.settings.first_stage.get(target, training.settings.kind)}"
        for target, trainings in by_target.items()
        for training in trainings[:1]
    )


def _shares(model: Model) -> bool:
    return model.card.first_stages == "shared"


def _weights(by_target: Trainings, models: Mapping[Path, Model]) -> str:
    """Count the weights that answer for each target."""
    counts = []
    for target, trainings in by_target.items():
        networks = [models[training.model].single(target) for training in trainings]
        counts.append(sum(p.numel() for network in networks for p in network.parameters()))
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- Written -------------------------------------------------------------------------------------


def methods_paragraph(run: EvaluationRun, tests: Sequence[MethodTest] = ()) -> str:
    """Write what was done as a paper's methods section does.

    Parameters
    ----------
    tests
        Give the numbers of comparisons.

    Returns
    -------
    Plain text, ready to paste.
    """
    doubts = " ".join(f"{each}." for each in (*run.doubts, *run.unfit))
    parts = (
        _data(run),
        _split(run),
        doubts,
        _networks(run),
        _measures(run),
        *run.also_measured,
        _statistics(run, tests),
    )
    return " ".join(part for part in parts if part)


def _data(run: EvaluationRun) -> str:
    heads = "simulated travelling heads" if run.simulated else "travelling heads"
    count = len(run.splits)
    source = f"{count} datasets of {heads}" if count > 1 else heads
    known = () if run.b_value is None else run.b_value
    shells = [f"{b:.0f}" for b in ([known] if isinstance(known, int | float) else known)]
    b_value = f" (b = {listed(shells)} s/mm²)" if shells else ""
    return (
        f"We used {source}. From the scan of {run.input}, each method predicted the image of "
        f"{listed(run.targets)}{b_value}. Images were real symmetric spherical-harmonic (SH) "
        f"series of order {ORDER} in MRtrix3's basis and scanner axes, fitted to the "
        "b0-normalised signal with Laplace-Beltrami regularisation."
    )


def _split(run: EvaluationRun) -> str:
    if run.folds:
        return _left_out(run)
    sizes = {
        (len(split.training), len(split.validation), len(split.test))
        for split in run.splits.values()
    }
    if len(sizes) != 1:
        counts = "; ".join(
            f"{name}: {len(s.training)}, {len(s.validation)} and {len(s.test)}"
            for name, s in run.splits.items()
        )
        return f"Subjects were split into training, validation and test ({counts})."
    training, validation, test = sizes.pop()
    if training == validation == 0:
        where = " of each dataset" if len(run.splits) > 1 else ""
        verb = "was" if test == 1 else "were"
        return f"{counted(test, 'subject')}{where} {verb} measured; nobody was learned from here."
    choices = "every choice was made on validation subjects, and " if validation else ""
    return (
        f"{'In each dataset, subjects' if len(run.splits) > 1 else 'Subjects'} were split into "
        f"{training} for training, {validation} for validation and {test} for test; {choices}test "
        "subjects were used for nothing else."
    )


def _left_out(run: EvaluationRun) -> str:
    """Say who taught, validated and was measured where each subject was test once."""
    training = sorted({len(fold.training) for fold in run.folds})
    sizes = " to ".join(str(each) for each in dict.fromkeys((training[0], training[-1])))
    always = next(iter(run.splits.values())).training
    validating = (
        "another one, the next in the list, validated: every choice was made on it"
        if any(fold.validation for fold in run.folds)
        else "none validated, so nothing was chosen: learning rates and the single networks of an "
        "MSP were the presets'"
    )
    each = "In each dataset, each" if len(run.splits) > 1 else "Each"
    sentences = [
        f"{each} of {len(run.folds)} subjects was test once (leave-one-out).",
        f"Everything that is learned was learned anew from {sizes} others each time; {validating}.",
    ]
    if always:
        sentences.append(f"{listed(always)} taught or validated and were never test.")
    return " ".join(sentences)


def _networks(run: EvaluationRun) -> str:
    sentences = []
    if run.methods:
        described = "; ".join(
            f"{name} ({what})" if what else name for name, what in run.methods.items()
        )
        sentences.append(f"Methods were: {described}.")
    sentences += [f"{name}: {value}." for name, value in run.settings.items()]
    if len(run.seeds) > 1:
        repeats = f"Training was repeated with {len(run.seeds)} seeds"
        if len(run.splits) > 1:
            repeats += " on the first dataset and run with the first seed on the others"
        sentences.append(f"{repeats}.")
    return " ".join(sentences)


def _measures(run: EvaluationRun) -> str:
    truths = "the measured scan, whose own noise bounds the error from below"
    if run.simulated:
        truths += ", and its noise-free twin"
    return (
        "The main measure is the mean squared error of the SH coefficients over in-mask voxels "
        "and coefficients, on the target's own lattice: predictions were interpolated where "
        f"lattices differ, the truth never. Truth was {truths}."
    )


def _intervals(subjects: int) -> str:
    """Say what intervals means over so many subjects have."""
    if subjects < FOR_INTERVAL:
        return (
            f"without intervals: fewer than {FOR_INTERVAL} subjects do not say how subjects differ"
        )
    if subjects < FOR_BOOTSTRAP:
        return f"with 95 % intervals of Student's t over the {subjects} subjects"
    few = f"of Student's t where fewer than {FOR_BOOTSTRAP} have a value"
    return f"with 95 % percentile bootstrap intervals over subjects ({RESAMPLES} resamples; {few})"


def _statistics(run: EvaluationRun, tests: Sequence[MethodTest]) -> str:
    if run.folds:
        return (
            "Values are means over test subjects, each first averaged over training seeds, with "
            "the value of each subject. Folds overlap: almost the same subjects taught in each, so "
            "neither intervals nor p-values are given."
        )
    sentences = [
        "Values are means over test subjects, each first averaged over training seeds, "
        f"{_intervals(sum(len(each.test) for each in run.splits.values()))}."
    ]
    families = {(t.level, t.reference, t.shell): t for t in tests if t.comparisons}
    each_shell = any(test.shell is not None for test in tests)
    if families:
        first = next(iter(families.values()))
        counts = dict.fromkeys(test.comparisons for test in families.values())
        corrected = (
            f", with Bonferroni's correction over the {listed([*map(str, counts)])} comparisons of "
            f"a truth{' and a shell' if each_shell else ''}"
        ) * (max(counts) > 1)
        sentences.append(
            f"{first.first} was compared with each other method on each target by Wilcoxon's "
            f"signed-rank test, two-sided, on subjects{corrected}; effect sizes "
            "are the rank-biserial correlation and "
            "the relative change of the mean error, with its interval where there is one."
        )
    if any(level == "patch" for level, *_ in families):
        sentences.append(
            "The same test on non-overlapping patches is given for comparison with earlier work; "
            "patches of one head are not independent."
        )
    return " ".join(sentences)
