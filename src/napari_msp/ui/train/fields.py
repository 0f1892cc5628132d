"""The fields of the training form, and whether its answers describe a run. No Qt."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from safetensors import SafetensorError, safe_open

from napari_msp import packaged
from napari_msp.data.dataset import TravellingHeads, input_platform
from napari_msp.errors import Remedy, UserError, either, every
from napari_msp.files import refuse_occupied
from napari_msp.foreign_errors import validation_reason
from napari_msp.formatting import counted
from napari_msp.learning.lengths import EPOCHS, PATIENCE, STRETCH
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import (
    BASE,
    NOTHING,
    ONLY_FOR,
    PRESETS,
    SECTIONS,
    TrainingSettings,
    choices_of,
    put_over,
    values_of_preset,
)
from napari_msp.networks.registry import title
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.phrasing import FormWords

# --- What is asked for -----------------------------------------------------------------------


@dataclass(frozen=True)
class FormField:
    """The entry for one parameter, described here and by `TrainingSettings`.

    Attributes
    ----------
    name
        Name of the parameter.
    caption
        Label, with the key that leads to the entry after "&"; "": the name itself.
    term
        Term of the glossary.
    recipe
        Attribute of the preset's recipe that has the value of an empty entry.
    empty
        Meaning of an empty entry where no recipe has it.
    """

    name: str
    caption: str = ""
    term: str = ""
    recipe: str = ""
    empty: str = ""

    @property
    def label(self) -> str:
        """Label before the entry."""
        return self.caption or self.name.capitalize().replace("_", " ")

    @property
    def spoken(self) -> str:
        """The label in words."""
        return self.label.replace("&", "")

    @property
    def sort(self) -> Any:
        """Type without its parameters and without None; `Literal` for a choice."""
        return Literal if self.name == "kind" else _sort(self._info.annotation)

    @property
    def tooltip(self) -> str:
        """Explanation as rich text."""
        text = f"<p>{self._info.description}</p>" + (tooltip(self.term) if self.term else "")
        if self.name in ONLY_FOR:
            other, values = ONLY_FOR[self.name]
            these = " or ".join(map(title, values))
            text += f"<p>Counts only if {field_of(other).spoken} is {these}.</p>"
        return text

    @property
    def default(self) -> Any:
        """Default of the parameter; None may mean that the preset decides."""
        known = not self._info.is_required()
        return self._info.get_default(call_default_factory=True) if known else None

    @property
    def choices(self) -> Mapping[str, str]:
        """Titles by choice, where no dataset decides what the choices are."""
        return {each: title(each) for each in choices_of(self.name)}  # no kind: the value itself

    @property
    def lowest(self) -> int | None:
        """Smallest whole number that is allowed; None: any."""
        bounds = [each.ge for each in self._info.metadata if hasattr(each, "ge")]
        return int(bounds[0]) if bounds else None

    @property
    def _info(self) -> FieldInfo:
        return TrainingSettings.model_fields[self.name]


_FIELDS = (
    FormField("preset", "Pr&eset", term="preset"),
    FormField("kind", "Networ&k"),
    FormField("input", "&Input", term="input"),
    FormField("targets", "Tar&gets", term="target"),
    FormField("held_out", "Held o&ut", term="held-out subject"),
    FormField("validation", term="validation subject"),
    FormField("minutes", empty="as long as the steps take"),
    FormField("patience", "Patience (epochs)", term="validation subject"),
    FormField("run", "Scan's run", term="run", empty="the only one"),
    FormField("b0_threshold", "b=0 up to (s/mm²)", term="b=0 threshold", empty="50"),
    FormField("b_value", "Shells (s/mm²)", term="shell", empty="all that the platforms share"),
    FormField("first_stage", term="single network"),
    FormField("width", empty="paper (full), or the start's"),
    FormField("start_from", "S&tart from", term="base"),
    FormField("start_from_target", "Begin as"),
    FormField("steps", recipe="length.steps"),
    FormField("unison_steps", recipe="unison_length.steps"),
    FormField("epochs", term="epoch", recipe="length.epochs"),
    FormField("unison_epochs", recipe="unison_length.epochs"),
    FormField("batch", recipe="batch"),
    FormField("crop", "Crop (voxels)", recipe="patch"),
    FormField("steps_per_epoch", empty="all voxels about once"),
    FormField("learning_rate", term="learning rate", recipe="learning_rate"),
    FormField("decay_every", "Decay (epochs)", recipe="decay_every"),
    FormField("voxels_per_head", empty="every one"),
    FormField("first_stages", term="first stage"),
    FormField("singles_first", term="single network"),
    FormField("features", term="features"),
    FormField("label", empty="what the model is for"),
)
"""Parameters with texts of their own; others get an entry as well."""

SHOWN_FIRST = (
    "preset", "kind", "start_from", "input", "targets", "held_out", "validation", "minutes"
)  # fmt: skip
"""Parameters that everyone sets; the others are in the Advanced section."""

DATASET_DECIDES = (
    "input", "targets", "held_out", "validation", "subjects", "first_stage", "start_from_target"
)  # fmt: skip
"""Parameters whose choices are platforms or subjects."""

PRESET_TITLES: Mapping[str, str] = {
    "lecture": "lecture (a minute or two)",
    "fast": "fast (dense crops)",
    "paper": "paper (needs a GPU)",
}


LENGTHS = ("steps", "unison_steps", "epochs", "unison_epochs")
"""Lengths of phases; those that are given decide what the others mean."""


def form_fields() -> dict[str, FormField]:
    """Return every parameter of a run: those shown first, then the others section by section."""
    others = (name for names in other_sections().values() for name in names)
    return {name: field_of(name) for name in (*SHOWN_FIRST, *others)}


def field_of(name: str) -> FormField:
    """Return the entry's description for a parameter."""
    return next((each for each in _FIELDS if each.name == name), FormField(name))


def other_sections() -> dict[str, list[str]]:
    """Return the parameters that are not shown first, by the titles of their sections."""
    others = {
        title: [name for name in names if name not in SHOWN_FIRST]
        for title, names in SECTIONS.items()
    }
    return {title.capitalize(): names for title, names in others.items() if names}


def applies(name: str, values: Mapping[str, Any]) -> bool:
    """Return whether a parameter counts, given the preset and the kind of network."""
    other, those = ONLY_FOR.get(name, ("", ()))
    return not other or values[other] in those


def empty_means(name: str, values: Mapping[str, Any]) -> str:
    """Return what an empty entry stands for: usually the preset's value."""
    asked = field_of(name)
    own = {each: value for each, value in values.items() if each != name}
    usual = put_over(values_of_preset(values), own)
    if name in usual and name != "start_from" and not asked.recipe:
        return f"{usual[name]} (preset)"
    values = {**usual, **values}
    in_epochs = "epochs" in values or (values.get("preset") == "paper" and "steps" not in values)
    given = any(each in values for each in LENGTHS)
    if name == "steps_per_epoch" and not (in_epochs and "minutes" not in values):
        return f"a phase is {EPOCHS} epochs"
    if name == "patience":
        return f"{PATIENCE}" if values.get("validation") and not given else "never ends early"
    if name == "start_from":
        found = model_to_start_from({**values, name: None})
        return "nothing" if found is None else "base, where it fits"
    if not asked.recipe:
        return asked.empty
    if "length" in asked.recipe and "minutes" in values:
        return "as many as fit" if name.endswith("steps") else ""
    lengths = LENGTHS if "length" in asked.recipe else ()
    decides = {"kind", "preset", "singles_first", *lengths} - {name}
    try:
        settings = TrainingSettings(**{each: values[each] for each in decides if each in values})
    except ValidationError:  # two lengths, which their entries report
        return ""
    value = attrgetter(asked.recipe)(recipe_for(settings))
    if value is not None and "length" in asked.recipe and values.get("validation") and not given:
        return f"{STRETCH * value:g} at most (preset)"
    return "" if value is None else f"{value:g} (preset)"


def model_to_start_from(values: Mapping[str, Any]) -> Path | None:
    """Return the file of the model that a run would start from; None for nothing."""
    chosen = values.get("start_from") or values_of_preset(values).get("start_from")
    if chosen is None and values.get("preset") == "paper":
        return None
    if chosen in (None, BASE):
        return packaged.base_model()
    return Path(chosen) if chosen not in (NOTHING, "") else None


def platforms_to_begin_as(path: Path | None) -> tuple[str, ...]:
    """Return the targets of a model file; empty if it is none, which the run will report."""
    if path is None:
        return ()
    try:
        with safe_open(path, "np") as stored:
            return tuple(json.loads((stored.metadata() or {})["card"])["scales"])
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return ()


def _sort(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _sort(get_args(annotation)[0])
    return origin or annotation


# --- Words for errors ------------------------------------------------------------------------

LABELS: Mapping[str, str] = {
    **{name: field_of(name).spoken for name in TrainingSettings.model_fields},
    "dataset": "Dataset",
    "folder": "Run folder",
    "device": "Device",
}
"""Labels of all entries."""

WORDS = FormWords({**LABELS, "resume": "Resume"})
"""Words by the Train window's labels of parameters."""


def at_hand(remedy: Remedy | None) -> Remedy | None:
    """Drop remedies for which this form has no entry, such as the tile of Harmonize."""
    known = {"", "resume", *LABELS}
    there = [each for each in every(remedy) if _parameter(each) in known]
    return either(*there) if there else None


def entry_that_helps(remedy: Remedy | None) -> str:
    """Return the form's entry that the best remedy changes; "" where there is none."""
    return next((name for name in map(_parameter, every(remedy)) if name in LABELS), "")


def _parameter(remedy: Remedy) -> str:
    """Return the parameter that a remedy is about; "" for none."""
    return getattr(remedy, "parameter", "")


def deviations(values: Mapping[str, Any], preset: str, names: Iterable[str]) -> list[str]:
    """Return which of some settings differ from a preset.

    Parameters
    ----------
    values
        Settings; missing ones are as in the preset.
    preset
        A key of `PRESETS`.
    names
        Names of the settings to compare.
    """
    fields, chosen = TrainingSettings.model_fields, PRESETS[preset]
    usual = {
        name: chosen.get(name, fields[name].get_default(call_default_factory=True))
        for name in names
    }
    return [
        name
        for name, value in usual.items()
        if _as_entered(values.get(name, value)) != _as_entered(value)
    ]


def _as_entered(value: Any) -> str:
    """Return a value as an entry writes it: entries of numbers and of text are read as text."""
    if value in (None, (), [], {}):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return str(list(value) if isinstance(value, tuple) else value)


def under_its_entry(error: UserError) -> str:
    """Return an error's text without its subject and field, which the entry shows already."""
    return UserError(error.problem, remedy=error.remedy).phrase(WORDS)


# --- What the answers amount to --------------------------------------------------------------

NO_DATASET = "Choose a BIDS folder of travelling heads, or have some simulated."


@dataclass(frozen=True)
class TrainingRequest:
    """A run that was asked for.

    Attributes
    ----------
    dataset
        BIDS folder of travelling heads.
    settings
        Settings of the training.
    device
        "auto", "cpu", "cuda" or "mps".
    folder
        Folder of the run; new or empty.
    """

    dataset: Path
    settings: TrainingSettings
    device: str
    folder: Path


@dataclass(frozen=True)
class Checked:
    """The result of checking a form.

    Attributes
    ----------
    request
        The run; None when something is wrong or missing.
    problems, notes
        Texts by name of the entry.
    """

    request: TrainingRequest | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def check(
    values: Mapping[str, Any], heads: TravellingHeads | None, device: str, folder: Path | None
) -> Checked:
    """Check everything that can be checked without reading an image.

    Parameters
    ----------
    values
        Values of the parameters, without those that are left to the preset.
    heads
        The dataset; None while there is none.
    device, folder
        Answers of these entries.
    """
    problems: dict[str, str] = {}
    notes = {"dataset": NO_DATASET}
    if heads is not None:
        notes, problems = _about_scans(heads, values)
        problems |= _about_folder(folder)
    try:
        settings = TrainingSettings(**values)
    except ValidationError as error:
        return Checked(None, problems | _complaints(error), notes)
    if heads is None or folder is None or problems:
        return Checked(None, problems, notes)
    return Checked(TrainingRequest(heads.root, settings, device, folder), {}, notes)


def likely_input(heads: TravellingHeads) -> str:
    """Return the platform that a dataset marks as the one to predict from; empty where none is."""
    try:
        return input_platform(heads)
    except UserError:
        return ""


def new_run_folder(beside: Path, kind: str, today: date) -> Path:
    """Return a new folder "<dataset>-<kind>-<date>", numbered if need be."""
    return unused(beside.with_name(f"{beside.name}-{kind}-{today.isoformat()}"))


def unused(folder: Path) -> Path:
    """Return the folder itself if it does not exist, else a numbered one."""
    free, number = folder, 2
    while free.exists():
        free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return free


def _complaints(error: ValidationError) -> dict[str, str]:
    """Return the errors of each parameter, in words."""
    found: dict[str, list[str]] = {}
    for each in error.errors():
        name = str(each["loc"][0])
        words = validation_reason(each["msg"]).removeprefix(f"{name} ")
        found.setdefault(name, []).append(words)
    return {name: ", or ".join(dict.fromkeys(words)) for name, words in found.items()}


def _about_scans(
    heads: TravellingHeads, values: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return notes and problems about subjects and their scans."""
    source, targets, held_out = values["input"], values["targets"], values["held_out"]
    kept_out = {*held_out, *values["validation"]}
    if not source:
        return {}, {"input": "choose the platform to predict from"}
    asked = values.get("subjects") or heads.subjects
    scanned = [subject for subject in asked if heads.has(subject, source)]
    paired = values.get("steps") != 0  # without a step, statistics are those of everybody
    subjects, platforms = len(heads.subjects), len(heads.platforms)
    count = f"{counted(subjects, 'subject')} on {counted(platforms, 'platform')}."
    left_out = ", ".join(subject for subject in heads.subjects if not heads.has(subject, source))
    notes = {
        "dataset": count
        + (f" Without {left_out}: no scan on {source}." * bool(left_out and paired))
    }
    problems = {}
    learned = [each for each in (scanned if paired else asked) if each not in kept_out]
    taught = {target: [s for s in learned if heads.has(s, target)] for target in targets}
    fewer = [f"{target} from {len(those)}" for target, those in taught.items() if those != learned]
    if fewer:
        notes["targets"] = f"Of {counted(len(learned), 'subject')}: {', '.join(fewer)}."
    untaught = [target for target, those in taught.items() if not those]
    if untaught and learned:
        problems["targets"] = f"no training subject has a scan on {' or '.join(untaught)}"
    if not targets:
        problems["targets"] = "tick at least one"
    if not kept_out:
        notes["held_out"] = "Without one there are no errors and no pictures while it learns."
    if not set(scanned) - kept_out:
        problems["held_out"] = "leave at least one subject to train on"
    return notes, problems


def _about_folder(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {"folder": "name a new folder"}
    try:
        refuse_occupied(folder)
    except UserError as error:
        return {"folder": under_its_entry(error)}
    return {}
