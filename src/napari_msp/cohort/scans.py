"""Which scan of each subject of a dataset is harmonized."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_msp.bids import entities, platform_name
from napari_msp.data import dataset
from napari_msp.data.beside import PassedOver
from napari_msp.data.dataset import SCAN_NAMES, scans_in
from napari_msp.errors import Advice, Change, Choose, UserError

ALL_TARGETS = "all"


def find_scans(
    bids_dir: Path, participants: Sequence[str] | None, sessions: Sequence[str] | None
) -> dict[str, list[Path]]:
    """Give the scans of each subject asked for, subjects in order."""
    if not bids_dir.is_dir():
        raise UserError("there is no such folder", bids_dir, remedy=Advice("give a BIDS dataset"))
    scans: dict[str, list[Path]] = {
        folder.name: [] for folder in sorted(bids_dir.glob("sub-*/")) if folder.is_dir()
    }
    if participants is not None:
        wanted = {f"sub-{name.removeprefix('sub-')}" for name in participants}
        unknown = ", ".join(sorted(wanted - set(scans)))
        if unknown:
            choice = Choose("participants", tuple(scans))
            raise UserError(f"has no {unknown}", bids_dir, "participants", choice)
        scans = {subject: paths for subject, paths in scans.items() if subject in wanted}
    labels = None if sessions is None else [name.removeprefix("ses-") for name in sessions]
    for subject, paths in scans.items():
        for session in ["ses-*"] if labels is None else [f"ses-{label}" for label in labels]:
            paths += scans_in(bids_dir, subject, session)
    if not any(scans.values()):
        what = f"of session {', '.join(labels)}" if labels else f"named {SCAN_NAMES}"
        remedy = Change("sessions", "other") if labels else Advice("give a BIDS dataset")
        raise UserError(f"has no scan {what}", bids_dir, "sessions" if labels else None, remedy)
    return scans


Found = dict[str, Path | UserError]
"""Scans of a subject by platform, or why none can be chosen."""


def by_platform(subject: str, paths: Sequence[Path], run: int | None) -> Found:
    """Choose a scan of each platform; a platform without one is left out."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_platform(path), []).append(path)
    found: Found = {}
    for platform, group in groups.items():
        try:
            what = f"{subject} on {platform}" if platform else subject
            scan, others = dataset.choose_scan(group, what, run)
        except UserError as error:
            found[platform] = error
        else:
            for path, why in others.items():
                warnings.warn(f"{path}: passed over, as it {why}", PassedOver, stacklevel=3)
            if scan is not None:
                found[platform] = scan
    return found


@dataclass(frozen=True)
class Asked:
    """What is asked of the model.

    Attributes
    ----------
    targets
        To predict.
    platform
        To predict from, where subjects have several scans to choose from.
    kind
        Of the model; empty where it was not opened.
    """

    targets: tuple[str, ...]
    platform: str | None
    kind: str = ""


def ask_model(
    model: Path,
    target: str | Sequence[str],
    platform: str | None,
    scans: dict[str, Found],
    check: bool,
) -> Asked:
    """Give the targets, and the platform where a subject has several scans to choose from."""
    targets = (target,) if isinstance(target, str) else tuple(target)
    everything = targets == (ALL_TARGETS,)
    several = platform is None and any(len(found) > 1 for found in scans.values())
    if not (everything or several or check):
        return Asked(targets, platform)
    from napari_msp.model_file import load_model

    known = load_model(model)
    targets = tuple(known.targets) if everything else targets
    for each in targets:
        known.single(each)  # a mistyped target is one error, not one a subject
    return Asked(targets, known.card.input if several else platform, known.kind if check else "")


def check_platform(bids_dir: Path, platform: str, scans: dict[str, Found]) -> None:
    """Refuse at once a platform on which nobody was scanned."""
    known = sorted({platform for found in scans.values() for platform in found})
    if platform not in known:
        raise UserError(
            f"no scan is on {platform}", bids_dir, "platform", Choose("platform", tuple(known))
        )


def choose_scan(bids_dir: Path, subject: str, found: Found, platform: str | None) -> Path:
    """Give the scan of a subject that is meant, or say why none is."""
    known = Choose("platform", tuple(sorted(found)))
    if platform is not None:
        found = {each: scan for each, scan in found.items() if each == platform}
    if len(found) == 1:
        [scan] = found.values()
        if isinstance(scan, UserError):
            raise scan
        return scan
    where = "" if platform is None else f" on {platform}"
    problem = f"has several DWI{where} ({', '.join(found)})" if found else f"has no DWI{where}"
    raise UserError(problem, bids_dir / subject, "platform", known)


def _platform(scan: Path) -> str:
    named = entities(scan)
    return platform_name(named.get("ses", ""), named.get("acq", ""))
