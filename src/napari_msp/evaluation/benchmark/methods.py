"""The rows of Table 1: what competes. Networks and baselines come from their registries.

Predictions that were made elsewhere are rows too, see `FinishedPredictions`.
"""

import hashlib
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from napari_msp import packaged
from napari_msp.bids import (
    bare_stem,
    entities,
    image_suffix,
    is_dwi,
    nifti_stem,
    plain_label,
    platform_name,
    read_sidecar,
    without_shell,
)
from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import Advice, Change, Choose, Give, UserError, either
from napari_msp.evaluation.baselines.base import (
    COHORTS,
    TRAVELLING,
    Baseline,
    Interpolation,
    baseline_class,
    baseline_names,
)
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned
from napari_msp.formatting import listed
from napari_msp.learning.starts import single_of
from napari_msp.model_file import Model, load_model
from napari_msp.networks.registry import MULTI_STAGE, kinds, network_class, title
from napari_msp.provenance import Provenance
from napari_msp.signal.maps import MAPS

Role = Literal["baseline", "network", "control"]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes
    ----------
    role
        "baseline": learned in closed form; "network": trained; "control": trained to see what an
        MSP's advantage comes from.
    needs, gives
        What it learns from and what it gives back, in a few words for the report.
    """

    name: str
    role: Role
    explanation: str
    needs: str = TRAVELLING
    gives: str = "image"


UNHARMONIZED = Interpolation.name

MSP: str = title(MULTI_STAGE)
SHARED_MSP = f"{MSP}, shared first stages"
STATISTICS_ONLY = "base, statistics only"

BEST_SINGLE = "best single"
FIRST_STAGE = "first stage alone"
MORE_WEIGHTS = "single, as many weights"
MEAN_OF_SINGLES = "mean of singles"

_CONTROLS = (
    Method(
        FIRST_STAGE,
        "control",
        "The best single network's kind after only the steps that an MSP's first stage gets before "
        "its unison phase.",
    ),
    Method(
        BEST_SINGLE,
        "control",
        "For each target the single network that does best on validation subjects, trained as "
        "long as the MSP.",
    ),
    Method(
        MORE_WEIGHTS,
        "control",
        "The best single network's kind, as wide as gives it the MSP's number of weights.",
    ),
    Method(
        MEAN_OF_SINGLES,
        "control",
        "Plain mean of as many best single networks as the MSP has terms, each trained as long as "
        "the MSP from other random weights.",
    ),
)


def single_networks() -> dict[str, str]:
    """Give the networks that an MSP's first stage is chosen from: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "single"}


def multi_task_networks() -> dict[str, str]:
    """Give the networks that predict all platforms on the way to one: kind by name."""
    return {title(kind): kind for kind in kinds() if network_class(kind).role == "multi-task"}


# --- From the packaged base ------------------------------------------------------------------


def from_base(name: str) -> str:
    """Name the row of a network that starts from the base."""
    return f"{name}, from base"


def networks_from_base() -> dict[str, str]:
    """Give the networks that start from the base: kind by name, as many kinds as it holds.

    None where there is no base.
    """
    path = packaged.base_model()
    held = () if path is None else _held(_base(path))
    singles = [kind for kind in kinds() if kind in held and kind != MULTI_STAGE]
    ordered = [*singles, *(kind for kind in held if kind == MULTI_STAGE)]
    return {from_base(title(kind)): kind for kind in ordered}


def rows_from_base() -> dict[str, str]:
    """Give every row that begins as the base, tuned or as it is: kind by name."""
    tuned = networks_from_base()
    untuned = {STATISTICS_ONLY: MULTI_STAGE} if MULTI_STAGE in tuned.values() else {}
    return untuned | tuned


def begun_from_base(kind: str, scales: Mapping[str, int]) -> tuple[str, ...]:
    """Give the targets that a network of the base can begin as.

    Parameters
    ----------
    kind
        One that the base holds.
    scales
        Lattice scale of each target.
    """
    path = packaged.base_model()
    assert path is not None
    model = _base(path)
    fit = {
        scale
        for platform, scale in model.card.scales.items()
        if kind in (MULTI_STAGE, single_of(model, platform).kind)
    }
    return tuple(target for target, scale in scales.items() if scale in fit)


_base = lru_cache(maxsize=2)(load_model)


def _held(model: Model) -> set[str]:
    return {model.kind, *(single_of(model, target).kind for target in model.targets)}


# --- All -------------------------------------------------------------------------------------


def all_methods() -> dict[str, Method]:
    """Give all methods that can be had, by name, in the table's order."""
    networks = [kind for kind in kinds() if kind != MULTI_STAGE]
    methods = (
        *(_of_baseline(baseline_class(name)) for name in baseline_names()),
        *(Method(title(kind), "network", network_class(kind).summary) for kind in networks),
        *_CONTROLS,
        Method(MSP, "network", network_class(MULTI_STAGE).summary),
        Method(
            SHARED_MSP,
            "network",
            f"The {MSP}s of all targets on one set of single networks, trained together from the "
            "first step: what this package trains by default.",
        ),
        *(_of_base(name, kind) for name, kind in rows_from_base().items()),
    )
    return {method.name: method for method in methods}


def _of_baseline(baseline: type[Baseline]) -> Method:
    least = baseline.least_heads
    needs = f"{baseline.needs}, {least} or more" if least > 1 else baseline.needs
    return Method(baseline.name, "baseline", baseline.summary, needs, baseline.gives)


def _of_base(name: str, kind: str) -> Method:
    if name == STATISTICS_ONLY:
        explanation = (
            "The packaged base without a step of training; each platform's mean and spread are the "
            "training subjects', who need not have travelled for that."
        )
        return Method(name, "network", explanation, COHORTS)
    explanation = (
        f"{title(kind)} as wide as the packaged base, whose weights it begins with; its statistics "
        "are the training subjects'"
    )
    return Method(name, "network", explanation)


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Give the methods of these names, in the table's order; "all" gives all."""
    wanted = {name.casefold() for name in names}
    known = {name.casefold(): name for name in all_methods()}
    unheld = {STATISTICS_ONLY, *(from_base(title(kind)).casefold() for kind in kinds())}
    for name in names:
        if name.casefold() in unheld - known.keys():
            raise _not_held(name)
        if name.casefold() not in {*known, "all"}:
            remedy = Choose("methods", ("all", *known.values()))
            raise UserError("there is no such method", name, "methods", remedy)
    return tuple(name for key, name in known.items() if "all" in wanted or key in wanted)


def _not_held(name: str) -> UserError:
    """Give what to raise for a row that would start from the base."""
    held = tuple(rows_from_base())
    own = Give("models", "one that was trained from a model of your own")
    if not held:
        remedy = either(Change("methods", "other"), own)
        return UserError("this installation has no base model", name, "methods", remedy)
    return UserError("the base holds no such network", name, "methods", Choose("methods", held))


# --- Made elsewhere --------------------------------------------------------------------------


@dataclass(frozen=True)
class FinishedPredictions:
    """Predictions that lie in a folder: those of this package, or any method's.

    Attributes
    ----------
    folder
        With a folder for each subject, `sub-<label>/…`.
    images
        By subject and target: SH images, one a shell, else a DWI.
    maps
        By subject and target, of whom there is no image: files by the keys of `MAPS`.
    provenance
        How they came to be, where their sidecars say so.
    """

    name: str
    folder: Path
    images: Mapping[tuple[str, str], tuple[Path, ...]]
    maps: Mapping[tuple[str, str], Mapping[str, Path]]
    provenance: Mapping[tuple[str, str], Provenance]

    @property
    def targets(self) -> list[str]:
        """Platforms that are predicted."""
        return sorted({target for _, target in (*self.images, *self.maps)})

    @property
    def subjects(self) -> list[str]:
        """Who is predicted."""
        return sorted({subject for subject, _ in (*self.images, *self.maps)})

    @property
    def state(self) -> str:
        """Digest of which files they are, and when these were written."""
        state = hashlib.sha256()
        alone = (path for paths in self.maps.values() for path in paths.values())
        for path in (*(path for paths in self.images.values() for path in paths), *alone):
            about = path.stat()
            state.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
        return state.hexdigest()[:16]

    def overlapping(self, subjects: Collection[str]) -> bool:
        """Return whether several models predicted some of these, and others of these taught them.

        As when each subject is test once, and the others teach.
        """
        models = {made.model_sha256 for made in self.provenance.values()}
        taught = self.taught_by(subjects)
        return len(models) > 1 and any(names - {who} for who, names in taught.items())

    def doubt(self, subjects: Collection[str]) -> str | None:
        """Say whose predictions come of a model that learned from somebody of their name."""
        taught = self.taught_by(subjects)
        own = [subject for subject, names in taught.items() if subject in names]
        if not own:
            return None
        words = (
            f"{self.name}: the model learned from people named {listed(own)}, as are some that are "
            "measured; if they are the same people, its errors are too low"
        )
        warnings.warn(words, MayHaveLearned, stacklevel=4)
        return words

    def taught_by(self, subjects: Collection[str]) -> dict[str, set[str]]:
        """Give those of some subjects whose names a prediction's model learned from, by subject."""
        taught: dict[str, set[str]] = {}
        for (subject, _), made in self.provenance.items():
            if subject in subjects:
                taught.setdefault(subject, set()).update({*made.training_subjects} & {*subjects})
        return {subject: names for subject, names in taught.items() if names}


def find_predictions(
    name: str,
    folder: str | Path,
    dataset: Path,
    targets: Sequence[str],
    subjects: Collection[str],
    *,
    alone: bool = True,
) -> FinishedPredictions:
    """Find finished predictions, each by its sidecar or its name.

    What it predicts is said by the sidecar that `harmonize` writes; else by the platform in the
    file's name (`ses-`, `acq-`), or by a target in its `desc-`; where there is one target only, it
    is that.

    Parameters
    ----------
    folder
        With `[sub-<label>/…/]sub-<label>…_dwi` or SH images, `…_param-coefficients_dwimap`; of
        methods that give no image, maps such as `…_model-tensor_param-fa_dwimap`.
    dataset
        Whose subjects are predicted; where `folder` has one of its name, they lie in that.
    alone
        Whether there is no other dataset, so that they may lie in `folder` itself.

    Raises
    ------
    UserError
        When there is no such folder, no prediction in it, or several of one subject.
    """
    inside = Path(folder) / dataset.name
    folder = inside if inside.is_dir() or not alone else Path(folder)
    if not folder.is_dir():
        remedy = Advice("check the path")
        if not alone:
            remedy = Advice("put the predictions of each dataset into a folder of its name")
        raise UserError("there is no such folder", folder, "predictions", remedy)
    if folder.resolve() == dataset.resolve():
        problem = "is the dataset itself, whose scans would be compared with themselves"
        raise UserError(problem, folder, "predictions", Advice("give a folder of predictions"))
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    provenance: dict[tuple[str, str], Provenance] = {}
    for subject in sorted(subjects):
        for path in _images_of(folder, subject):
            made = Provenance.from_sidecar(read_sidecar(path))
            target = _predicted(path, made, targets)
            if target is None:
                continue
            stem = without_shell(bare_stem(path).removesuffix(COEFFICIENTS))
            found.setdefault((subject, target), {}).setdefault(stem, []).append(path)
            if made is not None:
                provenance[subject, target] = made
    maps: dict[tuple[str, str], dict[str, Path]] = {}
    for subject, (key, path) in ((s, each) for s in sorted(subjects) for each in _maps(folder, s)):
        target = _predicted(path, Provenance.from_sidecar(read_sidecar(path)), targets)
        if target is None or (subject, target) in found:
            continue
        if key in maps.setdefault((subject, target), {}):
            problem = f"has several {key} maps of {target} for {subject}"
            raise UserError(problem, folder, "predictions", Advice("give one folder a method"))
        maps[subject, target][key] = path
    if not found and not maps:
        raise UserError(
            f"has no prediction of {', '.join(targets)} for any subject",
            folder,
            "predictions",
            Advice("give a folder of sub-<label>/…/sub-<label>…_dwi.nii.gz"),
        )
    images = {}
    for (subject, target), by_stem in found.items():
        if len(by_stem) > 1:
            problem = f"has several predictions of {target} for {subject} ({', '.join(by_stem)})"
            raise UserError(problem, folder, "predictions", Advice("give one folder a method"))
        (paths,) = by_stem.values()
        of_sh = [path for path in paths if not is_dwi(path)]  # as predicted, not fitted anew
        images[subject, target] = tuple(of_sh or paths)
    return FinishedPredictions(name, folder, images, maps, provenance)


def predicted_from(folders: Iterable[str | Path], dataset: TravellingHeads) -> str:
    """Name the platform that finished predictions say they were made from; empty for none or two.

    Parameters
    ----------
    folders
        As for `find_predictions`, of which the first prediction is asked.
    """
    said = set()
    for folder in map(Path, folders):
        inside = folder / dataset.root.name
        place = inside if inside.is_dir() else folder
        made = (
            Provenance.from_sidecar(read_sidecar(path))
            for subject in dataset.subjects
            for path in _images_of(place, subject)
        )
        first = next((each for each in made if each is not None), None)
        said |= {first.input} if first is not None and first.input in dataset.platforms else set()
    return said.pop() if len(said) == 1 else ""


COEFFICIENTS = "_model-sh_param-coefficients_dwimap"
"""How names of SH images end."""


def _images_of(folder: Path, subject: str) -> Iterator[Path]:
    """List what may be predictions of a subject: DWIs and SH images."""
    for path in _files_of(folder, f"{subject}_*"):
        if image_suffix(path) and (is_dwi(path) or nifti_stem(path).endswith(COEFFICIENTS)):
            yield path


def _files_of(folder: Path, pattern: str) -> list[Path]:
    """List files of a subject: in its folder, as of cohorts, and beside those of others."""
    subject = pattern.partition("_")[0]
    return sorted({*folder.glob(pattern), *(folder / subject).rglob(pattern)})


MAPS_ALONE = ("fa", "md", "colour_fa")
"""Maps that pages of proof measure where a method gives no image."""


def _maps(folder: Path, subject: str) -> Iterator[tuple[str, Path]]:
    """List a subject's maps that are measured without an image, by the keys of `MAPS`."""
    ends = {f"_param-{MAPS[key].parameter}_dwimap": key for key in MAPS_ALONE}
    for path in _files_of(folder, f"{subject}_*_dwimap*"):
        for end, key in ends.items():
            if image_suffix(path) and nifti_stem(path).endswith(end):
                yield key, path


def _predicted(path: Path, made: Provenance | None, targets: Sequence[str]) -> str | None:
    """Say what a file predicts; None for what is no prediction of a target's last stage."""
    if made is not None:
        return made.target if made.stage == "last" and made.target in targets else None
    named = entities(path)
    platform = platform_name(named.get("ses", ""), named.get("acq", ""))
    if platform in targets:
        return platform
    described = named.get("desc", "").casefold()
    fit = [each for each in targets if plain_label(each).casefold() in described]
    if len(fit) == 1:
        return fit[0]
    return targets[0] if len(targets) == 1 and not fit else None
