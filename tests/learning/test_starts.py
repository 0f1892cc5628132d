"""Runs that start from a model: which platform is which, what is taken over, what is refused."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_msp import packaged
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Give, StartAfresh, UserError, every
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned, learned_from, tell_doubts
from napari_msp.files import sha256
from napari_msp.formatting import sh_mse
from napari_msp.identity import Person
from napari_msp.learning.heads import Study, prepare_study
from napari_msp.learning.phases import TrainedNetworks, advice_on, make_model
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.start_matching import describe_start, match_platforms, zero_step_error
from napari_msp.learning.starts import Start, StartDoubt, read_start
from napari_msp.learning.validation import statistical_alignment
from napari_msp.model_file import load_model, save_model
from napari_msp.networks.msp import MSP

CPU = torch.device("cpu")
BASE = {"alpha_st": 1, "beta_st": 1, "gamma_sa": 2}
LIKE = {1: "prisma_st", 2: "connectom_sa"}
"""Platform of the small heads that others of its scale are copies of."""

MakeBase = Callable[..., Path]

SLOW = pytest.mark.slow

AS_GOOD = pytest.mark.filterwarnings("ignore:.*no better than statistical alignment")
"""The small heads are as good as aligned by their statistics."""


def with_platforms(study: Study, scales: dict[str, int]) -> Study:
    """Give a study of other targets, each a copy of the small heads' one of its scale."""
    heads = [
        replace(head, targets={name: head.targets[LIKE[k]] for name, k in scales.items()})
        for head in study.heads
    ]
    source = study.settings.input
    statistics = {name: study.standardisation[LIKE[k]] for name, k in scales.items()}
    return replace(
        study,
        settings=study.settings.model_copy(update={"targets": tuple(scales)}),
        scanned={source: study.scanned[source]}
        | {name: study.scanned[LIKE[k]] for name, k in scales.items()},
        heads=heads,
        held_out=[],
        scales=scales,
        standardisation={source: study.standardisation[source]} | statistics,
        gradients={name: study.gradients[LIKE[k]] for name, k in scales.items()},
    )


@pytest.fixture(scope="module")
def heads(make_heads: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller than elsewhere: here they are only passed through."""
    return make_heads(tmp_path_factory.mktemp("heads"), shape=(9, 8, 8))


@pytest.fixture(scope="module")
def study(heads: Path) -> Study:
    settings = TrainingSettings(input="ge_st", targets=tuple(LIKE.values()), width=0.1)
    whole = prepare_study(open_dataset(heads), settings)
    return replace(whole, heads=whole.heads[:1], people=whole.people[:1])


@pytest.fixture(scope="module")
def make_base(study: Study, tmp_path_factory: pytest.TempPathFactory) -> MakeBase:
    """Write a model whose platforms differ: alpha_st's first stage adds least to its input.

    What was made once is given again: networks take long to build.
    """
    made: dict[str, Path] = {}

    def make(*given: Any, **named: Any) -> Path:
        key = repr((given, sorted(named.items())))
        if key not in made or not made[key].exists():
            made[key] = write(*given, **named)
        return made[key]

    def write(
        kind: str = "msp",
        scales: dict[str, int] = BASE,
        name: str = "base",
        people: tuple[Person, ...] = (Person("sub-01", "of the base"),),
        run: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        given = {"kind": kind, "first_stage": {t: "shresnet" for t in scales if kind == "msp"}}
        given |= {"first_stages": "own", "singles_first": "yes"}
        here = with_platforms(study, scales)
        settings = here.settings.model_copy(update=given | changes)
        here = replace(here, settings=settings, people=list(people))
        networks = TrainedNetworks(settings, scales, here.standardisation)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in networks.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
            for target, single in networks.singles.items():
                louder = 1 + 20 * list(scales).index(target)
                for part, parameter in single.named_parameters():
                    if part.startswith("final."):
                        parameter.mul_(0.01 * louder)
            for phase in networks.phases:
                networks.begin(phase)
        path = tmp_path_factory.mktemp("base") / f"{name}.safetensors"
        save_model(path, make_model(here, networks.finished(), {"steps": 7} | (run or {})))
        return path

    return make


def begun(heads: Path, study: Study, base: Path | str | None, **changes: Any) -> Any:
    """Give settings, study and start as a run of these changes would."""
    given = study.settings.model_dump(exclude_unset=True, exclude={"width"})
    settings = TrainingSettings(**given | {"start_from": base} | changes)
    chosen, start = read_start(settings, open_dataset(heads))
    return match_platforms(start, replace(study, settings=chosen), CPU)


# --- Which platform is which -----------------------------------------------------------------

ST, SA = "prisma_st", "connectom_sa"


@pytest.mark.parametrize(
    ("kind", "base", "mine", "given", "expected"),
    [
        # By name, whatever would fit better.
        ("msp", {"alpha_st": 1, "new": 1}, {"new": 1}, {}, {"new": "new"}),
        # As asked, though another has the name.
        ("msp", {"alpha_st": 1, "new": 1}, {"new": 1}, {"new": "alpha_st"}, {"new": "alpha_st"}),
        # A name of another lattice counts for nothing.
        ("msp", {"alpha_st": 1, "new": 2}, {"new": 1}, {}, {"new": "alpha_st"}),
        # By lattice scale, then by the smallest error; two targets instead of three.
        ("msp", BASE, {ST: 1, SA: 2}, {}, {ST: "alpha_st", SA: "gamma_sa"}),
        # One target.
        ("msp", BASE, {SA: 2}, {}, {SA: "gamma_sa"}),
        ("shresnet", BASE, {ST: 1}, {}, {ST: "alpha_st"}),
        # An MSP takes each platform once, a single network the best for each.
        ("msp", BASE, {"a": 1, "b": 1}, {}, {"alpha_st", "beta_st"}),
        ("shresnet", BASE, {"a": 1, "b": 1}, {}, {"a": "alpha_st", "b": "alpha_st"}),
        ("msp", BASE, {"alpha_st": 1, "b": 1}, {}, {"alpha_st": "alpha_st", "b": "beta_st"}),
        # A further target begins as the most similar one.
        ("msp", {"alpha_st": 1}, {"a": 1, "b": 1}, {}, {"a": "alpha_st", "b": "alpha_st"}),
        # No network of that scale: from nothing.
        ("msp", {"alpha_st": 1}, {ST: 1, SA: 2}, {}, {ST: "alpha_st"}),
        ("msp", {"gamma_sa": 2}, {ST: 1, SA: 2}, {}, {SA: "gamma_sa"}),
    ],
)
def test_each_target_begins_as_the_right_platform(
    kind, base, mine, given, expected, heads, study, make_base
):
    _, start = begun(
        heads,
        with_platforms(study, mine),
        make_base(scales=base),
        kind=kind,
        targets=tuple(mine),
        start_from_target=given,
    )
    if isinstance(expected, set):
        assert set(start.platforms.values()) == expected
        assert sum("which another target begins as" in note for note in start.notes) == 1
    else:
        assert start.platforms == expected
    assert len(start.notes) == len(mine)
    for target, note in zip(mine, start.notes, strict=True):
        assert note.startswith(f"{target} begins ")
        assert ("from nothing" in note) == (target not in start.platforms)


def test_how_it_was_matched_is_said(heads, study, make_base):
    mine = {"alpha_st": 1, "beta_st": 1, "trio": 1, SA: 2, "half": 3}
    study = with_platforms(study, {t: min(k, 2) for t, k in mine.items()})
    study = replace(study, scales=mine)
    asked = {"beta_st": "alpha_st"}
    _, start = begun(heads, study, make_base(), targets=tuple(mine), start_from_target=asked)
    named, given, best, only, nothing = start.notes
    assert named == "alpha_st begins as alpha_st (of the same name)"
    assert given == "beta_st begins as alpha_st (as asked)"
    assert best.startswith("trio begins as beta_st (SH MSE of the start's MSP before the first ")
    assert "; alpha_st " in best
    assert only == f"{SA} begins as gamma_sa (the only one of its lattice scale)"
    assert nothing == "half begins from nothing (there is no network of lattice scale 3)"


@pytest.mark.parametrize("kind", ["shresnet", "msp"])
def test_candidates_are_measured_as_what_the_run_begins_as(kind, heads, study, make_base):
    """With one target no branch counts; with two MSPs it is said that the start's are measured."""
    base = make_base()
    one = with_platforms(study, {ST: 1})
    here, start = begun(heads, one, base, kind=kind, targets=(ST,))
    network = TrainedNetworks(here.settings, here.scales, here.standardisation, start).finished()
    error = zero_step_error(here, network[ST], ST, CPU)
    assert f"(SH MSE before the first step {sh_mse(error)}; " in start.notes[0]
    _, start = begun(heads, study, base, kind=kind)
    assert ("SH MSE of the start's MSP before" in start.notes[0]) == (kind == "msp")


def test_the_other_first_stages_of_a_candidate_keep_their_own_statistics(
    heads, study, make_base, monkeypatch
):
    """CNN-RISH predicts with them: with the candidate's all branches would read wrong features."""
    base = make_base(first_stage=dict.fromkeys(BASE, "cnn-rish"))
    own = {
        name: replace(known, deviation=2 * known.deviation)
        for name, known in study.standardisation.items()
    }
    told: dict[str, dict[str, np.ndarray]] = {}

    def measured(study: Study, network: MSP, target: str, device: torch.device) -> float:
        told[network.target] = {
            name: single.get_buffer("target_deviation").numpy().copy()
            for name, single in network.singles.items()
        }
        return 1.0

    monkeypatch.setattr("napari_msp.learning.start_matching.zero_step_error", measured)
    begun(heads, replace(study, standardisation=own), base, start_from_target={SA: "gamma_sa"})
    before = load_model(base)
    expected = {
        "alpha_st": own[ST].deviation,
        "beta_st": before.standardisation("beta_st").deviation,
        "gamma_sa": own[SA].deviation,
    }
    assert set(told) == {"alpha_st", "beta_st"}
    for name, deviation in expected.items():
        np.testing.assert_allclose(told["alpha_st"][name], deviation, rtol=1e-6)


# --- What is taken over ----------------------------------------------------------------------


def by_hand(base: Path, platform: str, study: Study, target: str, stage: str) -> np.ndarray:
    """Predict the first head: weights of the base's platform, statistics of the run's own heads."""
    image = study.heads[0].input
    source, wanted = study.standardisation["ge_st"], study.standardisation[target]
    x = (image.coefficients - source.mean) / source.deviation * image.mask[..., None]
    network = load_model(base).single(platform)
    with torch.no_grad():
        outputs = network(torch.from_numpy(np.moveaxis(x, -1, 0)[None].astype(np.float32)))
    y = (
        outputs
        if not isinstance(network, MSP)
        else (outputs.second if stage == "second" else outputs.first[platform])
    )
    return np.moveaxis(y[0].numpy(), 0, -1) * wanted.deviation + wanted.mean


@pytest.mark.parametrize("kind", ["msp", "shresnet"])
@pytest.mark.parametrize(("target", "platform"), [(ST, "alpha_st"), (SA, "gamma_sa")])
def test_before_the_first_step_the_base_predicts_with_new_statistics(
    kind, target, platform, heads, study, make_base
):
    """The same platforms, other names: nothing is lost on the way."""
    base = make_base(scales={"alpha_st": 1, "gamma_sa": 2})
    here, start = begun(heads, study, base, kind=kind)
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    network = networks.finished()[target]
    head = study.heads[0]
    expected = by_hand(base, platform, study, target, "second" if kind == "msp" else "first")
    one = replace(here, heads=[head])
    truth = head.targets[target]
    error = np.square((expected - truth.coefficients)[truth.mask]).mean()
    assert zero_step_error(one, network, target, CPU) == pytest.approx(error, rel=1e-4)
    if kind == "msp":
        # Two branches and two terms: not the first stage alone.
        first = by_hand(base, platform, study, target, "first")
        assert np.square((first - truth.coefficients)[truth.mask]).mean() != pytest.approx(error)


def test_a_branch_less_still_means_something(heads, study, make_base):
    """Equation (1) with P - 1 = 2 terms out of the base's three."""
    base = make_base()
    here, start = begun(heads, study, base)
    network = TrainedNetworks(here.settings, here.scales, here.standardisation, start).finished()[
        ST
    ]
    known = load_model(base).single("alpha_st")
    x = torch.randn(1, 28, 6, 5, 6)
    with torch.no_grad():
        found, of_base = network.eval()(x), known(x)
    assert torch.equal(found.first[ST], of_base.first["alpha_st"])
    assert torch.equal(found.first[SA], of_base.first["gamma_sa"])
    assert torch.equal(found.branches[SA], of_base.branches["gamma_sa"])
    mean = (of_base.first["alpha_st"] + of_base.branches["gamma_sa"]) / 2
    assert torch.allclose(found.second, mean, atol=1e-6)


@pytest.mark.parametrize("added_to", ["first stage", "nothing", "input"])
def test_what_the_start_lacks_is_trained_first_and_adds_nothing_before(
    added_to, heads, study, make_base
):
    base = make_base(scales={"alpha_st": 1, "beta_st": 1}, branch_start=added_to)
    here, start = begun(heads, study, base, start_from_target={ST: "alpha_st"})
    assert here.settings.branch_start == "first stage"
    assert any("branches begin at zero" in note for note in start.notes) == (
        added_to != "first stage"
    )
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    assert [phase.name for phase in networks.phases] == [f"diqt {SA}", f"msp {ST}", f"msp {SA}"]
    network = networks.finished()[ST]
    assert isinstance(network, MSP)
    network.eval()
    with torch.no_grad():
        outputs = network(torch.randn(1, 28, 5, 5, 5))
    assert torch.allclose(outputs.second, outputs.first[ST], atol=1e-6)
    kept = {name: value.clone() for name, value in network.singles[ST].state_dict().items()}
    networks.begin(networks.phases[1])
    after = network.singles[ST].state_dict()
    assert all(torch.equal(kept[name], after[name]) for name in kept)
    trained = networks.singles[SA].state_dict()
    assert all(torch.equal(trained[n], v) for n, v in network.singles[SA].state_dict().items())


def test_an_msp_grows_on_single_networks(heads, study, make_base):
    base = make_base("shresnet", {"alpha_st": 1, "gamma_sa": 2})
    here, start = begun(heads, study, base)
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    assert [phase.name for phase in networks.phases] == [f"msp {ST}+{SA}"]
    x = torch.randn(1, 28, 5, 6, 5)
    with torch.no_grad():
        found = networks.finished()[SA].eval()(x)
        expected = load_model(base).single("gamma_sa")(x)
    assert torch.allclose(found.second, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("of_base", "of_run"),
    [
        ("own", "preset"),
        pytest.param("own", "own", marks=SLOW),
        ("own", "shared"),
        ("shared", "preset"),
        pytest.param("shared", "own", marks=SLOW),
        pytest.param("shared", "shared", marks=SLOW),
    ],
)
def test_first_stages_of_its_own_or_shared(of_base, of_run, heads, study, make_base):
    """Unset, the run's are as the start's; branches that read others begin at 0."""
    scales = {"alpha_st": 1, "gamma_sa": 2}
    base = make_base(scales=scales, first_stages=of_base, branch_start="input")
    known = load_model(base)
    here, start = begun(heads, study, base, first_stages=of_run)
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    assert [phase.unison for phase in networks.phases] == [True] * len(networks.phases)
    shared = of_run == "shared" or (of_run, of_base) == ("preset", "shared")
    assert (networks.shared is not None) == shared
    x = torch.randn(1, 28, 5, 6, 5)
    for target, platform in {ST: "alpha_st", SA: "gamma_sa"}.items():
        with torch.no_grad():
            found = networks.finished()[target].eval()(x)
            expected = known.single(platform)(x)
        assert torch.equal(found.first[target], expected.first[platform])
        if (of_base, of_run) == ("own", "shared"):
            assert torch.allclose(found.second, expected.first[platform], atol=1e-6)
        else:
            assert torch.equal(found.second, expected.second)


@pytest.mark.parametrize(
    "kind", ["cpm", "cnn-rish", pytest.param("hned", marks=SLOW), pytest.param("diqt", marks=SLOW)]
)
def test_every_kind_starts_from_its_own(kind, heads, study, make_base):
    base = make_base(kind, {"alpha_st": 1, "gamma_sa": 2})
    names = {ST: "alpha_st", SA: "gamma_sa"}
    here, start = begun(heads, study, base, kind=kind, start_from_target=names)
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start).finished()
    known = load_model(base)
    x = torch.randn(1, 28, 5, 5, 6)
    for target, platform in names.items():
        with torch.no_grad():
            # The statistics are the same here, as the small heads are.
            assert torch.equal(networks[target].eval()(x), known.single(platform)(x))
        assert networks[target].target == target


def test_statistics_are_the_runs_own(heads, study, make_base):
    """CNN-RISH computes with them, and they stand among its weights."""
    other = study.standardisation[ST]
    changed = replace(other, mean=other.mean + 0.1)
    base = make_base("cnn-rish", {ST: 1})
    own = replace(
        with_platforms(study, {ST: 1}), standardisation=study.standardisation | {ST: changed}
    )
    here, start = begun(heads, own, base, kind="cnn-rish")
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    single = networks.finished()[ST]
    assert np.allclose(single.get_buffer("target_mean"), changed.mean)


# --- Width, kinds, channels ------------------------------------------------------------------


def test_the_start_decides_what_is_left_open(heads, study, make_base):
    path = make_base(branch_start="input", width=0.12)
    settings, start = read_start(TrainingSettings(start_from=path), open_dataset(heads))
    assert (settings.width, settings.branch_start) == (0.12, "input")
    assert settings.start_from == "base.safetensors", "no path of this machine is kept"
    assert start.sha256 == sha256(path)
    again, _ = read_start(TrainingSettings(start_from=path, width=0.12), open_dataset(heads))
    assert again.width == 0.12


def test_branches_read_what_they_learned_to_read(heads, study, make_base):
    base = make_base(scales={"alpha_st": 1, "gamma_sa": 2}, features="middle")
    here, start = begun(heads, study, base)
    assert here.settings.features == "middle"
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    x = torch.randn(1, 28, 5, 6, 5)
    with torch.no_grad():
        found = networks.finished()[SA].eval()(x)
        assert torch.equal(found.second, load_model(base).single("gamma_sa")(x).second)
    # New branches on single networks may read what they like.
    alone = make_base("shresnet", {"alpha_st": 1, "gamma_sa": 2}, name="alone")
    here, start = begun(heads, study, alone, features="middle")
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    network = networks.finished()[SA]
    assert isinstance(network, MSP)
    layers = {each.feature_layer for each in network.singles.children()}
    assert layers == {"blocks"}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"width": 0.2}, "width", "has width 0.1, which cannot become 0.2"),
        ({"width": "paper"}, "width", "has width 0.1"),
        ({"kind": "diqt"}, "kind", "has no DIQT, only MSP, SHResNet"),
        ({"branch_start": "input"}, "branch_start", "adds its branches to first stage"),
        ({"features": "middle"}, "features", "its branches read the last features"),
        ({"start_from_target": {ST: "x"}}, "start_from_target", "has no platform x to begin"),
        ({"start_from_target": {ST: "gamma_sa"}}, "start_from_target", "of lattice scale 2"),
        ({"first_stage": {ST: "diqt"}}, "first_stage", f"has no DIQT that {ST} can begin as"),
        ({"held_out": ("sub-03",)}, "held_out", "was trained on sub-03"),
    ],
)
def test_what_cannot_be_had_is_refused(changes, field, message, heads, study, make_base):
    base = make_base(people=(open_dataset(heads).person("sub-03"),))
    with pytest.raises(UserError, match=message) as caught:
        begun(heads, study, base, **changes)
    assert caught.value.field == field
    assert caught.value.remedy is not None


@pytest.mark.parametrize("changes", [{"start_from": None}, {"preset": "paper"}])
def test_platforms_of_no_start_are_refused(changes, heads, monkeypatch):
    monkeypatch.setattr(packaged, "base_model", lambda: None)
    settings = TrainingSettings(**changes, start_from_target={ST: "alpha_st"})
    with pytest.raises(UserError, match="needs a model to start from") as caught:
        read_start(settings, open_dataset(heads))
    assert caught.value.field == "start_from_target"
    assert caught.value.remedy == Give("start_from", "a model")


def test_whoever_names_its_platforms_asks_for_the_base(heads, make_base, monkeypatch):
    monkeypatch.setattr(packaged, "base_model", lambda: make_base())
    settings = TrainingSettings(start_from_target={ST: "alpha_st"}, width=0.2)
    with pytest.raises(UserError, match=r"has width 0\.1, which cannot become 0\.2"):
        read_start(settings, open_dataset(heads))


def test_lacking_branches_are_not_added_to_what_was_asked(heads, study, make_base):
    base = make_base(scales={"alpha_st": 1}, branch_start="nothing")
    with pytest.raises(UserError, match="lacks some of the branches") as caught:
        begun(heads, study, base, branch_start="nothing")
    assert caught.value.field == "branch_start"


def test_targets_of_a_start_are_the_runs(heads, make_base):
    names = {"x": "gamma_sa"}
    settings = TrainingSettings(start_from=make_base(), start_from_target=names, input="ge_st")
    with pytest.raises(UserError, match="has no target x") as caught:
        prepare_study(open_dataset(heads), settings)
    assert caught.value.field == "start_from_target"


def test_a_start_that_does_not_fit_is_nothing_unless_it_was_asked_for(
    heads, study, make_base, monkeypatch
):
    base = make_base(scales={"gamma_sa": 2})
    st = with_platforms(study, {ST: 1})
    with pytest.raises(UserError, match="only gamma_sa"):
        begun(heads, st, base, targets=(ST,))
    monkeypatch.setattr(packaged, "base_model", lambda: base)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "has no network of any target's lattice scale, only gamma_sa"),
        ({"width": 0.2}, "has width 0.1, which cannot become 0.2"),
        ({"kind": "diqt"}, "has no DIQT"),
    ]
    for changes, why in cases:
        with pytest.warns(StartDoubt, match=f"from nothing, as the base {why}"):
            here, start = begun(heads, st, None, targets=(ST,), **changes)
        assert (start.name, start.platforms) == ("nothing", {})
        assert here.settings.start_from == "nothing"
        assert here.settings.width == changes.get("width", "paper")
        assert here.settings.branch_start == "preset"


def test_unset_means_base_where_there_is_one(heads, study, make_base, monkeypatch):
    monkeypatch.setattr(packaged, "base_model", lambda: None)
    dataset = open_dataset(heads)
    assert read_start(TrainingSettings(), dataset)[1].name == "nothing"
    with pytest.raises(UserError, match="has no base model") as caught:
        read_start(TrainingSettings(start_from="base"), dataset)
    assert StartAfresh() in every(caught.value.remedy)
    base = make_base()
    monkeypatch.setattr(packaged, "base_model", lambda: base)
    assert read_start(TrainingSettings(), dataset)[1].name == "base"
    assert read_start(TrainingSettings(start_from="nothing"), dataset)[1].name == "nothing"
    assert read_start(TrainingSettings(preset="paper"), dataset)[1].name == "nothing"
    assert (
        read_start(TrainingSettings(preset="paper", start_from="base"), dataset)[1].name == "base"
    )


@pytest.mark.parametrize("damage", ["missing", "foreign", "cut", "order"])
def test_files_that_are_no_start_are_refused(damage, heads, make_base, tmp_path):
    path = tmp_path / "damaged.safetensors"
    content = make_base().read_bytes()
    path.write_bytes(content)
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        torch.save({"a": 1}, path)
    elif damage == "cut":
        path.write_bytes(content[:-7])
    else:
        path.write_bytes(content.replace(b'\\"order\\":6', b'\\"order\\":8'))
        assert path.read_bytes() != content
    with pytest.raises(UserError) as caught:
        read_start(TrainingSettings(start_from=path), open_dataset(heads))
    assert (caught.value.subject, caught.value.field) == (str(path), "start_from")
    if damage == "order":
        assert "have order 8, but this version needs order 6" in str(caught.value)


# --- Several shells --------------------------------------------------------------------------


def test_several_shells_start_from_one_trunk(make_heads, make_base, tmp_path):
    root = make_heads(tmp_path / "shells", 1, (9, 8, 8), b_values=(1000.0, 3000.0))
    settings = TrainingSettings(start_from=make_base("cnn-rish"), kind="cnn-rish", input="ge_st")
    settings, start = read_start(settings, open_dataset(root))
    two = prepare_study(open_dataset(root), settings, start.per_order)
    with pytest.warns(StartDoubt, match="learned at b = 1200, far from b = 3000 here"):
        two, start = match_platforms(start, two, CPU)
    networks = TrainedNetworks(two.settings, two.scales, two.standardisation, start)
    network = networks.finished()[ST]
    assert network(torch.zeros(1, 56, 4, 4, 4)).shape == (1, 56, 4, 4, 4)
    assert network.input_mean.shape == (56,)
    at_once = replace(two, settings=two.settings.model_copy(update={"trunk": "all"}))
    with pytest.raises(UserError, match="takes each shell by itself") as caught:
        match_platforms(replace(start, platforms={}), at_once, CPU)
    assert Give("trunk", "each") in every(caught.value.remedy)


# --- A whole run -----------------------------------------------------------------------------


@AS_GOOD
def test_a_run_from_a_model(heads, quick, run, make_base):
    base = make_base(scales={"alpha_st": 1, "beta_st": 1})
    settings = quick("msp", width=None, start_from=base, start_from_target={ST: "beta_st"})
    settings = settings.model_copy(update={"targets": (ST,), "epochs": 1, "steps_per_epoch": 1})
    out, events = run(heads, settings)
    assert events[0].start == "base.safetensors"
    told = events[1]
    assert told.platforms == {ST: "beta_st"}
    assert told.errors.keys() == told.aligned.keys() == {ST}
    assert events[0].phases == [f"msp {ST}"]
    before = [e.errors for e in events if e.name == "validated" and e.epoch == 0]
    assert [list(each) for each in before] == [[ST]]
    model = load_model(out)
    assert model.training["settings"]["width"] == 0.1
    assert model.training["start"]["sha256"] == sha256(base)
    assert model.training["start"]["platforms"] == {ST: "beta_st"}
    assert str(base.parent) not in str(model.card)


@AS_GOOD
@pytest.mark.parametrize("stop_after", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_resumed_is_bit_for_bit_uninterrupted_from_a_start(
    stop_after, heads, quick, run, make_base, tmp_path
):
    base = make_base(scales={"alpha_st": 1, "other_st": 1})
    settings = quick("msp", width=None, start_from=base, targets=(ST,), epochs=3, held_out=())
    whole, _ = run(heads, settings, "whole")
    parts, events = run(heads, settings, "parts", stop_after=stop_after)
    assert events[-1].name == "stopped"
    moved = base.rename(tmp_path / "moved.safetensors")
    settings = settings.model_copy(update={"start_from": str(moved)})
    _, events = run(heads, settings, "parts", resume=True)
    assert events[0].resumed_at == stop_after
    one, other = load_file(whole), load_file(parts)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@AS_GOOD
def test_a_run_is_not_gone_on_with_from_another_start(heads, quick, run, make_base):
    one, other = make_base(), make_base(name="other", width=0.12)
    settings = quick("shresnet", width=None, start_from=one, targets=(ST,), held_out=())
    out, _ = run(heads, settings, stop_after=1)
    kept = checkpoint_path(out).read_bytes()
    with pytest.raises(UserError, match=rf"start_from: {sha256(one)} there, {sha256(other)} here"):
        run(heads, settings.model_copy(update={"start_from": str(other)}), resume=True)
    assert checkpoint_path(out).read_bytes() == kept


def test_no_better_than_alignment_is_said(heads, study, make_base):
    """Whatever is added to the aligned input at random makes it worse."""
    here, start = begun(heads, with_platforms(study, {"a": 1}), make_base(scales={"loud": 1}))
    networks = TrainedNetworks(here.settings, here.scales, here.standardisation, start)
    network = networks.finished()["a"]
    assert isinstance(network, MSP)
    with torch.no_grad():
        for name, parameter in network.singles["a"].named_parameters():
            if name.startswith("final."):
                parameter.fill_(1.0)
    with pytest.warns(StartDoubt, match="a is no better than statistical alignment before"):
        told = describe_start(start, here, networks.finished(), CPU)
    aligned = statistical_alignment(here, "a")
    squares = [
        np.square(aligned(head.input).coefficients - head.targets["a"].coefficients)[
            head.targets["a"].mask
        ]
        for head in here.heads
    ]
    assert told.aligned["a"] == pytest.approx(np.concatenate(squares).mean(), rel=1e-4)
    assert told.errors["a"] > told.aligned["a"]
    assert len(told.doubts) == 1


# --- Ancestors -------------------------------------------------------------------------------


@AS_GOOD
def test_ancestors_are_remembered_and_nobody_they_learned_from_is_measured(
    heads, quick, run, make_base
):
    dataset = open_dataset(heads)
    # Known by the scan alone, under another name and in another dataset.
    person = replace(dataset.person("sub-03"), label="sub-77", dataset="another")
    base = make_base(people=(person,))
    settings = quick(
        "shresnet", width=None, targets=(ST,), held_out=(), epochs=1, steps_per_epoch=1
    )
    tuned, _ = run(
        heads,
        settings.model_copy(update={"start_from": str(base), "subjects": ("sub-01",)}),
        "tuned",
    )
    again, _ = run(
        heads,
        settings.model_copy(update={"start_from": str(tuned), "subjects": ("sub-01", "sub-02")}),
        "again",
    )
    model = load_model(again)
    assert [each["name"] for each in model.ancestors] == ["tuned.safetensors", "base.safetensors"]
    assert [each["sha256"] for each in model.ancestors] == [sha256(tuned), sha256(base)]
    assert [each["steps"] for each in model.ancestors] == [1, 7]
    assert [each.label for each in model.everyone] == ["sub-01", "sub-02", "sub-01", "sub-77"]
    assert learned_from([model], [dataset], dataset.subjects).keys() == {
        "sub-01",
        "sub-02",
        "sub-03",
    }
    with pytest.raises(UserError, match=r"again\.safetensors was trained on sub-03"):
        run(
            heads,
            settings.model_copy(update={"start_from": str(again), "held_out": ("sub-03",)}),
            "refused",
        )
    # Older files know names alone, which are nobody's own.
    older = make_base(name="older", people=(Person("sub-03"),))
    with pytest.warns(StartDoubt, match="older.safetensors may have been trained on sub-03"):
        read_start(TrainingSettings(start_from=older, held_out=("sub-03",)), dataset)
    named = replace(
        model,
        card=model.card.model_copy(
            update={
                "training": {
                    **model.training,
                    "start": {"subjects": ["sub-03"]},
                    "validation": None,
                }
            }
        ),
    )
    assert learned_from([named], [dataset], dataset.subjects).keys() == {"sub-01", "sub-02"}
    with pytest.warns(
        MayHaveLearned, match="may have been trained on sub-03: the model it started"
    ):
        assert len(tell_doubts([named], [dataset], dataset.subjects)) == 1
    assert tell_doubts([model], [dataset], dataset.subjects) == ()
    # Another dataset's sub-03 is somebody else.
    other = make_base(name="other", people=(Person("sub-03", "another"),))
    held_out = TrainingSettings(start_from=other, held_out=("sub-03",))
    assert read_start(held_out, dataset)[1].name == "other.safetensors"


def test_singles_first_is_declined_from_a_start_too(study, make_base):
    """What begins trained is not called untrained, and what is fresh is not trained first."""
    settings = study.settings.model_copy(
        update={"start_from": str(make_base()), "singles_first": "no", "first_stages": "shared"}
    )
    here = replace(study, settings=settings)
    platforms = {next(iter(study.scales)): "alpha_st"}
    start = Start(settings, load_model(make_base()), platforms=platforms)
    networks = TrainedNetworks(settings, here.scales, here.standardisation, start)
    assert [(phase.unison, phase.untrained) for phase in networks.phases] == [(True, False)]


def test_cards_with_made_up_ancestors_are_no_harm(make_base):
    model = load_model(
        make_base(run={"start": {"people": 3, "subjects": [1, "sub-05"], "start": []}})
    )
    assert [each.label for each in model.everyone] == ["sub-01", "sub-05"]


def test_where_a_single_network_does_as_well_is_said() -> None:
    settings, of_base = TrainingSettings(), Start(TrainingSettings(), name="base")
    (two,) = advice_on(settings, {"a": 1, "b": 1}, of_base)
    assert "an MSP from the base erred 3 % less than SHResNets" in two
    assert "10 to 15 % less with three heads" in two
    assert advice_on(settings, {"a": 1}, of_base) == [], "that is a single network"
    assert advice_on(settings, {"a": 1, "fine": 2}, of_base) == []
    assert advice_on(settings, {"a": 1, "b": 1}, Start(settings)) == []
    single = TrainingSettings(kind="shresnet")
    assert advice_on(single, {"a": 1, "b": 1}, of_base) == []


def test_far_from_what_the_start_saw_is_said(heads, study, make_base):
    saw = {"voxel_size": [1.5, 1.8], "b_value": [2000, 3000]}
    base = make_base(run={"saw": saw, "start": {"voxel_size": 2.0, "b_values": [1000.0]}})
    coarse = replace(study, voxel_size=3.1, b_values=(1200.0,))
    with pytest.warns(StartDoubt) as caught:
        begun(heads, coarse, base)
    assert [str(each.message) for each in caught] == [
        "base.safetensors learned from voxels of 1.5 to 2.4 mm, far from 3.1 mm here"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begun(heads, replace(study, voxel_size=2.9), base)
