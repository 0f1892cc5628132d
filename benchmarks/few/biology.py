"""Whether what differs in a head still differs in what is predicted from its scan.

A test head is scanned as it is and with one thing changed (`far/changes.py`), with the same noise.
What comes through is the change of a map in the predictions over its change in the target's
noise-free twins, both means over the voxels where the truth changes by at least half of what it
changes most (99th percentile). Nobody but the changed head knows of the change: what is learned
from has the bundle whole, no lesion, and the structure.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from far.changes import CHANGES
from far.sets import SETS
from far.writing import write_changed

from few.cells import INPUT, Bench, Cell, Predict, predictor
from napari_msp.arrays import FloatArray
from napari_msp.data.dataset import open_dataset
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.files import write_json
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy, tensor_maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER
from napari_msp.strict_json import read_json


def _diffusivity(image: SHImage) -> FloatArray:
    return tensor_maps(image).md


MAPS: Mapping[str, Callable[[SHImage], FloatArray]] = {
    "weaker bundle": fractional_anisotropy,
    "lesion": _diffusivity,
    "no inner fluid": _diffusivity,
}
"""Map in which a change is looked for."""

CORE, MOST = 0.5, 99.0
"""Part of the largest change from which a voxel counts, and the percentile that is the largest."""


def changed_set(bench: Bench, name: str, change: str) -> Path:
    """Give the dataset of a set's first test head with a change; made where it is not there."""
    out = bench.folder / "changed" / f"{name} {change}".replace(" ", "-")
    if not out.exists():
        print(f"making {out.name}", flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        number = int(bench.tests[0].removeprefix("sub-")) - 1
        write_changed(out, SETS[name], change, number, bench.edge)
    return out


def biology(bench: Bench, cell: Cell) -> dict[str, Any] | None:
    """Give what comes through of each change, by target; measured once, and kept.

    None for a cell whose model was not kept.
    """
    kept = bench.folder / "biology" / f"{cell.key}.json"
    if kept.exists():
        return dict(read_json(kept))
    predict = predictor(bench, cell)
    if predict is None:
        return None
    found = {
        target: {
            change: _came_through(
                bench.sets[cell.set],
                changed_set(bench, cell.set, change),
                bench.tests[0],
                target,
                change,
                predict,
            )
            for change in CHANGES
        }
        for target in cell.targets
    }
    row = {**asdict(cell), "found": found}
    write_json(kept, row)
    return row


def _came_through(
    usual: Path, changed: Path, subject: str, target: str, change: str, predict: Predict
) -> dict[str, float]:
    """Give the part of a change that is predicted, and that the input's scan has by itself."""
    maps: dict[str, list[FloatArray]] = {"truth": [], "predicted": [], "input": []}
    for root in (usual, changed):
        dataset = open_dataset(root)
        twin = dataset.noise_free(subject, target)
        assert twin is not None
        truth = fit_sh(twin, order=ORDER)
        scan = fit_sh(dataset.acquisition(subject, INPUT), order=ORDER)
        images = {"truth": truth, "predicted": predict(dataset, subject, target), "input": scan}
        for name, image in images.items():
            maps[name].append(MAPS[change](on_lattice(image, truth.lattice)))
    differences = {name: after - before for name, (before, after) in maps.items()}
    return came_through(differences)


def came_through(differences: Mapping[str, FloatArray]) -> dict[str, float]:
    """Compare what "predicted" and "input" changed with what "truth" did, where that did most."""
    size = np.abs(differences["truth"])
    where = size >= CORE * np.percentile(size[size > 0], MOST)
    mean = {name: float(values[where].mean()) for name, values in differences.items()}
    parts = {name: float(f"{mean[name] / mean['truth']:.4g}") for name in ("predicted", "input")}
    return {**parts, "truth": float(f"{mean['truth']:.4g}"), "voxels": int(where.sum())}
