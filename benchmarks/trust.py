"""Tell whether disagreement foretells errors, and whether a lesion lights up.

    python benchmarks/trust.py HEADS [MODEL ...] --validation sub-07 ... [--test sub-09 ...]

HEADS is a dataset of `napari-msp simulate` with its noise-free twins. The expected error is the
model's own; where it is not calibrated, it is fitted on the validation subjects, as are the signs
of the trivial predictors. Figures are of test subjects. No model may have learned from either
(with --other-seed, the names say nothing). The lesions are put into heads of their own.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from foresight import (
    edge_distance,
    favourable_sign,
    foresight,
    gradient_magnitude,
    reliability,
)
from simulated import dataset_of, models_of, truth_of

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.changes import Lesion, lesion_mask
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import phantom_digest
from napari_msp.errors import UserError
from napari_msp.evaluation.calibration import with_expected_errors
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.files import write_json
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import squared_error

EXPECTED = "expected error"
WARNING = ("disagreement", "disagreement of order 0", EXPECTED)
TRIVIAL = ("input's gradient", "distance to edge")
PLACE = Lesion((26.0, -14.0, 26.0), radius=7.0)
LESIONS = {
    "healthy": None,
    "oedema": PLACE,
    "infarct": replace(PLACE, diffusivity=0.45e-3, t2=110.0),
}
LESION_SEED = 4000  # of the heads that get one; no model learns from heads of this seed


@dataclass(frozen=True)
class Judged:
    """One prediction beside its truth, on the prediction's lattice."""

    lattice: Lattice
    error: FloatArray
    mask: MaskArray
    predictors: dict[str, FloatArray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("heads", type=Path)
    parser.add_argument("models", type=Path, nargs="*", help="default: the packaged MSP")
    parser.add_argument("--validation", nargs="+", default=[], metavar="SUBJECT")
    parser.add_argument("--test", nargs="+", default=[], metavar="SUBJECT")
    parser.add_argument("--other-seed", action="store_true", help="no model has seen these heads")
    parser.add_argument("--lesion-heads", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    study = open_dataset(options.heads)
    result: dict[str, Any] = {"phantom": phantom_digest(), "models": {}}
    for name, model in models_of(options.models).items():
        validation, test = split(study, model, options)
        if not model.card.expected_error:
            model = with_expected_errors(model, study, validation)
        result["models"][name] = {
            "validation": validation,
            "test": test,
            "targets": {t: foretold(study, model, t, validation, test) for t in model.targets},
            "lesion": lesions(model, options.lesion_heads),
        }
        print(table(name, result["models"][name]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "trust.json", result)


def split(
    study: TravellingHeads, model: Model, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Choose validation and test subjects among those that the model has not learned from."""
    learned = [] if options.other_seed else model.training.get("subjects", [])
    free = [subject for subject in study.subjects if subject not in learned]
    validation = options.validation or free[: len(free) // 2]
    test = options.test or [subject for subject in free if subject not in validation]
    if not validation or not test or set(validation) & set(test) or {*validation, *test} - {*free}:
        raise UserError(
            f"{study.root}: give --validation and --test subjects of their own, among "
            f"{', '.join(free) or 'nobody'}; of another seed than the model's: --other-seed"
        )
    return validation, test


def foretold(
    study: TravellingHeads, model: Model, target: str, validation: list[str], test: list[str]
) -> dict[str, Any]:
    """Compare every predictor of error with the error, head by head."""
    fitting = [judge(study, model, subject, target) for subject in validation]
    heads = [judge(study, model, subject, target) for subject in test]
    for name in TRIVIAL:
        sign = favourable_sign([foresight(h.predictors[name], h.error, h.mask) for h in fitting])
        for head in heads:
            head.predictors[name] *= sign
    names = list(heads[0].predictors)
    return {
        "sh_mse": float(in_mask(heads, "error").mean()),
        "predictors": {
            name: [foresight(h.predictors[name], h.error, h.mask).to_json() for h in heads]
            for name in names
        },
        "reliability": reliability(in_mask(heads, EXPECTED), in_mask(heads, "error")).tolist(),
    }


def judge(study: TravellingHeads, model: Model, subject: str, target: str) -> Judged:
    """Predict one subject, with truth and all predictors on one lattice."""
    scan = study.acquisition(subject, model.card.input)
    prediction = harmonize(model, scan, target)
    whole, order_0 = prediction.disagreement, prediction.order_0_disagreement
    if whole is None or order_0 is None:
        raise UserError(f"{model.name}: has no stages that could disagree; give an MSP")
    lattice = prediction.sh.lattice
    truth = on_lattice(truth_of(study, subject, target), lattice)
    mask = truth.mask & prediction.sh.mask
    predictors = {
        "disagreement": whole,
        "disagreement of order 0": order_0,
        "input's gradient": gradient_magnitude(fit_sh(scan), lattice),
        "distance to edge": edge_distance(mask, lattice),
    }
    assert prediction.expected_error is not None, "the model was calibrated"
    predictors[EXPECTED] = prediction.expected_error
    return Judged(lattice, squared_error(prediction.sh, truth, mask), mask, predictors)


def in_mask(heads: Sequence[Judged], name: str) -> FloatArray:
    """Join the in-mask voxels of the error or of a predictor."""
    maps = [head.error if name == "error" else head.predictors[name] for head in heads]
    return np.concatenate([each[head.mask] for each, head in zip(maps, heads, strict=True)])


def lesions(model: Model, heads: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Divide means in a lesion by those in its mirror region: by target, kind and head."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        target: {kind: [] for kind in LESIONS} for target in model.targets
    }
    platforms = tuple(platform_named(name) for name in (model.card.input, *model.targets))
    for index, (kind, lesion) in product(range(heads), LESIONS.items()):
        changes = () if lesion is None else (lesion,)
        scans = list(simulate_subject(index, platforms, "small", LESION_SEED, changes=changes))
        person = scans[0].subject
        with dataset_of(scans) as study:
            for target in model.targets:
                judged = judge(study, model, f"sub-{person.label}", target)
                here, there = (
                    lesion_mask(each, person, judged.lattice) & judged.mask
                    for each in (PLACE, PLACE.mirrored)
                )
                maps = {name: judged.predictors[name] for name in WARNING}
                maps["true error"] = np.sqrt(judged.error)
                found[target][kind].append(
                    {
                        name: float(map_[here].mean() / map_[there].mean())
                        for name, map_ in maps.items()
                    }
                )
    return found


def table(name: str, result: dict[str, Any]) -> str:
    """Lay the figures out for reading."""
    lines = [f"{name}, {len(result['test'])} heads; mean (least of the heads)"]
    lines.append(f"{'':14}{'predictor':26}{'Spearman':>16}{'AUROC worst 5 %':>18}")
    for target, each in result["targets"].items():
        for predictor, heads in each["predictors"].items():
            cells = []
            for measure in ("spearman", "auroc"):
                values = [head[measure] for head in heads]
                cells.append(f"{np.mean(values):.2f} ({min(values):.2f})")
            lines.append(f"{target:14}{predictor:26}{cells[0]:>16}{cells[1]:>18}")
    lines.append("lesion over its mirror region, head by head")
    for target, kinds in result["lesion"].items():
        for kind, heads in kinds.items():
            for what in heads[0] if heads else ():
                listed = ", ".join(f"{head[what]:.2f}" for head in heads)
                lines.append(f"{target:14}{kind:10}{what:26}{listed}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
