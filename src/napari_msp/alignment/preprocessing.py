"""What a scan should have been through before heads are laid on each other, as far as is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_msp.bids import (
    bare_stem,
    dataset_root,
    entities,
    is_simulated,
    read_description,
    read_metadata,
)
from napari_msp.errors import UserError


@dataclass(frozen=True)
class Step:
    """A correction that scanners leave to others.

    `signs` are what sidecars and descriptions say when it was done, in small letters without
    spaces.
    """

    name: str
    tools: str
    signs: tuple[str, ...]


STEPS = (
    Step(
        "denoising",
        "dwidenoise of MRtrix3, patch2self of DIPY",
        ("denois", "dwidenoise", "patch2self", "mppca"),
    ),
    Step(
        "Gibbs ringing",
        "mrdegibbs of MRtrix3, gibbs_removal of DIPY",
        ("gibbs", "unring", "degibbs"),
    ),
    Step(
        "eddy currents and motion",
        "eddy of FSL, dwifslpreproc of MRtrix3",
        ("eddy", "shoreline", "motioncorrect", "dwifslpreproc", "tortoise"),
    ),
    Step(
        "susceptibility",
        "topup of FSL with a b=0 of reversed phase encoding, synb0 without one",
        ("topup", "susceptibility", "distortioncorrect", "drbuddi", "synb0"),
    ),
)
"""In the order in which they are done."""

PIPELINES = ("qsiprep", "dmriprep", "hcppipelines", "prequal", "tractoflow", "designer")
"""Pipelines that take all of these steps, as their descriptions name them."""

OF_THE_SCANNER = {
    "ImageComments", "ProcedureStepDescription", "ProtocolName", "PulseSequenceDetails",
    "PulseSequenceName", "SequenceName", "SeriesDescription",
}  # fmt: skip
"""Fields whose words say how was scanned, not what was done afterwards."""

EDDY_FILES = ("eddy_rotated_bvecs", "eddy_parameters", "eddy_movement_rms")
"""Files that FSL's eddy leaves beside its result."""


def missing_steps(scan: Path) -> tuple[Step, ...]:
    """List the corrections that no name, sidecar, neighbour or dataset description mentions.

    Simulated scans need none.
    """
    try:
        sidecar = read_metadata(scan)
        root = dataset_root(scan)
        description = {} if root is None else read_description(root)
        simulated = is_simulated(scan)
    except UserError:  # `check` says so; here it says nothing of corrections
        sidecar, description, simulated = {}, {}, False
    if simulated:
        return ()
    if entities(scan).get("desc", "").lower().startswith("preproc"):
        return ()
    said = " ".join([*_texts(sidecar), *_makers(description)]).lower().replace(" ", "")
    if any(name in said.replace("-", "").replace("_", "") for name in PIPELINES):
        return ()
    beside = {path.name for path in scan.parent.glob(f"{bare_stem(scan)}*")}
    if any(name.endswith(EDDY_FILES) for name in beside):
        said += " eddy"
    return tuple(step for step in STEPS if not any(sign in said for sign in step.signs))


def advice(steps: tuple[Step, ...]) -> str:
    """Name the steps and their tools, such as "denoising (dwidenoise of MRtrix3, …)"."""
    return "; ".join(f"{step.name} ({step.tools})" for step in steps)


def _texts(value: Any, name: str = "") -> list[str]:
    """Give all that a sidecar says was done: words, and names of what is true or has content."""
    if isinstance(value, Mapping):
        fields = {str(key): inner for key, inner in value.items() if key not in OF_THE_SCANNER}
        return [each for key, inner in fields.items() for each in _texts(inner, key)]
    if isinstance(value, list):
        return [each for inner in value for each in _texts(inner, name)]
    if value is None or value is False or value == "" or _denies(value):
        return []
    return [name, value] if isinstance(value, str) else [name]


def _denies(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in {"none", "no", "false", "n/a"}


def _makers(description: Mapping[str, Any]) -> list[str]:
    return _texts({"GeneratedBy": description.get("GeneratedBy")})
