"""Preparation of a scan for a model: shells, voxels, doubts, or why the model does not fit."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_msp.bids import is_simulated, read_metadata
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.companions import is_scan
from napari_msp.data.contradictions import NOTABLE_B_VALUE, WEAK_B0, in_tissue
from napari_msp.data.gradients import Shell, same_shell, shell_name
from napari_msp.data.lattice import averaging_widths
from napari_msp.errors import (
    Advice,
    Change,
    Doubt,
    Resample,
    RescaleBValue,
    UserError,
    collected,
    together,
)
from napari_msp.formatting import counted
from napari_msp.model_file import Model
from napari_msp.options import Options
from napari_msp.provenance import BROUGHT_BACK
from napari_msp.scan import Scan
from napari_msp.scan_sources import as_scan
from napari_msp.signal.channels import (
    GridImage,
    into_grid,
)
from napari_msp.signal.fitting import fit_sh, scheme_doubt

SAME_B_VALUE = 0.001
"""Relative difference of b-values up to which there is nothing to rescale: rounding."""

UNUSUAL_SHIFT = 1.0
"""Shift of the mean l = 0 channel, in the model's deviations, that is warned of."""


FEWEST_SLICES = 4
"""Voxels along each axis from which a scan does not count as thin (our choice)."""


class UnlikeTraining(Doubt):
    """The scan differs from what the model was trained on."""


class NotForScans(UnlikeTraining):
    """The model learned from simulated heads only, and the scan is not simulated."""


class Rescaled(Doubt):
    """A signal was rescaled to the model's b-value, which is exact for one kind of decay only."""


class NotPredicted(Doubt):
    """A scan has shells that the model does not know."""


@dataclass(frozen=True, eq=False)
class PreparedInput:
    """The input of a model, the same for all of its targets.

    Attributes
    ----------
    image
        SH image on the model's grid, with all the model's shells.
    rescaled_from
        Measured b-value of each shell, if the signal was rescaled to the model's.
    approximations
        Approximations applied to the input, in words.
    warnings
        All doubts about it; readers of a prediction's sidecar, such as `cohort`, count them as its
        warnings.
    goes_back
        Whether predictions are interpolated back to the scan's own voxels.
    mean_signal
        For each shell, distance of its mean from the training subjects', in their standard
        deviations.
    """

    scan: Scan
    image: GridImage
    rescaled_from: tuple[float | None, ...]
    approximations: tuple[str, ...]
    warnings: tuple[Doubt, ...]
    goes_back: bool = False
    mean_signal: tuple[float, ...] = ()
    options: Options = field(default_factory=Options)

    @property
    def acquisition(self) -> Acquisition:
        """The scan's acquisition."""
        assert self.scan.acquisition is not None
        return self.scan.acquisition


def prepare_input(
    model: Model,
    scan: Scan | Acquisition | str | Path,
    options: Options | None = None,
) -> PreparedInput:
    """Fit SH to a scan as a model needs it, and check that the model is valid for it.

    Parameters
    ----------
    model, scan, options
        As for `harmonize`.

    Raises
    ------
    UserError
        When voxel size or b-values are not the model's; the remedy says what can be allowed.

    Warns
    -----
    UnlikeTraining
        When the input's mean signal is far from the training subjects'.
    NotForScans
        When the model is for simulated heads only, and the scan is not known to be of one.
    NotPredicted
        When the scan has shells that are not the model's.
    Rescaled
        When the signal was rescaled to the model's b-value.
    """
    options = options or Options()
    if isinstance(scan, str | Path) and is_scan(scan):
        # The model chooses among several shells.
        scan = load_acquisition(scan, b0_threshold=options.b0_threshold)
    scan = as_scan(scan, b0_threshold=options.b0_threshold)
    acquisition = scan.acquisition
    if acquisition is None:
        problem = "is an SH image, without the b=0 image that a prediction needs"
        remedy = Advice("give the DWI that it was fitted to")
        raise UserError(problem, scan.path or scan.owner or "SH image", "scan", remedy)
    if scan.provenance is not None:
        remedy = Advice("give the measured scan")
        raise UserError(
            "is a prediction itself", scan.path or scan.owner or "SH image", "scan", remedy
        )
    sh, images, chosen = model.card.sh, {}, fitting_shells(model, acquisition, options)
    acquisition.tell(acquisition.doubts)
    name, said = acquisition.name, tuple[str, ...]()
    of_shells = [NotPredicted(each, name) for each in _left_out(acquisition, chosen)]
    for left_out in of_shells:
        warnings.warn(left_out, stacklevel=3)
    for wanted, shell in chosen.items():
        rescaling = _rescaling(shell, wanted, options.rescale_b_value)
        said += rescaling
        for words in rescaling:
            warnings.warn(Rescaled(words, name), stacklevel=3)
        images[shell_name(wanted)] = fit_sh(
            acquisition,
            b_value=shell.b_value,
            order=sh.order,
            regularisation=sh.regularisation(len(shell.volumes)),
            rescale_to=wanted if rescaling else None,
        )
    image, resampling = _on_model_grid(model, into_grid(images), options)
    mean_signal = _mean_signal(image, model, name)
    unlike = (
        *_platform_doubts(model, scan),
        *(() if options.rescale_b_value else _b_value_doubts(chosen)),
        *_b0_doubts(model, acquisition),
        *_thin(image, acquisition),
        *_unlike(mean_signal, model),
    )
    of_model = [UnlikeTraining(each, name) for each in unlike]
    of_model += unfit_for(model, acquisition.path)
    for doubt in of_model:
        warnings.warn(doubt, stacklevel=3)
    schemes = (scheme_doubt(acquisition.directions(shell), sh.order) for shell in chosen.values())
    of_schemes = (Doubt(each, name) for each in schemes if each)
    doubts = (*acquisition.doubts, *of_shells, *of_schemes, *of_model)
    rescaled = tuple(each.rescaled_from for each in images.values())
    goes_back = bool(resampling) and options.lattice == "scan"
    done = said + resampling
    return PreparedInput(scan, image, rescaled, done, doubts, goes_back, mean_signal, options)


def unfit_for(model: Model, scan: Path | None) -> tuple[NotForScans, ...]:
    """Return a doubt if a model is for simulated heads and a scan is not known to be simulated.

    The words are the same for all scans, so that for many it can be reported once.
    """
    if model.card.for_scans or is_simulated(scan):
        return ()
    return (NotForScans(f"{only_simulated(model)}; this scan is not known to be simulated"),)


def only_simulated(model: Model) -> str:
    """Return a text on a model that is not for scans: what it is for, with its label."""
    label = f' ("{model.card.label}")' if model.card.label else ""
    return f"{Path(model.name).name} is for simulated heads only{label}"


def tell_unfit(model: Model, scans: Iterable[Path | None], whose: str) -> tuple[str, ...]:
    """Warn once for many scans that a model is for simulated heads only.

    Parameters
    ----------
    scans
        Scans, examined up to the first that is not known to be simulated.
    whose
        Name of their dataset.

    Warns
    -----
    NotForScans
        With the returned text.
    """
    if model.card.for_scans or all(map(is_simulated, scans)):
        return ()
    said = f"{only_simulated(model)}, and the scans of {whose} are not known to be simulated"
    warnings.warn(said, NotForScans, stacklevel=3)
    return (said,)


def fitting_shells(
    model: Model, acquisition: Acquisition, options: Options, *others: UserError
) -> dict[float, Shell]:
    """Return the shell for each of the model's b-values, for a scan that fits the model.

    Raises
    ------
    UserError
        With everything that is wrong.
    """
    problems: list[UserError] = []
    chosen: dict[float, Shell] = {}
    with collected(problems):
        chosen = _shells(model, acquisition, options)
    with collected(problems):
        _check_voxels(model, acquisition, options)
    if problems or others:
        raise together([*problems, *others])
    return chosen


def _shells(model: Model, acquisition: Acquisition, options: Options) -> dict[float, Shell]:
    """Return the scan's shell for each of the model's b-values."""
    if options.b_value is None:
        known = acquisition.gradients.shells or acquisition.shells()  # raises, with the reason
    else:
        known = acquisition.shells(options.b_value)
    nearest_to = {
        wanted: min(known, key=lambda shell: abs(shell.b_value - wanted))
        for wanted in model.card.sh.b_values
    }
    trained = " and ".join(f"{each:.0f}" for each in nearest_to)
    listed = " and ".join(f"{shell.b_value:.0f}" for shell in known)
    if len({shell.name for shell in nearest_to.values()}) < len(nearest_to):
        problem = f"has b = {listed} s/mm², but the model needs a shell near each of {trained}"
        remedy = Advice("give a scan of all the model's shells, or another model")
        raise UserError(problem, acquisition.name, "model", remedy)
    found: dict[float, Shell] = {}
    for wanted, nearest in nearest_to.items():
        found[wanted] = acquisition.shell(nearest.b_value)  # refuses b-values that form no shell
        if _rescaling(nearest, wanted) and not options.rescale_b_value:
            has = listed if len(nearest_to) > 1 else f"{nearest.b_value:.0f}"
            problem = f"has b = {has} s/mm², but the model was trained at {trained}"
            raise UserError(problem, acquisition.name, "rescale_b_value", RescaleBValue())
    if options.b_value is not None and len(known) > len(found):
        taken = {shell.name for shell in found.values()}
        left = ", ".join(str(each.name) for each in known if each.name not in taken)
        problem = f"the model does not predict b = {left}"
        fewer = Change("b_value", "fewer values of")
        raise UserError(problem, acquisition.name, "b_value", fewer)
    return found


def _left_out(acquisition: Acquisition, chosen: Mapping[float, Shell]) -> tuple[str, ...]:
    """Return texts on shells that are not predicted, given the chosen shell of each b-value."""
    taken = {shell.name for shell in chosen.values()}
    others = [str(each.name) for each in acquisition.gradients.shells if each.name not in taken]
    known = ", ".join(
        f"{wanted:.0f}, read from {shell.name}" if _rescaling(shell, wanted) else f"{wanted:.0f}"
        for wanted, shell in chosen.items()
    )
    said = f"b = {', '.join(others)} of the scan is not predicted (the model knows b = {known})"
    return (said,) if others else ()


def _rescaling(shell: Shell, wanted: float, asked: bool = False) -> tuple[str, ...]:
    """Return how a shell's signal is rescaled to another b-value; empty if it need not be.

    If that was `asked` for, small differences count, too.
    """
    near = abs(shell.b_value / wanted - 1) <= SAME_B_VALUE
    if near or (not asked and same_shell(shell.b_value, wanted)):
        return ()
    return (
        f"signal of b = {shell.b_value:.0f} rescaled to {wanted:.0f} s/mm² by "
        f"(S/S0)^({wanted:.0f}/{shell.b_value:.0f}), exact for mono-exponential decay only",
    )


def _check_voxels(model: Model, acquisition: Acquisition, options: Options) -> None:
    """Refuse voxels of another size than the model's, unless they may be interpolated."""
    wanted, lattice = model.card.voxel_size, acquisition.lattice.canonical
    if options.resample or lattice.has_voxels_of(wanted):
        return
    problem = f"its voxels are {lattice.edges}, but the model needs {wanted:.2f} mm isotropic"
    raise UserError(problem, acquisition.name, "resample", Resample())


def _on_model_grid(
    model: Model, image: GridImage, options: Options
) -> tuple[GridImage, tuple[str, ...]]:
    wanted = model.card.voxel_size
    if image.lattice.has_voxels_of(wanted):
        return image, ()
    finer = averaging_widths(image.lattice, image.lattice.scaled_to(wanted)).any()
    how = "averaged and interpolated linearly" if finer else "interpolated linearly"
    said = f"SH image of {image.lattice.edges} voxels {how} to {wanted:.2f} mm"
    if options.lattice == "model":
        return image.resampled(image.lattice.scaled_to(wanted)), (said,)
    cubes = image.lattice.scaled_to(wanted, covering=True)
    return image.extended(wanted).resampled(cubes), (said, BROUGHT_BACK)


def _mean_signal(image: GridImage, model: Model, name: str) -> tuple[float, ...]:
    """Return each shell's distance from the training subjects' mean, in their deviations."""
    if not image.mask.any():
        remedy = Advice("check the mask")
        raise UserError("no voxel of the mask is left on the model's grid", name, "mask", remedy)
    known = model.standardisation(model.card.input).by_shell(image.shells)
    means = (part.coefficients[..., 0][part.mask].mean() for part in image.by_shell())
    return tuple(
        float((mean - source.mean[0]) / source.deviation[0])
        for mean, source in zip(means, known, strict=True)
    )


def _platform_doubts(model: Model, scan: Scan) -> Iterator[str]:
    """Report that a scan is of a predicted platform, by its name or its sidecar's scanner.

    Studies name scanners differently, so a word of a target's session that the input's name lacks
    is no evidence. Words of protocols are none either, unless the scan's session has none.
    """
    wanted = model.card.input
    if scan.platform == wanted:
        return
    session, _, protocol = scan.platform.partition("_")
    scanner = _scanner(scan.path)
    for where, given, words in (
        ("name", scan.platform, _words(session) or _words(protocol)),
        ("sidecar", scanner, _words(scanner) - {"fit"}),  # as many Siemens scanners are called
    ):
        own = words - _words(wanted)
        alike = [each for each in model.targets if own & _words(each.partition("_")[0])]
        if named := [given] if given in model.targets else alike:
            yield (
                f"is from {given} according to its {where}: {' and '.join(named)} is a target of "
                f"the model, which predicts from {wanted}"
            )
            return


def _scanner(path: Path | None) -> str:
    """Return the scanner's model from the sidecar; empty if it cannot be read."""
    try:
        said = {} if path is None else read_metadata(path)
    except UserError:
        return ""
    return str(said.get("ManufacturersModelName", ""))


def _words(name: str) -> set[str]:
    """Return the words of a platform's name, without numbers and single letters."""
    return set(re.findall(r"[^\W\d_]{2,}", name.lower()))


def _b_value_doubts(chosen: Mapping[float, Shell]) -> Iterator[str]:
    """Report shells that match the model's although their b-values differ a little."""
    for wanted, shell in chosen.items():
        off = abs(shell.b_value / wanted - 1)
        if off > NOTABLE_B_VALUE and not _rescaling(shell, wanted):
            yield (
                f"b = {shell.b_value:.0f} is used as the model's {wanted:.0f} s/mm²: unless it "
                f"is rescaled, diffusivities are {100 * off:.0f} % off"
            )


def _thin(image: GridImage, acquisition: Acquisition) -> Iterator[str]:
    """Report a scan so thin that hardly any voxel has a complete neighbourhood in the network."""
    slices, own = min(image.mask.shape), acquisition.lattice
    if slices < FEWEST_SLICES:
        as_it_is = own.has_voxels_of(image.lattice.voxel_sizes)
        sizes = "" if as_it_is else f" ({own.edges} interpolated to {image.lattice.edges})"
        yield (
            f"it has only {counted(slices, 'slice')}{sizes}: networks read the slices above and "
            "below, too, which are missing here, and were not trained on such scans"
        )


def _b0_doubts(model: Model, acquisition: Acquisition) -> Iterator[str]:
    """Report b=0 images that are more, or less, weighted than those that the model learned from."""
    own, known = acquisition.gradients.b0_weighting, model.card.b0_weighting
    if known is not None and abs(own - known) > WEAK_B0:
        yield (
            f"its b=0 images have b = {own:.0f} s/mm² on average, but those of the training "
            f"scans {known:.0f}: this alone changes S/S0 by about {in_tissue(own - known)}"
        )


def _unlike(shifts: tuple[float, ...], model: Model) -> Iterator[str]:
    """Report shells whose mean signal is far from the training subjects'."""
    for shift, b_value in zip(shifts, model.card.sh.b_values, strict=True):
        if abs(shift) > UNUSUAL_SHIFT:
            at = f" at b = {b_value:.0f}" if len(shifts) > 1 else ""
            yield (
                f"its mean signal{at} is {shift:+.1f} standard deviations from the training "
                "subjects'; the model may not be valid for this scan (check mask, b-value and "
                "protocol)"
            )
