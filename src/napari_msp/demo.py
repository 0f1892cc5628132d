"""The main workflow on a simulated head with the packaged models, from scan to Figure 3."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.phantom.platforms import INPUT_PLATFORM
from napari_msp.data.phantom.simulate import DEMO_SEED, DEMO_SUBJECT, simulate
from napari_msp.evaluation.compare import compare
from napari_msp.files import sha256, write_json
from napari_msp.formatting import sh_mse
from napari_msp.image_files import COEFFICIENTS, ImageFile
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.model_file import load_model
from napari_msp.packaged import TEACHING, packaged_model, packaged_models
from napari_msp.strict_json import read_json


@dataclass(frozen=True)
class DemoTarget:
    """The demo's results for one target."""

    target: str
    truth: Path
    predictions: dict[str, Path]
    figure: Path
    metrics: Path


@dataclass(frozen=True)
class DemoResult:
    """All results of the demo."""

    scan: Path
    targets: list[DemoTarget]


def run_demo(out: str | Path, say: Callable[[str], None] = print) -> DemoResult:
    """Simulate a head, harmonize it with both packaged models, compare with the truth.

    Results in `out` of an earlier run with the same models are used again.

    Parameters
    ----------
    out
        Folder in which `heads/`, `harmonized/` and `compared/<target>/` are made.
    say
        Called with a line per phase, with its seconds.
    """
    out = Path(out)
    began = time.perf_counter()
    fingerprint = {name: sha256(path) for name, path in packaged_models().items()}
    record = out / "demo.json"
    done = record.exists() and read_json(record).get("fingerprint") == fingerprint
    heads = _heads(out / "heads", say)
    scan = heads.scans[DEMO_SUBJECT, INPUT_PLATFORM]
    if not done:
        _harmonize(scan, out / "harmonized", say)
    targets = [
        _compared(heads, scan, target, out, done, say)
        for target in load_model(packaged_model("MSP")).targets
    ]
    write_json(record, {"fingerprint": fingerprint, "seed": DEMO_SEED})
    for each in targets:
        say(_summary(each))
    say(f"all in {time.perf_counter() - began:.0f} s")
    return DemoResult(scan, targets)


def _heads(folder: Path, say: Callable[[str], None]) -> TravellingHeads:
    if not folder.exists():
        began = time.perf_counter()
        simulate(folder, subjects=1, size="small", seed=DEMO_SEED, noise_free=False)
        say(f"simulated one head on four platforms: {time.perf_counter() - began:.0f} s")
    return open_dataset(folder)


def _harmonize(scan: Path, folder: Path, say: Callable[[str], None]) -> None:
    for name, path in packaged_models().items():
        began = time.perf_counter()
        harmonize_to_folder(scan, path, [], folder, force=True)
        say(f"harmonized to every target with {name}: {time.perf_counter() - began:.0f} s")


def _compared(
    heads: TravellingHeads,
    scan: Path,
    target: str,
    out: Path,
    done: bool,
    say: Callable[[str], None],
) -> DemoTarget:
    folder = out / "compared" / target
    result = DemoTarget(
        target=target,
        truth=heads.scans[DEMO_SUBJECT, target],
        predictions={name: _sh_image(scan, target, name, out) for name in TEACHING},
        figure=folder / "figure3.png",
        metrics=folder / "metrics.json",
    )
    if not done:
        began = time.perf_counter()
        compare(result.truth, result.predictions, folder, input_image=scan)
        say(f"compared with the scan on {target}: {time.perf_counter() - began:.0f} s")
    return result


def _sh_image(scan: Path, target: str, name: str, out: Path) -> Path:
    file = ImageFile.predicted(scan, target, name.lower())
    return replace(file, what=COEFFICIENTS).at(out / "harmonized")


def _summary(result: DemoTarget) -> str:
    metrics = read_json(result.metrics)
    errors = {name: each["sh_mse"] for name, each in metrics["predictions"].items()}
    listed = ", ".join(f"{name} {sh_mse(error)}" for name, error in errors.items())
    before = metrics["no_harmonization"]["sh_mse"]
    return f"{result.target}: SH MSE {sh_mse(before)} before, {listed} ({result.figure})"
