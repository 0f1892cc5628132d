"""Travelling heads as a BIDS dataset: subjects, platforms and where their scans lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_msp.bids import NIFTI_SUFFIXES, marked_input, subject_and_platform
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.errors import Advice, Choose, RunJob, UserError
from napari_msp.formatting import counted
from napari_msp.identity import Person, person_of


@dataclass(frozen=True)
class TravellingHeads:
    """The scans of a travelling-heads study.

    Attributes
    ----------
    root
        BIDS folder.
    scans
        Image of each (subject, platform); a platform's name is `<ses>_<acq>`.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: the usual one.
    """

    root: Path
    scans: dict[tuple[str, str], Path]
    b0_threshold: float | None = None

    def __repr__(self) -> str:
        subjects, platforms = len(self.subjects), ", ".join(self.platforms)
        return f"<TravellingHeads {self.root}: {counted(subjects, 'subject')} on {platforms}>"

    @property
    def subjects(self) -> list[str]:
        """Subjects in order, such as "sub-01"."""
        return sorted({subject for subject, _ in self.scans})

    @property
    def platforms(self) -> list[str]:
        """Platforms in order, such as "ge_st"."""
        return sorted({platform for _, platform in self.scans})

    def has(self, subject: str, platform: str) -> bool:
        """Return whether a subject was scanned on a platform."""
        return (subject, platform) in self.scans

    def person(self, subject: str) -> Person:
        """Say who a subject is, by all of their scans here.

        Raises
        ------
        UserError
            When nobody of that name was scanned.
        """
        scans = [path for (name, _), path in sorted(self.scans.items()) if name == subject]
        if not scans:
            remedy = Advice(f"choose from {', '.join(self.subjects)}")
            raise UserError(f"has no scan of {subject}", self.root, remedy=remedy)
        return person_of(scans[0], scans[1:])

    def acquisition(self, subject: str, platform: str) -> Acquisition:
        """Open one scan.

        Raises
        ------
        UserError
            When there is no such scan, or it cannot be read.
        """
        if not self.has(subject, platform):
            remedy = RunJob("check", "see what there is")
            raise UserError(f"{subject} has no scan on {platform}", self.root, remedy=remedy)
        path = self.scans[subject, platform]
        return load_acquisition(path, b0_threshold=self.b0_threshold)

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
        return load_acquisition(twin, mask=scan.mask_path, b0_threshold=self.b0_threshold)


def open_dataset(
    root: str | Path, subject: str = "sub-*", *, b0_threshold: float | None = None
) -> TravellingHeads:
    """List the scans of a BIDS folder: `sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii[.gz]`.

    Parameters
    ----------
    root
        BIDS folder.
    subject
        Whose scans; all subjects' unless named.
    b0_threshold
        As for `load_acquisition`, for every scan.

    Raises
    ------
    UserError
        When the folder contains no such scan.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError("there is no such folder", root, remedy=Advice("give a BIDS dataset"))
    scans: dict[tuple[str, str], Path] = {}
    for suffix in NIFTI_SUFFIXES:
        for path in sorted(root.glob(f"{subject}/ses-*/dwi/*_dwi{suffix}")):
            identity = subject_and_platform(path)
            if identity is not None:
                scans[identity] = path
    if not scans:
        problem = "has no scan named sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz"
        raise UserError(problem, root, remedy=RunJob("import", "bring the data into that form"))
    return TravellingHeads(root, scans, b0_threshold)


def input_platform(
    dataset: TravellingHeads, given: str | None = None, targets: Sequence[str] = ()
) -> str:
    """Say which platform a dataset's scans are predicted from; it is never guessed by name.

    Parameters
    ----------
    given
        What the user asked for; empty or None: what the dataset marks, else the one platform that
        the targets leave over.
    targets
        Platforms to predict, as far as they were named.

    Raises
    ------
    UserError
        When there is no such platform, or nothing decides.
    """
    platforms = dataset.platforms
    if given:
        if given not in platforms:
            raise UserError(
                f"no scan is on {given}", dataset.root, "input", Choose("input", tuple(platforms))
            )
        return given
    marked = marked_input(dataset.root)
    if marked in platforms and marked not in targets:
        return marked
    left = [each for each in platforms if each not in targets]
    if targets and len(left) == 1:
        return left[0]
    said = f"{marked} is the platform to predict from and cannot be a target, too"
    raise UserError(
        said if marked in targets else "nothing says which platform to predict from",
        dataset.root,
        "input",
        Choose("input", tuple(left)),
    )
