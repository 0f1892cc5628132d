"""Predictions in a folder: their subjects, what is known of each, and what cannot be read.

Listing reads names, sidecars and the ends of images, no voxels: hundreds take a second.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from napari_msp.bids import (
    NIFTI_SUFFIXES,
    absolute,
    dataset_root,
    entities,
    is_dwi,
    nifti_stem,
    platform_of,
    sidecar_path,
    study_root,
)
from napari_msp.data.dataset import scans_in
from napari_msp.data.nifti import content_hash
from napari_msp.errors import Advice, RunJob, UserError
from napari_msp.files import stamp_of, walk
from napari_msp.formatting import counted
from napari_msp.identity import Person, dataset_key
from napari_msp.image_files import ImageFile
from napari_msp.inference.review_making import not_there
from napari_msp.inference.review_maps import MadeFrom, Without, root_of
from napari_msp.provenance import Provenance, source_path
from napari_msp.review.measures import (
    MEASURES,
    Kept,
    ReviewMeasure,
    nothing_of,
    numbers_in,
    outlying,
    outlying_text,
    read_kept,
    read_measures,
    risk_of,
    still_known,
    unusual_in,
)
from napari_msp.strict_json import read_json

FOLDER = "review"
"""Folder in which a folder of predictions keeps ratings, maps and measurements."""

MAKE_AGAIN = Advice("make the prediction again")


class NoPrediction(UserError):
    """A folder contains no prediction, neither damaged nor whole."""


class NoneReadable(UserError):
    """All predictions of a folder are damaged; the reason names one."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One prediction: a subject's scan as a target would have given it.

    Attributes
    ----------
    key
        File without its ending, relative to the opened folder, with slashes; ratings use it as the
        prediction's name.
    title, model, model_hash
        Title of the model's kind, such as "MSP", and name and SHA-256 of its file; empty if it was
        in memory.
    prediction
        The DWI, or the SH image if there is no DWI.
    prediction_hash
        Hash of the image's content, which changes if the prediction is made again.
    root
        Dataset of predictions that it belongs to, with its small maps.
    scan, truth
        Scan that it was predicted from, and the subject's scan on the target; None if not found.
    numbers
        Numbers by the keys of `MEASURES`.
    unusual
        The same, as robust standard deviations from the median of predictions of its kind.
    risk
        Number by which entries are sorted, see `risk_of`.
    warnings
        Warnings kept in its sidecar.
    without
        Reason why there is no scan, in words; empty if there is one.
    """

    key: str
    subject: str
    session: str
    platform: str
    target: str
    title: str
    model: str
    model_hash: str
    prediction: Path
    prediction_hash: str
    root: Path
    scan: Path | None
    truth: Path | None
    provenance: Provenance
    numbers: Mapping[str, float] = field(default_factory=dict)
    unusual: Mapping[str, float] = field(default_factory=dict)
    risk: float = 0.0
    warnings: tuple[str, ...] = ()
    without: str = ""

    def __repr__(self) -> str:
        return f"<Entry {self.name}, risk {self.risk:.1f}>"

    @property
    def name(self) -> str:
        """Name such as "sub-01 ses-ge MSP prisma_st"."""
        return " ".join(filter(None, (self.subject, self.session, self.provenance.name)))

    @property
    def stem(self) -> str:
        """Beginning of the names of its files, including its small maps."""
        return self.key.rpartition("/")[2]

    @property
    def made_from(self) -> MadeFrom:
        """Images that its small maps are made from; only a scan that this entry has."""
        if self.scan is None:
            return MadeFrom(self.prediction, Without(self.without), Without(""), self.root)
        return MadeFrom(self.prediction, self.scan, self.truth, self.root)

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Key shared by predictions that are compared with each other."""
        return self.platform, self.target, self.title, self.model_hash or self.model

    @cached_property
    def outlying(self) -> dict[str, float]:
        """Numbers that are unusual on their bad side, worst first."""
        return outlying(self.unusual)

    @property
    def why(self) -> str:
        """Unusual numbers in words; empty if there are none."""
        return outlying_text(self.numbers, self.unusual)

    @property
    def risk_text(self) -> str:
        """The risk as text; a dash if nothing is known about it."""
        return f"{self.risk:.1f}" if self.unusual or self.warnings else "–"


@dataclass(frozen=True, eq=False)
class Review:
    """The predictions in a folder.

    Attributes
    ----------
    entries
        Predictions, riskiest first.
    problems
        Errors of predictions that cannot be reviewed: damaged, half-written.
    foreign
        DWIs that are not predictions of this package.
    """

    folder: Path
    entries: tuple[Entry, ...]
    problems: tuple[UserError, ...] = ()
    foreign: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"<Review of {counted(len(self.entries), 'prediction')} in {self.folder}>"

    def __getitem__(self, key: str) -> Entry:
        """Return the entry with this key."""
        return self._by_key[key]

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    @cached_property
    def _by_key(self) -> dict[str, Entry]:
        return {entry.key: entry for entry in self.entries}

    @cached_property
    def measures(self) -> list[ReviewMeasure]:
        """Measures of which any entry has a number."""
        known = {key for entry in self.entries for key in entry.numbers}
        return [each for key, each in MEASURES.items() if key in known]

    @cached_property
    def kinds(self) -> dict[tuple[str, str, str, str], list[Entry]]:
        """Entries by kind; those of a kind are compared with each other."""
        return by_kind(self.entries)

    @cached_property
    def kind_names(self) -> dict[tuple[str, str, str, str], str]:
        """Name of each kind: model and target, with the model's file if these are ambiguous."""
        kinds = self.kinds
        short = {kind: f"{kind[2]} {kind[1]}".strip() for kind in kinds}
        names: dict[tuple[str, str, str, str], str] = {}
        for kind, entries in kinds.items():
            alike = list(short.values()).count(short[kind]) > 1
            more = f" ({entries[0].model or 'in memory'}, {kind[3][:6]}, from {kind[0]})"
            names[kind] = short[kind] + more * alike
        return names

    def with_numbers(self, numbers: Mapping[str, Mapping[str, float]]) -> "Review":
        """Return the review with more numbers, by the entries' keys, sorted anew."""
        entries = [
            replace(entry, numbers={**entry.numbers, **numbers.get(entry.key, {})})
            for entry in self.entries
        ]
        return replace(self, entries=ranked(entries))


def by_kind(entries: Iterable[Entry]) -> dict[tuple[str, str, str, str], list[Entry]]:
    """Group entries that are compared with each other, see `Entry.kind`."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.kind, []).append(entry)
    return groups


def ranked(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Set what is unusual about each entry among those of its kind, and sort them by risk."""
    found = [
        replace(entry, unusual=unusual, risk=risk_of(unusual, len(entry.warnings)))
        for group in by_kind(entries).values()
        for entry, unusual in zip(group, unusual_in([e.numbers for e in group]), strict=True)
    ]
    return tuple(sorted(found, key=lambda entry: (-entry.risk, entry.key)))


def place_in(folder: Path) -> Path:
    """Return the folder of a review; it is made if the predictions' own folder still exists.

    Raises
    ------
    UserError
        When that is gone, as a network share may be (files written elsewhere would be lost), or is
        read-only.
    """
    place = folder / FOLDER
    if not folder.is_dir():
        remedy = Advice("bring it back: ratings cannot be saved without it")
        raise UserError("the folder is no longer there", folder, remedy=remedy)
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        problem = f"cannot be written here ({error.strerror})"
        remedy = Advice("ask for write permission there, or review a copy")
        raise UserError(problem, place, remedy=remedy) from error
    return place


def open_review(folder: str | Path) -> Review:
    """List the predictions in a folder with what is known of each; compute and write nothing.

    Parameters
    ----------
    folder
        Folder that `cohort` or `harmonize` wrote, or any above it, also with several models.

    Returns
    -------
    Review
        Includes what is damaged or foreign.

    Raises
    ------
    UserError
        When the folder is missing, or contains no prediction.
    """
    folder = Path(folder)
    if not folder.is_dir():
        remedy = Advice("give a folder of predictions")
        raise UserError("there is no such folder", folder, "folder", remedy)
    kept, sources = read_kept(folder / FOLDER), _Sources()
    problems: list[UserError] = []
    foreign: list[Path] = []
    entries: list[Entry] = []
    for stem, files in _candidates(folder, foreign).items():
        try:
            entry = _entry(folder, stem, files, kept, sources)
        except UserError as error:
            problems.append(error)
        else:
            if entry is not None:
                entries.append(entry)
            elif files.dwi is not None:
                foreign.append(files.dwi)
    if not entries:
        if problems:
            others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            problem = f"has no prediction that can be read: {problems[0].phrase()}{others}"
            raise NoneReadable(problem, folder, "folder", MAKE_AGAIN)
        first = RunJob("cohort", "harmonize scans first")
        raise NoPrediction("has no prediction", folder, "folder", first)
    entries = _without_strangers(entries)
    return Review(folder, ranked(entries), tuple(problems), tuple(sorted(foreign)))


ANOTHER_DATASET = "the scan it was predicted from belongs to another dataset than this folder links"


def _without_strangers(entries: Iterable[Entry]) -> list[Entry]:
    """Remove scans from entries that were made from another dataset than the linked one.

    A folder links one dataset; if it held predictions of several, they would be shown beside
    another person's scan of the same name.
    """
    datasets: dict[Path, set[str]] = {}
    for entry in entries:
        datasets.setdefault(entry.root, set()).add(_dataset(entry))
    return [
        entry
        if len(datasets[entry.root]) == 1 or entry.scan is None or _is_of(entry.scan, entry)
        else replace(entry, scan=None, truth=None, without=ANOTHER_DATASET)
        for entry in entries
    ]


def _dataset(entry: Entry) -> str:
    return Person.from_json(entry.provenance.person).dataset


def _is_of(scan: Path, entry: Entry) -> bool:
    root = study_root(scan)
    return root is not None and dataset_key(root) == _dataset(entry)


# --- Files ------------------------------------------------------------------------------------


@dataclass
class _Files:
    """Files of one prediction."""

    dwi: Path | None = None
    coefficients: list[Path] = field(default_factory=list)
    sidecar: Path | None = None


SKIPPED = {FOLDER, "sourcedata", "code"}
"""Folders that contain no predictions."""


def _candidates(folder: Path, foreign: list[Path]) -> dict[Path, _Files]:
    """Return all files that may be predictions, by their paths without endings."""
    found: dict[Path, _Files] = {}
    for here, folders, names in walk(folder):
        folders[:] = [each for each in folders if each not in SKIPPED and not each.startswith(".")]
        for name in names:
            file = ImageFile.parse(name)
            if file is None or name.startswith("."):
                continue
            path, is_image = here / name, file.suffix in NIFTI_SUFFIXES
            described = "_desc-" in file.beginning
            if file.what == "dwi" and is_image:
                if described and is_dwi(path):
                    found.setdefault(here / file.beginning, _Files()).dwi = path
                else:
                    foreign.append(path)
            elif file.is_sh and is_image and not file.first_stage and "_desc-" in file.stem:
                found.setdefault(here / file.stem, _Files()).coefficients.append(path)
            elif file.what == "dwi" and file.suffix == ".json" and described:
                found.setdefault(here / file.beginning, _Files()).sidecar = path
    return found


def _entry(
    folder: Path, stem: Path, files: _Files, kept: Mapping[str, Kept], sources: "_Sources"
) -> Entry | None:
    """Return an entry; None if it is not a prediction of this package."""
    image = files.dwi or next(iter(sorted(files.coefficients)), None)
    if image is None:
        if files.sidecar is None or _provenance(read_json(files.sidecar, foreign=True)) is None:
            return None
        raise UserError("its image is missing", files.sidecar, remedy=MAKE_AGAIN)
    sidecar = sidecar_path(image)
    if not sidecar.is_file():
        return None
    content = read_json(sidecar, foreign=True)
    made = _provenance(content)
    if made is None:
        return None
    key = stem.relative_to(folder).as_posix()
    if stamp_of(image) is None:
        raise UserError("is missing or cannot be read", image, remedy=MAKE_AGAIN)
    named = entities(image)
    root = sources.root(image.parent)
    scan = sources.scan(root, made)
    truth = None if scan is None else sources.truth(scan, made.target)
    known = still_known(kept.get(key), nothing_of(image, scan, truth))
    session = f"ses-{named['ses']}" if "ses" in named else ""
    return Entry(
        key=key,
        subject=f"sub-{named['sub']}" if "sub" in named else stem.name,
        session=session,
        platform=made.input,
        target=made.target,
        title=made.title,
        model=made.model_file or "",
        model_hash=made.model_sha256 or "",
        prediction=image,
        prediction_hash=known.hash or content_hash(image, MAKE_AGAIN),
        root=root,
        scan=scan,
        truth=truth,
        provenance=made,
        numbers={**numbers_in(known.numbers), **read_measures(content)},
        warnings=made.said,
        without="" if scan is not None else not_there(made.sources[0] if made.sources else ""),
    )


def _provenance(sidecar: Mapping[str, Any]) -> Provenance | None:
    made = Provenance.from_sidecar(sidecar)
    return None if made is None or made.stage != "last" else made


class _Sources:
    """Search for scans and truths by the predictions' provenance, with each folder read once."""

    def __init__(self) -> None:
        self.root, self._scans = cache(_root), cache(_scans)

    def scan(self, root: Path, made: Provenance) -> Path | None:
        """Return the scan that a prediction was made from; None if it is not found."""
        try:
            found = (source_path(uri, root) for uri in made.sources)
            return next((absolute(path) for path in found if path), None)
        except UserError:  # the description is damaged
            return None

    def truth(self, scan: Path, target: str) -> Path | None:
        """Return the subject's scan on the target; None if there is none, or several protocols.

        Of several runs it is that of the same number as the scan's, else the first.
        """
        root = dataset_root(scan)
        if root is None:
            return None
        found = sorted(self._scans(root, scan.relative_to(root).parts[0]).get(target, []))
        if len({tuple(_without_run(each).items()) for each in found}) != 1:
            return None
        run = entities(scan).get("run")
        return next((each for each in found if entities(each).get("run") == run), found[0])


def _without_run(scan: Path) -> dict[str, str]:
    return {name: value for name, value in entities(scan).items() if name != "run"}


def _scans(root: Path, subject: str) -> dict[str, list[Path]]:
    """Return a subject's scans by platform, from their names alone."""
    found: dict[str, list[Path]] = {}
    with suppress(UserError):  # a folder that may not be listed shows no truth
        for path in scans_in(root, subject):
            others = found.setdefault(platform_of(path), [])
            alike = nifti_stem(path) in {nifti_stem(each) for each in others}
            if not alike and "desc" not in entities(path):
                others.append(path)
    return found


def _root(folder: Path) -> Path:
    """Return the dataset that predictions in a folder belong to, see `review_maps.root_of`."""
    try:
        return root_of(folder)
    except UserError:  # the description is damaged
        return dataset_root(folder / "image") or folder
