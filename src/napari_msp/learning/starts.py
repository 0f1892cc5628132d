"""The start of a run's weights: nothing, the packaged base, or any other model.

A start only provides weights: the standardisation of channels is measured on the run's own heads.
Each target's network begins as that of one platform of the start, of the same name or the one
that fits the training heads best before the first step.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from napari_msp import packaged
from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import Change, Choose, Doubt, Give, StartAfresh, UserError, either
from napari_msp.identity import known_among, same_person
from napari_msp.learning.settings import BASE, NOTHING, TrainingSettings
from napari_msp.model_file import Model, load_model
from napari_msp.networks.base import CHANNELS, STATISTICS, SingleNetwork
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import MULTI_STAGE, build, title


class StartDoubt(Doubt):
    """The start of a run may be worse than hoped for."""


@dataclass(frozen=True, eq=False)
class Start:
    """The start of a run's weights.

    Attributes
    ----------
    before
        Settings of the run, as given.
    loaded, name
        The model, None without one; "nothing", "base", or the file's name.
    platforms
        Platform of the model that each target's network begins as; targets that begin from nothing
        are not listed.
    notes
        Reasons for that, a line per target.
    branches
        Whether its branches are used, if the run has a use for them.
    """

    before: TrainingSettings
    loaded: Model | None = None
    name: str = NOTHING
    platforms: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    branches: bool = True

    @property
    def model(self) -> Model:
        """The model that the run starts from; there must be one."""
        assert self.loaded is not None
        return self.loaded

    @property
    def sha256(self) -> str:
        """The digest of the model's file; empty without one."""
        return (self.loaded.sha256 if self.loaded is not None else None) or ""

    @property
    def asked(self) -> bool:
        """Whether the user chose it, not the defaults."""
        return self.before.start_from is not None or bool(self.before.start_from_target)

    @property
    def branch_start(self) -> str | None:
        """Start of the used branches, see `MSP`; None without branches."""
        return _branch_start(self.model, self.before) if self.branches else None

    @property
    def per_order(self) -> bool | None:
        """Whether its channels are standardised by order; None if the preset decides."""
        if self.loaded is None:
            return None
        known = self.model.standardisation(self.model.card.input)
        return not known.mean.reshape(-1, CHANNELS)[:, 1:].any()

    def instead(self, why: str) -> "Start":
        """Return a start from nothing, and warn why."""
        words = f"from nothing, as {why}"
        warnings.warn(words, StartDoubt, stacklevel=4)
        return Start(self.before, doubts=(words,))

    def kind_of(self, target: str) -> str | None:
        """Return the kind of a target's single network; None if it begins from nothing."""
        platform = self.platforms.get(target)
        return None if platform is None else single_of(self.model, platform).kind

    def single(
        self, target: str, within: str, shells: int, feature_layer: str | None = None
    ) -> SingleNetwork | None:
        """Return a copy of a target's single network; None if it begins from nothing.

        Parameters
        ----------
        within
            Target whose MSP has it as a first stage: if the model has several copies, tuned
            separately, that MSP's own is used.
        shells
            Shells of the run. Weights that treat each shell separately fit any number.
        feature_layer
            Layer that branches will read, if not the start's; None: the start's.
        """
        platform = self.platforms.get(target)
        if platform is None:
            return None
        found = single_of(self.model, platform, self.platforms.get(within))
        names = {old: new for new, old in self.platforms.items()} | {platform: target}
        config = found.config()
        config["target"] = target
        config["scales"] = [[names.get(old, old), scale] for old, scale in config["scales"]]
        if feature_layer and self.branch_start is None:
            config["feature_layer"] = feature_layer
        if found.trunk == "each":
            config |= {"shells": shells, "trunk": "each"}
        built = cast(SingleNetwork, build(config))
        _take_over(built, found)
        return built

    def connect(self, network: MSP) -> None:
        """Put the start's branches into an MSP that was built on its single networks.

        A branch that the start lacks begins at 0, so that eq. (1) mixes in nothing that was not
        learned.
        """
        own = self.platforms.get(network.target)
        if own is None:
            return
        known = self.model.single(own)
        kept: dict[str, nn.Module] = {}
        if isinstance(known, MSP) and self.branch_start is not None:
            kept = dict(known.connections.items())
        for other, branch in network.connections.items():
            platform = self.platforms.get(other, "")
            if platform in kept:
                branch.load_state_dict(kept[platform].state_dict())
            else:
                branch.start_at_zero()  # type: ignore[operator]

    def ancestry(self) -> dict[str, Any]:
        """Return the ancestry for a card: the start and its own ancestors, in plain JSON types."""
        card, training = self.model.card, self.model.training
        return {
            "name": self.name,
            "sha256": self.sha256,
            "kind": card.kind,
            "label": card.label,
            "platforms": dict(self.platforms),
            "doubts": list(self.doubts),
            "voxel_size": card.voxel_size,
            "b_values": list(card.sh.b_values),
            **{
                name: training[name]
                for name in ("steps", "subjects", "people", "saw", "start")
                if name in training
            },
        }


# --- Which start -----------------------------------------------------------------------------


def read_start(
    settings: TrainingSettings, dataset: TravellingHeads
) -> tuple[TrainingSettings, Start]:
    """Read the start of a run, and let it fill in unset settings.

    If unset, it is the packaged base if one fits; the paper's recipe starts from nothing.

    Returns
    -------
    settings
        The settings with the start's name, its width, and the start of its branches.
    start
        The start, without platforms yet, see `matched`.

    Raises
    ------
    UserError
        When a request cannot be met, or the start learned from a held-out subject.

    Warns
    -----
    StartDoubt
        When there is a base that does not fit, or the start may have learned from a held-out
        subject.
    """
    path = _path_of(settings)
    if path is None:
        if settings.start_from_target:
            problem, remedy = "needs a model to start from", Give("start_from", "a model")
            raise UserError(problem, field="start_from_target", remedy=remedy)
        return from_nothing(settings), Start(settings)
    name = BASE if settings.start_from in (None, BASE) else path.name
    start = _opened(path, name, settings)
    refused = next(iter(_contradictions(start, settings)), None)
    if refused is not None:
        if start.asked:
            raise refused
        return from_nothing(settings), start.instead(f"the base {refused.problem}")
    doubts = _judges(start, settings, dataset)
    for words in doubts:
        warnings.warn(words, StartDoubt, stacklevel=3)
    chosen = settings.model_copy(update=_decided(start, settings))
    return chosen, replace(start, doubts=tuple(doubts))


def from_nothing(settings: TrainingSettings) -> TrainingSettings:
    """Return the settings of a run with fresh weights."""
    return settings.model_copy(update={"start_from": NOTHING, "width": settings.width or "paper"})


def _path_of(settings: TrainingSettings) -> Path | None:
    """Return the file of the start; None for nothing."""
    if settings.start_from == NOTHING:
        return None
    if settings.start_from is None:
        return packaged.base_model() if settings.preset != "paper" else None
    if settings.start_from != BASE:
        return Path(settings.start_from)
    path = packaged.base_model()
    if path is None:
        remedy = either(Give("start_from", "the file of a model"), StartAfresh())
        raise UserError("this installation has no base model", field="start_from", remedy=remedy)
    return path


def _opened(path: Path, name: str, settings: TrainingSettings) -> Start:
    try:
        model = load_model(path)
    except UserError as error:
        remedy = either(Give("start_from", "another model"), StartAfresh())
        raise UserError(error.problem, error.subject, "start_from", remedy) from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", path, "start_from") from error
    return Start(settings, model, name)


def _contradictions(start: Start, settings: TrainingSettings) -> Iterable[UserError]:
    """Yield errors of settings that the start cannot satisfy."""
    model = start.model

    def refuse(problem: str, parameter: str, value: Any) -> UserError:
        remedy = either(Give(parameter, str(value)), StartAfresh())
        return UserError(problem, model.name, parameter, remedy)

    kinds = _kinds(model)
    if settings.kind != MULTI_STAGE and settings.kind not in kinds:
        offered = dict.fromkeys((model.kind, *kinds))
        problem = f"has no {title(settings.kind)}, only {', '.join(map(title, offered))}"
        yield refuse(problem, "kind", " or ".join(offered))
    width = _width(model, settings.kind)
    if settings.width is not None and _fraction(settings.width) != _fraction(width):
        problem = f"has width {width}, which cannot become {settings.width}"
        yield refuse(problem, "width", width)
    begun = _branch_start(model, settings)
    if begun is not None and settings.branch_start not in ("preset", begun):
        problem = f"adds its branches to {begun}, which cannot become {settings.branch_start}"
        yield refuse(problem, "branch_start", begun)
    if begun is not None and settings.features == "middle" != _features(model):
        problem = "its branches read the last features, and cannot read others"
        yield refuse(problem, "features", "last")
    for new, old in settings.start_from_target.items():
        if old not in model.targets:
            problem = f"has no platform {old} to begin {new} as"
            remedy = Choose("start_from_target", tuple(f"{new}={each}" for each in model.targets))
            yield UserError(problem, model.name, "start_from_target", remedy)


def _decided(start: Start, settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that follow from the start."""
    begun = _branch_start(start.model, settings)
    taken = begun is not None
    if not taken and settings.branch_start == "preset":
        begun = "first stage"  # so that it begins with the knowledge of the single networks
    decided = {"start_from": start.name, "width": _width(start.model, settings.kind)}
    if settings.kind == MULTI_STAGE and begun is not None:
        decided["branch_start"] = begun
        decided["features"] = _features(start.model) if taken else settings.features
    if start.model.kind == settings.kind == MULTI_STAGE and settings.first_stages == "preset":
        decided["first_stages"] = start.model.card.first_stages
    return decided


def _judges(start: Start, settings: TrainingSettings, dataset: TravellingHeads) -> list[str]:
    """Refuse to judge by a subject from whom the start, or its ancestors, learned.

    Returns
    -------
    Texts about subjects of whom only a name is known, as from older files.
    """
    doubts = []
    judges = dict.fromkeys(settings.validation, "validation")
    judges |= dict.fromkeys(settings.held_out, "held_out")
    for subject, name in judges.items():
        if subject not in dataset.subjects:
            continue  # which is reported where heads are loaded
        person = dataset.person(subject)
        if any(same_person(person, each) for each in start.model.everyone):
            problem = (
                f"{start.name} was trained on {subject}, who therefore cannot judge the result"
            )
            remedy = either(Change(name, "other"), StartAfresh())
            raise UserError(problem, dataset.root, name, remedy)
        if known_among(person, start.model.everyone):
            doubts.append(
                f"{start.name} may have been trained on {subject}: it lists a subject of that name "
                "without stating the dataset"
            )
    return doubts


# --- Content of a model -----------------------------------------------------------------------


def single_of(model: Model, platform: str, within: str | None = None) -> SingleNetwork:
    """Return a platform's single network, as the MSP of another platform has it."""
    network = model.single(within or platform)
    if isinstance(network, MSP):
        return cast(SingleNetwork, network.singles[platform])
    return cast(SingleNetwork, model.single(platform))


def _kinds(model: Model) -> list[str]:
    """List the kinds of a model's single networks."""
    return list(dict.fromkeys(single_of(model, each).kind for each in model.targets))


def _width(model: Model, kind: str) -> Any:
    network = model.single(model.targets[0])
    return network.width if kind == MULTI_STAGE else single_of(model, model.targets[0]).width


def _fraction(width: Any) -> float:
    return 1.0 if width == "paper" else float(width)


def _branch_start(model: Model, settings: TrainingSettings) -> str | None:
    """Return what the branches that a run takes over are added to; None if it takes over none.

    Branches read features of the first stages of their own target's MSP; if the run shares first
    stages that were tuned separately, branches are useless.
    """
    network = model.single(model.targets[0])
    if not isinstance(network, MSP) or settings.kind != MULTI_STAGE:
        return None
    apart = settings.first_stages == "shared" and model.card.first_stages == "own"
    return None if apart and len(model.targets) > 1 else network.branch_start


def _features(model: Model) -> str:
    """Return which features of its single networks a model's branches read."""
    single = single_of(model, model.targets[0])
    return "last" if single.feature_layer == single.feature_layers[-1] else "middle"


def _take_over(network: nn.Module, known: nn.Module) -> None:
    """Copy weights, but not the statistics of platforms, which are the run's own."""
    own = {name: value for name, value in network.state_dict().items() if name.endswith(STATISTICS)}
    network.load_state_dict(known.state_dict() | own)
