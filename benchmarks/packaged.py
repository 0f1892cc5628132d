"""Measure models on simulated heads of another seed than they learned from, beside IQT.

    python benchmarks/packaged.py LEARNED HEADS [MODEL ...]

LEARNED is the dataset that the models were trained on, HEADS one of another seed; names of subjects
say nothing across seeds. Alignment and IQT learn from the subjects of LEARNED that the first model
learned from. Printed is the SH MSE on the noise-free twins of all HEADS, in 1e-5 SH units squared:
mean (sd) over heads.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from simulated import models_of, truth_of

from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.baselines.base import Baseline
from napari_msp.evaluation.baselines.patch_regression import PatchRegression
from napari_msp.evaluation.measures.catalogue import SH_ERRORS, measure_head
from napari_msp.evaluation.measures.pair import Truth
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
    source, subjects = first.card.input, first.training["subjects"]
    inputs = [fit_sh(learned.acquisition(each, source)) for each in subjects]
    scans = {each: heads.acquisition(each, source) for each in heads.subjects}
    for target in first.targets:
        outputs = [fit_sh(learned.acquisition(each, target)) for each in subjects]
        predicts = methods(models, inputs, outputs, target)
        errors: dict[str, list[float]] = {name: [] for name in predicts}
        for subject, scan in scans.items():
            truth = truth_of(heads, subject, target)
            for name, predict in predicts.items():
                measured = measure_head(predict(scan, truth.lattice), Truth(truth), SH_ERRORS)
                errors[name].append(1e5 * measured.values["sh_mse"])
        for name, each in errors.items():
            print(f"{target:14}{name:24}{np.mean(each):7.1f} ({np.std(each, ddof=1):.1f})")


def methods(
    models: dict[str, Model], inputs: list[SHImage], outputs: list[SHImage], target: str
) -> dict[str, Predict]:
    """Give what predicts a target, by name; what needs no network learns from the images."""
    predicts: dict[str, Predict] = {}
    for make in (StatisticalAlignment, PatchRegression):
        rule = make().fit(inputs, outputs)
        predicts[rule.name] = partial(by_rule, rule)
    for name, model in models.items():
        predicts[name] = partial(by_model, model, target)
    return predicts


def by_rule(rule: Baseline, scan: Acquisition, lattice: Lattice) -> SHImage:
    return rule.predict(fit_sh(scan), lattice)


def by_model(model: Model, target: str, scan: Acquisition, lattice: Lattice) -> SHImage:
    return harmonize(model, scan, target).sh


if __name__ == "__main__":
    main()
