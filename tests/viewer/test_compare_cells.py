"""What a comparison shows in its cells, as pixels and in its table; one for all tests here."""

import numpy as np
import pytest
from matplotlib import colormaps
from patterns import Canvas, axial, grey, measured, predicted, window
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_msp.signal.maps import MAPS, sh_average
from napari_msp.ui.compare import widget as module
from napari_msp.ui.grid_fit import COLOUR_BAR
from napari_msp.ui.layers import make_layer, map_layer


@pytest.fixture(scope="module")
def viewer(viewer_of_all):
    return viewer_of_all


@pytest.fixture(scope="module")
def scan():
    return measured("ge_st", "back left")


@pytest.fixture(scope="module")
def truth():
    return measured("prisma_st", "front right")


@pytest.fixture(scope="module")
def predictions(scan):
    return [
        predicted("DIQT", "front left", scan),
        # In the right place and too dark: a smaller error than DIQT's everywhere.
        predicted("MSP", "front right", scan, square="middle"),
    ]


@pytest.fixture(scope="module")
def compared(viewer, qapp, scan, truth, predictions):
    """Truth, two predictions and the input, as Harmonize's button asks for them."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-msp", "Compare")
    for each in (truth, scan, *predictions):
        viewer.add_layer(make_layer(map_layer(each, "SH average", sh_average(each.sh))))
    qapp.processEvents()  # lets widgets notice
    widget.compare_predictions(predictions)
    while widget.comparing.running:
        qapp.processEvents()
    return widget


@pytest.fixture
def settle(compared, qtbot):
    def wait():
        qtbot.wait_until(lambda: not compared.comparing.running)
        qtbot.wait(20)

    return wait


def test_every_cell_shows_its_picture(viewer, compared, pixels, truth, scan, predictions):
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "sub-01 prisma_st · SH average",
        "sub-01 DIQT · SH average",
        "sub-01 MSP · SH average",
        "sub-01 ge_st · SH average",
        "sub-01 DIQT · MSE",
        "sub-01 MSP · MSE",
    ]
    canvas = Canvas(viewer, pixels())
    assert (canvas.rows, canvas.columns) == (2, 3)
    images = [truth.sh, *(each.sh for each in predictions)]
    for column, image in enumerate(images):
        seen = canvas.seen(0, column, image)
        np.testing.assert_allclose(seen.mean(-1), grey(image, window(truth.sh)), atol=0.02)
    seen = canvas.seen(1, 0, scan.sh)
    np.testing.assert_allclose(seen.mean(-1), grey(scan.sh, window(truth.sh)), atol=0.02)

    errors = [np.square(sh_average(each.sh) - sh_average(truth.sh)) for each in predictions]
    limit = np.percentile(np.concatenate([each[truth.sh.mask] for each in errors]), 99)
    for column, error in enumerate(errors, start=1):
        wanted = colormaps["inferno"](np.clip(axial(error) / limit, 0, 1))[..., :3]
        # The colour bar may stand before the last brain's corner.
        np.testing.assert_allclose(canvas.seen(1, column, truth.sh), wanted, atol=0.05)


def test_names_and_one_colour_bar_are_drawn(viewer, compared, pixels):
    from napari_msp.ui.canvas_drawing import show_colour_bar

    before = Canvas(viewer, pixels())
    assert viewer.canvas.overlays[COLOUR_BAR].layer.name == "sub-01 MSP · MSE"
    show_colour_bar(viewer, None)
    without = Canvas(viewer, pixels())
    changed = np.abs(before.picture - without.picture).sum(-1) > 0.1
    rows, columns = np.nonzero(changed)
    colours = before.picture[changed]
    for each in colormaps["inferno"](np.linspace(0, 1, 5))[:, :3]:
        assert np.abs(colours - each).sum(-1).min() < 0.1  # dark at 0, bright at the largest error
    assert rows.max() - rows.min() < 40  # no higher than the words beside it
    assert rows.min() > before.picture.shape[0] / 2
    assert columns.min() > before.picture.shape[1] * 2 / 3
    # Of what the bar covered, nothing was brain.
    height, width = before.cell(1, 2).shape[:2]
    assert rows.min() - before.picture.shape[0] + height > height / 2

    for row in range(2):
        for column in range(3):
            layer = compared.grid.layers[3 * row + column]
            layer.name_overlay.visible = False
            hidden = Canvas(viewer, pixels()).cell(row, column)
            rows, columns = np.nonzero(np.abs(without.cell(row, column) - hidden).sum(-1) > 0.1)
            assert len(rows) > 50, layer.name
            assert rows.max() < 40
            assert columns.max() < width - 2  # not cut off by the next cell
            layer.name_overlay.visible = True


def test_numbers_are_those_of_the_cells_and_saved_with_the_figure(
    compared, truth, scan, predictions, tmp_path, qtbot, monkeypatch
):
    table = compared.table.table
    assert [table.item(row, 0).text() for row in range(3)] == ["before", "DIQT", "MSP"]
    mse = [
        np.square(each.sh.coefficients - truth.sh.coefficients)[truth.sh.mask].mean()
        for each in predictions
    ]
    assert [each.sh_mse for each in compared.comparing.numbers.values()] == pytest.approx(mse)
    before = np.square(scan.sh.coefficients - truth.sh.coefficients)[truth.sh.mask].mean()
    sh, average = compared.comparing.errors("sh_average")
    for number, error in enumerate(mse, start=1):
        change = 100 * (error / before - 1)
        assert sh.change(number) == pytest.approx(change, abs=0.01)
    averages = np.square(sh_average(scan.sh) - sh_average(truth.sh))[truth.sh.mask].mean()
    assert average.values[0] == pytest.approx(averages, rel=1e-5)
    # The dock may be narrow, and a laptop's screen low.
    assert compared.minimumSizeHint().width() <= 330
    assert compared.minimumSizeHint().height() <= 800
    for name, button in (
        ("figure.pdf", compared.save_figure),
        ("figure.svg", compared.save_figure),
        ("numbers.csv", compared.save_numbers),
        ("figure.gif", compared.save_figure),
    ):
        chosen = (str(tmp_path / name), "")
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, chosen=chosen: chosen)
        compared.message.clear()
        qtbot.mouseClick(button, Qt.LeftButton)
        qtbot.wait_until(lambda: compared.message.text != "")
        if name == "figure.gif":
            assert "PNG, PDF or SVG" in compared.message.text
            assert not (tmp_path / name).exists()
        else:
            assert compared.message.text == f"Saved {tmp_path / name}"
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert "ground truth" in (tmp_path / "figure.svg").read_text()
    lines = (tmp_path / "numbers.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "prediction",
        "before",
        "DIQT",
        "MSP",
    ]
    assert lines[1].endswith(",sub-01 prisma_st")


def test_a_name_without_its_ending_is_asked_about_with_it(compared, tmp_path, monkeypatch):
    (tmp_path / "numbers.csv").write_text("kept")
    asked = []

    def refuse(*words):
        asked.append(words[2])
        return False

    typed = (str(tmp_path / "numbers"), "CSV (*.csv)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: typed)
    monkeypatch.setattr(module, "confirmed", refuse)
    compared.save_numbers.click()
    assert asked == ["numbers.csv is there already."]
    assert not compared._writing.running


def test_every_map_has_its_cells_errors_and_values(compared, settle, truth):
    x, y, z = truth.sh.affine[:3, 3] + truth.sh.affine[:3, :3] @ (4, 10, 2)
    compared.voxel._position = (z, -y, -x)
    compared.voxel.look()
    for number, each in enumerate(MAPS.values()):
        compared.form.maps.setCurrentIndex(number)
        settle()
        assert [layer.name for layer in compared.grid.layers] == [
            f"sub-01 prisma_st · {each.title}",
            f"sub-01 DIQT · {each.title}",
            f"sub-01 MSP · {each.title}",
            f"sub-01 ge_st · {each.title}",
            f"sub-01 DIQT · {each.error_title}",
            f"sub-01 MSP · {each.error_title}",
        ]
        table = compared.table.table
        title = table.horizontalHeaderItem(3).text().replace("-\n", " ").replace("-", " ")
        assert title.startswith(each.title)
        error = each.error(
            compared.comparing.compared.comparison.predictions["MSP"][each.name],
            truth.maps("sh")[each.name],
            truth.mask,
        )
        mean = error[truth.mask].mean(dtype=float)
        rows = [table.item(row, 0).text() for row in range(table.rowCount())]
        assert rows[0].startswith("before")
        assert len(rows) == 3
        assert table.item(2, 3).toolTip().startswith(f"{mean:.4g} ")
        values = {trace.name: trace.value for trace in compared.voxel.panel._traces}
        value = each.shown(truth.maps("sh")[each.name])[4, 10, 2]
        assert float(values["truth prisma_st"].split()[0]) == pytest.approx(
            float(np.ravel(value)[0]), abs=0.01
        )
    compared.form.maps.setCurrentIndex(0)
    settle()
