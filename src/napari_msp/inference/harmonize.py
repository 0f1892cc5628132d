"""Prediction, from a scan and a model, of the image that the target platform would have given."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.data.lattice import (
    interpolate_in_mask,
    resample_with_mask,
)
from napari_msp.device import choose_device, copied_to
from napari_msp.errors import Doubt, Poll, stop_if
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import PreparedInput, UnlikeTraining, prepare_input
from napari_msp.inference.stages import (
    GridPrediction,
    predict_on_grid,
)
from napari_msp.inference.tiling import TileProgress
from napari_msp.model_file import Model, load_model
from napari_msp.networks.msp import by_target
from napari_msp.networks.registry import title
from napari_msp.options import Options, OptionSettings, with_settings
from napari_msp.provenance import Provenance, source_uri
from napari_msp.scan import Scan
from napari_msp.signal.channels import (
    GridImage,
    out_of_grid,
    to_stored_order,
)
from napari_msp.signal.expected_error import expected_error
from napari_msp.signal.sh_image import SHImage

MOST_OUTSIDE = 0.02
"""Share of voxels outside the calibrated range above which a warning is issued (our choice: a new
head like those of the calibration has half a percent)."""

NEARLY_AS_FINE = 0.1
"""Excess of voxel size over the target's up to which voxels are not divided for it (our choice)."""


def harmonize(
    model: Model | str | Path,
    scan: Scan | Acquisition | str | Path,
    target: str,
    *,
    options: Options | None = None,
    progress: TileProgress | None = None,
    cancelled: Poll | None = None,
    **settings: Unpack[OptionSettings],
) -> Prediction:
    """Predict the image that the target platform would have given.

    For several targets, one `prepare_input` followed by `predict_targets` does the same.

    Parameters
    ----------
    model
        A model, see `load_model`; or its file.
    scan
        A scan, an acquisition or a DWI file, in any orientation; of several shells those nearest to
        the model's b-values are used.
    target
        One of `model.targets`.
    options
        Settings for the run, see `Options`.
    progress
        Called with the number of tiles done and their total.
    cancelled
        Polled before every convolution, and between the images made from the output.
    **settings
        Fields of `Options` as keyword arguments, such as `device="cpu"`; they override `options`.

    Raises
    ------
    UserError
        When target, voxel size or b-value are not the model's; the remedy says what can be done.
    Cancelled
        When `cancelled()` was true.

    Warns
    -----
    UnlikeTraining, NotPredicted, Rescaled
        As `prepare_input`.
    """
    model = model if isinstance(model, Model) else load_model(model)
    options = with_settings(options, settings)
    model.single(target)  # an unknown target is an error before anything is computed
    prepared = prepare_input(model, scan, options)
    [prediction] = predict_targets(
        model, prepared, [target], options, progress=progress, cancelled=cancelled
    )
    return prediction


def predict_targets(
    model: Model,
    prepared: PreparedInput,
    targets: Sequence[str],
    options: Options | None = None,
    *,
    progress: TileProgress | None = None,
    cancelled: Poll | None = None,
) -> Iterator[Prediction]:
    """Predict several targets one by one; first stages that they share are run once.

    Parameters
    ----------
    model, options, progress, cancelled
        As for `harmonize`; tiles are counted anew if targets share nothing.
    prepared
        Result of `prepare_input` for the same model.
    targets
        Targets of the model.

    Yields
    ------
    The prediction of each target, in their order.
    """
    options = options or Options()
    where = choose_device(options.device)
    for network in model.together(targets):
        with copied_to(network, where) as copy:
            results = predict_on_grid(
                copy,
                prepared.image,
                model.standardisation(model.card.input),
                {target: model.standardisation(target) for target in by_target(network)},
                alpha=model.card.alpha,
                device=where,
                stored_affine=prepared.acquisition.affine,
                options=options,
                progress=progress,
                cancelled=cancelled,
            )
        for target in list(results):  # each is freed once it is stored, as they are large
            yield _stored(model, prepared, target, results.pop(target), cancelled)


def _stored(
    model: Model,
    prepared: PreparedInput,
    target: str,
    result: GridPrediction,
    cancelled: Poll | None,
) -> Prediction:
    """Bring all results back to the acquisition's stored order and scanner axes."""
    acquisition = prepared.acquisition
    affine = acquisition.affine
    lattice, scale = result.prediction.lattice, model.single(target).scale
    mask, stored_affine = to_stored_order(result.prediction.mask, lattice, affine)
    table, b_values = model.card.gradients[target].table(), model.card.sh.b_values
    tables = [table] if len(b_values) == 1 else [_rows(table, shell) for shell in table.shells]
    b0_image = _b0(acquisition)
    if prepared.goes_back:  # the cubes reach beyond the scan, like the input's
        b0_image = b0_image.extended(model.card.voxel_size)
    b0_on_grid = b0_image.resampled(lattice)
    b0 = to_stored_order(b0_on_grid.coefficients[..., 0], lattice, affine)[0]

    def stored(image: GridImage, shell: int) -> SHImage:
        stop_if(cancelled)  # a large image takes a while
        return SHImage(
            out_of_grid(image.by_shell()[shell].coefficients, lattice, affine)[0],
            stored_affine,
            mask,
            b_value=float(tables[shell].b_values.mean()),
            regularisation=model.card.sh.regularisation(len(tables[shell])),
            rescaled_from=prepared.rescaled_from[shell],
            b0_weighting=model.card.gradients[target].b0_weighting,
        )

    def of_shell(number: int, last: bool) -> Prediction:
        """Return one shell's prediction; after the last, memory kept for the next ones is freed."""
        sh, error_model = stored(result.prediction, number), model.error_model(target, number)
        error, doubts = None, prepared.warnings
        if error_model is not None:
            source = prepared.image.by_shell()[number]
            error, outside = expected_error(error_model, source, sh, b0, cancelled)
            doubts += _doubts(outside, acquisition.name)
        first, branches = result.first_stage, result.branches
        spread = result.disagreement
        if spread is not None:
            spread = np.split(spread, len(tables), axis=-1)[number]
            spread = to_stored_order(spread, lattice, affine)[0]
        made = Prediction(
            given_sh=sh,
            given_subject=prepared.scan.subject,
            provenance=replace(_provenance(model, prepared, target), warnings=doubts),
            given_first_stage=None if first is None else stored(first, number),
            given_disagreement=spread,
            given_expected_error=error,
            b0=b0,
            target=target,
            gradients=tables[number],
            approximations=prepared.approximations,
            warnings=doubts,
            alpha=model.card.alpha,
            mean_signal=prepared.mean_signal[number] if prepared.mean_signal else None,
            # Each is freed as soon as its stored form exists, as they are large.
            given_branches={
                platform: stored(branches.pop(platform) if last else branches[platform], number)
                for platform in list(branches)
            },
            model=model,
            source=prepared.scan,
        )
        return _on_scan_lattice(made, acquisition, scale, cancelled) if prepared.goes_back else made

    parts = [of_shell(number, number == len(tables) - 1) for number in range(len(tables))]
    if len(parts) == 1:
        return parts[0]
    by_name = {part.shells[0]: part for part in parts}
    doubts = tuple(dict.fromkeys(doubt for part in parts for doubt in part.warnings))
    return replace(
        parts[0],
        provenance=replace(_provenance(model, prepared, target), warnings=doubts),
        warnings=doubts,
        given_sh={name: part.sh for name, part in by_name.items()},
        gradients=table,
        parts=by_name,
    )


def _doubts(outside: float, name: str) -> tuple[Doubt, ...]:
    """Warn, and return the doubt, if too much of a prediction is outside the calibrated range."""
    if outside <= MOST_OUTSIDE:
        return ()
    words = (
        f"{100 * outside:.0f} % of its voxels lie outside the range in which the model's expected "
        "error was calibrated; there it is a guess, limited to the largest calibrated value"
    )
    doubt = UnlikeTraining(words, name)
    warnings.warn(doubt, stacklevel=3)
    return (doubt,)


def _on_scan_lattice(
    prediction: Prediction,
    acquisition: Acquisition,
    scale: int,
    cancelled: Poll | None,
) -> Prediction:
    """Interpolate a prediction of one shell from the model's cubes to the scan's own voxels.

    If the target is finer than the input, these are divided like the model's, unless they are
    nearly as fine as the target already. Mask and b=0 are the scan's, never interpolated twice.
    """
    cubes, own = prediction.sh.lattice, acquisition.lattice
    edge = float(np.prod(own.voxel_sizes) ** (1 / 3))
    finer = np.ceil(edge / cubes.voxel_sizes.mean() - NEARLY_AS_FINE)
    lattice = own.refined(int(np.clip(finer, 1, scale)))
    b0, mask = resample_with_mask(acquisition.b0[..., None], acquisition.mask, own, lattice)

    def moved(values: FloatArray, order: Literal[1, 3] = 3) -> FloatArray:
        stop_if(cancelled)
        return interpolate_in_mask(values, prediction.mask, cubes, lattice, mask, order)

    def moved_image(image: SHImage) -> SHImage:
        return replace(
            image, coefficients=moved(image.coefficients), affine=lattice.affine, mask=mask
        )

    def moved_map(values: FloatArray | None) -> FloatArray | None:
        # Linear: beside a large error splines undershoot, and 0 would mean that none is expected.
        return None if values is None else moved(values, order=1)

    first = prediction.first_stage
    return replace(
        prediction,
        given_sh=moved_image(prediction.sh),
        given_first_stage=None if first is None else moved_image(first),
        given_disagreement=moved_map(prediction.disagreement_by_order),
        given_expected_error=moved_map(prediction.expected_error),
        b0=np.where(mask, b0[..., 0], 0).astype(np.float32),
        given_branches={name: moved_image(each) for name, each in prediction.branches.items()},
    )


def _rows(table: GradientTable, shell: Shell) -> GradientTable:
    return GradientTable(table.b_values[shell.volumes], table.directions[shell.volumes])


def _provenance(model: Model, prepared: PreparedInput, target: str) -> Provenance:
    return Provenance(
        target=target,
        input=model.card.input,
        title=title(model.kind),
        kind=model.kind,
        label=model.card.label,
        model_file=model.path.name if model.path else None,
        alpha=model.card.alpha,
        sources=(source_uri(prepared.acquisition.path),),
        inputs=prepared.acquisition.provenance,
        approximations=prepared.approximations,
        warnings=prepared.warnings,
        training_subjects=tuple(model.training.get("subjects") or ()),
        versions=model.card.versions,
        options=prepared.options.recorded(),
    )


def _b0(acquisition: Acquisition) -> GridImage:
    """Return the mean b=0 image in canonical order."""
    lattice = acquisition.lattice
    b0, mask = lattice.to_canonical(acquisition.b0), lattice.to_canonical(acquisition.mask)
    return GridImage(b0[..., None], mask, lattice.canonical)
