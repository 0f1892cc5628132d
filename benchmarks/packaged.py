"""Measure models on simulated heads of another seed than they learned from, beside IQT.

    python benchmarks/packaged.py LEARNED HEADS [MODEL ...]

LEARNED is the dataset that the models were trained on, HEADS one of another seed; names of subjects
say nothing across seeds. Alignment and IQT learn from the subjects of LEARNED that the first model
learned from. Printed is the SH MSE on the noise-free twins of all HEADS, in 1e-5 SH units squared:
mean (sd) over heads.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from simulated import models_of

from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.baselines import PatchRegression, StatisticalAlignment
from napari_msp.evaluation.measures import measure_sh
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage

Predict = Callable[[Acquisition, Lattice], SHImage]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("learned", type=Path)
    parser.add_argument("heads", type=Path)
    parser.add_argument("models", type=Path, nargs="*", help="default: the packaged MSP")
    options = parser.parse_args()
    learned, heads = open_dataset(options.learned), open_dataset(options.heads)
    models = models_of(options.models)
    first = next(iter(models.values()))
    for target in first.targets:
        for name, predict in methods(models, learned, first, target).items():
            errors = [
                error_of(predict, heads, subject, first.card.input, target)
                for subject in heads.subjects
            ]
            print(f"{target:14}{name:24}{np.mean(errors):7.1f} ({np.std(errors, ddof=1):.1f})")


def methods(
    models: dict[str, Model], learned: TravellingHeads, first: Model, target: str
) -> dict[str, Predict]:
    """Give what predicts a target, by name."""
    subjects = first.training["subjects"]
    inputs = [fit_sh(learned.acquisition(each, first.card.input)) for each in subjects]
    truths = [fit_sh(learned.acquisition(each, target)) for each in subjects]
    predicts: dict[str, Predict] = {}
    for make in (StatisticalAlignment, PatchRegression):
        rule = make().fit(inputs, truths)
        predicts[rule.name] = lambda scan, lattice, rule=rule: rule.predict(fit_sh(scan), lattice)
    for name, model in models.items():
        predicts[name] = lambda scan, _, model=model: harmonize(model, scan, target).sh
    return predicts


def error_of(
    predict: Predict, heads: TravellingHeads, subject: str, source: str, target: str
) -> float:
    """Give the SH MSE of one prediction on the head's noise-free twin."""
    twin = heads.noise_free(subject, target)
    assert twin is not None, "the heads were simulated without twins"
    truth = fit_sh(twin)
    prediction = predict(heads.acquisition(subject, source), truth.lattice)
    return 1e5 * measure_sh(prediction, truth).values["sh_mse"]


if __name__ == "__main__":
    main()
