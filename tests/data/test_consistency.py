"""Scans that are unlike the others of their platform are refused, or told of, by name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.consistency import ScanHeader, UnlikeOthers, check_alike, unlike
from napari_msp.data.dataset import open_dataset
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Change, UserError
from napari_msp.evaluation.benchmark.make_plan import make_plan
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.evaluation.calibration import with_expected_errors
from napari_msp.inference.prepare import UnlikeTraining
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model
from napari_msp.packaged import packaged_model

NAMED = "has voxels of {} mm where {} of its platform {} {} mm, and a network needs one size"


def header(
    size: float | tuple[float, float, float] = 2.0,
    shape: tuple[int, int, int] = (50, 60, 40),
    b_value: float = 1200,
    directions: int = 30,
    b0: float = 0,
    **stated: object,
) -> ScanHeader:
    b_values = np.array([b0] + [b_value] * directions)
    table = GradientTable(b_values, np.tile([1.0, 0, 0], (directions + 1, 1)))
    affine = np.diag([*np.broadcast_to(size, 3), 1.0])
    return ScanHeader(Lattice(shape, affine), table, stated)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (header(2.03, (51, 60, 40), 1210, 25, 5, EchoTime=0.0892), None),
        (header(EchoTime=None), None),
        (header(1.0, (100, 120, 80)), "has voxels of 1.00 mm where 2 others of its platform have"),
        (header((2, 2, 4), (50, 60, 20)), "has voxels of 2.00 × 2.00 × 4.00 mm where"),
        (header(b_value=1255), "has b = 1255 s/mm² where 2 others of its platform have 1200: "),
        (header(directions=60), "has 60 directions at b = 1200 where 2 others of its platform h"),
        (header(b0=50), "has b=0 images of b = 50 s/mm² on average where 2 others"),
        (header(shape=(50, 60, 6)), "has a field of view of 100 × 120 × 12 mm where 2 others of"),
        (header(EchoTime=0.07), "has EchoTime 0.07 s where 2 others of its platform have 0.089 s"),
        (header(ManufacturersModelName="Skyra"), "has ManufacturersModelName Skyra where 2 other"),
    ],
)
def test_what_differs_is_said(odd, said):
    usual = header(EchoTime=0.089, ManufacturersModelName="Prisma")
    scans = {"sub-01": odd, "sub-02": usual, "sub-03": usual}
    found = list(unlike("prisma_st", scans))
    assert [each.subject for each in found] == ["sub-01"] * (said is not None)
    assert all(each.problem.startswith(said) for each in found)
    assert [each.refused for each in found] == ["voxels" in each.problem for each in found]


def test_most_of_those_who_teach_say_what_is_usual():
    one, two = header(2.0), header(2.4, (42, 50, 33))
    scans = {"sub-01": one, "sub-02": two, "sub-03": one, "sub-04": one}
    assert [each.subject for each in unlike("ge", scans)] == ["sub-02"]
    taught_by = ["sub-02"], ["sub-02", "sub-01"], ["sub-09"]
    found = [[each.subject for each in unlike("ge", scans, those)] for those in taught_by]
    assert found == [["sub-01", "sub-03", "sub-04"], ["sub-02"], ["sub-02"]]


@pytest.fixture
def with_odd(heads: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the heads with scans whose voxels have another size."""

    def copy(factor: float, *scans: str) -> Path:
        root = shutil.copytree(heads, tmp_path / "odd")
        for each in scans:
            for path in root.glob(f"{each.replace(' ', '/ses-')}/dwi/*.nii.gz"):
                image = nib.load(path)
                affine = image.affine @ np.diag([factor] * 3 + [1])
                nib.save(nib.Nifti1Image(image.get_fdata(), affine), path)
        return root

    return copy


@pytest.mark.parametrize(
    ("scan", "part", "given", "said"),
    [
        ("sub-02 prisma", "subjects", {}, (1.2, "2 others", "have", 2.4)),  # in place of 1: scale 2
        ("sub-01 prisma", "subjects", {}, (1.2, "2 others", "have", 2.4)),
        ("sub-01 ge", "subjects", {}, (1.2, "2 others", "have", 2.4)),
        ("sub-02 prisma", "held_out", {"held_out": ("sub-02",)}, (1.2, "2 others", "have", 2.4)),
        ("sub-02 ge", "validation", {"validation": ("sub-02",)}, (1.2, "2 others", "have", 2.4)),
    ],
)
def test_training_refuses_other_voxels(with_odd, scan, part, given, said):
    root = with_odd(0.5, scan)
    subject, session = scan.split()
    size, *others, usual = said
    with pytest.raises(UserError) as caught:
        prepare_study(open_dataset(root), TrainingSettings(targets=("prisma_st",), **given))
    error = caught.value
    words = NAMED.format(f"{size:.2f}", *others, f"{usual:.2f}")
    assert error.problem == f"{subject} on {session}_st {words}"
    assert (error.subject, error.field) == (str(root), part)
    assert error.remedy == Change(part, "others in")


def test_statistics_alone_refuse_them_too(with_odd, tmp_path):
    root = with_odd(2.0 / 2.4, "sub-02 ge", "sub-02 prisma")
    settings = TrainingSettings(
        kind="msp", start_from=str(packaged_model("MSP")), steps=0, targets=("prisma_st",)
    )
    with pytest.raises(UserError, match=r"sub-02 on ge_st, prisma_st has voxels of 2.00 mm wh"):
        train(root, tmp_path / "m.safetensors", settings)
    assert not (tmp_path / "m.safetensors").exists()


def test_an_evaluation_refuses_what_it_would_train_on_and_tells_of_the_rest(with_odd):
    root = with_odd(0.5, "sub-03 prisma")
    settings = EvaluationSettings(
        methods=("SHResNet",), train=("sub-01",), validation=("sub-02",), test=("sub-03",)
    )
    with pytest.raises(UserError, match=r"sub-03 on prisma_st has voxels of 1.20 mm wh") as caught:
        make_plan([root], settings)
    assert caught.value.field == "test"
    with pytest.warns(UnlikeOthers):
        plan = make_plan([root], methods=["no harmonization"])
    assert any("sub-03 on prisma_st has voxels" in each for each in plan.doubts)


@pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.NotForScans")
def test_what_a_model_predicts_on_other_voxels_is_said(with_odd):
    root = with_odd(0.5, "sub-01 prisma", "sub-02 prisma", "sub-03 prisma")
    with pytest.warns(
        UnlikeTraining, match=r"3 of 3 scans on prisma_st have voxels of 1.20 mm, .* predicts 2.40"
    ):
        plan = make_plan([root], models=[packaged_model("MSP")], targets=["prisma_st"])
    assert any("its predictions are interpolated to be measured" in each for each in plan.doubts)
    elsewhere = make_plan([root], models=[packaged_model("MSP")], targets=["connectom_sa"])
    assert not any("interpolated" in each for each in elsewhere.doubts)


@pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.NotForScans")
def test_a_finished_models_test_subjects_are_unlike_the_whole_dataset(with_odd):
    """Of two who are tested, or of one alone, nobody knows which is usual."""
    root, model = with_odd(0.5, "sub-02 prisma"), packaged_model("MSP")
    for test in (["sub-02"], ["sub-02", "sub-03"]):
        with pytest.warns(UnlikeTraining), pytest.warns(UnlikeOthers):
            plan = make_plan([root], models=[model], targets=["prisma_st"], test=test)
        (unlike_others,) = (each for each in plan.doubts if "one size" in each)
        others = NAMED.format("1.20", "2 others", "have", "2.40")
        assert unlike_others == f"odd: sub-02 on prisma_st {others}"
        (interpolated,) = (each for each in plan.doubts if "interpolated" in each)
        few = " (sub-02)" * (len(test) > 1)
        of = f"1 of {len(test)} scan{'s' * (len(test) > 1)} on prisma_st{few}"
        assert interpolated.startswith(f"odd: {of} has voxels of 1.20 mm, ")
    for path in root.glob("sub-02/ses-prisma/dwi/*.bvec"):
        path.unlink()  # a damaged scan of somebody else hinders nobody
    plan = make_plan([root], models=[model], targets=["prisma_st"], test=["sub-03"])
    assert not any("sub-03" in each for each in plan.doubts)


def test_what_is_calibrated_on_has_the_models_voxels(with_odd):
    root = with_odd(0.5, "sub-02 prisma")
    whole = load_model(packaged_model("MSP"))
    model = replace(whole, card=whole.card.model_copy(update={"scales": {"prisma_st": 1}}))
    with pytest.raises(
        UserError, match=r"sub-02_ses-prisma.*voxels are 1\.20 .* predicts 2\.40 mm"
    ):
        with_expected_errors(model, open_dataset(root), ["sub-02"])


def test_what_two_platforms_share_is_said_once(heads, tmp_path):
    root = shutil.copytree(heads, tmp_path / "swapped")
    for subject, time in (("sub-01", 0.089), ("sub-02", 0.07), ("sub-03", 0.089)):
        for session in ("ge", "prisma"):
            (scan,) = (root / subject / f"ses-{session}" / "dwi").glob("*_dwi.nii.gz")
            sidecar = scan.with_name(scan.name.replace(".nii.gz", ".json"))
            sidecar.write_text(json.dumps({"EchoTime": time}), encoding="utf-8")
    dataset = open_dataset(root)
    with pytest.warns(UnlikeOthers) as caught:
        said = check_alike(dataset, dataset.platforms, {"subjects": dataset.subjects})
    others = "2 others of its platform have 0.089 s according to their sidecars"
    assert said == (f"swapped: sub-02 on ge_st, prisma_st has EchoTime 0.07 s where {others}",)
    assert [str(each.message) for each in caught] == list(said)
