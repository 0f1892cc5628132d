"""Provenance of images: what a predicted one was made from, how a measured one was processed.

Both are read from JSON sidecars.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_msp.bids import (
    absolute,
    bare_stem,
    dataset_root,
    entities,
    is_simulated,
    linked_source,
    read_description,
    read_metadata,
    read_sidecar,
)
from napari_msp.errors import Doubt, UserError


def source_uri(path: Path | None) -> str:
    """Return an image's origin: a BIDS URI, or the file's name if it is in no dataset."""
    if path is None:
        return "in memory"
    root = dataset_root(path)
    return path.name if root is None else f"bids:source:{absolute(path).relative_to(root)}"


def source_path(uri: str, root: Path) -> Path | None:
    """Find the file that `source_uri` named for an image in a derivative; None if it is missing.

    Parameters
    ----------
    uri
        URI in the image's sidecar.
    root
        The derivative's folder, whose description names its source dataset.
    """
    _, _, inside = uri.partition("bids:source:")
    source = linked_source(root)
    found = None if source is None or not inside else source / inside
    return found if found is not None and found.is_file() else None


Stage = Literal["last", "first", "learning"]
"""Stage of equation (1): ŷ²_T, the only output of a single network, or ŷ¹_T; or the output of a
network that is still learning."""

STAGES: Mapping[Stage, str] = {"last": "", "first": " first stage", "learning": " while learning"}
"""Suffixes of a prediction's name, by stage."""


BROUGHT_BACK = "predictions interpolated back to the scan's lattice by cubic splines"
"""Approximation that makes a prediction smoother than what the network gave."""


@dataclass(frozen=True)
class Provenance:
    """How a predicted image was made; stored in its JSON sidecar.

    Attributes
    ----------
    target, input
        Predicted platform and platform predicted from.
    stage
        Stage of equation (1).
    title, kind, label
        Name, kind and purpose of the model, such as "MSP" and "msp".
    model_file, model_sha256
        The model's file name and digest; None for a model made in memory.
    alpha
        α of equation (1).
    sources
        URI of the input, see `source_uri`.
    inputs
        Mask and gradient table that were used, in words.
    person
        Person whose head it is, see `identity.Person.to_json`.
    gradients
        Directions of the written DWI: "target", "input" or a file.
    approximations, warnings
        Approximations applied to the input, in words, and doubts about it.
    training_subjects, versions
        Training subjects and software versions of the model.
    learned_from
        Whether the model learned from that person; None if that cannot be known.
    checksums
        SHA-256 of the input's files: image, gradient table, mask.
    options
        Settings with which the model was run that affect numbers, see `Options.recorded`.
    """

    target: str
    input: str
    stage: Stage = "last"
    title: str = ""
    kind: str = ""
    label: str = ""
    model_file: str | None = None
    model_sha256: str | None = None
    alpha: float | None = None
    sources: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    person: Mapping[str, Any] | None = None
    gradients: str = ""
    approximations: tuple[str, ...] = ()
    warnings: tuple[Doubt, ...] = ()
    training_subjects: tuple[str, ...] = ()
    learned_from: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Provenance {self.name}, from {self.input} by {self.model_file or 'a model'}>"

    @property
    def said(self) -> tuple[str, ...]:
        """Doubts in words, for a reader who sees the scan's name."""
        scan = next(iter(self.sources), "")
        return tuple(each.beside(scan) for each in self.warnings)

    @property
    def name(self) -> str:
        """Model, target and stage, such as "MSP prisma_st" or "MSP prisma_st first stage"."""
        return f"{self.title} {self.target}{STAGES[self.stage]}".strip()

    def to_sidecar(self) -> dict[str, Any]:
        """Return the fields of a JSON sidecar."""
        return {
            "Description": f"{self.target} as predicted from {self.input}",
            "Target": self.target,
            "Input": self.input,
            "Stage": self.stage,
            "Sources": list(self.sources),
            "SpatialReference": "orig",
            "SkullStripped": True,
            "Inputs": list(self.inputs),
            "Person": None if self.person is None else dict(self.person),
            "Model": {
                "File": self.model_file or "in memory",
                "Sha256": self.model_sha256,
                "Title": self.title,
                "Kind": self.kind,
                "Label": self.label,
                "Alpha": self.alpha,
                "TrainingSubjects": list(self.training_subjects),
                "LearnedFromPerson": self.learned_from,
                "Versions": dict(self.versions),
            },
            "FirstVolume": "the input's b=0 image on these voxels; its TE is not harmonized",
            "Gradients": self.gradients,
            "Options": dict(self.options),
            "Checksums": dict(self.checksums),
            "Approximations": list(self.approximations),
            "Warnings": [{"Subject": each.subject, "Words": each.words} for each in self.warnings],
            "GeneratedBy": f"napari-msp {importlib.metadata.version('napari-msp')}",
        }

    @classmethod
    def from_sidecar(cls, sidecar: Mapping[str, Any]) -> Provenance | None:
        """Read the fields that `to_sidecar` wrote; None if they are missing.

        A field of a wrong type counts as missing: a sidecar is a note, not a program.
        """
        target, source = sidecar.get("Target"), sidecar.get("Input")
        if not isinstance(target, str) or not isinstance(source, str):
            return None
        model = _mapping(sidecar.get("Model"))
        person, stage = sidecar.get("Person"), sidecar.get("Stage")
        learned = model.get("LearnedFromPerson")
        return cls(
            target=target,
            input=source,
            stage=next((each for each in STAGES if each == stage), "last"),
            title=_text(model.get("Title")) or "",
            kind=_text(model.get("Kind")) or "",
            label=_text(model.get("Label")) or "",
            model_file=_text(model.get("File")),
            model_sha256=_text(model.get("Sha256")),
            alpha=_share(model.get("Alpha")),
            sources=_texts(sidecar.get("Sources")),
            inputs=_texts(sidecar.get("Inputs")),
            person=person if isinstance(person, Mapping) else None,
            gradients=_text(sidecar.get("Gradients")) or "",
            approximations=_texts(sidecar.get("Approximations")),
            warnings=tuple(_doubts(sidecar.get("Warnings"), _texts(sidecar.get("Sources")))),
            training_subjects=_texts(model.get("TrainingSubjects")),
            learned_from=learned if isinstance(learned, bool) else None,
            versions={str(k): str(v) for k, v in _mapping(model.get("Versions")).items()},
            checksums={str(k): str(v) for k, v in _mapping(sidecar.get("Checksums")).items()},
            options=dict(_mapping(sidecar.get("Options"))),
        )


def provenance_of(path: Path) -> Provenance | None:
    """Return an image's provenance from its sidecar; None for a measured image."""
    try:
        return Provenance.from_sidecar(read_sidecar(path))
    except UserError:  # an unreadable sidecar states nothing
        return None


# --- Corrections of a measured scan ------------------------------------------------------------


@dataclass(frozen=True)
class PreprocessingStep:
    """A correction that scanners leave to other tools.

    `signs` are words, in lower case without spaces, that sidecars and descriptions contain if it
    was done.
    """

    name: str
    tools: str
    signs: tuple[str, ...]


STEPS = (
    PreprocessingStep(
        "denoising",
        "dwidenoise of MRtrix3, patch2self of DIPY",
        ("denois", "dwidenoise", "patch2self", "mppca"),
    ),
    PreprocessingStep(
        "Gibbs ringing",
        "mrdegibbs of MRtrix3, gibbs_removal of DIPY",
        ("gibbs", "unring", "degibbs"),
    ),
    PreprocessingStep(
        "eddy currents and motion",
        "eddy of FSL, dwifslpreproc of MRtrix3",
        ("eddy", "shoreline", "motioncorrect", "dwifslpreproc", "tortoise"),
    ),
    PreprocessingStep(
        "susceptibility",
        "topup of FSL with a b=0 of reversed phase encoding, synb0 without one",
        ("topup", "susceptibility", "distortioncorrect", "drbuddi", "synb0"),
    ),
)
"""The corrections, in the order in which they are done."""

PIPELINES = ("qsiprep", "dmriprep", "hcppipelines", "prequal", "tractoflow", "designer")
"""Pipelines that include all of these steps, as named in dataset descriptions."""

OF_THE_SCANNER = {
    "ImageComments", "ProcedureStepDescription", "ProtocolName", "PulseSequenceDetails",
    "PulseSequenceName", "SequenceName", "SeriesDescription",
}  # fmt: skip
"""Fields whose words describe the scanning, not later processing."""

EDDY_FILES = ("eddy_rotated_bvecs", "eddy_parameters", "eddy_movement_rms")
"""Files that FSL's eddy writes beside its result."""


def missing_steps(scan: Path) -> tuple[PreprocessingStep, ...]:
    """List the corrections that no name, sidecar, neighbouring file or description mentions.

    Simulated scans need none.
    """
    if is_simulated(scan) or entities(scan).get("desc", "").lower().startswith("preproc"):
        return ()
    try:
        sidecar, root = read_metadata(scan), dataset_root(scan)
        description = {} if root is None else read_description(root)
    except UserError:  # `check` reports it; it says nothing about corrections
        sidecar, description = {}, {}
    made_by = {"GeneratedBy": description.get("GeneratedBy")}
    said = " ".join([*_said_in(sidecar), *_said_in(made_by)]).lower().replace(" ", "")
    if any(name in said.replace("-", "").replace("_", "") for name in PIPELINES):
        return ()
    beside = {path.name for path in scan.parent.glob(f"{bare_stem(scan)}*")}
    if any(name.endswith(EDDY_FILES) for name in beside):
        said += " eddy"
    return tuple(step for step in STEPS if not any(sign in said for sign in step.signs))


def advice(steps: tuple[PreprocessingStep, ...]) -> str:
    """Write the steps and their tools, such as "denoising (dwidenoise of MRtrix3, …)"."""
    return "; ".join(f"{step.name} ({step.tools})" for step in steps)


def _said_in(value: Any, name: str = "") -> list[str]:
    """Return all that a sidecar says was done: texts, and names of fields that are true or set."""
    if isinstance(value, Mapping):
        fields = {str(key): inner for key, inner in value.items() if key not in OF_THE_SCANNER}
        return [each for key, inner in fields.items() for each in _said_in(inner, key)]
    if isinstance(value, list):
        return [each for inner in value for each in _said_in(inner, name)]
    if value is None or str(value).strip().lower() in {"", "none", "no", "false", "n/a"}:
        return []
    return [name, value] if isinstance(value, str) else [name]


# --- Reading a sidecar -------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _share(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if known else None


def _texts(value: Any) -> tuple[str, ...]:
    known = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(each for each in value if isinstance(each, str)) if known else ()


def _doubts(value: Any, sources: Sequence[str]) -> Iterator[Doubt]:
    """Read doubts; earlier versions wrote texts, with the scan's path before the words."""
    scan = f"{Path(sources[0]).name}: " if sources else ""
    for each in value if isinstance(value, list) else ():
        if isinstance(each, Mapping) and isinstance(words := each.get("Words"), str):
            yield Doubt(words, _text(each.get("Subject")))
        elif isinstance(each, str):
            before, named, words = each.partition(scan) if scan else ("", "", "")
            yield Doubt(words, before + scan.removesuffix(": ")) if named else Doubt(each)
