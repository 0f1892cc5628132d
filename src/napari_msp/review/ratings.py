"""Raters' judgements of predictions: given, undone, read for all raters, and merged.

Also the tags to choose from, the order and names of predictions in blind rating, and how far raters
agree. Only ratings of the same prediction are compared: one that was made again is another.

Every rating reads the table again (`rating_table`) before it is written under a lock, so that two
windows of one rater lose nothing of each other's; the later rating of a prediction counts.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Literal

from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.statistics import Kappa, cohens_kappa, fleiss_kappa
from napari_msp.files import reserved, write_json
from napari_msp.formatting import counted
from napari_msp.options import several
from napari_msp.review.predictions import FOLDER, Entry, place_in
from napari_msp.review.rating_table import (
    OF_ENTRY,
    VERDICTS,
    Rating,
    State,
    Verdict,
    check_rater,
    rater_of,
    rating_files,
    ratings_path,
    read_ratings,
    write_ratings,
)
from napari_msp.strict_json import read_json


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ratings:
    """One rater's ratings of a folder."""

    def __init__(self, folder: str | Path, rater: str, blind: bool = False) -> None:
        self.folder, self.rater, self.blind = Path(folder), rater, blind
        self._known: dict[str, Rating] = {}
        self._undo: list[tuple[str, Rating | None, Rating | None]] = []

    @classmethod
    def open(cls, folder: str | Path, rater: str, *, blind: bool = False) -> "Ratings":
        """Open a rater's ratings, or begin them; nothing is written before the first rating.

        Parameters
        ----------
        folder
            Folder of the predictions.
        rater
            Label of the rater, letters and digits.
        blind
            Whether names are hidden from now on; stored with each rating.

        Raises
        ------
        UserError
            When the label is invalid, or differs from another's only in capitals, or the table is
            damaged.
        """
        check_rater(folder, rater)
        ratings = cls(folder, rater, blind)
        ratings.reload()
        return ratings

    def __repr__(self) -> str:
        return f"<Ratings of {counted(len(self._known), 'prediction')} by {self.rater}>"

    @property
    def path(self) -> Path:
        """Table in which the ratings are kept."""
        return ratings_path(self.folder, self.rater)

    def reload(self) -> None:
        """Read the table again, as another window of the same rater may have written it."""
        self._known = read_ratings(self.path) if self.path.exists() else {}

    @property
    def by_key(self) -> Mapping[str, Rating]:
        """All ratings, by entries' keys."""
        return dict(self._known)

    def of(self, entry: Entry) -> Rating | None:
        """Return the rating of an entry, even if it is of an earlier prediction."""
        return self._known.get(entry.key)

    def state(self, entry: Entry) -> State:
        """Return whether an entry is rated, and how."""
        rating = self.of(entry)
        return "unrated" if rating is None else rating.state(entry)

    def rate(
        self,
        entry: Entry,
        verdict: Verdict | None,
        note: str | None = None,
        tags: str | Iterable[str] | None = None,
    ) -> Rating:
        """Rate an entry; the rating is on disk when this returns.

        Parameters
        ----------
        verdict
            The verdict; None removes it and keeps the rest.
        note, tags
            Note and tags; None keeps them.

        Raises
        ------
        UserError
            When the table cannot be written; the rating is then unchanged.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise ValueError(f"{verdict!r} is no verdict")
        with self._writing():
            before = self._known.get(entry.key)
            kept = before if before is not None and before.is_of(entry) else None
            chosen = several(tags) if tags is not None else kept.tags if kept else ()
            rating = Rating(
                **{name: getattr(entry, name) for name in OF_ENTRY},
                verdict=verdict,
                tags=tuple(dict.fromkeys(chosen)),
                note=note if note is not None else kept.note if kept else "",
                rater=self.rater,
                time=now(),
                software=f"napari-msp {version('napari-msp')}",
                blind=self.blind,
                more=() if before is None else before.more,
            )
            self._put(entry.key, rating)
        self._undo.append((entry.key, before, rating))
        return rating

    def annotate(
        self, entry: Entry, note: str | None = None, tags: str | Iterable[str] | None = None
    ) -> Rating:
        """Set an entry's note or tags, and keep its verdict, see `rate`."""
        before = self.of(entry)
        kept = before.verdict if before is not None and before.is_of(entry) else None
        return self.rate(entry, kept, note, tags)

    def undo(self) -> str | None:
        """Undo the last rating that was given here.

        Returns
        -------
        The entry's key; None if there is nothing to undo.

        Raises
        ------
        UserError
            When the table cannot be written, or another window has rated the same entry since.
        """
        if not self._undo:
            return None
        key, before, after = self._undo[-1]
        with self._writing():
            if self._known.get(key) != after:
                self._undo.pop()
                remedy = Advice("rate it again")
                raise UserError("was rated in another window in the meantime", key, remedy=remedy)
            self._put(key, before)
        self._undo.pop()
        return key

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Lock out other windows of the same rater while the table is read and written."""
        with reserved(place_in(self.folder), wait=True):
            self.reload()
            yield

    def _put(self, key: str, rating: Rating | None) -> None:
        known = {each: value for each, value in self._known.items() if each != key}
        if rating is not None:
            known[key] = rating
        write_ratings(self.path, known.values())
        self._known = known


# --- All raters -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AllRatings:
    """The ratings of a folder by all raters."""

    by_rater: Mapping[str, Mapping[str, Rating]]
    problems: tuple[UserError, ...] = ()

    @property
    def raters(self) -> tuple[str, ...]:
        """Labels of all raters."""
        return tuple(self.by_rater)

    def states(self, rater: str, entries: Iterable[Entry]) -> Counter[State]:
        """Count a rater's states of entries; entries without a rating are left out."""
        theirs = self.by_rater[rater]
        return Counter(theirs[each.key].state(each) for each in entries if each.key in theirs)

    def of(self, entry: Entry) -> tuple[Rating, ...]:
        """Return all ratings of an entry."""
        return tuple(each[entry.key] for each in self.by_rater.values() if entry.key in each)


def read_all_ratings(folder: str | Path) -> AllRatings:
    """Read all raters' tables; a damaged one does not hide the others."""
    found: dict[str, Mapping[str, Rating]] = {}
    problems: list[UserError] = []
    for path in rating_files(folder):
        try:
            found[rater_of(path)] = read_ratings(path)
        except UserError as error:
            problems.append(error)
    return AllRatings(found, tuple(problems))


def of_raters(ratings: AllRatings, raters: Sequence[str] | None) -> AllRatings:
    """Keep only some raters' ratings; None: everybody's."""
    if raters is None:
        return ratings
    for rater in raters:
        if rater not in ratings.by_rater:
            remedy = Choose("rater", ratings.raters)
            raise UserError(f"{rater} has no ratings here", field="rater", remedy=remedy)
    return replace(ratings, by_rater={each: ratings.by_rater[each] for each in raters})


@dataclass(frozen=True)
class Merged:
    """Result of a merge: number of ratings that are new, later than ours, or older."""

    rater: str
    new: int
    later: int
    older: int


def merge_ratings(folder: str | Path, tables: str | Path | Iterable[str | Path]) -> list[Merged]:
    """Merge ratings made on a copy of a folder into it; the later of two counts.

    Parameters
    ----------
    folder
        Folder of the predictions.
    tables
        Tables named `rater-<label>_ratings.tsv`.

    Raises
    ------
    UserError
        When one of them is no such table; nothing is written then.
    """
    given: list[tuple[str, dict[str, Rating]]] = []
    for table in map(Path, [tables] if isinstance(tables, str | Path) else tables):
        rater = rater_of(table)
        if not rater:
            remedy = Advice("give a file named rater-<label>_ratings.tsv")
            raise UserError("does not state whose ratings it contains", table, "tables", remedy)
        check_rater(folder, rater)
        given.append((rater, read_ratings(table)))
    merged = []
    for rater, theirs in given:
        ratings = Ratings.open(folder, rater)
        with ratings._writing():
            ours = ratings.by_key
            new = {key for key in theirs if key not in ours}
            other = {key for key in theirs if key in ours and theirs[key] != ours[key]}
            later = {key for key in other if theirs[key].time > ours[key].time}
            whole = {**ours, **{key: theirs[key] for key in new | later}}
            write_ratings(ratings.path, whole.values())
        merged.append(Merged(rater, len(new), len(later), len(other - later)))
    return merged


# --- What a rater may say ---------------------------------------------------------------------

TAGS_FILE = "tags.json"

DEFAULT_TAGS: Mapping[str, str] = {
    "ringing": "Lines along sharp edges (Gibbs)",
    "motion": "The head moved: blurred or doubled edges, volumes that do not fit",
    "signal dropout": "Dark slices or regions where there is tissue",
    "ghost": "A shifted, weaker copy of the head",
    "mask": "Brain is cut off, or the mask contains more than brain",
    "misalignment": "Input, prediction or truth are not aligned",
    "hallucinated structure": "The prediction shows anatomy that the input does not have",
    "blurred": "Fine structure of the input is lost",
    "intensity": "Too bright, too dark, or a jump in brightness",
    "other": "See the note",
}
"""Artefacts of diffusion MRI and of network predictions, with their meanings (our choice)."""


def tags_path(folder: str | Path) -> Path:
    """Return the path of the folder's own list of tags."""
    return Path(folder) / FOLDER / TAGS_FILE


def read_tags(folder: str | Path) -> dict[str, str]:
    """Return tags to choose from with their meanings: the folder's own, else `DEFAULT_TAGS`."""
    path = tags_path(folder)
    if not path.is_file():
        return dict(DEFAULT_TAGS)
    tags = {
        " ".join(name.split()): " ".join(said.split()) if isinstance(said, str) else ""
        for name, said in read_json(path, foreign=True).items()
    }
    tags.pop("", None)
    if not tags:
        remedy = Advice('write an object such as {"ringing": "lines along edges"}, or remove it')
        raise UserError("names no tag", path, remedy=remedy)
    return tags


# --- Blind ------------------------------------------------------------------------------------

Side = Literal["scan", "prediction"]


@dataclass(frozen=True)
class Blind:
    """Order and names of entries for a rater who is not to know what they are.

    They follow from a seed that is kept for the rater, and from each entry's key alone, so that
    later entries change nothing that was shown before. With `hide_roles` input and prediction are
    "A" and "B", in an order of each entry's own.
    """

    seed: int
    hide_roles: bool = False

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return entries in the order in which they are shown."""
        return sorted(entries, key=lambda entry: self._digest(entry.key))

    def name(self, entry: Entry) -> str:
        """Return an entry's name, such as "3f9c-02ab", which is always the same."""
        digest = self._digest(entry.key)
        return f"{digest[:4]}-{digest[4:8]}"

    def sides(self, entry: Entry) -> tuple[Side, Side]:
        """Return what "A" and "B" are."""
        turned = self.hide_roles and int(self._digest(entry.key, "side"), 16) % 2
        return ("prediction", "scan") if turned else ("scan", "prediction")

    def _digest(self, key: str, what: str = "order") -> str:
        return hashlib.sha256(f"{self.seed} {what} {key}".encode(errors="replace")).hexdigest()


def open_blind(folder: str | Path, rater: str, *, hide_roles: bool = False) -> Blind:
    """Return how a folder is shown to a rater: as kept from the first time, else by a new seed.

    A change of `hide_roles` keeps the seed.
    """
    check_rater(folder, rater)
    path = Path(folder) / FOLDER / f"rater-{rater}_blind.json"
    seed, kept = secrets.randbelow(2**32), None
    if path.is_file():
        content = read_json(path)
        known, kept = content.get("Seed"), content.get("HideRoles")
        if not isinstance(known, int) or isinstance(known, bool):
            remedy = Advice("repair it, or remove it for a new order")
            raise UserError("has no seed", path, remedy=remedy)
        seed = known
    if kept is not hide_roles:
        write_json(path, {"Seed": seed, "HideRoles": hide_roles})
    return Blind(seed, hide_roles)


# --- Agreement of raters -------------------------------------------------------------------------


@dataclass(frozen=True)
class RaterPair:
    """Agreement of two raters.

    Attributes
    ----------
    kappa, weighted
        Cohen's kappa, and with linear weights: "doubtful" is half-way.
    differing
        Keys of the predictions with different verdicts, and both verdicts.
    other_files
        Number of predictions that both rated, but not the same file: made again in between.
    """

    raters: tuple[str, str]
    kappa: Kappa
    weighted: Kappa
    differing: dict[str, tuple[Verdict, Verdict]]
    other_files: int


@dataclass(frozen=True)
class RaterAgreement:
    """Agreement of all raters.

    Attributes
    ----------
    pairs
        Every two raters who rated something in common.
    all_raters
        Fleiss' kappa of all raters, if there are three or more, over what all of them rated.
    differing
        Keys of the predictions with different verdicts, and each rater's verdict; those that some
        pass and others fail come first.
    """

    pairs: tuple[RaterPair, ...]
    all_raters: Kappa | None
    differing: dict[str, dict[str, Verdict]]


def agreement(ratings: AllRatings) -> RaterAgreement:
    """Compare all raters of a folder; a rating without verdict does not count."""
    given: dict[str, Given] = {
        rater: {
            (key, each.prediction_hash): each.verdict
            for key, each in theirs.items()
            if each.verdict is not None
        }
        for rater, theirs in ratings.by_rater.items()
    }
    pairs = [_pair((one, other), given[one], given[other]) for one, other in combinations(given, 2)]
    differing: dict[str, dict[str, Verdict]] = {}
    for pair in pairs:
        for key, verdicts in pair.differing.items():
            differing.setdefault(key, {}).update(zip(pair.raters, verdicts, strict=True))
    return RaterAgreement(
        tuple(pair for pair in pairs if pair.kappa.count or pair.other_files),
        _of_all(list(given.values())) if len(given) > 2 else None,
        dict(sorted(differing.items(), key=lambda each: (-_apart(each[1].values()), each[0]))),
    )


Given = dict[tuple[str, str], Verdict]
"""A rater's verdicts by key and hash of the rated prediction."""


def _pair(raters: tuple[str, str], one: Given, other: Given) -> RaterPair:
    said = {
        key: (verdict, other[key, made])
        for (key, made), verdict in one.items()
        if (key, made) in other
    }
    both = {key for key, _ in one} & {key for key, _ in other}
    counts = Counter(said.values())
    table = [[counts[row, column] for column in VERDICTS] for row in VERDICTS]
    return RaterPair(
        raters,
        cohens_kappa(table),
        cohens_kappa(table, weighted=True),
        {key: verdicts for key, verdicts in said.items() if verdicts[0] != verdicts[1]},
        len(both) - len(said),
    )


def _of_all(given: list[Given]) -> Kappa:
    rated_by_all = sorted(set.intersection(*map(set, given)))
    said = [Counter(each[rated] for each in given) for rated in rated_by_all]
    return fleiss_kappa([[counts[verdict] for verdict in VERDICTS] for counts in said])


def _apart(verdicts: Iterable[Verdict]) -> int:
    places = [VERDICTS.index(each) for each in verdicts]
    return max(places) - min(places)
