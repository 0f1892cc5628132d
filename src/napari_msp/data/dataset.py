"""Travelling heads as a BIDS dataset: subjects, platforms and where their scans lie."""

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path

from napari_msp.bids import (
    IMAGE_SUFFIXES,
    dataset_root,
    entities,
    image_suffix,
    is_dwi,
    marked_input,
    misplaced,
    nifti_stem,
    subject_and_platform,
)
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.companions import PassedOver, is_scan
from napari_msp.data.contradictions import are_parts
from napari_msp.data.gradient_files import b0_only
from napari_msp.errors import Advice, Choose, Remedy, RunJob, UserError, choice_in, either
from napari_msp.files import entries, sha256
from napari_msp.formatting import counted
from napari_msp.identity import Person, files_read, person_of, same_scan
from napari_msp.provenance import provenance_of

SCAN_NAMES = "sub-*/[ses-*/]dwi/sub-*[_ses-*][_acq-*]_dwi.nii.gz"
"""How scans are named, for messages."""

UNNAMED = "unnamed"
"""Platform of scans whose names say none, where no scan of the dataset names one."""

NO_PLATFORM = "says neither session (ses-) nor protocol (acq-), so no platform"

NAME_PLATFORMS = RunJob("import", "name the platform")
"""What helps where names say none."""

A_PREDICTION = "is a prediction"
"""Why predictions are passed over where scans are looked for."""

MISPLACED = "lies in the folder of another subject or session than its name says"

RENAME = Advice("find out whose it is, and rename it or move it")
"""What helps where folder and name say different things."""

UNDECIDED = "is one of several, of which none is chosen"

VERSIONS = {"desc", "space", "res"}
"""Entities that tell versions of one scan apart."""


@dataclass(frozen=True)
class TravellingHeads:
    """The scans of a travelling-heads study.

    Attributes
    ----------
    scans
        Image of each (subject, platform); a platform's name is `<ses>_<acq>`, or the one of the
        two that there is. Where no scan has either, all are of one platform, `UNNAMED`.
    passed_over
        Images that look like scans and are none of these, and why, in words.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: the usual one.
    runs
        Images by their run, of scans that were repeated and of which the first run was taken
        unasked; its user is to be shown the choice.
    undecided
        Why there is no scan of a subject on a platform, where several may be it and whoever opened
        the dataset went on without.
    """

    root: Path
    scans: dict[tuple[str, str], Path]
    passed_over: Mapping[Path, str] = field(default_factory=dict)
    b0_threshold: float | None = None
    runs: Mapping[tuple[str, str], Mapping[str, Path]] = field(default_factory=dict)
    undecided: Mapping[tuple[str, str], UserError] = field(default_factory=dict)

    def __repr__(self) -> str:
        subjects, platforms = len(self.subjects), ", ".join(self.platforms)
        return f"<TravellingHeads {self.root}: {counted(subjects, 'subject')} on {platforms}>"

    @property
    def subjects(self) -> list[str]:
        """Subjects in order, such as "sub-01"."""
        return sorted({subject for subject, _ in self.scans})

    @property
    def platforms(self) -> list[str]:
        """Platforms in order, such as "ge_st"."""
        return sorted({platform for _, platform in self.scans})

    def tell(self) -> None:
        """Warn of what was passed over, and of platforms that have no name."""
        for note in self.notes:
            warnings.warn(note, PassedOver, stacklevel=3)

    @property
    def notes(self) -> list[str]:
        """What was passed over, in words, each reason once, and that platforms have no name."""
        reasons: dict[str, list[Path]] = {}
        for path, why in self.passed_over.items():
            reasons.setdefault(why, []).append(path)
        more = {why: f" and {len(paths) - 1} more" for why, paths in reasons.items() if paths[1:]}
        unnamed = f"{self.root}: all its scans are taken as one platform, {UNNAMED}"
        return [
            *([f"{unnamed}{why_alone(self)}"] if self.platforms == [UNNAMED] else []),
            *(
                f"{paths[0]}{more.get(why, '')}: passed over, as it {why}"
                for why, paths in reasons.items()
            ),
        ]

    def has(self, subject: str, platform: str) -> bool:
        """Return whether a subject was scanned on a platform."""
        return (subject, platform) in self.scans

    def person(self, subject: str) -> Person:
        """Say who a subject is, by all of their scans here."""
        scans = [path for (name, _), path in sorted(self.scans.items()) if name == subject]
        if not scans:
            remedy = Advice(f"choose from {', '.join(self.subjects)}")
            raise UserError(f"has no scan of {subject}", self.root, remedy=remedy)
        return person_of(scans[0], scans[1:])

    def copied(self, subjects: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
        """Yield a subject and two platforms whose scans are one, of some subjects or all."""
        for subject in self.subjects if subjects is None else subjects:
            own = [each for each in self.platforms if self.has(subject, each)]
            for one, other in combinations(own, 2):
                if same_scan(self.scans[subject, one], self.scans[subject, other]):
                    yield subject, other, one

    def acquisition(self, subject: str, platform: str) -> Acquisition:
        """Open one scan."""
        if not self.has(subject, platform):
            remedy = RunJob("check", "see what there is")
            raise UserError(f"{subject} has no scan on {platform}", self.root, remedy=remedy)
        path = self.scans[subject, platform]
        return load_acquisition(path, b0_threshold=self.b0_threshold)

    def files_read(
        self,
        subjects: Iterable[str],
        platforms: Sequence[str],
        digest: Callable[[Path], str] = sha256,
    ) -> dict[str, str]:
        """Digest what scans are read from: image, gradient table and mask of each.

        Parameters
        ----------
        digest
            Of a file, see `identity.files_read`.

        Returns
        -------
        By scan in words, such as "sub-01 on ge_st"; those that there are.
        """
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is doubtful is told by those who use them
            for subject in subjects:
                for platform in (each for each in platforms if self.has(subject, each)):
                    parts = files_read(self.acquisition(subject, platform), digest)
                    whole = hashlib.sha256(repr(sorted(parts.items())).encode())
                    found[f"{subject} on {platform}"] = whole.hexdigest()
        return found

    def noise_free(
        self, subject: str, platform: str, scan: Acquisition | None = None
    ) -> Acquisition | None:
        """Open the twin without noise that a simulated scan has; None where there is none.

        It is seen through the scan's own mask.

        Parameters
        ----------
        scan
            That scan, where it is open already.
        """
        if scan is None:
            scan = self.acquisition(subject, platform)
        path = self.scans[subject, platform]
        folder = self.root / "derivatives" / "noisefree" / path.parent.relative_to(self.root)
        twin = folder / path.name.replace("_dwi.", "_desc-noisefree_dwi.")
        if not twin.exists():
            return None
        return load_acquisition(
            twin, mask=scan.mask_path or scan.mask, b0_threshold=self.b0_threshold
        )


def open_dataset(
    root: str | Path,
    subject: str = "sub-*",
    run: int | str | None = None,
    *,
    b0_threshold: float | None = None,
    first_run: bool = False,
    only: Collection[str] = (),
    undecided: list[UserError] | None = None,
) -> TravellingHeads:
    """List the scans of a BIDS folder, raw or a pipeline's derivatives.

    They are named `sub-*/[ses-*/]dwi/sub-*[_ses-*][_acq-*]…_dwi`, see `choose_scan`.

    Parameters
    ----------
    subject
        Whose scans; all subjects' unless named.
    run
        Which one, where a scan was repeated.
    b0_threshold
        As for `load_acquisition`, for every scan.
    first_run
        Take the first run of a scan that was repeated, and list all of them in `runs`: for those
        who let a person choose. Else it is an error.
    only
        Who alone is wanted: anybody else's folder that may not be listed is passed over. Empty:
        everybody is, and such a folder is an error.
    undecided
        Takes what is wrong with a subject on a platform, who is then left out, for those who go
        through everything. None: that is an error.

    Raises
    ------
    UserError
        When the folder contains no such scan, or several that may be a subject's on a platform.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError("there is no such folder", root, remedy=Advice("give a BIDS dataset"))
    candidates: dict[tuple[str, str], list[Path]] = {}
    closed: dict[Path, UserError] = {}
    for path in scans_in(root, subject, closed=closed if only else None):
        identity = subject_and_platform(path) or (f"sub-{entities(path)['sub']}", UNNAMED)
        candidates.setdefault(identity, []).append(path)
    for folder, error in closed.items():
        if folder.name in only:
            raise error
    passed_over = {folder: error.problem for folder, error in closed.items()}
    if any(platform != UNNAMED for _, platform in candidates):
        for identity in [each for each in candidates if each[1] == UNNAMED]:
            passed_over |= dict.fromkeys(candidates.pop(identity), NO_PLATFORM)
    scans: dict[tuple[str, str], Path] = {}
    runs: dict[tuple[str, str], dict[str, Path]] = {}
    open_questions: dict[tuple[str, str], UserError] = {}
    for identity, paths in sorted(candidates.items()):
        what = " on ".join(identity)
        try:
            scan, others = choose_scan(paths, what, run)
        except UserError as error:
            choice = choice_in(error.remedy)
            if not first_run or error.field != "run" or choice is None:
                if undecided is None:
                    raise
                undecided.append(error)
                open_questions[identity] = error
                passed_over |= dict.fromkeys(paths, UNDECIDED)
                continue
            found = {each: choose_scan(paths, what, each)[0] for each in choice.choices}
            runs[identity] = {each: path for each, path in found.items() if path is not None}
            scan, others = next(iter(runs[identity].values())), {}
        passed_over |= others
        if scan is not None:
            scans[identity] = scan
    if not scans:
        raise undecided[0] if undecided else _nothing_in(root, passed_over)
    return TravellingHeads(root, scans, passed_over, b0_threshold, runs, open_questions)


def as_dataset(
    dataset: str | Path | TravellingHeads,
    run: int | str | None = None,
    b0_threshold: float | None = None,
    only: Collection[str] = (),
) -> TravellingHeads:
    """Take travelling heads, or open their BIDS folder.

    Parameters
    ----------
    run
        Which scan, where one was repeated: of a folder.
    b0_threshold
        As for `load_acquisition`; None: what was said when the dataset was opened.
    only
        Who alone is wanted, see `open_dataset`.

    Raises
    ------
    UserError
        As `open_dataset`, or when a run is asked for of scans that are chosen already.
    """
    if not isinstance(dataset, TravellingHeads):
        return open_dataset(dataset, run=run, b0_threshold=b0_threshold, only=only)
    if run is not None:
        remedy = Advice("choose the run where the dataset is opened")
        raise UserError("its scans are chosen already", dataset.root, "run", remedy)
    return dataset if b0_threshold is None else replace(dataset, b0_threshold=b0_threshold)


def scans_in(
    root: Path,
    subject: str = "sub-*",
    session: str = "ses-*",
    closed: dict[Path, UserError] | None = None,
) -> list[Path]:
    """List what is named as a scan in a BIDS folder, in order of subject and name.

    Parameters
    ----------
    closed
        Takes subjects' folders that may not be listed, and why; None: that is an error.

    Raises
    ------
    UserError
        When a folder may not be listed.
    """
    found: list[Path] = []
    for person in _named(root, subject):
        try:
            places = [person / "dwi"] if session == "ses-*" else []
            places += [each / "dwi" for each in _named(person, session)]
            found += [path for place in places for path in entries(place) if is_dwi(path)]
        except UserError as error:
            if closed is None:
                raise
            closed[person] = error
    return sorted(found)


def _named(folder: Path, pattern: str) -> list[Path]:
    return [each for each in entries(folder) if fnmatchcase(each.name, pattern)]


def choose_scan(
    paths: Sequence[Path], what: str, run: int | str | None = None
) -> tuple[Path | None, dict[Path, str]]:
    """Choose the scan among images of one subject and platform.

    Predictions of this package, and images of b=0 alone (such as `dir-PA`), are no scans; nobody
    knows whose an image is of which folder and name say different things. Runs are
    never merged. Of several versions of a scan the one without `desc`, `space` and `res` is taken,
    else the only `desc-preproc`.

    Parameters
    ----------
    what
        Whose they are, for messages.
    run
        Which one, where the scan was repeated.

    Returns
    -------
    scan
        None where none is left.
    passed_over
        The others, and why they were not taken.
    """
    left, passed_over = list(paths), dict[Path, str]()

    def keep(kept: Sequence[Path], why: str) -> None:
        nonlocal left
        passed_over.update({path: why for path in left if path not in kept})
        left = list(kept)

    keep([path for path in left if not misplaced(path)], MISPLACED)
    keep([path for path in left if not is_prediction(path)], A_PREDICTION)
    magnitude = [path for path in left if entities(path).get("part", "mag") == "mag"]
    keep(magnitude, "shows phase or a part of a complex signal, no magnitude")
    usual = {nifti_stem(path): path for path in sorted(left, key=_format, reverse=True)}
    keep(sorted(usual.values()), "is the same scan in another format")
    keep([path for path in left if not b0_only(path)], "has b=0 volumes alone, and is no scan")
    if len(left) > 1:
        with_table = [path for path in left if is_scan(path)]
        keep(with_table or left, "has no gradient table, as its neighbour has")
    runs = _runs(left)
    if run is not None:
        wanted = str(run).lstrip("0")
        keep([path for path in left if runs.get(path, wanted) == wanted], f"is not run {wanted}")
    elif len(set(runs.values())) > 1:
        choices = tuple(sorted(set(runs.values()), key=lambda each: (len(each), each)))
        choose, named = Choose("run", choices), ", ".join(choices)
        if are_parts(left):
            problem = f"{what} has runs {named} whose gradient tables differ"
            join = Advice(
                "put parts of one acquisition together first (dwicat of MRtrix3, or eddy)"
            )
            raise UserError(problem, left[0].parent, "run", either(join, choose))
        problem = f"{what} was scanned {len(choices)} times (runs {named})"
        raise UserError(problem, left[0].parent, "run", choose)
    if len(left) > 1:
        plain = [path for path in left if not VERSIONS & entities(path).keys()]
        preprocessed = [path for path in left if entities(path).get("desc") == "preproc"]
        chosen = next((each for each in (plain, preprocessed) if len(each) == 1), left)
        keep(chosen, f"is another version of {chosen[0].name}")
    if len(left) > 1:
        names = ", ".join(path.name for path in left)
        remedy = either(
            Advice("give what a pipeline (QSIPrep, eddy) made of them"),
            RunJob("import", "take the one that is meant"),
        )
        raise UserError(f"{what} has several scans ({names})", left[0].parent, remedy=remedy)
    return (left[0] if left else None), passed_over


def _runs(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the run of each image that has one, by name or as the first of those that do."""
    named = {path: entities(path) for path in paths}
    runs = {path: named[path].pop("run").lstrip("0") for path in paths if "run" in named[path]}
    again = [named[path] for path in runs]
    if "1" not in runs.values():  # who scans again may name the second run only
        runs |= {path: "1" for path in paths if path not in runs and named[path] in again}
    return runs


def is_prediction(path: Path) -> bool:
    """Return whether an image was written by this package as a prediction."""
    return "desc" in entities(path) and provenance_of(path) is not None


def _format(path: Path) -> tuple[int, str]:
    return IMAGE_SUFFIXES.index(image_suffix(path).lower()), path.name


def _nothing_in(root: Path, passed_over: Mapping[Path, str]) -> UserError:
    """Say what is missing from a folder without scans."""
    derived = [folder for folder in sorted(root.glob("derivatives/*/")) if scans_in(folder)]
    remedy: Remedy
    scans = {path: why for path, why in passed_over.items() if why != A_PREDICTION}
    whole = dataset_root(root / "any")
    named = (path for where in ("", "sub-*/**/") for path in root.glob(f"{where}*_desc-*_dwi.nii*"))
    predictions = not scans and any(map(is_prediction, named))
    if scans:
        first, why = next(iter(scans.items()))
        problem = f"has no scan: {first.name} {why}"
        remedy = RENAME if why == MISPLACED else Advice("give another")
    elif predictions:
        problem = "holds predictions, and no scan"
        remedy = Advice("give the dataset of the scans that they were made from")
    else:
        problem = f"has no scan named {SCAN_NAMES}"
        remedy = RunJob("import", "bring the data into that form")
    if whole is not None and not predictions:
        remedy = Advice(f"give {whole}, the dataset that it lies in")
    if derived:
        remedy = either(Advice(f"give {derived[0]}, which has some"), remedy)
    return UserError(problem, root, "dataset", remedy)


def why_alone(dataset: TravellingHeads) -> str:
    """Say why a dataset has one platform only, where names are the reason; else nothing."""
    return f", as each {NO_PLATFORM}" if dataset.platforms == [UNNAMED] else ""


def further_platforms(dataset: TravellingHeads, otherwise: Remedy) -> Remedy:
    """Return what helps where another platform is needed: names, where no scan has one."""
    return NAME_PLATFORMS if dataset.platforms == [UNNAMED] else otherwise


def input_platform(
    dataset: TravellingHeads, given: str | None = None, targets: Sequence[str] = ()
) -> str:
    """Say which platform a dataset's scans are predicted from; it is never guessed by name.

    Parameters
    ----------
    given
        What the user asked for; empty or None: what the dataset marks, else the one platform that
        the targets leave over, or that there is.
    targets
        Platforms to predict, as far as they were named.
    """
    platforms = dataset.platforms
    if given:
        if given not in platforms:
            raise UserError(
                f"no scan is on {given}", dataset.root, "input", Choose("input", tuple(platforms))
            )
        return given
    marked = marked_input(dataset.root)
    if marked in platforms and marked not in targets:
        return marked
    left = [each for each in platforms if each not in targets]
    if len(left) == 1:
        return left[0]
    said = f"{marked} is the platform to predict from and cannot be a target, too"
    raise UserError(
        said if marked in targets else "nothing says which platform to predict from",
        dataset.root,
        "input",
        Choose("input", tuple(left)),
    )
