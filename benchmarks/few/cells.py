"""One cell: a method on heads of a set, learned for so long, measured; one small file each."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from far.sets import EDGE
from shared_msp import Clock

from few.methods import METHODS, Method
from napari_msp import harmonize, load_model, packaged, train
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.evaluation.baselines.base import baseline_class
from napari_msp.evaluation.measures.catalogue import IN_TABLE, SH_ERRORS, measure_head
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.files import sha256, versions_of, write_json
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import BASE
from napari_msp.model_file import Model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER
from napari_msp.strict_json import read_json

INPUT = "old_st"
SCALES = {"new_st": 1, "strong_st": 1, "strong_sa": 2}
"""Targets of a far set, and their lattice scales."""

TESTS = ("sub-05", "sub-06")
"""Heads that nothing is learned from."""

UNPAIRED = (("sub-01", "sub-02"), ("sub-03", "sub-04"))
"""People whose statistics stand for the input's and for the targets' where nobody travelled."""

TIMED_STEPS = 8


@dataclass(frozen=True)
class Cell:
    """What is run and measured.

    Attributes
    ----------
    part
        Of the benchmark that it belongs to.
    set, method
        Names.
    targets
        All of the run.
    heads
        That are learned from.
    steps
        A target, in all phases together.
    rate
        Highest learning rate; 0 where there is none.
    every_measure
        Take all of the catalogue, rather than SH errors alone.
    """

    part: str
    set: str
    method: str
    targets: tuple[str, ...]
    heads: tuple[str, ...] = ()
    steps: int = 0
    rate: float = 0.0
    every_measure: bool = False

    @property
    def key(self) -> str:
        """Name of its file."""
        words = (self.part, self.set, self.method, "+".join(self.targets), "+".join(self.heads))
        text = " ".join((*words, str(self.steps), f"{self.rate:g}"))
        return as_file_name(text)


def as_file_name(text: str) -> str:
    """Keep letters, digits and the signs that every system takes."""
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in text)


@dataclass(frozen=True)
class Bench:
    """Where everything lies.

    Attributes
    ----------
    folder
        Of results and of trainings under way.
    sets
        Dataset of each set.
    bases
        Model of each start that there is.
    batch, crop
        Of trainings; None: the preset's.
    tests
        Heads that are measured.
    edge
        Voxels an axis of the sets' heads.
    scales
        Of the targets that an MSP has here: a wide network has as many weights.
    """

    folder: Path
    sets: Mapping[str, Path]
    bases: Mapping[str, str]
    batch: int | None = None
    crop: int | None = None
    tests: tuple[str, ...] = TESTS
    edge: int = EDGE
    scales: Mapping[str, int] = field(default_factory=lambda: SCALES)

    def check(self) -> None:
        """Refuse to put results of one base beside those of another.

        Raises
        ------
        SystemExit
            When the folder's results started from another model.
        """
        kept = self.folder / "bases.json"
        digests: dict[str, Any] = read_json(kept) if kept.exists() else {}
        for name, model in self.bases.items():
            path = packaged.base_model() if model == BASE else Path(model)
            assert path is not None
            digest = sha256(path)
            if digests.setdefault(name, digest) != digest:
                raise SystemExit(f"{self.folder} has results of another {name}: use a new folder")
        write_json(kept, digests)

    def path(self, cell: Cell) -> Path:
        """Say where a cell's row lies."""
        return self.folder / "cells" / f"{cell.key}.json"

    def model(self, cell: Cell) -> Path:
        """Say where a cell's model is kept, of cells that take every measure."""
        return self.folder / "models" / f"{cell.key}.safetensors"

    def rows(self) -> list[dict[str, Any]]:
        """Read every row that there is."""
        return self._read("cells")

    def biology(self) -> list[dict[str, Any]]:
        """Read what came through of changes, a row a cell."""
        return self._read("biology")

    def _read(self, folder: str) -> list[dict[str, Any]]:
        return [read_json(path) for path in sorted((self.folder / folder).glob("*.json"))]

    def settings(self, method: Method, targets: Sequence[str]) -> dict[str, Any]:
        """Give the settings of a training, but for its heads, length and rate."""
        values = method.settings(targets, self.scales, self.bases) | {
            "input": INPUT,
            "targets": tuple(targets),
        }
        return values | {
            name: value
            for name, value in (("batch", self.batch), ("crop", self.crop))
            if value is not None
        }


@dataclass
class Told:
    """Warnings of a cell, each once."""

    words: list[str] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what is warned of while the block runs."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.words = list(dict.fromkeys([*self.words, *(str(each.message) for each in caught)]))


# --- A step's time ---------------------------------------------------------------------------


def step_times(bench: Bench, method: Method, targets: Sequence[str], on: str) -> dict[str, float]:
    """Give the seconds of one core that a step of each phase takes; measured once, and kept.

    Parameters
    ----------
    on
        Set whose first head is learned from.
    """
    kept = bench.folder / "times.json"
    times: dict[str, Any] = read_json(kept) if kept.exists() else {}
    key = f"{method.name} {'+'.join(targets)}"
    if key not in times:
        clock = Clock()
        # Another process may time another method in the same folder.
        out = bench.folder / f"timed {as_file_name(key)}.safetensors"
        steps = TIMED_STEPS * (2 if method.singles_first else 1)
        values: dict[str, Any] = bench.settings(method, targets) | method.lengths(steps)
        with Told().listening():
            train(
                bench.sets[on],
                out,
                device="cpu",
                force=True,
                progress=clock,
                subjects=("sub-01",),
                **values,
            )
        out.unlink()
        times = (read_json(kept) if kept.exists() else {}) | {key: clock.times()}
        write_json(kept, times)
    return dict(times[key])


def seconds_of(method: Method, times: Mapping[str, float], steps: int) -> float:
    """Give how long a run of so many steps a target takes on one core, all its targets together.

    Parameters
    ----------
    times
        Of a step of each phase.
    """
    lengths = method.lengths(steps)
    return sum(
        seconds * lengths["unison_steps" if phase.startswith("msp") else "steps"]
        for phase, seconds in times.items()
    )


def steps_within(method: Method, times: Iterable[Mapping[str, float]], seconds: float) -> int:
    """Give the steps a target that fit into a time for all targets together.

    Parameters
    ----------
    times
        Of each run, one a target where targets are learned apart.
    """
    many = 1000
    each = sum(seconds_of(method, those, many) for those in times) / many
    return max(2, int(seconds / each))


# --- A cell ----------------------------------------------------------------------------------


def run_cell(
    bench: Bench, cell: Cell, times: Mapping[str, float], stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Learn, measure and write the row; None when stopped, to be gone on with.

    Parameters
    ----------
    times
        Seconds of a step of each phase.
    """
    method, told = METHODS[cell.method], Told()
    dataset = open_dataset(bench.sets[cell.set])
    more: dict[str, Any] = {}
    out: Path | None = None
    with told.listening():
        if method.baseline:
            errors = _measured(bench, cell, _learned_rule(dataset, cell, method))
        else:
            out = _trained(bench, cell, method, dataset, stop)
            if out is None:
                return None
            model = load_model(out)
            errors = _measured(bench, cell, _predicting(model))
            more = {
                "weights": sum(weight.numel() for weight in model.network.parameters()),
                "seconds": float(f"{seconds_of(method, times, cell.steps):.4g}")
                if cell.steps
                else 0.0,
                "statistics": model.training.get("statistics", {}),
                "start": model.training.get("start", {}),
            }
    row = {
        **asdict(cell),
        **more,
        "errors": errors,
        "told": told.words,
        "versions": versions_of("torch", "numpy", "dipy"),
    }
    write_json(bench.path(cell), row)
    if out is not None and cell.every_measure:
        # What else is asked of it can be measured later.
        bench.model(cell).parent.mkdir(parents=True, exist_ok=True)
        out.replace(bench.model(cell))
    elif out is not None:
        out.unlink()
    return row


Predict = Callable[[TravellingHeads, str, str], SHImage]
"""Gives the image of a subject on a target."""


def predictor(bench: Bench, cell: Cell) -> Predict | None:
    """Give what predicts by a cell that is finished; None where its model was not kept."""
    method = METHODS[cell.method]
    if method.baseline:
        return _learned_rule(open_dataset(bench.sets[cell.set]), cell, method)
    kept = bench.model(cell)
    return _predicting(load_model(kept)) if kept.exists() else None


def _learned_rule(dataset: TravellingHeads, cell: Cell, method: Method) -> Predict:
    inputs = [_fitted(dataset, subject, INPUT) for subject in cell.heads]
    rules = {
        target: baseline_class(method.baseline)().fit(
            inputs, [_fitted(dataset, subject, target) for subject in cell.heads]
        )
        for target in cell.targets
    }

    def predict(dataset: TravellingHeads, subject: str, target: str) -> SHImage:
        lattice = dataset.acquisition(subject, target).lattice
        return rules[target].predict(_fitted(dataset, subject, INPUT), lattice)

    return predict


def _predicting(model: Model) -> Predict:
    def predict(dataset: TravellingHeads, subject: str, target: str) -> SHImage:
        scan = dataset.acquisition(subject, INPUT)
        return harmonize(model, scan, target, device="cpu").sh

    return predict


def _trained(
    bench: Bench,
    cell: Cell,
    method: Method,
    dataset: TravellingHeads,
    stop: Callable[[], bool],
) -> Path | None:
    """Train, going on where it was stopped; give the model's file, None when stopped again."""
    out = bench.folder / "trainings" / f"{cell.key}.safetensors"
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    values = bench.settings(method, cell.targets) | method.lengths(cell.steps)
    if cell.heads:
        values["subjects"] = cell.heads
    else:
        dataset = strangers(dataset)
        base = str(values["start_from"])
        values["start_from_target"] = platforms_in_order(base, cell.targets)
    if cell.rate:
        values["learning_rate"] = cell.rate
    again = checkpoint_path(out).exists()
    return train(dataset, out, device="cpu", resume=again, cancelled=stop, **values)


def strangers(dataset: TravellingHeads) -> TravellingHeads:
    """Leave each person the scans of the input or of the targets: nobody travelled."""
    scans = {
        (subject, platform): path
        for (subject, platform), path in dataset.scans.items()
        if subject in UNPAIRED[platform != INPUT]
    }
    return replace(dataset, scans=scans)


def platforms_in_order(base: str, targets: Sequence[str]) -> dict[str, str]:
    """Give each target a platform of its scale, in the order in which the model lists them.

    Where nobody travelled there is nothing to compare them by.
    """
    path = packaged.base_model() if base == BASE else Path(base)
    assert path is not None
    left = sorted(load_model(path).card.scales.items())
    found = {}
    for target in targets:
        chosen = next((each for each in left if each[1] == SCALES[target]), None)
        if chosen is not None:
            left.remove(chosen)
            found[target] = chosen[0]
    return found


# --- Measuring -------------------------------------------------------------------------------


def _fitted(dataset: TravellingHeads, subject: str, platform: str) -> SHImage:
    return fit_sh(dataset.acquisition(subject, platform), order=ORDER)


@lru_cache(maxsize=24)
def _truths(root: Path, subject: str, target: str) -> dict[str, Truth]:
    dataset = open_dataset(root)
    twin = dataset.noise_free(subject, target)
    assert twin is not None
    clear = Truth(fit_sh(twin, order=ORDER))
    return {
        "noise-free": clear,
        # Tissue is found best where there is no noise.
        "scan": Truth(_fitted(dataset, subject, target), clear.tissue),
    }


def _measured(bench: Bench, cell: Cell, predict: Predict) -> dict[str, Any]:
    """Give every measure by target, head and truth."""
    dataset = open_dataset(bench.sets[cell.set])
    keys = IN_TABLE if cell.every_measure else SH_ERRORS
    errors: dict[str, Any] = {}
    for target in cell.targets:
        for subject in bench.tests:
            prediction = predict(dataset, subject, target)
            for reference, truth in _truths(dataset.root, subject, target).items():
                found = measure_head(prediction, truth, keys).values
                errors.setdefault(target, {}).setdefault(subject, {})[reference] = {
                    key: float(f"{value:.6g}") for key, value in found.items() if np.isfinite(value)
                }
    return errors
