"""A model of several shells in the window: layers, numbers and files of each shell."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.options import Options
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.ui.harmonize.run import Pass, Predicted, Request, harmonize_all
from napari_msp.ui.harmonize.save import save_all
from napari_msp.ui.reading import Control

pytestmark = pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.UnlikeTraining")


@pytest.fixture(scope="module")
def predicted(make_heads, tmp_path_factory):
    """What Harmonize makes of a scan of two shells, of which the window shows the lower."""
    torch.set_num_threads(1)
    root = make_heads(
        tmp_path_factory.mktemp("both") / "heads", 2, shape=(8, 8, 8), b_values=(1200.0, 3000.0)
    )
    path = root.parent / "m.safetensors"
    settings: dict[str, Any] = {
        "kind": "shresnet",
        "width": 0.1,
        "targets": ("prisma_st",),
        "crop": 6,
        "batch": 1,
    }
    train(root, path, **settings, epochs=1, steps_per_epoch=1, held_out=("sub-02",), device="cpu")
    dataset = open_dataset(root)
    scan = load_scan(dataset.scans["sub-02", "ge_st"], 1200.0)
    scan = replace(scan)
    vars(scan)["siblings"] = {"prisma_st": dataset.scans["sub-02", "prisma_st"]}
    told: list[object] = []
    request = Request(
        scan, (Pass("SHResNet", load_model(path), "prisma_st"),), Options(device="cpu")
    )
    harmonize_all(request, Control(lambda: False, told.append))
    return dataset, [each for each in told if isinstance(each, Predicted)]


def test_each_shell_has_layers_and_numbers_of_its_own(predicted):
    dataset, results = predicted
    assert [each.prediction.shells for each in results] == [(1200,), (3000,)]
    owners = ["sub-02 SHResNet b1200 prisma_st", "sub-02 SHResNet b3000 prisma_st"]
    names = [options["name"] for each in results for _, options, _ in each.layers]
    assert len(names) == len(set(names)) > 4
    for owner, each in zip(owners, results, strict=True):
        assert {name for _, options, _ in each.layers for name in [options["name"]]} == {
            name for name in names if name.startswith(f"{owner} · ")
        }
    for each in results:
        (shell,) = each.prediction.shells
        truth = fit_sh(dataset.acquisition("sub-02", "prisma_st"), b_value=shell)
        before = fit_sh(dataset.acquisition("sub-02", "ge_st"), b_value=shell)
        assert each.errors is not None
        for image, said in (
            (each.prediction.sh, each.errors.sh_mse),
            (before, each.errors.sh_mse_before),
        ):
            inside = truth.mask & each.prediction.sh.mask
            by_hand = np.square(image.coefficients[inside] - truth.coefficients[inside]).mean()
            assert said == pytest.approx(by_hand, rel=1e-4)


def test_each_shell_is_saved_beside_the_other(predicted, tmp_path):
    _, results = predicted
    records = [each.prediction for each in results]
    written = save_all(records, tmp_path, "target", False, Control(lambda: False, lambda _: None))
    stem = "sub-02_ses-ge_acq-st_desc-prismastShresnet"
    assert [path.name for path in written] == [f"{stem}B{b}_dwi.nii.gz" for b in (1200, 3000)]
    for path, record in zip(written, records, strict=True):
        name = path.name.replace("_dwi", "_model-sh_param-coefficients_dwimap")
        image = load_scan(path.with_name(name)).sh
        np.testing.assert_array_equal(image.coefficients, record.sh.coefficients)
        assert load_scan(path).shells == record.shells
