"""Whether the scans that a plan needs are there: told before hours of training, not after."""

from collections.abc import Sequence

import numpy as np

from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import SIZE_TOLERANCE
from napari_msp.errors import UserError
from napari_msp.evaluation.contest.plan import Subjects
from napari_msp.model_file import Model


def subjects_with_all(
    names: Sequence[str], datasets: Sequence[TravellingHeads], targets: Sequence[str]
) -> list[str]:
    """Give the subjects that were scanned on every target in every dataset."""
    return [
        name
        for name in names
        if all(dataset.has(name, target) for dataset in datasets for target in targets)
    ]


def check_scans(
    datasets: Sequence[TravellingHeads], subjects: Subjects, targets: Sequence[str]
) -> None:
    """See that all networks can learn from all subjects, and that every target can be measured.

    A test subject may lack scans: it is measured on the targets that it has.

    Raises
    ------
    UserError
        With the mend.
    """
    for dataset in datasets:
        for target in targets:
            for subject in (*subjects.training, *subjects.validation):
                if not dataset.has(subject, target):
                    raise UserError(
                        f"{dataset.root}: {subject} has no scan on {target}, so it cannot be "
                        "learned from; choose others as --train and --validation, or other "
                        "--targets"
                    )
            if not any(dataset.has(subject, target) for subject in subjects.test):
                raise UserError(
                    f"{dataset.root}: no test subject has a scan on {target}; choose others as "
                    "--test, or other --targets"
                )


def check_models(
    datasets: Sequence[TravellingHeads], subjects: Subjects, source: str, models: Sequence[Model]
) -> None:
    """See that the voxels of all test subjects are of the size that the models know.

    Raises
    ------
    UserError
        With the mend.
    """
    for dataset in datasets:
        for subject in subjects.test:
            sizes = dataset.acquisition(subject, source).lattice.voxel_sizes
            for model in models:
                known = model.card.voxel_size
                if np.abs(sizes / known - 1).max() > SIZE_TOLERANCE:
                    given = " × ".join(f"{size:.2f}" for size in sizes)
                    raise UserError(
                        f"{dataset.scans[subject, source]}: voxels are {given} mm, those of "
                        f"{model.name} {known:.2f} mm; evaluate it on data of its own voxel size"
                    )
