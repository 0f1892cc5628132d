"""α, parts and branches in the cells of a comparison: no network is run, every pixel follows."""

import json
from pathlib import Path

import numpy as np
import pytest
from patterns import Canvas, axial, head, measured, predicted
from qtpy.QtCore import Qt

from napari_msp.errors import UserError
from napari_msp.model_file import load_model
from napari_msp.packaged import packaged_model
from napari_msp.signal.maps import colour_fa, sh_average
from napari_msp.signal.sh_image import load_sh
from napari_msp.ui.compare.stages import repaint_slice
from napari_msp.ui.grid_fit import shown_name
from napari_msp.ui.layers import map_layer, shown_in

FIRST = "front left"
BRANCHES = {"connectom_sa": "back left", "connectom_st": "back right"}


@pytest.fixture(scope="module")
def model():
    return load_model(packaged_model("MSP"))


@pytest.fixture(scope="module")
def scan():
    return measured("ge_st", "front right", square="x")


@pytest.fixture(scope="module")
def viewer(viewer_of_all):
    return viewer_of_all


@pytest.fixture(scope="module")
def widget(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("napari-msp", "Compare")
    return widget


@pytest.fixture
def square():
    """Tissue in the corners of the truth and of the first stage."""
    return "bright"


@pytest.fixture
def truth(square):
    return measured("prisma_st", "front right", square=square)


@pytest.fixture
def compare(viewer, widget, qtbot, truth, scan, model, square):
    """One prediction with stages against the truth, its stages ready to be mixed."""
    made = predicted("MSP", FIRST, scan, model, BRANCHES, square=square)
    for record in (truth, made):
        data, options, _ = map_layer(record, "SH average", sh_average(record.sh))
        viewer.add_image(data, **options)
    qtbot.wait(10)
    widget.compare_predictions([made])
    qtbot.wait_until(lambda: widget.stages._stages is not None)
    qtbot.wait_until(lambda: not widget.comparing.running)
    widget.tabs.setCurrentIndex(1)
    qtbot.wait(20)
    yield widget
    widget.form.maps.setCurrentText("SH average")
    widget.leave()
    viewer.layers.clear()


@pytest.fixture
def settle(compare, qtbot):
    def working():
        return compare.stages._images.running or compare.comparing.running

    def wait():
        qtbot.wait(100)  # the pace of repaints
        qtbot.wait_until(lambda: not working())
        qtbot.wait(20)
        qtbot.wait_until(lambda: not working())

    return wait


def first():
    return head(FIRST).coefficients


def mean():
    return np.mean([head(each).coefficients for each in (FIRST, *BRANCHES.values())], axis=0)


def image_of(coefficients):
    image = head()
    image.coefficients[...] = coefficients
    return image


def grey(image, reference):
    low, high = np.percentile(sh_average(reference)[reference.mask], (1, 99))
    values = np.where(axial(image.mask), axial(sh_average(image)), 0)
    return np.clip((values - low) / (high - low), 0, 1)


def assert_shown(canvas, place, image, truth):
    seen = canvas.seen(*place, image).mean(-1)
    np.testing.assert_allclose(seen, grey(image, truth.sh), atol=0.02)


def drag(slider, qtbot, alpha):
    """Move the slider with the mouse button held down."""
    slider.setSliderDown(True)
    slider.setSliderPosition(round(100 * alpha))
    qtbot.wait(120)


def test_alpha_and_parts_are_followed(viewer, compare, pixels, qtbot, settle, truth, scan):
    """One comparison for all: to make it takes longer than to look."""
    check_alpha_repaints_both_cells_while_it_is_dragged(viewer, compare, pixels, qtbot, truth)
    compare.stages.panel.reset.click()
    settle()
    check_the_numbers_follow_when_alpha_rests(compare, settle, truth)
    check_a_part_of_the_diagram_shows_its_output(
        viewer, compare, pixels, qtbot, settle, truth, scan
    )
    check_an_image_from_a_file_says_that_it_has_no_stages(compare, settle)


def check_alpha_repaints_both_cells_while_it_is_dragged(viewer, compare, pixels, qtbot, truth):
    limit = compare.comparing.maps["sh_average"].cells.limit
    for alpha in (0.0, 0.4, 1.0):
        drag(compare.stages.panel.slider, qtbot, alpha)
        mixed = image_of((1 - alpha) * first() + alpha * mean())
        canvas = Canvas(viewer, pixels())
        assert_shown(canvas, (0, 0), truth.sh, truth)
        assert_shown(canvas, (0, 1), mixed, truth)
        error = np.square(sh_average(mixed) - sh_average(truth.sh))
        seen = canvas.seen(1, 1, mixed).sum(-1)
        wrong, right = axial(error) > 0.5 * limit, axial(error) < 1e-9
        assert seen[right].max() < 0.1
        assert wrong.any()
        assert seen[wrong].min() > 0.8
    compare.stages.panel.slider.setSliderDown(False)


def check_the_numbers_follow_when_alpha_rests(compare, settle, truth):
    before = compare.comparing.numbers
    assert list(before) == ["MSP"]
    compare.stages.panel.slider.setValue(0)
    settle()
    ((name, numbers),) = compare.comparing.numbers.items()
    mask = truth.sh.mask
    wanted = np.square(first() - truth.sh.coefficients)[mask].mean()
    assert numbers.sh_mse == pytest.approx(wanted, rel=1e-4)
    assert name == "MSP α=0.00"
    assert [layer.name for layer in compare.grid.layers[1::2]] == [
        "sub-01 MSP α=0.00 · SH average",
        "sub-01 MSP α=0.00 · MSE",
    ]
    for layer in compare.grid.layers[1::2]:  # what is saved from either is what is seen
        shown = shown_in(layer.as_layer_data_tuple())
        np.testing.assert_allclose(shown.seen.sh.coefficients, first(), atol=1e-6)
        assert shown.seen.sidecar()["Model"]["Alpha"] == 0.0
    # A slice that was computed for an α bears its name, though the slider has gone on.
    compared, cells = compare.comparing.compared, compare.comparing.maps["sh_average"].cells
    slice_ = repaint_slice(compared, cells, compare.stages._stages, 0.26, *compare.grid.where)
    truth_cell = compare.grid.layers[0]
    truth_cell.name = "a long name " * 20
    compare.stages._paint(slice_)
    assert compare.grid.layers[1].name == "sub-01 MSP α=0.26 · SH average"
    assert "\n" in shown_name(truth_cell)  # names are fitted into their cells, as they are now
    narrow = compare.stages.minimumSizeHint().width()
    compare.stages.choice.addItem("a long name " * 20)
    assert compare.stages.minimumSizeHint().width() == narrow
    compare.stages.choice.removeItem(compare.stages.choice.count() - 1)
    compare.stages.panel.reset.click()
    settle()
    after = compare.comparing.numbers["MSP"]
    assert after.sh_mse == pytest.approx(before["MSP"].sh_mse, rel=1e-6)
    assert compare.grid.layers[1].name == "sub-01 MSP · SH average"


@pytest.mark.parametrize("square", ["x"])  # fibres: others have no direction but rounding's
def test_colour_fa_follows_in_the_shown_slice_and_then_everywhere(
    viewer, compare, pixels, qtbot, settle, square
):
    compare.form.maps.setCurrentText("colour FA")
    settle()
    layer = compare.grid.layers[1]
    before = np.array(layer.data)
    drag(compare.stages.panel.slider, qtbot, 0)
    qtbot.wait_until(lambda: not np.array_equal(layer.data, before))
    high = compare.comparing.maps["colour_fa"].cells.window[1]
    wanted = np.clip(axial(colour_fa(head(FIRST, square))) / high, 0, 1)
    seen = Canvas(viewer, pixels()).seen(0, 1, head())
    np.testing.assert_allclose(seen, wanted, atol=0.03)
    shown = compare.grid.where[1]
    others = [index for index in range(len(before)) if index != shown]
    np.testing.assert_array_equal(layer.data[others], before[others])
    for quantity in ("SH average", "colour FA"):  # while the button is held
        compare.form.maps.setCurrentText(quantity)
        qtbot.wait(50)
    qtbot.wait_until(lambda: not np.array_equal(compare.grid.layers[1].data, before))
    seen = Canvas(viewer, pixels()).seen(0, 1, head())
    np.testing.assert_allclose(seen, wanted, atol=0.03)
    compare.stages.panel.slider.setSliderDown(False)
    settle()
    after = np.asarray(compare.grid.layers[1].data)
    for index in others:
        np.testing.assert_allclose(after[index], after[shown], atol=1e-5)


def check_a_part_of_the_diagram_shows_its_output(
    viewer, compare, pixels, qtbot, settle, truth, scan
):
    diagram = compare.stages.panel.diagram
    for part, image, words in (
        ("first", head(FIRST), "first stage"),
        ("branch:connectom_st", head("back right"), "branch connectom_st"),
        ("input", scan.sh, "input"),
        ("second", image_of(mean()), ""),
    ):
        qtbot.mouseClick(diagram.buttons[part], Qt.LeftButton)
        settle()
        assert diagram.lit == part
        assert_shown(Canvas(viewer, pixels()), (0, 1), image, truth)
        name = f"MSP {words}".strip()
        assert compare.grid.layers[1].name == f"sub-01 {name} · SH average"
        assert list(compare.comparing.numbers) == [name]


def test_branches_and_what_they_add(viewer, compare, pixels, qtbot, settle, truth, tmp_path):
    compare.stages.panel.slider.setValue(50)
    settle()
    qtbot.mouseClick(compare.stages.panel.branches, Qt.LeftButton)
    canvas = Canvas(viewer, pixels())
    assert (canvas.rows, canvas.columns) == (2, 4)
    second = image_of(0.5 * first() + 0.5 * mean())
    images = [head(FIRST), *(head(each) for each in BRANCHES.values()), second]
    for column, image in enumerate(images):
        assert_shown(canvas, (0, column), image, truth)
    for column, corner in enumerate(BRANCHES.values(), start=1):
        added = axial(sh_average(head(corner)) - sh_average(head(FIRST)))
        red, _, blue = np.moveaxis(canvas.seen(1, column, head()), -1, 0)
        # Brighter where the branch is, hence less signal: the first stage's square is lost.
        assert (red - blue)[added > 0.01].min() > 0.1
        assert (blue - red)[added < -0.01].min() > 0.1
        np.testing.assert_allclose((red + blue)[np.abs(added) < 1e-6], 0, atol=0.03)
    stages = compare.stages._stages
    total = sum(stages.contribution(each, 0.5) for each in BRANCHES)
    np.testing.assert_allclose(total, sh_average(second) - sh_average(head(FIRST)), atol=1e-6)
    np.testing.assert_allclose(stages.contributions(0.5), total, atol=1e-6)
    names = [layer.name for layer in compare.grid.layers]
    assert names[2] == "MSP · branch connectom_st"
    assert names[6] == "MSP · added by connectom_st"
    assert "0.50" in names[4]
    # What is saved from a branch's cell is what is seen in it, and is no measured scan.
    branch = shown_in(compare.grid.layers[2].as_layer_data_tuple()).scan
    np.testing.assert_allclose(branch.sh.coefficients, head("back right").coefficients, atol=1e-6)
    assert branch.sidecar()["Target"] == "prisma_st"
    assert branch.name == "MSP branch connectom_st prisma_st"

    with pytest.raises(UserError, match=r"The contribution would not be saved, .* Shown map"):
        compare.grid.layers[6].save(str(tmp_path / "added.nii.gz"))
    assert not (tmp_path / "added.nii.gz").exists()
    for alpha in (0.5, 0.3):
        compare.stages.panel.slider.setValue(round(100 * alpha))
        qtbot.wait(120)
        (saved, sidecar) = compare.grid.layers[3].save(str(tmp_path / f"{alpha}.nii.gz"))
        wanted = (1 - alpha) * first() + alpha * mean()
        np.testing.assert_allclose(load_sh(saved).coefficients, wanted, atol=1e-6)
        assert json.loads(Path(sidecar).read_text())["Model"]["Alpha"] == alpha

    compare.stages.panel.slider.setValue(0)
    qtbot.wait(120)
    canvas = Canvas(viewer, pixels())
    assert_shown(canvas, (0, 3), head(FIRST), truth)
    assert canvas.seen(1, 3, head()).max() < 0.03

    qtbot.mouseClick(compare.stages.panel.branches, Qt.LeftButton)
    settle()
    canvas = Canvas(viewer, pixels())
    assert (canvas.rows, canvas.columns) == (2, 2)
    assert_shown(canvas, (0, 1), head(FIRST), truth)

    qtbot.mouseClick(compare.stages.panel.branches, Qt.LeftButton)
    compare.leave()
    assert [layer.name for layer in viewer.layers] == [
        "sub-01 prisma_st · SH average",
        "sub-01 MSP prisma_st · SH average",
    ]
    assert not viewer.canvas.grid.enabled
    assert compare.stages._stages is None


def check_an_image_from_a_file_says_that_it_has_no_stages(compare, settle):
    compare.form.choose("", ["sub-01 prisma_st"])
    compare.show_comparison()
    settle()
    assert "from a file" in compare.stages.panel.words.text()
    assert compare.stages._stages is None
