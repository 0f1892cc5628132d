r"""What raters say of predictions: a table a rater, written whole after every key.

`review/rater-<label>_ratings.tsv` has a row a prediction and a JSON data dictionary beside it. A
row is a line: tabs, line ends, backslashes and other control characters of a note are written as
\t, \n, \\ and \u0007. Fields with quotes are quoted as in CSV, so that spreadsheets, pandas and R
read them. Every rating reads the table again before it is written under a lock: two windows of one
rater lose nothing to each other, and the later rating of a prediction counts.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from napari_msp.bids import plain_label
from napari_msp.errors import Advice, Choose, Give, UserError
from napari_msp.files import atomic_path, locked, read_json, read_whole, write_json
from napari_msp.review.predictions import FOLDER, Entry

Verdict = Literal["pass", "fail", "doubtful"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

State = Literal["unrated", "pass", "fail", "doubtful", "remade"]
"""Of an entry to a rater; "remade": the rating is of a prediction that was made again since."""

LARGEST = 50_000_000
"""Bytes beyond which no table of ratings is read."""

MISSING = "n/a"

REPAIR = Advice("repair it, or move it away")


@dataclass(frozen=True)
class Rating:
    """What one rater says of one prediction.

    Attributes
    ----------
    key
        Of the entry.
    subject, session, platform, target
        Whose prediction it is, for whoever reads the table.
    verdict
        None: there is a note or a tag only.
    tags
        Of the list of artefacts.
    note
        Any text.
    rater
        Label.
    time
        UTC, such as "2026-11-29T14:05:09Z".
    software
        That it was rated with.
    model, model_hash, prediction_hash
        Of what was rated.
    blind
        Whether names were hidden.
    more
        Columns that somebody added to the table, and what they say.
    """

    key: str
    subject: str = ""
    session: str = ""
    platform: str = ""
    target: str = ""
    verdict: Verdict | None = None
    tags: tuple[str, ...] = ()
    note: str = ""
    rater: str = ""
    time: str = ""
    software: str = ""
    model: str = ""
    model_hash: str = ""
    prediction_hash: str = ""
    blind: bool = False
    more: tuple[tuple[str, str], ...] = ()

    def is_of(self, entry: Entry) -> bool:
        """Return whether it is of what the entry's file has in it now."""
        return self.prediction_hash == entry.prediction_hash

    def state(self, entry: Entry) -> State:
        """Say what an entry is to this rater."""
        if self.verdict is None:
            return "unrated"
        return self.verdict if self.is_of(entry) else "remade"


COLUMNS: Mapping[str, str] = {
    "prediction": "File without its ending, relative to the folder that was reviewed",
    "participant_id": "Subject",
    "session_id": "Session of the scan",
    "input": "Platform that was predicted from",
    "target": "Platform that was predicted",
    "verdict": "What the rater says",
    "tags": "Artefacts that the rater saw, separated by semicolons",
    "note": r"What the rater wrote; \t, \n, \\ and \uXXXX stand for tab, line end, backslash and "
    "the character of that number",
    "rater": "Label of the rater",
    "rated_at": "When, in UTC",
    "software": "What it was rated with",
    "model": "File of the model that predicted",
    "model_sha256": "SHA-256 of that file",
    "prediction_hash": "CRC-32 and length of the image as its gzip file ends with them, or SHA-256 "
    "of the file: a prediction that was made again has another",
    "blind": "Whether names were hidden from the rater",
}
"""Of the table, and what each is."""

NEEDED = ("prediction", "verdict")
"""Columns without which a table is no ratings'."""

LEVELS: Mapping[str, Mapping[str, str]] = {
    "verdict": {
        "pass": "Can be used",
        "doubtful": "Cannot be decided, or not alone",
        "fail": "Cannot be used",
    },
    "blind": {"true": "Names were hidden", "false": "Names were shown"},
}


def now() -> str:
    """Give the time in UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ratings:
    """One rater's ratings of a folder.

    Parameters
    ----------
    folder
        Of the predictions.
    rater
        Label, letters and digits.
    blind
        Whether names are hidden from now on.
    """

    def __init__(self, folder: str | Path, rater: str, blind: bool = False) -> None:
        self.folder, self.rater, self.blind = Path(folder), rater, blind
        self._known: dict[str, Rating] = {}
        self._undo: list[tuple[str, Rating | None, Rating | None]] = []

    @classmethod
    def open(cls, folder: str | Path, rater: str, *, blind: bool = False) -> "Ratings":
        """Open a rater's ratings, or begin them; nothing is written before the first.

        Parameters
        ----------
        folder
            Of the predictions.
        rater
            Label, letters and digits.
        blind
            Whether names are hidden from now on: kept with each rating.

        Raises
        ------
        UserError
            When the label is none, is another rater's but for capitals, or the table is damaged.
        """
        check_rater(folder, rater)
        ratings = cls(folder, rater, blind)
        ratings.reload()
        return ratings

    def __repr__(self) -> str:
        return f"<Ratings of {len(self._known)} predictions by {self.rater}>"

    @property
    def path(self) -> Path:
        """The table."""
        return ratings_path(self.folder, self.rater)

    def reload(self) -> None:
        """Read the table again: another window of the same rater may have written.

        Raises
        ------
        UserError
            When it is damaged.
        """
        self._known = read_ratings(self.path) if self.path.exists() else {}

    @property
    def by_key(self) -> Mapping[str, Rating]:
        """All ratings, by entries' keys."""
        return dict(self._known)

    def of(self, entry: Entry) -> Rating | None:
        """Give the rating of an entry, also where it is of an earlier prediction."""
        return self._known.get(entry.key)

    def state(self, entry: Entry) -> State:
        """Say whether an entry is rated, and how."""
        rating = self.of(entry)
        return "unrated" if rating is None else rating.state(entry)

    def rate(
        self,
        entry: Entry,
        verdict: Verdict | None,
        note: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Rating:
        """Rate an entry; on the disk when this returns.

        Parameters
        ----------
        entry
            What is rated.
        verdict
            None takes the verdict back and keeps the rest.
        note, tags
            None: as they are.

        Raises
        ------
        UserError
            When the table cannot be written; the rating then is as before.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise ValueError(f"{verdict!r} is no verdict")
        with self._writing():
            before = self._known.get(entry.key)
            kept = before if before is not None and before.is_of(entry) else None
            rating = Rating(
                key=entry.key,
                subject=entry.subject,
                session=entry.session,
                platform=entry.platform,
                target=entry.target,
                verdict=verdict,
                tags=tuple(dict.fromkeys(tags if tags is not None else kept.tags if kept else ())),
                note=note if note is not None else kept.note if kept else "",
                rater=self.rater,
                time=now(),
                software=f"napari-msp {version('napari-msp')}",
                model=entry.model,
                model_hash=entry.model_hash,
                prediction_hash=entry.prediction_hash,
                blind=self.blind,
                more=() if before is None else before.more,
            )
            self._put(entry.key, rating)
        self._undo.append((entry.key, before, rating))
        return rating

    def annotate(
        self, entry: Entry, note: str | None = None, tags: Iterable[str] | None = None
    ) -> Rating:
        """Set an entry's note or tags, and keep its verdict, see `rate`."""
        before = self.of(entry)
        kept = before.verdict if before is not None and before.is_of(entry) else None
        return self.rate(entry, kept, note, tags)

    def undo(self) -> str | None:
        """Take the last rating back that was given here.

        Returns
        -------
        The entry's key; None where there is nothing to take back.

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
                raise UserError("was rated in another window since", key, remedy=remedy)
            self._put(key, before)
        self._undo.pop()
        return key

    def _writing(self) -> "_Writing":
        return _Writing(self)

    def _put(self, key: str, rating: Rating | None) -> None:
        known = {each: value for each, value in self._known.items() if each != key}
        if rating is not None:
            known[key] = rating
        write_ratings(self.path, known.values())
        self._known = known


class _Writing:
    """Keeps other windows of the same rater out while the table is read and written."""

    def __init__(self, ratings: Ratings) -> None:
        self._ratings = ratings

    def __enter__(self) -> None:
        folder = self._ratings.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot be written here ({error.strerror})"
            remedy = Advice("ask for the right to write there, or review a copy")
            raise UserError(problem, folder, remedy=remedy) from error
        self._lock = locked(folder, wait=True)
        self._lock.__enter__()
        try:
            self._ratings.reload()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(None, None, None)


# --- Files ------------------------------------------------------------------------------------


def ratings_path(folder: str | Path, rater: str) -> Path:
    """Give a rater's table."""
    return Path(folder) / FOLDER / f"rater-{rater}_ratings.tsv"


def rater_of(path: Path) -> str:
    """Give whose table a file is; empty where its name is none's.

    >>> rater_of(Path("review/rater-anna_ratings.tsv"))
    'anna'
    """
    found = re.fullmatch(r"rater-([A-Za-z0-9]+)_ratings\.tsv", path.name)
    return found[1] if found else ""


def check_rater(folder: str | Path, rater: str) -> None:
    """Refuse what cannot be a rater's label here.

    Raises
    ------
    UserError
        When it has other characters than letters and digits, or differs from another rater's only
        in capitals, which not every disk tells apart.
    """
    plain = plain_label(rater)
    if not rater or plain != rater:
        proposal = f", such as {plain}" if plain else ""
        remedy = Give("rater", f"a label of letters and digits{proposal}")
        raise UserError(f"{rater!r} is no label of a rater", field="rater", remedy=remedy)
    for path in rating_files(folder):
        other = rater_of(path)
        if other != rater and other.casefold() == rater.casefold():
            known = Choose("rater", (other,))
            raise UserError(f"{rater} may be {other}, who has rated here", path, "rater", known)


def rating_files(folder: str | Path) -> list[Path]:
    """List all raters' tables of a folder."""
    found = (Path(folder) / FOLDER).glob("rater-*_ratings.tsv")
    return sorted(path for path in found if rater_of(path))


def write_ratings(path: Path, ratings: Iterable[Rating]) -> None:
    """Write a table whole: a reader, and whoever comes after a crash, finds the old or the new one.

    The data dictionary is written where it is not there or says something else.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    text = table_of(ratings)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    dictionary = path.with_suffix(".json")
    content = data_dictionary()
    try:
        told = dictionary.is_file() and read_json(dictionary) == content
    except UserError:
        told = False
    if not told:
        write_json(dictionary, content)


def table_of(ratings: Iterable[Rating]) -> str:
    """Give the table's text, sorted by prediction; columns that others added stay."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    ratings = sorted(ratings, key=lambda rating: rating.key)
    added = list(dict.fromkeys(name for each in ratings for name, _ in each.more))
    writer.writerow([*COLUMNS, *added])
    for each in ratings:
        more = dict(each.more)
        cells = (
            each.key,
            each.subject,
            each.session,
            each.platform,
            each.target,
            each.verdict or "",
            ";".join(_escaped(tag).replace(";", r"\u003b") for tag in each.tags),
            each.note,
            each.rater,
            each.time,
            each.software,
            each.model,
            each.model_hash,
            each.prediction_hash,
            "true" if each.blind else "false",
            *(more.get(name, "") for name in added),
        )
        escaped = (cell if number == TAGS else _escaped(cell) for number, cell in enumerate(cells))
        writer.writerow(cell or MISSING for cell in escaped)
    return stream.getvalue()


TAGS = list(COLUMNS).index("tags")


def read_ratings(path: Path) -> dict[str, Rating]:
    """Read a table, by keys; of two rows of one prediction the later one counts.

    Columns may stand in another order, and others beside them, as spreadsheets leave them.

    Raises
    ------
    UserError
        When it cannot be read, or is no table of ratings.
    """
    content = read_whole(path, LARGEST)
    known: dict[str, Rating] = {}
    try:
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
        header = rows[0] if rows else []
        if missing := [name for name in NEEDED if name not in header]:
            raise ValueError(f"it has no column {missing[0]!r}")
        for number, cells in enumerate(rows[1:], start=2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(f"row {number} has {len(cells)} fields, not {len(header)}")
            rating = _rating(dict(zip(header, cells, strict=True)), rater_of(path), number)
            before = known.get(rating.key)
            if before is None or before.time <= rating.time:
                known[rating.key] = rating
    except (ValueError, csv.Error) as error:
        raise UserError(f"is no table of ratings ({error})", path, remedy=REPAIR) from error
    return known


def _rating(row: Mapping[str, str], rater: str, number: int) -> Rating:
    def text(name: str) -> str:
        return _plain(row.get(name, ""))

    verdict = text("verdict")
    if verdict and verdict not in VERDICTS:
        raise ValueError(f"row {number} has the verdict {verdict!r}")
    tags = row.get("tags", "")
    return Rating(
        key=text("prediction"),
        subject=text("participant_id"),
        session=text("session_id"),
        platform=text("input"),
        target=text("target"),
        verdict=next((each for each in VERDICTS if each == verdict), None),
        tags=() if tags in ("", MISSING) else tuple(_plain(each) for each in tags.split(";")),
        note=text("note"),
        rater=rater,
        time=text("rated_at"),
        software=text("software"),
        model=text("model"),
        model_hash=text("model_sha256"),
        prediction_hash=text("prediction_hash"),
        blind=text("blind").lower() == "true",
        # An empty cell says nothing: a rating stays the same where somebody adds a column.
        more=tuple(
            (name, said)
            for name, cell in row.items()
            if name not in COLUMNS and (said := _plain(cell))
        ),
    )


SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}

LONG = {written[1]: character for character, written in SHORT.items()}


def _escaped(text: str) -> str:
    r"""Write any text on one line.

    >>> print(_escaped("a\tb\\c"), _escaped("n/a"))
    a\tb\\c \u006e/a
    """
    if text == MISSING:
        return rf"\u{ord(text[0]):04x}{text[1:]}"
    return "".join(_written(each) for each in text)


def _written(character: str) -> str:
    if character in SHORT:
        return SHORT[character]
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return rf"\u{ord(character):04x}"
    return character


def _plain(text: str) -> str:
    r"""Undo `_escaped`; a backslash that begins nothing stands for itself.

    >>> _plain(r"a\tb\\c"), _plain("n/a")
    ('a\tb\\c', '')
    """
    if text == MISSING:
        return ""

    def one(found: re.Match[str]) -> str:
        code, short = found.groups()
        return chr(int(code, 16)) if code else LONG[short]

    return re.sub(r"\\(?:u([0-9a-f]{4})|([tnr\\]))", one, text)


def data_dictionary() -> dict[str, Any]:
    """Say what the columns are, as BIDS has it."""
    return {
        name: {"Description": said, **({"Levels": dict(LEVELS[name])} if name in LEVELS else {})}
        for name, said in COLUMNS.items()
    }


# --- All raters -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AllRatings:
    """What everybody says of a folder.

    Attributes
    ----------
    by_rater
        Ratings by key, by rater.
    problems
        Of tables that cannot be read.
    """

    by_rater: Mapping[str, Mapping[str, Rating]]
    problems: tuple[UserError, ...] = ()

    @property
    def raters(self) -> tuple[str, ...]:
        """Everybody who has rated."""
        return tuple(self.by_rater)

    def of(self, entry: Entry) -> tuple[Rating, ...]:
        """Give all ratings of an entry."""
        return tuple(each[entry.key] for each in self.by_rater.values() if entry.key in each)


def read_all_ratings(folder: str | Path) -> AllRatings:
    """Read all raters' tables; one that is damaged hides no other."""
    found: dict[str, Mapping[str, Rating]] = {}
    problems: list[UserError] = []
    for path in rating_files(folder):
        try:
            found[rater_of(path)] = read_ratings(path)
        except UserError as error:
            problems.append(error)
    return AllRatings(found, tuple(problems))


def of_raters(ratings: AllRatings, raters: Sequence[str] | None) -> AllRatings:
    """Leave some raters' ratings; None: everybody's.

    Raises
    ------
    UserError
        When one of them has rated nothing that can be read.
    """
    if raters is None:
        return ratings
    for rater in raters:
        if rater not in ratings.by_rater:
            remedy = Choose("rater", ratings.raters)
            raise UserError(f"{rater} has no ratings here", field="rater", remedy=remedy)
    return replace(ratings, by_rater={each: ratings.by_rater[each] for each in raters})


@dataclass(frozen=True)
class Merged:
    """What became of a table that was merged.

    Attributes
    ----------
    rater
        Whose it is.
    new, later, older
        Ratings that were not there, that took the place of earlier ones, and that were left out
        because a later one was there.
    """

    rater: str
    new: int
    later: int
    older: int


def merge_ratings(folder: str | Path, tables: Sequence[str | Path]) -> list[Merged]:
    """Bring ratings that were made of a copy of a folder into it; the later of two counts.

    Parameters
    ----------
    folder
        Of the predictions.
    tables
        Named `rater-<label>_ratings.tsv`.

    Raises
    ------
    UserError
        Before anything is written, when one of them is no such table.
    """
    given: list[tuple[str, dict[str, Rating]]] = []
    for table in map(Path, tables):
        rater = rater_of(table)
        if not rater:
            remedy = Advice("give a file named rater-<label>_ratings.tsv")
            raise UserError("does not say whose ratings it has", table, "tables", remedy)
        check_rater(folder, rater)
        given.append((rater, read_ratings(table)))
    merged = []
    for rater, theirs in given:
        ratings = Ratings.open(folder, rater)
        with ratings._writing():
            ours = dict(ratings.by_key)
            new = {key: each for key, each in theirs.items() if key not in ours}
            later = {
                key: each
                for key, each in theirs.items()
                if key in ours and each.time > ours[key].time
            }
            older = sum(key in ours and each != ours[key] for key, each in theirs.items())
            whole = {**ours, **new, **later}
            write_ratings(ratings.path, (replace(each, rater=rater) for each in whole.values()))
        merged.append(Merged(rater, len(new), len(later), older - len(later)))
    return merged
