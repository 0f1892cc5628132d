"""Model files: a safetensors file with weights and a card that holds everything needed to use them.

Nothing in the file is executed or unpickled: weights are plain arrays, and the card is JSON that is
checked (`model_card`) before any network is built.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_msp.data.gradients import shell_name
from napari_msp.errors import Advice, Change, Choose, Give, Remedy, RunJob, UserError, either
from napari_msp.files import atomic_path, no_room, sha256, version_of
from napari_msp.foreign_errors import first_reason
from napari_msp.formatting import counted
from napari_msp.identity import Person
from napari_msp.model_card import FORMAT, OF_US, ModelCard
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.msp import MSP, Network, SharedMSP, stages_of, together
from napari_msp.networks.registry import build
from napari_msp.packaged import model_path, packaged_models
from napari_msp.signal.channels import Standardisation
from napari_msp.signal.expected_error import ErrorModel
from napari_msp.signal.spherical_harmonics import ORDER
from napari_msp.strict_json import parse_json

BRANCHES = "connections."
"""Beginning of the names of an MSP's weights, except those of its first stages."""

SHARED = "first-stages"
"""Beginning of the names of weights that all targets share; no platform can have this name."""


class ModelNetwork(nn.Module):
    """The networks of all targets in eval mode.

    Called with (B, 28, X, Y, Z) standardised input, or (B, 28·S, X, Y, Z) for S shells, it returns
    each target's last stage, with the stored α, as {target: (B, 28·S, k(X-1)+1, …)} standardised.
    """

    def __init__(self, networks: Mapping[str, Network], alpha: float) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.alpha = alpha
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Predict every target; first stages that targets share are run once."""
        return {
            target: stages.second
            for network in together(cast("dict[str, Network]", dict(self.networks.items())))
            for target, stages in stages_of(network, x, self.alpha).items()
        }

    def train(self, mode: bool = True) -> "ModelNetwork":
        """Stay in eval mode: a loaded model is for prediction."""
        super().train(False)
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A model ready to use.

    Attributes
    ----------
    card
        What is known about the model.
    network
        Its networks in eval mode.
    path, sha256
        File that it was read from, and the file's digest then; None for one made in memory.
    """

    card: ModelCard
    network: ModelNetwork
    path: Path | None = None
    sha256: str | None = None

    def __repr__(self) -> str:
        where = "" if self.path is None else f", {str(self.path)!r}"
        learned = counted(len(self.training.get("subjects", [])), "subject")
        targets = ", ".join(self.targets)
        shared = ", shared first stages" if self.card.first_stages == "shared" else ""
        return f"Model({self.kind}, {self.card.input} → {targets}{shared}, {learned}{where})"

    @property
    def kind(self) -> str:
        """Kind of network, such as "msp"."""
        return self.card.kind

    @property
    def platforms(self) -> list[str]:
        """The input platform, then the targets."""
        return [self.card.input, *self.card.scales]

    @property
    def targets(self) -> list[str]:
        """Platforms that the model predicts."""
        return list(self.card.scales)

    @property
    def training(self) -> dict[str, Any]:
        """Subjects, settings and metrics of the training."""
        return self.card.training

    @property
    def people(self) -> tuple[Person, ...]:
        """People it was trained on; older files have only names, or one entry without a name."""
        return _people(self.training)

    @property
    def ancestors(self) -> tuple[Mapping[str, Any], ...]:
        """The models its weights started from, as their cards described them, the latest first.

        Each has the "name", "sha256", "label", "steps" and "people" of a model, among others.
        """
        found, known = [], self.training.get("start")
        while isinstance(known, Mapping):
            found.append(known)
            known = known.get("start")
        return tuple(found)

    @property
    def everyone(self) -> tuple[Person, ...]:
        """All people its weights were learned from: its own, and those of all its ancestors."""
        return self.people + tuple(each for known in self.ancestors for each in _people(known))

    @property
    def name(self) -> str:
        """The file's name for messages."""
        return str(self.path) if self.path is not None else "model"

    def single(self, target: str) -> Network:
        """Return the network of one target."""
        if not isinstance(target, str):
            problem = f"predicts one target at a time, not {type(target).__name__}"
            raise UserError(problem, self.name, "target", Give("target", "its name"))
        if target not in self.card.scales:
            remedy = Choose("target", tuple(self.targets))
            raise UserError(f"does not predict {target}", self.name, "target", remedy)
        network: Network = self.network.networks[target]  # type: ignore[assignment]
        return network

    def together(self, targets: Sequence[str]) -> list[Network | SharedMSP]:
        """Return the networks to run for some targets: one if these share their first stages."""
        found = together({target: self.single(target) for target in targets})
        return [network.eval() for network in found]

    def standardisation(self, platform: str) -> Standardisation:
        """Return a platform's standardisation."""
        return Standardisation.from_json(self.card.standardisation[platform].model_dump())

    def error_model(self, target: str, number: int = 0) -> ErrorModel | None:
        """Return the model of a target's error in the n-th shell; None if not calibrated.

        If an older file does not state the largest expected error, it is the error of guessing the
        mean of the training subjects' brains.
        """
        shell = shell_name(self.card.sh.b_values[number])
        fit = self.card.expected_error.get(self.card.fit_name(target, shell))
        if fit is None:
            return None
        known = self.standardisation(target).by_shell(len(self.card.sh.b_values))[number]
        largest = fit.largest or float(np.square(known.deviation, dtype=float).mean())
        mean, deviation, weights = map(np.array, (fit.mean, fit.deviation, fit.weights))
        return ErrorModel(mean, deviation, weights, largest)

    def save(self, path: str | Path) -> None:
        """Write the model, see `save_model`."""
        save_model(path, self)


def _people(known: Mapping[str, Any]) -> tuple[Person, ...]:
    listed = known.get("people")
    if isinstance(listed, list) and listed:
        return tuple(Person.from_json(each) for each in listed)
    subjects = known.get("subjects")
    if not isinstance(subjects, list):
        return () if listed == [] else (Person(),)  # no people, or unknown ones
    return tuple(Person(label) for label in subjects if isinstance(label, str))


def save_model(path: str | Path, model: Model) -> None:
    """Write a model atomically.

    Raises
    ------
    UserError
        When the folder cannot be written to, the name does not end in .safetensors, or weights are
        not finite.
    """
    path = Path(path)
    check_model_name(path)
    weights = _weights(model)
    _check_finite(path, weights)
    card = model.card.model_dump_json()
    digest = digest_of({"card": card}, weights)
    card = card.replace('"sha256":""', f'"sha256":"{digest}"', 1)
    write_tensors(path, weights, {"card": card})


def _weights(model: Model) -> dict[str, Tensor]:
    """Return the weights of all networks; those of shared first stages are there once, first."""
    networks = dict(model.network.networks.items())
    parts = {target: network.state_dict() for target, network in networks.items()}
    if model.card.first_stages == "shared":
        shared = SharedMSP(cast("dict[str, MSP]", networks))
        parts = {SHARED: shared.singles.state_dict()} | {
            target: {f"{BRANCHES}{name}": value for name, value in branches.state_dict().items()}
            for target, branches in shared.connections.items()
        }
    return {
        f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()
    }


def load_model(path: str | Path) -> Model:
    """Read and check a model.

    Parameters
    ----------
    path
        Its file, or the name of a packaged one: "msp-teaching" or "diqt-teaching".

    Raises
    ------
    UserError
        When the file is missing or damaged, is not a napari-msp model, or its weights do not fit
        the architecture that it names.
    """
    path = model_path(path)
    card, text, weights = _read(path)
    digest = sha256(path)  # now: another file may replace it before anything is predicted
    networks: dict[str, Network] = {}
    for target, architecture in card.architectures.items():
        try:
            with torch.random.fork_rng([]):  # initial weights are drawn, only to be replaced
                network = build(architecture, _known_first_stages(card, networks))
            load_weights(network, _weights_of(target, card, weights))
        except UserError as error:
            remedy = Advice("install the package that has its network")
            raise UserError(f"cannot be used ({error.problem})", path, "model", remedy) from error
        except BUILDING as error:
            reason = first_reason(error)
            raise _unusable(f"its weights for {target} cannot be used ({reason})", path) from error
        one_lattice = network.scale == card.scales[target]
        same_shells = network.shells == len(card.sh.b_values)
        if network.target != target or not one_lattice or not same_shells:
            raise _unusable(f"its network for {target} predicts something else", path)
        networks[target] = network
    known = {*networks, *([SHARED] if card.first_stages == "shared" else [])}
    if any(name.split("/")[0] not in known for name in weights):
        raise _unusable("has weights for something that is not a target", path)
    _check_finite(path, weights)
    _check_digest(card, text, weights, path)
    card = card.model_copy(update={"sha256": ""})
    try:
        return Model(card, ModelNetwork(networks, card.alpha), path, digest)
    except KeyError as error:  # torch reserves some names
        raise _unusable(f"a target cannot have this name ({first_reason(error)})", path) from error


def kept_model(path: str | Path) -> Model:
    """Read a model once per process, not for every scan; a retrained file is read again."""
    path = model_path(path)
    return _model_as_of(path, version_of(path))


@lru_cache(maxsize=16)
def _model_as_of(path: Path, version: tuple[int, ...]) -> Model:
    return load_model(path)


def _known_first_stages(
    card: ModelCard, networks: Mapping[str, Network]
) -> dict[str, SingleNetwork] | None:
    """Return the first stages that the next target shares with earlier ones."""
    if card.first_stages == "own" or not networks:
        return None
    before = cast(MSP, next(iter(networks.values())))
    return {name: cast(SingleNetwork, single) for name, single in before.singles.items()}


def _weights_of(target: str, card: ModelCard, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a target's network, including those it shares."""
    found = under(f"{target}/", weights)
    if card.first_stages == "own":
        return found
    if own := [name for name in found if not name.startswith(BRANCHES)]:
        raise ValueError(f"{own[0]} is not shared")
    shared = under(f"{SHARED}/", weights)
    return found | {f"singles.{name}": value for name, value in shared.items()}


BUILDING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that networks and torch raise for an impossible architecture."""


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    if not all(torch.isfinite(value).all() for value in weights.values()):
        damaged = Advice("get an undamaged copy of it")
        remedy = either(Change("learning_rate", "a smaller"), damaged)
        raise UserError("has weights that are not finite", path, remedy=remedy)


def check_model_name(path: Path) -> None:
    """Refuse a file name that is not a model's."""
    if path.suffix != ".safetensors":
        raise UserError(
            "a model's name ends in .safetensors", path, "out", Advice("choose another name")
        )


def _read(path: Path) -> tuple[ModelCard, str, dict[str, Tensor]]:
    try:
        metadata, weights = read_tensors(path)
    except FileNotFoundError as error:
        remedy: Remedy = Advice("check the path")
        if not path.suffix:
            names = tuple(each.stem for each in packaged_models().values())
            remedy = either(remedy, Choose("model", names))
        raise UserError("there is no such file", path, "model", remedy) from error
    except ValueError as error:
        raise _unusable(f"is not a safetensors file ({error})", path) from error
    text = metadata.get("card", "")
    if not text:
        raise UserError("is not a napari-msp model", path, "model", RunJob("train", "train one"))
    try:
        _check_kin(parse_json(text), path)  # which sees fields that pydantic ignores
        card = ModelCard.model_validate_json(text, strict=True)
    except ValueError as error:  # pydantic's errors are ValueErrors, too
        raise _unusable(f"its card is not valid ({first_reason(error)})", path) from error
    return card, text, weights


def _check_kin(content: Any, path: Path) -> None:
    """Refuse a model of a newer version or another SH order, with a message of its own."""
    if not isinstance(content, dict):
        return
    unknown = sorted(content.keys() - ModelCard.model_fields.keys())
    written = content.get("format")
    if isinstance(written, str) and written.startswith(OF_US) and (written != FORMAT or unknown):
        what = f"it has {', '.join(unknown)}" if written == FORMAT else f"it is a {written!r}"
        problem = f"is of a newer version of napari-msp ({what})"
        raise UserError(problem, path, "model", Advice("update napari-msp"))
    sh = content.get("sh")
    order = sh.get("order") if isinstance(sh, dict) else None
    if isinstance(order, int) and order != ORDER:
        problem = f"its SH images have order {order}, but this version needs order {ORDER}"
        raise UserError(problem, path, "model", Advice("use a model of that order"))


def _check_digest(card: ModelCard, text: str, weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that card and weights are as they were written."""
    said = {"card": text.replace(card.sha256, "", 1)}
    if card.sha256 and card.sha256 != digest_of(said, weights):
        raise _unusable("is damaged: its content changed after it was written", path)


# --- Tensors in a file ------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically."""
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(stored, temporary, dict(metadata))
        except SafetensorError as error:  # its text contains the system's error
            raise no_room(path, first_reason(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file: its metadata, and its tensors by name."""
    try:
        if not path.is_file():
            path.stat()  # raises if there is no file
            raise ValueError("it is not a file")
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            return stored.metadata() or {}, tensors
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        # torch lacks some number types that a file may have, and reports them in many ways.
        raise ValueError(first_reason(error)) from error


def digest_of(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of metadata and of tensors' names, types, shapes and values."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a network."""
    wanted = network.state_dict()
    if unknown := sorted(set(weights) - set(wanted)):
        raise ValueError(f"it has no {unknown[0]}")
    for name, value in wanted.items():
        if name not in weights:
            raise ValueError(f"{name} is missing")
        given = weights[name]
        if (given.shape, given.dtype) != (value.shape, value.dtype):  # torch converts types
            of, to = (f"{list(each.shape)} of {each.dtype}" for each in (given, value))
            raise ValueError(f"{name} is {of}, not {to}")
    network.load_state_dict(weights)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _unusable(problem: str, path: Path) -> UserError:
    return UserError(problem, path, "model", Advice("get the file again"))
