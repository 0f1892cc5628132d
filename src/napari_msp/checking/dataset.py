"""The check of a whole dataset: the order in which everything is examined."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_msp.bids import DESCRIPTION, bare_stem, misplaced, subject_and_platform
from napari_msp.checking.b_vectors import AT_SOURCE, CORRECT, check_turns
from napari_msp.checking.comparisons import (
    by_platform,
    check_input_position,
    check_lattice,
    check_outliers,
    check_platforms,
    compare_with_input,
)
from napari_msp.checking.gradients import (
    Correction,
    check_b0,
    check_b_values,
    check_near_b_values,
    common_b_value,
    write_corrected,
)
from napari_msp.checking.scan import check_scan
from napari_msp.checking.summary import (
    Finding,
    ScanSummary,
    Severity,
    finding_from,
    place_of,
    warning,
)
from napari_msp.checking.table import Row, scan_row, unusable_row
from napari_msp.data.consistency import ScanHeader, unlike
from napari_msp.data.dataset import (
    MISPLACED,
    NAME_PLATFORMS,
    NO_PLATFORM,
    RENAME,
    SCAN_NAMES,
    UNDECIDED,
    UNNAMED,
    TravellingHeads,
    input_platform,
    open_dataset,
)
from napari_msp.errors import Advice, Poll, Progress, UserError, reporter
from napari_msp.files import files_under, refuse_occupied
from napari_msp.formatting import counted
from napari_msp.identity import copies
from napari_msp.strict_json import read_json


@dataclass(frozen=True)
class CheckedDataset:
    """Result of a check: what is wrong with a dataset, and the measurements of its scans.

    Attributes
    ----------
    findings
        Findings in the order of the dataset. Empty only if there is nothing to report.
    rows
        One row per scan, in the order of the dataset.
    input_platform
        The platform that the others were compared with; empty if none was stated.
    scans
        Summaries of the scans that could be opened.
    corrections
        Corrected forms of gradient tables that are certainly wrong.
    """

    findings: list[Finding]
    rows: list[Row]
    input_platform: str
    scans: list[ScanSummary] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)

    def __repr__(self) -> str:
        severities = Counter(finding.severity for finding in self.findings)
        counts = ", ".join(f"{count} × {name}" for name, count in severities.items())
        return f"<CheckedDataset of {counted(len(self.rows), 'scan')}: {counts or 'nothing found'}>"


def check(
    root: str | Path,
    *,
    input: str | None = None,
    run: int | None = None,
    alignment: bool = True,
    b0_threshold: float | None = None,
    corrected: str | Path | None = None,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
) -> CheckedDataset:
    """Look for everything wrong with a dataset or a scan, without stopping at the first finding.

    Parameters
    ----------
    root
        BIDS folder, or the image of one scan.
    input
        The platform that the others are compared with; None: the one that the dataset marks.
    run
        Run to take of a repeated scan.
    alignment
        Whether to measure residual misalignment and the agreement of fibre directions between the
        platforms of each subject.
    b0_threshold
        As for `load_acquisition`.
    corrected
        Folder to create for corrected forms of gradient tables that are certainly wrong; None, or
        nothing to correct: none is created.
    progress
        Called with a scan's name, the number of scans checked and their total.
    cancelled
        Polled after every scan; True raises Cancelled.

    Returns
    -------
    CheckedDataset
        The result; without rows if there is no dataset at all.

    Raises
    ------
    UserError
        When there is no such input platform, or the folder for corrected tables has content.
    """
    root, report = Path(root), reporter(progress, cancelled)
    if corrected is not None:
        refuse_occupied(corrected)
    if root.is_file():
        return _check_alone(root, corrected, b0_threshold)
    undecided: list[UserError] = []
    dataset = None
    try:
        dataset = open_dataset(root, run=run, b0_threshold=b0_threshold, undecided=undecided)
    except UserError as error:
        undecided = undecided or [error]
    findings = [finding_from(each, root, str(root)) for each in undecided]
    if dataset is None:
        return CheckedDataset(findings, [], input or "")
    try:
        source = input_platform(dataset, input)
    except UserError as error:
        if input is not None and error not in undecided:
            raise
        source, problem = "", f"{error.problem}: platforms are not compared with it"
        findings.append(Finding("warning", root.resolve().name, problem, error.remedy))
    findings += [*check_descriptions(root), *check_names(dataset)]
    findings += check_missing_scans(dataset, source)
    findings += check_copies(dataset)

    scans: list[ScanSummary] = []
    corrections: list[Correction] = []
    done = 0
    for subject in dataset.subjects:
        of_subject: list[ScanSummary] = []
        for platform in dataset.platforms:
            if not dataset.has(subject, platform):
                continue
            path = dataset.scans[subject, platform]
            found, scan = check_scan(
                path, root, subject, platform, with_images=alignment, b0_threshold=b0_threshold
            )
            findings += found
            if scan is not None:
                of_subject.append(scan)
            done += 1
            report(f"{subject} {platform}", done, len(dataset.scans))
        found, compared = _compare_platforms(of_subject, source)
        findings += found
        found, right_tables = check_turns(compared, _of_platform(compared, source))
        findings += found
        corrections += right_tables
        # Images are compared within a subject only; memory may not hold those of all subjects.
        scans += [replace(scan, images=None) for scan in compared]
    findings += check_b_values(scans, source)
    findings += check_near_b_values(scans, source)
    findings += check_b0(scans, source)
    findings += check_unlike(dataset, scans)
    findings += check_outliers(scans)
    findings += check_platforms(scans, source)
    findings = _put_right(findings, scans, corrections, corrected, root)
    rows = _rows(dataset, scans, source, findings)
    return CheckedDataset(findings, rows, source, scans, corrections)


def _check_alone(
    path: Path, corrected: str | Path | None, b0_threshold: float | None
) -> CheckedDataset:
    """Check one scan without a dataset."""
    subject, platform = subject_and_platform(path) or (bare_stem(path), "")
    findings, scan = check_scan(
        path, path.parent, subject, platform, with_images=False, b0_threshold=b0_threshold
    )
    if scan is None:
        return CheckedDataset(findings, [unusable_row(subject, platform)], platform)
    found, corrections = check_turns([scan], None)
    findings = _put_right([*findings, *found], [scan], corrections, corrected, path.parent)
    return CheckedDataset(findings, [scan_row(scan, None, findings)], platform, [scan], corrections)


def _put_right(
    findings: Sequence[Finding],
    scans: Sequence[ScanSummary],
    corrections: Sequence[Correction],
    folder: str | Path | None,
    root: Path,
) -> list[Finding]:
    """Write corrected tables if asked for; the remedies then say what can be, or was, done."""
    if folder is not None and corrections:
        write_corrected(folder, corrections, root)
    known = {each.where for each in corrections}
    places = {place for s in scans if s.where in known for place in (s.where, s.name)}
    written = CORRECT if folder is None else Advice(f"its corrected table is written to {folder}")
    return [
        replace(finding, remedy=written if finding.where in places else AT_SOURCE)
        if finding.remedy == CORRECT
        else finding
        for finding in findings
    ]


def _compare_platforms(
    scans: Sequence[ScanSummary], input_platform: str
) -> tuple[list[Finding], list[ScanSummary]]:
    """Compare the scans of one subject with its input, if there is one.

    Returns the findings, and the scans with the measurements.
    """
    source = _of_platform(scans, input_platform)
    if source is None:
        return [], list(scans)
    findings: list[Finding] = []
    targets = [scan for scan in scans if scan is not source]
    for target in targets:
        findings += check_lattice(source, target)
    compared: list[ScanSummary] = []
    for target in targets:
        found, comparison = compare_with_input(source, target)
        findings += found
        compared.append(replace(target, comparison=comparison))
    findings += check_input_position(source, compared)
    return findings, [source, *compared]


def _of_platform(scans: Sequence[ScanSummary], platform: str) -> ScanSummary | None:
    """Return a subject's scan on a platform."""
    return next((scan for scan in scans if scan.platform == platform), None)


def _rows(
    dataset: TravellingHeads,
    scans: Sequence[ScanSummary],
    input_platform: str,
    findings: Sequence[Finding],
) -> list[Row]:
    """Return one row per scan of the dataset, also for those that could not be opened."""
    usable = {(scan.subject, scan.platform): scan for scan in scans}
    b_value = common_b_value(scans, input_platform)
    return [
        scan_row(usable[identity], b_value, findings)
        if identity in usable
        else unusable_row(*identity)
        for identity in sorted(dataset.scans)
    ]


# --- Files of the dataset ---------------------------------------------------------------------


def check_descriptions(root: Path) -> Iterator[Finding]:
    """Check the descriptions that BIDS requires, of the dataset and of its derivatives."""
    if not (root / DESCRIPTION).exists():
        problem = "is missing, but BIDS tools refuse a dataset without it"
        yield warning(DESCRIPTION, problem, "add it")
    else:
        try:
            read_json(root / DESCRIPTION)
        except UserError as error:
            yield finding_from(error, root, DESCRIPTION)
    for folder in sorted((root / "derivatives").glob("*/")):
        description = folder / DESCRIPTION
        if not description.exists():
            problem = "is missing, but BIDS asks for one in each derivative"
            yield Finding("note", place_of(description, root), problem, Advice("add it"))


def check_names(dataset: TravellingHeads) -> Iterator[Finding]:
    """Report images that look like scans but are not listed, and why."""
    if dataset.platforms == [UNNAMED]:
        problem = (
            "its scans name neither session (ses-) nor protocol (acq-): they count as one "
            "platform, so there is no target to predict"
        )
        yield Finding("warning", dataset.root.resolve().name, problem, NAME_PLATFORMS)
    for path, why in dataset.passed_over.items():
        if why == UNDECIDED:  # reported as an error
            continue
        problem, place = f"is left out: it {why}", place_of(path, dataset.root)
        if why == MISPLACED:
            yield Finding("error", place, f"{problem} ({misplaced(path)})", RENAME)
            continue
        remedy = NAME_PLATFORMS if why == NO_PLATFORM else Advice("check that this is intended")
        yield Finding("note", place, problem, remedy)
    known = {*dataset.scans.values(), *dataset.passed_over}
    folders = sorted(each for each in dataset.root.glob("sub-*") if each.is_dir())
    for path in (path for each in folders for path in files_under(each, "*_dwi.nii*")):
        if path not in known and not path.name.startswith("."):
            problem = f"is left out: scans are named {SCAN_NAMES}"
            yield warning(place_of(path, dataset.root), problem, "rename or remove it")


def check_copies(dataset: TravellingHeads) -> Iterator[Finding]:
    """Look for duplicate scans: of one person under two names, or on two platforms."""
    people = {subject: dataset.person(subject) for subject in dataset.subjects}
    for copy, subject in copies(people):
        problem = f"has the same image as {subject}: the same scan under two names"
        remedy = Advice("find out whose scan it is, and remove the other")
        yield Finding("error", copy, problem, remedy)
    for subject, platform, other in dataset.copied(dataset.subjects, dataset.platforms):
        problem = f"is the same image as the scan on {other}: one scan on two platforms"
        remedy = Advice("find out on which platform it was made, and replace the other")
        yield Finding("error", f"{subject} {platform}", problem, remedy)


def check_unlike(dataset: TravellingHeads, scans: Sequence[ScanSummary]) -> Iterator[Finding]:
    """Look for scans that differ from most others of their platform by their headers."""
    for platform, of_platform in by_platform(scans).items():
        by_subject = {each.subject: each for each in of_platform}
        headers = {
            name: ScanHeader.of(dataset.scans[name, platform], each.lattice, each.gradients)
            for name, each in by_subject.items()
        }
        for each in unlike(platform, headers):
            severity: Severity = "error" if each.refused else "warning"
            problem = each.problem + (": training refuses that" if each.refused else "")
            advice = Advice("leave the scan out")
            where = by_subject[each.subject].where
            yield Finding(severity, where, problem, advice, f"{each.what} unlike others")


def check_missing_scans(dataset: TravellingHeads, input_platform: str) -> Iterator[Finding]:
    """Look for subjects without a scan on a platform; several are reported elsewhere."""
    for subject in dataset.subjects:
        for platform in dataset.platforms:
            if dataset.has(subject, platform) or (subject, platform) in dataset.undecided:
                continue
            if platform == input_platform:
                problem = f"has no scan on {platform}, the input: training leaves it out"
            elif input_platform:
                problem = f"has no scan on {platform}: training learns that target from the others"
            else:
                problem = f"has no scan on {platform}"
            yield warning(subject, problem, "add one")
