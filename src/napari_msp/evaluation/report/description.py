"""Collect the facts about a benchmark for its report: from its plan, trainings and models."""

import platform
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

from napari_msp.data.dataset import TravellingHeads
from napari_msp.device import choose_device
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.methods import Method, all_methods
from napari_msp.evaluation.benchmark.plan import Plan
from napari_msp.evaluation.benchmark.results import FLOOR, Result, Results
from napari_msp.evaluation.benchmark.run import Outcome
from napari_msp.evaluation.benchmark.trainings import Trainings, trainings_of
from napari_msp.evaluation.report.methods_section import EvaluationRun
from napari_msp.files import versions_of
from napari_msp.formatting import counted, listed, shown, span
from napari_msp.model_file import Model, load_model
from napari_msp.networks.registry import title


def row_to_test(plan: Plan, results: Results[Result]) -> str | None:
    """Return the row that is tested against the others; None if it could not be measured.

    Finished predictions may be only maps, or fit no subject; those made in folds are not tested.
    """
    row = plan.tested
    return row if row in results.methods and row not in plan.made_in_folds else None


def describe(plan: Plan, outcome: Outcome, command: str, device: str) -> EvaluationRun:
    """Collect the facts about a finished benchmark for its readers."""
    opened = [plan.open(each) for each in plan.datasets]
    return EvaluationRun(
        plan,
        command,
        simulated="noise-free" in outcome.results.references,
        tested=row_to_test(plan, outcome.results),
        splits={
            each.root.name: replace(plan.subjects, test=_scanned(each, plan)) for each in opened
        },
        methods={name: _method(plan, name) for name in outcome.results.methods if name != FLOOR},
        training=_training_rows(plan, outcome),
        ended=_ended(plan, outcome),
        scans=_scans(opened, plan),
        notes=outcome.notes,
        versions=versions_of("torch", "numpy", "scipy", "dipy"),
        machine=f"{platform.machine()}, {choose_device(device)}",
    )


def _scanned(dataset: TravellingHeads, plan: Plan) -> tuple[str, ...]:
    """Return the test subjects who have a scan on a target."""
    test = plan.subjects.test
    return tuple(who for who in test if any(dataset.has(who, target) for target in plan.targets))


def _scans(datasets: Sequence[TravellingHeads], plan: Plan) -> dict[str, str]:
    """Return the range of voxels and directions of each platform's scans, in words.

    Headers and tables are read, as scanned; scans that lack a shell or are gone are left out.
    """
    found = {}
    for name in (plan.input, *plan.targets):
        voxels: dict[str, float] = {}
        counts: list[list[int]] = []
        for dataset, who in product(datasets, plan.subjects.all):
            # Doubts were reported when it was measured.
            with warnings.catch_warnings(action="ignore"), suppress(UserError, OSError):
                scan = dataset.acquisition(who, name)
                counts.append([len(scan.given_shell(each).volumes) for each in plan.b_values])
                voxels[scan.lattice.edges] = float(scan.lattice.voxel_sizes.prod())
        if counts:
            directions = [span(each) for each in zip(*counts, strict=True)]
            sizes = sorted(voxels, key=lambda each: (voxels[each], each))
            edges = " to ".join(dict.fromkeys((sizes[0], sizes[-1])))
            found[name] = f"with voxels of {edges}, {listed(directions)} directions"
    return found


def _method(plan: Plan, name: str) -> Method:
    """Describe a row, which may be a given model or finished predictions."""
    methods = all_methods()
    own = methods.get(name, Method(name, "", needs="nothing: it is trained"))
    if name in methods and name not in plan.asked.predictions:
        return own
    return replace(own, explanation=_given(plan, name))


def _given(plan: Plan, name: str) -> str:
    """Describe a given model, or finished predictions."""
    if name in plan.asked.predictions:
        every = (each for found in plan.finished.values() for each in found if each.name == name)
        made = {of.title or of.kind for each in every for of in each.provenance.values()}
        told = made and made != {name}
        return "finished predictions" + (f" of {', '.join(sorted(made))}" if told else "")
    [path] = [each for each in plan.asked.models if each.stem == name]
    return _trained(load_model(path))


def _trained(model: Model) -> str:
    """Describe how a given model was trained, according to its card."""
    about = model.training
    people, steps, settings = (about.get(each) for each in ("subjects", "steps", "settings"))
    start = model.ancestors[0].get("name") if model.ancestors else None
    learned = f" from {counted(len(people), 'subject')}" if people else ""
    if isinstance(steps, int):
        learned += f" in {steps:,} steps"
        start = start if "start" in about else "nothing"
    learned += f" from {start}" if start and isinstance(start, str) else ""
    known = {"preset": ("{}", str), "width": ("{:g}", int | float), "seed": ("{}", int)}
    facts = [
        f"{name} {form.format(settings[name])}"
        for name, (form, kind) in known.items()
        if isinstance(settings, Mapping) and isinstance(settings.get(name), kind)
    ]
    shared = "first stages shared by all targets" if _shares(model) else ""
    digest = f"SHA-256 {model.sha256[:12]}…" if model.sha256 else ""
    said = [f"a trained {title(model.kind)}", shared, learned and f"learned{learned}"]
    return ", ".join(filter(None, [*said, *facts, digest]))


def _training_rows(plan: Plan, outcome: Outcome) -> list[dict[str, object]]:
    """Return each method's training and its cost, in the first round, or that of all folds."""
    rows: list[dict[str, object]] = []
    first = plan.rounds[0]
    tried = Counter(each.method for each in outcome.trials if each.fold == first.fold)
    chosen = len(plan.rates_in(first)) > 1
    for method, by_target in outcome.trainings[first].items():
        trainings = trainings_of(outcome.trainings[each][method] for each in plan.first_rounds)
        models = {training.model: load_model(training.model) for training in trainings}
        shared = " shared by all targets" * any(map(_shares, models.values()))
        kinds = dict.fromkeys(
            f"{target} {first.settings.first_stage.get(target, first.settings.kind)}"
            for target, (first, *_) in by_target.items()
        )
        rates = dict.fromkeys(shown(each.settings.learning_rate, "g") for each in trainings)
        rows.append(
            {
                "method": method,
                "kinds": ", ".join(kinds) + shared,
                "weights a target": _weights(by_target, models),
                "learning rate": ", ".join(rates),
                "rates tried": tried.get(method, "–") if chosen else "–",
                "steps a target": span([_steps(model) for model in models.values()], ","),
                "seconds": round(sum(model.training["seconds"] for model in models.values())),
            }
        )
    return rows


def _steps(model: Model) -> int:
    """Return after how many steps a training ended; shared first stages learn for all targets."""
    steps = int(model.training["steps"])
    return round(steps / (1 if _shares(model) else len(model.targets)))


def _ended(plan: Plan, outcome: Outcome) -> dict[str, str]:
    """Return how each training of the first round ended, phase by phase."""
    ended: dict[str, str] = {}
    untrained: dict[str, str] = {}
    for method, by_target in outcome.trainings[plan.rounds[0]].items():
        for training in trainings_of([by_target]):
            about = load_model(training.model).training
            for phase, words in about.get("ended", {}).items():
                ended[f"{method}: {phase}"] = words
            for where, people in about.get("statistics", {}).items():
                words = f"no step of training; people its statistics are of: {people}"
                untrained[f"{method}: {where}"] = words
    return ended | untrained


def _shares(model: Model) -> bool:
    return model.card.first_stages == "shared"


def _weights(by_target: Trainings, models: Mapping[Path, Model]) -> str:
    """Count the weights behind each target's prediction."""
    counts = []
    for target, trainings in by_target.items():
        networks = [models[training.model].single(target) for training in trainings]
        counts.append(sum(p.numel() for network in networks for p in network.parameters()))
    return span(counts, ",")
