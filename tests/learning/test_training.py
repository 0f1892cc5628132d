"""Runs: the event stream, stopping, exact resuming, splitting by subject."""

import json
from collections import Counter
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from weights import same_weights

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Choose, Doubt, Overwrite, Resume, UserError, either, every
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.identity import Person, file_digest, known_among
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.checkpoint import DIGEST
from napari_msp.learning.events import EVENTS, Failed, parse_event
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_file import digest_of, load_model, read_tensors, write_tensors
from napari_msp.signal.fitting import fit_sh

KINDS = ("msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains_and_its_model_loads(kind, heads, quick, run):
    out, events = run(heads, quick(kind))
    model = load_model(out)
    assert model.kind == kind
    assert model.targets == ["prisma_st", "connectom_sa"]
    assert model.platforms == ["ge_st", "prisma_st", "connectom_sa"]
    assert model.training["subjects"] == ["sub-01", "sub-02"]
    assert model.training["held_out"] == ["sub-03"]
    shapes = {t: tuple(y.shape) for t, y in model.network(torch.zeros(1, 28, 5, 6, 7)).items()}
    assert shapes == {"prisma_st": (1, 28, 5, 6, 7), "connectom_sa": (1, 28, 9, 11, 13)}
    assert not checkpoint_path(out).exists()
    phases = events[0].phases
    assert len(phases) == (1 if kind == "msp" else 2)


def test_learning_lowers_the_held_out_error(heads, quick, run):
    _, events = run(heads, quick("shresnet", epochs=12, width=0.3))
    errors = [
        e.errors["prisma_st"] for e in events if e.name == "validated" and "prisma_st" in e.errors
    ]
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.slow
def test_paper_preset_on_a_few_voxels(heads, quick, run):
    out, events = run(heads, quick("msp", "paper"))
    steps = [event for event in events if event.name == "step"]
    # 2 heads · 16 voxels in batches of 12, 2 epochs, 2 single and 2 unison phases
    assert len(steps) == 3 * 2 * 4
    single, unison = steps[:12], steps[12:]
    assert {event.alpha for event in single} == {None}
    assert unison[0].alpha == 0
    assert unison[5].alpha == 1
    assert {event.learning_rate for event in steps} == {1e-4}
    kinds = {
        target: architecture["singles"]
        for target, architecture in load_model(out).card.architectures.items()
    }
    assert [each["kind"] for each in kinds["connectom_sa"]] == ["shresnet", "diqt"]


def test_events_are_one_stream_and_survive_json(heads, quick, run):
    _, events = run(heads, quick("shresnet", targets=("prisma_st",)))
    names = [event.name for event in events]
    assert names[:2] == ["started", "aligned"]
    assert names[2:] == [*(["step"] * 3 + ["validated", "checkpointed"]) * 2, "finished"]
    assert [e.step for e in events if e.name == "step"] == list(range(1, 7))
    assert all(e.throughput > 0 and e.time_left >= 0 for e in events if e.name == "step")
    for event in events:
        assert json.loads(event.to_json())["event"] == event.name
        assert parse_event(event.to_json()) == event
    assert set(EVENTS) == {
        "started",
        "startedfrom",
        "aligned",
        "step",
        "validated",
        "previewed",
        "shortened",
        "checkpointed",
        "stopped",
        "failed",
        "finished",
    }


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("given", "stop_after"),
    [
        ({"kind": "msp"}, 4),
        # Of the second target.
        pytest.param({"kind": "msp", "first_stages": "own"}, 8, marks=SLOW),
        pytest.param({"kind": "diqt", "preset": "paper", "epochs": 1}, 4, marks=SLOW),
        pytest.param({"kind": "hned"}, 8, marks=SLOW),
    ],
)
def test_resumed_is_bit_for_bit_uninterrupted(given, stop_after, heads, quick, run):
    settings = quick(**given)
    whole, _ = run(heads, settings, "whole")
    parts, events = run(heads, settings, "parts", stop_after=stop_after)
    assert events[-1].name == "stopped"
    assert events[-1].step == stop_after
    assert sum(event.name == "step" for event in events) == stop_after
    assert not parts.exists()
    assert checkpoint_path(parts).exists()
    torch.manual_seed(999)  # whatever happened in between must not matter
    _, events = run(heads, settings, "parts", resume=True)
    assert events[0].resumed_at == stop_after
    assert same_weights(whole, parts)


def test_another_seed_gives_another_model(heads, quick, run):
    """That the same gives the same is seen where a run is resumed."""
    first, other = (
        run(heads, quick(targets=("prisma_st",), seed=seed), f"{seed}")[0] for seed in (0, 1)
    )
    assert not same_weights(first, other)


def test_held_out_subjects_change_nothing(make_heads, tmp_path, quick, run):
    """Neither weights nor statistics may see them."""
    root = make_heads(tmp_path / "heads")
    first, _ = run(root, quick(), "first")
    for path in root.glob("sub-03/*/dwi/*_dwi.nii.gz"):
        image = nib.load(path)
        data = np.asarray(image.dataobj) ** 0.8
        nib.Nifti1Image(data.astype(np.float32), image.affine).to_filename(path)
    second, _ = run(root, quick(), "second")
    assert same_weights(first, second)
    one, other = load_model(first), load_model(second)
    assert one.card.standardisation == other.card.standardisation
    assert one.training["held_out_sh_mse"] != other.training["held_out_sh_mse"]


def test_checkpoint_of_another_run_is_refused(heads, quick, run):
    polled = iter(range(100))
    run(heads, quick(), cancelled=lambda: next(polled) >= 2)
    with pytest.raises(UserError, match=r"other settings \(seed: 0 there, 5 here\)"):
        run(heads, quick(seed=5), resume=True)
    with pytest.raises(UserError, match="other settings, subjects"):
        run(heads, quick(held_out=("sub-02",)), resume=True)


def test_another_run_is_not_written_over(heads, quick, run):
    polled = iter(range(100))
    settings = quick(targets=("prisma_st",))
    out, _ = run(heads, settings, cancelled=lambda: next(polled) >= 2)
    kept = checkpoint_path(out).read_bytes()
    with pytest.raises(UserError, match="a run was stopped here") as caught:
        run(heads, settings)
    assert caught.value.subject == str(checkpoint_path(out))
    assert caught.value.remedy == either(Resume(), Overwrite("start over"))
    assert checkpoint_path(out).read_bytes() == kept
    run(heads, settings, force=True)
    with pytest.raises(UserError, match="exists already") as caught:
        run(heads, settings)
    assert (caught.value.subject, caught.value.remedy) == (str(out), Overwrite())


def test_what_is_advised_for_a_useless_checkpoint_goes_on(heads, quick, run):
    """It must not be refused in its turn: the checkpoint is there, and the model is not."""
    settings = quick(targets=("prisma_st",))
    whole, _ = run(heads, settings, "whole")
    out, _ = run(heads, quick(seed=5), stop_after=2)
    with pytest.raises(UserError) as caught:
        run(heads, settings, resume=True)
    *_, advised = every(caught.value.remedy)
    assert advised == Overwrite("start over")
    kept = checkpoint_path(out).read_bytes()
    with pytest.warns(Doubt, match="made with other .* kept as model.checkpoint.old") as told:
        run(heads, settings, resume=True, **{advised.parameter: advised.value})
    assert len(told) == 1
    assert same_weights(whole, out)
    assert checkpoint_path(out).with_suffix(".old").read_bytes() == kept


def test_a_run_that_replaces_a_model_goes_on_where_it_was_stopped(heads, quick, run):
    settings = quick(targets=("prisma_st",))
    out, _ = run(heads, settings)
    whole = out.read_bytes()
    out.write_bytes(b"an older model")
    run(heads, settings, force=True, stop_after=2)
    # Whoever gives both, as a job's script may, does not lose what was done.
    _, events = run(heads, settings, resume=True, force=True, stop_after=1)
    assert events[0].resumed_at == 2
    _, events = run(heads, settings, resume=True)
    assert events[0].resumed_at == 3
    assert len(whole) == len(out.read_bytes())
    assert not checkpoint_path(out).exists()


@pytest.mark.parametrize("preset", ["fast", pytest.param("paper", marks=SLOW)])
def test_a_given_length_is_obeyed(preset, heads, run):
    settings = {"kind": "msp", "input": "ge_st", "targets": ("prisma_st", "connectom_sa")}
    length = {"epochs": 3, "unison_epochs": 2, "steps_per_epoch": 4}
    small = {"width": 0.1, "batch": 2} | ({"crop": 8} if preset == "fast" else {})
    _, events = run(heads, None, preset=preset, **settings, **length, **small)
    per_phase = Counter(event.phase for event in events if event.name == "step")
    # Whoever gives single networks a length wants them first; the fast preset shares them.
    unison = [2 * 4] if preset == "fast" else [2 * 4, 2 * 4]
    assert list(per_phase.values()) == [3 * 4, 3 * 4, *unison]
    assert events[0].steps == sum(per_phase.values())
    assert max(event.epoch for event in events if event.name == "step") == 3


def test_settings_may_be_given_by_name(heads, quick, run, tmp_path):
    settings = quick(targets=("prisma_st",))
    before = torch.get_rng_state()
    whole, _ = run(heads, settings, "whole")
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers go on"
    named, _ = run(open_dataset(heads), None, "named", **settings.model_dump(exclude_unset=True))
    changed, _ = run(str(heads), settings.model_copy(update={"seed": 3}), "changed", seed=0)
    assert same_weights(whole, named)
    assert same_weights(whole, changed)
    with pytest.raises(UserError) as caught:
        run(heads, settings, width=3.0)
    assert caught.value.field == "width"
    with pytest.raises(UserError, match="there is no network unet") as caught:
        run(heads, None, kind="unet")
    assert caught.value.field == "kind"


def test_a_lecture_needs_no_platforms(heads, run):
    """The dataset marks what to predict from; platforms with finer voxels would take longer."""
    short = {"epochs": 1, "unison_epochs": 1, "steps_per_epoch": 2, "crop": 8}
    out, events = run(heads, None, preset="lecture", **short)
    model = load_model(out)
    assert (model.kind, model.platforms) == ("msp", ["ge_st", "prisma_st"])
    assert events[0].steps == 4
    assert "teaching" in model.card.label
    assert model.training["settings"]["width"] == 0.2


def test_a_model_of_simulated_heads_alone_says_so(make_heads, tmp_path):
    root = make_heads(tmp_path / "heads", subjects=1)
    assert not prepare_study(open_dataset(root), TrainingSettings(input="ge_st")).simulated
    (root / "dataset_description.json").write_text('{"Simulated": true}')
    dataset, settings = open_dataset(root), TrainingSettings(input="ge_st")
    for paired in (True, False):
        assert prepare_study(dataset, settings, True, paired).simulated


def test_the_input_platform_is_not_guessed(make_heads, tmp_path, quick, run):
    root = make_heads(tmp_path / "heads")
    (root / "dataset_description.json").unlink()
    settings = quick(input="", targets=("prisma_st",), epochs=1)
    with pytest.raises(UserError, match="does not state which platform") as caught:
        run(root, settings)
    assert caught.value.field == "input"
    out, _ = run(root, settings.model_copy(update={"targets": ("prisma_st", "connectom_sa")}))
    assert load_model(out).card.input == "ge_st"


def test_a_model_knows_whom_it_was_trained_on(heads, quick, run):
    out, _ = run(heads, quick(targets=("prisma_st",), epochs=1))
    model, dataset = load_model(out), open_dataset(heads)
    assert [person.label for person in model.people] == ["sub-01", "sub-02"]
    assert known_among(dataset.person("sub-01"), model.people)
    assert not known_among(dataset.person("sub-03"), model.people)
    assert not known_among(Person("sub-01", "another dataset"), model.people)
    (scan,) = [path for (s, p), path in dataset.scans.items() if (s, p) == ("sub-02", "ge_st")]
    assert known_among(
        Person("sub-77", "another dataset", frozenset({file_digest(scan)})), model.people
    )
    old = {name: value for name, value in model.training.items() if name != "people"}
    older = replace(model, card=model.card.model_copy(update={"training": old}))
    assert older.people == (Person("sub-01"), Person("sub-02"))
    assert repr(model) == f"Model(shresnet, ge_st → prisma_st, 2 subjects, {str(out)!r})"
    assert len(repr(model.card)) < 200


def test_failure_is_an_event_too(heads, quick, tmp_path):
    from napari_msp.learning.train import train

    events = []
    with pytest.raises(UserError):
        train(heads, tmp_path / "m.safetensors", quick(targets=("x_y",)), progress=events.append)
    assert [event.name for event in events] == ["failed"]
    parsed = parse_event(events[0].to_json())
    assert isinstance(parsed, Failed)
    reason = parsed.error
    assert (reason.problem, reason.subject) == ("has no platform x_y", str(heads))
    assert reason.remedy == Choose("targets", ("connectom_sa", "prisma_st"))
    assert parsed == events[0]
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        train(heads, tmp_path / "model.pt", quick())


def test_a_stop_while_validating_is_obeyed_and_made_up_for(heads, quick, run):
    settings = quick()
    whole, all_events = run(heads, settings, "whole")
    # Asked for right after the last step of the first epoch, before anything is validated.
    _, events = run(heads, settings, "parts", stop_after=3)
    assert [event.name for event in events[-3:]] == ["step", "checkpointed", "stopped"]
    parts, more = run(heads, settings, "parts", resume=True)
    validated = [e for e in events + more if e.name == "validated"]
    expected = [e for e in all_events if e.name == "validated"]
    assert [(e.step, e.errors) for e in validated] == [(e.step, e.errors) for e in expected]
    assert same_weights(whole, parts)


def test_held_out_error_is_measured_on_truths_own_lattice(make_heads, tmp_path, quick, run):
    """Interpolating a noisy truth would smooth it, and report a smaller error."""
    root = make_heads(tmp_path / "heads", shape=(9, 8, 8))
    for path in (root / "sub-03/ses-prisma/dwi").glob("*.nii.gz"):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        if values.ndim == 4:  # noise that no network can foresee
            noise = np.random.default_rng(0).normal(scale=120, size=values.shape)
            values = np.abs(values + noise)
        affine = image.affine.copy()
        affine[:3, 3] += 1.2  # half a voxel: interpolation averages eight of them
        nib.save(nib.Nifti1Image(values.astype(image.get_data_dtype()), affine), path)
    path, events = run(root, quick(targets=("prisma_st",), epochs=1))
    reported = events[-1].errors["prisma_st"]
    model = load_model(path)
    scans = open_dataset(root)
    prediction = harmonize(model, scans.acquisition("sub-03", "ge_st"), "prisma_st", device="cpu")
    truth = fit_sh(scans.acquisition("sub-03", "prisma_st"))
    assert model.training["off_lattice"] == {"sub-03": ["prisma_st"]}
    assert reported == pytest.approx(measure(prediction.sh, truth).sh_mse, rel=1e-4)


def test_checkpoint_of_another_architecture_is_one_line(heads, quick, run):
    """Weights of other networks, written as a checkpoint of this run."""
    path, _ = run(heads, quick(), stop_after=2)
    checkpoint = checkpoint_path(path)
    metadata, weights = read_tensors(checkpoint)
    weights.pop(next(name for name in weights if name.startswith("networks/")))
    metadata.pop(DIGEST)
    write_tensors(checkpoint, weights, {**metadata, DIGEST: digest_of(metadata, weights)})
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: has other networks' weights"):
        run(heads, quick(), resume=True)
