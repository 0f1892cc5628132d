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
    NOT_MAGNITUDE,
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
"""Pattern of scan names, for messages."""

UNNAMED = "unnamed"
"""Platform of all scans of a dataset in which no name states one."""

NO_PLATFORM = "names neither session (ses-) nor protocol (acq-), so no platform"

NAME_PLATFORMS = RunJob("import", "name the platform")
"""Remedy for names without platform."""

A_PREDICTION = "is a prediction"
"""Reason for passing over predictions when scans are looked for."""

MISPLACED = "is in the folder of another subject or session than its name states"

RENAME = Advice("find out whose scan it is, then rename or move it")
"""Remedy for an image whose folder and name disagree."""

UNDECIDED = "is one of several possible scans, none of which was chosen"

VERSIONS = {"desc", "space", "res"}
"""Entities that distinguish versions of one scan."""


@dataclass(frozen=True)
class TravellingHeads:
    """The scans of a travelling-heads study.

    Attributes
    ----------
    scans
        Image of each (subject, platform); a platform's name is `<ses>_<acq>`, or whichever of the
        two there is. If no scan has either, all are of one platform, `UNNAMED`.
    passed_over
        Images that look like scans but are not among them, and why, in words.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: the usual one.
    runs
        Images by run, for repeated scans whose first run was taken unasked: the user is to be
        shown the choice.
    undecided
        Errors of (subject, platform) pairs left out because several images may be the scan.
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
        """Warn of images that were passed over, and of platforms without a name."""
        for note in self.notes:
            warnings.warn(note, PassedOver, stacklevel=3)

    @property
    def notes(self) -> list[str]:
        """Texts on images passed over, one per reason, and on platforms without a name."""
        reasons: dict[str, list[Path]] = {}
        for path, why in self.passed_over.items():
            reasons.setdefault(why, []).append(path)
        notes = []
        if self.platforms == [UNNAMED]:
            one = f"all its scans are treated as one platform, {UNNAMED}"
            notes.append(f"{self.root}: {one}{why_alone(self)}")
        for why, paths in reasons.items():
            more = f" and {len(paths) - 1} more" if paths[1:] else ""
            notes.append(f"{paths[0]}{more}: left out, as it {why}")
        return notes

    def has(self, subject: str, platform: str) -> bool:
        """Return whether a subject was scanned on a platform."""
        return (subject, platform) in self.scans

    def person(self, subject: str) -> Person:
        """Return a subject's identity, from all of their scans here."""
        scans = [path for (name, _), path in sorted(self.scans.items()) if name == subject]
        if not scans:
            remedy = Advice(f"choose from {', '.join(self.subjects)}")
            raise UserError(f"has no scan of {subject}", self.root, remedy=remedy)
        return person_of(scans[0], scans[1:])

    def copied(
        self, subjects: Iterable[str], platforms: Iterable[str]
    ) -> Iterator[tuple[str, str, str]]:
        """Yield a subject and two platforms with the same scan, among these."""
        platforms = list(platforms)
        for subject in subjects:
            own = [each for each in platforms if self.has(subject, each)]
            for one, other in combinations(own, 2):
                if same_scan(self.scans[subject, one], self.scans[subject, other]):
                    yield subject, other, one

    def acquisition(self, subject: str, platform: str) -> Acquisition:
        """Open one scan."""
        if not self.has(subject, platform):
            remedy = RunJob("check", "see what it contains")
            raise UserError(f"{subject} has no scan on {platform}", self.root, remedy=remedy)
        path = self.scans[subject, platform]
        return load_acquisition(path, b0_threshold=self.b0_threshold)

    def files_read(
        self,
        subjects: Iterable[str],
        platforms: Sequence[str],
        digest: Callable[[Path], str] = sha256,
    ) -> dict[str, str]:
        """Digest the files that scans are read from: image, gradient table and mask of each.

        Parameters
        ----------
        digest
            Function that digests a file, see `identity.files_read`.

        Returns
        -------
        Digests by scan, such as "sub-01 on ge_st", of the scans that exist.
        """
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # doubts are reported where scans are used
            for subject in subjects:
                for platform in (each for each in platforms if self.has(subject, each)):
                    parts = files_read(self.acquisition(subject, platform), digest)
                    whole = hashlib.sha256(repr(sorted(parts.items())).encode())
                    found[f"{subject} on {platform}"] = whole.hexdigest()
        return found

    def noise_free(
        self, subject: str, platform: str, scan: Acquisition | None = None
    ) -> Acquisition | None:
        """Open a simulated scan's noise-free twin, with the scan's mask; None without one.

        Parameters
        ----------
        scan
            The scan, if it is already open.
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

    Scans are named `sub-*/[ses-*/]dwi/sub-*[_ses-*][_acq-*]…_dwi`, see `choose_scan`.

    Parameters
    ----------
    subject
        Pattern of the subjects to list.
    run
        Run to take of a repeated scan.
    b0_threshold
        As for `load_acquisition`, for every scan.
    first_run
        Whether to take the first run of a repeated scan and list all in `runs`, for callers that
        let the user choose. If not, a repeated scan is an error.
    only
        The only subjects that are wanted: other folders that may not be listed are passed over.
        Empty: all are wanted, and such a folder is an error.
    undecided
        List that collects errors of a subject on a platform, which is then left out, for callers
        that go through everything. None: the error is raised.

    Raises
    ------
    UserError
        When the folder contains no scan, or several that may be a subject's on a platform.
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
    """Return a dataset as it is, or open its BIDS folder.

    Parameters
    ----------
    run
        Run to take of a repeated scan; only for a folder.
    b0_threshold
        As for `load_acquisition`; None: the value with which the dataset was opened.
    only
        The only subjects that are wanted, see `open_dataset`.

    Raises
    ------
    UserError
        As `open_dataset`, or when a run is asked for although the scans are already chosen.
    """
    if not isinstance(dataset, TravellingHeads):
        return open_dataset(dataset, run=run, b0_threshold=b0_threshold, only=only)
    if run is not None:
        remedy = Advice("choose the run when opening the dataset")
        raise UserError("its scans were already chosen", dataset.root, "run", remedy)
    return dataset if b0_threshold is None else replace(dataset, b0_threshold=b0_threshold)


def scans_in(
    root: Path,
    subject: str = "sub-*",
    session: str = "ses-*",
    closed: dict[Path, UserError] | None = None,
) -> list[Path]:
    """List the files named as scans in a BIDS folder, by subject and name.

    Parameters
    ----------
    closed
        Collects the errors of subjects' folders that may not be listed; None: they are raised.

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

    Predictions of this package and images with b=0 only (such as `dir-PA`) are not scans, nor are
    images whose folder and name disagree: their subject is not known. Runs are never merged. Of
    several versions of a scan the one without `desc`, `space` and `res` is taken, else the only
    `desc-preproc`.

    Parameters
    ----------
    what
        Subject and platform, for messages.
    run
        Run to take of a repeated scan.

    Returns
    -------
    scan
        The chosen image; None if none is left.
    passed_over
        The other images, and why they were not taken.
    """
    left, passed_over = list(paths), dict[Path, str]()

    def keep(kept: Sequence[Path], why: str) -> None:
        nonlocal left
        passed_over.update({path: why for path in left if path not in kept})
        left = list(kept)

    keep([path for path in left if not misplaced(path)], MISPLACED)
    keep([path for path in left if not is_prediction(path)], A_PREDICTION)
    magnitude = [path for path in left if entities(path).get("part", "mag") == "mag"]
    keep(magnitude, NOT_MAGNITUDE)
    usual = {nifti_stem(path): path for path in sorted(left, key=_format, reverse=True)}
    keep(sorted(usual.values()), "is the same scan in another format")
    keep([path for path in left if not b0_only(path)], "has only b=0 volumes")
    if len(left) > 1:
        with_table = [path for path in left if is_scan(path)]
        keep(with_table or left, "has no gradient table, unlike an image next to it")
    runs = _runs(left)
    if run is not None:
        wanted = str(run).lstrip("0")
        keep([path for path in left if runs.get(path, wanted) == wanted], f"is not run {wanted}")
    elif len(set(runs.values())) > 1:
        choices = tuple(sorted(set(runs.values()), key=lambda each: (len(each), each)))
        choose, named = Choose("run", choices), ", ".join(choices)
        if are_parts(left):
            problem = f"{what} has runs {named} whose gradient tables differ"
            join = Advice("first join the parts of one acquisition (dwicat of MRtrix3, or eddy)")
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
            Advice("give the output of a pipeline (QSIPrep, eddy)"),
            RunJob("import", "import the right one"),
        )
        raise UserError(f"{what} has several scans ({names})", left[0].parent, remedy=remedy)
    return (left[0] if left else None), passed_over


def _runs(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the runs of repeated images: as named, or 1 for one without number beside others."""
    named = {path: entities(path) for path in paths}
    runs = {path: named[path].pop("run").lstrip("0") for path in paths if "run" in named[path]}
    again = [named[path] for path in runs]
    if "1" not in runs.values():  # sites that scan again may name only the second run
        runs |= {path: "1" for path in paths if path not in runs and named[path] in again}
    return runs


def is_prediction(path: Path) -> bool:
    """Return whether an image was written by this package as a prediction."""
    return "desc" in entities(path) and provenance_of(path) is not None


def _format(path: Path) -> tuple[int, str]:
    return IMAGE_SUFFIXES.index(image_suffix(path).lower()), path.name


def _nothing_in(root: Path, passed_over: Mapping[Path, str]) -> UserError:
    """Return the error of a folder without scans, saying what is missing."""
    derived = [folder for folder in sorted(root.glob("derivatives/*/")) if scans_in(folder)]
    remedy: Remedy
    scans = {path: why for path, why in passed_over.items() if why != A_PREDICTION}
    whole = dataset_root(root / "any")
    named = (path for where in ("", "sub-*/**/") for path in root.glob(f"{where}*_desc-*_dwi.nii*"))
    predictions = not scans and any(map(is_prediction, named))
    if scans:
        first, why = next(iter(scans.items()))
        problem = f"has no scan: {first.name} {why}"
        remedy = RENAME if why == MISPLACED else Advice("give another dataset")
    elif predictions:
        problem = "contains predictions but no scan"
        remedy = Advice("give the dataset of the scans they were made from")
    else:
        problem = f"has no scan named {SCAN_NAMES}"
        remedy = RunJob("import", "bring the data into that form")
    if whole is not None and not predictions:
        remedy = Advice(f"give {whole}, the dataset that contains it")
    if derived:
        remedy = either(Advice(f"give {derived[0]}, which has scans"), remedy)
    return UserError(problem, root, "dataset", remedy)


def why_alone(dataset: TravellingHeads) -> str:
    """Return why a dataset has only one platform, if names are the reason; else empty."""
    return f", as each {NO_PLATFORM}" if dataset.platforms == [UNNAMED] else ""


def further_platforms(dataset: TravellingHeads, otherwise: Remedy) -> Remedy:
    """Return the remedy if another platform is needed: naming them, if no scan does."""
    return NAME_PLATFORMS if dataset.platforms == [UNNAMED] else otherwise


def input_platform(
    dataset: TravellingHeads, given: str | None = None, targets: Sequence[str] = ()
) -> str:
    """Return the platform to predict from; it is never guessed from names.

    Parameters
    ----------
    given
        The platform that the user asked for; empty or None: the one that the dataset marks, else
        the only one that is not a target.
    targets
        Platforms to predict, as far as they were named.
    """
    platforms, marked = dataset.platforms, given or marked_input(dataset.root)
    if marked not in platforms:
        for (_, platform), error in dataset.undecided.items():
            if platform == marked:
                raise error
    if given and given not in platforms:
        choices = Choose("input", tuple(platforms))
        raise UserError(f"has no scan on {given}", dataset.root, "input", choices)
    if given:
        return given
    if marked in platforms and marked not in targets:
        return marked
    left = [each for each in platforms if each not in targets]
    if len(left) == 1:
        return left[0]
    problem = "it does not state which platform is the input"
    if marked in targets:
        problem = f"{marked} is the input platform and cannot also be a target"
    raise UserError(problem, dataset.root, "input", Choose("input", tuple(left)))
