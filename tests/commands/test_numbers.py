"""Numbers out of range are one line that says what to give, for every option that takes one."""

import pytest
from command_line import SCAN, SHORT, TRUTH, refused

HUGE = "1" + "0" * 30

BEYOND = {"-1": -1, "2**64": 2**64, "10**30": HUGE, "10**400": "1" + "0" * 400}
NOT_FINITE = {"nan": "nan", "inf": "inf", "-inf": "-inf", "1e308": "1e308"}
NO_NUMBER = {"a text": "x", "nothing": "", "5000 digits": "9" * 5000}
HALF = {"a half": "1.5"}

TRAIN = {
    "--seed": BEYOND | HALF,
    "--steps": BEYOND | HALF | {"2**31": 2**31},  # 0: a start's weights as they are
    "--unison-steps": BEYOND | HALF | {"0": 0},
    "--epochs": BEYOND | HALF | {"0": 0, "2**31": 2**31},
    "--unison-epochs": BEYOND | HALF | {"0": 0},
    "--steps-per-epoch": BEYOND | HALF | {"0": 0, "2**31": 2**31},
    "--minutes": BEYOND | NOT_FINITE | {"0": 0, "2**31": 2**31},
    "--batch": BEYOND | HALF | {"0": 0, "2**31": 2**31},
    "--crop": BEYOND | HALF | {"2": 2, "2**31": 2**31},
    "--voxels-per-head": BEYOND | HALF | {"0": 0},
    "--decay-every": BEYOND | HALF | {"0": 0},
    "--width": BEYOND | NOT_FINITE | {"0": 0, "2": 2},
    "--learning-rate": BEYOND | NOT_FINITE | {"0": 0, "2": 2},
}


def cases(table, more=NO_NUMBER):
    return [
        pytest.param(option, value, id=f"{option} {name}")
        for option, values in table.items()
        for name, value in (values | more).items()
    ]


@pytest.mark.parametrize(("option", "value"), cases(TRAIN))
def test_numbers_of_train(option, value, study, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msp.learning.train.prepare_study", too_late)
    train = ("train", study, tmp_path / "m.safetensors", "--model", "msp", *SHORT)
    line = refused(tmp_path, *train, f"{option}={value}")
    assert f"{option}: must " in line
    assert len(line) < 400


def too_late(*_: object) -> None:
    raise AssertionError("the dataset was loaded first")


EVALUATE = {
    "--seeds": BEYOND | {"1000": 1000},
    "--steps": BEYOND | {"0": 0, "30": 30, "2**31": 2**31},
    "--crop": BEYOND | {"2": 2, "2**31": 2**31},
    "--batch": BEYOND | {"0": 0, "2**31": 2**31},
    "--workers": {"-1": -1, "0": 0},
    "--width": BEYOND | NOT_FINITE | {"0": 0, "2": 2},
    "--shell": {"-1": -1, "0": 0, "10**30": HUGE} | NOT_FINITE,
}


@pytest.mark.parametrize(("option", "value"), cases(EVALUATE, {}))
def test_numbers_of_evaluate(option, value, study, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msp.evaluation.evaluate.Benchmark", too_late)
    evaluate = ("evaluate", study, "--methods", "shresnet", "--targets", "prisma_st", "--quick")
    line = refused(tmp_path, *evaluate, "--out", tmp_path / "out", f"{option}={value}")
    assert "; give " in line or "; choose " in line, line


SIMULATE = {
    "--subjects": BEYOND | {"0": 0, "2**31": 2**31},
    "--seed": BEYOND,
    "--misalignment": BEYOND | NOT_FINITE,
}


@pytest.mark.parametrize(("option", "value"), cases(SIMULATE, {}))
def test_numbers_of_simulate(option, value, tmp_path):
    line = refused(tmp_path, "simulate", tmp_path / "out", "--size", "tiny", f"{option}={value}")
    assert line.startswith(f"napari-msp: {option}: ")
    assert "; give " in line


@pytest.mark.parametrize("value", [-1, 0])
def test_a_tile_of_nothing(value, study, model, tmp_path):
    harmonize = ("harmonize", study / SCAN, "--model", model, "--target", "prisma_st")
    assert "give at least 1" in refused(
        tmp_path, *harmonize, "--out", tmp_path / "out", f"--tile={value}"
    )
    cohort = ("cohort", study, tmp_path / "out", "participant", *harmonize[2:])
    assert "at least 1" in refused(tmp_path, *cohort, f"--workers={value}")


@pytest.mark.parametrize("value", BEYOND.values(), ids=BEYOND)
def test_a_slice_that_is_not_there(value, study, tmp_path):
    compare = ("compare", "--truth", study / TRUTH, "--prediction", f"A={study / SCAN}")
    line = refused(tmp_path, *compare, "--out", tmp_path / "out", f"--slice={value}")
    assert "give one from" in line


@pytest.mark.parametrize("value", NO_NUMBER.values(), ids=NO_NUMBER)
@pytest.mark.parametrize(
    "option",
    ["simulate --seed", "simulate --misalignment", "harmonize --tile", "cohort --workers",
     "maps --shell", "compare --slice", "evaluate --seeds", "evaluate --width"],
)  # fmt: skip
def test_what_is_no_number_is_refused(option, value, tmp_path):
    command, name = option.split()
    refused(tmp_path, command, f"{name}={value}")
