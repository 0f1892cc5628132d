"""Read what a comparison is given: SH images, or scans that SH are fitted to."""

import re
from dataclasses import dataclass
from pathlib import Path

from napari_msp.bids import gradient_files, sidecar_path
from napari_msp.data.acquisition import B_VALUE_TOLERANCE, load_acquisition
from napari_msp.errors import Advice, RescaleBValue, UserError
from napari_msp.signal.fitting import fit_sh, supported_order
from napari_msp.signal.sh_image import SHImage, load_sh


@dataclass(frozen=True)
class Source:
    """An SH image, where it came from, and what a reader should know of it.

    Attributes
    ----------
    path
        The file that was read.
    image
        Its SH image; the b-value is known.
    notes
        Sentences for the reader, such as that SH were fitted to a scan.
    """

    path: Path
    image: SHImage
    notes: list[str]


def read_source(path: str | Path, b_value: float | None = None) -> Source:
    """Read an SH image, or fit one to a DWI that has .bval and .bvec beside it.

    Parameters
    ----------
    path
        Image.
    b_value
        Shell of a DWI that has several, in s/mm².

    Raises
    ------
    UserError
        When the file is neither, or an SH image's b-value is unknown.
    """
    path = Path(path)
    notes: list[str] = []
    if gradient_files(path)[0].exists():
        acquisition = load_acquisition(path)
        image = fit_sh(acquisition, b_value=b_value)
        notes.append(f"{path.name}: SH of order {image.order} were fitted to the scan")
        supported = supported_order(acquisition.directions(acquisition.shell(b_value)))
        if supported < image.order:
            notes.append(
                f"{path.name}: its gradient scheme supports SH order {supported} only; higher "
                "orders come mostly from the regularisation"
            )
    else:
        image = load_sh(path)
    if image.b_value is None:
        raise UserError(
            "its b-value is unknown, so it has no FA",
            path,
            remedy=Advice(f"add BValue to {sidecar_path(path)}"),
        )
    if image.rescaled_from is not None:
        notes.append(
            f"{path.name}: its signal was brought from b = {image.rescaled_from:g} to "
            f"{image.b_value:g} s/mm² as if decay were mono-exponential (approximate)"
        )
    return Source(path, image, notes)


def check_same_head(first: Source, second: Source) -> None:
    """Refuse images whose BIDS names are of different subjects.

    Raises
    ------
    UserError
        When both names hold a `sub-` entity and these differ.
    """
    one, other = _subject(first.path), _subject(second.path)
    if one and other and one != other:
        raise UserError(
            f"is of {other} but {first.path} is of {one}",
            second.path,
            remedy=Advice("give images of one head"),
        )


def same_b_value(first: Source, second: Source) -> bool:
    """Tell whether two images have one b-value, to within `B_VALUE_TOLERANCE`."""
    one, other = first.image.b_value, second.image.b_value
    assert one is not None
    assert other is not None
    return abs(one - other) <= B_VALUE_TOLERANCE * one


def check_same_b_value(first: Source, second: Source) -> None:
    """Refuse images of different b-values: their signals differ even in one scanner.

    Raises
    ------
    UserError
        When the b-values differ by more than `B_VALUE_TOLERANCE`.
    """
    if not same_b_value(first, second):
        one, other = first.image.b_value, second.image.b_value
        assert one is not None
        assert other is not None
        raise UserError(
            f"has b = {other:.0f} s/mm² but {first.path} has {one:.0f}",
            second.path,
            remedy=RescaleBValue(
                measured=other, wanted=one, why="give images of one b-value, or harmonize"
            ),
        )


def _subject(path: Path) -> str | None:
    found = re.match(r"(sub-[A-Za-z0-9]+)", path.name)
    return found.group(1) if found else None
