"""The work of the Harmonize button, and remedies when it fails. No Qt.

Every chosen model and target is a pass, done one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from napari_msp.arrays import MaskArray
from napari_msp.errors import (
    All,
    Change,
    ComputeOnCPU,
    Poll,
    Remedy,
    Resample,
    RescaleBValue,
    Unexpected,
    UserError,
    every,
)
from napari_msp.formatting import SH_MSE_EXPONENT, NumberFormat
from napari_msp.identity import files_read
from napari_msp.options import Options
from napari_msp.scan import Scan
from napari_msp.ui.layers import FIRST_MAPS, LayerData, map_layer, scan_layers
from napari_msp.ui.phrasing import HARMONIZE_WORDS, said, sentence
from napari_msp.ui.reading import Control, Report, abandonable

if TYPE_CHECKING:
    from napari_msp.inference.prediction import Prediction
    from napari_msp.inference.prepare import PreparedInput
    from napari_msp.model_file import Model
    from napari_msp.networks.msp import Network, SharedMSP
    from napari_msp.ui.harmonize.truth import Errors, KnownTruth

PREPARED, TILED = 0.05, 0.85
"""Shares of a pass that are done once its input is ready, and once all tiles are (our guess)."""

PIECES = 100
"""Number of pieces in which the work of a pass is counted."""

FINEST = 0.02
"""Smallest advance within a tile that is worth reporting."""

FIRST_TILE, SMALLEST_TILE = 32, 8
"""Edges in input voxels: tried first where memory decided before, and the lower limit."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One model and one of its targets.

    Attributes
    ----------
    label
        Label of the model, such as "MSP".
    """

    label: str
    model: Model
    target: str

    @property
    def name(self) -> str:
        """Name such as "MSP → prisma_st"."""
        return f"{self.label} → {self.target}"


@dataclass(frozen=True, eq=False)
class Request:
    """The work of one run.

    Attributes
    ----------
    scan
        Scan with its acquisition.
    passes
        Passes, with those of one model together.
    options
        Options of the run; branches are kept whatever they say.
    maps
        Titles of the maps that become layers.
    """

    scan: Scan
    passes: tuple[Pass, ...]
    options: Options = field(default_factory=Options)
    maps: tuple[str, ...] = FIRST_MAPS


@dataclass(frozen=True, eq=False)
class Predicted:
    """The result of one pass.

    Attributes
    ----------
    prediction
        Prediction with its model, its source and its stages.
    layers
        Layers from the bottom up, ready to be added.
    errors
        Errors against truth; None without truth, or where they were not measured.
    notes
        Doubts, approximations, and why a truth could not be used.
    """

    prediction: Prediction
    layers: tuple[LayerData, ...]
    errors: Errors | None
    notes: tuple[str, ...]

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Name, SH MSE of the scan itself and of the prediction, or why there is none, and change.

        For example "MSP → prisma_st", "83.0", "31.0" and "▼ −63".
        """
        prediction, errors, display = self.prediction, self.errors, NumberFormat(SH_MSE_EXPONENT, 1)
        name = f"{prediction.label} → {prediction.target}"
        if errors is None:
            truth = prediction.target in prediction.siblings
            return name, "", "not measured" if truth else "no truth", ""
        change = errors.change
        by = "" if change is None else f"{'▲ +' if change > 0 else '▼ −'}{abs(change):.0f}"
        return name, display.text(errors.sh_mse_before), display.text(errors.sh_mse), by

    @property
    def worse(self) -> str:
        """Warning if the scan itself is nearer to truth; "" if it is not."""
        change = None if self.errors is None else self.errors.change
        if change is None or change <= 0:
            return ""
        return (
            f"{self.prediction.label} → {self.prediction.target} is worse than before: it errs "
            f"{change:.0f} % more than the scan itself, left as it is."
        )


def notes_of(prediction: Prediction) -> tuple[str, ...]:
    """Return the notes that a user must know about a prediction."""
    scan, model = prediction.source, prediction.model
    notes = (*map(str, prediction.warnings), *prediction.approximations)
    if scan is None or model is None or scan.platform in ("", model.card.input):
        return notes
    doubt = f"{prediction.label} is for scans of {model.card.input}; this is {scan.platform}."
    return (doubt, *notes)


def harmonize_all(request: Request, control: Control) -> None:
    """Predict pass by pass; report `Report`, and each `Predicted` as soon as it is ready.

    A core is left to the window.

    Raises
    ------
    UserError
        See `napari_msp.harmonize`.
    Cancelled
        If the job was cancelled.
    """
    from threadpoolctl import threadpool_limits

    from napari_msp.device import leave_a_core

    # BLAS has its own threads, as many as there are cores.
    with leave_a_core(), threadpool_limits(1, user_api="blas"):
        _Run(request, control).everything()


class _Run:
    """One run, and what its passes share."""

    def __init__(self, request: Request, control: Control) -> None:
        self.request, self.control = request, control
        self.truths: dict[tuple[str, float | None], KnownTruth] = {}
        self.number = 0
        self.digests: Mapping[str, str] = {}

    def everything(self) -> None:
        from napari_msp.inference.prepare import prepare_input

        for _, passes in groupby(self.request.passes, key=lambda each: id(each.model)):
            same_model = list(passes)
            self._say(same_model[0], "reading the scan", 0.0)
            scan, options = self.request.scan, self.request.options
            prepare = partial(prepare_input, same_model[0].model, scan, options)
            prepared = abandonable(prepare, self.control.check)
            self._digest()
            for each, prediction in self._predictions(same_model, prepared):
                parts = prediction.by_shell()
                for shell, part in parts.items():
                    named = f" b{shell}" if len(parts) > 1 else ""
                    self.control.report(self._shown(each, part, named))
                self.number += 1

    def _digest(self) -> None:
        """Record what the scan was read from: predictions can be saved even when it has gone."""
        acquisition = self.request.scan.acquisition
        if acquisition is not None and not self.digests:
            with suppress(OSError):  # the file has gone already
                self.digests = abandonable(partial(files_read, acquisition), self.control.check)

    def _predictions(
        self, passes: list[Pass], prepared: PreparedInput
    ) -> Iterator[tuple[Pass, Prediction]]:
        """Yield each pass of one model with its prediction; shared first stages are run once."""
        from napari_msp.inference.harmonize import predict_targets
        from napari_msp.networks.msp import by_target

        model = passes[0].model
        for network in model.together([each.target for each in passes]):
            group = [each for each in passes if each.target in by_target(network)]
            tiles = _Tiles(
                network,
                prepared.image.mask,
                self.control.cancelled,
                partial(self._say_tile, group[0]),
            )
            predictions = predict_targets(
                model,
                prepared,
                [each.target for each in group],
                replace(self.request.options, keep_stages=True),
                progress=tiles.tile,
                cancelled=tiles.cancelled,
            )
            yield from zip(group, predictions, strict=True)

    def _say_tile(self, each: Pass, doing: str, share: float) -> None:
        self._say(each, doing, PREPARED + share * (TILED - PREPARED))

    def _shown(self, each: Pass, prediction: Prediction, shell: str) -> Predicted:
        assert prediction.provenance is not None
        # Labels of the list distinguish two models of one kind.
        named = replace(prediction.provenance, title=each.label + shell, checksums=self.digests)
        prediction = replace(prediction, provenance=named)
        self._say(each, "computing maps", TILED)
        # A whole head at 1.2 mm takes long to read.
        measure = partial(self._errors, each, prediction)
        errors, notes = abandonable(measure, self.control.check)
        layers = tuple(self._layers(prediction, errors))
        made = Predicted(prediction, layers, errors, (*notes_of(prediction), *notes))
        return replace(made, notes=(*([made.worse] if made.worse else []), *made.notes))

    def _layers(self, prediction: Prediction, errors: Errors | None) -> list[LayerData]:
        """Return a prediction's layers from the bottom up; only the last one is visible."""
        hidden = partial(map_layer, prediction, visible=False)
        layers: list[LayerData] = []
        if errors is not None:
            at_truth = partial(hidden, lattice=errors.lattice, mask=errors.mask)
            layers = [at_truth("SH MSE", errors.sh), at_truth("MSE", errors.sh_average)]
        doubts = {
            "expected SH MSE": prediction.expected_error,
            "disagreement of order 0": prediction.order_0_disagreement,
            "disagreement": prediction.disagreement,
        }
        layers += [hidden(each, doubt) for each, doubt in doubts.items() if doubt is not None]
        return layers + scan_layers(prediction, self.request.maps, self.control.check)

    def _errors(self, each: Pass, prediction: Prediction) -> tuple[Errors | None, tuple[str, ...]]:
        """Measure against the target's own scan, if there is one that can be used."""
        from napari_msp.ui.harmonize.truth import errors_against, read_truth

        if each.target not in self.request.scan.siblings:
            return None, ()
        try:
            b_value = prediction.b_value
            asked = (each.target, b_value)
            if asked not in self.truths:
                self.truths[asked] = read_truth(self._source(b_value), each.target, b_value)
            return errors_against(self.truths[asked], prediction, each.name), ()
        except UserError as error:
            why = said(error, HARMONIZE_WORDS)
            return None, (f"the scan on {each.target} was not used as truth: {why}",)

    def _source(self, b_value: float | None) -> Scan:
        """Return the scan at the shell that is predicted, if it has that one."""
        scan = self.request.scan
        several = {len(each.model.card.sh.b_values) for each in self.request.passes} != {1}
        if not several or b_value is None or scan.acquisition is None:
            return scan
        nearest = scan.acquisition.gradients.nearest_shell(b_value)
        return scan if nearest is None else replace(scan, shell=nearest.b_value)

    def _say(self, each: Pass, doing: str, share: float) -> None:
        self.control.check()
        passes = len(self.request.passes)
        text = f"{doing} · {each.name} · {self.number + 1} of {passes}"
        done = round(PIECES * (self.number + share))
        self.control.report(Report(text, done, PIECES * passes))


class _Tiles:
    """Progress of one pass: by tiles, and within a tile by the convolutions that were polled.

    On a CPU a whole head is one tile that takes minutes, so tiles alone say nothing.

    Parameters
    ----------
    network
        Network that is run, on the CPU.
    mask
        Mask of its input, (X, Y, Z).
    cancelled
        Returns whether to stop.
    say
        Called with a text such as "tile 3 of 12" and the share of the pass that is done.
    """

    def __init__(
        self,
        network: Network | SharedMSP,
        mask: MaskArray,
        cancelled: Poll,
        say: Callable[[str, float], None],
    ) -> None:
        self._network, self._mask = network, mask
        self._cancelled, self._say = cancelled, say
        self._done, self._total = 0, 0
        self._polls, self._expected = 0, 0
        self._reported = 0.0

    def tile(self, done: int, total: int) -> None:
        """Record how many tiles are done."""
        if done == 0:
            self._expected = self._foretold() if total == 1 else 0
        elif done < total:
            self._expected = self._polls  # of the tile before; most are alike
        self._done, self._total, self._polls = done, total, 0
        self._report(done / total)

    def cancelled(self) -> bool:
        """Return whether to stop; called before every convolution, and after the last tile, too."""
        self._polls += 1
        if self._done < self._total and self._polls < self._expected:
            share = (self._done + self._polls / self._expected) / self._total
            if share - self._reported >= FINEST:
                self._report(share)
        return self._cancelled()

    def _report(self, share: float) -> None:
        self._reported = share
        self._say(f"tile {min(self._done + 1, self._total)} of {self._total}", share)

    def _foretold(self) -> int:
        from napari_msp.inference.passes import expected_polls
        from napari_msp.inference.tiling import plan_tiles

        tiles = plan_tiles(self._mask, self._network.halo)
        x, y, z = (part.stop - part.start for part in tiles[0].crop)
        return expected_polls(self._network, (x, y, z))


# --- When it fails -------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer:
    """A remedy as a button.

    Attributes
    ----------
    text
        Text of the button.
    values
        Values to change in the request's options.
    """

    text: str
    values: Mapping[str, Any]


def offers(error: UserError, options: Options, device: str) -> tuple[Offer, ...]:
    """Return the remedies of an error that are one press away, the most promising first.

    Parameters
    ----------
    options
        Options with which it failed.
    device
        Kind of device that it ran on, such as "cuda".
    """
    found = [_offer(remedy, options, device) for remedy in every(error.remedy)]
    offered = tuple(offer for offer in found if offer is not None)
    if isinstance(error.remedy, All) and len(offered) == len(found):
        values = {name: value for offer in offered for name, value in offer.values.items()}
        return (Offer("Allow all of it and run again", values),)
    return offered


def _offer(remedy: Remedy, options: Options, device: str) -> Offer | None:
    match remedy:
        case Resample():
            return Offer("Allow interpolation and run again", {"resample": True})
        case RescaleBValue():
            return Offer("Allow rescaling and run again", {"rescale_b_value": True})
        case Change(parameter="tile"):
            smaller = options.tile // 2 if options.tile else FIRST_TILE
            fits = smaller >= SMALLEST_TILE
            return Offer("Try a smaller tile", {"tile": smaller}) if fits else None
        case ComputeOnCPU():
            return Offer("Use the CPU", {"device": "cpu"}) if device != "cpu" else None
    return None


def changed(request: Request, offer: Offer, done: int) -> Request:
    """Return the request for the remaining passes, changed as offered."""
    options = replace(request.options, **offer.values)
    return replace(request, passes=request.passes[done:], options=options)


def what_failed(error: UserError, offered: bool) -> str:
    """Return what went wrong; remedies that are offered as buttons are not repeated."""
    words = sentence(said(error, HARMONIZE_WORDS, remedy=not offered and type(error) is UserError))
    if isinstance(error, Unexpected):
        words += " This is a bug; its details help to correct it."
    return words
