r"""Table of a rater: the fields of a rating, the columns, and how text is escaped in them.

`review/rater-<label>_ratings.tsv` has a row per prediction and a JSON data dictionary beside it. A
row is one line: tabs, line ends, backslashes and other control characters in a note are written as
\t, \n, \\ and \u0007. Fields with quotes are quoted as in CSV, so that spreadsheets, pandas and R
read them.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from napari_msp.bids import plain_label
from napari_msp.errors import Advice, Choose, Give, UserError
from napari_msp.files import atomic_path, write_json
from napari_msp.review.predictions import FOLDER, Entry
from napari_msp.strict_json import read_json, read_whole

Verdict = Literal["pass", "doubtful", "fail"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From good to bad: "doubtful" is nearer to both others than they are to each other."""

State = Literal["unrated", "remade"] | Verdict
"""State of an entry for a rater; "remade": the rated prediction has been made again since."""

LARGEST = 50_000_000
"""Largest size in bytes of a table of ratings that is read."""

MISSING = "n/a"

REPAIR = Advice("repair it, or move it away")


@dataclass(frozen=True)
class Rating:
    """One rater's rating of one prediction.

    Attributes
    ----------
    subject, session, platform, target
        Origin of the prediction, for readers of the table.
    verdict
        The verdict; None: there is only a note or a tag.
    time
        Time in UTC, such as "2026-11-29T14:05:09Z".
    model, model_hash, prediction_hash
        Model and prediction that were rated.
    more
        Columns that people added to the table, and their content.
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
        """Return whether it is of the present content of the entry's file."""
        return self.prediction_hash == entry.prediction_hash

    def state(self, entry: Entry) -> State:
        """Return the state of an entry for this rater."""
        if self.verdict is None:
            return "unrated"
        return self.verdict if self.is_of(entry) else "remade"


OF_ENTRY = (
    "key", "subject", "session", "platform", "target", "model", "model_hash", "prediction_hash",
)  # fmt: skip
"""Fields that a rating takes from the entry that is rated."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "prediction": ("key", "File without its ending, relative to the folder that was reviewed"),
    "participant_id": ("subject", "Subject"),
    "session_id": ("session", "Session of the scan"),
    "input": ("platform", "Platform that was predicted from"),
    "target": ("target", "Platform that was predicted"),
    "verdict": ("verdict", "What the rater says"),
    "tags": ("tags", "Artefacts that the rater saw, separated by semicolons"),
    "note": (
        "note",
        r"What the rater wrote; \t, \n, \\ and \uXXXX stand for tab, line end, backslash and the "
        "character of that number",
    ),
    "rater": ("rater", "Label of the rater"),
    "rated_at": ("time", "When, in UTC"),
    "software": ("software", "What it was rated with"),
    "model": ("model", "File of the model that predicted"),
    "model_sha256": ("model_hash", "SHA-256 of that file"),
    "prediction_hash": (
        "prediction_hash",
        "CRC-32 and length of the image as its gzip file ends with them, or SHA-256 of the file: a "
        "prediction that was made again has another",
    ),
    "blind": ("blind", "Whether names were hidden from the rater"),
}
"""Columns of the table: the field of `Rating` that each contains, and a description."""

NEEDED = ("prediction", "verdict")
"""Columns that every table of ratings must have."""

LEVELS: Mapping[str, Mapping[str, str]] = {
    "verdict": {
        "pass": "Can be used",
        "doubtful": "Undecided, or needs a second opinion",
        "fail": "Cannot be used",
    },
    "blind": {"true": "Names were hidden", "false": "Names were shown"},
}


def ratings_path(folder: str | Path, rater: str) -> Path:
    """Return the path of a rater's table."""
    return Path(folder) / FOLDER / f"rater-{rater}_ratings.tsv"


def rater_of(path: Path) -> str:
    """Return the rater of a table, by its file name; empty for other files.

    >>> rater_of(Path("review/rater-anna_ratings.tsv"))
    'anna'
    """
    found = re.fullmatch(r"rater-([A-Za-z0-9]+)_ratings\.tsv", path.name)
    return found[1] if found else ""


def check_rater(folder: str | Path, rater: str) -> None:
    """Refuse an invalid rater's label.

    Raises
    ------
    UserError
        When it contains other characters than letters and digits, or differs from another rater's
        only in capitals, which not every disk distinguishes.
    """
    plain = plain_label(rater)
    if not rater or plain != rater:
        proposal = f", such as {plain}" if plain else ""
        remedy = Give("rater", f"a label of letters and digits{proposal}")
        raise UserError(f"{rater!r} is not a valid rater label", field="rater", remedy=remedy)
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
    """Write a table as a whole: a reader, even after a crash, finds the old or the new one.

    The data dictionary is written if it is missing or differs.
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
    """Return the table's text, sorted by prediction; columns that others added stay."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    ratings = sorted(ratings, key=lambda rating: rating.key)
    added = list(dict.fromkeys(name for each in ratings for name, _ in each.more))
    writer.writerow([*COLUMNS, *added])
    for each in ratings:
        cells = {name: getattr(each, field) for name, (field, _) in COLUMNS.items()}
        cells |= dict(each.more)
        writer.writerow(_cell(cells.get(name)) or MISSING for name in (*COLUMNS, *added))
    return stream.getvalue()


def _cell(value: str | tuple[str, ...] | bool | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ";".join(_escaped(each).replace(";", r"\u003b") for each in value)
    return _escaped(value or "")


def read_ratings(path: Path) -> dict[str, Rating]:
    """Read a table, by keys; of two rows of one prediction the later one counts.

    Columns may be in another order, with others among them, as spreadsheets leave them.
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
        raise UserError(f"is not a table of ratings ({error})", path, remedy=REPAIR) from error
    return known


def _rating(row: Mapping[str, str], rater: str, number: int) -> Rating:
    def text(name: str) -> str:
        return _plain(row.get(name, ""))

    verdict = text("verdict")
    if verdict and verdict not in VERDICTS:
        raise ValueError(f"row {number} has the verdict {verdict!r}")
    tags = row.get("tags", "")
    known: dict[str, Any] = {field: text(name) for name, (field, _) in COLUMNS.items()}
    known["verdict"] = verdict or None
    known["tags"] = () if tags in ("", MISSING) else tuple(map(_plain, tags.split(";")))
    known["rater"] = rater
    known["blind"] = text("blind").lower() == "true"
    # Empty cells are left out: a rating stays the same if someone adds a column.
    added = {name: _plain(cell) for name, cell in row.items() if name not in COLUMNS}
    return Rating(**known, more=tuple(each for each in added.items() if each[1]))


SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}

LONG = {written[1]: character for character, written in SHORT.items()}


def _escaped(text: str) -> str:
    r"""Escape any text to one line.

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
    r"""Undo `_escaped`; a backslash that begins no escape stands for itself.

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
    """Return descriptions of the columns, in BIDS's form."""
    return {
        name: {"Description": said, **({"Levels": dict(LEVELS[name])} if name in LEVELS else {})}
        for name, (_, said) in COLUMNS.items()
    }
