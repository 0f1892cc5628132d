"""Page of a review: a table with pictures, distributions, ratings; one file, no network.

Names and notes come from files that anybody may have written: the template escapes them, and the
page's policy lets no script run but its own, by its digest.
"""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from napari_msp.errors import Poll, Progress
from napari_msp.files import refuse_unwritable, write_text
from napari_msp.formatting import counted, listed
from napari_msp.review.measures import (
    FEWEST,
    UNUSUAL,
    WARNING_WEIGHT,
    ReviewMeasure,
    badness,
    robust_scale,
    score_text,
)
from napari_msp.review.pictures import PredictionPicture, draw_all
from napari_msp.review.predictions import Entry, Review, place_in
from napari_msp.review.rating_table import VERDICTS, Rating
from napari_msp.review.ratings import AllRatings, RaterAgreement, agreement, read_all_ratings
from napari_msp.review.table import kappa_text

REPORT = "report.html"
"""File in the folder `review` of the predictions."""

MOST_FIRST = 12
"""Number of entries named at the top of the page, and of those where raters differ."""

MOST_NAMED = 6
"""Number of outliers named in one row of a plot, as more names would overlap."""


def review_report(
    review: Review,
    path: str | Path | None = None,
    *,
    ratings: AllRatings | None = None,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> Path:
    """Write the page of a review.

    Parameters
    ----------
    review
        See `open_review`.
    path
        File to write; None: `review/report.html` in its folder.
    ratings
        Ratings that the page shows; None: everybody's.
    progress, cancelled
        As for `draw_all`.

    Returns
    -------
    The file, which needs no other file.

    Raises
    ------
    UserError
        When it cannot be written; this is checked before anything is drawn.
    Cancelled
        When `cancelled` said so.
    """
    path = place_in(review.folder) / REPORT if path is None else Path(path)
    refuse_unwritable(path)
    if ratings is None:
        ratings = read_all_ratings(review.folder)
    write_text(path, report_html(review, ratings, draw_all(review, progress, cancelled)))
    return path


def report_html(
    review: Review, ratings: AllRatings, pictures: Mapping[str, PredictionPicture]
) -> str:
    """Fill in the page's template, report.html beside this file."""
    here = files(__package__)
    style, script = ((here / f"report.{each}").read_text("utf-8") for each in ("css", "js"))
    page = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    agreed = agreement(ratings)
    numbers = {entry.key: number for number, entry in enumerate(review.entries)}
    names = review.kind_names
    rows = [
        _row(number, entry, names[entry.kind], ratings, agreed, pictures[entry.key])
        for number, entry in enumerate(review.entries)
    ]
    wanting = [row for row in rows if row.entry.outlying or row.entry.warnings]
    return page.get_template("report.html").render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        review=review,
        lead=_lead(review, ratings),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by napari-msp {version('napari-msp')}",
        most=MOST_FIRST,
        first=wanting[:MOST_FIRST],
        failed=[row for row in rows if "fail" in row.statuses],
        wanting=len(wanting),
        plots=[plot for each in review.measures if (plot := distribution(each, review, numbers))],
        ratings=ratings,
        raters=[_of_rater(rater, review, ratings) for rater in ratings.raters],
        agreed=agreed,
        kappa=kappa_text,
        differing=[
            (numbers.get(key), key, listed([f"{who}: {what}" for who, what in said.items()]))
            for key, said in list(agreed.differing.items())[:MOST_FIRST]
        ],
        more_differing=max(0, len(agreed.differing) - MOST_FIRST),
        order=VERDICTS,
        measures=review.measures,
        score_text=score_text,
        rows=rows,
        kinds=sorted({row.kind for row in rows}),
        seen=dict(Counter(status for row in rows for status in row.statuses)),
        fewest=FEWEST,
        unusual=UNUSUAL,
        warning_weight=f"{WARNING_WEIGHT:.0f}",
        enough=any(entry.unusual for entry in review.entries),
    )


def _policy(style: str, script: str) -> str:
    """Return the page's policy: nothing from elsewhere, only its own style and script."""
    styles, scripts = (
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()
        for each in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{styles}'; "
        f"script-src 'sha256-{scripts}'; base-uri 'none'; form-action 'none'"
    )


def _lead(review: Review, ratings: AllRatings) -> str:
    subjects = len({entry.subject for entry in review.entries})
    targets = sorted({entry.target for entry in review.entries})
    rated = sum(
        any(each.verdict and each.is_of(entry) for each in ratings.of(entry))
        for entry in review.entries
    )
    return (
        f"{counted(len(review.entries), 'prediction')} of {counted(subjects, 'subject')} "
        f"for {listed(targets)}; {rated} rated, {len(review.entries) - rated} not."
    )


# --- Rows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportRow:
    """One prediction in the table; `number` is its place by risk, from 0."""

    number: int
    entry: Entry
    kind: str
    ratings: tuple[tuple[str, str, Rating], ...]
    statuses: tuple[str, ...]
    picture: PredictionPicture
    search: str


def _row(
    number: int,
    entry: Entry,
    kind: str,
    ratings: AllRatings,
    agreed: RaterAgreement,
    picture: PredictionPicture,
) -> ReportRow:
    said = [(each.rater, each.state(entry), each) for each in ratings.of(entry)]
    states: set[str] = {state for _, state, _ in said if state != "unrated"} or {"unrated"}
    statuses = sorted(states | ({"raters differ"} if entry.key in agreed.differing else set()))
    if entry.outlying or entry.warnings:
        statuses.append("unusual")
    tags = [tag for _, _, rating in said for tag in rating.tags]
    words = [entry.name, entry.model, *entry.warnings, *tags, *(each.note for *_, each in said)]
    return ReportRow(
        number=number,
        entry=entry,
        kind=kind,
        ratings=tuple(said),
        statuses=tuple(statuses),
        picture=picture,
        search=" ".join(words).casefold(),
    )


# --- Ratings ----------------------------------------------------------------------------------


def _of_rater(rater: str, review: Review, ratings: AllRatings) -> dict[str, Any]:
    """Count a rater's verdicts and tags."""
    theirs = ratings.by_rater[rater]
    states = ratings.states(rater, review.entries)
    tags = Counter(
        tag
        for entry in review.entries
        if entry.key in theirs and theirs[entry.key].is_of(entry)
        for tag in theirs[entry.key].tags
    )
    rated = sum(states[each] for each in VERDICTS) + states["remade"]
    return {
        "name": rater,
        "counts": [states[each] for each in VERDICTS],
        "remade": states["remade"],
        "unrated": len(review.entries) - rated,
        "elsewhere": sum(key not in review for key in theirs),
        "blind": sum(each.blind for each in theirs.values()),
        "tags": [f"{tag} ({count})" for tag, count in tags.most_common()],
    }


# --- Distributions ----------------------------------------------------------------------------

LEFT, RIGHT, ROW, TOP = 8.0, 452.0, 50.0, 0.0
"""Edges and row height of a plot, in its own units."""


@dataclass(frozen=True)
class Dot:
    """An entry in a plot."""

    x: float
    y: float
    number: int
    out: bool


@dataclass(frozen=True)
class Strip:
    """The distribution of a number over predictions of one kind.

    The median and the limits `low` and `high` of usual values are None for too few values.
    """

    name: str
    y: float
    dots: tuple[Dot, ...]
    median: float | None
    low: float | None
    high: float | None
    labels: tuple[tuple[float, float, str, str], ...]
    hidden: int


@dataclass(frozen=True)
class Distributions:
    """The distributions of one number."""

    title: str
    described: str
    strips: tuple[Strip, ...]
    height: float
    ticks: tuple[tuple[float, str], ...]


def distribution(
    measure: ReviewMeasure, review: Review, numbers: Mapping[str, int]
) -> Distributions | None:
    """Lay out the distribution of a number; None if no prediction has it."""
    key = measure.key
    names = review.kind_names
    known = {
        names[kind]: [entry for entry in entries if key in entry.numbers]
        for kind, entries in review.kinds.items()
    }
    values = [entry.numbers[key] for entries in known.values() for entry in entries]
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2

    def place(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (value - low) / (high - low), 1)

    strips: list[Strip] = []
    for name, entries in sorted(known.items()):
        if entries:
            y = TOP + ROW * (len(strips) + 0.74)
            strips.append(_strip(name, y, measure, entries, numbers, place))
    height = TOP + ROW * len(strips) + 18
    middle = (low + high) / 2
    ticks = tuple((place(each), measure.text(each)) for each in (low, middle, high))
    title = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    return Distributions(title, measure.described, tuple(strips), height, ticks)


def _strip(
    name: str,
    y: float,
    measure: ReviewMeasure,
    entries: Sequence[Entry],
    numbers: Mapping[str, int],
    place: Callable[[float], float],
) -> Strip:
    key = measure.key
    jitters = _jitters(len(entries))
    dots = tuple(
        Dot(
            place(entry.numbers[key]),
            round(y + jitter, 1),
            numbers[entry.key],
            key in entry.outlying,
        )
        for entry, jitter in zip(entries, jitters, strict=True)
    )
    out = [entry for entry in entries if key in entry.outlying]
    worst = sorted(out, key=lambda entry: -badness(key, entry.unusual[key]))
    labels = tuple(_labels(worst[:MOST_NAMED], key, y, place))
    scale = robust_scale([entry.numbers[key] for entry in entries])
    median = low = high = None
    if scale is not None:
        median = place(scale[0])
        if measure.bad != "high":
            low = _inside(place(scale[0] - UNUSUAL * scale[1]))
        if measure.bad != "low":
            high = _inside(place(scale[0] + UNUSUAL * scale[1]))
    return Strip(name, y, dots, median, low, high, labels, len(worst) - len(labels))


def _labels(
    entries: Iterable[Entry], key: str, y: float, place: Callable[[float], float]
) -> Iterator[tuple[float, float, str, str]]:
    """Yield names above their dots, from the nearer edge; those that would collide are left out."""
    taken: list[tuple[float, float]] = []
    for entry in entries:
        x = place(entry.numbers[key])
        anchor = "end" if x > (LEFT + RIGHT) / 2 else "start"
        width = 6.2 * len(entry.subject)
        span = (x - width, x) if anchor == "end" else (x, x + width)
        if all(span[1] < start or span[0] > stop for start, stop in taken):
            taken.append(span)
            yield x, round(y - 12, 1), anchor, entry.subject


def _inside(x: float) -> float | None:
    return x if LEFT <= x <= RIGHT else None


def _jitters(count: int) -> list[float]:
    """Spread dots across a strip, evenly and reproducibly (the golden ratio)."""
    ratio = (math.sqrt(5) - 1) / 2
    return [10 * ((number * ratio) % 1 - 0.5) for number in range(count)]
