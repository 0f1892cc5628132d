"""Writing of predictions as files that keep the input's BIDS entities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Unpack

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.bids import (
    DESCRIPTION,
    HARMONIZED,
    absolute,
    dataset_root,
    describe_derivative,
    gradient_files,
    mask_sidecar,
    refuse_among_scans,
    sidecar_path,
)
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.gradient_files import read_gradients, write_gradients
from napari_msp.data.gradients import GradientTable, same_shell
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import Advice, Choose, Overwrite, Poll, UserError
from napari_msp.files import refuse_unwritable_folder, sha256, staged_folder, write_json
from napari_msp.identity import files_read, taught_by
from napari_msp.image_files import (
    COEFFICIENTS,
    FILES,
    UNCERTAINTY,
    ImageFile,
    is_of_prediction,
    lost_files,
    sizes_of,
)
from napari_msp.inference.harmonize import predict_targets
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import fitting_shells, prepare_input
from napari_msp.inference.review_making import (
    MEASURES_FIELD,
    about_prediction,
    maps_of_prediction,
    measures,
    open_beside,
)
from napari_msp.inference.review_maps import (
    MadeFrom,
    is_review_map,
    root_of,
    sidecar_of,
    write_review_maps,
)
from napari_msp.inference.tiling import TileProgress
from napari_msp.model_file import Model, load_model
from napari_msp.options import Options, OptionSettings, with_settings
from napari_msp.provenance import Provenance
from napari_msp.scan_sources import as_scan
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.sh_image import write_sh


def harmonize_to_folder(
    dwi: str | Path,
    model: Model | str | Path,
    targets: Sequence[str],
    out: str | Path,
    *,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
    gradients: str | Path = "target",
    options: Options | None = None,
    force: bool = False,
    describe: bool = True,
    review_maps: bool = True,
    progress: TileProgress | None = None,
    cancelled: Poll | None = None,
    **settings: Unpack[OptionSettings],
) -> list[Path]:
    """Harmonize one scan and write DWI, SH image, first stage and uncertainty for each target.

    Parameters
    ----------
    dwi, bval, bvec, mask
        As for `load_acquisition`.
    model
        A model or its file.
    targets
        Platforms to predict; empty: all of the model's.
    out
        Destination folder; the names keep the input's BIDS entities.
    gradients
        Directions of the written DWI: "target", "input", or a .bvec file with its .bval beside it.
    options, **settings
        As for `harmonize`.
    force
        Whether to replace existing files; those of an earlier prediction of the same name are
        removed.
    describe
        Whether to write dataset_description.json if there is none.
    review_maps
        Whether to write small maps for a review, in `review/maps/` of the nearest described folder.
    progress, cancelled
        As for `harmonize`.

    Returns
    -------
    The DWI of each target.

    Raises
    ------
    UserError
        When a scan, a setting or a file is unusable; nothing is written then.
    """
    root = dataset_root(dwi)
    if describe and root is not None and (root / DESCRIPTION).is_file():
        refuse_among_scans(root, absolute(out), "out")
    model = model if isinstance(model, Model) else load_model(model)
    options = with_settings(options, settings)
    acquisition = load_acquisition(dwi, bval, bvec, mask, b0_threshold=options.b0_threshold)
    scan, out = as_scan(acquisition), Path(out)
    stems: dict[str, str] = {}
    wrong: list[UserError] = []  # reported together with those of `fitting_shells`
    for target in list(targets) or model.targets:
        stem = ImageFile.predicted(acquisition.path or "", target, model.kind).stem
        try:
            model.single(target)  # an unknown target is an error before the first one is computed
            stems[target] = _free(out, stem, force)
        except UserError as error:
            wrong.append(error)
    try:
        # Checked before the network runs: a bad table must not cost an hour.
        directions = choose_directions(gradients, acquisition, model.card.sh.b_values)
    except UserError as error:
        wrong.append(error)
    if wrong:
        fitting_shells(model, acquisition, options, *wrong)
    prepared = prepare_input(model, scan, options)
    predictions = predict_targets(
        model, prepared, list(stems), options, progress=progress, cancelled=cancelled
    )
    how = _How(acquisition, gradients, directions, force, describe, review_maps)
    _write_all(predictions, stems, out, how, cancelled)
    return [ImageFile(stem).at(out) for stem in stems.values()]


def save_prediction(
    prediction: Prediction,
    out: str | Path,
    *,
    gradients: str | Path = "target",
    force: bool = False,
    describe: bool = True,
) -> list[Path]:
    """Write a prediction in memory: the same files that `harmonize_to_folder` writes.

    Parameters
    ----------
    prediction
        Result of `harmonize`; the path or subject of its scan names the files.
    out, gradients, force, describe
        As for `harmonize_to_folder`.

    Returns
    -------
    The prediction's files, the DWI first, without those for a review.

    Raises
    ------
    UserError
        When it cannot be written; nothing is written then.
    """
    model, source = prediction.model, prediction.source
    if model is None or source is None or source.acquisition is None:
        raise ValueError("only a prediction that `harmonize` made can be saved")
    acquisition, out = source.acquisition, Path(out)
    stem = _free(out, prediction.file_stem, force)
    directions = choose_directions(gradients, acquisition, model.card.sh.b_values)
    how = _How(acquisition, gradients, directions, force, describe)
    names = _write_all([prediction], {prediction.target: stem}, out, how)
    dwi = str(ImageFile(stem))
    return [out / name for name in sorted(names, key=lambda name: (name != dwi, name))]


def predicted_signal(prediction: Prediction, directions: FloatArray) -> FloatArray:
    """Return the DWI of one shell: the b=0 image, then the predicted signal along directions.

    Returns
    -------
    (X, Y, Z, 1 + N) float32 in the input's scanner units; 0 outside the mask. S/S0 is clipped to
    [0, 1].
    """
    ratio = np.clip(evaluate_sh(prediction.sh, directions), 0, 1)
    return np.concatenate([prediction.b0[..., None], ratio * prediction.b0[..., None]], axis=-1)


Directions = Callable[[Prediction], FloatArray]
"""Function from a prediction of one shell to the (N, 3) directions of its DWI."""


def choose_directions(
    gradients: str | Path, acquisition: Acquisition, b_values: Sequence[float]
) -> Directions:
    """Check a choice of directions, and return it.

    Parameters
    ----------
    gradients
        "target", "input", or a .bvec file with its .bval beside it.
    acquisition
        The input scan.
    b_values
        b-values of the predicted shells in s/mm². A file of one shell gives its directions to each
        of them, one of several shells to each those of its own b-value.

    Raises
    ------
    UserError
        When it is none of these, or the file cannot be used or lacks a shell.
    """
    if gradients == "target":
        return lambda prediction: prediction.gradients.directions
    if gradients == "input":
        return partial(_nearest_directions, acquisition)
    check_gradients(gradients)
    bvec = Path(gradients)
    threshold = acquisition.given_gradients.b0_threshold
    given = read_gradients(
        bvec.with_suffix(".bval"), bvec, acquisition.affine, b0_threshold=threshold
    )
    for each in b_values:
        _directions_at(given, each, bvec)
    return lambda prediction: _directions_at(given, prediction.b_value or 0.0, bvec)


def check_gradients(gradients: str | Path) -> None:
    """Refuse a value that specifies no gradient table.

    Raises
    ------
    UserError
        When it is neither "target" nor "input" nor a file.
    """
    if str(gradients) not in ("target", "input") and not Path(gradients).is_file():
        problem = f"{gradients} is neither 'target', 'input' nor a .bvec file"
        raise UserError(problem, field="gradients", remedy=Choose("gradients"))


def _nearest_directions(acquisition: Acquisition, prediction: Prediction) -> FloatArray:
    wanted = prediction.sh.rescaled_from or prediction.sh.b_value or 0.0
    shell = acquisition.gradients.nearest_shell(wanted)
    assert shell is not None  # otherwise nothing could have been predicted
    return acquisition.directions(shell)


def _directions_at(given: GradientTable, b_value: float, bvec: Path) -> FloatArray:
    """Return a table's directions for a shell: its own, or those of the only shell."""
    if not given.shells:
        problem = "has no diffusion direction"
        raise UserError(problem, bvec, "gradients", Advice("give a .bvec file with directions"))
    shell = given.nearest_shell(b_value)
    assert shell is not None
    several = len(given.shells) > 1
    if several and not same_shell(shell.b_value, b_value):
        listed = ", ".join(str(each.name) for each in given.shells)
        problem = f"has no directions for b = {b_value:.0f} (it has {listed})"
        remedy = Advice("give a table with the predicted shells, or with one shell for all")
        raise UserError(problem, bvec, "gradients", remedy)
    return given.directions[shell.volumes]


def _free(out: Path, stem: str, force: bool) -> str:
    """Refuse an existing name unless forced; a prediction without its table or mask is redone."""
    written = ImageFile(stem).at(out)
    if written.exists() and not force and not lost_files(written):
        raise UserError("exists already", written, remedy=Overwrite())
    return stem


@dataclass(frozen=True)
class _How:
    """How predictions of one scan are written, see `harmonize_to_folder`."""

    acquisition: Acquisition
    gradients: str | Path
    directions: Directions
    force: bool
    describe: bool
    review_maps: bool = True


def _write_all(
    predictions: Iterable[Prediction],
    stems: Mapping[str, str],
    out: Path,
    how: _How,
    cancelled: Poll | None = None,
) -> list[str]:
    """Write predictions under the stems of their targets, all of them at once; return the names.

    All files of older predictions with the same stems are removed: an expected error that the new
    one lacks would be taken for its own. Maps for a review move to their place last; their root is
    that of `root_of`, or `out` itself if it is about to be described.
    """
    names = stems.values()
    with ExitStack() as staged:
        for_review = None
        if how.review_maps:
            refuse_unwritable_folder(out)  # else an error would name the maps' folder
            root = out if how.describe else root_of(out)
            first = sidecar_of(MadeFrom(ImageFile(next(iter(names))).at(out), root=root))
            older = partial(is_review_map, stems=names)
            for_review = staged.enter_context(staged_folder(first.parent, replaced=older))
        older = partial(is_of_prediction, stems=names)
        # A DWI last: if it exists, the whole prediction does, even if the process was killed.
        stage = staged.enter_context(staged_folder(out, last="_dwi.nii.gz", replaced=older))
        for prediction in predictions:
            stem = stems[prediction.target]
            made = _write(stage, stem, prediction, how)
            if for_review is not None:
                source = prediction.source
                path = None if source is None else source.path
                truth = None if source is None else source.siblings.get(prediction.target)
                write_review_maps(
                    MadeFrom(ImageFile(stem).at(out), path, truth, root),
                    maps_of_prediction(prediction, open_beside(truth), cancelled),
                    written_in=stage,
                    about=about_prediction(made),
                    stage=for_review,
                )
        written = [path.name for path in stage.iterdir()]
        for stem in names:  # another process may have been faster
            _free(out, stem, how.force)
        if how.describe:
            scan = how.acquisition.path
            source_root = None if scan is None else dataset_root(scan)
            describe_derivative(stage, out, HARMONIZED, source_root, flat=True)
    return written


def provenance(prediction: Prediction, gradients: str | Path) -> Provenance:
    """Complete a prediction's provenance with what is looked up when it is saved."""
    known, model, source = prediction.provenance, prediction.model, prediction.source
    assert known is not None
    assert model is not None
    assert source is not None
    return replace(
        known,
        model_sha256=model.sha256,
        person=source.person.to_json(),
        learned_from=taught_by(source.person, model.everyone),
        gradients=str(gradients),
        checksums={}
        if source.acquisition is None
        else checksums(source.acquisition, gradients, known.checksums),
    )


def checksums(
    acquisition: Acquisition,
    gradients: str | Path = "target",
    read: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Digest everything that a prediction is made from, except model and options.

    That is the result of `files_read`, and a file of directions by its content.

    Parameters
    ----------
    acquisition, gradients
        The input, and the directions as for `harmonize_to_folder`.
    read
        Result of `files_read` at the time of prediction; None: it is called now.

    Raises
    ------
    UserError
        When `files_read` is called now and the scan has disappeared since it was read.
    """
    try:
        found = dict(read) or files_read(acquisition)
    except FileNotFoundError as error:
        remedy = Advice(
            "put it back: a prediction records the content of the scan it was made from"
        )
        raise UserError("is no longer there", error.filename, remedy=remedy) from error
    if found and str(gradients) not in ("target", "input"):
        bvec = Path(gradients)
        found["Directions"] = "+".join(sha256(each) for each in (bvec, bvec.with_suffix(".bval")))
    return found


def _write(folder: Path, stem: str, prediction: Prediction, how: _How) -> Provenance:
    """Write the files of a prediction; return the provenance in their sidecars."""
    made, acquisition = provenance(prediction, how.gradients), how.acquisition
    sidecar = {**made.to_sidecar(), MEASURES_FIELD: measures(prediction)}
    like = acquisition.image
    parts = prediction.by_shell()
    directions = [how.directions(part) for part in parts.values()]
    signals = [*map(predicted_signal, parts.values(), directions)]
    # One b=0 image for all shells.
    volumes = [signals[0], *(signal[..., 1:] for signal in signals[1:])]
    affine = next(iter(parts.values())).sh.affine
    dwi, mask = ImageFile(stem).at(folder), ImageFile(stem, "mask").at(folder)
    acquisition.save_estimated_mask(folder, stem.partition("_desc-")[0])
    write_nifti(dwi, np.concatenate(volumes, axis=-1), affine, like=like)
    b0 = round(next(iter(parts.values())).sh.b0_weighting, 1)
    if b0:
        sidecar["BValueOfB0"] = b0  # for readers, which would take b = 60 for a shell
    # Whatever the target's b-values were, all are that of the predicted signal.
    shells = [part.b_value or 0.0 for part in parts.values()]
    with_b0 = GradientTable(
        np.concatenate(
            [[b0], *(np.full(len(each), b) for each, b in zip(directions, shells, strict=True))]
        ),
        np.concatenate([np.zeros((1, 3)), *directions]),
    )
    write_gradients(with_b0, *gradient_files(dwi), affine)
    write_nifti(mask, prediction.mask, affine, like=like)
    about_mask = mask_sidecar("The input's mask on the prediction's lattice", made.sources)
    write_json(sidecar_path(mask), about_mask)
    for shell, part in parts.items():
        own = shell if len(parts) > 1 else None
        _write_shell(folder, ImageFile(stem, COEFFICIENTS, own), part, made, like)
    write_json(sidecar_path(dwi), {**sidecar, FILES: sizes_of(folder, stem)})
    return made


def _write_shell(
    folder: Path, image: ImageFile, prediction: Prediction, made: Provenance, like: nib.Nifti1Image
) -> None:
    """Write the SH images and the uncertainty of one shell, named like its SH image."""
    affine = prediction.sh.affine
    write_sh(image.at(folder), prediction.sh, made.to_sidecar(), like=like)
    if prediction.first_stage is not None:
        first = replace(image, first_stage=True).at(folder)
        about_first = replace(made, stage="first").to_sidecar()
        write_sh(first, prediction.first_stage, about_first, like=like)
    for parameter, each in UNCERTAINTY.items():
        values: FloatArray | None = getattr(prediction, each.attribute)
        if values is not None:
            path = replace(image, what=parameter).at(folder)
            write_nifti(path, values, affine, like=like)
            about = {"Description": each.meaning, "Units": each.units}
            write_json(sidecar_path(path), {**about, "Sources": list(made.sources)})
