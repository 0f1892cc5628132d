"""From what was asked for to a plan: the rest is filled up, and what cannot be is refused."""

from collections.abc import Sequence
from pathlib import Path

from napari_msp.data.acquisition import B_VALUE_TOLERANCE
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.evaluation.contest.methods import METHODS, MSP, UNHARMONIZED, chosen_methods
from napari_msp.evaluation.contest.plan import SEEDS, Budget, Plan, Subjects
from napari_msp.evaluation.contest.scans import check_models, check_scans, subjects_with_all
from napari_msp.learning.heads import common_b_value
from napari_msp.model_file import Model, load_model

TEST_SHARE, VALIDATION_SHARE = 0.5, 1 / 6
"""Parts of the subjects for test and validation where nobody is named (our choice)."""


def make_plan(
    datasets: Sequence[str | Path],
    *,
    methods: Sequence[str] = (),
    models: Sequence[str | Path] = (),
    source: str = "",
    targets: Sequence[str] = (),
    training: Sequence[str] = (),
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    budget: Budget | None = None,
    b_value: float | None = None,
) -> Plan:
    """Plan an evaluation.

    Parameters
    ----------
    datasets
        BIDS folders of travelling heads.
    methods
        Rows by name, or "all"; what is trained is trained on the training subjects. Empty: none
        but the input as it is, beside `models`.
    models
        Trained files that are rows too, named by their file names.
    source, targets
        Platforms to predict from and to predict. Empty: the models' own; without models ge_st, and
        all others.
    training, validation, test
        Subjects. Those that are not named are chosen: without methods everyone that no model
        learned from is for test; with them about half are for test and a sixth for validation.
    seeds
        Of the training; the first dataset is run with each, the others with the first.
    budget
        Of every network; None: the usual one.
    b_value
        Shell in s/mm²; None: the models', without models the only one.

    Raises
    ------
    UserError
        When datasets, subjects, methods and models do not fit together.
    """
    # The report tells datasets by their folders' names, which "." and ".." do not say.
    paths = tuple(Path(each).resolve() for each in datasets)
    files = tuple(Path(each) for each in models)
    if not methods and not files:
        raise UserError("--methods: nothing is to be evaluated; name methods, 'all', or --models")
    if len({path.name for path in paths}) < len(paths):
        raise UserError("two datasets have one name, by which the report tells them; rename one")
    rows = chosen_methods(methods) or (UNHARMONIZED,)
    for seed in seeds:
        if not 0 <= seed < SEEDS:
            raise UserError(f"--seeds {seed}: give numbers from 0 to {SEEDS - 1}")
    _check_names(files)
    loaded = [load_model(path) for path in files]
    source = source or (loaded[0].card.input if loaded else "ge_st")
    _check_inputs(loaded, source)
    opened = [open_dataset(path) for path in paths]
    names = _common_subjects(opened, source)
    learned = {s: model.name for model in loaded for s in model.training.get("subjects", [])}
    asked = {"--train": tuple(training), "--validation": tuple(validation), "--test": tuple(test)}
    _check_subjects(asked, names, learned)
    wanted = _targets(targets, loaded, opened[0], source)
    if MSP in rows and len(wanted) == 1:
        raise UserError(
            f"--methods: an {MSP} combines the networks of two targets or more, and {wanted[0]} is "
            "the only one; name other --methods, such as SHResNet and IQT"
        )
    if any(name != UNHARMONIZED for name in rows):
        whole = subjects_with_all(names, opened, wanted)
        subjects = _split(names, whole, learned, *asked.values())
    else:
        for option in ("--train", "--validation"):
            if asked[option]:
                raise UserError(f"{option}: nothing is trained without --methods; leave it out")
        subjects = Subjects((), (), _unseen(names, learned, asked["--test"], paths[0]))
    check_scans(opened, subjects, wanted)
    check_models(opened, subjects, source, loaded)
    return Plan(
        datasets=paths,
        source=source,
        targets=wanted,
        subjects=subjects,
        methods=rows,
        models=files,
        seeds=tuple(dict.fromkeys(seeds)),
        budget=budget or Budget(),
        b_value=_b_value(opened, subjects, source, loaded, b_value),
    )


def _check_names(models: Sequence[Path]) -> None:
    """Refuse models that the table could not tell apart, from each other or from a method."""
    seen: dict[str, object] = dict.fromkeys(METHODS, "a method")
    for path in models:
        if path.stem in seen:
            raise UserError(
                f"{path}: has the name of {seen[path.stem]}, which names its row; rename one"
            )
        seen[path.stem] = path


def _check_inputs(models: Sequence[Model], source: str) -> None:
    for model in models:
        if model.card.input != source:
            raise UserError(
                f"{model.name}: predicts from {model.card.input}, not from {source}; evaluate it "
                "apart"
            )


def _common_subjects(datasets: Sequence[TravellingHeads], source: str) -> list[str]:
    first, *others = datasets
    names = [name for name in first.subjects if first.has(name, source)]
    for dataset in others:
        names = [name for name in names if dataset.has(name, source)]
    if not names:
        raise UserError(
            f"{first.root}: no subject has a scan on {source}; choose another platform as --input"
        )
    return names


def _check_subjects(
    asked: dict[str, tuple[str, ...]], names: Sequence[str], learned: dict[str, str]
) -> None:
    taken: dict[str, str] = {}
    for option, part in asked.items():
        for name in part:
            if name not in names:
                raise UserError(
                    f"{option} {name}: there is no such subject; choose from {', '.join(names)}"
                )
            if name in taken:
                raise UserError(f"{option} {name}: is in {taken[name]} too; name it once")
            if option != "--train" and name in learned:
                raise UserError(
                    f"{learned[name]}: was trained on {name}; measure on subjects held out"
                )
            taken[name] = option


def _targets(
    asked: Sequence[str], models: Sequence[Model], dataset: TravellingHeads, source: str
) -> tuple[str, ...]:
    others = [platform for platform in dataset.platforms if platform != source]
    for target in asked:
        if target not in others:
            raise UserError(
                f"--targets {target}: is no platform to predict; choose from {', '.join(others)}"
            )
    predicted = dict.fromkeys(target for model in models for target in model.targets)
    targets = tuple(dict.fromkeys(asked or [t for t in predicted if t in others] or others))
    for model in models:
        if not {*model.targets} & {*targets}:
            raise UserError(
                f"{model.name}: predicts {', '.join(model.targets)}, and none of "
                f"{', '.join(targets)}; leave it out, or choose other --targets"
            )
    return targets


def _unseen(
    names: Sequence[str], learned: dict[str, str], test: tuple[str, ...], dataset: Path
) -> tuple[str, ...]:
    left = test or tuple(name for name in names if name not in learned)
    if not left:
        raise UserError(f"{dataset}: every subject was trained on; train with --held-out first")
    return left


def _split(
    names: Sequence[str],
    whole: Sequence[str],
    learned: dict[str, str],
    training: tuple[str, ...],
    validation: tuple[str, ...],
    test: tuple[str, ...],
) -> Subjects:
    """Fill up what was not asked for: test and validation subjects from the end of the list.

    Only `whole` subjects, which lack no scan, are chosen to learn from and to choose by.
    """
    taken = {*training, *validation, *test}
    if not test:
        free = [name for name in names if name not in taken and name not in learned]
        test = tuple(free[-max(1, int(len(names) * TEST_SHARE)) :])
    if not validation:
        free = [name for name in whole if name not in {*taken, *test} and name not in learned]
        validation = tuple(free[-max(1, round(len(names) * VALIDATION_SHARE)) :])
    used = {*test, *validation}
    training = training or tuple(name for name in whole if name not in used)
    for option, part in (("--train", training), ("--validation", validation), ("--test", test)):
        if not part:
            raise UserError(
                f"{option}: no subject is left that has all scans; the datasets need more subjects"
            )
    return Subjects(training, validation, test)


def _b_value(
    datasets: Sequence[TravellingHeads],
    subjects: Subjects,
    source: str,
    models: Sequence[Model],
    asked: float | None,
) -> float:
    """Give the shell that was asked for, else the models', else the only one there is.

    All datasets must have it.
    """
    wanted = asked
    for model in models:
        learned = model.card.sh.b_value
        wanted = wanted or learned
        if abs(learned / wanted - 1) > B_VALUE_TOLERANCE:
            raise UserError(
                f"{model.name}: was trained at b = {learned:.0f}, not {wanted:.0f}; evaluate it "
                "apart"
            )
    for dataset in datasets:
        found = common_b_value(dataset, subjects.all, source, wanted)
        wanted = wanted or found
    assert wanted is not None, "a plan has datasets"
    return wanted
