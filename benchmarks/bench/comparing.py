"""What a subject declares: comparisons of two ways to do one thing, and tables."""

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """How a run is made.

    Attributes
    ----------
    quick
        Smaller inputs: the whole run takes minutes.
    threads
        That each side may use. The environment's variables, torch and BLAS know it already.
    folder
        For files; emptied at the end.
    """

    quick: bool
    threads: int
    folder: Path


@dataclass(frozen=True)
class Sides:
    """Two ways to do one thing, ready to be timed.

    Attributes
    ----------
    ours, peer
        What a call of each does is timed whole.
    work
        How much a call of ours and of the peer's does, where that differs.
    figures
        From what the last calls gave: more to be told, such as differences; texts by name.
    """

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    work: tuple[float, float] = (1.0, 1.0)
    figures: Callable[[Any, Any], Mapping[str, str]] = lambda ours, peer: {}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing, done by us and by a peer.

    Attributes
    ----------
    name
        What is done.
    peer
        Who does it otherwise, in a few words that stay: both together are unique in a subject.
    prepare
        Makes the inputs; what it opened is closed after the timing.
    goal
        Ratio to reach (the peer's time over ours, a unit of work each); None: there is none.
    unit
        Of the work; shown by the second. Empty: both do the same, and seconds are shown.
    needs
        Modules to import and programs to start of the peer's: what is missing is said.
    repeats, quick_repeats
        Times that each side is timed.
    warm_ups
        Calls of each before that.
    """

    name: str
    peer: str
    prepare: Callable[[Setting], AbstractContextManager[Sides]]
    goal: float | None = None
    unit: str = ""
    needs: tuple[str, ...] = ()
    repeats: int = 9
    quick_repeats: int = 3
    warm_ups: int = 1

    @property
    def key(self) -> str:
        """What it is kept under."""
        return f"{self.name}, beside {self.peer}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures without a peer, such as where the time goes.

    Attributes
    ----------
    name
        Its heading, unique in its subject.
    columns
        Their headings.
    rows
        Measures; gives the cells' texts.
    needs
        As a comparison's.
    """

    name: str
    columns: Sequence[str]
    rows: Callable[[Setting], Sequence[Sequence[str]]]
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self.name


@dataclass(frozen=True)
class Subject:
    """What one file compares.

    Attributes
    ----------
    name
        As `--only` knows it.
    about
        What is compared and how, for a reader of `RESULTS.md`: Markdown.
    comparisons, tables
        In the order in which they are measured and shown.
    """

    name: str
    about: str
    comparisons: Sequence[Comparison] = ()
    tables: Sequence[Table] = ()

    @property
    def all(self) -> list[Comparison | Table]:
        """Comparisons, then tables."""
        return [*self.comparisons, *self.tables]


def missing(each: Comparison | Table) -> list[str]:
    """Give which of its needs are not installed."""
    return [name for name in each.needs if not is_there(name)]


def is_there(name: str) -> bool:
    """Return whether a module can be imported, or a program started."""
    return shutil.which(name) is not None or importlib.util.find_spec(name) is not None
