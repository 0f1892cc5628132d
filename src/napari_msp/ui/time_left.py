"""How long work will still take, from how it has gone so far."""

from collections.abc import Sequence

HOUR, MINUTE = 3600, 60


def estimate(history: Sequence[tuple[float, int]], total: int, now: float) -> float | None:
    """Estimate the seconds that are left.

    Parameters
    ----------
    history
        Time in seconds and pieces done, from the beginning of the work; times may have any zero.
    total
        Pieces in all.
    now
        Time; what has passed since the last report counts as work.

    Returns
    -------
    Seconds, never negative; None before anything was done since the first report.
    """
    if not history:
        return None
    (began, done_before), (latest, done) = history[0], history[-1]
    if done <= done_before or latest <= began:
        return None
    pace = (latest - began) / (done - done_before)
    return max(0.0, pace * (total - done) - (now - latest))


def in_words(seconds: float | None) -> str:
    """Say it as people do.

    >>> in_words(3), in_words(23), in_words(170), in_words(5000)
    ('a few seconds left', 'about 20 s left', 'about 3 min left', 'about 1 h 25 min left')
    >>> in_words(None)
    ''
    """
    if seconds is None:
        return ""
    if seconds < 7.5:
        return "a few seconds left"
    if seconds < 55:
        step = 5 if seconds < 27.5 else 10
        return f"about {step * round(seconds / step)} s left"
    minutes = max(1, round(seconds / MINUTE))
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(5 * round(seconds / MINUTE / 5), 60)
    return f"about {hours} h {minutes} min left" if minutes else f"about {hours} h left"
