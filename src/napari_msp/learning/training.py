"""Train a model from travelling heads."""

from pathlib import Path

from napari_msp.data.dataset import open_dataset
from napari_msp.device import choose_device
from napari_msp.errors import UserError
from napari_msp.files import refuse_unwritable
from napari_msp.inference.failures import explain
from napari_msp.learning.events import EventHandler, Failed
from napari_msp.learning.names import checkpoint_path
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.study import prepare_study
from napari_msp.learning.training_run import StopRequest, TrainingRun
from napari_msp.model_file import check_model_name


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
    previews: Path | None = None,
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
    previews
        Folder for what the network predicts for the first held-out subject, written anew with
        every validation. The untrained network is then validated too.

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
        run = TrainingRun(study, out, where, tell, previews)
        return run.run(resume, stop_requested if stop_requested is not None else _never)
    except Exception as error:
        tell(Failed(explain(error).message))
        raise


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
