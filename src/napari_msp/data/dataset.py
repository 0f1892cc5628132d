"""Travelling heads as a BIDS dataset: subjects, platforms and where their scans lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.names import NIFTI_SUFFIXES, nifti_stem
from napari_msp.errors import UserError

_SCAN = re.compile(
    r"(?P<subject>sub-[A-Za-z0-9]+)_ses-(?P<session>[A-Za-z0-9]+)_acq-(?P<protocol>[A-Za-z0-9]+)_dwi"
)


@dataclass(frozen=True)
class TravellingHeads:
    """The scans of a travelling-heads study.

    Attributes
    ----------
    root
        BIDS folder.
    scans
        Image of each (subject, platform); a platform's name is `<ses>_<acq>`.
    """

    root: Path
    scans: dict[tuple[str, str], Path]

    @property
    def subjects(self) -> list[str]:
        """Subjects in order, such as "sub-01"."""
        return sorted({subject for subject, _ in self.scans})

    @property
    def platforms(self) -> list[str]:
        """Platforms in order, such as "ge_st"."""
        return sorted({platform for _, platform in self.scans})

    def has(self, subject: str, platform: str) -> bool:
        """Tell whether a subject was scanned on a platform."""
        return (subject, platform) in self.scans

    def acquisition(self, subject: str, platform: str) -> Acquisition:
        """Open one scan.

        Raises
        ------
        UserError
            When there is no such scan, or it cannot be read.
        """
        if not self.has(subject, platform):
            raise UserError(f"{self.root}: {subject} has no scan on {platform}; see `check`")
        return load_acquisition(self.scans[subject, platform])

    def noise_free(self, subject: str, platform: str) -> Acquisition | None:
        """Open the twin without noise that a simulated scan has; None where there is none.

        It is seen through the scan's own mask.

        Raises
        ------
        UserError
            When there is no such scan, or the twin cannot be read.
        """
        scan = self.acquisition(subject, platform)
        path = self.scans[subject, platform]
        folder = self.root / "derivatives" / "noisefree" / path.parent.relative_to(self.root)
        twin = folder / path.name.replace("_dwi.", "_desc-noisefree_dwi.")
        if not twin.exists():
            return None
        return load_acquisition(twin, mask=scan.mask_path)


def open_dataset(root: str | Path, subject: str = "sub-*") -> TravellingHeads:
    """List the scans of a BIDS folder: `sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii[.gz]`.

    Parameters
    ----------
    root
        BIDS folder.
    subject
        Whose scans; all subjects' unless named.

    Raises
    ------
    UserError
        When the folder holds no such scan.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give a BIDS dataset")
    scans: dict[tuple[str, str], Path] = {}
    for suffix in NIFTI_SUFFIXES:
        for path in sorted(root.glob(f"{subject}/ses-*/dwi/*_dwi{suffix}")):
            identity = subject_and_platform(path)
            if identity is not None:
                scans[identity] = path
    if not scans:
        raise UserError(
            f"{root}: holds no scan named sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz; "
            "bring the data into that form with `napari-msp import`"
        )
    return TravellingHeads(root, scans)


def subject_and_platform(scan: Path) -> tuple[str, str] | None:
    """Tell whose scan this is and on what platform, by its name alone; None where it does not say.

    >>> subject_and_platform(Path("sub-01_ses-ge_acq-st_dwi.nii.gz"))
    ('sub-01', 'ge_st')
    """
    match = _SCAN.fullmatch(nifti_stem(scan))
    if match is None:
        return None
    return match["subject"], platform_name(match["session"], match["protocol"])


def platform_name(session: str, protocol: str) -> str:
    """Name a platform after its BIDS entities.

    >>> platform_name("ge", "st")
    'ge_st'
    """
    return f"{session}_{protocol}"


def entities_of(platform: str) -> tuple[str, str]:
    """Give the session and protocol labels of a platform.

    >>> entities_of("connectom_sa")
    ('connectom', 'sa')
    """
    session, _, protocol = platform.partition("_")
    return session, protocol
