"""A review as it goes on, without a window: what is listed, what comes next, what is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import UserError
from napari_msp.files import write_json
from napari_msp.image_files import ImageFile
from napari_msp.inference.review_maps import ReviewImage, ReviewMaps
from napari_msp.provenance import Provenance
from napari_msp.review.measures import MEASURES
from napari_msp.ui.review.pictures import (
    Contrast,
    ReviewLook,
    draw,
    outline,
    own_limits,
    worst_of,
)
from napari_msp.ui.review.session import Filter, Session, unusual_words


def write(root: Path, number: int, snr: float, target: str = "prisma_st", seed: int = 0) -> None:
    """Write what is listed of a prediction."""
    name = f"sub-{number:02d}"
    scan = f"{name}/ses-ge/dwi/{name}_ses-ge_acq-st_dwi.nii.gz"
    made = Provenance(
        target=target, input="ge_st", title="MSP", kind="msp", sources=(f"bids:source:{scan}",)
    )
    place = root / name / "ses-ge" / "dwi"
    place.mkdir(parents=True, exist_ok=True)
    stem = place / f"{ImageFile.predicted(scan, target, 'msp').stem}_dwi"
    values = np.random.default_rng([number, seed]).random((2, 3, 4, 2)).astype(np.float32)
    write_nifti(stem.with_name(f"{stem.name}.nii.gz"), values, np.diag([2.0, 2.0, 2.0, 1.0]))
    write_json(stem.with_name(f"{stem.name}.json"), {**made.to_sidecar(), "Measures": {"SNR": snr}})


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "predictions"
    describe_derivative(folder, folder, HARMONIZED, tmp_path / "heads")
    for number in range(1, 10):
        write(folder, number, 5.0 if number == 4 else 20.0 + number / 10)
    return folder


def subjects(session):
    return [entry.subject[-2:] for entry in session.rows]


def test_the_riskiest_comes_first_and_says_why(root):
    session = Session.open(str(root), "anna")
    assert session.current is session.rows[0]
    assert session.current.subject == "sub-04"
    (known,) = session.numbers(session.current)
    assert known.words.startswith("SNR 5.0 (low: ")
    assert unusual_words([known]) == "SNR low"
    assert session.name(session.current) == "sub-04 → prisma_st"
    assert session.progress_words == "0 of 9 rated"


def test_what_comes_next_is_unrated_and_begins_again_at_the_end(root):
    session = Session.open(str(root), "anna")
    first, second, third = session.rows[:3]
    session.go_to(second)
    session.rate("pass")
    assert session.next_unrated() is third
    session.go_to(session.rows[-1])
    assert session.step(1) is None
    assert session.next_unrated() is first
    assert session.ahead(2)[0] is first
    assert first not in session.ahead(2)[1:]


def test_what_is_filtered_away_leaves_its_place(root):
    session = Session.open(str(root), "anna")
    first, second, third = session.rows[:3]
    session.show_only(Filter(state="unrated"))
    session.go_to(second)
    session.rate("fail")
    session.show_only(session.filter)
    assert session.row is None
    assert session.step(1) is third
    assert session.step(-1) is first
    assert session.next_unrated() is third
    session.show_only(Filter(text="SUB-09"))
    assert subjects(session) == ["09"]


def test_notes_and_tags_stay_with_the_rating_and_undo_takes_one_back(root):
    session = Session.open(str(root), "anna")
    entry = session.rows[0]
    session.toggle_tag("motion")
    session.note("blurred")
    assert session.state(entry) == "unrated"
    session.rate("doubtful")
    again = Session.open(str(root), "anna")
    known = again.ratings.of(again.review[entry.key])
    assert (known.verdict, known.tags, known.note) == ("doubtful", ("motion",), "blurred")
    session.toggle_tag("motion")
    assert session.tags_of(entry) == ()
    assert session.undo() is entry
    assert session.tags_of(entry) == ("motion",)
    assert again.current is not entry  # opened anew, the first one that is unrated is looked at
    assert again.progress_words == "1 of 9 rated"


def test_a_prediction_that_was_made_again_is_to_be_rated_again(root):
    session = Session.open(str(root), "anna")
    session.rate("pass")
    session.note("good")
    write(root, 4, 5.0, seed=1)
    again = Session.open(str(root), "anna")
    first = again.rows[0]
    assert again.current is first
    assert first.subject == "sub-04"
    assert again.state(first) == "remade"
    assert again.note_of(first) == ""
    assert again.progress_words == "0 of 9 rated; 1 made again since"


def test_blind_hides_names_numbers_and_order(root, monkeypatch):
    monkeypatch.setattr("napari_msp.review.ratings.secrets.randbelow", lambda _: 3)
    session = Session.open(str(root), "anna", blind=True, hide_roles=True)
    told = [session.name(each) for each in session.rows]
    assert not any("sub" in each or "prisma" in each for each in told)
    assert not any(session.numbers(each) for each in session.rows)
    assert subjects(session) != subjects(Session.open(str(root), "anna"))
    assert {session.sides(each) for each in session.rows} == {
        ("scan", "prediction"),
        ("prediction", "scan"),
    }
    assert told == [
        session.name(each)
        for each in Session.open(str(root), "anna", blind=True, hide_roles=True).rows
    ]


def test_several_targets_are_told_apart(root):
    write(root, 1, 20.0, target="connectom_sa")
    session = Session.open(str(root), "anna")
    assert session.targets == ["connectom_sa", "prisma_st"]
    session.show_only(Filter(target="connectom_sa"))
    assert [session.name(each) for each in session.rows] == ["sub-01 → connectom_sa"]


def test_a_rater_without_a_label_is_refused(root):
    with pytest.raises(UserError) as caught:
        Session.open(str(root), "anna smith")
    assert caught.value.field == "rater"


def test_contrast_is_the_median_of_the_first_few_and_stays():
    contrast = Contrast(enough=3)
    for key, high in (("a", 1.0), ("b", 9.0), ("c", 2.0)):
        assert contrast.take(key, {"FA": (0.0, high)})
    assert contrast.limits("FA") == (0.0, 2.0)
    assert not contrast.take("d", {"FA": (0.0, 100.0)})
    assert contrast.limits("FA") == (0.0, 2.0)
    assert contrast.limits("unknown") == (0.0, 1.0)


def test_the_outline_hides_no_brain_and_lies_in_the_plane():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[2, 2:4, 3] = True
    ring = outline(mask, normal=0)
    assert not (ring & mask).any()
    assert set(np.flatnonzero(ring.any(axis=(1, 2)))) == {2}
    assert ring.sum() == 6  # of two voxels beside each other


def test_numbers_have_their_units():
    said = {"snr": "3.1", "mask_ml": "3 ml", "error": "314.0 × 10⁻⁵ SH units²"}
    for key, wanted in said.items():
        assert MEASURES[key].with_unit(3.14e-3 if key == "error" else 3.14) == wanted


@pytest.mark.filterwarnings("ignore")  # napari's own, whose colours are taken
def test_there_is_no_error_where_nothing_was_predicted():
    lattice = Lattice((4, 4, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
    mask, whole = np.zeros((4, 4, 4), dtype=bool), np.ones((4, 4, 4), dtype=bool)
    mask[:2] = True
    colour = np.zeros((4, 4, 4, 3), dtype=np.uint8)
    predicted = np.where(mask, 0.9, 0).astype(np.float32)
    predicted[1, 1, 1] = 0.7
    truth = ReviewImage(np.ones((4, 4, 4), dtype=np.float32), colour, whole, lattice)
    maps = ReviewMaps(None, ReviewImage(predicted, colour, mask, lattice), truth)
    worst = worst_of(maps)
    assert worst is not None
    # Not 1, as outside of the prediction.
    assert worst.words == "squared error of the SH average: 9000 × 10⁻⁵ SH units²"
    assert own_limits(maps)["SH average error"][1] <= 0.09 + 1e-6
    (cell,) = [each for each in draw(maps, ReviewLook(), truths=True).cells if each.role == "error"]
    assert np.count_nonzero(np.isfinite(cell.data[0])) == mask.sum()
    assert np.nanmax(cell.data[0]) == pytest.approx(0.09)


def test_no_error_says_nothing_where_masks_do_not_meet():
    lattice = Lattice((4, 4, 4), np.eye(4))
    ones, colour = np.ones((4, 4, 4), dtype=np.float32), np.zeros((4, 4, 4, 3), dtype=np.uint8)
    left, right = np.zeros((4, 4, 4), dtype=bool), np.zeros((4, 4, 4), dtype=bool)
    left[:1], right[3:] = True, True
    left_one, right_one = (ReviewImage(ones, colour, each, lattice) for each in (left, right))
    maps = ReviewMaps(None, left_one, right_one)
    assert worst_of(maps) is None
    assert "SH average error" not in own_limits(maps)


def test_a_rater_stays_the_same_when_review_is_opened_again(qtbot, tmp_path):
    from napari_msp.ui.review import form

    first, again, later = (form.ReviewForm() for _ in range(3))
    first.folder.choose(tmp_path)
    first.rater.setText("anna")
    first.blind.setChecked(True)
    again.fill(first.filled)
    assert (again.folder.path, again.rater.text()) == (tmp_path, "anna")
    assert (again.blind.isChecked(), again.filled.hide_roles) == (True, False)
    later.fill(replace(first.filled, folder=tmp_path / "gone"))
    assert (later.folder.path, later.rater.text()) == (None, "anna")
