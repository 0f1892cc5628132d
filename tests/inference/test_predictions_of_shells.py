"""Predictions of several shells: by shell, exact in tiles, blind to orientation, on disk."""

import json
import re
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_msp.data.acquisition import load_acquisition
from napari_msp.errors import UserError
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.outputs import harmonize_to_folder
from napari_msp.inference.passes import bytes_per_voxel, expected_polls
from napari_msp.inference.prepare import NotPredicted, Rescaled, prepare_input
from napari_msp.inference.tiling import run_whole_image
from napari_msp.model_file import load_model, save_model
from napari_msp.options import Options
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.spherical_harmonics import grid_symmetries

BOTH = (1200.0, 3000.0)
TRUNKS = ["each", "all"]


@pytest.fixture
def both(small_scan, tmp_path):
    return small_scan(b_values=BOTH).load(tmp_path)


def of_one_shell(model: Any, weights: Any, known: Any, number: int) -> Any:
    """A model of one shell with given weights, and the statistics of a shell of another's card."""
    model.network.load_state_dict(weights)
    part = slice(28 * number, 28 * (number + 1))
    statistics = {
        name: each.model_copy(update={"mean": each.mean[part], "deviation": each.deviation[part]})
        for name, each in known.standardisation.items()
    }
    return replace(model, card=model.card.model_copy(update={"standardisation": statistics}))


# --- What is predicted --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.NotPredicted")
@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("kind", ["msp", "cnn-rish"])
def test_one_trunk_predicts_each_shell_as_a_model_of_it(make_model, both, kind, target):
    alone = make_model(kind)
    model = make_model(kind, b_value=BOTH)
    weights = {
        name: value.repeat(2) if "mean" in name or "deviation" in name else value
        for name, value in alone.network.state_dict().items()
    }
    if kind == "msp":
        weights = alone.network.state_dict()
    model.network.load_state_dict(weights)
    together = harmonize(model, both, target)
    assert together.shells == (1200, 3000)
    for name in ("sh", "first_stage", "disagreement", "expected_error", "branches"):
        with pytest.raises(UserError, match=r"has several shells \(b = 1200, 3000\)"):
            getattr(together, name)
    for number, (b_value, part) in enumerate(together.by_shell().items()):
        one = make_model(kind, b_value=float(b_value))
        one = of_one_shell(one, alone.network.state_dict(), model.card, number)
        wanted = harmonize(one, both, target)
        assert part.b_value == wanted.b_value == b_value
        atol = 1e-5 * np.abs(wanted.sh.coefficients).max()
        np.testing.assert_allclose(part.sh.coefficients, wanted.sh.coefficients, atol=atol)
        np.testing.assert_array_equal(part.b0, wanted.b0)
        np.testing.assert_array_equal(part.gradients.directions, wanted.gradients.directions)
        if kind == "msp":
            for name in ("disagreement", "order_0_disagreement", "disagreement_by_order"):
                ours, theirs = getattr(part, name), getattr(wanted, name)
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
            first = wanted.first_stage.coefficients
            np.testing.assert_allclose(part.first_stage.coefficients, first, atol=atol)
        else:
            assert part.first_stage is None
            assert part.disagreement is None


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("turn", [3, 17, 30, 46])
def test_reoriented_input_gives_the_reoriented_shells(
    make_model, small_scan, tmp_path, trunk, turn
):
    made = small_scan(b_values=BOTH)
    model = make_model(b_value=BOTH, trunk=trunk)
    matrix = grid_symmetries()[turn]
    goes_to = np.abs(matrix).argmax(axis=0)
    orientation = np.stack([goes_to, matrix[goes_to, range(3)]], axis=1)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    plain = harmonize(model, made.load(tmp_path / "one"), "connectom_sa")
    moved = harmonize(
        model, made.stored_along(orientation).load(tmp_path / "other"), "connectom_sa"
    )
    for b_value, part in plain.by_shell().items():
        image = nib.Nifti1Image(part.sh.coefficients, part.sh.affine)
        wanted = image.as_reoriented(orientation)
        found = moved.at_shell(b_value).sh
        np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
        np.testing.assert_allclose(found.coefficients, np.asarray(wanted.dataobj), atol=1e-5)


@pytest.mark.parametrize("tile", [4, 5])
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("kind", ["msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned"])
def test_tiles_of_two_shells_equal_one_untiled_pass(kind, trunk, tile, make_network):
    network = make_network(kind, "connectom_sa", width=0.1, shells=2, trunk=trunk)

    def run(x: torch.Tensor, far: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        if kind == "msp":
            second: torch.Tensor = network(x, far=far).second
            return second
        y: torch.Tensor = network.forward_features(x, far)[0]
        return y

    shape = (9, 12, 7)
    channels = np.random.default_rng(1).normal(size=(*shape, 56)).astype(np.float32)
    with torch.no_grad():
        expected = run(torch.from_numpy(np.moveaxis(channels, -1, 0).copy())[None])[0]
    wanted = np.moveaxis(expected.numpy(), 0, -1)
    cpu = torch.device("cpu")
    with torch.no_grad():
        most = channels[..., 0].size * bytes_per_voxel(lambda x: {"y": run(x)}, network, 56, cpu)
    for how in ({"tile": tile}, {"memory": 0.6 * most}):
        found = run_whole_image(
            lambda x, far: {"y": run(x, far)},
            network,
            channels,
            np.ones(shape, dtype=bool),
            scale=network.scale,
            halo=network.halo,
            device=cpu,
            masks={2: np.ones((17, 23, 13), dtype=bool)},
            **how,
        )["y"]
        assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted), how
    assert expected_polls(network, shape) > 0


# --- On disk ------------------------------------------------------------------------------------


def test_the_dwi_has_all_shells_and_each_shell_its_files(make_model, both, tmp_path):
    prediction = harmonize(make_model(b_value=BOTH), both, "connectom_sa", keep_stages=True)
    files = prediction.save(tmp_path / "out")
    names = {file.name for file in files}
    stem = "sub-01_desc-connectomsaMsp"
    for shell in (1200, 3000):
        for end in ("", "FirstStage"):
            assert f"{stem}{end}B{shell}_model-sh_param-coefficients_dwimap.nii.gz" in names
        for what in ("disagreement", "disagreement0"):
            assert f"{stem}B{shell}_model-sh_param-{what}_dwimap.nii.gz" in names
    assert files[0].name == f"{stem}_dwi.nii.gz"
    written = load_acquisition(files[0])
    assert [shell.name for shell in written.shells()] == [1200, 3000]
    assert list(written.gradients.b_values) == [0, *[1200] * 30, *[3000] * 30]
    b0 = written.voxels[..., 0]
    np.testing.assert_allclose(b0, prediction.b0, rtol=1e-6)
    for found in written.shells():
        image = prediction.at_shell(found.b_value).sh
        ratio = np.clip(evaluate_sh(image, written.directions(found)), 0, 1)
        np.testing.assert_allclose(
            written.voxels[..., found.volumes], ratio * b0[..., None], rtol=1e-4, atol=0.02
        )
    again = load_scan(
        [
            tmp_path / "out" / f"{stem}B{shell}_model-sh_param-coefficients_dwimap.nii.gz"
            for shell in (3000, 1200)
        ]
    )
    assert again.shells == (1200, 3000)
    assert again.provenance is not None
    assert again.name == prediction.name == "MSP connectom_sa"
    for shell, part in again.by_shell().items():
        np.testing.assert_array_equal(
            part.sh.coefficients, prediction.at_shell(shell).sh.coefficients
        )


@pytest.mark.parametrize("gradients", ["target", "input", "file"])
def test_directions_are_chosen_for_every_shell(make_model, both, tmp_path, gradients):
    chosen: Any = gradients
    if gradients == "file":
        chosen = tmp_path / "wanted.bvec"
        np.savetxt(chosen, np.eye(3))
        np.savetxt(tmp_path / "wanted.bval", np.full((1, 3), 1000.0))
    prediction = harmonize(make_model(b_value=BOTH), both, "prisma_st")
    (dwi, *_) = prediction.save(tmp_path / "out", gradients=chosen)
    table = load_acquisition(dwi).gradients
    count = 3 if gradients == "file" else 30
    assert list(table.b_values) == [0, *[1200] * count, *[3000] * count]


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("kind", ["msp", "cnn-rish"])
def test_a_model_of_shells_is_written_and_read(make_model, both, tmp_path, kind, trunk):
    model = make_model(kind, b_value=BOTH, trunk=trunk)
    path = tmp_path / "m.safetensors"
    save_model(path, model)
    again = load_model(path)
    assert again.card.sh.b_values == BOTH
    one, other = (harmonize(each, both, "prisma_st") for each in (model, again))
    for shell, part in one.by_shell().items():
        np.testing.assert_array_equal(part.sh.coefficients, other.at_shell(shell).sh.coefficients)


def test_the_card_of_one_shell_may_leave_out_shells(make_model):
    card = make_model().card
    written = json.loads(card.model_dump_json())
    assert written["sh"].pop("shells") == []
    assert written["sh"]["b_value"] == 1200.0
    assert type(card).model_validate(written) == card


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card["sh"].update(shells=[1200.0]), "several"),
        (lambda card: card["sh"].update(shells=[3000.0, 1200.0]), "from b_value on"),
        (lambda card: card["sh"].update(shells=[1200.0, 1200.0]), "ascending"),
        (lambda card: card["sh"].update(shells=[1200.0, float("inf")]), "finite"),
        (lambda card: card["sh"].update(shells=[1200.0, 2000.0, 3000.0]), "84 values"),
        (lambda card: card["sh"].pop("shells"), "28 values"),
        (lambda card: card["standardisation"]["ge_st"]["mean"].pop(), "56 values"),
        (
            lambda card: card["gradients"]["prisma_st"].update(
                b_values=[1200.0] * len(card["gradients"]["prisma_st"]["b_values"])
            ),
            "other shells",
        ),
    ],
)
def test_cards_whose_shells_do_not_fit_are_refused(make_model, change, words):
    card = make_model(b_value=BOTH).card
    content = json.loads(card.model_dump_json())
    change(content)
    with pytest.raises(ValueError, match=words):
        type(card).model_validate(content)


def test_networks_of_other_shells_than_the_card_are_refused(make_model, tmp_path):
    one, two = make_model("shresnet"), make_model("shresnet", b_value=BOTH)
    path = tmp_path / "m.safetensors"
    save_model(
        path,
        type(one)(
            two.card.model_copy(update={"architectures": one.card.architectures}), one.network
        ),
    )
    with pytest.raises(UserError, match="predicts something else"):
        load_model(path)


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trained", "measured", "options", "field", "words"),
    [
        (
            BOTH,
            (1200.0,),
            {},
            "model",
            "has b = 1200 s/mm², but the model needs a shell near each of 1200 and 3000",
        ),
        (BOTH, (1200.0,), {"rescale_b_value": True}, "model", "needs a shell near each"),
        (BOTH, (1200.0, 2000.0), {}, "rescale_b_value", "trained at 1200 and 3000"),
        (
            BOTH,
            (700.0, 1200.0),
            {"b_value": [700, 1200]},
            "model",
            "has b = 700 and 1200",
        ),
        (BOTH, BOTH, {"b_value": 1200}, "model", "needs a shell near each of"),
        (BOTH, BOTH, {"b_value": [1200, 2000]}, "b_value", "no shell near b = 2000"),
        (BOTH, (*BOTH, 5000.0), {"b_value": [1200, 3000, 5000]}, "b_value", "predict b = 5000"),
        (1200.0, BOTH, {"b_value": 3000}, "rescale_b_value", "has b = 3000 s/mm², but the model"),
        (1200.0, BOTH, {"b_value": [1200, 3000]}, "b_value", "does not predict b = 3000"),
    ],
)
def test_shells_that_are_not_the_models(
    make_model, small_scan, tmp_path, trained, measured, options, field, words
):
    acquisition = small_scan(b_values=measured).load(tmp_path)
    with pytest.raises(UserError) as error:
        harmonize(make_model(b_value=trained), acquisition, "prisma_st", **options)
    assert words in error.value.problem
    assert error.value.field == field
    assert error.value.remedy is not None


def test_another_shell_is_rescaled_when_that_is_allowed(make_model, small_scan, tmp_path):
    acquisition = small_scan(b_values=(1200.0, 2500.0)).load(tmp_path)
    model = make_model(b_value=BOTH)
    with pytest.warns(Rescaled, match="b = 2500 rescaled to 3000"):
        found = harmonize(model, acquisition, "prisma_st", rescale_b_value=True)
    assert [part.sh.rescaled_from for part in found.by_shell().values()] == [None, 2500]
    assert any("b = 2500 rescaled to 3000" in each for each in found.approximations)
    assert len(found.approximations) == 1


def test_a_chosen_shell_may_be_rescaled_though_another_is_nearer(make_model, small_scan, tmp_path):
    acquisition = small_scan(b_values=BOTH).load(tmp_path)
    said = "b = 1200 of the scan is not predicted (the model knows b = 1200, read from 3000)"
    with pytest.warns(NotPredicted, match=re.escape(said)), pytest.warns(Rescaled):
        found = harmonize(
            make_model(), acquisition, "prisma_st", rescale_b_value=True, b_value=3000
        )
    assert found.sh.rescaled_from == 3000
    assert said in found.warnings[0].words
    assert len(found.approximations) == 1  # the rescaling


def test_the_models_own_b_values_are_said_and_not_the_scans(make_model, small_scan, tmp_path):
    acquisition = small_scan(b_values=(1000.0, 3000.0)).load(tmp_path)
    said = "b = 3000 of the scan is not predicted (the model knows b = 1200, read from 1000)"
    with pytest.warns(NotPredicted, match=re.escape(said)), pytest.warns(Rescaled):
        prepare_input(make_model(), acquisition, Options(rescale_b_value=True))


def test_a_shell_of_few_directions_is_not_for_networks(make_model, scan, spread_out, tmp_path):
    made = scan(np.diag([-2.4, 2.4, 2.4, 1.0]), 20, BOTH, shape=(9, 8, 7))
    with pytest.raises(UserError, match="20 directions cannot determine the 28") as error:
        harmonize(make_model(b_value=BOTH), made.load(tmp_path), "prisma_st")
    assert "28 directions or more" in str(error.value.remedy)


@pytest.mark.parametrize(
    ("shells", "counts"),
    [
        ({800: 12}, {1200: 12, 3000: 12}),  # one shell's directions serve all
        ({1200: 12, 3000: 20}, {1200: 12, 3000: 20}),
        ({500: 7, 1180: 12, 2950: 20}, {1200: 12, 3000: 20}),
    ],
)
def test_each_shell_is_written_along_its_own_directions_of_a_table(
    make_model, small_scan, spread_out, tmp_path, shells, counts
):
    dwi = small_scan(b_values=BOTH).write(tmp_path)
    table = np.concatenate([np.zeros((1, 3)), *map(spread_out, shells.values())])
    np.savetxt(tmp_path / "u.bvec", table.T)
    np.savetxt(tmp_path / "u.bval", np.repeat([0, *shells], [1, *shells.values()])[None])
    model = make_model(b_value=BOTH)
    out = tmp_path / "out"
    (path,) = harmonize_to_folder(dwi, model, ["prisma_st"], out, gradients=tmp_path / "u.bvec")
    written = load_acquisition(path)
    found = {shell.name: len(shell.volumes) for shell in written.given_gradients.shells}
    assert found == counts
    prediction = harmonize(model, load_acquisition(dwi), "prisma_st")
    for name, part in prediction.by_shell().items():
        shell = written.given_shell(name)
        # The table's image has the x axis reversed, so that FSL's vectors are along scanner axes
        # but for their first component.
        rows = spread_out(counts[name]) * [-1, 1, 1]
        np.testing.assert_allclose(written.directions(shell), rows, atol=1e-6)
        signal = np.clip(evaluate_sh(part.sh, rows), 0, 1) * part.b0[..., None]
        data = np.asarray(written.image.dataobj)[..., shell.volumes]
        np.testing.assert_allclose(data, signal, rtol=1e-4, atol=1e-2)


def test_a_table_without_a_predicted_shell_is_refused_before_any_work(
    make_model, small_scan, spread_out, tmp_path
):
    dwi = small_scan(b_values=BOTH).write(tmp_path)
    np.savetxt(tmp_path / "u.bvec", np.concatenate([spread_out(12), spread_out(9)]).T)
    np.savetxt(tmp_path / "u.bval", np.repeat([1200, 2000], [12, 9])[None])
    chosen = tmp_path / "u.bvec"
    with pytest.raises(UserError, match=r"no directions for b = 3000 \(it has 1200, 2000") as error:
        harmonize_to_folder(dwi, make_model(b_value=BOTH), [], tmp_path / "out", gradients=chosen)
    assert error.value.field == "gradients"
    assert not (tmp_path / "out").exists()
