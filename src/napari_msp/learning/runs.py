"""A run as a folder that can be reopened, however the run ended.

==============================  ==============================================
run.json                        what is trained on what, and where
events.jsonl                    what happened, one event a line
model.safetensors               the finished model
model.checkpoint.safetensors    where a stopped run goes on
previews/                       predictions of the network at work
==============================  ==============================================

`train.run_in_folder`, which loads torch, executes it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_msp.errors import Advice, UserError
from napari_msp.files import refuse_occupied, write_json
from napari_msp.foreign_errors import first_reason
from napari_msp.learning.events import Event, Failed, last_event, read_events
from napari_msp.learning.settings import TrainingSettings
from napari_msp.strict_json import read_json

FORMAT: Final = "napari-msp run 1"

DAMAGED = Advice("correct it, or start another run in a new folder")
"""Remedy if run.json cannot be read."""

State = Literal["new", "stopped", "failed", "finished"]


class _RunFile(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["napari-msp run 1"] = FORMAT
    dataset: Path
    device: str
    settings: TrainingSettings


CHECKPOINT_ENDING = ".checkpoint.safetensors"


def checkpoint_path(model: Path) -> Path:
    """Return the path of a model's checkpoint, beside its file."""
    return model.with_name(model.stem + CHECKPOINT_ENDING)


@dataclass(frozen=True)
class RunFolder:
    """A run: its task, and its results so far."""

    path: Path
    dataset: Path
    settings: TrainingSettings
    device: str

    @classmethod
    def create(
        cls, path: str | Path, dataset: str | Path, settings: TrainingSettings, device: str = "auto"
    ) -> "RunFolder":
        """Create the folder of a new run."""
        path = Path(path)
        refuse_occupied(path)
        # The run may be executed from elsewhere.
        content = _RunFile(dataset=Path(dataset).absolute(), device=device, settings=settings)
        write_json(path / "run.json", content.model_dump(mode="json"))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open the folder of a run."""
        path = Path(path).absolute()
        file = path / "run.json"
        if not file.is_file():
            raise UserError(
                "is no run (it has no run.json)", path, "folder", Advice("choose a run's folder")
            )
        try:
            content = read_json(file)
        except UserError as error:
            raise UserError(error.problem, file, "folder", DAMAGED) from error
        if content.get("format") != FORMAT:
            raise UserError(
                "is no run of this version", file, "folder", Advice("start another in a new folder")
            )
        try:
            read = _RunFile.model_validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            problem = f"is damaged ({first_reason(error)})"
            raise UserError(problem, file, "folder", DAMAGED) from error
        return cls(path, read.dataset, read.settings, read.device)

    @property
    def model_path(self) -> Path:
        """Path of the finished model."""
        return self.path / "model.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        """Path of the checkpoint of a stopped run."""
        return checkpoint_path(self.model_path)

    @property
    def previews(self) -> Path:
        """Folder of predictions by the current network."""
        return self.path / "previews"

    @property
    def events_path(self) -> Path:
        """File of events."""
        return self.path / "events.jsonl"

    @property
    def state(self) -> State:
        """State of the run, from its files; whether it is running is not known.

        A killed run is "stopped" if it left a checkpoint, else "new".
        """
        if self.model_path.exists():
            return "finished"
        if isinstance(last_event(self.events_path), Failed):
            return "failed"
        return "stopped" if self.resumable else "new"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return self.checkpoint_path.exists() and not self.model_path.exists()

    def events(self) -> list[Event]:
        """Return the events as if the run was never interrupted; see `read_events`."""
        return read_events(self.events_path)
