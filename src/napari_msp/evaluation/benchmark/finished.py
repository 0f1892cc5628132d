"""Predictions made elsewhere: found in a folder, and opened subject by subject."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.bids import (
    entities,
    image_suffix,
    is_dwi,
    nifti_stem,
    plain_label,
    platform_of,
    read_sidecar,
)
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import MOST_APART, NOT_REGISTERED, centres_apart
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned
from napari_msp.evaluation.line_up import (
    LEAST_SHARED,
    Comparison,
    at_b_value,
    check_not_rescaled,
    line_up,
    map_onto,
)
from napari_msp.evaluation.proof.pages import BEFORE
from napari_msp.files import files_under, state_of
from napari_msp.formatting import listed
from napari_msp.identity import Person, may_be_same
from napari_msp.image_files import ImageFile
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.maps import MAPS, Maps
from napari_msp.signal.sh_image import SHImage


@dataclass(frozen=True)
class FinishedPredictions:
    """Predictions of this package or of any other method that lie in a folder.

    Attributes
    ----------
    folder
        Folder that contains one for each subject, `sub-<label>/…`.
    images
        Files of the predicted images by subject and target: SH images, one per shell, else a DWI.
    maps
        Files of maps by the keys of `MAPS`, by subject and target; only where there is no image.
    """

    name: str
    folder: Path
    images: Mapping[tuple[str, str], tuple[Path, ...]]
    maps: Mapping[tuple[str, str], Mapping[str, Path]]
    provenance: Mapping[tuple[str, str], Provenance]

    @property
    def targets(self) -> list[str]:
        """Platforms that are predicted."""
        return sorted({target for _, target in (*self.images, *self.maps)})

    @property
    def subjects(self) -> list[str]:
        """Subjects that are predicted."""
        return sorted({subject for subject, _ in (*self.images, *self.maps)})

    @property
    def state(self) -> str:
        """Digest of the files' names, sizes and write times."""
        alone = (paths.values() for paths in self.maps.values())
        return state_of(path for paths in (*self.images.values(), *alone) for path in paths)

    def overlapping(self, subjects: Collection[str]) -> bool:
        """Return whether several models predicted these subjects, each taught by others of them.

        This is the case when each subject is tested once while the others teach.
        """
        models = {made.model_sha256 for made in self.provenance.values()}
        taught = self.taught_by(subjects)
        return len(models) > 1 and any(names - {who} for who, names in taught.items())

    def doubt(self, subjects: Collection[str]) -> str | None:
        """Return a note on subjects whose model learned from them or their names; None: no such."""
        taught = self.taught_by(subjects)
        measured = {who: made for (who, _), made in self.provenance.items() if who in subjects}
        sure = sorted(who for who, made in measured.items() if made.learned_from)
        # False: the name is another person's.
        own = [w for w, names in taught.items() if w in names and measured[w].learned_from is None]
        if not (sure or own):
            return None
        words = f"{self.name}: the model learned from "
        if sure:
            words += f"{listed(sure)}, who are measured: its errors are too low"
        else:
            words += (
                f"people named {listed(own)}, like some measured subjects; if they are the same "
                "people, its errors are too low"
            )
        warnings.warn(words, MayHaveLearned, stacklevel=4)
        return words

    def taught_by(self, subjects: Collection[str]) -> dict[str, set[str]]:
        """Return, by subject, names of the subjects that its prediction's model learned from."""
        taught: dict[str, set[str]] = {}
        for (subject, _), made in self.provenance.items():
            if subject in subjects:
                taught.setdefault(subject, set()).update({*made.training_subjects} & {*subjects})
        return {subject: names for subject, names in taught.items() if names}


def find_predictions(
    name: str,
    folder: str | Path,
    dataset: Path,
    targets: Sequence[str],
    subjects: Collection[str],
    *,
    alone: bool = True,
) -> FinishedPredictions:
    """Find finished predictions, each by its sidecar or its name.

    The sidecar that `harmonize` writes says what it predicts; else the platform in the file's
    name (`ses-`, `acq-`), or a target in its `desc-`; if there is only one target, it is that one.

    Parameters
    ----------
    folder
        Contains `[sub-<label>/…/]sub-<label>…_dwi` or SH images, `…_param-coefficients_dwimap`; of
        methods that give no image, maps such as `…_model-tensor_param-fa_dwimap`.
    dataset
        Dataset whose subjects are predicted; if `folder` contains a folder of that name, they lie
        there.
    alone
        Whether there is no other dataset, so that predictions may lie in `folder` itself.

    Raises
    ------
    UserError
        When there is no such folder, no prediction in it, or several of one subject.
    """
    inside = Path(folder) / dataset.name
    folder = inside if inside.is_dir() or not alone else Path(folder)
    if not folder.is_dir():
        remedy = Advice("check the path")
        if not alone:
            remedy = Advice("put the predictions of each dataset into a folder of its name")
        raise UserError("there is no such folder", folder, "predictions", remedy)
    if folder.resolve() == dataset.resolve():
        problem = "is the dataset itself, whose scans would be compared with themselves"
        raise UserError(problem, folder, "predictions", Advice("give a folder of predictions"))
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    maps: dict[tuple[str, str], dict[str, Path]] = {}
    provenance: dict[tuple[str, str], Provenance] = {}
    for subject in sorted(subjects):
        for file, path in _images_of(folder, subject):
            made = Provenance.from_sidecar(read_sidecar(path))
            target = _predicted(path, made, targets)
            if target is None:
                continue
            found.setdefault((subject, target), {}).setdefault(file.stem, []).append(path)
            if made is not None:
                provenance[subject, target] = made
        for key, path in _maps(folder, subject):
            target = _predicted(path, Provenance.from_sidecar(read_sidecar(path)), targets)
            if target is None or (subject, target) in found:
                continue
            if key in maps.setdefault((subject, target), {}):
                problem = f"has several {key} maps of {target} for {subject}"
                raise UserError(
                    problem, folder, "predictions", Advice("give one folder per method")
                )
            maps[subject, target][key] = path
    if not found and not maps:
        problem = f"has no prediction of {', '.join(targets)} for any subject"
        remedy = Advice("give a folder of sub-<label>/…/sub-<label>…_dwi.nii.gz")
        raise UserError(problem, folder, "predictions", remedy)
    images = {}
    for (subject, target), by_stem in found.items():
        if len(by_stem) > 1:
            problem = f"has several predictions of {target} for {subject} ({', '.join(by_stem)})"
            raise UserError(problem, folder, "predictions", Advice("give one folder per method"))
        (paths,) = by_stem.values()
        of_sh = [path for path in paths if not is_dwi(path)]  # as predicted, not fitted anew
        images[subject, target] = tuple(of_sh or paths)
    return FinishedPredictions(name, folder, images, maps, provenance)


def all_predictions(
    folders: Mapping[str, str | Path],
    datasets: Sequence[Path],
    targets: Sequence[str],
    subjects: Collection[str],
) -> dict[Path, list[FinishedPredictions]]:
    """Find finished predictions of several methods, by dataset; see `find_predictions`."""
    alone = len(datasets) == 1
    return {
        dataset: [
            find_predictions(name, folder, dataset, targets, subjects, alone=alone)
            for name, folder in folders.items()
        ]
        for dataset in datasets
    }


def predicted_from(folders: Iterable[str | Path], dataset: TravellingHeads) -> str:
    """Return the platform that the folders' first predictions were made from; empty if unclear."""
    said = set()
    for folder in map(Path, folders):
        inside = folder / dataset.root.name
        place = inside if inside.is_dir() else folder
        made = (
            Provenance.from_sidecar(read_sidecar(path))
            for subject in dataset.subjects
            for _, path in _images_of(place, subject)
        )
        first = next((each for each in made if each is not None), None)
        said |= {first.input} if first is not None and first.input in dataset.platforms else set()
    return said.pop() if len(said) == 1 else ""


def _images_of(folder: Path, subject: str) -> Iterator[tuple[ImageFile, Path]]:
    """Yield files that may be predictions of a subject: DWIs and SH images."""
    for path in _files_of(folder, f"{subject}_*"):
        file = ImageFile.parse(path)
        if file is not None and image_suffix(path) and (is_dwi(path) or file.is_sh):
            yield file, path


def _files_of(folder: Path, pattern: str) -> list[Path]:
    """List a subject's files, in its own folder as in cohorts, and directly in `folder`."""
    subject = pattern.partition("_")[0]
    return sorted({*folder.glob(pattern), *files_under(folder / subject, pattern)})


MAPS_ALONE = ("fa", "md", "colour_fa")
"""Maps that pages of proof measure where a method gives no image."""


def _maps(folder: Path, subject: str) -> Iterator[tuple[str, Path]]:
    """Yield a subject's maps that are measured without an image, with their keys of `MAPS`."""
    ends = {f"_param-{MAPS[key].parameter}_dwimap": key for key in MAPS_ALONE}
    for path in _files_of(folder, f"{subject}_*_dwimap*"):
        for end, key in ends.items():
            if image_suffix(path) and nifti_stem(path).endswith(end):
                yield key, path


def _predicted(path: Path, made: Provenance | None, targets: Sequence[str]) -> str | None:
    """Return the target that a file predicts; None unless it is a prediction of the last stage."""
    if made is not None:
        return made.target if made.stage == "last" and made.target in targets else None
    platform = platform_of(path)
    if platform in targets:
        return platform
    described = entities(path).get("desc", "").casefold()
    fit = [each for each in targets if plain_label(each).casefold() in described]
    if len(fit) == 1:
        return fit[0]
    return targets[0] if len(targets) == 1 and not fit else None


# --- Opened -----------------------------------------------------------------------------------


class FinishedOnTarget:
    """Finished predictions on one target, opened subject by subject; unusable ones are noted.

    Attributes
    ----------
    notes
        Problems and doubts of single heads, in words.
    interpolated
        Distance in mm between the centres of prediction's and truth's brain, by row and subject, of
        predictions that lie on other voxels than truth.
    """

    def __init__(
        self, finished: Sequence[FinishedPredictions], target: str, dataset: TravellingHeads
    ) -> None:
        self.notes: list[str] = []
        self.interpolated: dict[str, dict[str, float]] = {}
        self._finished, self._target, self._dataset = finished, target, dataset

    def images(
        self,
        subject: str,
        truth: Maps,
        b: float,
        others: Mapping[str, Maps],
        given: SHImage,
    ) -> dict[str, Maps]:
        """Open a subject's images of one shell.

        Parameters
        ----------
        b
            b-value of the shell in s/mm², if truth does not state its own.
        others
            Other rows' predictions, by row.
        given
            Input image.
        """
        found: dict[str, Maps] = {}
        compared: dict[str, Comparison] = {}
        person = self._dataset.person(subject) if self._finished else Person()
        for each in self._finished:
            paths = each.images.get((subject, self._target))
            if (subject, self._target) in each.maps:
                continue
            if paths is None:
                self._note(each.name, subject, "there is no prediction")
                continue
            try:
                scan = self._at_b_value(load_scan(paths), truth.image.b_value or b)
                lined_up = line_up(truth, {each.name: scan})
                image = scan.at_shell().sh
                apart = centres_apart(
                    image.mask, image.affine, truth.image.mask, truth.image.affine
                )
                if lined_up.interpolated:
                    self.interpolated.setdefault(each.name, {})[subject] = apart
                if apart > MOST_APART:
                    said = f"its brain is {apart:.1f} mm from that in the target's scan"
                    self._note(each.name, subject, f"{said}: {NOT_REGISTERED}")
                if scan.provenance is not None and not may_be_same(person, scan.person):
                    raise UserError("was made from another person's scan")
                found[each.name], compared[each.name] = scan.maps("sh"), lined_up
            except UserError as error:
                self._note(each.name, subject, error.phrase(subject=paths[0].name))
        for name, said in self._doubts_of(compared, others, truth.image, given):
            self._note(name, subject, said)
        return found

    def maps(self, subject: str, lattice: Lattice) -> dict[str, dict[str, FloatArray]]:
        """Open a subject's maps where there is no image, resampled to a lattice, by row and key."""
        found: dict[str, dict[str, FloatArray]] = {}
        for each in self._finished:
            for key, path in each.maps.get((subject, self._target), {}).items():
                try:
                    values = map_on(path, lattice, key)
                except UserError as error:
                    self._note(each.name, subject, error.phrase())
                else:
                    found.setdefault(each.name, {})[key] = values
        return found

    def _note(self, row: str, subject: str, said: str) -> None:
        self.notes.append(f"{row}, {subject} on {self._target}: {said}")

    def _doubts_of(
        self,
        compared: Mapping[str, Comparison],
        others: Mapping[str, Maps],
        truth: SHImage,
        given: SHImage,
    ) -> Iterator[tuple[str, str]]:
        """Yield notes on predictions that equal another image, or lack voxels that others have.

        Every row is measured where it and truth have brain.
        """
        known = {
            f'the row "{name}"': maps.image
            for name, maps in others.items()
            if maps.image.lattice.matches(truth.lattice)
        }
        voxels = {name: int(each.mask.sum()) for name, each in compared.items()}
        most = max(
            (*voxels.values(), *(int((each.mask & truth.mask).sum()) for each in known.values())),
            default=0,
        )
        of_target, of_input = f"the scan on {self._target}", "the input"
        seen = {of_target: truth, **known}
        if given.lattice.matches(truth.lattice):
            seen[of_input] = given
        unpredicted = {of_target, of_input, f'the row "{BEFORE}"'}
        for name, each in compared.items():
            image = each.predictions[name].image
            for what, other in seen.items():
                inside = each.mask & other.mask
                if np.array_equal(image.coefficients[inside], other.coefficients[inside]):
                    so = ", so no prediction" if what in unpredicted else ""
                    yield name, f"it is the same as {what}{so}"
                    break
            seen[f'the row "{name}"'] = image
            if voxels[name] < LEAST_SHARED * most:
                share = f"{100 * voxels[name] / most:.0f} %"
                yield (
                    name,
                    f"its mask covers only {share} of the voxels in which another row is "
                    "measured, so "
                    "their errors cannot be compared: give it the scan's mask",
                )

    def _at_b_value(self, prediction: Scan, wanted: float) -> Scan:
        """Return the shell of a prediction that has the target's b-value."""
        part = at_b_value(prediction, wanted)
        if part is None:
            check_not_rescaled(prediction, wanted)
            known = listed([str(each) for each in prediction.shells])
            problem = f"has b = {known} s/mm² but the scan on {self._target} has {wanted:.0f}"
            remedy = Advice("give a prediction of its b-value")
            raise UserError(problem, field="predictions", remedy=remedy)
        return part


LARGEST_MD = 0.02
"""Largest mean diffusivity in mm²/s; free water has 0.003. More is in other units (ours)."""

LARGEST_FA = 1.5
"""Largest FA: negative eigenvalues give up to √(3/2). More is in percent or the like (ours)."""


def map_on(path: Path, lattice: Lattice, key: str) -> FloatArray:
    """Read a map and resample it to a lattice, interpolated linearly inside its own mask.

    Voxels of 0, or without a finite number, lie outside its mask.

    Raises
    ------
    UserError
        When it cannot be read, has the wrong axes for its kind, or does not overlap the lattice.
    """

    def error(problem: str, remedy: str) -> UserError:
        return UserError(problem, path, "predictions", Advice(remedy))

    image = open_nifti(path)
    wanted = 4 if MAPS[key].coloured else 3
    shape = (*image.shape[:3], *(length for length in image.shape[3:] if length > 1))
    values = read_voxels(image, path).reshape(shape)
    if len(shape) != wanted or (wanted == 4 and shape[-1] != 3):
        problem = f"has shape {image.shape}, which does not fit a map of {MAPS[key].title}"
        raise error(problem, "give another map")
    values = np.nan_to_num(values, posinf=0, neginf=0)
    if wanted == 4:
        values = np.abs(values)
    if key == "md" and np.any(values > LARGEST_MD):
        raise error("has diffusivities that are not in mm²/s", "give it in mm²/s")
    if key in ("fa", "colour_fa") and np.any(values > LARGEST_FA):
        raise error("has values that are not FA", "give it from 0 to 1")
    own = lattice_of(image)
    if own.matches(lattice):
        return values
    mask = values != 0 if wanted == 3 else (values != 0).any(axis=-1)
    found, there = map_onto(values, mask, own, lattice)
    if not there.any():
        raise error("is outside the target's scan", "give it in the scan's space")
    return found
