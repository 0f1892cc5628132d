"""Files of one image: how those of a scan's maps and of a prediction are named, and found again.

A prediction is a DWI with its mask, and the SH images and uncertainty of each shell, under names
that begin alike. Which files these are is known here alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from napari_msp.bids import nifti_stem, plain_label, read_sidecar, undescribed_stem
from napari_msp.errors import UserError

COEFFICIENTS = "coefficients"
"""`param` of SH images."""

PLAIN = ("dwi", "mask", "dwiref", "review")
"""What is no map, and is named by this word alone; the last two are of a review."""


@dataclass(frozen=True)
class Uncertainty:
    """Map of a prediction's uncertainty: its attribute there, and what its sidecar says."""

    attribute: str
    units: str
    meaning: str


UNCERTAINTY = {
    "disagreement": Uncertainty(
        "disagreement", "SH units", "How far the terms of equation (1) differ"
    ),
    "disagreement0": Uncertainty(
        "order_0_disagreement", "SH units", "How far the terms of equation (1) differ in order 0"
    ),
    "expectederror": Uncertainty(
        "expected_error", "SH units²", "Squared error to expect, as the model was calibrated"
    ),
}
"""Maps of uncertainty that are written with a prediction, by their `param`."""

_NAME = re.compile(
    r"(?P<beginning>.+)_((?P<plain>dwi|mask|dwiref|review)"
    r"|model-(?P<model>[A-Za-z0-9]+)_param-(?P<param>[A-Za-z0-9]+)_dwimap)(?P<suffix>\.[^_]+)"
)
_BEGINNING = re.compile(
    r"(?P<stem>.+_desc-(?!b\d+$)[A-Za-z0-9]+?(_[a-z]+-[A-Za-z0-9]+?)*?)"
    r"(?P<first>FirstStage)?(B(?P<shell>\d+))?(?P<beside>Scan|Truth)?"
)
_UNDESCRIBED = re.compile(r"(?P<stem>.+?)(_desc-b(?P<shell>\d+))?")


@dataclass(frozen=True)
class ImageFile:
    """A file of a scan or prediction; `str` returns its name.

    BIDS has no entity for b-values and stages, and BEP016 none yet: they are part of `desc`.

    Attributes
    ----------
    stem
        Beginning of the names of all its files.
    what
        "dwi", "mask", or the `param` of a map, such as "coefficients"; in a review also "dwiref"
        and "review".
    shell
        b-value in s/mm², if there are several shells.
    first_stage
        Whether it is of the first stage of equation (1).
    beside
        "Scan" or "Truth" in a review: the image shown beside the prediction.
    model
        `model` of a map, such as "tensor".
    suffix
        Ending of its name.
    """

    stem: str
    what: str = "dwi"
    shell: int | None = None
    first_stage: bool = False
    beside: str = ""
    model: str = "sh"
    suffix: str = ".nii.gz"

    @classmethod
    def predicted(cls, dwi: str | Path, target: str, kind: str) -> ImageFile:
        """Return the DWI that is predicted from a scan by a kind of network.

        >>> str(ImageFile.predicted("sub-01_ses-ge_acq-st_dwi.nii.gz", "connectom_sa", "msp"))
        'sub-01_ses-ge_acq-st_desc-connectomsaMsp_dwi.nii.gz'
        """
        made = plain_label(target) + plain_label(kind).capitalize()
        return cls(f"{undescribed_stem(dwi)}_desc-{made}")

    @classmethod
    def parse(cls, path: str | Path) -> ImageFile | None:
        """Read a file's name; None if it is not that of such a file.

        >>> file = ImageFile.parse("sub-01_desc-saMspB3000_model-sh_param-disagreement_dwimap.json")
        >>> file.stem, file.what, file.shell, file.suffix
        ('sub-01_desc-saMsp', 'disagreement', 3000, '.json')
        """
        name = _NAME.fullmatch(Path(path).name)
        if name is None:
            return None
        described = _BEGINNING.fullmatch(name["beginning"])
        found = described or _UNDESCRIBED.fullmatch(name["beginning"])
        assert found is not None  # it matches everything
        more = {} if described is None else described.groupdict()
        return cls(
            found["stem"],
            name["plain"] or name["param"],
            int(found["shell"]) if found["shell"] else None,
            first_stage=bool(more.get("first")),
            beside=more.get("beside") or "",
            model=name["model"] or "sh",
            suffix=name["suffix"],
        )

    @property
    def beginning(self) -> str:
        """The stem with stage and shell.

        >>> ImageFile("sub-01_ses-ge", shell=1200).beginning
        'sub-01_ses-ge_desc-b1200'
        >>> ImageFile("sub-01_desc-saMsp", shell=3000, first_stage=True).beginning
        'sub-01_desc-saMspFirstStageB3000'
        """
        first = self.stem + "FirstStage" * self.first_stage
        if self.shell is None:
            return first + self.beside
        return f"{first}{'B' if '_desc-' in self.stem else '_desc-b'}{self.shell}{self.beside}"

    def __str__(self) -> str:
        if self.what in PLAIN:
            return f"{self.beginning}_{self.what}{self.suffix}"
        # After BEP016, the draft for diffusion derivatives.
        return f"{self.beginning}_model-{self.model}_param-{self.what}_dwimap{self.suffix}"

    def at(self, folder: Path) -> Path:
        """Return its path in a folder."""
        return folder / str(self)

    @property
    def is_sh(self) -> bool:
        """Whether it is an SH image or its sidecar."""
        return (self.model, self.what) == ("sh", COEFFICIENTS)

    def in_shells(self, folder: Path) -> dict[int | None, Path]:
        """Find this file of each shell in a folder; the key is None for a single shell."""
        if self.at(folder).exists():
            return {None: self.at(folder)}
        found = {
            file.shell: path
            for path in folder.glob(f"{escape(self.stem)}*")
            if (file := ImageFile.parse(path)) and str(replace(file, shell=None)) == str(self)
        }
        return dict(sorted(found.items()))


def stem_of(path: Path) -> str:
    """Return the beginning of the names of all files of a prediction, by its DWI or a map."""
    file = ImageFile.parse(path)
    if file is None:
        return nifti_stem(path)
    return file.beginning if file.what == "dwi" else replace(file, shell=None).beginning


def map_beside(image: Path, parameter: str, shell: int | None = None) -> Path | None:
    """Return the file of another map of an SH image, or of a shell of a DWI; None for other names.

    The maps of a DWI's only shell have no shell in their names.
    """
    file = ImageFile.parse(image)
    if file is None or not (file.is_sh or file.what == "dwi"):
        return None
    found = replace(file, what=parameter)
    if not file.is_sh and not found.at(image.parent).exists():
        found = replace(found, shell=shell)
    return found.at(image.parent)


# --- Files of a prediction -----------------------------------------------------------------------


def is_of_prediction(name: str, stems: Collection[str]) -> bool:
    """Return whether a file is written with a prediction of one of these stems."""
    file = ImageFile.parse(name)
    if file is None or not {file.stem, file.beginning} & {*stems}:
        return False
    return file.what in ("dwi", "mask") or (
        file.model == "sh" and file.what in (COEFFICIENTS, *UNCERTAINTY)
    )


FILES = "Files"
"""Field of a predicted DWI's sidecar: the size in bytes of each file written with it, by name."""


def sizes_of(folder: Path, stem: str) -> dict[str, int]:
    """Return the sizes in bytes of all images and tables of a prediction in a folder, by name."""
    names = [each for each in sorted(folder.iterdir()) if is_of_prediction(each.name, [stem])]
    return {each.name: each.stat().st_size for each in names if each.suffix != ".json"}


def lost_files(dwi: Path) -> list[str]:
    """Return the tables and mask that a predicted DWI lacks; empty if its sidecar lists none.

    Maps and SH images, which are large, may have been deleted to save space.
    """
    return [
        name
        for name in _noted_files(dwi)
        if (file := ImageFile.parse(name)) is not None
        and file.what in PLAIN
        and not (dwi.parent / name).exists()
    ]


def changed_files(dwi: Path) -> list[str]:
    """Return the files written with a predicted DWI whose size has changed since.

    Copies and full disks can truncate a file.
    """
    return [
        name
        for name, size in _noted_files(dwi).items()
        if (dwi.parent / name).exists() and (dwi.parent / name).stat().st_size != size
    ]


def _noted_files(dwi: Path) -> dict[str, int]:
    try:
        noted = read_sidecar(dwi).get(FILES)
    except UserError:
        return {}
    if not isinstance(noted, Mapping):
        return {}
    # Names only: a note must not lead to another folder.
    return {
        name: size
        for name, size in noted.items()
        if isinstance(size, int) and Path(name).name == name
    }
