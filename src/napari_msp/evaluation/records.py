"""Errors of many models over many heads, and how they are paired."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_msp.errors import UserError
from napari_msp.evaluation.metrics import Metrics

Samples = dict[str, float]
"""Error by the name of what was measured: a patch of a head, or a head."""


@dataclass(frozen=True)
class ErrorRecord:
    """One model's SH MSE on one patch of one held-out head.

    Attributes
    ----------
    model, target, subject
        Their names.
    patch
        Names the patch within the subject; empty where the whole head was measured at once.
    error
        In SH units squared.
    """

    model: str
    target: str
    subject: str
    patch: str
    error: float


def patch_records(model: str, target: str, subject: str, metrics: Metrics) -> list[ErrorRecord]:
    """Make the records of one prediction, one a patch."""
    return [
        ErrorRecord(model, target, subject, "-".join(map(str, centre)), float(error))
        for centre, error in zip(metrics.patches.centres, metrics.patches.mse, strict=True)
    ]


class ErrorTable:
    """The records by model and target, each with samples that pair between models."""

    def __init__(self, records: Iterable[ErrorRecord]) -> None:
        self._samples: dict[tuple[str, str], Samples] = {}
        self._subjects: dict[str, str] = {}
        for record in records:
            cell = self._samples.setdefault((record.model, record.target), {})
            name = f"{record.subject}/{record.patch}"
            if name in cell:
                raise UserError(
                    f"{record.model}: {record.target}, {name} was measured twice; give it once"
                )
            if not np.isfinite(record.error):
                raise UserError(
                    f"{record.model}: its error on {record.target}, {name} is not finite; "
                    "look at the prediction"
                )
            cell[name] = record.error
            self._subjects[name] = record.subject
        if not self._samples:
            raise UserError("--models: nothing was measured; give a model and a held-out subject")

    @property
    def models(self) -> list[str]:
        """In the order in which they first came."""
        return list(dict.fromkeys(model for model, _ in self._samples))

    @property
    def targets(self) -> list[str]:
        """In the order in which they first came."""
        return list(dict.fromkeys(target for _, target in self._samples))

    @property
    def subjects(self) -> list[str]:
        """Sorted."""
        return sorted(set(self._subjects.values()))

    def patches(self, model: str, target: str) -> Samples:
        """Errors by patch; empty where the model has no such target."""
        return dict(self._samples.get((model, target), {}))

    def heads(self, model: str, target: str) -> Samples:
        """Mean error by subject; empty where the model has no such target."""
        gathered: dict[str, list[float]] = {}
        for name, error in self.patches(model, target).items():
            gathered.setdefault(self._subjects[name], []).append(error)
        return {subject: float(np.mean(errors)) for subject, errors in gathered.items()}


def paired(first: Samples, second: Samples) -> tuple[list[float], list[float]]:
    """Give the errors of the samples that both have, in one order."""
    shared: Sequence[str] = [name for name in first if name in second]
    return [first[name] for name in shared], [second[name] for name in shared]
