"""One training of the contest, as a job that can be interrupted."""

from dataclasses import dataclass
from pathlib import Path

from napari_msp.errors import UserError
from napari_msp.evaluation.contest.plan import Plan
from napari_msp.learning.events import EventLog, Validated, read_events
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import Kind, SingleKind, TrainingSettings

COST = {"diqt": 2.2, "cnn-rish": 0.5, "shresnet": 1.0, "cpm": 1.0, "hned": 1.2, "msp": 4.0}
"""About how long a step takes, by kind, relative to SHResNet (measured on two CPU cores)."""


@dataclass(frozen=True)
class Training:
    """Train one model, and keep what happened.

    Attributes
    ----------
    name
        What is trained, in a few words.
    folder
        Holds model.safetensors, its checkpoint, and events.jsonl.
    dataset
        BIDS folder.
    settings
        What to train and how.
    device
        As for `train`.
    """

    name: str
    folder: Path
    dataset: Path
    settings: TrainingSettings
    device: str

    @property
    def model(self) -> Path:
        """Where the model stands in the end."""
        return self.folder / "model.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return self.model.exists()

    @property
    def weight(self) -> float:
        """Steps, as heavy as the kind makes them."""
        epochs = (self.settings.epochs or 0) + (self.settings.unison_epochs or 0)
        steps = epochs * (self.settings.steps_per_epoch or 1) * len(self.settings.targets)
        return COST[self.settings.kind] * steps

    def run(self) -> None:
        """Train, from the checkpoint where there is one."""
        from napari_msp.learning.train import train

        self.folder.mkdir(parents=True, exist_ok=True)
        events = self.folder / "events.jsonl"
        resume = checkpoint_path(self.model).exists()
        if not resume:
            events.unlink(missing_ok=True)
        with EventLog(events) as log:
            train(
                self.dataset,
                self.model,
                self.settings,
                device=self.device,
                resume=resume,
                on_event=log.write,
            )

    def validations(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Give (step, error) on the validation subjects, by phase and target."""
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for event in read_events(self.folder / "events.jsonl"):
            if isinstance(event, Validated):
                for target, error in event.errors.items():
                    step = event.epoch * (self.settings.steps_per_epoch or 1)
                    curves.setdefault(event.phase, {}).setdefault(target, []).append((step, error))
        return curves

    def errors(self) -> dict[str, float]:
        """Give the last error of each target on the validation subjects; the last phase counts."""
        curves = self.validations()
        if not curves:
            raise UserError(
                f"{self.folder}: has no validation in events.jsonl; delete the folder to train anew"
            )
        return {t: curve[-1][1] for by_target in curves.values() for t, curve in by_target.items()}


def settings_for(
    plan: Plan,
    kind: Kind,
    rate: float,
    seed: int,
    *,
    targets: tuple[str, ...] = (),
    steps: int | None = None,
    first_steps: int | None = None,
    width: float | None = None,
    first_stage: dict[str, SingleKind] | None = None,
) -> TrainingSettings:
    """Give the settings of a network under the plan's budget.

    Parameters
    ----------
    plan
        Subjects, platforms and budget.
    kind, rate, seed
        Of the network, its learning rate and its randomness.
    targets
        Platforms to predict; empty: all of the plan.
    steps, first_steps, width
        Instead of the budget's.
    first_stage
        Of an MSP: single network of each target.
    """
    budget = plan.budget
    steps = steps or budget.steps
    first = (first_steps or budget.first_steps) if kind == "msp" else steps
    return TrainingSettings(
        kind=kind,
        preset="fast",
        input=plan.source,
        targets=targets or plan.targets,
        b_value=plan.b_value,
        subjects=(*plan.subjects.training, *plan.subjects.validation),
        held_out=plan.subjects.validation,
        width=width or budget.width,
        epochs=budget.epochs(first),
        unison_epochs=budget.epochs(steps - first) if kind == "msp" else None,
        steps_per_epoch=budget.epoch,
        batch=budget.batch,
        crop=budget.crop,
        learning_rate=rate,
        augmentation="symmetries" if budget.augment else "none",
        first_stage=first_stage or {},
        seed=seed,
    )
