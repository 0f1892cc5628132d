"""Files that are missing, misnamed or unreadable beside the images."""

from collections.abc import Iterator
from pathlib import Path

from napari_msp.bids import gradient_files, nifti_stem
from napari_msp.checking.findings import Finding, finding_from, place_of
from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import UserError
from napari_msp.files import read_json

DESCRIPTION = "dataset_description.json"


def check_descriptions(root: Path) -> Iterator[Finding]:
    """Look at the descriptions that BIDS asks for, of the dataset and of its derivatives."""
    if not (root / DESCRIPTION).exists():
        yield Finding(
            "warning", DESCRIPTION, "is missing; BIDS tools refuse a dataset without it, add it"
        )
    else:
        try:
            read_json(root / DESCRIPTION)
        except UserError as error:
            yield finding_from(error, root, DESCRIPTION)
    for folder in sorted((root / "derivatives").glob("*/")):
        description = folder / DESCRIPTION
        if not description.exists():
            message = "is missing; BIDS asks for one in each derivative, add it"
            yield Finding("note", place_of(description, root), message)


def check_names(dataset: TravellingHeads) -> Iterator[Finding]:
    """Look for images that look like scans but are not listed."""
    listed = set(dataset.scans.values())
    for path in sorted(dataset.root.glob("sub-*/**/*_dwi.nii*")):
        if path not in listed:
            yield Finding(
                "warning",
                place_of(path, dataset.root),
                "is passed over: scans are named sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz and "
                "each once; rename or remove it",
            )


def check_missing_scans(dataset: TravellingHeads, input_platform: str) -> Iterator[Finding]:
    """Look for subjects without a scan on one of the platforms."""
    for subject in dataset.subjects:
        for platform in dataset.platforms:
            if dataset.has(subject, platform):
                continue
            if platform == input_platform:
                message = f"has no scan on {platform}, the input: training leaves it out; add one"
                yield Finding("warning", subject, message)
            else:
                message = (
                    f"has no scan on {platform}: training on that target stops; add one, or train "
                    "without that target or subject"
                )
                yield Finding("error", subject, message)


def check_sidecar(path: Path, root: Path) -> Iterator[Finding]:
    """Look at the JSON file beside an image."""
    sidecar = path.with_name(nifti_stem(path) + ".json")
    where = place_of(sidecar, root)
    content = {}
    if sidecar.exists():
        try:
            content = read_json(sidecar)
        except UserError as error:
            yield finding_from(error, root, where)
            return
    if "EchoTime" not in content:
        yield Finding(
            "note", where, "EchoTime is not stated; add it (in seconds) if the protocol is known"
        )


def check_gradient_files(path: Path, root: Path) -> Iterator[Finding]:
    """Look for the gradient table beside an image."""
    for file in gradient_files(path):
        if not file.exists():
            yield Finding("error", place_of(file, root), "is missing; put it beside the image")
