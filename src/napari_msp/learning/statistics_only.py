"""A model without training: a start's weights with the statistics of the user's own scans.

Statistics of a platform need no pairs: any people scanned on it will do. But differences between
two groups of people (age, illness, head motion) are then mistaken for differences between their
scanners.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from napari_msp.data.consistency import check_alike, common_shells
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import scale_between
from napari_msp.errors import Cancelled, Change, Choose, Give, UserError
from napari_msp.learning.events import (
    EventHandler,
    Finished,
    Stopped,
    Validated,
    phase_name,
)
from napari_msp.learning.heads import (
    Study,
    check_apart,
    check_isotropic,
    finished_model,
    gradients_of,
    load_head,
    mean_b0_weighting,
    with_platforms,
)
from napari_msp.learning.phases import TrainedNetworks, started
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.start_matching import HEADS_MEASURED, matched, started_from
from napari_msp.learning.starts import Start, StartDoubt
from napari_msp.learning.validation import validate
from napari_msp.model_file import save_model
from napari_msp.signal.channels import GridImage, into_grid, measure_standardisation
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.spherical_harmonics import ORDER

FEW = 5
"""Number of people per platform below which statistics are reported as based on few people."""


def write_statistics_only(
    dataset: TravellingHeads,
    settings: TrainingSettings,
    start: Start,
    out: Path,
    device: torch.device,
    report: EventHandler,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Write a model with a start's weights and a dataset's statistics.

    Parameters
    ----------
    dataset
        People scanned on any of the platforms; nobody need be scanned on two.
    settings, start
        Result of `read_start`.
    device
        Device for testing it on those who were scanned on both input and target.
    stop_requested
        Polled before every scan and before the file is written.

    Returns
    -------
    `out`; None if it was stopped, which leaves nothing, as starting again takes little time.

    Raises
    ------
    UserError
        When there is nothing to start from, nobody was scanned on a platform, or it is not known
        what a target begins as.

    Warns
    -----
    StartDoubt
        When statistics are based on few people, or on different people for input and target.
    """
    if start.loaded is None:
        problem = "must be at least 1, as there is no model to start from"
        raise UserError(problem, field="steps", remedy=Give("start_from", "a model"))
    try:
        study = _measured(dataset, settings, start, stop_requested)
    except Cancelled:
        _tell_stopped(out, report)
        return None
    study, start = matched(start, study, device)
    for target in study.scales:
        if target not in start.platforms:
            problem = f"has no network that {target} can begin as, and no step is trained"
            remedy = Choose("targets", tuple(start.platforms))
            raise UserError(problem, start.name, "targets", remedy)
    doubts = tuple(_doubts(study))
    for words in doubts:
        warnings.warn(words, StartDoubt, stacklevel=3)
    start = replace(start, doubts=start.doubts + doubts)
    networks = TrainedNetworks(study.settings, study.scales, study.standardisation, start)
    finished = networks.to(device).finished()
    report(started(study, networks, start, device, phases=[], steps=0, resumed_at=0))
    paired = {target: network for target, network in finished.items() if study.paired(target)}
    report(started_from(start, study, paired, device))
    phase = phase_name(study.settings.kind, *study.scales)
    errors = {
        target: validate(study, network, device)[target].error
        for target, network in finished.items()
        if study.judged(target)
    }
    if errors:
        report(Validated(phase, 0, 0, 0.0, errors))
    if stop_requested():
        _tell_stopped(out, report)
        return None
    run = {
        "held_out_sh_mse": {phase: errors} if errors else {},
        "statistics": {platform: len(those) for platform, those in study.scanned.items()},
        "steps": 0,
        "seconds": 0.0,
        "device": str(device),
        "start": start.ancestry(),
    }
    save_model(out, finished_model(study, finished, run))
    report(Finished(str(out), 0.0, errors))
    return out


def _tell_stopped(out: Path, report: EventHandler) -> None:
    """Report that it was stopped; resuming starts again."""
    report(Stopped(0, str(checkpoint_path(out))))


def _measured(
    dataset: TravellingHeads,
    settings: TrainingSettings,
    start: Start,
    stop_requested: Callable[[], bool],
) -> Study:
    """Measure each platform on everybody who was scanned on it, within their own mask.

    Raises
    ------
    Cancelled
        When `stop_requested()` was true.
    """
    settings = with_platforms(dataset, settings)
    source, targets = settings.input, settings.targets
    subjects = settings.subjects or tuple(dataset.subjects)
    kept_out = {*settings.held_out}
    scanned = {
        platform: [s for s in subjects if s not in kept_out and dataset.has(s, platform)]
        for platform in (source, *targets)
    }
    for platform, those in scanned.items():
        if not those:
            problem = f"no usable subject was scanned on {platform}"
            field = "input" if platform == source else "targets"
            raise UserError(problem, dataset.root, field, Change("held_out", "fewer"))
    learned = [each for each in subjects if any(each in those for those in scanned.values())]
    check_apart(dataset, settings, learned)
    parts = {"subjects": learned, "held_out": settings.held_out}
    check_alike(dataset, (source, *targets), parts)
    # Others' scans must have these shells, which is checked where they are fitted.
    b_values = common_shells(dataset, scanned[source], source, targets, settings.b_value)

    def images(platform: str) -> Iterator[GridImage]:
        for subject in scanned[platform]:
            if stop_requested():
                raise Cancelled
            acquisition = dataset.acquisition(subject, platform)
            image = into_grid(fit_sh(acquisition, b_value=b_values, order=ORDER))
            check_isotropic(image.lattice, dataset.scans[subject, platform])
            yield image

    sizes = {each: next(images(each)).lattice.voxel_sizes for each in scanned}
    standardisation = {
        each: measure_standardisation(images(each), bool(start.per_order)) for each in scanned
    }
    both = [each for each in scanned[source] if any(each in scanned[t] for t in targets)]
    measured = {s for t in targets for s in [b for b in both if dataset.has(b, t)][:HEADS_MEASURED]}
    return Study(
        settings=settings,
        scanned=scanned,
        heads=[
            load_head(dataset, subject, source, targets, b_values)
            for subject in both
            if subject in measured
        ],
        held_out=[
            load_head(dataset, subject, source, targets, b_values, held_out=True)
            for subject in settings.held_out
        ],
        people=[dataset.person(subject) for subject in learned],
        scales={each: scale_between(sizes[source], sizes[each], each) for each in targets},
        voxel_size=float(sizes[source].mean()),
        b_values=b_values,
        standardisation=standardisation,
        gradients={t: gradients_of(dataset, scanned[t][0], t, b_values) for t in targets},
        b0_weighting=mean_b0_weighting(dataset, scanned[source], source),
    )


def _doubts(study: Study) -> Iterator[str]:
    """Yield doubts about the people whose statistics are used."""
    scanned, source = study.scanned, study.settings.input
    few = [f"{platform} {len(those)}" for platform, those in scanned.items() if len(those) < FEW]
    if few:
        yield f"statistics come from few people ({', '.join(few)})"
    others = [each for each, those in scanned.items() if set(those) != set(scanned[source])]
    if others:
        yield (
            f"different people were scanned on {source} and {', '.join(others)}: differences "
            "between people count as scanner effects"
        )
