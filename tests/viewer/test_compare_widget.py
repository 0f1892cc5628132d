"""Compare in a real viewer: the right cell shows the right picture, and nothing is left behind."""

from dataclasses import replace

import numpy as np
import pytest
from patterns import Canvas, axial, grey, head, measured, named, predicted, window
from qtpy.QtCore import Qt

from napari_msp.provenance import BROUGHT_BACK
from napari_msp.signal.maps import colour_fa, sh_average
from napari_msp.ui.compare.compared import Question
from napari_msp.ui.compare.widget import ALL_DELETED, LOWEST, NOT_YET, TARGETS_DIFFER
from napari_msp.ui.grid_fit import LEGEND
from napari_msp.ui.layers import map_layer, shown_by
from napari_msp.ui.shared import shared_by


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


@pytest.fixture
def add(viewer, qtbot):
    """Show a scan's SH average as the other widgets do."""

    def add_one(*scans):
        for scan in scans:
            data, options, _ = map_layer(scan, "SH average", sh_average(scan.sh))
            viewer.add_image(data, **options)
        qtbot.wait(10)  # let widgets notice

    return add_one


@pytest.fixture
def scan():
    return measured("ge_st", "back left")


@pytest.fixture
def truth():
    return measured("prisma_st", "front right")


@pytest.fixture
def predictions(scan):
    return [
        predicted("DIQT", "front left", scan),
        # In the right place and too dark: a smaller error than DIQT's everywhere.
        predicted("MSP", "front right", scan, square="middle"),
    ]


@pytest.fixture
def compare(open_widget):
    return open_widget("Compare")


@pytest.fixture
def settle(compare, qtbot):
    def wait():
        qtbot.wait_until(lambda: not compare.comparing.running)
        qtbot.wait(20)

    return wait


@pytest.fixture
def compared(add, scan, truth, predictions, compare, settle):
    """Truth, two predictions and the input, as Harmonize's button asks for them."""
    add(truth, scan, *predictions)
    compare.compare_predictions(predictions)
    settle()
    return compare


def test_the_input_lies_in_place_in_its_own_voxels(
    viewer, add, compare, settle, pixels, scan, predictions
):
    fine = measured("connectom_sa", "front right", scale=2)
    add(fine)
    compare.comparing.answer(Question(fine, predictions[:1], scan), "sh_average")
    settle()
    canvas = Canvas(viewer, pixels())
    wanted = grey(fine.sh, window(fine.sh))
    np.testing.assert_allclose(canvas.seen(0, 0, fine.sh).mean(-1), wanted, atol=0.02)
    wanted = grey(scan.sh, window(fine.sh))
    np.testing.assert_allclose(canvas.seen(1, 0, scan.sh).mean(-1), wanted, atol=0.02)
    assert "DIQT was interpolated linearly from 4.00" in compare.message.text
    assert "DIQT was interpolated linearly" in compare.comparing.compared.caption("axial", 3)
    assert "DIQT: interpolated" in viewer.canvas.overlays[LEGEND].text
    compare.form.maps.setCurrentText("FA")
    settle()
    assert "DIQT was interpolated linearly from 4.00" in compare.message.text
    made = replace(predictions[1].provenance, approximations=(BROUGHT_BACK,))
    back = replace(predictions[1], provenance=made)
    compare.comparing.answer(Question(scan, [predictions[0], back], scan), "sh_average")
    settle()
    assert "MSP: interpolated" in viewer.canvas.overlays[LEGEND].text
    assert "DIQT, MSP: interpolated" not in viewer.canvas.overlays[LEGEND].text
    assert f"MSP: {BROUGHT_BACK}" in compare.comparing.compared.caption("axial", 3)


def test_others_do_not_get_into_a_comparison(
    viewer, compared, add, settle, pixels, truth, predictions
):
    """One comparison for both: to make it takes longer than to look."""
    check_the_order_can_be_turned(viewer, compared, settle, pixels, truth, predictions)
    check_layers_that_come_or_are_shown_meanwhile_stay_out_of_the_grid(
        viewer, compared, add, pixels
    )


def check_the_order_can_be_turned(viewer, compared, settle, pixels, truth, predictions):
    compared.comparing.answer(Question(truth, predictions[::-1], None), "sh_average")
    settle()
    assert [layer.name for layer in compared.grid.layers] == [
        "sub-01 prisma_st · SH average",
        "sub-01 MSP · SH average",
        "sub-01 DIQT · SH average",
        "no input scan",
        "sub-01 MSP · MSE",
        "sub-01 DIQT · MSE",
    ]
    canvas = Canvas(viewer, pixels())
    for column, prediction in enumerate(predictions[::-1], start=1):
        seen = canvas.seen(0, column, prediction.sh).mean(-1)
        np.testing.assert_allclose(seen, grey(prediction.sh, window(truth.sh)), atol=0.02)


def check_layers_that_come_or_are_shown_meanwhile_stay_out_of_the_grid(
    viewer, compared, add, pixels
):
    before = pixels()
    add(measured("connectom_st", "front left"))
    assert not viewer.layers[-1].visible
    np.testing.assert_array_equal(pixels(), before)
    assert "sub-01 connectom_st" in compared.form.predictions_list.names
    viewer.layers[0].visible = True
    np.testing.assert_array_equal(pixels(), before)
    words = "Leave the comparison to see “sub-01 prisma_st · SH average”."
    assert compared.message.words.text() == words
    compared.leave()
    assert viewer.layers[0].visible
    assert viewer.layers[-1].visible
    assert compared.message.isHidden()


def test_colour_fa_has_one_gain_and_its_own_errors(
    viewer, add, compare, settle, qtbot, pixels, scan
):
    truth = measured("prisma_st", "front right", square="x", rest="y")
    prediction = measured("prediction", "back left", square="z", rest="y")
    add(truth, prediction)
    compare.form.choose("sub-01 prisma_st", ["sub-01 prediction"])
    compare.show_comparison()
    settle()
    compare.form.maps.setCurrentText("colour FA")
    settle()
    fa = np.linalg.norm(colour_fa(truth.sh)[truth.sh.mask], axis=-1)
    gain = 1 / np.percentile(fa, 98)
    canvas = Canvas(viewer, pixels())
    for column, record in enumerate((truth, prediction)):
        wanted = np.clip(gain * axial(colour_fa(record.sh)), 0, 1)
        np.testing.assert_allclose(canvas.seen(0, column, record.sh), wanted, atol=0.02)
    error = np.square(colour_fa(prediction.sh) - colour_fa(truth.sh)).mean(-1)
    seen = canvas.seen(1, 1, truth.sh).sum(-1)
    assert seen[axial(error) > 0.1].min() > seen[axial(error) < 1e-6].max() + 0.5
    shown = compare.grid.layers[0]
    assert shown.name == "sub-01 prisma_st · colour FA"
    assert shown.metadata["colours multiplied by"] == pytest.approx(gain)


def test_without_truth_disagreement_stands_below(
    viewer, add, compare, settle, pixels, scan, predictions
):
    branching = predicted("MSP", "front left", scan, branches={"a": "back right"})
    add(scan, predictions[0], branching)
    (newest,) = compare.form.predictions  # ticked as it came: nothing else was
    assert "MSP" in newest
    compare.form.choose_truth("sub-01 ge_st")
    assert compare.table.words.text() == NOT_YET
    compare.compare_predictions([predictions[0], branching])
    settle()
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "sub-01 ge_st · SH average",
        "sub-01 DIQT · SH average",
        "sub-01 MSP · SH average",
        "no ground truth",
        "DIQT · no disagreement:\none network has nothing to disagree with",
        "sub-01 MSP · disagreement",
    ]
    canvas = Canvas(viewer, pixels())
    limits = window(predictions[0].sh)
    seen = canvas.seen(0, 0, scan.sh).mean(-1)
    np.testing.assert_allclose(seen, grey(scan.sh, limits), atol=0.02)
    assert canvas.seen(1, 1, scan.sh).max() < 0.02
    # Nothing is coloured outside the brain; what is written there is white.
    above = canvas.cell(1, 2)[40:60]
    assert np.ptp(above, axis=-1).max() < 0.02
    seen = canvas.seen(1, 2, scan.sh).sum(-1)
    apart = axial(branching.disagreement)
    # Viridis begins dark purple, where the terms agree.
    assert seen[apart > 0.5 * apart.max()].min() > seen[apart == 0].max() + 0.3
    assert compare.table.words.text().startswith("No numbers")
    made = replace(branching.provenance, target="connectom_sa")
    add(replace(branching, provenance=made, target="connectom_sa"))
    listed = compare.form.predictions_list
    listed.set_names(listed.names, [listed.names[0], next(n for n in listed.names if "_sa" in n)])
    assert compare.form.rows.said("truth") == TARGETS_DIFFER
    listed.set_names(listed.names, listed.names[:1])
    assert compare.form.rows.said("truth") == ""


def test_four_predictions_have_a_column_each(viewer, add, compare, settle, pixels, truth, qtbot):
    corners = ["front left", "back left", "back right", "front right"]
    predictions = [predicted(f"P{n}", corner) for n, corner in enumerate(corners)]
    add(truth, *predictions)
    compare.compare_predictions(predictions)
    settle()
    canvas = Canvas(viewer, pixels())
    assert (canvas.rows, canvas.columns) == (2, 5)
    for column, prediction in enumerate(predictions, start=1):
        seen = canvas.seen(0, column, prediction.sh).mean(-1)
        np.testing.assert_allclose(seen, grey(prediction.sh, window(truth.sh)), atol=0.02)
    assert compare.grid.layers[5].name == "no input scan"
    cells = [layer for layer in viewer.layers if shown_by(layer).view == "compare"]
    assert len(cells) == 10
    check_a_low_window_folds_the_choice_away(viewer, compare, settle, qtbot)


def check_a_low_window_folds_the_choice_away(viewer, compare, settle, qtbot):
    window, form, tabs = viewer.window._qt_window, compare.form, compare.tabs
    assert form.what.isChecked()
    form.shells.addItems(["b = 1000 s/mm²", "b = 2000 s/mm²"])
    form.rows.show_row("b_value", True)  # a form is not higher than this
    window.resize(1089, 629)
    qtbot.wait_until(lambda: not form.what.isChecked())
    form.what.click()  # a person may look at it
    qtbot.wait_until(lambda: tabs.height() == LOWEST)
    assert (window.height(), form.shells.isVisible()) == (629, True)
    form.show_button.click()
    settle()
    assert not form.truths.isVisible()
    assert not form.shells.isVisible()
    for number in range(tabs.count()):
        tabs.setCurrentIndex(number)
        qtbot.wait(20)
        seen = tabs.currentWidget().visibleRegion().boundingRect()
        assert seen.height() >= 180, tabs.tabText(number)
    check_who_deletes_every_cell_has_left(viewer, compare, qtbot)
    assert form.truths.isVisible()


def check_who_deletes_every_cell_has_left(viewer, compare, qtbot):
    viewer.layers.remove(compare.grid.layers[0])
    qtbot.wait(20)
    assert compare.grid.active
    viewer.layers.clear()
    qtbot.wait_until(lambda: not compare.grid.active)
    assert compare.message.text == ALL_DELETED
    assert not compare.save_numbers.isEnabled()


def test_leaving_brings_everything_back(
    viewer, add, compare, settle, pixels, scan, truth, predictions, qtbot
):
    add(truth, scan, *predictions)
    viewer.layers[0].visible = False
    viewer.layers[1].contrast_limits = (0, 0.5)
    viewer.dims.set_point(0, 3.0)
    viewer.scene.camera.zoom = 5
    viewer.canvas.grid.shape = (2, 2)
    viewer.canvas.grid.enabled = True
    before, names = pixels(), [layer.name for layer in viewer.layers]
    state = repr((viewer.canvas.grid, viewer.scene.camera, viewer.dims.point))
    compare.compare_predictions(predictions)
    settle()
    assert np.abs(pixels() - before).mean() > 0.02
    qtbot.mouseClick(compare.form.leave_button, Qt.LeftButton)
    assert [layer.name for layer in viewer.layers] == names
    assert [layer.visible for layer in viewer.layers] == [False, True, True, True]
    assert repr((viewer.canvas.grid, viewer.scene.camera, viewer.dims.point)) == state
    np.testing.assert_array_equal(pixels(), before)
    assert not compare.form.leave_button.isEnabled()


def test_what_does_not_belong_together_is_refused_in_words(
    viewer, add, compare, settle, predictions
):
    image = head("front left")
    elsewhere = image.affine + 500 * np.eye(4, k=3)
    refused = {
        "is of sub-01": measured("prisma_st", "front left", subject="sub-02"),
        "b = 1200 s/mm²": named(replace(image, b_value=3000.0), "another_b"),
        "overlap": named(replace(image, affine=elsewhere), "elsewhere"),
        "b-value is unknown": named(replace(image, b_value=None), "unknown_b"),
    }
    add(*refused.values(), *predictions)
    for words, truth in refused.items():
        compare.form.choose(truth.owner, ["sub-01 DIQT prisma_st"])
        compare.show_comparison()
        settle()
        assert words in compare.message.text
        assert compare.progress.state == "idle"
        assert not compare.grid.active
        assert all(layer.visible for layer in viewer.layers)


def test_truth_on_disk_is_found_and_read(viewer, heads, compare, settle, pixels):
    from napari_msp.scan_sources import load_scan

    paths = {
        platform: next(heads.glob(f"sub-01/ses-{platform}/dwi/*_dwi.nii.gz"))
        for platform in ("ge", "prisma")
    }
    scan = load_scan(paths["ge"])
    made = replace(predicted("MSP", "front left", scan), given_sh=scan.sh)
    compare.compare_predictions([made])
    assert compare.form.truth == "sub-01 prisma_st (on disk)"
    settle()
    truth = load_scan(paths["prisma"])
    shown = compare.grid.layers[0]
    assert shown.name == "sub-01 prisma_st · SH average"
    mask = truth.sh.mask
    values = np.sort(np.asarray(shown.data)[shown.data != 0])
    np.testing.assert_allclose(values, np.sort(sh_average(truth.sh)[mask]), rtol=1e-5)


def test_closing_the_viewer_meanwhile_is_survived(viewer, add, compare, truth, predictions, qtbot):
    add(truth, *predictions)
    compare.compare_predictions(predictions)
    assert compare.comparing.running
    viewer.close()
    qtbot.wait(300)


def test_cancelling_leaves_a_usable_form(
    viewer, add, compare, settle, scan, truth, predictions, qtbot
):
    add(truth, scan, *predictions)
    compare.compare_predictions(predictions)
    compare.progress.cancel.click()
    settle()
    assert compare.progress.state == "idle"
    assert compare.message.text == ""
    assert not viewer.canvas.grid.enabled
    compare.form.show_button.click()
    settle()
    assert viewer.canvas.grid.enabled
    check_closing_the_dock_leaves_the_comparison(viewer, compare, qtbot)


def check_closing_the_dock_leaves_the_comparison(viewer, compared, qtbot):
    dock = compared.parent()
    viewer.window.remove_dock_widget(dock)
    qtbot.wait(20)
    assert not viewer.canvas.grid.enabled
    assert all(layer.visible for layer in viewer.layers)
    assert len(viewer.layers) == 4
    assert not viewer.mouse_move_callbacks


def test_what_was_computed_while_a_review_was_opened_is_shown_when_it_leaves(
    viewer, add, compare, settle, truth, predictions, qtbot
):
    add(truth, *predictions)
    compare.compare_predictions(predictions)
    shared_by(viewer).take("the review")
    settle()
    assert compare.message.text.startswith("Leave the review first")
    assert not compare.grid.active
    shared_by(viewer).release()
    qtbot.wait_until(lambda: compare.grid.active)
    assert compare.message.text.startswith("MSP lies 8.0 mm, 2.0")
    assert not compare.form.show_button.font().bold()

    viewer.close()  # with a comparison in it
    qtbot.wait(100)


def at_3000(scan):
    """The same scan of a higher shell, darker."""
    sh = replace(scan.sh, coefficients=scan.sh.coefficients * np.float32(0.6), b_value=3000.0)
    return replace(scan, given_sh=sh)


def test_of_several_shells_one_is_compared_and_another_a_choice_away(
    viewer, add, compare, settle, scan, truth, predictions
):
    high = [at_3000(each) for each in predictions]
    high_truth = at_3000(truth)
    add(truth, high_truth, scan, *predictions, *high)
    compare.compare_predictions([*predictions, *high])
    settle()
    assert compare.form.shells.isVisibleTo(compare.form)
    assert compare.form.shell == 1200
    for shell, images, true in ((1200, predictions, truth), (3000, high, high_truth)):
        compare.form.shells.setCurrentIndex(compare.form.shells.findData(shell))
        compare.form.shells.activated.emit(compare.form.shells.currentIndex())
        settle()
        shown = compare.comparing.compared
        assert list(shown.predictions.values()) == images
        assert shown.truth is true
        legend = " ".join(viewer.canvas.overlays[LEGEND].text.split())
        assert f"b = {shell}" in legend  # of the input at another one, the predictions'
        assert f"b = {shell}" in shown.caption("axial", 3)
        assert "× 10⁻⁵ SH units²" in legend  # as in the table
        for image, metrics in zip(images, compare.comparing.numbers.values(), strict=True):
            inside = image.mask & true.mask
            error = np.square(image.sh.coefficients[inside] - true.sh.coefficients[inside]).mean()
            assert metrics.sh_mse == pytest.approx(error, rel=1e-5)
    assert compare.message.text.startswith("MSP lies 8.0 mm, 2.0")
