"""A review in progress: which predictions are listed, which is looked at, and its ratings.

No Qt here, and no images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from napari_msp.errors import PYTHON, Unexpected, UserError, Words
from napari_msp.formatting import counted
from napari_msp.review.measures import MEASURES
from napari_msp.review.predictions import Entry, NoneReadable, Review, open_review
from napari_msp.review.rating_table import State, Verdict
from napari_msp.review.ratings import Blind, Ratings, Side, open_blind, read_tags
from napari_msp.ui.phrasing import said

STATES: Mapping[State, str] = {
    "unrated": "unrated",
    "pass": "pass",
    "doubtful": "doubtful",
    "fail": "fail",
    "remade": "made again",
}
"""States in words, in the order in which they are offered."""

HIDDEN = "the reason has names in it, which are hidden"


@dataclass(frozen=True)
class Filter:
    """A choice of the predictions that are listed.

    Attributes
    ----------
    state
        Key of `STATES`; "" for all.
    target
        Platform; "" for all.
    text
        Text that names or notes contain, whatever the capitals.
    """

    state: str = ""
    target: str = ""
    text: str = ""


@dataclass(frozen=True)
class KnownNumber:
    """A number of an entry, in words.

    Attributes
    ----------
    key, title, value
        Key and title of the measure, and the value with its unit.
    word
        "high" or "low" where the value is unusual on its bad side; else empty.
    score
        Robust standard deviations from the median of its kind, where it is unusual; else None.
    """

    key: str
    title: str
    value: str
    word: str = ""
    score: float | None = None

    @property
    def words(self) -> str:
        """Text such as "SNR 3.1 (low: 6.2 robust deviations)"."""
        told = f" ({self.word}: {abs(self.score or 0):.1f} robust deviations)" if self.word else ""
        return f"{self.title} {self.value}{told}"


@dataclass(eq=False)
class Session:
    """A folder as one rater looks through it.

    Attributes
    ----------
    review
        Predictions that were found.
    ratings
        The rater's ratings.
    tags
        Tags to choose from, and what each means.
    blind
        Names and order while names are hidden; None: names are shown.
    """

    review: Review
    ratings: Ratings
    tags: dict[str, str]
    blind: Blind | None = None
    filter: Filter = field(default_factory=Filter)
    rows: list[Entry] = field(default_factory=list)
    current: Entry | None = None
    _order: list[Entry] = field(default_factory=list)
    _place: int = 0

    @classmethod
    def open(
        cls, folder: str, rater: str, *, blind: bool = False, hide_roles: bool = False
    ) -> Session:
        """Open a folder for a rater, riskiest first, or in an order that gives nothing away.

        Raises
        ------
        UserError
            If the folder has no predictions, or ratings cannot be read.
        """
        review = open_review(folder)
        ratings = Ratings.open(folder, rater, blind=blind)
        hidden = open_blind(folder, rater, hide_roles=hide_roles) if blind else None
        order = list(review.entries) if hidden is None else hidden.ordered(review.entries)
        session = cls(review, ratings, read_tags(folder), hidden, rows=order, _order=order)
        session.current = session.next_unrated() or next(iter(order), None)
        return session

    # --- What is known ------------------------------------------------------------------------

    @property
    def targets(self) -> list[str]:
        """Platforms that were predicted."""
        return sorted({entry.target for entry in self.review.entries})

    @cached_property
    def several_sessions(self) -> bool:
        """Whether a subject's name alone does not tell its scans apart."""
        scans = {(entry.subject, entry.session, entry.platform) for entry in self.review.entries}
        return len({subject for subject, *_ in scans}) < len(scans)

    @cached_property
    def several_models(self) -> bool:
        """Whether a target alone does not tell predictions apart."""
        return len({(entry.title, entry.model_hash) for entry in self.review.entries}) > 1

    def subject(self, entry: Entry) -> str:
        """Return the name of who was scanned, as far as it may be known."""
        if self.blind is not None:
            return self.blind.name(entry)
        scan = entry.session or entry.platform
        return f"{entry.subject} {scan}" if self.several_sessions else entry.subject

    def target(self, entry: Entry) -> str:
        """Return the name of what was predicted; empty while names are hidden."""
        if self.blind is not None:
            return ""
        return entry.provenance.name if self.several_models else entry.target

    def name(self, entry: Entry) -> str:
        """Return the name of an entry, such as "sub-01 → prisma_st"."""
        target = self.target(entry)
        return f"{self.subject(entry)} → {target}" if target else self.subject(entry)

    def sides(self, entry: Entry) -> tuple[Side, Side]:
        """Return which image is shown first, and which second."""
        return ("scan", "prediction") if self.blind is None else self.blind.sides(entry)

    def state(self, entry: Entry) -> State:
        """Return the state of the rater's rating of an entry."""
        return self.ratings.state(entry)

    def tags_of(self, entry: Entry) -> tuple[str, ...]:
        """Return the tags that were set for an entry."""
        rating = self.ratings.of(entry)
        return rating.tags if rating is not None and rating.is_of(entry) else ()

    def note_of(self, entry: Entry) -> str:
        """Return the note on an entry."""
        rating = self.ratings.of(entry)
        return rating.note if rating is not None and rating.is_of(entry) else ""

    def numbers(self, entry: Entry) -> list[KnownNumber]:
        """Return the numbers of an entry; none while names are hidden: numbers would tell."""
        if self.blind is not None:
            return []
        return [known for key in MEASURES if (known := number_of(entry, key)) is not None]

    @property
    def progress_words(self) -> str:
        """Number of present ratings, such as "12 of 20 rated"."""
        states = [self.state(each) for each in self._order]
        remade = states.count("remade")
        rated = len(states) - remade - states.count("unrated")
        more = f"; {remade} made again since" if remade else ""
        return f"{rated} of {len(states)} rated{more}"

    # --- What is hidden -----------------------------------------------------------------------

    def tells(self, text: str) -> bool:
        """Return whether a text tells a name that is hidden."""
        if self.blind is None:
            return False
        hidden = {
            name
            for entry in self.review.entries
            for name in (entry.subject, entry.session, entry.platform, entry.target, entry.title)
        }
        return any(name in text for name in hidden if name)

    def disguised(self, error: UserError, entry: Entry | None = None) -> UserError:
        """Return an error without names that are hidden: rather too few words than too many.

        Parameters
        ----------
        error
            Error as it is where names are shown.
        entry
            Entry that was worked on, whose hidden name replaces files with names.
        """
        if self.blind is None:
            return error
        subject, problem, remedy = error.subject, error.problem, error.remedy
        if subject is not None and subject in self.review:
            subject = self.blind.name(self.review[subject])
        elif subject is not None and self.tells(Path(subject).name):
            subject = None if entry is None else self.blind.name(entry)
        if self.tells(problem):
            problem = f"went wrong; {HIDDEN}"
        if remedy is not None and self.tells(remedy.phrase()):
            remedy = None
        return UserError(problem, subject, error.field, remedy)

    def problems_words(self, words: Words = PYTHON) -> str:
        """Return what of the folder cannot be read; empty where nothing is wrong."""
        problems = self.review.problems
        if not problems:
            return ""
        told = f"{counted(len(problems), 'prediction')} cannot be read"
        if self.blind is not None:
            return f"{told}; the reasons have names in them, which are hidden."
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{told}: {said(problems[0], words)}{others}"

    # --- Where we are -------------------------------------------------------------------------

    def sort(self, key: Callable[[Entry], object] | None, descending: bool = False) -> None:
        """List in another order; None: the first one."""
        first = list(self.review.entries)
        if self.blind is not None:
            first = self.blind.ordered(first)
        self._order = first if key is None else sorted(first, key=key, reverse=descending)  # type: ignore[arg-type]
        self.show_only(self.filter)

    def show_only(self, wanted: Filter) -> None:
        """List the entries that a filter lets through; the current one stays, listed or not."""
        self.filter = wanted
        self.rows = [entry for entry in self._order if self._listed(entry)]
        if self.row is not None:
            self._place = self.row

    @property
    def row(self) -> int | None:
        """Place of the current entry in the list; None where it is not listed."""
        return self.rows.index(self.current) if self.current in self.rows else None

    def go_to(self, entry: Entry) -> None:
        """Make an entry the current one."""
        self.current = entry
        if self.row is not None:
            self._place = self.row

    def step(self, by: int) -> Entry | None:
        """Return the entry `by` rows further; None at either end of the list."""
        row = self.row
        if row is None:  # it was filtered out: the entry in its place is the next one
            row = self._place - (1 if by > 0 else 0)
        there = row + by
        return self.rows[there] if 0 <= there < len(self.rows) else None

    def next_unrated(self) -> Entry | None:
        """Return the next unrated entry of the list, which starts again after its end; or None."""
        row = self.row
        start = self._place if row is None else row + 1
        ordered = [*self.rows[start:], *self.rows[:start]]
        return next((each for each in ordered if self.state(each) in ("unrated", "remade")), None)

    def ahead(self, count: int) -> list[Entry]:
        """Return the entries probably looked at next: those that follow, then the one before."""
        row = self.row
        start = self._place if row is None else row + 1
        coming = self.rows[start : start + count]
        unrated = self.next_unrated()
        before = self.rows[max(0, start - 2) : max(0, start - 1)]
        found = [*coming[:1], *([unrated] if unrated is not None else []), *coming[1:], *before]
        return list(dict.fromkeys(each for each in found if each is not self.current))

    # --- What is said -------------------------------------------------------------------------

    def rate(self, verdict: Verdict) -> None:
        """Rate the current entry; the rating is on the disk when this returns."""
        assert self.current is not None
        self.ratings.rate(self.current, verdict)

    def note(self, text: str) -> None:
        """Write a note on the current entry."""
        assert self.current is not None
        if text != self.note_of(self.current):
            self.ratings.annotate(self.current, note=text)

    def toggle_tag(self, tag: str) -> None:
        """Set a tag of the current entry, or remove it."""
        assert self.current is not None
        tags = self.tags_of(self.current)
        kept = [each for each in tags if each != tag] if tag in tags else [*tags, tag]
        self.ratings.annotate(self.current, tags=kept)

    def undo(self) -> Entry | None:
        """Undo the last rating, tag or note, and go to its entry; None where there is none."""
        key = self.ratings.undo()
        if key is None or key not in self.review:
            return None
        self.go_to(self.review[key])
        return self.current

    def _listed(self, entry: Entry) -> bool:
        wanted = self.filter
        text = wanted.text.casefold()
        return (
            wanted.state in ("", self.state(entry))
            and (wanted.target in ("", entry.target) or self.blind is not None)
            and (text in self.name(entry).casefold() or text in self.note_of(entry).casefold())
        )


def number_of(entry: Entry, key: str) -> KnownNumber | None:
    """Return a number of an entry in words; None where it is not known."""
    if key not in entry.numbers:
        return None
    measure, score = MEASURES[key], entry.outlying.get(key)
    word = "" if score is None else "high" if score > 0 else "low"
    text = measure.with_unit(entry.numbers[key])
    return KnownNumber(key, measure.title, text, word, score)


def unusual_words(numbers: Sequence[KnownNumber]) -> str:
    """Return the unusual measures, such as "SNR low, mask high"."""
    return ", ".join(f"{each.title} {each.word}" for each in numbers if each.word)


def without_names(error: UserError) -> UserError:
    """Return an error of opening a folder without the names in it that are to be hidden."""
    if isinstance(error, NoneReadable):
        return UserError(
            f"has no prediction that can be read; {HIDDEN}", error.subject, error.field
        )
    if isinstance(error, Unexpected):
        return UserError(f"went wrong; {HIDDEN}")
    return error
