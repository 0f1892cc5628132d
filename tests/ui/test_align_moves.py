"""What came of an alignment: the table, the words, and the heads that are looked at."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_msp.alignment.report import AlignedScan, Alignment
from napari_msp.checking.summary import Finding
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Advice
from napari_msp.ui.align.aligning import (
    AlignChoice,
    align_heads,
    board,
    head_layers,
    quantity_of,
    remarks,
    summary,
)
from napari_msp.ui.align.moves import Moves
from napari_msp.ui.layers import KEY, lattice_shown
from napari_msp.ui.reading import Control
from napari_msp.ui.viewer_axes import from_shown

STEP = 2.4
"""A voxel of the small heads, in mm: by so much one of them was moved to the right."""


@pytest.fixture(scope="module")
def choice(heads, tmp_path_factory):
    """Two scans of a head, of which the second lies a voxel further right."""
    root = tmp_path_factory.mktemp("moved") / "heads"
    for session in ("ge", "prisma"):
        shutil.copytree(heads / f"sub-01/ses-{session}", root / f"sub-01/ses-{session}")
    for path in (root / "sub-01/ses-prisma/dwi").glob("*.nii.gz"):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 3] += STEP
        nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(path)
    return AlignChoice(root, root.with_name("out"), "ge_st")


@pytest.fixture(scope="module")
def steps():
    return []


@pytest.fixture(scope="module")
def alignment(choice, steps):
    return align_heads(choice, False, Control(lambda: False, steps.append))


@pytest.fixture
def moves(alignment, qtbot):
    view = Moves()
    view.asked = []
    view.chosen.connect(view.asked.append)
    qtbot.addWidget(view)
    view.show_alignment(alignment, ["A remark."])
    view.show()
    qtbot.waitExposed(view)
    return view


def texts(moves, row):
    return [moves.table.item(row, column).text() for column in range(5)]


def test_progress_counts_scans(alignment, steps):
    assert [(step.words, step.done, step.total) for step in steps[1:]] == [
        ("sub-01 ge_st is done", 1, 2),
        ("sub-01 prisma_st is done", 2, 2),
    ]


def test_a_row_says_by_how_much_it_was_moved(moves):
    assert texts(moves, 0) == ["sub-01 ge_st", "–", "–", "–", "–"]
    name, shift, turn, before, after = texts(moves, 1)
    assert name == "sub-01 prisma_st"
    assert float(shift) == pytest.approx(STEP, abs=0.1)
    assert float(turn) < 0.5
    assert float(before) == pytest.approx(1, abs=0.05)
    assert after == "<0.05"


def test_a_row_is_chosen_by_keyboard_and_copied_with_full_precision(moves, qtbot):
    assert not moves.seen.isVisible()
    moves.table.setCurrentCell(1, 0)
    assert [scan.platform for scan in moves.asked] == ["prisma_st"]
    assert moves.seen.isVisible()
    assert not moves.hint.isVisible()
    qtbot.keyClick(moves.table, Qt.Key_C, Qt.ControlModifier)
    header, row = QApplication.clipboard().text().splitlines()
    values = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert values["platform"] == "prisma_st"
    assert float(values["shift_mm_before"]) == pytest.approx(STEP, abs=0.1)
    assert len(values["shift_mm_before"]) > 8


def test_what_is_seen_is_one_of_three(moves, qtbot):
    moves.table.setCurrentCell(1, 0)
    assert moves.view == "after"
    with qtbot.waitSignal(moves.view_changed):
        qtbot.mouseClick(moves.views["before"], Qt.LeftButton)
    assert moves.view == "before"
    assert not moves.views["after"].isChecked()
    qtbot.mouseClick(moves.views["input"], Qt.LeftButton)
    assert not moves.board.isEnabled()  # it has no other's squares
    moves.table.setCurrentCell(0, 0)  # the input itself
    assert not moves.views["before"].isEnabled()
    assert quantity_of("before", False) == "b0 before"
    assert quantity_of("before", True) == "checkerboard before"


@pytest.mark.parametrize(
    ("distances", "words"),
    [
        ((0.01,), "1 scan aligned with ge_st, now <0.05 voxels away."),
        ((0.01, 0.02), "2 scans aligned with ge_st, now <0.05 voxels away at most."),
        (
            (0.01, 0.02, 0.4),
            "3 scans aligned with ge_st, now <0.05 voxels away in median, 0.40 at most.",
        ),
    ],
)
def test_how_far_heads_are_away_is_said_once(distances, words):
    after = [SimpleNamespace(distance=each) for each in distances]
    scans = [SimpleNamespace(after=each, image="a.nii.gz") for each in after]
    done = SimpleNamespace(scans=scans, input_platform="ge_st")
    assert summary(cast(Alignment, done)) == words


def test_what_is_doubtful_is_told_once_and_by_its_place(qtbot):
    findings = tuple(
        Finding("error", f"sub-0{n} prisma_st", "left out: is empty", Advice("scan again"))
        for n in (1, 2)
    )
    scans = tuple(AlignedScan(f"sub-0{n}", "prisma_st", None) for n in (1, 2))
    done = Alignment(Path("/out"), "ge_st", scans, findings)
    warned = ["/data/heads/sub-01/a_dwi.nii.gz: odd"] * 2
    assert remarks(done, warned, Path("/data/heads")) == [
        "sub-01 prisma_st and sub-02 prisma_st: left out: is empty; scan again.",
        "sub-01/a_dwi.nii.gz: odd.",
    ]
    assert summary(done).endswith("Left out: sub-01 prisma_st and sub-02 prisma_st.")
    view = Moves()
    qtbot.addWidget(view)
    view.show_alignment(done, [])
    assert texts(view, 0) == ["sub-01 prisma_st", "left out", "–", "–", "–"]
    assert view.table.item(0, 1).toolTip() == "left out: is empty"
    view.table.setCurrentCell(0, 0)
    assert view.scan is None
    more = Finding("warning", "sub-01 prisma_st", "lies far away")
    view.show_alignment(replace(done, findings=(*findings, more)), [])
    assert view.table.item(0, 1).toolTip() == "left out: is empty\nlies far away"


# --- The heads --------------------------------------------------------------------------------


def layers_of(choice, alignment, platform):
    [scan] = [each for each in alignment.scans if each.platform == platform]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return head_layers(choice, alignment, scan, Control(lambda: False, lambda _: None))


def test_heads_lie_where_the_files_say(choice, alignment):
    layers = layers_of(choice, alignment, "prisma_st")
    given = open_dataset(choice.dataset)
    lattice = given.acquisition("sub-01", "ge_st").lattice
    b0 = given.acquisition("sub-01", "prisma_st").b0
    before, after = (from_shown(layers[f"b0 {when}"][0], lattice) for when in ("before", "after"))
    # Stored from left to right backwards: a voxel to the right is one index less.
    np.testing.assert_allclose(before[:-1], b0[1:], rtol=1e-5)
    assert not before[-1].any()
    inside = np.s_[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(after[inside], b0[inside], rtol=0.1)
    assert np.abs(after - b0)[inside].mean() < 0.1 * np.abs(before - b0)[inside].mean()


def test_layers_are_named_and_placed_by_the_rule_and_are_nobodys_scan(choice, alignment):
    layers = layers_of(choice, alignment, "prisma_st")
    names = [options["name"] for _, options, _ in layers.values()]
    assert names == [
        "sub-01 ge_st · b0",
        "sub-01 prisma_st · b0 before",
        "sub-01 prisma_st · checkerboard before",
        "sub-01 prisma_st · b0 after",
        "sub-01 prisma_st · checkerboard after",
    ]
    for data, options, kind in layers.values():
        assert kind == "image"
        assert options["scale"] == pytest.approx((2.4, 2.4, 2.4))
        assert options["translate"] == layers["b0"][1]["translate"]
        assert options["units"] == ("mm",) * 3
        assert options["metadata"][KEY] is None  # nobody's, but with letters
        assert lattice_shown(data, options) is not None


def test_squares_are_of_both_heads_in_turn(choice, alignment):
    layers = layers_of(choice, alignment, "prisma_st")
    lattice = open_dataset(choice.dataset).acquisition("sub-01", "ge_st").lattice
    squares = board(lattice)
    assert 0.3 < squares.mean() < 0.7
    assert squares[0, 0, 0] != squares[7, 0, 0] == squares[0, 7, 0]  # 7 voxels are over 15 mm
    shown = {name: from_shown(data, lattice) for name, (data, _, _) in layers.items()}
    for name, source in (("b0", squares), ("b0 after", ~squares)):
        low, high = layers[name][1]["contrast_limits"]
        wanted = np.clip((shown[name] - low) / (high - low), 0, 1)
        mixed = shown["checkerboard after"]
        np.testing.assert_allclose(mixed[source], wanted[source], atol=1e-6)


def test_the_input_is_shown_alone(choice, alignment):
    assert list(layers_of(choice, alignment, "ge_st")) == ["b0"]


def test_of_images_that_were_interpolated_the_head_before_is_read_too(choice, alignment, tmp_path):
    """Written voxels are made others' than the given ones, as interpolation does."""
    out = tmp_path / "out"
    shutil.copytree(alignment.out, out)
    [scan] = [each for each in alignment.scans if each.platform == "prisma_st"]
    written = nib.load(out / scan.image)
    doubled = 2 * np.asarray(written.dataobj)
    nib.Nifti1Image(doubled, written.affine).to_filename(out / scan.image)
    interpolated = replace(alignment, out=out, scans=(replace(scan, clipped=0.0),))
    layers = layers_of(choice, interpolated, "prisma_st")
    given = open_dataset(choice.dataset)
    lattice = given.acquisition("sub-01", "ge_st").lattice
    b0 = given.acquisition("sub-01", "prisma_st").b0
    before, after = (from_shown(layers[f"b0 {when}"][0], lattice) for when in ("before", "after"))
    np.testing.assert_allclose(before[:-1], b0[1:], rtol=1e-5)
    inside = np.s_[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(after[inside], 2 * b0[inside], rtol=0.1)


def test_a_finer_scan_keeps_its_voxels(heads):
    """Unmoved: its voxels lie on the input's lattice, divided in two."""
    scan = AlignedScan("sub-01", "connectom_sa", Path("any"))
    done = Alignment(heads, "ge_st", (scan,), ())
    layers = layers_of(AlignChoice(heads, heads), done, "connectom_sa")
    acquisition = open_dataset(heads).acquisition("sub-01", "connectom_sa")
    data, options, _ = layers["b0 after"]
    assert options["scale"] == pytest.approx((1.2, 1.2, 1.2))
    assert layers["b0"][1]["scale"] == pytest.approx((2.4, 2.4, 2.4))
    np.testing.assert_allclose(from_shown(data, acquisition.lattice), acquisition.b0, rtol=1e-4)
