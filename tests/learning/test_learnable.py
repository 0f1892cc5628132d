"""The simulated platforms differ in ways that a network learns and alignment cannot undo."""

import pytest

from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.simulate import simulate
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh

TARGET = "prisma_st"


@pytest.mark.slow
def test_a_trained_network_leaves_alignment_well_behind(tmp_path):
    """Noise-free in and out, on a held-out head: at least 1.5 times better.

    Of one target; that all of them can be learned, a linear regression shows in
    `test_linear_learnability`.
    """
    simulate(tmp_path / "heads", 4, "tiny", seed=3, noise=False)
    study = open_dataset(tmp_path / "heads")
    *training, held_out = study.subjects
    settings = TrainingSettings(
        kind="shresnet",
        targets=(TARGET,),
        width=0.2,
        epochs=1,  # as every epoch ends with a validation
        steps_per_epoch=400,
        crop=10,
        batch=2,
        held_out=(held_out,),
    )
    train(study.root, tmp_path / "m.safetensors", settings, device="cpu")
    model = load_model(tmp_path / "m.safetensors")
    scan, truth = study.acquisition(held_out, "ge_st"), fit_sh(study.acquisition(held_out, TARGET))
    sources, targets = (
        [fit_sh(study.acquisition(subject, platform)) for subject in training]
        for platform in ("ge_st", TARGET)
    )
    aligned = StatisticalAlignment().fit(sources, targets).predict(fit_sh(scan), truth.lattice)
    network = harmonize(model, scan, TARGET, device="cpu").sh
    ratio = measure(aligned, truth).sh_mse / measure(network, truth).sh_mse
    print("alignment's error over the network's:", ratio)
    assert ratio >= 1.5
