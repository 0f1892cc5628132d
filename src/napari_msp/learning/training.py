"""Train a model from travelling heads: one loop for every network, preset and phase."""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.device import choose_device
from napari_msp.errors import Cancelled, UserError
from napari_msp.files import refuse_unwritable
from napari_msp.learning.checkpoint import (
    Position,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from napari_msp.learning.events import (
    Checkpointed,
    EventHandler,
    Failed,
    Finished,
    Started,
    Step,
    Stopped,
    Validated,
)
from napari_msp.learning.finished import finished_model
from napari_msp.learning.losses import sh_unit_weights, training_loss
from napari_msp.learning.patches import Batch, CropSampler, Examples, PatchSampler, Sampler
from napari_msp.learning.phases import Phase, TrainedNetworks
from napari_msp.learning.schedule import Recipe, alpha_ramp, learning_rate, recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.study import Study, held_out_error, prepare_study
from napari_msp.model_file import (
    check_model_name,
    save_model,
)
from napari_msp.networks import Network

LARGEST_GRADIENT = 1.0
"""Norm to which the fast preset clips gradients (our choice)."""

StopRequest = Callable[[], bool]


def train(
    dataset: str | Path,
    out: str | Path,
    settings: TrainingSettings,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_event: EventHandler | None = None,
    stop_requested: StopRequest | None = None,
) -> Path | None:
    """Train a model and write it.

    A checkpoint is kept beside `out` after every epoch and when the run is stopped; it is removed
    once the model is written.

    Parameters
    ----------
    dataset
        BIDS folder of travelling heads.
    out
        Model file to write, ending in .safetensors.
    settings
        What to train and how.
    device
        "auto", "cpu", "cuda" or "mps".
    resume
        Go on from the checkpoint beside `out`.
    force
        Replace a model, and start anew where there is a checkpoint.
    on_event
        Is told everything that happens.
    stop_requested
        Polled before every step, and within validation; True ends the run with a checkpoint.

    Returns
    -------
    The model's path, or None when the run was stopped.

    Raises
    ------
    UserError
        When data, settings or checkpoint cannot be used.
    """
    tell = on_event if on_event is not None else _ignore
    out = Path(out)
    check_model_name(out)
    try:
        where = choose_device(device)
        refuse_unwritable(out)
        if not force:
            _refuse_occupied(out, resume)
        study = prepare_study(open_dataset(dataset), settings)
        run = TrainingRun(study, out, where, tell)
        return run.run(resume, stop_requested if stop_requested is not None else _never)
    except Exception as error:
        tell(Failed(str(error) or type(error).__name__))
        raise


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
    tell
        Is given every event.
    """

    def __init__(self, study: Study, out: Path, device: torch.device, tell: EventHandler) -> None:
        self.study = study
        self.settings = study.settings
        self.recipe = recipe_for(study.settings)
        self.out = out
        self.checkpoint = checkpoint_path(out)
        self.device = device
        self.tell = tell
        self.networks = TrainedNetworks(study.settings, study.scales, study.standardisation)
        self.networks.to(device)
        self.sampler = _sampler(study, self.recipe)
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
        restored = read_checkpoint(self.checkpoint, self._identity()) if resume else None
        if restored is not None:
            self.position = restored.position
            restored.restore_networks(self.networks)
        self._tell_started()
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
            },
        )
        save_model(self.out, model)
        self.checkpoint.unlink(missing_ok=True)
        self.tell(Finished(str(self.out), self.position.seconds, self._final_errors()))
        return self.out

    def _run_phase(
        self,
        phase: Phase,
        network: Network,
        optimiser: torch.optim.Optimizer,
        stop_requested: StopRequest,
    ) -> bool:
        """Train to the end of a phase; False when stopped before."""
        per_epoch = self.sampler.steps_per_epoch
        try:
            while True:
                at_end = self.position.step > 0 and self.position.step % per_epoch == 0
                # Also after a run that was stopped while it validated.
                if at_end and self.position.validated != self.position.step:
                    self._validate(phase, network, stop_requested)
                    self._write_checkpoint(optimiser)
                if self.position.step >= self._steps(phase):
                    return True
                if stop_requested():
                    raise Cancelled
                self._step(phase, network, optimiser)
        except Cancelled:
            self._write_checkpoint(optimiser)
            self.tell(Stopped(self._steps_done(), str(self.checkpoint)))
            return False

    def _step(self, phase: Phase, network: Network, optimiser: torch.optim.Optimizer) -> None:
        began = time.perf_counter()
        step, steps = self.position.step, self._steps(phase)
        per_epoch = self.sampler.steps_per_epoch
        rate = learning_rate(self.recipe, step, per_epoch, self._epochs(phase))
        alpha = alpha_ramp(step, steps) if phase.unison else None
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = _on_device(self.sampler.batch(self.position.phase, step), self.device)
        network.train()
        optimiser.zero_grad(set_to_none=True)
        with self._precision():
            loss = training_loss(
                network, batch, alpha or 0.0, self.recipe.branch_losses, self.weights
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.dense:
            torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise UserError(
                f"{self.out}: the loss is not finite at step {self._steps_done() + 1}; "
                "use a smaller --learning-rate"
            )
        self.position.step += 1
        self.position.alpha = alpha
        seconds = time.perf_counter() - began
        self.position.seconds += seconds
        self._speed.add(seconds)
        self.tell(
            Step(
                phase=phase.name,
                epoch=step // per_epoch + 1,
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

    def _validate(self, phase: Phase, network: Network, stop_requested: StopRequest) -> None:
        """Predict the held-out subjects whole. Nothing is selected by it."""
        if self.study.held_out:
            self._tell_errors(phase, network, stop_requested)
        self.position.validated = self.position.step

    def _tell_errors(self, phase: Phase, network: Network, stop_requested: StopRequest) -> None:
        error = held_out_error(self.study, network, phase.target, self.device, stop_requested)
        errors = {phase.target: error}
        self.position.errors[phase.name] = errors
        self.tell(
            Validated(
                phase=phase.name,
                epoch=self.position.step // self.sampler.steps_per_epoch,
                step=self._steps_done(),
                seconds=self.position.seconds,
                errors=errors,
            )
        )

    def _write_checkpoint(self, optimiser: torch.optim.Optimizer) -> None:
        write_checkpoint(self.checkpoint, self.networks, optimiser, self.position, self._identity())
        self.tell(Checkpointed(self._steps_done(), str(self.checkpoint)))

    def _tell_started(self) -> None:
        finished = self.networks.finished().values()
        self.tell(
            Started(
                kind=self.settings.kind,
                preset=self.settings.preset,
                device=str(self.device),
                subjects=[head.subject for head in self.study.heads],
                held_out=[head.subject for head in self.study.held_out],
                phases=[phase.name for phase in self.networks.phases],
                parameters=sum(p.numel() for network in finished for p in network.parameters()),
                steps=self._all_steps(),
                resumed_at=self._steps_done(),
            )
        )

    def _epochs(self, phase: Phase) -> int:
        return self.recipe.unison_epochs if phase.unison else self.recipe.epochs

    def _steps(self, phase: Phase) -> int:
        return self._epochs(phase) * self.sampler.steps_per_epoch

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
        identity = {
            # The shell shows in the statistics.
            "settings": self.settings.model_dump(mode="json", exclude={"b_value"}),
            "subjects": [head.subject for head in self.study.heads],
            "data": statistics,
        }
        return dict(json.loads(json.dumps(identity)))


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


def _sampler(study: Study, recipe: Recipe) -> Sampler:
    settings = study.settings
    examples = Examples(study.heads, study.scales, settings.input, study.standardisation)
    if recipe.dense:
        return CropSampler(
            examples,
            recipe.patch,
            recipe.batch,
            settings.seed,
            settings.steps_per_epoch,
            recipe.augment,
        )
    return PatchSampler(
        examples, recipe.patch, recipe.batch, settings.seed, settings.voxels_per_head
    )


def _on_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return Batch(
        batch.input.to(device),
        {name: value.to(device) for name, value in batch.targets.items()},
        {name: value.to(device) for name, value in batch.masks.items()},
        batch.trim,
    )


def _ignore(_: object) -> None:
    return


def _never() -> bool:
    return False


def _refuse_occupied(out: Path, resume: bool) -> None:
    """Keep hours of another run from being written over."""
    if out.exists():
        raise UserError(f"{out}: exists already; replace it with --force")
    if checkpoint_path(out).exists() and not resume:
        raise UserError(
            f"{checkpoint_path(out)}: a run was stopped here; go on with --resume, or start anew "
            "with --force"
        )
