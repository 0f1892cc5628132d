"""Measure whether a weaker bundle is still weaker after harmonization, and what else is left.

    python benchmarks/biology.py [MODEL ...] [--heads 8] [--bundle "corticospinal tract"]

Every head is scanned as it is and with the FA of one bundle lowered by 5 %, with the same noise.
The true effect is the difference of mean FA in the bundle's core between the target's noise-free
twins, the recovered one that between the harmonized input scans. Beside it stands, over the core
and over the brain, how far harmonized FA is from the target's scan, and that scan from a second one
of the same head. All FA go through the SH series.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from recovery import platform_difference, recovery
from simulated import dataset_of, models_of

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.phantom import (
    WeakerBundle,
    bundle_share,
    phantom_digest,
    platform_named,
    simulate_scan,
    simulate_subject,
)
from napari_msp.data.phantom.subjects import Subject
from napari_msp.evaluation.baselines.base import Interpolation
from napari_msp.evaluation.comparison import on_lattice
from napari_msp.files import write_json
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy
from napari_msp.signal.sh_image import SHImage

FACTOR = 0.95
CORE = 0.4  # share of the tissue from which a voxel belongs to the bundle's core
SIZE = "tiny"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="*", help="default: the packaged MSP")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--bundle", default="corticospinal tract")
    parser.add_argument("--seed", type=int, default=5000, help="one that no model learned from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    result: dict[str, Any] = {
        "phantom": phantom_digest(),
        "bundle": options.bundle,
        "factor": FACTOR,
        "seed": options.seed,
        "models": {},
    }
    for name, model in models_of(options.models).items():
        heads = [
            one_head(model, index, options.bundle, options.seed) for index in range(options.heads)
        ]
        result["models"][name] = {target: joined(heads, target) for target in model.targets}
        print(table(name, options.bundle, result["models"][name]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "biology.json", result)


Head = dict[str, dict[str, Any]]


def one_head(model: Model, index: int, bundle: str, seed: int) -> Head:
    """Measure one head on every target."""
    platforms = tuple(platform_named(name) for name in (model.card.input, *model.targets))
    effects: dict[str, dict[str, FloatArray]] = {target: {} for target in model.targets}
    result: Head = {}
    for changes in ((), (WeakerBundle(bundle, FACTOR),)):
        scans = list(simulate_subject(index, platforms, SIZE, seed, changes=changes))
        person = scans[0].subject
        with dataset_of(scans) as study:
            for target in model.targets:
                before = effects[target]
                images = fa_images(model, study, f"sub-{person.label}", target)
                if not changes:
                    effects[target] = {name: fa for name, (fa, _) in images.items()}
                    result[target] = {
                        "difference": differences(images, person, target, index, seed, bundle)
                    }
                    continue
                core = core_of(bundle, person, images["truth"][1])
                result[target]["voxels"] = int(core.sum())
                result[target]["fa"] = float(before["truth"][core].mean())
                result[target]["effect"] = {
                    name: float((fa - before[name])[core].mean())
                    for name, (fa, _) in images.items()
                }
    return result


def fa_images(
    model: Model, study: TravellingHeads, subject: str, target: str
) -> dict[str, tuple[FloatArray, SHImage]]:
    """FA and SH image of truth, target scan, input and prediction, on the target's lattice."""
    scan = study.acquisition(subject, model.card.input)
    twin = study.noise_free(subject, target)
    assert twin is not None  # every simulated scan has one
    truth, own = fit_sh(twin), fit_sh(study.acquisition(subject, target))
    source = fit_sh(scan)
    images = {
        "truth": truth,
        "target": own,
        "no harmonization": Interpolation().fit([source], [own]).predict(source, truth.lattice),
        "harmonized": on_lattice(harmonize(model, scan, target).sh, truth.lattice),
    }
    return {name: (fractional_anisotropy(image), image) for name, image in images.items()}


def core_of(bundle: str, person: Subject, image: SHImage) -> MaskArray:
    """Give the voxels that are mostly the bundle's."""
    return image.mask & (bundle_share(bundle, person, image.lattice, SIZE) > CORE)


def differences(
    images: dict[str, tuple[FloatArray, SHImage]],
    person: Subject,
    target: str,
    index: int,
    seed: int,
    bundle: str,
) -> dict[str, dict[str, float]]:
    """Compare harmonized FA with the target's scan, and that with a second scan."""
    with dataset_of([simulate_scan(index, target, SIZE, seed, noise_seed=seed + 1)]) as again:
        rescan = fractional_anisotropy(fit_sh(again.acquisition(again.subjects[0], target)))
    everywhere = np.logical_and.reduce([image.mask for _, image in images.values()])
    return {
        where: platform_difference(
            images["no harmonization"][0],
            images["harmonized"][0],
            images["target"][0],
            rescan,
            region,
        ).to_json()
        for where, region in (
            ("brain", everywhere),
            ("core", everywhere & core_of(bundle, person, images["truth"][1])),
        )
    }


def joined(heads: list[Head], target: str) -> dict[str, Any]:
    """Set the heads of one target side by side."""
    mine = [head[target] for head in heads]
    true = [head["effect"]["truth"] for head in mine]
    return {
        "voxels": [head["voxels"] for head in mine],
        "fa": [head["fa"] for head in mine],
        "recovery": {
            name: recovery(true, [head["effect"][name] for head in mine]).to_json()
            for name in ("harmonized", "no harmonization", "target")
        },
        "difference": {
            where: {
                key: [head["difference"][where][key] for head in mine]
                for key in mine[0]["difference"][where]
            }
            for where in ("brain", "core")
        },
    }


def table(name: str, bundle: str, result: dict[str, Any]) -> str:
    """Lay the figures out for reading."""
    lines = [f"{name}: FA of the {bundle} lowered; recovered over true effect (95 % interval)"]
    for target, each in result.items():
        for image, found in each["recovery"].items():
            low, high = found["interval"]
            true = np.mean(found["true"]) / np.mean(each["fa"])
            lines.append(
                f"{target:14}{image:18}{found['ratio']:.2f} ({low:.2f} to {high:.2f}), true effect "
                f"{true:+.1%}, {found['heads']} heads"
            )
    lines.append("FA against the target's scan: before, after harmonization, second scan of it")
    for target, each in result.items():
        for where, heads in each["difference"].items():
            apart = [np.mean(heads[key]) for key in ("before", "after", "rescan")]
            biases = [
                np.sqrt(np.mean(np.square(heads[key])))
                for key in ("bias_before", "bias_after", "bias_rescan")
            ]
            lines.append(
                f"{target:14}{where:8}by voxel {apart[0]:.3f} {apart[1]:.3f} {apart[2]:.3f}; "
                f"of means {biases[0]:.4f} {biases[1]:.4f} {biases[2]:.4f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
