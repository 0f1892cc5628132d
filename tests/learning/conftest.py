"""Short training runs on small heads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_msp.learning.events import Event
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train


@pytest.fixture(scope="session")
def quick() -> Callable[..., TrainingSettings]:
    """Settings of a run that takes seconds."""

    def settings(kind: str = "shresnet", preset: str = "fast", **changes: Any) -> TrainingSettings:
        values: dict[str, Any] = {
            "kind": kind,
            "preset": preset,
            "width": 0.1,
            "epochs": 2,
            "held_out": ("sub-03",),
            "input": "ge_st",
            "targets": ("prisma_st", "connectom_sa"),
        }
        if preset == "fast":
            values |= {"crop": 8, "batch": 2, "steps_per_epoch": 3}
        else:
            values |= {"voxels_per_head": 16, "batch": 12}
        return TrainingSettings(**(values | changes))

    return settings


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Path, list[Event]]]:
    """Train and give the model's path with all events."""

    def go(
        dataset: Path,
        settings: TrainingSettings | None,
        name: str = "model",
        stop_after: int | None = None,
        **options: Any,
    ) -> tuple[Path, list[Event]]:
        events: list[Event] = []
        if stop_after is not None:
            options["cancelled"] = lambda: (
                sum(event.name == "step" for event in events) >= stop_after
            )
        out = tmp_path / f"{name}.safetensors"
        train(dataset, out, settings, device="cpu", progress=events.append, **options)
        return out, events

    return go
