"""Execute a run that is described by its folder."""

import shutil
from pathlib import Path

from napari_msp.errors import UserError
from napari_msp.learning.event_log import EventLog
from napari_msp.learning.events import Event, EventHandler
from napari_msp.learning.run_folder import RunFolder
from napari_msp.learning.run_lock import locked
from napari_msp.learning.training import train
from napari_msp.learning.training_run import StopRequest


def run_in_folder(
    folder: RunFolder,
    *,
    resume: bool = False,
    on_event: EventHandler | None = None,
    stop_requested: StopRequest | None = None,
) -> Path | None:
    """Train as the folder says, and keep every event in it.

    Parameters
    ----------
    folder
        Of the run.
    resume
        Go on from the checkpoint. Without one the run starts anew either way.
    on_event, stop_requested
        As for `train`.

    Returns
    -------
    The model's path, or None when the run was stopped.

    Raises
    ------
    UserError
        As from `train`, and when the run is finished, is executed by another process, or was
        stopped and `resume` is not given.
    """
    with locked(folder.path):
        if folder.model_path.exists():
            raise UserError(f"{folder.path}: is finished; start another run in a new folder")
        going_on = folder.resumable
        if going_on and not resume:
            raise UserError(
                f"{folder.checkpoint_path}: the run was stopped; go on with --resume, or delete "
                "this file to start anew"
            )
        if not going_on:
            folder.events_path.unlink(missing_ok=True)
            shutil.rmtree(folder.previews, ignore_errors=True)
        with EventLog(folder.events_path) as log:

            def tell(event: Event) -> None:
                log.write(event)
                if on_event is not None:
                    on_event(event)

            return train(
                folder.dataset,
                folder.model_path,
                folder.settings,
                device=folder.device,
                resume=going_on,
                on_event=tell,
                stop_requested=stop_requested,
                previews=folder.previews,
            )
