"""Run several models over a dataset's held-out subjects and write Table 1."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_msp.data.acquisition import B_VALUE_TOLERANCE
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
    _check_names([Path(path) for path in models])
    chosen = _subjects(study, loaded, list(dict.fromkeys(subjects)))
    records: list[ErrorRecord] = []
    for subject in chosen:
        for target in dict.fromkeys(target for model in loaded for target in model.targets):
            records += _records(study, loaded, subject, target, device, progress)
    return evaluate_predictions(records, Path(out))


def _check_names(models: Sequence[Path]) -> None:
    """Refuse models that the table could not tell apart."""
    seen: dict[str, Path] = {}
    for path in models:
        if path.stem in seen:
            raise UserError(
                f"{path}: has the name of {seen[path.stem]}, which names its row; rename one"
            )
        seen[path.stem] = path


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


def _common_b_value(models: Sequence[Model]) -> float:
    """Give the models' b-value in s/mm²; they must agree, as one truth is measured against."""
    first = models[0]
    for model in models:
        if abs(model.card.sh.b_value / first.card.sh.b_value - 1) > B_VALUE_TOLERANCE:
            raise UserError(
                f"{model.name}: was trained at b = {model.card.sh.b_value:.0f}, {first.name} at "
                f"{first.card.sh.b_value:.0f}; evaluate them apart"
            )
    return first.card.sh.b_value


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
    concerned = [model for model in models if target in model.targets]
    b_value = _common_b_value(concerned)
    truth = fit_sh(study.acquisition(subject, target), b_value=b_value)
    records: list[ErrorRecord] = []
    sources = list(dict.fromkeys(model.card.input for model in concerned))
    for source in sources:
        scan = fit_sh(study.acquisition(subject, source), b_value=b_value)
        unharmonized = Interpolation().fit([scan], [truth]).predict(scan, truth.lattice)
        name = UNHARMONIZED if len(sources) == 1 else f"{UNHARMONIZED} of {source}"
        records += patch_records(name, target, subject, measure(unharmonized, truth))
    for model in concerned:
        if progress is not None:
            progress(f"{subject}, {target}, {model.name}")
        acquisition = study.acquisition(subject, model.card.input)
        prediction = harmonize(model, acquisition, target, device=device)
        name = model.path.stem if model.path else model.kind
        records += patch_records(name, target, subject, measure(prediction.sh, truth))
    return records
