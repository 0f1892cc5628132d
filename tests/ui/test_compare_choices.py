"""What can be compared with what: a truth is the same person's scan, whatever it is called."""

import numpy as np

from napari_msp.bids import Provenance
from napari_msp.identity import Person
from napari_msp.scan import Scan
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.compared import Choices


def image():
    return SHImage(np.zeros((2, 2, 2, 28), dtype=np.float32), np.eye(4), np.ones((2, 2, 2), bool))


def measured(platform, person=None, subject="sub-01"):
    scan = Scan(given_sh=image(), given_subject=subject, given_platform=platform)
    if person is not None:
        vars(scan)["person"] = person  # as of a file in a dataset
    return scan


def predicted(person, target="prisma_st"):
    known = None if person is None else person.to_json()
    provenance = Provenance(target=target, input="ge_st", title="MSP", person=known)
    return Scan(given_sh=image(), given_subject="sub-01", provenance=provenance)


HERE, ELSEWHERE = Person("sub-01", "here"), Person("sub-01", "elsewhere")


def test_another_datasets_sub_01_is_no_truth():
    prediction, truth = predicted(HERE), measured("prisma_st", ELSEWHERE)
    choices = Choices.of([prediction, truth])
    assert list(choices.truths) == ["sub-01 prisma_st"]  # a person may still choose it
    assert choices.truth_for([prediction]) == ""
    own = measured("prisma_st", HERE)
    choices = Choices.of([prediction, truth, own])
    assert choices.truths[choices.truth_for([prediction])] is own


def test_the_same_scan_under_another_name_is_a_truth():
    prediction = predicted(Person("sub-01", "here", frozenset("x")))
    truth = measured("prisma_st", Person("sub-07", "elsewhere", frozenset("xy")), "sub-07")
    assert Choices.of([prediction, truth]).truth_for([prediction]) == "sub-07 prisma_st"


def test_where_nobody_can_know_names_decide():
    prediction = predicted(None)
    choices = Choices.of([prediction, measured("prisma_st"), measured("prisma_st", subject="x")])
    assert choices.truth_for([prediction]) == "sub-01 prisma_st"
    assert Choices.of([prediction, measured("connectom_st")]).truth_for([prediction]) == ""


def test_predictions_of_different_targets_have_no_truth_in_common():
    predictions = [predicted(HERE), predicted(HERE, "connectom_st")]
    scans = [measured("prisma_st", HERE), measured("connectom_st", HERE)]
    assert Choices.of([*predictions, *scans]).truth_for(predictions) == ""


def test_the_input_is_the_same_persons_scan_on_the_models_input_platform():
    prediction = predicted(HERE)
    scans = [measured("ge_st", ELSEWHERE), measured("prisma_st", HERE), measured("ge_st", HERE)]
    assert Choices.of([prediction, *scans]).input_of([prediction]) is scans[2]
    assert Choices.of([prediction, *scans[:2]]).input_of([prediction]) is None


def test_a_scan_on_disk_is_offered_until_it_is_loaded(heads):
    from napari_msp.scan import load_scan

    paths = {
        platform: next(heads.glob(f"sub-01/ses-{platform}/dwi/*_dwi.nii.gz"))
        for platform in ("ge", "prisma")
    }
    scan = load_scan(paths["ge"])
    choices = Choices.of([scan])
    assert "sub-01 prisma_st (on disk)" in choices.truths
    truth = choices.truths["sub-01 prisma_st (on disk)"].read(None)
    assert truth.path == paths["prisma"]
    assert choices.truths["sub-01 prisma_st (on disk)"].read(None) is truth  # read once
    prediction = predicted(scan.person)
    assert choices.truth_for([prediction]) == "sub-01 prisma_st (on disk)"
    choices = Choices.of([scan, load_scan(paths["prisma"])])
    assert "sub-01 prisma_st (on disk)" not in choices.truths
    assert choices.truth_for([prediction]) == "sub-01 prisma_st"
