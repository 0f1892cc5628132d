"""Results of a long benchmark, kept as they come: run again, it goes on where it stopped."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from napari_msp import simulate

Job = tuple[str, Callable[[], Any]]
"""A result's name, and what gives it, in plain JSON types."""


class Kept:
    """Results by name.

    Parameters
    ----------
    path
        File that they stand in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def run(
        self, jobs: Iterable[Job], minutes: float, say: Callable[[Any], object] = lambda each: each
    ) -> bool:
        """Do what is not done yet; give whether all is done.

        Parameters
        ----------
        jobs
            Each result's name and what gives it, in order.
        minutes
            Nothing is begun after that, nor what would likely end after it: what takes as long as
            the longest before.
        say
            What is printed of a result.
        """
        stop, longest = time.monotonic() + 60 * minutes, 0.0
        for name, job in jobs:
            if name in self.results:
                continue
            began = time.monotonic()
            if began + longest > stop:
                print("time is up")
                return False
            self.results[name] = job()
            longest = max(longest, time.monotonic() - began)
            self._path.write_text(json.dumps(self.results, indent=1))
            print(name, say(self.results[name]), flush=True)
        return True


def tiny_heads(
    description: str | None, subjects: int, seed: int, **values: Any
) -> tuple[Path, Kept, float]:
    """Read a folder and minutes from the command line; simulate heads where there are none yet.

    Parameters
    ----------
    description
        Of the script.
    subjects, seed, **values
        As for `simulate`.

    Returns
    -------
    The folder, which has them in "heads"; what is kept in it; and the minutes for `Kept.run`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    if not (options.folder / "heads").exists():
        simulate(options.folder / "heads", subjects, "tiny", seed, **values)
    return options.folder, Kept(options.folder / "results.json"), options.minutes
