"""How much a trained network beats aligning mean and variance, without and with noise.

    python benchmarks/learnability.py [--size tiny|small] [--subjects 4] [--epochs 70]

Simulates travelling heads, trains SHResNet by the fast preset with the last subject held out, and
prints for every target the SH MSE of statistical alignment over that of the network.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.simulate import simulate
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh

INPUT = "ge_st"
CROP, BATCH = 10, 2  # many small steps: the heads of size tiny are small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=70)
    parser.add_argument("--width", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    results = {}
    for noise in (False, True):
        with TemporaryDirectory() as folder:
            heads = Path(folder) / "heads"
            simulate(heads, options.subjects, options.size, 7, noise=noise, noise_free=False)
            results["with noise" if noise else "without noise"] = ratios(heads, options)
    for name, by_target in results.items():
        for target, row in by_target.items():
            print(
                f"{name}, {target}: alignment {row['alignment']:.2e}, network "
                f"{row['network']:.2e}, ratio {row['alignment'] / row['network']:.2f}"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "learnability.json").write_text(json.dumps(results, indent=2) + "\n")


def ratios(heads: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Held-out SH MSE of statistical alignment and of a trained network, for each target."""
    study = open_dataset(heads)
    *training, held_out = study.subjects
    settings = TrainingSettings(
        start_from="nothing",
        kind="shresnet",
        width=options.width,
        epochs=options.epochs,
        crop=CROP,
        batch=BATCH,
        held_out=(held_out,),
    )
    path = heads / "model.safetensors"
    train(heads, path, settings)
    model = load_model(path)
    sources = [fit_sh(study.acquisition(subject, INPUT)) for subject in training]
    scan = study.acquisition(held_out, INPUT)
    result = {}
    for target in model.targets:
        truth = fit_sh(study.acquisition(held_out, target))
        targets = [fit_sh(study.acquisition(subject, target)) for subject in training]
        aligned = StatisticalAlignment().fit(sources, targets).predict(fit_sh(scan), truth.lattice)
        result[target] = {
            "alignment": measure(aligned, truth).sh_mse,
            "network": measure(harmonize(model, scan, target).sh, truth).sh_mse,
        }
    return result


if __name__ == "__main__":
    main()
