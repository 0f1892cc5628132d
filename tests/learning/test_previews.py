"""What a run shows while it learns: the line to beat, and predictions of the network as it is."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from napari_msp.data.dataset import open_dataset
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import load_sh


@pytest.mark.parametrize("kind", [pytest.param("msp", marks=pytest.mark.slow), "shresnet"])
def test_last_previews_are_what_the_finished_model_predicts(kind, heads, quick, run, tmp_path):
    out, events = run(heads, quick(kind), previews=tmp_path / "previews")
    model = load_model(out)
    scan = open_dataset(heads).acquisition("sub-03", "ge_st")
    written = {e.target: Path(e.path) for e in events if e.name == "previewed"}
    assert {path.parent for path in written.values()} == {tmp_path / "previews"}
    for target in model.targets:
        assert written[target].name == f"sub-03_{target}.nii.gz"
        preview = load_sh(written[target])
        final = harmonize(model, scan, target, device="cpu").sh
        np.testing.assert_array_equal(preview.coefficients, final.coefficients)
        np.testing.assert_array_equal(preview.mask, final.mask)
        np.testing.assert_allclose(preview.affine, final.affine, atol=1e-6)
        assert preview.b_value == pytest.approx(final.b_value)
        assert preview.regularisation == pytest.approx(final.regularisation)


@pytest.mark.slow
def test_each_validation_is_shown_from_the_untrained_network_on(heads, quick, run, tmp_path):
    seen = []

    def keep(event):
        if event.name == "previewed":
            seen.append(load_sh(Path(event.path)).coefficients)
        events.append(event)

    events = []
    targets = ("prisma_st", "connectom_sa")
    one_by_one = {"first_stages": "own", "singles_first": "yes", "unison_epochs": 1}
    settings = quick("msp", epochs=1, targets=targets, **one_by_one)
    out = tmp_path / "shown.safetensors"
    train(heads, out, settings, device="cpu", progress=keep, previews=tmp_path / "previews")
    validated = [(e.phase, e.epoch, e.step) for e in events if e.name == "validated"]
    assert validated == [
        ("shresnet prisma_st", 0, 0),
        ("shresnet prisma_st", 1, 3),
        ("diqt connectom_sa", 0, 3),
        ("diqt connectom_sa", 1, 6),
        ("msp prisma_st", 1, 9),
        ("msp connectom_sa", 1, 12),
    ]
    previewed = [(e.phase, e.epoch, e.step) for e in events if e.name == "previewed"]
    assert previewed == validated
    names = [event.name for event in events]
    assert all(names[at + 1] == "previewed" for at, n in enumerate(names) if n == "validated")
    assert not np.array_equal(seen[0], seen[1])
    # Looking on changes nothing.
    unseen, _ = run(heads, settings, "unseen")
    one, other = load_file(out), load_file(unseen)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_first_of_several_held_out_heads_is_shown(heads, quick, run, tmp_path):
    settings = quick(held_out=("sub-03", "sub-02"), targets=("prisma_st",), epochs=1)
    run(heads, settings, previews=tmp_path / "previews")
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert names == ["sub-02_prisma_st.json", "sub-02_prisma_st.nii.gz"]


def test_without_held_out_heads_there_is_nothing_to_show(heads, quick, run, tmp_path):
    settings = quick(held_out=(), targets=("prisma_st",), epochs=1)
    _, events = run(heads, settings, previews=tmp_path / "previews")
    assert {e.name for e in events} == {"started", "step", "checkpointed", "finished"}
    assert not (tmp_path / "previews").exists()


@pytest.mark.parametrize("held_out", [("sub-03",), ("sub-01", "sub-03")])
def test_aligned_is_the_error_of_statistical_alignment(held_out, heads, quick, run):
    _, events = run(heads, quick(held_out=held_out, epochs=1))
    assert [event.name for event in events].index("aligned") == 1
    scans = open_dataset(heads)
    training = [subject for subject in scans.subjects if subject not in held_out]
    images = {
        (subject, platform): fit_sh(scans.acquisition(subject, platform))
        for subject in scans.subjects
        for platform in scans.platforms
    }
    sources = [images[subject, "ge_st"] for subject in training]
    for target, reported in events[1].errors.items():
        alignment = StatisticalAlignment().fit(sources, [images[s, target] for s in training])
        results = []
        for subject in held_out:
            truth = images[subject, target]
            aligned = alignment.predict(images[subject, "ge_st"], truth.lattice)
            results.append(measure(aligned, truth))
        voxels = sum(each.voxels for each in results)
        expected = sum(each.sh_mse * each.voxels for each in results) / voxels
        # On another lattice the training subjects' masks differ by a rim of voxels.
        assert reported == pytest.approx(expected, rel=1e-5 if target == "prisma_st" else 2e-2)
