"""What can be compared with what: a truth is the same person's scan, whatever it is called."""

from dataclasses import replace

import numpy as np
import pytest

from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.nifti import write_nifti
from napari_msp.evaluation.compare import compare
from napari_msp.files import write_json
from napari_msp.identity import Person
from napari_msp.provenance import Provenance, source_uri
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage, write_sh
from napari_msp.ui.compare.choices import ImageChoices
from napari_msp.ui.compare.compared import Question, read_and_line_up
from napari_msp.ui.compare.grid_cells import comparison_cells


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
    choices = ImageChoices.of([prediction, truth])
    assert list(choices.truths) == ["sub-01 prisma_st"]  # a person may still choose it
    assert choices.truth_for([prediction]) == ""
    own = measured("prisma_st", HERE)
    choices = ImageChoices.of([prediction, truth, own])
    assert choices.truths[choices.truth_for([prediction])] is own


def test_a_truth_that_is_predicted_or_is_the_prediction_itself_is_said():
    truth = measured("prisma_st", HERE)
    values = np.random.default_rng(0).random((2, 2, 2, 28), dtype=np.float32)
    image = replace(truth.sh, coefficients=values, b_value=1200.0)
    truth, other = (
        replace(each, given_sh=image) for each in (truth, predicted(HERE, "connectom_st"))
    )
    close = replace(predicted(HERE), given_sh=replace(image, coefficients=values + 1e-6))
    for made, given, said in (
        (close, truth, []),
        (other, truth, ["MSP is the ground truth itself, to the last bit"]),
        (close, other, ["the ground truth was not measured: it is a prediction (MSP conn"]),
    ):
        found = read_and_line_up(Question(given, [made], None), lambda words: None).reservations
        assert len(found) == len(said)
        assert all(each.startswith(words) for each, words in zip(found, said, strict=True))
    notes = compare(truth, {"MSP": other}).notes
    assert any("MSP is the ground truth itself" in each for each in notes)


def test_the_same_scan_under_another_name_is_a_truth():
    prediction = predicted(Person("sub-01", "here", frozenset("x")))
    truth = measured("prisma_st", Person("sub-07", "elsewhere", frozenset("xy")), "sub-07")
    assert ImageChoices.of([prediction, truth]).truth_for([prediction]) == "sub-07 prisma_st"


def test_where_nobody_can_know_names_decide():
    prediction = predicted(None)
    choices = ImageChoices.of(
        [prediction, measured("prisma_st"), measured("prisma_st", subject="x")]
    )
    assert choices.truth_for([prediction]) == "sub-01 prisma_st"
    assert ImageChoices.of([prediction, measured("connectom_st")]).truth_for([prediction]) == ""


def test_predictions_of_different_targets_have_no_truth_in_common():
    predictions = [predicted(HERE), predicted(HERE, "connectom_st")]
    scans = [measured("prisma_st", HERE), measured("connectom_st", HERE)]
    assert ImageChoices.of([*predictions, *scans]).truth_for(predictions) == ""


def test_the_input_is_the_same_persons_scan_on_the_models_input_platform():
    prediction = predicted(HERE)
    scans = [measured("ge_st", ELSEWHERE), measured("prisma_st", HERE), measured("ge_st", HERE)]
    assert ImageChoices.of([prediction, *scans]).input_of([prediction]) is scans[2]
    assert ImageChoices.of([prediction, *scans[:2]]).input_of([prediction]) is None


def test_a_prediction_on_disk_has_its_truth_its_input_and_its_maps(heads, tmp_path):
    """As Review finds them: by what its sidecar and the description of its folder say."""
    dwi = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    scan = load_scan(dwi)
    made = Provenance("prisma_st", "ge_st", title="MSP", sources=(source_uri(dwi),))
    folder = tmp_path / "out/sub-01/ses-ge/dwi"
    folder.mkdir(parents=True)
    write_json(tmp_path / "out/dataset_description.json", {"DatasetLinks": {"source": str(heads)}})
    stem = "sub-01_ses-ge_acq-st_desc-prismastMsp_model-sh_param"
    write_sh(folder / f"{stem}-coefficients_dwimap.nii.gz", scan.sh, made.to_sidecar())
    for what in ("disagreement", "expectederror"):
        doubt = np.full(scan.mask.shape, 0.5, dtype=np.float32)
        write_nifti(folder / f"{stem}-{what}_dwimap.nii.gz", doubt, scan.sh.affine)
    read = load_scan(folder / f"{stem}-coefficients_dwimap.nii.gz")
    choices = ImageChoices.of([read])
    truth = choices.truths[choices.truth_for([read])]
    source = choices.input_of([read])
    assert (truth.owner, source.owner) == ("sub-01 prisma_st (on disk)", "sub-01 ge_st (on disk)")
    compared = read_and_line_up(Question(truth, [read], source), lambda words: None)
    assert compared.before is not None
    assert compared.input_title == "input ge_st"
    for doubts in (compared.disagreement, compared.expected_error):
        np.testing.assert_array_equal(doubts["MSP"][compared.comparison.mask], 0.5)


def test_a_scan_on_disk_is_offered_until_it_is_loaded(heads):
    from napari_msp.scan_sources import load_scan

    paths = {
        platform: next(heads.glob(f"sub-01/ses-{platform}/dwi/*_dwi.nii.gz"))
        for platform in ("ge", "prisma")
    }
    scan = load_scan(paths["ge"])
    choices = ImageChoices.of([scan])
    assert "sub-01 prisma_st (on disk)" in choices.truths
    truth = choices.truths["sub-01 prisma_st (on disk)"].read(None)
    assert truth.path == paths["prisma"]
    assert choices.truths["sub-01 prisma_st (on disk)"].read(None) is truth  # read once
    prediction = predicted(scan.person)
    assert choices.truth_for([prediction]) == "sub-01 prisma_st (on disk)"
    choices = ImageChoices.of([scan, load_scan(paths["prisma"])])
    assert "sub-01 prisma_st (on disk)" not in choices.truths
    assert choices.truth_for([prediction]) == "sub-01 prisma_st"


# --- Several shells -------------------------------------------------------------------------------


def of_shell(b_value, title, target="prisma_st"):
    known = Provenance(target=target, input="ge_st", title=title, person=HERE.to_json())
    sh = replace(image(), b_value=float(b_value))
    return Scan(given_sh=sh, given_subject="sub-01", provenance=known)


@pytest.fixture
def both(scan, tmp_path):
    """A scan of two shells that is loaded at the lower one, and what was made of it."""
    path = scan(b_values=(1190.0, 3000.0)).write(tmp_path)
    loaded = load_scan(path, 1200)
    made = [of_shell(b, f"MSP b{b}") for b in (1200, 3000)]
    return loaded, [*made, *(of_shell(b, "DIQT") for b in (1200, 3000))]


def test_of_several_shells_one_is_offered(both):
    loaded, made = both
    choices = ImageChoices.of([*made, loaded])
    assert choices.shells == {1200: 1200, 3000: 3000}
    for shell in (1200, 3000):
        choices = ImageChoices.of([*made, loaded], shell)
        offered = list(choices.predictions.values())
        assert offered[:2] == [each for each in made if each.b_value == shell]
        (own,) = choices.scans.values()
        assert own is offered[2]
        assert (own is loaded) == (shell == 1200)
        # It is fitted once, at the shell that the scan is not shown at.
        assert own is next(iter(ImageChoices.of([*made, loaded], shell).scans.values()))
        found = fit_sh(load_acquisition(loaded.path), b_value=shell).coefficients
        np.testing.assert_array_equal(own.sh.coefficients, found)
        assert choices.shell_of(made[0]) == 1200
        assert choices.shell_of(made[3]) == 3000


def test_the_same_predictions_are_chosen_at_another_shell(both):
    loaded, made = both
    choices = ImageChoices.of([*made, loaded], 3000)
    assert choices.alike([made[0]]) == ["sub-01 MSP b3000 prisma_st"]
    assert choices.alike([made[2]]) == ["sub-01 DIQT prisma_st"]
    assert len(choices.alike(made[:3])) == 2


@pytest.mark.parametrize("order", [(1200, 3000), (3000, 1200)])
def test_one_scan_loaded_at_both_shells_is_offered_once_at_each(both, order):
    loaded, made = both
    known = {b_value: load_scan(loaded.path, b_value) for b_value in order}
    for shell in (1200, 3000):
        choices = ImageChoices.of([*made, *known.values()], shell)
        assert list(choices.scans.values()) == [known[shell]]
        assert list(choices.truths) == ["sub-01"]


def test_b_values_within_five_percent_are_no_choice():
    made = [of_shell(b, "MSP") for b in (1150, 1200)]
    choices = ImageChoices.of(made)
    assert list(choices.shells) == [1150]
    assert list(choices.predictions.values()) == made


def test_truth_and_input_are_taken_at_the_predictions_shell(both, tmp_path, scan):
    (tmp_path / "t").mkdir()
    truth = load_scan(scan(b_values=(1190.0, 3000.0), noise=20.0).write(tmp_path / "t"), 1200)
    loaded, _ = both
    high = Scan(
        given_sh=fit_sh(load_acquisition(loaded.path), b_value=3000), given_subject="sub-01"
    )
    compared = read_and_line_up(Question(truth, [high], loaded), lambda _: None)
    assert compared.truth is not None
    assert compared.scan is not None
    assert compared.truth.b_value == compared.scan.b_value == 3000
    true = fit_sh(load_acquisition(truth.path), b_value=3000)
    measured = compared.measured("sub-01")
    assert measured is not None
    inside = true.mask & high.mask
    by_hand = np.square(true.coefficients[inside] - high.sh.coefficients[inside]).mean()
    assert measured.sh_mse == pytest.approx(by_hand, rel=1e-5)


def test_a_prediction_that_lies_beside_the_truth_is_said_as_compare_does():
    at = np.moveaxis(np.indices((20, 22, 18)), 0, -1) - np.array([9.5, 10.5, 8.5])
    mask = np.square(at / [9, 10, 8]).sum(-1) < 1
    # Structure in all three directions, so that nothing but one position fits.
    waves = np.sin(at @ (np.eye(3) + 0.2) * [0.5, 0.6, 0.7]).sum(-1)
    values = np.zeros((*at.shape[:3], 28), dtype=np.float32)
    values[..., 0] = (1.4 + 0.2 * waves) * mask
    lies_well = SHImage(values, np.diag([2.0, 2, 2, 1]), mask, 1200.0, 0.006)
    moved = lies_well.affine.copy()
    moved[0, 3] += 3
    truth, made = (
        replace(each, given_sh=there)
        for each, there in (
            (measured("prisma_st", HERE), lies_well),
            (predicted(HERE), replace(lies_well, affine=moved)),
        )
    )
    said = read_and_line_up(Question(truth, [made], None), lambda words: None).reservations
    [words] = [each for each in said if " lies " in each]
    assert words.startswith("MSP lies 3.0 mm, 1.50 voxels, from the ground truth on average")
    assert words in compare(truth, {"MSP": made}).notes


def test_an_input_is_shown_as_the_network_got_it_and_says_so(scan, tmp_path):
    loaded = load_scan(scan(b_values=(1000.0,)).write(tmp_path))
    sh = fit_sh(load_acquisition(loaded.path), rescale_to=1200)
    how = "voxels interpolated"
    known = Provenance(target="x", input="ge_st", title="MSP", approximations=(how,))
    made = [Scan(given_sh=sh, given_subject="sub-01", provenance=known)]
    again = replace(made[0], given_subject="sub-01")
    cells = read_and_line_up(Question(None, [*made, again], None), lambda _: None).predictions
    assert list(cells) == ["MSP", "MSP (2)"]  # numbered as the form numbers them
    compared = read_and_line_up(Question(None, made, loaded), lambda _: None)
    assert compared.scan is not None
    np.testing.assert_array_equal(compared.scan.sh.coefficients, sh.coefficients)
    assert compared.reservations == [f"MSP: {how}"]
    itself = read_and_line_up(Question(made[0], made, None), lambda _: None)
    assert itself.reservations[0] == "MSP is the ground truth itself, to the last bit"
    layout = comparison_cells(compared, compared.cells("sh_average"))
    first = layout.layers[0][1]["name"]
    assert first == "sub-01 · SH average (rescaled from b = 1000 to 1200)"
    assert "input: sub-01, rescaled from b = 1000 to 1200" in layout.legend
    # One that nobody can rescale says at which b-value it is.
    other = Scan(given_sh=loaded.sh, given_subject="sub-01", given_platform="ge_st")
    compared = read_and_line_up(Question(None, made, other), lambda _: None)
    assert compared.input_title == "input ge_st (at b = 1000)"
