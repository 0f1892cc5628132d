"""What a run learns from: subjects split, loaded and measured."""

from dataclasses import dataclass

from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import scale_between
from napari_msp.errors import UserError
from napari_msp.learning.heads import Head, common_b_value, load_head
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_file import Gradients
from napari_msp.signal.standardisation import Standardisation, measure_standardisation


@dataclass(frozen=True)
class Study:
    """Everything that a run learns from.

    Attributes
    ----------
    settings
        Of the run, targets filled in.
    heads, held_out
        Training subjects, and subjects that nothing is learned from.
    scales
        Lattice scale of each target.
    voxel_size
        Of the input in mm.
    b_value
        In s/mm².
    standardisation
        Of each platform, measured on training subjects.
    gradients
        Each target's table, from the first training subject.
    """

    settings: TrainingSettings
    heads: list[Head]
    held_out: list[Head]
    scales: dict[str, int]
    voxel_size: float
    b_value: float
    standardisation: dict[str, Standardisation]
    gradients: dict[str, Gradients]


def prepare_study(dataset: TravellingHeads, settings: TrainingSettings) -> Study:
    """Load all heads, split by subject, and measure the standardisation.

    Raises
    ------
    UserError
        When a platform or subject is unknown, no subject is left to train on, or scans do not fit.
    """
    targets = settings.targets or tuple(p for p in dataset.platforms if p != settings.input)
    settings = settings.model_copy(update={"targets": targets})
    _check_names(dataset, settings)
    subjects = [
        subject
        for subject in settings.subjects or dataset.subjects
        if dataset.has(subject, settings.input)
    ]
    training = [subject for subject in subjects if subject not in settings.held_out]
    if not training:
        raise UserError(f"{dataset.root}: no subject is left to train on; hold out fewer")
    b_value = common_b_value(dataset, training, settings.input, settings.b_value)
    heads = {
        subject: load_head(
            dataset, subject, settings.input, targets, b_value, subject in settings.held_out
        )
        for subject in training + [each for each in subjects if each in settings.held_out]
    }
    recipe = recipe_for(settings)
    learned = [heads[subject] for subject in training]
    standardisation = {
        settings.input: measure_standardisation((h.input for h in learned), recipe.per_order)
    }
    for target in targets:
        images = (head.targets[target] for head in learned)
        standardisation[target] = measure_standardisation(images, recipe.per_order)
    first = learned[0]
    return Study(
        settings=settings,
        heads=learned,
        held_out=[heads[subject] for subject in subjects if subject in settings.held_out],
        scales={
            target: scale_between(
                first.input.lattice.voxel_sizes, first.targets[target].lattice.voxel_sizes, target
            )
            for target in targets
        },
        voxel_size=float(first.input.lattice.voxel_sizes.mean()),
        b_value=b_value,
        standardisation=standardisation,
        gradients={
            target: _gradients(dataset, first.subject, target, b_value) for target in targets
        },
    )


def _check_names(dataset: TravellingHeads, settings: TrainingSettings) -> None:
    known = ", ".join(dataset.platforms)
    for platform_name in (settings.input, *settings.targets, *settings.first_stage):
        if platform_name not in dataset.platforms:
            raise UserError(f"{dataset.root}: has no platform {platform_name}; it has {known}")
    for platform_name in settings.first_stage:
        if platform_name not in settings.targets:
            raise UserError(
                f"--first-stage {platform_name}: is no target; choose from "
                f"{', '.join(settings.targets)}"
            )
    for subject in settings.subjects:
        if subject not in dataset.subjects:
            raise UserError(
                f"{dataset.root}: has no subject {subject}; it has {', '.join(dataset.subjects)}"
            )
    known_subjects = settings.subjects or dataset.subjects
    for subject in settings.held_out:
        if subject not in known_subjects:
            raise UserError(
                f"{dataset.root}: has no subject {subject} to hold out; it has "
                f"{', '.join(known_subjects)}"
            )
        if not dataset.has(subject, settings.input):
            raise UserError(
                f"{dataset.root}: {subject} has no scan on {settings.input}, so it cannot be "
                "predicted; hold out another subject"
            )
    if not settings.targets:
        raise UserError(f"{dataset.root}: has no platform but {settings.input}; nothing to predict")


def _gradients(dataset: TravellingHeads, subject: str, target: str, b_value: float) -> Gradients:
    acquisition = dataset.acquisition(subject, target)
    shell = acquisition.shell(b_value)
    directions = [(float(x), float(y), float(z)) for x, y, z in acquisition.directions(shell)]
    b_values = acquisition.gradients.b_values[shell.volumes].tolist()
    return Gradients(b_values=b_values, directions=directions)
