"""Calibrate a model's expected error on subjects that it has not learned from."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count, product
from pathlib import Path

import numpy as np

from napari_msp.alignment.registration import warn_if_beside
from napari_msp.arrays import FloatArray
from napari_msp.data.dataset import TravellingHeads, as_dataset
from napari_msp.data.gradients import shell_name
from napari_msp.data.masks import common_mask
from napari_msp.errors import Change, Choose, Poll, Progress, UserError, reporter
from napari_msp.evaluation.benchmark.subjects import learned_from, none_left, tell_doubts
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.formatting import listed, sh_mse
from napari_msp.inference.harmonize import predict_targets
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import NotForScans, PreparedInput, prepare_input, tell_unfit
from napari_msp.model_card import ErrorFit
from napari_msp.model_file import Model, load_model
from napari_msp.options import Options, several
from napari_msp.signal.expected_error import features_of, fit_error_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import squared_error
from napari_msp.signal.spherical_harmonics import ORDER

SCAN, TWIN = "the scan", "the noise-free twin"
"""Kinds of truth: an error against a scan includes the scan's noise."""

VOXELS = 200_000
"""Largest number of voxels per head that are fitted to, chosen at random (our choice)."""


def calibrate(
    model: Model | str | Path,
    dataset: TravellingHeads | str | Path,
    subjects: str | Iterable[str] = (),
    *,
    run: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Poll | None = None,
    b0_threshold: float | None = None,
) -> Model:
    """Fit the error to expect on each target, so that predictions carry an expected error.

    Parameters
    ----------
    model
        Trained model, or its file.
    dataset
        Travelling heads, or their BIDS folder. Noise-free twins replace the scans where they
        exist.
    subjects
        Subjects to fit on; empty: all that the model has not learned from.
    run
        Number of the scan to read, where one was repeated; for a folder only.
    device
        Device, as for `harmonize`.
    progress
        Called with a line on every predicted head, the number of heads predicted and their total.
    cancelled
        Polled while heads are predicted; True raises Cancelled.
    b0_threshold
        Largest b-value that counts as b=0, as for `load_acquisition`.

    Returns
    -------
    The same networks with a card that contains the fits.

    Raises
    ------
    UserError
        When a subject was trained on, none is left, or none was scanned on a target.

    Warns
    -----
    MayHaveLearned
        Where an ancestor knew a subject of the same name, but does not say of which dataset.
    """
    model = model if isinstance(model, Model) else load_model(model)
    subjects = several(subjects)
    dataset = as_dataset(dataset, run, b0_threshold, subjects)
    learned = learned_from([model], [dataset], dataset.subjects)
    unseen = tuple(each for each in dataset.subjects if each not in learned)
    if not unseen:
        raise none_left(dataset, "subjects")
    for subject in subjects:
        if subject not in dataset.subjects:
            raise UserError(
                f"has no {subject}", dataset.root, "subjects", Choose("subjects", unseen)
            )
        if subject in learned:
            raise learned[subject].error("subjects")
    chosen = subjects or unseen
    tell_doubts([model], [dataset], chosen)
    return with_expected_errors(
        model, dataset, chosen, device=device, progress=progress, cancelled=cancelled
    )


def with_expected_errors(
    model: Model,
    dataset: TravellingHeads,
    subjects: Sequence[str],
    *,
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> Model:
    """Calibrate without checking who was trained on, as names may not tell.

    Parameters
    ----------
    model, dataset, subjects, device, progress, cancelled
        As for `calibrate`, but subjects have to be named.

    Warns
    -----
    NotForScans
        Once, if the model is for simulated heads only and scans are not known to be simulated.
    """
    for target in model.targets:
        if not any(_scanned(dataset, subject, model, target) for subject in subjects):
            problem = (
                f"none of {', '.join(subjects)} was scanned on {model.card.input} and {target}"
            )
            raise UserError(problem, dataset.root, "subjects", Change("subjects", "other"))
    _check_voxels(model, dataset, subjects)
    inputs = ((each, model.card.input) for each in subjects)
    scans = (dataset.scans[each] for each in inputs if dataset.has(*each))
    tell_unfit(model, scans, dataset.root.name)
    every = product(subjects, model.targets)
    total = sum(_scanned(dataset, who, model, target) for who, target in every) * len(
        model.card.sh.b_values
    )
    done, report = count(1), reporter(progress, cancelled)
    samples: dict[str, dict[str, tuple[FloatArray, FloatArray]]] = {}
    truths: dict[str, dict[str, None]] = {}
    for subject in subjects:
        targets = [t for t in model.targets if _scanned(dataset, subject, model, t)]
        if not targets:
            continue
        with warnings.catch_warnings(action="ignore", category=NotForScans):  # it was just reported
            prepared = prepare_input(model, dataset.acquisition(subject, model.card.input))
        options = Options(device=device)
        predicted = predict_targets(model, prepared, targets, options, cancelled=cancelled)
        for prediction in predicted:
            truth = SCAN if dataset.noise_free(subject, prediction.target) is None else TWIN
            for name, (described, error) in _head(
                model, dataset, subject, prepared, prediction
            ).items():
                known = samples.setdefault(name, {})
                kept = np.random.default_rng(len(known)).permutation(len(error))[:VOXELS]
                known[subject] = described[kept], error[kept]
                truths.setdefault(name, {})[truth] = None
                said = f"{name}: {subject}, SH MSE {sh_mse(error.mean())} against {truth}"
                report(said, next(done), total)
    fits = {name: _fit(dataset, heads, listed([*truths[name]])) for name, heads in samples.items()}
    return replace(model, card=model.card.model_copy(update={"expected_error": fits}))


def _scanned(dataset: TravellingHeads, subject: str, model: Model, target: str) -> bool:
    return dataset.has(subject, model.card.input) and dataset.has(subject, target)


def _check_voxels(model: Model, dataset: TravellingHeads, subjects: Sequence[str]) -> None:
    """Refuse a target's scans whose voxel size is not the one that the model predicts."""
    for subject, target in product(subjects, model.targets):
        if _scanned(dataset, subject, model, target):
            with warnings.catch_warnings(action="ignore"):  # doubts are reported when it is used
                lattice = dataset.acquisition(subject, target).lattice
            wanted = model.card.voxel_size_of(target)
            if not lattice.has_voxels_of(wanted):
                problem = f"its voxels are {lattice.edges}, but the model predicts {wanted:.2f} mm"
                remedy = Change("subjects", "other")
                raise UserError(problem, dataset.scans[subject, target], "subjects", remedy)


def _fit(
    dataset: TravellingHeads, heads: Mapping[str, tuple[FloatArray, FloatArray]], against: str
) -> ErrorFit:
    features, errors = zip(*heads.values(), strict=True)
    fitted = fit_error_model(np.concatenate(features), np.concatenate(errors))
    return ErrorFit(
        **fitted.to_json(),
        against=against,
        subjects=list(heads),
        people=[dataset.person(subject).to_json() for subject in heads],
    )


def _head(
    model: Model,
    dataset: TravellingHeads,
    subject: str,
    prepared: PreparedInput,
    prediction: Prediction,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return (N, F) features and (N,) squared errors where prediction and truth have brain.

    They are keyed by the name of the fit that they are for, one for each shell.
    """
    target = prediction.target
    acquisition = dataset.noise_free(subject, target) or dataset.acquisition(subject, target)
    found = {}
    for number, part in enumerate(prediction.by_shell().values()):
        b_value, image = model.card.sh.b_values[number], part.sh
        source = prepared.image.by_shell()[number]
        fitted = fit_sh(acquisition, b_value=b_value, order=ORDER)
        truth = on_lattice(fitted, image.lattice)
        # Otherwise the model would take the displacement for its own error.
        whose, other = f"{subject} on {target}", model.card.input
        masks = (image.mask, image.lattice, truth.mask, fitted.lattice)
        mask = common_mask(*masks, whose=whose, other=f"the one on {other}")
        warn_if_beside(source, fitted, whose, other)
        described = features_of(source, image, part.b0)
        error = squared_error(image, truth, mask)
        name = model.card.fit_name(target, shell_name(b_value))
        found[name] = described[mask[image.mask]], error[mask]
    return found
