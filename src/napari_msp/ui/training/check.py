"""Whether a filled form describes a run, and in words why not: no Qt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import UserError
from napari_msp.files import refuse_occupied
from napari_msp.learning.settings import TrainingSettings

NO_DATASET = "Choose a BIDS folder of travelling heads, or have some simulated."


@dataclass(frozen=True)
class TrainingRequest:
    """A run that somebody wants.

    Attributes
    ----------
    dataset
        BIDS folder of travelling heads.
    settings
        What to train and how.
    device
        "auto", "cpu", "cuda" or "mps".
    folder
        Of the run; new or empty.
    """

    dataset: Path
    settings: TrainingSettings
    device: str
    folder: Path


@dataclass(frozen=True)
class Checked:
    """What a filled form amounts to.

    Attributes
    ----------
    request
        None when something is wrong or missing.
    problems, notes
        Words for an entry by its name.
    """

    request: TrainingRequest | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def check(
    values: Mapping[str, Any], heads: TravellingHeads | None, device: str, folder: Path | None
) -> Checked:
    """Look at everything that can be looked at without reading an image.

    Parameters
    ----------
    values
        Of the parameters, without those that are left to the preset.
    heads
        The dataset; None while there is none.
    device, folder
        As they were filled in.
    """
    problems: dict[str, str] = {}
    notes = {"dataset": NO_DATASET}
    if heads is not None:
        notes, problems = _about_scans(heads, values)
        problems |= _about_folder(folder)
    try:
        settings = TrainingSettings(**values)
    except ValidationError as error:
        return Checked(None, problems | complaints(error), notes)
    if heads is None or folder is None or problems:
        return Checked(None, problems, notes)
    return Checked(TrainingRequest(heads.root, settings, device, folder), {}, notes)


def complaints(error: ValidationError) -> dict[str, str]:
    """Give what is wrong with each parameter, in words; under "" what belongs to none."""
    found: dict[str, list[str]] = {}
    for each in error.errors():
        words = str(each["msg"]).removeprefix("Value error, ").replace("Input should", "must")
        words = words.split(", unable")[0]
        # A rule over several parameters begins with the one that breaks it.
        name = str(each["loc"][0]) if each["loc"] else words.split()[0]
        name = name if name in TrainingSettings.model_fields else ""
        found.setdefault(name, []).append(words.removeprefix(name).lstrip())
    return {name: ", or ".join(dict.fromkeys(words)) for name, words in found.items()}


def new_run_folder(beside: Path, kind: str, today: date) -> Path:
    """Name a folder that does not exist yet: "<dataset>-<kind>-<date>", numbered if need be."""
    return unused(beside.with_name(f"{beside.name}-{kind}-{today.isoformat()}"))


def unused(folder: Path) -> Path:
    """Give the folder itself where it does not exist, else one that is numbered."""
    free, number = folder, 2
    while free.exists():
        free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return free


def _about_scans(
    heads: TravellingHeads, values: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Give notes and problems about subjects and their scans."""
    source, targets, held_out = values["input"], values["targets"], values["held_out"]
    scanned = [
        subject
        for subject in values.get("subjects") or heads.subjects
        if heads.has(subject, source)
    ]
    count = f"{len(heads.subjects)} subjects on {len(heads.platforms)} platforms."
    left_out = ", ".join(subject for subject in heads.subjects if not heads.has(subject, source))
    notes = {"dataset": count + (f" Without {left_out}: no scan on {source}." * bool(left_out))}
    problems = {}
    missing = [
        f"{subject} has no scan on {target}"
        for subject in scanned
        for target in targets
        if not heads.has(subject, target)
    ]
    if missing:
        mend = "leave out that target, or take the subject out of the dataset"
        problems["targets"] = f"{'; '.join(missing)}: {mend}"
    if not targets:
        problems["targets"] = "tick at least one"
    if not held_out:
        notes["held_out"] = "Without one there are no errors and no pictures while it learns."
    if not set(scanned) - set(held_out):
        problems["held_out"] = "leave at least one subject to train on"
    return notes, problems


def _about_folder(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {"folder": "name a new folder"}
    try:
        refuse_occupied(folder)
    except UserError as error:
        return {"folder": str(error).removeprefix(f"{folder}: ")}
    return {}
