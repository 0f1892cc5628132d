"""What the training form asks for, read off the parameter model: no Qt."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import LECTURE, TrainingSettings, choices_of
from napari_msp.ui.glossary import tooltip

Sort = Literal["choice", "whole", "number", "text", "names", "per target"]


@dataclass(frozen=True)
class FormField:
    """How one parameter is asked for.

    Attributes
    ----------
    name
        Of the parameter.
    label
        With the key that leads to it after "&", if any.
    sort
        Kind of entry.
    tooltip
        Rich text.
    default
        Of the parameter; None may mean that the preset decides.
    choices
        What there is to choose from, where that does not depend on the dataset.
    lowest
        Smallest whole number.
    """

    name: str
    label: str
    sort: Sort
    tooltip: str
    default: Any
    choices: tuple[str, ...] = ()
    lowest: int | None = None


SHOWN_FIRST = ("preset", "kind", "input", "targets", "held_out")
"""Parameters that everybody sets; the others are for those who look for them."""

DATASET_DECIDES = ("input", "targets", "held_out", "subjects", "first_stage")
"""Parameters whose choices are platforms or subjects."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "lecture": {"preset": LECTURE.preset, **LECTURE.model_dump(exclude_unset=True)},
    "fast": {"preset": "fast"},
    "paper": {"preset": "paper"},
}
"""What the form fills in for each preset."""

PRESET_TITLES: Mapping[str, str] = {
    "lecture": "lecture (2 minutes)",
    "fast": "fast (dense crops)",
    "paper": "paper (needs a GPU)",
}

LABELS: Mapping[str, str] = {
    "preset": "P&reset",
    "kind": "&Network",
    "input": "&Input",
    "targets": "Tar&gets",
    "held_out": "H&eld out",
    "subjects": "Only these subjects",
    "b_value": "Shell (s/mm²)",
    "crop": "Crop (voxels)",
    "steps_per_epoch": "Steps an epoch",
    "decay_every": "Decay (epochs)",
    "voxels_per_head": "Voxels a head",
}
"""Where a parameter's own name does not do."""

TERMS: Mapping[str, str] = {
    "preset": "preset",
    "input": "input",
    "targets": "target",
    "b_value": "shell",
    "held_out": "held-out subject",
    "first_stage": "single network",
    "epochs": "epoch",
    "learning_rate": "learning rate",
}
"""Parameters that the glossary has a word for."""

ONLY_FOR: Mapping[str, tuple[str, str]] = {
    "first_stage": ("kind", "msp"),
    "unison_epochs": ("kind", "msp"),
    "branch_start": ("kind", "msp"),
    "augmentation": ("preset", "fast"),
    "crop": ("preset", "fast"),
    "decay_every": ("preset", "paper"),
    "voxels_per_head": ("preset", "paper"),
}
"""Parameters that count only where another one has a certain value."""

RECIPE: Mapping[str, str] = {
    "epochs": "epochs",
    "unison_epochs": "unison_epochs",
    "batch": "batch",
    "crop": "patch",
    "learning_rate": "learning_rate",
    "decay_every": "decay_every",
}
"""Parameters that the preset's recipe gives, with their names in it."""

OTHERWISE: Mapping[str, str] = {
    "b_value": "the only one there is",
    "steps_per_epoch": "all voxels about once",
    "voxels_per_head": "every one",
    "label": "what the model is for",
}
"""What an empty entry means where no recipe says it."""


def form_fields() -> dict[str, FormField]:
    """Give every parameter of a run: those shown first, then the others as the model has them."""
    known = TrainingSettings.model_fields
    order = [*SHOWN_FIRST, *(name for name in known if name not in SHOWN_FIRST)]
    return {name: _field(name, known[name]) for name in order}


def applies(name: str, values: Mapping[str, Any]) -> bool:
    """Tell whether a parameter counts, given the preset and the kind of network."""
    other, wanted = ONLY_FOR.get(name, ("", ""))
    return not other or values[other] == wanted


def empty_means(name: str, values: Mapping[str, Any]) -> str:
    """Say what an empty entry stands for: the preset's value, mostly."""
    if name not in RECIPE:
        return OTHERWISE.get(name, "")
    decides = ("kind", "preset", *(["epochs"] if name == "unison_epochs" else []))
    recipe = recipe_for(
        TrainingSettings(**{each: values[each] for each in decides if each in values})
    )
    value = getattr(recipe, RECIPE[name])
    return "" if value is None else f"{value:g} (preset)"


def _field(name: str, info: FieldInfo) -> FormField:
    text = f"<p>{info.description}</p>"
    if name in TERMS:
        text += tooltip(TERMS[name])
    if name in ONLY_FOR:
        text += "<p>Counts only with {} {}.</p>".format(*ONLY_FOR[name])
    bounds = [each.ge for each in info.metadata if hasattr(each, "ge")]
    return FormField(
        name,
        LABELS.get(name, name.capitalize().replace("_", " ")),
        "choice" if name == "kind" else _sort(info.annotation),
        text,
        None if info.is_required() else info.get_default(call_default_factory=True),
        choices_of(name),
        int(bounds[0]) if bounds else None,
    )


def _sort(annotation: Any) -> Sort:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _sort(get_args(annotation)[0])
    sorts: dict[Any, Sort] = {
        Literal: "choice",
        tuple: "names",
        dict: "per target",
        str: "text",
        int: "whole",
        float: "number",
    }
    return sorts[origin or annotation]
