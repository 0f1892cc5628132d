"""What the Harmonize button starts: every chosen model and target, one after the other. No Qt."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from napari_msp.errors import Cancelled, UserError
from napari_msp.formatting import short
from napari_msp.ui.background import Control, Step, abandonable
from napari_msp.ui.layers import LayerData
from napari_msp.ui.records import Record

if TYPE_CHECKING:
    from napari_msp.inference.harmonize import Prediction
    from napari_msp.inference.prepared_input import PreparedInput
    from napari_msp.model_file import Model
    from napari_msp.ui.harmonizing.against_truth import Errors, Truth

PREPARED, TILED = 0.05, 0.85
"""Shares of a pass that are done once its input is ready, and once all tiles are (our guess)."""

PIECES = 100
"""That the work of a pass is counted in."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One model and one of its targets.

    Attributes
    ----------
    label
        Of the model, such as "MSP".
    """

    label: str
    model: Model
    target: str

    @property
    def name(self) -> str:
        """Such as "MSP → prisma_st"."""
        return f"{self.label} → {self.target}"


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be done.

    Attributes
    ----------
    scan
        With its acquisition.
    passes
        Targets of one model stand together.
    device, tile, resample, rescale_b_value
        As for `napari_msp.harmonize`.
    """

    scan: Record
    passes: tuple[Pass, ...]
    device: str = "auto"
    tile: int | None = None
    resample: bool = False
    rescale_b_value: bool = False


@dataclass(frozen=True, eq=False)
class Predicted:
    """One pass is done.

    Attributes
    ----------
    record
        The prediction.
    layers
        From the bottom up, ready to be added.
    errors
        Against truth; None where there is none, or where nobody measured.
    notes
        What a person must know: doubts, approximations, a truth that could not be used.
    """

    record: Record
    layers: tuple[LayerData, ...]
    errors: Errors | None
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line, such as "MSP → prisma_st: SH MSE 3.1e-4 (before: 8.3e-4)"."""
        prediction = self.record.prediction
        assert prediction is not None
        name = f"{self.record.label} → {prediction.target}"
        if self.errors is None:
            truth = prediction.target in self.record.siblings
            return f"{name}: {'not measured' if truth else 'no truth to measure against'}"
        before = self.errors.sh_mse_before
        beside = "" if before is None else f" (before: {short(before)})"
        return f"{name}: SH MSE {short(self.errors.sh_mse)}{beside}"


@dataclass(frozen=True)
class Trace:
    """Where in the code an error came from, for whoever wants the details."""

    text: str


def notes_of(record: Record) -> tuple[str, ...]:
    """Give what a person must know of a prediction, as far as its record tells."""
    prediction, scan, model = record.prediction, record.source, record.model
    assert prediction is not None
    notes = (*prediction.warnings, *prediction.approximations)
    if scan is None or model is None or scan.name in ("", model.card.input):
        return notes
    doubt = f"{record.label} is for scans of {model.card.input}; this is {scan.name}."
    return (doubt, *notes)


def harmonize_all(request: Request, control: Control) -> None:
    """Predict pass by pass, and report each `Predicted` as soon as it is ready.

    Reports `Step`, `Predicted` and, before an error is raised, a `Trace`. A core is left to
    the window.

    Raises
    ------
    UserError
        As `napari_msp.harmonize`.
    Cancelled
        When the job was cancelled.
    """
    from threadpoolctl import threadpool_limits

    from napari_msp.device import leave_a_core

    try:
        # BLAS has threads of its own, as many as there are cores.
        with leave_a_core(), threadpool_limits(1, user_api="blas"):
            _Run(request, control).everything()
    except (Cancelled, UserError):
        raise
    except Exception:
        control.report(Trace(traceback.format_exc()))
        raise


class _Run:
    """One run, and what its passes share."""

    def __init__(self, request: Request, control: Control) -> None:
        self.request, self.control = request, control
        self.truths: dict[str, Truth | str] = {}
        self.number = 0

    def everything(self) -> None:
        from napari_msp.inference.prepared_input import prepare_input

        for _, passes in groupby(self.request.passes, key=lambda each: id(each.model)):
            same_model = list(passes)
            self._tell(same_model[0], "reading the scan", 0.0)
            acquisition = self.request.scan.acquisition
            assert acquisition is not None
            prepare = partial(
                prepare_input,
                same_model[0].model,
                acquisition,
                resample=self.request.resample,
                rescale_b_value=self.request.rescale_b_value,
            )
            prepared = abandonable(prepare, self.control.check)
            for each in same_model:
                self.control.report(self._predict(each, prepared))
                self.number += 1

    def _predict(self, each: Pass, prepared: PreparedInput) -> Predicted:
        from napari_msp.inference.harmonize import predict_target
        from napari_msp.ui.harmonizing.pass_progress import PassProgress
        from napari_msp.ui.harmonizing.prediction_layers import prediction_layers

        tiles = PassProgress(
            each.model.single(each.target),
            prepared.image.mask,
            self.control.cancelled,
            lambda doing, share: self._tell(each, doing, PREPARED + share * (TILED - PREPARED)),
        )
        prediction = predict_target(
            each.model,
            prepared,
            each.target,
            progress=tiles.tile,
            cancelled=tiles.cancelled,
            device=self.request.device,
            tile=self.request.tile,
            keep_stages=True,
        )
        scan = self.request.scan
        record = Record(
            subject=scan.subject,
            name=f"{each.label} {each.target}",
            image=prediction.sh,
            siblings=scan.siblings,
            label=each.label,
            model=each.model,
            prediction=prediction,
            source=scan,
        )
        self._tell(each, "computing maps", TILED)
        # A whole head at 1.2 mm takes long to read.
        measure = partial(self._errors, each, prediction)
        errors, notes = abandonable(measure, self.control.check)
        layers = prediction_layers(record, errors, self.control.check)
        return Predicted(record, layers, errors, (*notes_of(record), *notes))

    def _errors(self, each: Pass, prediction: Prediction) -> tuple[Errors | None, tuple[str, ...]]:
        """Measure against the target's own scan, where there is one that can be used."""
        from napari_msp.ui.harmonizing.against_truth import errors_against

        if each.target not in self.request.scan.siblings:
            return None, ()
        truth = self._truth(each.target, prediction.sh.b_value)
        if isinstance(truth, str):
            return None, (truth,)
        try:
            return errors_against(truth, prediction.sh, each.name), ()
        except UserError as error:
            return None, (_unusable(each.target, error),)

    def _truth(self, target: str, b_value: float | None) -> Truth | str:
        """Give a target's truth, or why it cannot be used; each is read once."""
        from napari_msp.ui.harmonizing.against_truth import read_truth

        if target not in self.truths:
            try:
                self.truths[target] = read_truth(self.request.scan, target, b_value)
            except UserError as error:
                self.truths[target] = _unusable(target, error)
        return self.truths[target]

    def _tell(self, each: Pass, doing: str, share: float) -> None:
        self.control.check()
        passes = len(self.request.passes)
        text = f"{doing} · {each.name} · {self.number + 1} of {passes}"
        done = round(PIECES * (self.number + share))
        self.control.report(Step(text, done, PIECES * passes))


def _unusable(target: str, error: UserError) -> str:
    return f"the scan on {target} was not used as truth: {error}"
