"""Learning several shells: which ones, statistics and crops by shell, and models of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.consistency import LeftOut
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Give, UserError
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.sampling import Symmetry, sampler_for
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.validation import alignment_error
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.spherical_harmonics import grid_symmetries

BOTH = (1200.0, 3000.0)
TARGETS = ("prisma_st", "connectom_sa")


@pytest.fixture(scope="module")
def heads_of_both(
    make_heads: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Travelling heads of two shells."""
    return make_heads(tmp_path_factory.mktemp("both"), shape=(9, 9, 9), b_values=BOTH)


def with_shells(root: Path, wanted: Mapping[str, tuple[float, ...]]) -> None:
    """Give platforms, or one subject's scans on them, other b-values in their tables."""
    for where, (low, high) in wanted.items():
        platform, subject = where.split()[0], where.split()[1:] or ["*"]
        session, protocol = platform.split("_")
        for path in root.glob(f"{subject[0]}/ses-{session}/dwi/*_acq-{protocol}_dwi.bval"):
            values = np.loadtxt(path)
            np.savetxt(path, np.select([values == 1200, values == 3000], [low, high], 0)[None])


# --- Which shells --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (3000, 3000.0),
        ([1200], 1200.0),
        ("3000", 3000.0),
        ("1200 3000", (1200.0, 3000.0)),
        ("1200, 3000", (1200.0, 3000.0)),
        (["1200", "3000"], (1200.0, 3000.0)),
        (None, None),
    ],
)
def test_settings_name_one_shell_or_several(given: Any, kept: Any) -> None:
    settings = TrainingSettings(b_value=given)
    assert settings.b_value == kept
    assert TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("many", "valid number"),
        ([1200, 1200], "differ"),
        ([1200, -1], "greater than 0"),
        ([], "greater than 0"),
        (float("nan"), "greater than 0"),
        ([1200, float("inf")], "greater than 0"),
        ({"b": 1}, "valid number"),
    ],
)
def test_settings_of_no_shell_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingSettings(b_value=given)


@pytest.mark.parametrize(
    ("shells", "asked", "expected", "left_out"),
    [
        ({}, None, BOTH, ""),
        ({}, 3000, (3000.0,), ""),
        ({}, (3000.0, 1200.0), BOTH, ""),
        ({"prisma_st": (1210.0, 2950.0)}, None, BOTH, ""),
        (
            {"prisma_st": (1200.0, 1200.0)},
            None,
            (1200.0,),
            r"b = 3000 is .* \(prisma_st\)",
        ),
        (
            {"connectom_sa": (3000.0, 3000.0)},
            None,
            (3000.0,),
            r"b = 1200 is .* \(connectom_sa\)",
        ),
        (  # no target has the input's
            {"prisma_st": (1200.0, 1200.0), "connectom_sa": (1200.0, 1200.0)},
            None,
            (1200.0,),
            r"b = 3000 is left out of training.* \(prisma_st, connectom_sa\)",
        ),
        (  # one scan lacks it, not its platform
            {"prisma_st sub-02": (1200.0, 1200.0)},
            None,
            (1200.0,),
            r"b = 3000 .* every scan .* \(sub-02 on prisma_st\): leave out sub-02 to learn it$",
        ),
        (  # nobody is left without them
            {"prisma_st sub-02": (1200.0, 1200.0), "ge_st sub-01": (1200.0, 1200.0)},
            None,
            (1200.0,),
            r"b = 3000 .* every scan .* \(sub-01 on ge_st, sub-02 on prisma_st\)$",
        ),
        ({"prisma_st": (1200.0, 5000.0)}, 1200, (1200.0,), ""),
    ],
)
@pytest.mark.filterwarnings("ignore::napari_msp.data.acquisition.DoubtfulScan")
@pytest.mark.filterwarnings("ignore::napari_msp.data.consistency.UnlikeOthers")
def test_shells_that_all_platforms_have_are_learned(
    make_heads: Callable[..., Path],
    tmp_path: Path,
    quick: Callable[..., TrainingSettings],
    shells: dict[str, tuple[float, float]],
    asked: Any,
    expected: tuple[float, ...],
    left_out: str,
) -> None:
    root = make_heads(tmp_path / "heads", shape=(7, 7, 7), b_values=BOTH)
    with_shells(root, shells)
    settings = quick(b_value=asked)
    if left_out:
        with pytest.warns(LeftOut, match=left_out):
            study = prepare_study(open_dataset(root), settings)
    else:
        study = prepare_study(open_dataset(root), settings)
    assert study.b_values == expected
    for head in (*study.heads, *study.held_out):
        assert {image.shells for image in (head.input, *head.targets.values())} == {len(expected)}
        assert head.input.coefficients.shape[-1] == 28 * len(expected)
    for gradients in study.gradients.values():
        assert len(gradients.table().shells) == len(expected)


@pytest.mark.parametrize(
    ("shells", "asked", "words"),
    [
        ({"prisma_st": (1200.0, 5000.0)}, (1200, 3000), "no shell near b = 3000"),
        ({"prisma_st": (1200.0, 5000.0)}, (1200, 5000), "no shell near b = 5000"),
        ({}, (1200, 2000), "no shell near b = 2000"),
        (
            {"prisma_st": (700.0, 5000.0)},
            None,
            r"no shell of ge_st is in all scans: .* \(prisma_st",
        ),
        (  # one odd scan, of which no b-value to learn would make one that is like the others
            {
                "ge_st": (1250.0, 1250.0),
                "connectom_sa": (1200.0, 1200.0),
                "prisma_st sub-01": (1200.0, 1200.0),
                "prisma_st sub-02": (1150.0, 1150.0),
            },
            None,
            r"in all scans: b = 1250 .* \(sub-02 on prisma_st\): leave out sub-02 to learn it",
        ),
        (
            {"prisma_st": (700.0, 3000.0), "connectom_sa sub-02": (1200.0, 1200.0)},
            None,
            r"in all scans: b = 1200 .*\(prisma_st\); b = 3000 .*\(sub-02 on connectom_sa\): leave",
        ),
        (
            {"prisma_st": (1200.0, 5000.0)},
            None,
            "prisma_st has b = 5000, which ge_st does not have",
        ),
        (
            {"connectom_sa": (700.0, 3000.0)},
            None,
            "connectom_sa has b = 700, which ge_st does not have",
        ),
        ({"ge_st": (1200.0, 1200.0)}, None, "prisma_st has b = 3000, which ge_st does not have"),
    ],
)
@pytest.mark.filterwarnings("ignore::napari_msp.data.consistency.UnlikeOthers")
def test_what_cannot_be_predicted_is_an_error(
    make_heads: Callable[..., Path],
    tmp_path: Path,
    quick: Callable[..., TrainingSettings],
    shells: dict[str, tuple[float, float]],
    asked: Any,
    words: str,
) -> None:
    root = make_heads(tmp_path / "heads", shape=(7, 7, 7), b_values=BOTH)
    with_shells(root, shells)
    with pytest.raises(UserError, match=words) as error:
        prepare_study(open_dataset(root), quick(b_value=asked))
    assert error.value.field == ("targets" if "in all scans" in words else "b_value")
    assert error.value.remedy is not None


def test_a_shell_of_which_the_input_has_too_few_directions_says_so(
    make_heads: Callable[..., Path], tmp_path: Path, quick: Callable[..., TrainingSettings]
) -> None:
    root = make_heads(tmp_path / "heads", shape=(7, 7, 7), b_values=BOTH)
    for path in root.glob("*/ses-ge/dwi/*_dwi.bval"):
        values = np.loadtxt(path)
        values[np.flatnonzero(values == 3000)[6:]] = 1200
        np.savetxt(path, values[None])
    words = r"prisma_st has b = 3000, which ge_st has with only 6 directions \(28 needed\): it"
    with pytest.raises(UserError, match=words):
        prepare_study(open_dataset(root), quick())


def test_the_remedy_against_a_shell_that_cannot_be_predicted_works(
    make_heads: Callable[..., Path], tmp_path: Path, quick: Callable[..., TrainingSettings]
) -> None:
    root = make_heads(tmp_path / "heads", shape=(7, 7, 7), b_values=BOTH)
    with_shells(root, {"prisma_st": (1200.0, 5000.0)})
    with pytest.raises(UserError) as error:
        prepare_study(open_dataset(root), quick())
    remedy = error.value.remedy
    assert isinstance(remedy, Give)
    study = prepare_study(open_dataset(root), quick(b_value=remedy.what))
    assert study.b_values == (1200.0,)


def test_shells_of_few_directions_are_left_to_maps(
    make_heads: Callable[..., Path], tmp_path: Path, quick: Callable[..., TrainingSettings]
) -> None:
    root = make_heads(tmp_path / "heads", shape=(7, 7, 7), b_values=BOTH, directions=20)
    for asked in (None, 1200):
        with pytest.raises(UserError, match="directions"):
            prepare_study(open_dataset(root), quick(b_value=asked))


# --- Statistics, crops, losses -------------------------------------------------------------------


def test_each_shell_has_the_statistics_that_it_has_alone(
    heads_of_both: Path, quick: Callable[..., TrainingSettings]
) -> None:
    dataset = open_dataset(heads_of_both)
    for preset in ("fast", "paper"):
        both = prepare_study(dataset, quick(preset=preset))
        for number, b_value in enumerate(BOTH):
            alone = prepare_study(dataset, quick(preset=preset, b_value=b_value))
            for platform, known in both.standardisation.items():
                part = known.by_shell(2)[number]
                np.testing.assert_array_equal(part.mean, alone.standardisation[platform].mean)
                np.testing.assert_allclose(
                    part.deviation, alone.standardisation[platform].deviation, rtol=1e-6
                )
            for one, other in zip(both.heads, alone.heads, strict=True):
                image = one.input.by_shell()[number]
                np.testing.assert_array_equal(image.coefficients, other.input.coefficients)


def test_crops_of_both_shells_are_those_of_each(
    heads_of_both: Path, quick: Callable[..., TrainingSettings]
) -> None:
    """Also turned: each shell's coefficients are mixed alike."""
    dataset = open_dataset(heads_of_both)
    batches = {
        asked: sampler_for(study, recipe_for(study.settings)).batch(0, 3)
        for asked in (None, 1200.0, 3000.0)
        for study in [prepare_study(dataset, quick(b_value=asked))]
    }
    both = batches[None]
    assert both.input.shape[1] == 56
    for number, b_value in enumerate(BOTH):
        part, alone = slice(28 * number, 28 * (number + 1)), batches[b_value]
        torch.testing.assert_close(both.input[:, part], alone.input)
        for target in TARGETS:
            torch.testing.assert_close(both.targets[target][:, part], alone.targets[target])
            assert torch.equal(both.masks[target], alone.masks[target])


def test_symmetries_turn_each_shell_as_if_alone() -> None:
    values = torch.randn(84, 4, 5, 6)
    mask = torch.rand(4, 5, 6) > 0.5
    for matrix in grid_symmetries()[::7]:
        turn = Symmetry(matrix)
        turned, moved = turn(values, mask)
        for shell in range(3):
            one, same = turn(values[28 * shell : 28 * (shell + 1)], mask)
            assert torch.equal(turned[28 * shell : 28 * (shell + 1)], one)
            assert torch.equal(moved, same)


def test_alignment_is_the_mean_of_that_of_each_shell(
    heads_of_both: Path, quick: Callable[..., TrainingSettings]
) -> None:
    dataset = open_dataset(heads_of_both)
    errors = [
        alignment_error(prepare_study(dataset, quick(b_value=asked)), "connectom_sa")
        for asked in (None, 1200.0, 3000.0)
    ]
    assert errors[0] == pytest.approx((errors[1] + errors[2]) / 2, rel=1e-6)


# --- From heads to predictions -------------------------------------------------------------------


@pytest.mark.parametrize("trunk", ["each", "all"])
@pytest.mark.parametrize("kind", [pytest.param("msp", marks=pytest.mark.slow), "cnn-rish", "cpm"])
def test_a_model_of_both_shells_is_trained_and_predicts(
    heads_of_both: Path,
    quick: Callable[..., TrainingSettings],
    run: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    trunk: str,
) -> None:
    path, events = run(heads_of_both, quick(kind, trunk=trunk), previews=tmp_path / "previews")
    model = load_model(path)
    assert model.card.sh.b_values == BOTH
    assert len(model.card.standardisation["ge_st"].mean) == 56
    scan = heads_of_both / "sub-03/ses-ge/dwi/sub-03_ses-ge_acq-st_dwi.nii.gz"
    prediction = harmonize(model, scan, "connectom_sa")
    assert prediction.shells == (1200, 3000)
    last = [event.errors for event in events if event.name == "validated"][-1]
    truth = load_acquisition(
        heads_of_both / "sub-03/ses-connectom/dwi/sub-03_ses-connectom_acq-sa_dwi.nii.gz"
    )
    squares = []
    for b_value, part in prediction.by_shell().items():
        wanted = fit_sh(truth, b_value=b_value)
        inside = part.mask & wanted.mask
        difference = part.sh.coefficients[inside] - wanted.coefficients[inside]
        squares.append(np.square(difference, dtype=float).mean())
    if "connectom_sa" in last:
        assert np.mean(squares) == pytest.approx(last["connectom_sa"], rel=1e-3)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    heads_of_both: Path, quick: Callable[..., TrainingSettings], run: Callable[..., Any]
) -> None:
    settings = quick(trunk="all", targets=("prisma_st",))
    whole, _ = run(heads_of_both, settings, "whole")
    run(heads_of_both, settings, "stopped", stop_after=4)
    resumed, _ = run(heads_of_both, settings, "stopped", resume=True)
    one, other = load_file(whole), load_file(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
