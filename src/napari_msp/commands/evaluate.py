"""`evaluate`: fill Table 1, methods and models on subjects that none of them has seen."""

import shlex
import sys
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from typing import TYPE_CHECKING, Any

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic
from napari_msp.packaged import model_path

if TYPE_CHECKING:
    from napari_msp.processes import JobProgress

SUMMARY = "Make Table 1: methods and models on held-out heads"
EXAMPLE = (
    "napari-msp evaluate heads --models msp.safetensors --out table\n"
    "napari-msp evaluate heads --methods all --quick --out quick\n"
    "napari-msp evaluate heads --methods DIQT MSP --leave-one-out --out each\n"
    "napari-msp evaluate heads --models msp.safetensors --methods 'linear RISH' --fibres --biology "
    "--out effects\n"
    "napari-msp evaluate heads --predictions MSP=harmonized RISH=other --regions atlas.nii.gz "
    "--out proof"
)


def add_options(command: ArgumentParser) -> None:
    """Add the methods, the subjects, and the length of trainings."""
    shared.section(command).path("datasets DATASET ...", "BIDS folders of travelling heads.")
    _add_methods(command)
    shared.add_input(command)
    platforms = "Predict these platforms. Default: the models' targets, or else all others."
    shared.section(command, Topic.SCANS).add("--targets PLATFORM ...", platforms, ())
    shared.add_shells(
        command,
        "Measure these shells (b-values in s/mm²). Default: the models', or else all that the "
        "platforms share.",
    )
    shared.add_option(command, "b0_threshold")
    shared.add_run(command)
    _add_people(command)
    _add_training(command)
    _add_measures(command)
    workers = "Work in this many processes. Default: as many as there are cores."
    shared.section(command, Topic.MACHINE).add("--workers N", workers, kind=int)
    shared.add_option(command, "device")
    shared.add_out(command)


def _add_methods(command: ArgumentParser) -> None:
    """Add the rows of the table."""
    models = shared.section(command, Topic.MODELS)
    models.add("--models M ...", "Measure these trained models.", (), model_path)
    models.add(
        "--methods NAME ...",
        "Train and measure these methods, on training subjects only: 'all', or names as in the "
        "table.",
        (),
    )
    models.add(
        "--list-methods",
        "Say of each method what it is, what it needs and what it gives back; then end.",
        action=_ListMethods,
        nargs=0,
    )
    models.add(
        "--predictions NAME=FOLDER ...",
        "Measure finished predictions of any method, as rows with these names; a folder has "
        "sub-<label>/…_dwi.nii.gz.",
        [],
        action="extend",
    )
    width = "Train networks at this fraction of their full width."
    models.add("--width WIDTH", width, kind=float)


def _add_people(command: ArgumentParser) -> None:
    """Add the training, validation and test subjects."""
    people = shared.section(command, Topic.PEOPLE)
    people.add("--train SUBJECT ...", "Learn from these subjects.", ())
    chosen = "Let these subjects choose learning rates and single networks."
    people.add("--validation SUBJECT ...", chosen, ())
    tested = "Measure these subjects. Default: those that no model has seen."
    people.add("--test --subjects SUBJECT ...", tested, ())
    each = "Test each subject once, on what the others teach: for few heads."
    people.add("--leave-one-out", each)


def _add_training(command: ArgumentParser) -> None:
    """Add options of the trainings."""
    length, step = shared.section(command, Topic.LENGTH), shared.section(command, Topic.STEP)
    length.add("--quick", "Only see whether everything runs.")
    length.add(
        "--steps STEPS",
        "Train at most this many steps for each target, in whole hundreds. Default: 3000.",
        kind=int,
    )
    step.add("--batch N", "Learn from this many crops per step.", kind=int)
    step.add("--crop VOXELS", "Cut crops with this edge, in input voxels.", kind=int)
    step.add(
        "--augment",
        "Turn crops by grid symmetries, or do not. Default: --augment.",
        action=BooleanOptionalAction,
    )
    seeds = "Train with each of these seeds on the first dataset. Default: 0."
    step.add("--seeds N ...", seeds, [0], int)


def _add_measures(command: ArgumentParser) -> None:
    """Add what is measured besides errors."""
    shared.add_regions(command, "Default with --predictions: tissue.")
    measured = shared.section(command, Topic.MEASURED)
    measured.add("--fibres", "Measure fibre peaks, too, by constrained spherical deconvolution.")
    measured.add(
        "--bundle", "Track the left-right fibres, too, and compare the voxels that they visit."
    )
    measured.add(
        "--biology",
        "Put a weaker bundle, a lesion, atrophy and years into simulated test heads, and see "
        "what part of each is predicted.",
    )


class _ListMethods(Action):
    """An option that prints every method and exits, like --version."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        """Print the methods, including those that other packages add."""
        from napari_msp.evaluation.benchmark.methods import all_methods

        for method in all_methods().values():
            print(f"{method.name}\n    {method.explanation.rstrip('.')}.")
            print(f"    needs {method.needs}; gives back {method.gives}")
        parser.exit()


def run(options: Namespace, console: Console) -> int:
    """Evaluate, and write the report."""
    from napari_msp.evaluation.benchmark.settings import EvaluationSettings
    from napari_msp.evaluation.evaluate import evaluate

    predictions = shared.pairs(options.predictions, "predictions", "NAME=FOLDER")
    settings = shared.call(EvaluationSettings, options, predictions=predictions)
    said = ""

    def show(finished: "JobProgress") -> None:
        nonlocal said
        if console.has_bar:
            console.progress(finished.job, round(100 * finished.share), 100)
        elif str(finished) != said:  # long jobs report more than once
            said = str(finished)
            console.say(said)

    command = shlex.join(["napari-msp", *sys.argv[1:]])
    for path in shared.call(evaluate, options, settings=settings, command=command, progress=show):
        console.result(path)
    return 0
