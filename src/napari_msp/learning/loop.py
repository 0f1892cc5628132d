"""A run under way: one loop for every network, preset and phase, and the model at its end."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_msp.errors import Cancelled, Change, UserError
from napari_msp.files import versions_of
from napari_msp.learning.checkpoint import Position, read_checkpoint, write_checkpoint
from napari_msp.learning.events import (
    Aligned,
    Checkpointed,
    EventHandler,
    Finished,
    Previewed,
    Started,
    Step,
    Stopped,
    Validated,
)
from napari_msp.learning.heads import Study
from napari_msp.learning.phases import (
    Phase,
    Trained,
    TrainedNetworks,
    learned_platforms,
    sh_unit_weights,
    training_loss,
)
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.sampling import sampler_for
from napari_msp.learning.schedule import alpha_at, course_for, learning_rate, recipe_for
from napari_msp.learning.start_matching import started_from
from napari_msp.learning.starts import Start
from napari_msp.learning.validation import Validation, alignment_error, validate, write_preview
from napari_msp.model_file import Model, ModelCard, ModelNetwork, SHSettings, Statistics, save_model
from napari_msp.networks.msp import Network, shares_first_stages
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30

LARGEST_GRADIENT = 1.0
"""Norm to which the fast preset clips gradients (our choice)."""

StopRequest = Callable[[], bool]


class TrainingRun:
    """A run under way.

    Parameters
    ----------
    study
        What it learns from.
    out
        Model file to write.
    device
        Where it computes.
    report
        Is given every event.
    previews
        Folder for predictions of the network at work; None: none are written.
    start
        What its weights begin as; None: nothing.
    """

    def __init__(
        self,
        study: Study,
        out: Path,
        device: torch.device,
        report: EventHandler,
        previews: Path | None = None,
        start: Start | None = None,
    ) -> None:
        self.start = start or Start(study.settings)
        self.study = study
        self.settings = study.settings
        self.recipe = recipe_for(study.settings)
        self.out = out
        self.checkpoint = checkpoint_path(out)
        self.device = device
        self.report = report
        self.previews = previews
        self.networks = TrainedNetworks(
            study.settings, study.scales, study.standardisation, self.start
        )
        self.networks.to(device)
        self.sampler = sampler_for(study, self.recipe)
        self.course = course_for(study.settings, self.recipe, self.sampler.steps_per_epoch)
        self.weights = (
            {t: sh_unit_weights(study.standardisation[t]).to(device) for t in study.scales}
            if self.recipe.sh_units
            else None
        )
        self.position = Position()
        self._speed = _Speed()

    def run(self, resume: bool, stop_requested: StopRequest) -> Path | None:
        """Run all phases; give the model's path, or None when stopped."""
        phases = self.networks.phases
        lengths = {phase.name: self._steps(phase) for phase in phases}
        restored = read_checkpoint(self.checkpoint, self._identity(), lengths) if resume else None
        if restored is not None:
            self.position = restored.position
            restored.restore_networks(self.networks)
        self._report_started()
        if self.start.loaded is not None or self.start.doubts:
            untrained = {} if restored is not None else self.networks.finished()
            self.report(started_from(self.start, self.study, untrained, self.device))
        judged = [target for target in self.study.scales if self.study.judged(target)]
        if judged:
            self.report(Aligned({target: alignment_error(self.study, target) for target in judged}))
        while self.position.phase < len(phases):
            phase = phases[self.position.phase]
            if self.position.step == 0 and restored is None:
                self.networks.begin(phase)
            network = self.networks.of(phase)
            optimiser = torch.optim.Adam(network.parameters(), lr=self.recipe.learning_rate)
            if restored is not None:
                restored.restore_optimiser(optimiser)
                restored = None
            if not self._run_phase(phase, network, optimiser, stop_requested):
                return None
            self.position.phase += 1
            self.position.step = self.position.validated = 0
        model = finished_model(
            study=self.study,
            networks=self.networks.finished(),
            held_out_errors=self.position.errors,
            run={
                "steps": self._all_steps(),
                "seconds": round(self.position.seconds, 1),
                "device": str(self.device),
                **({} if self.start.loaded is None else {"start": self.start.ancestry()}),
            },
        )
        save_model(self.out, model)
        self.checkpoint.unlink(missing_ok=True)
        self.report(Finished(str(self.out), self.position.seconds, self._final_errors()))
        return self.out

    def _run_phase(
        self,
        phase: Phase,
        network: Trained,
        optimiser: torch.optim.Optimizer,
        stop_requested: StopRequest,
    ) -> bool:
        """Train to the end of a phase; False when stopped before."""
        try:
            shown = self.previews is not None and phase.untrained
            if self.position.step == 0 and (
                shown or not self.start.platforms.keys().isdisjoint(phase.targets)
            ):
                self._validate(phase, stop_requested)  # before the first step
            while True:
                step = self.position.step
                at_end = step > 0 and (step % self.course.epoch == 0 or step == self._steps(phase))
                # Also after a run that was stopped while it validated.
                if at_end and self.position.validated != step:
                    self._validate(phase, stop_requested)
                    self._write_checkpoint(optimiser)
                if step >= self._steps(phase):
                    return True
                if stop_requested():
                    raise Cancelled
                self._step(phase, network, optimiser)
        except Cancelled:
            self._write_checkpoint(optimiser)
            self.report(Stopped(self._steps_done(), str(self.checkpoint)))
            return False

    def _step(self, phase: Phase, network: Trained, optimiser: torch.optim.Optimizer) -> None:
        began = time.perf_counter()
        step, steps = self.position.step, self._steps(phase)
        rate = learning_rate(self.recipe, step, steps, self.course.pass_)
        alpha = alpha_at(self.recipe, step, steps) if phase.unison else None
        for group in optimiser.param_groups:
            group["lr"] = rate
        learned = learned_platforms(network)
        batch = self.sampler.batch(self.position.phase, step, learned).to(self.device)
        network.train()
        optimiser.zero_grad(set_to_none=True)
        with self._precision():
            loss = training_loss(
                network,
                batch,
                alpha or 0.0,
                self.recipe.branch_losses,
                self.weights,
                self.recipe.second_weight,
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.dense:
            torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            problem = f"the loss is not finite at step {self._steps_done() + 1}"
            remedy = Change("learning_rate", "a smaller")
            raise UserError(problem, self.out, "learning_rate", remedy)
        self.position.step += 1
        self.position.alpha = alpha
        seconds = time.perf_counter() - began
        self.position.seconds += seconds
        self._speed.add(seconds)
        self.report(
            Step(
                phase=phase.name,
                epoch=step // self.course.epoch + 1,
                step=self._steps_done(),
                loss=value,
                learning_rate=rate,
                alpha=alpha,
                throughput=batch.input[:, 0].numel() / self._speed.mean,
                time_left=(self._all_steps() - self._steps_done()) * self._speed.mean,
            )
        )

    def _precision(self) -> Any:
        """Mixed precision where the device has it and the recipe is ours."""
        if self.recipe.dense and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _validate(self, phase: Phase, stop_requested: StopRequest) -> None:
        """Predict the held-out subjects whole. Nothing is selected by it."""
        results = {
            target: validate(self.study, network, target, self.device, stop_requested)
            for target, network in self.networks.predicting(phase).items()
            if self.study.judged(target)
        }
        if results:
            self._report_validated(phase, results)
        self.position.validated = self.position.step

    def _report_validated(self, phase: Phase, results: Mapping[str, Validation]) -> None:
        epoch = -(-self.position.step // self.course.epoch)
        errors = {target: result.error for target, result in results.items()}
        self.position.errors[phase.name] = errors
        self.report(
            Validated(
                phase=phase.name,
                epoch=epoch,
                step=self._steps_done(),
                seconds=self.position.seconds,
                errors=errors,
            )
        )
        if self.previews is None:
            return
        for target, result in results.items():
            path = write_preview(self.previews, self.study, target, result.first)
            self.report(Previewed(phase.name, epoch, self._steps_done(), target, str(path)))

    def _write_checkpoint(self, optimiser: torch.optim.Optimizer) -> None:
        write_checkpoint(self.checkpoint, self.networks, optimiser, self.position, self._identity())
        self.report(Checkpointed(self._steps_done(), str(self.checkpoint)))

    def _report_started(self) -> None:
        finished = nn.ModuleList(self.networks.finished().values())
        self.report(
            Started(
                kind=self.settings.kind,
                preset=self.settings.preset,
                device=str(self.device),
                subjects=[head.subject for head in self.study.heads],
                held_out=[head.subject for head in self.study.held_out],
                taught=self.study.taught,
                phases=[phase.name for phase in self.networks.phases],
                parameters=sum(p.numel() for p in finished.parameters()),
                steps=self._all_steps(),
                resumed_at=self._steps_done(),
                start=self.start.name,
            )
        )

    def _steps(self, phase: Phase) -> int:
        return self.course.unison_steps if phase.unison else self.course.steps

    def _steps_done(self) -> int:
        before = self.networks.phases[: self.position.phase]
        return sum(self._steps(phase) for phase in before) + self.position.step

    def _all_steps(self) -> int:
        return sum(self._steps(phase) for phase in self.networks.phases)

    def _final_errors(self) -> dict[str, float]:
        """Last validation of each target: a later phase's word counts."""
        final: dict[str, float] = {}
        for phase in self.networks.phases:
            final.update(self.position.errors.get(phase.name, {}))
        return final

    def _identity(self) -> dict[str, Any]:
        """Give what must not change between a checkpoint and its continuation."""
        statistics = {name: each.to_json() for name, each in self.study.standardisation.items()}
        settings = self.settings.model_dump(mode="json", exclude={"b_value"})
        # A model is the same wherever it lies, and platforms may be matched by what is measured.
        settings["start_from"] = self.start.sha256 or self.start.name
        settings["start_from_target"] = dict(self.start.platforms)
        identity = {
            # The shell shows in the statistics.
            "settings": settings,
            "subjects": [head.subject for head in self.study.heads],
            "data": statistics,
        }
        return dict(json.loads(json.dumps(identity)))


def finished_model(
    study: Study,
    networks: Mapping[str, Network],
    held_out_errors: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Any],
) -> Model:
    """Write the card that goes with trained networks.

    Parameters
    ----------
    study
        What they were trained on.
    networks
        Network of each target; moved to the CPU.
    held_out_errors
        Last validation of each phase, by target.
    run
        What else to keep of the run, as plain JSON types.
    """
    networks = {target: network.cpu() for target, network in networks.items()}
    settings = study.settings
    card = ModelCard(
        kind=settings.kind,
        label=settings.label,
        input=settings.input,
        voxel_size=study.voxel_size,
        alpha=1.0,
        scales=study.scales,
        architectures={target: network.config() for target, network in networks.items()},
        first_stages="shared" if shares_first_stages(networks.values()) else "own",
        sh=SHSettings(
            regularisation_at_30=REGULARISATION_AT_30,
            b_value=study.b_values[0],
            shells=study.b_values if len(study.b_values) > 1 else (),
        ),
        standardisation={
            name: Statistics(**each.to_json()) for name, each in study.standardisation.items()
        },
        gradients=study.gradients,
        training={
            "subjects": [head.subject for head in study.heads],
            "taught": study.taught,
            "people": [person.to_json() for person in study.people],
            "held_out": [head.subject for head in study.held_out],
            "off_lattice": {
                head.subject: list(head.off_lattice)
                for head in study.heads + study.held_out
                if head.off_lattice
            },
            "settings": settings.model_dump(mode="json"),
            "held_out_sh_mse": dict(held_out_errors),
            **run,
        },
        versions=versions_of("torch", "numpy", "dipy"),
    )
    return Model(card, ModelNetwork(networks, card.alpha))


class _Speed:
    """Mean duration of the last steps."""

    def __init__(self, window: int = 20) -> None:
        self._window = window
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        self._seconds = [*self._seconds[1 - self._window :], seconds]

    @property
    def mean(self) -> float:
        return sum(self._seconds) / len(self._seconds)
