"""The training loop: one loop for every network, preset and phase, and the model at its end."""

import copy
import json
import time
import warnings
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_msp.errors import Advice, All, Cancelled, Change, Doubt, Poll, Resume, UserError
from napari_msp.learning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from napari_msp.learning.distributed import ALONE, OneProcess
from napari_msp.learning.events import (
    Aligned,
    Checkpointed,
    Event,
    EventHandler,
    Finished,
    Previewed,
    Shortened,
    Step,
    Stopped,
    Validated,
)
from napari_msp.learning.heads import Study
from napari_msp.learning.lengths import (
    LONGEST,
    Lengths,
    Pace,
    Position,
    seconds_of,
    tell_if_longer,
    what_fits,
)
from napari_msp.learning.optimisation import AveragedWeights, Optimisation, Trained, sh_unit_weights
from napari_msp.learning.phases import (
    Phase,
    TrainedNetworks,
    advice_on,
    describe_run,
    make_model,
)
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.sampling import sampler_for, smaller_crops
from napari_msp.learning.schedule import (
    alpha_at,
    learning_rate,
    recipe_for,
)
from napari_msp.learning.start_matching import describe_start
from napari_msp.learning.starts import Start
from napari_msp.learning.trail import Trail, how_they_ended, mean_error
from napari_msp.learning.validation import (
    Validation,
    alignment_error,
    validate,
    write_preview,
)
from napari_msp.model_file import save_model


class TrainingRun:
    """A training run in progress.

    Parameters
    ----------
    out
        Model file to write.
    previews
        Folder for predictions of the current network; None: none are written.
    start
        Start of the weights; None: nothing.
    began
        Time of the beginning, by `time.perf_counter`; None: now. Settings may limit the time from
        it.
    processes
        Processes that train together. The first one reports, writes and decides; all stay in step.
    replaces
        Whether the model may finally replace an existing one.
    """

    def __init__(
        self,
        study: Study,
        out: Path,
        device: torch.device,
        report: EventHandler,
        previews: Path | None = None,
        start: Start | None = None,
        began: float | None = None,
        processes: OneProcess = ALONE,
        replaces: bool = False,
    ) -> None:
        self.replaces = replaces
        self.processes = processes
        self.start = start or Start(study.settings)
        self.began = processes.by_first(lambda: time.perf_counter() if began is None else began)
        self.study = study
        self.settings = study.settings
        self.recipe = recipe_for(study.settings)
        self.out = out
        self.checkpoint = checkpoint_path(out)
        self.device = device
        self._listener = report
        self._unheard: Exception | None = None  # why the listener can no longer be called
        self.previews = previews
        self.networks = TrainedNetworks(
            study.settings, study.scales, study.standardisation, self.start
        )
        self.networks.to(device)
        self.sampler = sampler_for(study, self.recipe, processes)
        self.weights = (
            {t: sh_unit_weights(study.standardisation[t]).to(device) for t in study.scales}
            if self.recipe.sh_units
            else None
        )
        phases = self.networks.phases
        validated = [each.name for each in phases if any(map(study.choosing, each.targets))]
        pass_ = self.sampler.steps_per_epoch
        self.lengths = Lengths(study.settings, self.recipe, pass_, phases, validated)
        self.averages: AveragedWeights | None = None
        self._seconds = deque[float](maxlen=20)  # of the last steps

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self.lengths.position

    def report(self, event: Event) -> None:
        """Call the listener; if it fails, the run ends as if it had asked for that."""
        if self._unheard is None:
            try:
                self._listener(event)
            except Exception as error:
                self._unheard = error

    def run(self, resume: bool, cancelled: Poll, anew: bool = False) -> Path | None:
        """Run all phases; return the model's path, or None when stopped.

        With `anew` a checkpoint from which `resume` cannot continue is moved aside, and the run
        starts again. An error of the listener is raised once a checkpoint, or the model, has been
        written.
        """
        written = self._run(resume, lambda: cancelled() or self._unheard is not None, anew)
        if self._unheard is not None:
            raise self._unheard
        return written

    def _run(self, resume: bool, cancelled: Poll, anew: bool) -> Path | None:
        phases = self.networks.phases
        with self.processes.agreeing():
            restored = self._restored(anew) if resume else None
        self.processes.check_same(self._identity())
        self.processes.join(self.networks)
        # Measuring takes time, too.
        before = self.processes.by_first(partial(self._measured_before, restored is not None))
        if restored is None and self.settings.minutes is not None:
            self._fit_into(60 * self.settings.minutes)
        self._report_started()
        for event in before:
            self.report(event)
        while self.position.phase < len(phases):
            phase = phases[self.position.phase]
            if self.position.step == 0 and restored is None:
                self.networks.begin(phase)
            network = self.networks.of(phase)
            optimisation = self._optimisation(self.position.phase, network)
            self.averages = self._averages(phase, network)
            if restored is not None:
                restored.restore_optimiser(optimisation.adam)
                if self.averages is not None:
                    self.averages.restore(restored.tensors)
                restored = None
            if not self._run_phase(phase, optimisation, cancelled):
                return None
            if self.averages is not None:
                self.averages.give_best()
            self.position.phase += 1
            self.position.step = self.position.validated = 0
            self.position.falls = None
        self.processes.by_first(self._write_model)
        if self.settings.minutes is not None and not resume:
            tell_if_longer(60 * self.settings.minutes, self.processes.clock() - self.began)
        errors, validation = map(self._final, (self.position.errors, self.position.validation))
        seconds = self.position.seconds
        self.report(Finished(str(self.out), seconds, errors, self._ended(), validation))
        return self.out

    def _write_model(self) -> None:
        if self.out.exists() and not self.replaces:
            remedy = All((Advice("move it away"), Resume()))
            raise UserError("appeared while this was trained", self.out, "out", remedy)
        model = make_model(
            study=self.study,
            networks=self.networks.finished(),
            run={
                "held_out_sh_mse": self.position.errors,
                "validation_sh_mse": self.position.validation,
                "ended": self._ended(),
                "steps": self.lengths.all,
                "seconds": round(self.position.seconds, 1),
                "device": str(self.device),
                **({} if self.start.loaded is None else {"start": self.start.ancestry()}),
            },
        )
        save_model(self.out, model)
        self.checkpoint.unlink(missing_ok=True)

    def _restored(self, anew: bool) -> Checkpoint | None:
        """Read the checkpoint and restore its state; with `anew`, start again if it is useless."""
        try:
            restored = read_checkpoint(self.checkpoint, self._identity())
            restored.restore_networks(self.networks)
            self.lengths.position = restored.position
            return restored
        except UserError as useless:
            if not anew:
                raise
            if self.processes.count > 1:  # others may be able to go on
                remedy = Advice("start over without resuming")
                raise UserError(useless.problem, useless.subject, useless.field, remedy) from None
            self._keep_useless(useless)
            return None

    def _keep_useless(self, useless: UserError) -> None:
        """Keep a useless checkpoint under another name: days may be in it."""
        if self.checkpoint.exists():
            names = (self.checkpoint.with_suffix(f".old{number or ''}") for number in count())
            kept = self.checkpoint.replace(next(each for each in names if not each.exists()))
            words = f"{useless.problem}: it is kept as {kept.name}, and the training starts over"
            warnings.warn(Doubt(words, self.checkpoint), stacklevel=2)

    def _run_phase(self, phase: Phase, optimisation: Optimisation, cancelled: Poll) -> bool:
        """Train to the end of a phase; return False if stopped before."""
        try:
            if self.position.step == 0 and self._predicts_first(phase):
                validated = self._validate(phase, cancelled)
                if self._begun(phase):
                    self._keep_start(phase, validated)
            while True:
                step = self.position.step
                # Also after a run that was stopped during validation.
                if self.lengths.epoch_ends(phase) and self.position.validated != step:
                    self._end_epoch(phase, self._validate(phase, cancelled))
                    self._write_checkpoint(optimisation.adam)
                if step >= self.lengths.steps(phase):
                    return True
                if self.processes.any(cancelled()):
                    raise Cancelled
                self._step(phase, optimisation)
        except Cancelled:
            self._write_checkpoint(optimisation.adam)
            self.report(Stopped(self.lengths.done, str(self.checkpoint)))
            return False

    def _step(self, phase: Phase, optimisation: Optimisation) -> None:
        began = time.perf_counter()
        step, steps = self.position.step, self.lengths.steps(phase)
        hold = self.lengths.hold(phase)
        rate = learning_rate(self.recipe, step, steps, self.lengths.pass_, hold)
        alpha = alpha_at(self.recipe, step, self.lengths.usual(phase)) if phase.unison else None
        value, voxels = optimisation.step(step, alpha, rate)
        if not np.isfinite(value):
            self.processes.by_first(self._refuse_infinite)
        self.position.step += 1
        self.position.alpha = alpha
        self.position.loss += value
        self.position.loss_squares += value**2
        self.position.rates += rate
        if self.averages is not None:
            self.averages.update(self.position.step)
        seconds = time.perf_counter() - began
        self.position.seconds += seconds
        self._seconds.append(seconds)
        usual = sum(self._seconds) / len(self._seconds)
        self.report(
            Step(
                phase=phase.name,
                epoch=step // self.lengths.per_epoch + 1,
                step=self.lengths.done,
                loss=value,
                learning_rate=rate,
                alpha=alpha,
                throughput=voxels / usual,
                time_left=(self.lengths.all - self.lengths.done) * usual,
            )
        )

    def _refuse_infinite(self) -> None:
        problem = f"the loss is not finite at step {self.lengths.done + 1}"
        remedy = Change("learning_rate", "a smaller")
        raise UserError(problem, self.out, "learning_rate", remedy)

    def _optimisation(self, phase: int, network: Trained) -> Optimisation:
        what = (network, phase, self.sampler, self.recipe, self.weights)
        return Optimisation(*what, self.device, self.processes)

    def _fit_into(self, seconds: float) -> None:
        """Choose the number of steps that fit into a time, by timing copies of the networks."""
        now, phases = self.processes.clock, self.networks.phases
        paces: list[Pace] = []
        for number, phase in enumerate(phases):
            first = self._predicts_first(phase)
            if paces and now() - self.began > seconds:
                # Too little time in any case: its exact need does not matter.
                paces.append(paces[-1]._replace(before=first))
                continue
            timed = self._optimisation(number, copy.deepcopy(self.networks.of(phase)))
            longest = LONGEST * seconds / len(phases)
            step = seconds_of(partial(timed.step, alpha=1.0), longest, now)
            began = now()
            self.processes.by_first(partial(self._predict, phase))
            paces.append(Pace(step, now() - began, first))
        passed = now() - self.began
        fitted = partial(self.lengths.fitted, paces, seconds, passed)
        self.position.fitted = self.processes.by_first(fitted)

    def _begun(self, phase: Phase) -> bool:
        """Return whether a phase begins as a trained model."""
        return not self.start.platforms.keys().isdisjoint(phase.targets)

    def _predicts_first(self, phase: Phase) -> bool:
        """Return whether heads are predicted before the first step of a phase."""
        return self._begun(phase) or (self.previews is not None and phase.untrained)

    def _validate(self, phase: Phase, cancelled: Poll) -> Validated:
        """Predict whole heads with the weights that would be kept."""
        return self.processes.by_first(partial(self._validate_here, phase, cancelled))

    def _validate_here(self, phase: Phase, cancelled: Poll) -> Validated:
        with self.averages.in_place() if self.averages is not None else nullcontext():
            held_out, chosen = self._predicted(phase, cancelled)
        errors, by_validation = (
            {target: result.error for target, result in those.items()}
            for those in (held_out, chosen)
        )
        where = (phase.name, self.lengths.epoch, self.lengths.done)
        validated = Validated(*where, self.position.seconds, errors, by_validation)
        if held_out or chosen:
            self.report(validated)
        if self.previews is not None:
            for target, result in {**chosen, **held_out}.items():
                path = write_preview(self.previews, self.study, target, result.first)
                self.report(Previewed(*where, target, str(path)))
        return validated

    def _predict(self, phase: Phase) -> None:
        """Predict heads only to measure the time that it takes."""
        self._predicted(phase)

    def _predicted(
        self, phase: Phase, cancelled: Poll | None = None
    ) -> list[dict[str, Validation]]:
        """Predict held-out heads, then validation heads, for each target that has some."""
        network = self.networks.of(phase)
        return [
            validate(self.study, network, self.device, heads, cancelled)
            for heads in (self.study.judged, self.study.choosing)
        ]

    def _keep_start(self, phase: Phase, validated: Validated) -> None:
        """Keep the start of a phase in case no step improves it."""
        chosen = validated.validation
        self.position.trails[phase.name] = Trail(before=mean_error(chosen.values()))
        self._keep(phase, validated)

    def _keep(self, phase: Phase, validated: Validated) -> None:
        """Keep the present weights."""
        self.position.errors |= {phase.name: validated.errors} if validated.errors else {}
        chosen = validated.validation
        self.position.validation |= {phase.name: chosen} if chosen else {}
        if self.averages is not None:
            self.averages.keep()

    def _end_epoch(self, phase: Phase, validated: Validated) -> None:
        """Record an epoch; keep the weights if they are the best, end a phase without progress."""
        position, name = self.position, phase.name
        error = mean_error(validated.validation.values())
        trail = position.trails.setdefault(name, Trail())
        sums = (position.loss, position.loss_squares, position.rates)
        trail.add(position.step, *sums, error)
        position.loss = position.loss_squares = position.rates = 0.0
        position.validated = position.step
        if error is None or trail.at_its_best:
            self._keep(phase, validated)
        if self.lengths.may_end(phase) and trail.stalled(self.lengths.patience or 0):
            self.lengths.end(phase)
            where = (name, self.lengths.epoch, self.lengths.done)
            self.report(Shortened(*where, self.lengths.all))

    def _write_checkpoint(self, optimiser: torch.optim.Optimizer) -> None:
        state = (self.networks, optimiser, self.position, self._identity(), self.averages)
        self.processes.by_first(partial(write_checkpoint, self.checkpoint, *state))
        self.report(Checkpointed(self.lengths.done, str(self.checkpoint)))

    def _measured_before(self, resumed: bool) -> list[Event]:
        """Measure the start, and the baseline if there are heads to beat it on."""
        events: list[Event] = []
        if self.start.loaded is not None or self.start.doubts:
            untrained = {} if resumed else self.networks.finished()
            events.append(describe_start(self.start, self.study, untrained, self.device))
        errors, validation = (
            {
                t: alignment_error(self.study, t, those)
                for t in self.study.scales
                if (those := heads(t))
            }
            for heads in (self.study.judged, self.study.choosing)
        )
        if errors or validation:
            events.append(Aligned(errors, validation))
        return events

    def _report_started(self) -> None:
        steps, minutes = self.lengths.all, self.settings.minutes
        advice = [
            *([] if minutes is None else [what_fits(steps, minutes)]),
            *self.study.interpolated,
            *smaller_crops(self.study, self.recipe),
            *advice_on(self.settings, self.study.scales, self.start),
        ]
        what = (self.study, self.networks, self.start, self.device)
        self.report(
            describe_run(
                *what,
                phases=[phase.name for phase in self.networks.phases],
                steps=steps,
                resumed_at=self.lengths.done,
                processes=self.processes.count,
                advice=advice,
            )
        )

    def _averages(self, phase: Phase, network: Trained) -> AveragedWeights | None:
        """Average weights where validation chooses them; the paper's stay as they are."""
        if phase.name not in self.lengths.validated:
            return None
        return AveragedWeights(network, self.lengths.per_epoch if self.recipe.averages else 1)

    def _ended(self) -> dict[str, str]:
        """Return how each phase ended, in words."""
        return how_they_ended(self.position.trails, self.lengths.longest())

    def _final(self, errors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return each target's error of the weights that were kept, from its last phase."""
        final: dict[str, float] = {}
        for phase in self.networks.phases:
            final.update(errors.get(phase.name, {}))
        return final

    def _identity(self) -> dict[str, Any]:
        """Return what must not change between a checkpoint and its continuation."""
        statistics = {name: each.to_json() for name, each in self.study.standardisation.items()}
        settings = self.settings.model_dump(mode="json", exclude={"b_value"})
        # A model is the same wherever its file is, and platforms may be matched by measurements.
        settings["start_from"] = self.start.sha256 or self.start.name
        settings["start_from_target"] = dict(self.start.platforms)
        identity = {
            # The shell is part of the statistics.
            "settings": settings,
            "subjects": [head.subject for head in self.study.heads],
            "data": statistics,
            "scans": self.study.scans,
            "recipe": str(self.recipe),  # a preset's lengths may be others in another version
        }
        return dict(json.loads(json.dumps(identity)))
