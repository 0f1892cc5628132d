"""Measured numbers, one per row, and their CSV files."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import TypeAdapter

from napari_msp.errors import Advice, UserError
from napari_msp.files import write_text
from napari_msp.foreign_errors import first_reason
from napari_msp.formatting import csv_text
from napari_msp.strict_json import read_whole

FLOOR = "noise-free twin (floor)"
"""Row of the scans' own noise: not a method, so it is neither best nor tested."""


TARGET_SCAN = "target's own scan"
"""Row of an effect in the target's noisy scans: as much as any method can keep."""


@dataclass(frozen=True)
class Sample:
    """The method, target and subject of a measurement.

    Attributes
    ----------
    method
        Row of the table, such as "MSP".
    subject
        Predicted subject; a name identifies a subject within its dataset only.
    reference
        Kind of truth: "scan" or "noise-free".
    shell
        Name of the shell in s/mm², if several were measured.
    """

    method: str
    target: str
    dataset: str
    seed: int
    subject: str
    reference: str
    shell: int | None = field(default=None, kw_only=True)

    @property
    def column(self) -> str:
        """Name of its column in a table."""
        return column_name(self.target, self.shell)


@dataclass(frozen=True)
class Result(Sample):
    """One measure of one predicted head, by its key in `catalogue.MEASURES`."""

    measure: str
    value: float


@dataclass(frozen=True)
class PatchResult(Sample):
    """SH MSE of one non-overlapping patch, in SH units squared."""

    patch: str
    value: float


@dataclass(frozen=True)
class RegionValue(Sample):
    """One quantity of an image in one region of one head.

    The reference is "scan" for measured subjects and "training" for those learned from. Quantities
    are those of `proof.values.QUANTITIES`.
    """

    region: str
    quantity: str
    value: float


@dataclass(frozen=True)
class EffectResult(Sample):
    """An effect of `biology.EFFECTS` in one head: its size in truth, and in the prediction."""

    effect: str
    true: float
    value: float


Thing = TypeVar("Thing")
Key = TypeVar("Key")
Row = TypeVar("Row", Result, PatchResult, RegionValue, EffectResult)


def column_name(target: str, shell: int | None) -> str:
    """Return the name of a table's column: the target, and the shell if there are several.

    >>> column_name("prisma_st", 3000)
    'prisma_st b3000'
    """
    return target if shell is None else f"{target} b{shell}"


LARGEST_TABLE = 1_000_000_000
"""Largest size of a table in bytes; patches of many heads take some MB."""


def grouped(items: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    """Split things by a key, in order of first appearance."""
    found: dict[Key, list[Thing]] = {}
    for each in items:
        found.setdefault(key(each), []).append(each)
    return found


class Results(Generic[Row]):
    """A long table of results.

    Raises
    ------
    UserError
        When a value is not finite or was measured twice. Unmeasured values have no row.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: tuple[Row, ...] = tuple(rows)
        seen: set[tuple[object, ...]] = set()
        for row in self.rows:
            *name, value = astuple(row)
            where = ", ".join(str(each) for each in name if each is not None)
            if not np.isfinite(value):
                remedy = Advice("look at the prediction")
                raise UserError("the value is not finite", where, remedy=remedy)
            if tuple(name) in seen:
                raise UserError("was measured twice", where, remedy=Advice("give it once"))
            seen.add(tuple(name))

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def methods(self) -> list[str]:
        """Methods in order of first appearance, like all that follow."""
        return self.names("method")

    @property
    def targets(self) -> list[str]:
        """Platforms that were predicted."""
        return self.names("target")

    @property
    def columns(self) -> list[str]:
        """Targets, each with its shells if there are several."""
        return self.names("column")

    @property
    def references(self) -> list[str]:
        """Kinds of truth."""
        return self.names("reference")

    def select(self, **wanted: object) -> "Results[Row]":
        """Return the rows whose fields have these values: `select(method="MSP", seed=0)`."""
        if not wanted:
            return self
        rows = (row for row in self.rows if all(getattr(row, k) == v for k, v in wanted.items()))
        return self._part(rows)

    def groups(self, *names: str) -> dict[tuple[str, ...], "Results[Row]"]:
        """Split by the values of several fields, in order of first appearance."""
        found = grouped(self.rows, lambda row: tuple(getattr(row, name) for name in names))
        return {key: self._part(rows) for key, rows in found.items()}

    def sample_means(self, *names: str) -> dict[tuple[str, ...], float]:
        """Return mean values by the fields that name a sample; seeds are averaged over."""
        return {
            key: float(np.mean([row.value for row in part]))
            for key, part in self.groups(*names).items()
        }

    def renamed(self, names: Mapping[str, str]) -> "Results[Row]":
        """Return the same rows, with other names of these methods."""
        return self._part(replace(row, method=names.get(row.method, row.method)) for row in self)

    def _part(self, rows: Iterable[Row]) -> "Results[Row]":
        part = object.__new__(Results)
        part.rows = tuple(rows)  # already checked as part of the whole
        return part

    def names(self, of: str) -> list[Any]:
        """Return the values of a field, in order of first appearance."""
        return list(dict.fromkeys(getattr(row, of) for row in self.rows))


def results_csv(results: Results[Row], kind: type[Row]) -> str:
    """Return results as CSV with full precision, one column per field of `kind`.

    The shell has a column only if there are several.
    """
    names = _columns(kind, any(row.shell is not None for row in results))
    return csv_text(names, ([getattr(row, name) for name in names] for row in results))


def _columns(kind: type[Row], with_shells: bool) -> list[str]:
    return [each.name for each in fields(kind) if with_shells or each.name != "shell"]


def write_results(path: Path, results: Results[Row], kind: type[Row]) -> None:
    """Write `results_csv` atomically."""
    write_text(path, results_csv(results, kind))


def read_results(path: Path, kind: type[Row]) -> Results[Row]:
    """Read back what `write_results` wrote, to the last bit."""
    text = read_whole(path, LARGEST_TABLE)
    try:
        header, *lines = csv.reader(io.StringIO(text.decode(), newline=""))
        names = _columns(kind, "shell" in header)
        if header != names or any(len(line) != len(names) for line in lines):
            raise ValueError(f"its columns are not {', '.join(names)}")
        rows = [dict(zip(names, line, strict=True)) for line in lines]
        return Results(TypeAdapter(list[kind]).validate_python(rows))  # type: ignore[valid-type]
    except (ValueError, csv.Error) as error:  # also if it is not UTF-8, or has no line
        problem = f"is not a table of results ({first_reason(error)})"
        remedy = Advice("delete its folder to measure again")
        raise UserError(problem, path, remedy=remedy) from error
