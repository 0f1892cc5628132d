"""Everything that is wrong with a whole dataset: the order in which it is gone through."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from napari_msp.checking.alignment import check_alignment
from napari_msp.checking.files import check_descriptions, check_missing_scans, check_names
from napari_msp.checking.findings import Finding, finding_from
from napari_msp.checking.gradients import check_b_values
from napari_msp.checking.lattices import check_lattice
from napari_msp.checking.scan import check_scan
from napari_msp.checking.summary import ScanSummary
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError


def check_dataset(
    root: str | Path,
    *,
    input_platform: str = "ge_st",
    alignment: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Finding]:
    """Look for everything wrong with a dataset, never stopping at the first thing.

    Parameters
    ----------
    root
        BIDS folder.
    input_platform
        The platform that the others are compared with.
    alignment
        Whether to measure residual misalignment and the agreement of fibre directions between the
        platforms of each subject.
    progress
        Called with a scan's name, the number of scans checked and their total.

    Returns
    -------
    list of Finding
        In the order of the dataset. Empty only if there is nothing to say.
    """
    root = Path(root)
    try:
        dataset = open_dataset(root)
    except UserError as error:
        return [finding_from(error, root, str(root))]
    findings = [*check_descriptions(root), *check_names(dataset)]
    if input_platform not in dataset.platforms:
        chosen = dataset.platforms[0]
        findings.append(_no_such_input(input_platform, chosen, dataset.platforms))
        input_platform = chosen
    findings += check_missing_scans(dataset, input_platform)

    scans: list[ScanSummary] = []
    done = 0
    for subject in dataset.subjects:
        of_subject: list[ScanSummary] = []
        for platform in dataset.platforms:
            if not dataset.has(subject, platform):
                continue
            told, scan = check_scan(dataset, subject, platform, with_images=alignment)
            findings += told
            if scan is not None:
                of_subject.append(scan)
            done += 1
            if progress is not None:
                progress(f"{subject} {platform}", done, len(dataset.scans))
        findings += _compare_platforms(of_subject, input_platform)
        # Images are compared within a subject only; all subjects' together may not fit.
        scans += [replace(scan, images=None) for scan in of_subject]
    findings += check_b_values(scans, input_platform)
    return findings


def _no_such_input(asked: str, chosen: str, platforms: Sequence[str]) -> Finding:
    return Finding(
        "warning",
        "dataset",
        f"no scan is on {asked}; {chosen} is taken as the input platform "
        f"(there are {', '.join(platforms)}), choose one with --input",
    )


def _compare_platforms(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Compare the scans of one subject with its input, where there is one."""
    source = next((scan for scan in scans if scan.platform == input_platform), None)
    if source is None:
        return
    targets = [scan for scan in scans if scan is not source]
    for target in targets:
        yield from check_lattice(source, target)
    for target in targets:
        yield from check_alignment(source, target)
