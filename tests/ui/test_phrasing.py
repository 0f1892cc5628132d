"""Errors in the window's words: labels for parameters, and the reason first in a toast."""

import pytest

from napari_msp.errors import (
    Change,
    Choose,
    ComputeOnCPU,
    Give,
    Resample,
    RunJob,
    UserError,
    either,
)
from napari_msp.ui.phrasing import (
    HARMONIZE_LABELS,
    LOAD_LABELS,
    FormWords,
    for_toast,
    said,
    sentence,
)


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        (Choose("b_value", (1000.0, 2000.0)), "choose from 1000, 2000 with “Shell”"),
        (Give("bvec"), "give it with “b-vectors”"),
        (Resample(), "with “Interpolate to the model's voxel size” in Harmonize"),
        (Change("batch", "a smaller"), "use a smaller batch"),
        (ComputeOnCPU(), "compute on the CPU (“Device” cpu in Harmonize)"),
        (RunJob("import", "bring it into that form"), "with `napari-msp import`"),
        (either(Give("mask"), Give("bval")), "give it with “Mask”, or give it with “b-values”"),
    ],
)
def test_a_remedy_names_fields_and_what_has_none_in_plain_words(remedy, words):
    form = FormWords(LOAD_LABELS, otherwise=FormWords(HARMONIZE_LABELS, "Harmonize"))
    assert words in said(UserError("is odd", "/data/a.nii", remedy=remedy), form)


def test_what_a_button_offers_is_not_said_again():
    error = UserError("is too large", "/data/a.nii", remedy=Change("tile", "a smaller"))
    assert said(error, remedy=False) == "a.nii: is too large"


def test_a_path_with_options_in_its_name_is_left_as_it_is():
    error = UserError("is missing", "/data --mask/dwi--shell.nii", "mask", Give("mask"))
    assert said(error, FormWords(LOAD_LABELS)).startswith("dwi--shell.nii: is missing; give it")
    toast = str(for_toast(error))
    assert toast.startswith("Is missing; give it with “Mask” in Load acquisition.")
    assert toast.endswith("File: /data --mask/dwi--shell.nii")


def test_nothing_said_is_no_sentence():
    assert sentence("") == ""
