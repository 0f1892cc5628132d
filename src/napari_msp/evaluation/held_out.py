"""Run several models over a dataset's held-out subjects and write Table 1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from napari_msp.data.acquisition import B_VALUE_TOLERANCE
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.evaluation.baselines import Interpolation
from napari_msp.evaluation.facts import Facts, Split
from napari_msp.evaluation.figure import figure3
from napari_msp.evaluation.figure_file import write_figure
from napari_msp.evaluation.metrics import measure
from napari_msp.evaluation.report import write_report
from napari_msp.evaluation.results import PatchResult, Result, Results
from napari_msp.files import staged_folder
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage

UNHARMONIZED = "no harmonization"


class _Measure(NamedTuple):
    label: str
    unit: str
    explanation: str
    headline: bool


_MEASURES = {
    "sh_mse": _Measure("SH MSE", "SH units²", "Over in-mask voxels and coefficients.", True)
}


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
        Model files, named in the table by their file names. The first one is tested against the
        others.
    out
        Folder for the files of `write_report`, and Figure 3 of the first subject on each target.
    subjects
        Whom to measure; empty: the subjects that every model was kept from.
    device
        As for `harmonize`.
    progress
        Is told what is being done.

    Returns
    -------
    The files that were written.

    Raises
    ------
    UserError
        When a subject was learned from by one of the models, or nobody is left to measure.
    """
    study = open_dataset(dataset)
    loaded = [load_model(path) for path in models]
    _check_names([Path(path) for path in models])
    chosen = _subjects(study, loaded, list(dict.fromkeys(subjects)))
    results: list[Result] = []
    patches: list[PatchResult] = []
    figures: dict[str, Path] = {}
    targets = list(dict.fromkeys(target for model in loaded for target in model.targets))
    with staged_folder(Path(out)) as stage:
        for target in targets:
            concerned = [model for model in loaded if target in model.targets]
            scanned = [subject for subject in chosen if study.has(subject, target)]
            for subject in scanned:
                head = _predict(study, concerned, subject, target, device, progress)
                head.measure(study.root.name, subject, target, results, patches)
                if subject == scanned[0]:
                    path = stage / f"figure3_{subject}_{target}.png"
                    write_figure(path, head.figure())
                    figures[f"{subject}, {target}"] = path
        learned = {each for model in loaded for each in model.training.get("subjects", [])}
        facts = Facts(
            command="napari-msp evaluate",
            splits={study.root.name: Split(sorted(learned), (), chosen)},
            input=loaded[0].card.input,
            targets=targets,
            simulated=False,
            seeds=(0,),
            tested=Path(models[0]).stem,
        )
        files = write_report(Results(results), Results(patches), facts, figures, stage, _MEASURES)
    return {"files": [str(Path(out) / path.name) for path in [*files, *figures.values()]]}


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


@dataclass(frozen=True)
class _Head:
    """One held-out subject on one target: the truth, the input scan and what was made of it."""

    truth: SHImage
    scan: SHImage
    unharmonized: dict[str, SHImage]
    predictions: dict[str, SHImage]

    def measure(
        self,
        dataset: str,
        subject: str,
        target: str,
        results: list[Result],
        patches: list[PatchResult],
    ) -> None:
        for name, image in {**self.unharmonized, **self.predictions}.items():
            metrics = measure(image, self.truth)
            where = (name, target, dataset, 0, subject, "scan")
            results.append(Result(*where, "sh_mse", metrics.sh_mse))
            patches += [
                PatchResult(*where, "-".join(map(str, centre)), float(error))
                for centre, error in zip(metrics.patches.centres, metrics.patches.mse, strict=True)
            ]

    def figure(self) -> Figure:
        return figure3(self.truth, self.predictions, self.scan)


def _predict(
    study: TravellingHeads,
    models: Sequence[Model],
    subject: str,
    target: str,
    device: str,
    progress: Callable[[str], None] | None,
) -> _Head:
    b_value = _common_b_value(models)
    truth = fit_sh(study.acquisition(subject, target), b_value=b_value)
    sources = dict.fromkeys(model.card.input for model in models)
    scans = {each: fit_sh(study.acquisition(subject, each), b_value=b_value) for each in sources}
    unharmonized = {
        UNHARMONIZED if len(scans) == 1 else f"{UNHARMONIZED} of {source}": Interpolation()
        .fit([scan], [truth])
        .predict(scan, truth.lattice)
        for source, scan in scans.items()
    }
    predictions = {}
    for model in models:
        if progress is not None:
            progress(f"{subject}, {target}, {model.name}")
        acquisition = study.acquisition(subject, model.card.input)
        name = model.path.stem if model.path else model.kind
        predictions[name] = harmonize(model, acquisition, target, device=device).sh
    return _Head(truth, next(iter(scans.values())), unharmonized, predictions)
