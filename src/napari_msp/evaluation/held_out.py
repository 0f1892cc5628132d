"""Run several models over a dataset's held-out subjects and write Table 1."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.evaluation.baselines import Interpolation
from napari_msp.evaluation.evaluate import evaluate_predictions
from napari_msp.evaluation.metrics import measure
from napari_msp.evaluation.records import ErrorRecord, patch_records
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import fit_sh

UNHARMONIZED = "no harmonization"


def evaluate_models(
    dataset: str | Path,
    models: Sequence[str | Path],
    out: str | Path,
    *,
    subjects: Sequence[str] = (),
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Predict held-out subjects with every model and measure the errors patch by patch.

    Parameters
    ----------
    dataset
        BIDS folder of travelling heads.
    models
        Model files, named in the table by their file names.
    out
        Folder for table1.csv, table1.md, pvalues.csv and report.html.
    subjects
        Whom to measure; empty: the subjects that every model was kept from.
    device
        As for `harmonize`.
    progress
        Is told what is being done.

    Returns
    -------
    See `evaluate_predictions`.

    Raises
    ------
    UserError
        When a subject was learned from by one of the models, or nobody is left to measure.
    """
    study = open_dataset(dataset)
    loaded = [load_model(path) for path in models]
    chosen = _subjects(study, loaded, subjects)
    records: list[ErrorRecord] = []
    for subject in chosen:
        for target in dict.fromkeys(target for model in loaded for target in model.targets):
            records += _records(study, loaded, subject, target, device, progress)
    return evaluate_predictions(records, Path(out))


def _subjects(study: TravellingHeads, models: Sequence[Model], wanted: Sequence[str]) -> list[str]:
    learned = {
        subject: model.name for model in models for subject in model.training.get("subjects", [])
    }
    for subject in wanted:
        if subject not in study.subjects:
            raise UserError(f"{study.root}: has no subject {subject}; choose another")
        if subject in learned:
            raise UserError(
                f"{learned[subject]}: was trained on {subject}; measure on subjects held out"
            )
    left = [subject for subject in wanted or study.subjects if subject not in learned]
    if not left:
        raise UserError(f"{study.root}: every subject was trained on; train with --held-out first")
    return left


def _records(
    study: TravellingHeads,
    models: Sequence[Model],
    subject: str,
    target: str,
    device: str,
    progress: Callable[[str], None] | None,
) -> list[ErrorRecord]:
    if not study.has(subject, target):
        return []
    truth = fit_sh(study.acquisition(subject, target))
    records: list[ErrorRecord] = []
    for source in dict.fromkeys(model.card.input for model in models):
        scan = fit_sh(study.acquisition(subject, source))
        unharmonized = Interpolation().fit([scan], [truth]).predict(scan, truth.lattice)
        records += patch_records(UNHARMONIZED, target, subject, measure(unharmonized, truth))
    for model in models:
        if target not in model.targets:
            continue
        if progress is not None:
            progress(f"{subject}, {target}, {model.name}")
        acquisition = study.acquisition(subject, model.card.input)
        prediction = harmonize(model, acquisition, target, device=device)
        name = model.path.stem if model.path else model.kind
        records += patch_records(name, target, subject, measure(prediction.sh, truth))
    return records
