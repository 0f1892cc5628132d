"""What the Harmonize button starts: predictions, layers, numbers, and every way to end."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Cancelled, ComputeOnCPU, DeviceLost, Overwrite, UserError
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.foreign_errors import explain
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import Model, ModelNetwork, load_model
from napari_msp.networks.msp import SharedMSP
from napari_msp.options import Options
from napari_msp.packaged import packaged_models
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.strict_json import read_json
from napari_msp.ui.harmonize.run import (
    Pass,
    Predicted,
    Request,
    changed,
    harmonize_all,
    offers,
    what_failed,
)
from napari_msp.ui.harmonize.save import save_all
from napari_msp.ui.layers import KEY
from napari_msp.ui.reading import Control, Report, sibling_of
from napari_msp.ui.viewer_axes import from_shown

pytestmark = pytest.mark.filterwarnings(  # notes say it
    "ignore::napari_msp.inference.prepare.UnlikeTraining",
    "ignore::napari_msp.inference.prepare.Rescaled",
)


@pytest.fixture(scope="module")
def models():
    return {name: load_model(path) for name, path in packaged_models().items()}


@pytest.fixture(scope="module")
def record(heads):
    """A scan whose head was scanned on one of the targets, too."""
    dataset = open_dataset(heads)
    scan = load_scan(dataset.scans["sub-01", "ge_st"])
    return beside(scan, {"prisma_st": dataset.scans["sub-01", "prisma_st"]})


def beside(scan, siblings):
    """The same scan with other siblings than its dataset gives."""
    again = replace(scan)
    vars(again)["siblings"] = siblings  # where it keeps what it found
    return again


@pytest.fixture
def request_for(record, models):
    """Ask for (model, target) pairs."""

    def make(*passes, scan=None, **options):
        chosen = tuple(Pass(label, models[label], target) for label, target in passes)
        return Request(scan or record, chosen, Options(**{"device": "cpu"} | options))

    return make


def told_by(request, cancelled=lambda told: False, work=harmonize_all):
    """Do the work here; give what it reported, and its error."""
    told = []
    try:
        work(request, Control(lambda: cancelled(told), told.append))
    except (Cancelled, Exception) as error:
        return told, error
    return told, None


def results(told):
    return [each for each in told if isinstance(each, Predicted)]


@pytest.fixture(scope="module")
def both(record, models):
    """Both models, one target with a truth and one without."""
    passes = [("DIQT", "prisma_st"), ("MSP", "prisma_st"), ("MSP", "connectom_sa")]
    chosen = tuple(Pass(label, models[label], target) for label, target in passes)
    told, error = told_by(Request(record, chosen, Options(device="cpu")))
    assert error is None
    return told


def test_layers_are_named_and_hidden_as_agreed(both):
    names = [[options["name"] for _, options, _ in each.layers] for each in results(both)]
    assert names == [
        [
            f"sub-01 DIQT prisma_st · {each}"
            for each in ("SH MSE", "MSE", "expected SH MSE", "colour FA", "SH average")
        ],
        [
            f"sub-01 MSP prisma_st · {each}"
            for each in (
                "SH MSE",
                "MSE",
                "expected SH MSE",
                "disagreement of order 0",
                "disagreement",
                "colour FA",
                "SH average",
            )
        ],
        [
            f"sub-01 MSP connectom_sa · {each}"
            for each in (
                "expected SH MSE",
                "disagreement of order 0",
                "disagreement",
                "colour FA",
                "SH average",
            )
        ],
    ]
    for each in results(both):
        visible = [options["name"] for _, options, _ in each.layers if options["visible"]]
        assert visible == [f"{each.prediction.owner} · SH average"]
        for _, options, _ in each.layers:
            assert options["metadata"][KEY].scan is each.prediction


def test_the_prediction_is_the_librarys_with_its_stages_kept(both, record, models):
    expected = harmonize(models["MSP"], record.acquisition, "prisma_st", device="cpu")
    found = results(both)[1].prediction
    np.testing.assert_allclose(
        found.sh.coefficients, expected.sh.coefficients, rtol=1e-5, atol=1e-6
    )
    assert set(found.branches) == {"connectom_st", "connectom_sa"}
    assert (found.label, found.model, found.source) == ("MSP", models["MSP"], record)
    assert found.siblings == record.siblings


def test_a_prediction_can_be_saved_when_its_scan_has_gone(both, heads, tmp_path):
    made, away = results(both)[0].prediction, heads.with_name("away")
    there = made.save(tmp_path / "there")
    heads.rename(away)  # a disk that was taken out
    try:
        gone = made.save(tmp_path / "gone")
    finally:
        away.rename(heads)
    assert [path.name for path in gone] == [path.name for path in there]
    sidecars = [
        read_json(dwi[0].with_name(dwi[0].name.replace(".nii.gz", ".json")))
        for dwi in (there, gone)
    ]
    assert sidecars[1]["Checksums"] == sidecars[0]["Checksums"]
    assert set(sidecars[0]["Checksums"]) == {"Image", "Gradients", "Mask"}


def test_targets_that_share_their_first_stages_are_predicted_in_one_pass(record, models):
    own = models["MSP"]
    singles = dict(own.single("prisma_st").singles.items())
    shared = SharedMSP.on(singles, width=0.1).eval()
    for network in shared.networks.values():
        nn.init.normal_(next(network.connections.parameters()), std=0.1)
    card = own.card.model_copy(update={"first_stages": "shared"})
    together = ModelNetwork({t: shared.networks[t] for t in own.targets}, own.card.alpha)
    model = Model(card, together)
    chosen = tuple(Pass("MSP", model, target) for target in model.targets)
    told, error = told_by(Request(record, chosen, Options(device="cpu")))
    assert error is None
    assert [each.prediction.target for each in results(told)] == model.targets
    for each in results(told):
        alone = harmonize(model, record.acquisition, each.prediction.target, device="cpu")
        np.testing.assert_allclose(
            each.prediction.sh.coefficients, alone.sh.coefficients, rtol=1e-5, atol=1e-6
        )
    words = [each.words for each in told if isinstance(each, Report)]
    assert sum(each.startswith("reading") for each in words) == 1
    assert {each.split(" · ")[2] for each in words if each.startswith("tile")} == {"1 of 3"}
    counts = [each.done for each in told if isinstance(each, Report)]
    assert counts == sorted(counts)


def test_errors_are_those_that_compare_measures(both, record):
    truth = load_scan(record.siblings["prisma_st"]).sh
    for each in results(both)[:2]:
        measured = measure(each.prediction.sh, truth)
        assert each.errors.sh_mse == pytest.approx(measured.sh_mse, rel=1e-5)
        maps = {options["metadata"][KEY].quantity: data for data, options, _ in each.layers}
        inside = from_shown(maps["MSE"], truth.lattice)[each.errors.mask]
        average = measured.values["sh_average_mse"]
        assert inside.mean(dtype=float) == pytest.approx(average, rel=1e-5)
    before = measure(record.sh, truth).sh_mse
    assert results(both)[0].errors.sh_mse_before == pytest.approx(before, rel=1e-5)


def test_the_truth_is_read_once_for_everybody(both, record):
    first, second = (each.errors.truth for each in results(both)[:2])
    assert first is second
    assert sibling_of(record, "prisma_st", results(both)[0].prediction.b_value) is first


def test_a_row_says_how_far_it_is_from_truth(both):
    with_truth, _, without = results(both)
    name, before, error, change = with_truth.row
    assert name == "DIQT → prisma_st"
    assert float(before) == pytest.approx(1e5 * with_truth.errors.sh_mse_before, abs=0.05)
    assert float(error) == pytest.approx(1e5 * with_truth.errors.sh_mse, abs=0.05)
    assert change[:1] in "▲▼"
    assert without.row == ("MSP → connectom_sa", "", "no truth", "")


def test_steps_go_up_and_name_what_is_done(both):
    steps = [each for each in both if isinstance(each, Report)]
    counts = [each.done for each in steps]
    assert counts == sorted(counts)
    assert {each.total for each in steps} == {300}
    words = [each.words for each in steps]
    assert words[0] == "reading the scan · DIQT → prisma_st · 1 of 3"
    # Targets that share first stages are predicted in one pass.
    assert "tile 1 of 1 · MSP → prisma_st · 2 of 3" in words
    assert "computing maps · MSP → connectom_sa · 3 of 3" in words
    # Within the one tile, too.
    assert len([each for each in words if each.startswith("tile") and "2 of 3" in each]) > 10


def test_tiles_are_counted(request_for):
    told, _ = told_by(request_for(("DIQT", "prisma_st"), tile=8))
    words = [each.words.split(" · ")[0] for each in told if isinstance(each, Report)]
    tiles = list(dict.fromkeys(each for each in words if each.startswith("tile")))
    assert len(tiles) > 3
    assert tiles == [f"tile {number + 1} of {len(tiles)}" for number in range(len(tiles))]


def test_cancelled_after_the_first_result_that_one_is_kept(request_for):
    told, error = told_by(
        request_for(("DIQT", "prisma_st"), ("MSP", "prisma_st")),
        cancelled=lambda told: bool(results(told)),
    )
    assert isinstance(error, Cancelled)
    assert len(results(told)) == 1


@pytest.mark.parametrize("when", ["reading the scan", "tile", "computing maps"])
def test_it_can_be_cancelled_wherever_it_is(when, request_for):
    def cancelled(told):
        return bool(told) and told[-1].words.startswith(when)

    told, error = told_by(request_for(("MSP", "connectom_sa")), cancelled)
    assert isinstance(error, Cancelled)
    assert not results(told)


def test_a_truth_that_cannot_be_read_is_a_note(request_for, record, tmp_path):
    broken = tmp_path / "sub-01_ses-prisma_acq-st_dwi.nii.gz"
    broken.write_bytes(b"nothing")
    doubtful = beside(record, {"prisma_st": broken})
    told, error = told_by(request_for(("MSP", "prisma_st"), scan=doubtful))
    assert error is None
    assert results(told)[0].errors is None
    assert any("was not used as truth" in note for note in results(told)[0].notes)


def test_doubts_about_the_scan_are_told_with_the_result(request_for, odd_scan):
    told, _ = told_by(request_for(("MSP", "prisma_st"), scan=odd_scan(signal_of=6000.0)))
    assert "mean signal" in results(told)[0].notes[0]


def test_a_users_mistake_is_one_and_a_bug_is_none(request_for, monkeypatch):
    def broken(*_):
        raise KeyError("prisma")

    monkeypatch.setattr(torch.nn.functional, "conv3d", broken)
    _, error = told_by(request_for(("MSP", "prisma_st")))
    assert isinstance(error, KeyError)

    monkeypatch.undo()
    _, error = told_by(request_for(("MSP", "prisma_st"), device="cuda:99"))
    assert isinstance(error, UserError)


def test_a_core_is_left_to_the_window(request_for, monkeypatch):
    monkeypatch.setattr("napari_msp.device._cores", lambda: 3)
    threads = []

    def look(_):
        threads.append(torch.get_num_threads())
        return False

    torch.set_num_threads(8)
    told_by(request_for(("DIQT", "prisma_st")), look)
    assert set(threads) == {2}
    assert torch.get_num_threads() == 8
    torch.set_num_threads(1)


def test_the_maps_that_are_chosen_become_layers(request_for):
    request = replace(request_for(("DIQT", "prisma_st")), maps=("FA", "fibre direction"))
    told, _ = told_by(request)
    layers = results(told)[0].layers[-2:]
    assert [each[1]["name"] for each in layers] == [
        "sub-01 DIQT prisma_st · fibre direction",
        "sub-01 DIQT prisma_st · FA",
    ]
    assert [each[1]["visible"] for each in layers] == [False, True]


def test_a_model_for_another_platform_is_noted(request_for, record):
    request = request_for(
        ("DIQT", "prisma_st"), scan=replace(record, given_platform="connectom_st")
    )
    told, _ = told_by(request)
    (result,) = results(told)
    assert "DIQT is for scans of ge_st; this is connectom_st." in result.notes
    told, _ = told_by(request_for(("DIQT", "prisma_st")))
    assert not any("is for scans of" in note for note in results(told)[0].notes)


# --- When it fails ---------------------------------------------------------------------------


@pytest.fixture
def odd_scan(scan, tmp_path):
    """A scan that is not the models' in voxel size, b-value, or what its signal is like."""

    def load(size=2.4, b_value=1200.0, signal_of=None):
        affine = np.diag([-size, size, size, 1.0])
        made = scan(affine, directions=30, b_values=(signal_of or b_value,), shape=(12, 11, 10))
        made = replace(made, b_values=np.where(made.weighted, b_value, 0))
        acquisition = made.load(tmp_path)
        return Scan(acquisition=acquisition, given_subject="sub-01", given_platform="")

    return load


def failure_of(request):
    _, error = told_by(request)
    return explain(error)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"size": 2.0}, "resample", "2.00 × 2.00 × 2.00 mm"),
        ({"b_value": 1000.0}, "rescale_b_value", "b = 1000"),
    ],
)
def test_an_approximation_is_offered_and_helps(options, field, words, request_for, odd_scan):
    request = request_for(("MSP", "prisma_st"), scan=odd_scan(**options))
    failure = failure_of(request)
    (offer,) = offers(failure, request.options, "cpu")
    assert offer.values == {field: True}
    assert "run again" in offer.text
    said = what_failed(failure, offered=True)
    assert words in said
    assert "--" not in said
    assert str(request.scan.acquisition.path.parent) not in said
    told, error = told_by(changed(request, offer, done=0))
    assert error is None
    assert results(told)[0].prediction.approximations[0] in results(told)[0].notes


def test_approximations_that_are_needed_together_are_one_press(request_for, odd_scan):
    request = request_for(("MSP", "prisma_st"), scan=odd_scan(size=2.0, b_value=1000.0))
    failure = failure_of(request)
    (offer,) = offers(failure, request.options, "cpu")
    assert offer.values == {"rescale_b_value": True, "resample": True}
    said = what_failed(failure, offered=True)
    assert "b = 1000" in said
    assert "2.00 × 2.00 × 2.00 mm" in said
    told, error = told_by(changed(request, offer, done=0))
    assert error is None
    assert len(results(told)[0].prediction.approximations) >= 2


def test_a_files_name_offers_nothing(scan, tmp_path, request_for):
    """A folder called "rigid--resample" is no remedy for voxels that are not finite."""
    folder = tmp_path / "rigid--resample"
    folder.mkdir()
    path = scan(np.diag([-2.4, 2.4, 2.4, 1.0]), directions=30).write(folder)
    image = nib.load(path)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[2, 2, 2] = np.nan
    nib.Nifti1Image(voxels.astype(np.float32), image.affine).to_filename(path)
    acquisition = load_acquisition(path)
    odd = Scan(acquisition=acquisition, path=path)
    request = request_for(("MSP", "prisma_st"), scan=odd)
    failure = failure_of(request)
    assert offers(failure, request.options, "cuda") == ()
    assert "NaN or infinite" in what_failed(failure, offered=False)


MEMORY = {"cpu": explain(MemoryError()), "cuda": explain(RuntimeError("CUDA out of memory"))}


@pytest.mark.parametrize(
    ("tile", "device", "offered"),
    [
        (None, "cuda", [{"tile": 32}, {"device": "cpu"}]),
        (None, "cpu", [{"tile": 32}]),
        (40, "cpu", [{"tile": 20}]),
        (12, "cuda", [{"device": "cpu"}]),
        (12, "cpu", []),
    ],
)
def test_want_of_memory_offers_a_smaller_tile_and_the_cpu(tile, device, offered, request_for):
    request = request_for(("MSP", "prisma_st"), tile=tile)
    memory = MEMORY[device]
    assert [dict(each.values) for each in offers(memory, request.options, device)] == offered
    assert what_failed(memory, offered=bool(offered)) == "Not enough memory."


def test_a_lost_gpu_offers_the_cpu(request_for):
    request = request_for(("MSP", "prisma_st"))
    failure = DeviceLost("the GPU is gone", remedy=ComputeOnCPU())
    (offer,) = offers(failure, request.options, "cuda")
    assert offer.values == {"device": "cpu"}
    assert what_failed(failure, offered=True) == "The GPU is gone."


def test_a_bug_is_called_one(request_for):
    request = request_for(("MSP", "prisma_st"))
    failure = explain(KeyError("prisma"))
    assert offers(failure, request.options, "cpu") == ()
    assert "bug" in what_failed(failure, offered=True)


# --- Saving ----------------------------------------------------------------------------------


def saved(predictions, folder, gradients, force=False):
    told = []
    control = Control(lambda: False, told.append)
    return save_all(predictions, folder, gradients, force, control), told


def test_predictions_are_written_and_not_replaced_unasked(both, tmp_path):
    records = tuple(each.prediction for each in results(both)[:2])
    request = records, tmp_path / "out", "target"
    done, told = saved(*request)
    assert [each.done for each in told if isinstance(each, Report)] == [0, 1]
    assert [each for each in told if isinstance(each, Path)] == list(done)
    assert len(done) == 2
    for path, record in zip(done, records, strict=True):
        name = path.name.replace("_dwi", "_model-sh_param-coefficients_dwimap")
        written = load_scan(path.with_name(name)).sh
        np.testing.assert_allclose(written.coefficients, record.sh.coefficients)
    before = done[0].stat().st_mtime_ns
    with pytest.raises(UserError, match="2 predictions") as caught:
        saved(*request)
    assert caught.value.remedy == Overwrite()
    assert done[0].stat().st_mtime_ns == before
    forced, _ = saved(*request, force=True)
    assert forced == done


def test_models_of_one_kind_do_not_write_over_each_other(both, tmp_path):
    record = results(both)[1].prediction
    assert record.provenance is not None
    twin = replace(record, provenance=replace(record.provenance, title="MSP our study"))
    done, _ = saved((record, twin), tmp_path, "input")
    assert [path.parent.name for path in done] == ["MSP", "MSP-our-study"]
    assert all(path.exists() for path in done)


def test_a_table_that_is_missing_is_told_of_before_anything_is_written(both, tmp_path):
    record = results(both)[1].prediction
    with pytest.raises(UserError, match="neither"):
        saved((record,), tmp_path / "out", str(tmp_path / "no.bvec"))
    assert not (tmp_path / "out").exists()
