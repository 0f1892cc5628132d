"""Plan of a benchmark: which methods predict which subjects, after how much training."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.gradients import shell_name
from napari_msp.data.lattice import scale_between
from napari_msp.errors import Advice, Change, UserError, either
from napari_msp.evaluation.benchmark.finished import FinishedPredictions, all_predictions
from napari_msp.evaluation.benchmark.methods import MSP, SHARED_MSP, from_base, key_of
from napari_msp.evaluation.benchmark.results import grouped
from napari_msp.evaluation.benchmark.settings import Budget, EvaluationSettings, Subjects
from napari_msp.evaluation.measures.catalogue import MEASURES
from napari_msp.evaluation.regions import TISSUE, regions_state
from napari_msp.files import sha256, version_of, versions_of, write_json
from napari_msp.learning.schedule import FAST
from napari_msp.strict_json import read_json

SEEDS = 1000
"""Upper limit of training seeds; further members of a mean of networks add multiples of it."""


@dataclass(frozen=True)
class Round:
    """One dataset with one training seed; `fold` is the subject left out, if any."""

    dataset: Path
    seed: int
    subjects: Subjects
    fold: str = ""

    @property
    def name(self) -> str:
        """Name such as "heads-0 seed 1", or "heads-0 seed 1 without sub-01"."""
        return f"{self.dataset.name} seed {self.seed}" + (self.fold and f" without {self.fold}")

    @property
    def folder(self) -> str:
        """Name of the folders of its files."""
        name = f"{self.dataset.name}-seed-{self.seed}"
        return name + (self.fold and f"-without-{self.fold}")


@dataclass(frozen=True)
class Plan:
    """A whole benchmark: the settings asked for, with everything chosen that they left open.

    Attributes
    ----------
    datasets
        BIDS folders; their names distinguish them.
    subjects
        The same names in every dataset. With folds: subjects tested in one of them, and the others.
    b_values
        Shells that are learned and measured, in s/mm², lowest first.
    folds
        Splits in which each subject is tested once, with everything trained anew.
    base
        Model that rows "from base" start from; None if there is no such row.
    regions
        Source of the regions of pages of proof: "tissue", a label image or a folder of them; empty
        for no such pages.
    doubts
        Reasons why errors may be too low, or not of the method, in words.
    unfit
        Models for simulated heads only that are run on measured scans, in words.
    """

    asked: EvaluationSettings
    datasets: tuple[Path, ...]
    input: str
    targets: tuple[str, ...]
    subjects: Subjects
    methods: tuple[str, ...]
    budget: Budget
    b_values: tuple[float, ...]
    folds: tuple[Subjects, ...] = ()
    base: Path | None = None
    regions: str = ""
    doubts: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()

    def open(self, dataset: Path) -> TravellingHeads:
        """Open a dataset with the runs and b=0 volumes that were asked for."""
        asked, who = self.asked, self.subjects.all
        return open_dataset(dataset, run=asked.run, b0_threshold=asked.b0_threshold, only=who)

    @cached_property
    def finished(self) -> dict[Path, list[FinishedPredictions]]:
        """Finished predictions of the test subjects by dataset, as found when first asked for."""
        test = self.subjects.test
        return all_predictions(self.asked.predictions, self.datasets, self.targets, test)

    @property
    def made_in_folds(self) -> set[str]:
        """Finished predictions whose subjects were predicted by models that the others taught."""
        every = chain.from_iterable(self.finished.values())
        return {each.name for each in every if each.overlapping(self.subjects.test)}

    @property
    def b_value(self) -> float | tuple[float, ...]:
        """The only shell's b-value, or those of several, as a setting."""
        return self.b_values if len(self.b_values) > 1 else self.b_values[0]

    @property
    def shells(self) -> dict[int | None, float]:
        """b-values by the shells' keys in results: their names, or None for a single one."""
        if len(self.b_values) == 1:
            return {None: self.b_values[0]}
        return {shell_name(each): each for each in self.b_values}

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Rounds of each fold: every seed on the first dataset, the first seed on the others."""
        first, *others = self.datasets
        cross = (
            *((first, seed) for seed in self.asked.seeds),
            *((dataset, self.asked.seeds[0]) for dataset in others),
        )
        if not self.folds:
            return tuple(Round(*each, self.subjects) for each in cross)
        return tuple(Round(*each, fold, fold.test[0]) for fold in self.folds for each in cross)

    @property
    def first_rounds(self) -> tuple[Round, ...]:
        """First round of each fold, whose validation subjects choose the fold's learning rates."""
        return tuple(first for first, *_ in grouped(self.rounds, lambda r: r.fold).values())

    def rates_in(self, round_: Round) -> tuple[float, ...]:
        """Return the learning rates to try in a round; without validation, only the preset's."""
        return self.budget.rates if round_.subjects.validation else (FAST.learning_rate,)

    @property
    def tuning_targets(self) -> tuple[str, ...]:
        """Platforms on which learning rates are tried: the first two, to save time."""
        return self.targets[:2]

    @property
    def tested(self) -> str | None:
        """Row that is tested against the others, chosen before anything is measured."""
        for name in (MSP, SHARED_MSP, from_base(MSP)):
            if name in self.methods:
                return name
        rows = (*(path.stem for path in self.asked.models), *self.asked.predictions)
        return next(iter(rows), None)

    def to_json(self, digest: Callable[[Path], str] = sha256) -> dict[str, Any]:
        """Return plain types by which plans can be compared; models and scans by their content.

        Parameters
        ----------
        digest
            Function that returns a file's digest, see `KeptDigests`.
        """
        asked, regions = self.asked, self.regions
        always = {
            "version": versions_of()["napari-msp"],
            "measures": [*MEASURES],
            "datasets": [str(path.resolve()) for path in self.datasets],
            "source": self.input,
            "targets": self.targets,
            "subjects": asdict(self.subjects),
            "methods": [key_of(each) for each in self.methods],
            "models": [[str(path.resolve()), digest(path)] for path in asked.models],
            "seeds": asked.seeds,
            "budget": asdict(self.budget),
            "b_value": self.b_value,  # a list only if there are several
            "b0_threshold": asked.b0_threshold,
            "run": asked.run,
        }
        where_asked = {
            "folds": [asdict(fold) for fold in self.folds],
            "base": self.base and digest(self.base),
            "fibres": asked.fibres,
            "bundle": asked.bundle,
            "biology": asked.biology,
            "predictions": [
                [each.name, str(each.folder.resolve()), each.state]
                for each in chain.from_iterable(self.finished.values())
            ],
            "regions": regions if regions in ("", TISSUE) else [regions, *regions_state(regions)],
        }
        known = {name: each for name, each in where_asked.items() if each}
        return {**always, **known, "scans": self._scans(digest)}

    def _scans(self, digest: Callable[[Path], str]) -> dict[str, str]:
        """Return digests of all scans' files by scan, as results are of exactly these."""
        platforms = (self.input, *self.targets)
        found: dict[str, str] = {}
        for path in self.datasets:
            dataset = self.open(path)
            of = f"{path.name}: " * (len(self.datasets) > 1)
            scans = dataset.files_read(self.subjects.all, platforms, digest)
            found |= {f"{of}{name}": each for name, each in scans.items()}
        return found


DIGESTS = "digests.json"
"""File of the digests of a plan's files, beside it."""

SETTLED = 2_000_000_000
"""Nanoseconds after a file's last change from which its times identify this version: some disks
store times in steps of two seconds."""


class KeptDigests:
    """SHA-256 of files, kept beside a plan, so that unchanged files are not read again.

    A file counts as unchanged if `version_of` returns the same.
    """

    def __init__(self, path: Path) -> None:
        self._known: dict[str, Any] = {}
        self._met: dict[str, list[int | str]] = {}
        with suppress(UserError):  # if there are none, or they are damaged, files are read
            self._known = read_json(path)

    def of(self, path: Path) -> str:
        """Return the digest of a file."""
        name, version, now = str(path.resolve()), [*version_of(path)], time.time_ns()
        match self._known.get(name):
            case [*before, str() as digest] if version and before == version:
                pass
            case _:
                digest = sha256(path)
        settled = bool(version) and now - max(version[1:3]) > SETTLED
        if settled and version == [*version_of(path)]:
            self._met[name] = [*version, digest]
        return digest

    def write(self, path: Path) -> None:
        """Write the digests that were asked for."""
        write_json(path, self._met)


def keep_plan(plan: Plan, path: Path, earlier: Path | None = None) -> None:
    """Write the plan, or check that the one begun here is the same.

    Parameters
    ----------
    earlier
        Plan beside which digests of the same files may lie; None: `path`.

    Raises
    ------
    UserError
        When another evaluation was begun here, or its plan is damaged.
    """
    digests = KeptDigests((earlier or path).with_name(DIGESTS))
    content = plan.to_json(digests.of)
    digests.write(path.with_name(DIGESTS))
    wanted = json.loads(json.dumps(content))  # JSON turns tuples into lists
    try:
        before = read_json(path) if path.exists() else wanted
    except UserError as error:
        problem = f"is damaged ({error.problem}), so it is not known what was begun here"
        raise UserError(problem, path, "out", Change("out", "another")) from error
    changed = [name for name in {**wanted, **before} if before.get(name) != wanted.get(name)]
    if "version" in changed:
        known = before.get("version")
        whose = f"napari-msp {known}" if isinstance(known, str) else "an earlier version"
        problem = f"was begun by {whose}, whose numbers may be others"
        raise UserError(problem, path, "out", Change("out", "another"))
    if changed:
        then, now = before.get("scans"), wanted["scans"]
        scans = [name for name in now if isinstance(then, dict) and then.get(name) != now[name]]
        which = f" ({', '.join(scans)})" if changed == ["scans"] and scans else ""
        problem = f"another evaluation was begun here, with other {', '.join(changed)}{which}"
        go_on = Advice("use the same settings to continue it")
        raise UserError(problem, path, "out", either(go_on, Change("out", "another")))
    write_json(path, content)


def lattice_scales(
    dataset: TravellingHeads, source: str, targets: Sequence[str], subjects: Subjects
) -> dict[str, int]:
    """Return each target's lattice scale, from the first subject scanned on it."""
    scales = {}
    for target in targets:
        subject = next(s for s in subjects.all if dataset.has(s, target))
        lattice = dataset.acquisition(subject, source).lattice
        scan = dataset.acquisition(subject, target).lattice
        scales[target] = scale_between(lattice.voxel_sizes, scan.voxel_sizes, target)
    return scales
