"""A review as a table: for a terminal, and as CSV or JSON for other programs."""

import textwrap
from pathlib import Path
from typing import Any

from napari_msp.checking.table import NARROWEST, WIDTH, check_table_name
from napari_msp.evaluation.statistics import Kappa
from napari_msp.files import write_json, write_text
from napari_msp.formatting import aligned, counted, csv_text
from napari_msp.review.measures import FEWEST, MEASURES, UNUSUAL
from napari_msp.review.predictions import Entry, Review
from napari_msp.review.rating_table import VERDICTS
from napari_msp.review.ratings import AllRatings, agreement

SIGNS = {"pass": "pass", "fail": "FAIL", "doubtful": "?", "remade": "made again", "unrated": "–"}


ABOUT = {
    "prediction": "key", "subject": "subject", "session": "session", "input": "platform",
    "target": "target", "model": "model", "model_sha256": "model_hash", "risk": "risk",
}  # fmt: skip
"""Columns about a prediction itself, with their names in `Entry`."""


def table_text(review: Review, ratings: AllRatings, width: int = WIDTH) -> str:
    """Format a review for a terminal, riskiest first.

    Unusual numbers and warnings stand below their row.
    """
    width = max(width, NARROWEST)
    known, names = review.measures, review.kind_names
    heading = ["prediction", "risk", *(each.title for each in known), *ratings.raters]
    lines = [heading]
    for entry in review.entries:
        cells = [" ".join(filter(None, (entry.subject, entry.session, names[entry.kind])))]
        cells.append(entry.risk_text)
        cells += [each.text(entry.numbers.get(each.key)) for each in known]
        lines.append(cells + [_state(entry, rater, ratings) for rater in ratings.raters])
    first, *rows = aligned(lines)
    text = [first]
    for entry, row in zip(review.entries, rows, strict=True):
        text.append(row)
        for said in (entry.why, *entry.warnings):
            text += textwrap.wrap(said, width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([*text, "", *textwrap.wrap(_legend(review), width), *summary(review, ratings)])


def _state(entry: Entry, rater: str, ratings: AllRatings) -> str:
    rating = ratings.by_rater[rater].get(entry.key)
    return SIGNS["unrated" if rating is None else rating.state(entry)]


def _legend(review: Review) -> str:
    units = [f"{each.title} in {each.unit}" for each in review.measures if each.unit]
    said = f"{'; '.join(units)}. " if units else ""
    if {"expected_error_median", "error"} <= {each.key for each in review.measures}:
        said += (
            "Expected errors are medians, against what the model was calibrated on; errors are "
            "means, against the scan. "
        )
    if any(entry.unusual for entry in review.entries):
        return (
            f"{said}Beneath a row: what lies {UNUSUAL} or more robust standard deviations (sd) "
            "from the median of its model, target and input, on the side that is worse. risk: root "
            "of the sum of squares of all of these deviations; it sorts, and is not a probability."
        )
    return (
        f"{said}Nothing is called unusual: it takes {FEWEST} or more predictions of one model, "
        "target and input with a number to say what is usual."
    )


def kappa_text(kappa: Kappa) -> str:
    """Format kappa with its interval, or say why there is none.

    >>> kappa_text(Kappa(0.4, 0.1, 0.7, 0.5, 50))
    '0.40 (0.20 to 0.60)'
    """
    if not kappa.count:
        return "– (nothing in common)"
    if kappa.value is None:
        return "– (all gave one and the same verdict)"
    interval = kappa.interval
    text = f"{kappa.value:.2f}" + (
        "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    )
    return text.replace("-", "−")


def summary(review: Review, ratings: AllRatings) -> list[str]:
    """Return lines on predictions, raters' verdicts and agreement, and other images."""
    lines = ["", f"{counted(len(review.entries), 'prediction')}."]
    for rater in ratings.raters:
        states = ratings.states(rater, review.entries)
        rated = sum(states[each] for each in VERDICTS)
        remade = f", {states['remade']} rated before they were made again" * bool(states["remade"])
        lines.append(
            f"{rater}: {rated} rated ({states['pass']} pass, {states['doubtful']} doubtful, "
            f"{states['fail']} fail), {len(review.entries) - rated - states['remade']} not{remade}."
        )
    agreed = agreement(ratings)
    for pair in agreed.pairs:
        lines.append(
            f"{' and '.join(pair.raters)}: Cohen's kappa {kappa_text(pair.kappa)}, weighted "
            f"{kappa_text(pair.weighted)}, on {counted(pair.kappa.count, 'prediction')}, of which "
            f"{len(pair.differing)} differ."
        )
    if agreed.all_raters is not None:
        count = counted(agreed.all_raters.count, "prediction")
        lines.append(f"All raters: Fleiss' kappa {kappa_text(agreed.all_raters)} on {count}.")
    if review.foreign:
        lines.append(f"{counted(len(review.foreign), 'other DWI')} are no predictions.")
    return lines


def write_table(path: str | Path, review: Review, ratings: AllRatings) -> None:
    """Write the review with full precision as CSV, or as JSON with notes, atomically."""
    check_table_name(path)
    if Path(path).suffix == ".csv":
        write_text(path, table_csv(review, ratings))
        return
    content = {
        "folder": str(review.folder),
        "entries": [_about(entry, ratings) for entry in review.entries],
        "problems": [each.phrase() for each in (*review.problems, *ratings.problems)],
        "foreign": [str(path) for path in review.foreign],
        **_agreement(ratings),
    }
    write_json(path, content)


def _agreement(ratings: AllRatings) -> dict[str, Any]:
    """Return the agreement of raters, each kappa with the ends of its 95 % interval."""

    def of(kappa: Kappa) -> dict[str, Any]:
        low, high = kappa.interval or (None, None)
        return {"kappa": kappa.value, "low": low, "high": high, "predictions": kappa.count}

    agreed = agreement(ratings)
    pairs = [
        {"raters": list(pair.raters), **of(pair.kappa), "weighted": of(pair.weighted)}
        for pair in agreed.pairs
    ]
    return {
        "cohens_kappa": pairs,
        "fleiss_kappa": None if agreed.all_raters is None else of(agreed.all_raters),
    }


def table_csv(review: Review, ratings: AllRatings) -> str:
    """Return CSV with a row per prediction; a field is empty if there is no number."""
    header = [*ABOUT, *MEASURES, *(f"{key}_sd" for key in MEASURES), "warnings"]
    header += [f"verdict_{rater}" for rater in ratings.raters]
    rows = (
        [
            *(getattr(entry, name) for name in ABOUT.values()),
            *(entry.numbers.get(key) for key in MEASURES),
            *(entry.unusual.get(key) for key in MEASURES),
            "; ".join(entry.warnings),
            *(_verdict(entry, rater, ratings) for rater in ratings.raters),
        ]
        for entry in review.entries
    )
    return csv_text(header, rows)


def _verdict(entry: Entry, rater: str, ratings: AllRatings) -> str:
    """Return a rater's verdict on the prediction as it is now."""
    rating = ratings.by_rater[rater].get(entry.key)
    return rating.verdict or "" if rating is not None and rating.is_of(entry) else ""


def _about(entry: Entry, ratings: AllRatings) -> dict[str, Any]:
    return {
        **{column: getattr(entry, name) for column, name in ABOUT.items()},
        "numbers": dict(entry.numbers),
        "robust_sd": dict(entry.unusual),
        "warnings": list(entry.warnings),
        "ratings": [
            {
                "rater": each.rater,
                "state": each.state(entry),
                "verdict": each.verdict,
                "tags": list(each.tags),
                "note": each.note,
                "rated_at": each.time,
            }
            for each in ratings.of(entry)
        ],
    }
