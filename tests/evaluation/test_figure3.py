"""Figure 3, looked at as pixels."""

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import UserError
from napari_msp.evaluation.figures.layout import FORMATS, round_length, write_figure
from napari_msp.evaluation.figures.paper import figure3 as draw
from napari_msp.evaluation.figures.slices import choose_slice
from napari_msp.evaluation.line_up import as_maps, doubt_maps, line_up
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.signal.sh_image import write_sh
from napari_msp.ui.layers import LOOKS

A, B, C = "(a) SH average", "(b) colour FA (SH series)", "(c) disagreement of branches"
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def axes_of(figure, label):
    (found,) = [axes for axes in figure.axes if axes.get_label() == label]
    return found


def figure3(truth, predictions, input_image=None, **options) -> Figure:
    """Line up, and draw."""
    source = None if input_image is None else as_maps(input_image)
    return draw(line_up(truth, predictions), source, **options)


@lru_cache(maxsize=4)  # a figure is not changed once it is drawn
def render(figure):
    """The figure's pixels, (rows, columns, 3) in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255.0


def pixels_of(figure, label):
    """The rendered colour at each voxel's centre, (rows, columns, 3)."""
    axes = axes_of(figure, label)
    rows, columns = axes.images[0].get_array().shape[:2]
    centres = np.moveaxis(np.indices((rows, columns)), 0, -1).reshape(-1, 2)
    x, y = axes.transData.transform(centres[:, ::-1]).T
    image = render(figure)
    shown = image[(image.shape[0] - y).astype(int), x.astype(int)]
    return shown.reshape(rows, columns, 3)


def without_marks(figure):
    """Take letters and scale bars away, which are drawn over voxels."""
    for axes in figure.axes:
        if str(axes.get_label()).endswith(("image", "map")):
            for mark in (*axes.texts, *axes.patches):
                mark.set_visible(False)
    return figure


def labels(figure):
    return [axes.get_label() for axes in figure.axes]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def with_blob(image, positions, at, value=3.0):
    """Brighten the voxels within 5 mm of a scanner position."""
    near = (np.linalg.norm(positions(image.lattice) - at, axis=-1) < 5) & image.mask
    assert near.any()
    coefficients = image.coefficients * 0.2
    coefficients[near, 0] = value
    return replace(image, coefficients=coefficients)


def brightest(pixels):
    """Centre of the bright part as shares of width and height, from the top left."""
    rows, columns = np.nonzero(pixels.sum(-1) > 0.9 * pixels.sum(-1).max())
    return columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]


@pytest.fixture
def pair(head):
    """Truth, and two predictions that err by 0.1 and 0.2 on the first coefficient."""
    truth = head()
    predictions = {}
    for name, error in (("DIQT", 0.2), ("MSP", 0.1)):
        coefficients = truth.coefficients.copy()
        coefficients[truth.mask, 0] += error
        predictions[name] = replace(truth, coefficients=coefficients)
    return truth, predictions


@pytest.mark.parametrize("storage", ["RAS", "LAS", "permuted"])
@pytest.mark.parametrize(
    ("axis", "at", "across", "down"),
    [
        ("axial", (-8, 10, 0), "right", "top"),  # the patient's left, anterior
        ("coronal", (8, 0, 7), "left", "top"),  # the patient's right, superior
        ("sagittal", (0, 10, -7), "left", "bottom"),  # anterior, inferior
    ],
)
def test_sides_are_anatomical_for_every_storage(head, positions, storage, axis, at, across, down):
    image = with_blob(head(storage), positions, np.array(at, dtype=float))
    figure = without_marks(figure3(image, {"a": image}, axis=axis))
    figure.set_dpi(60)  # quick to draw
    for label in (f"{A} · ground truth · image", f"{A} · a · image"):
        x, y = brightest(pixels_of(figure, label))
        place = {"left": x < 0.4, "right": x > 0.6, "top": y < 0.4, "bottom": y > 0.6}
        assert place[across], (label, x, y)
        assert place[down], (label, x, y)


@pytest.mark.parametrize(
    ("axis", "left", "right", "top", "bottom"),
    [("axial", *"RLAP"), ("coronal", *"RLSI"), ("sagittal", *"APSI")],
)
def test_letters_stand_at_their_sides(head, axis, left, right, top, bottom):
    figure = figure3(head(), {"a": head()}, axis=axis)
    letters = axes_of(figure, f"{A} · ground truth · image").texts
    places = {letter.get_text(): letter.get_position() for letter in letters}
    assert places[left][0] < 0.1
    assert places[right][0] > 0.9
    assert places[top][1] > 0.9
    assert places[bottom][1] < 0.1
    assert axes_of(figure, f"{A} · a · image").texts.__len__() == 0


def test_images_share_truths_contrast(head):
    truth = head()
    brighter = replace(truth, coefficients=truth.coefficients * 1.1)
    figure = without_marks(figure3(truth, {"same": truth, "brighter": brighter}))
    for block in (A, B):
        shown = pixels_of(figure, f"{block} · ground truth · image")
        assert np.array_equal(shown, pixels_of(figure, f"{block} · same · image"))
    # The grey of a voxel is its place between truth's percentiles.
    average = truth.coefficients[..., :6].mean(-1)
    low, high = np.percentile(average[truth.mask], [1, 99])
    view = choose_slice(truth.mask, truth.lattice)
    for name, gain in (("same", 1.0), ("brighter", 1.1)):
        expected = np.clip((gain * view.cut(average) - low) / (high - low), 0, 1)
        grey = pixels_of(figure, f"{A} · {name} · image")
        np.testing.assert_allclose(grey, expected[..., None] * np.ones(3), atol=0.008)  # 256 greys


def test_outside_the_brain_is_black_and_the_page_white(pair):
    truth, predictions = pair
    figure = figure3(truth, predictions, truth)
    image = render(figure)
    assert (image[:5] == 1).all()
    for axes in figure.axes:
        if str(axes.get_label()).endswith(("image", "map")):
            corner = pixels_of(figure, axes.get_label())[:2, :2]
            assert corner.max() < 0.02  # the error colours begin at (0, 0, 0.01)


def test_no_error_is_black_and_errors_share_one_scale(pair):
    truth, predictions = pair
    figure = figure3(truth, {"perfect": truth, **predictions})
    for block in (A, B):
        assert pixels_of(figure, f"{block} · perfect · map").max() < 0.02
    limits = {
        axes.images[0].get_clim()
        for axes in figure.axes
        if str(axes.get_label()).startswith(A)
        if str(axes.get_label()).endswith("map")
    }
    assert len(limits) == 1
    # DIQT errs by 0.2 / 6 everywhere, which ends the scale; MSP's square is a quarter of it.
    inferno = matplotlib.colormaps["inferno"]
    for name, share in (("DIQT", 1.0), ("MSP", 0.25)):
        shown = pixels_of(figure, f"{A} · {name} · map")
        middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
        np.testing.assert_allclose(middle, inferno(share)[:3], atol=0.02)


def test_titles_and_bars_give_the_measured_numbers_in_units(pair):
    truth, predictions = pair
    figure = figure3(truth, predictions)
    mse = measure(predictions["DIQT"], truth).values["sh_average_mse"]
    assert mse == pytest.approx((0.2 / 6) ** 2, rel=1e-4)
    assert "MSE 111 × 10⁻⁵" in texts(figure)
    assert "MSE 27.8 × 10⁻⁵" in texts(figure)
    colour = measure(predictions["MSP"], truth).values["colour_fa_mse"]
    digits = [text.split()[1] for text in texts(figure) if text.startswith("MSE")]
    assert any(f"{colour:.2e}".startswith(digit[:3]) for digit in digits)

    bar = axes_of(figure, f"{A} · map · bar")
    assert "SH units²" in bar.get_ylabel()
    assert "10⁻⁵" in bar.get_ylabel()  # as in all tables
    assert bar.get_ylim() == pytest.approx((0, 111.1), rel=1e-3)
    assert "FA²" in axes_of(figure, f"{B} · map · bar").get_ylabel()
    image = render(figure)
    box = bar.get_window_extent()
    column = round((box.x0 + box.x1) / 2)
    rows = [round(image.shape[0] - y) for y in np.linspace(box.y0 + 4, box.y1 - 4, 9)]
    brightness = image[rows, column].sum(-1)
    assert (np.diff(brightness) > 0).all()  # drawn, dark below, bright above


def test_cells_stand_as_in_the_paper(pair):
    truth, predictions = pair
    figure = figure3(truth, predictions, truth)
    place = {
        axes.get_label(): axes.get_position()
        for axes in figure.axes
        if "bar" not in str(axes.get_label())
    }
    for block in (A, B):
        first = [place[f"{block} · {n} · image"] for n in ("ground truth", "DIQT", "MSP")]
        second = [place[f"{block} · input scan · image"]]
        second += [place[f"{block} · {n} · map"] for n in ("DIQT", "MSP")]
        for above, below in zip(first, second, strict=True):
            assert above.x0 == pytest.approx(below.x0)
            assert above.y0 > below.y1
        assert first[0].x1 < first[1].x0 < first[1].x1 < first[2].x0
    assert place[f"{A} · MSP · image"].x1 < place[f"{B} · ground truth · image"].x0


def test_many_predictions_put_the_blocks_one_under_the_other(pair):
    truth, predictions = pair
    figure = figure3(truth, {**predictions, "RISH": truth})
    a, b = (axes_of(figure, f"{block} · RISH · image").get_position() for block in (A, B))
    assert a.x0 == pytest.approx(b.x0)
    assert a.y0 > b.y1


def test_panels_have_the_proportions_of_the_brain(head):
    # 38 mm across, 32 mm tall, with 7 % to spare; voxels are 2 × 3 mm.
    figure = figure3(head(), {"a": head()}, axis="coronal")
    box = axes_of(figure, f"{A} · a · image").get_window_extent()
    rows, columns = axes_of(figure, f"{A} · a · image").images[0].get_array().shape
    assert box.width / box.height == pytest.approx(columns * 2 / (rows * 3), rel=0.01)


def test_the_input_keeps_its_own_voxels(head, lattice):
    coarse = head(Lattice((11, 13, 12), lattice("RAS").affine @ np.diag([2, 2, 1, 1.0])))
    figure = figure3(head(), {"a": head()}, coarse)
    drawn = np.asarray(axes_of(figure, f"{A} · input scan · image").images[0].get_array())
    view = choose_slice(head().mask, head().lattice)
    own = coarse.coefficients[:, :, view.index, :6].mean(-1)
    assert len(np.unique(drawn)) <= len(np.unique(own)) + 1  # none in between


def test_files_are_drawn_as_images_are(pair, tmp_path):
    truth, predictions = pair
    write_sh(tmp_path / "truth_dwimap.nii.gz", truth)
    figure = figure3(str(tmp_path / "truth_dwimap.nii.gz"), predictions)
    assert np.array_equal(render(figure), render(figure3(truth, predictions)))


def test_colours_say_the_direction(head):
    image = head()
    coefficients = np.zeros_like(image.coefficients)
    coefficients[image.mask, 0] = 1.2
    # Less signal along x: the l = 2 terms of -x² + (y² + z²)/2 in MRtrix3's basis, m = 0 and 2.
    coefficients[image.mask, 3] = 0.2
    coefficients[image.mask, 5] = -0.35
    fibres = replace(image, coefficients=coefficients)
    shown = pixels_of(figure3(fibres, {"a": fibres}), f"{B} · a · image")
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
    assert middle[0] > 0.9  # red: left-right
    assert middle[1:].max() < 0.1


def test_without_truth_disagreement_is_shown_once_in_a_block_of_its_own(pair):
    _, predictions = pair
    values = np.where(predictions["MSP"].mask, 0.02, 0.5)
    figure = figure3(None, predictions, predictions["DIQT"], disagreement={"MSP": values})
    assert f"{A} · input scan · image" in labels(figure)
    assert not any("ground truth" in label for label in labels(figure))
    maps = [label for label in labels(figure) if label.endswith("map")]
    assert maps == [f"{C} · MSP · map"]
    assert "MSP\n2.00 × 10⁻²" in texts(figure)  # 0.5 lies outside the mask
    assert "DIQT\nno map" in texts(figure)
    (drawn,) = axes_of(figure, maps[0]).images  # other colours than a squared error's, as on screen
    assert drawn.get_cmap().name == LOOKS["disagreement"][0]
    assert not any("MSE" in text for text in texts(figure))
    shown, image = (
        axes_of(figure, label).get_position()
        for label in (f"{C} · MSP · map", f"{B} · MSP · image")
    )
    assert shown.x0 == pytest.approx(image.x0)
    assert shown.y1 < image.y0


def test_without_truth_and_disagreement_there_is_one_row(pair):
    _, predictions = pair
    bare = figure3(None, predictions)
    assert not any("map" in label for label in labels(bare))
    with_truth = figure3(pair[0], predictions)
    assert bare.get_size_inches()[1] < 0.6 * with_truth.get_size_inches()[1]
    place = axes_of(bare, f"{A} · DIQT · image").get_position()
    assert place.x0 * bare.get_size_inches()[0] < 0.2  # no column left empty


def test_disagreement_comes_from_the_predictions_own_lattice(head, lattice, tmp_path):
    fine = head(lattice("RAS").refined(2))
    values = np.full(fine.mask.shape, 0.03, dtype=np.float32)
    comparison = line_up(None, {"a": head(), "b": fine})
    prediction: Any = SimpleNamespace(disagreement=values, lattice=fine.lattice, path=None)
    placed = doubt_maps({"b": prediction}, comparison, "disagreement")
    # A prediction that is opened again has it beside its DWI.
    write_nifti(tmp_path / "b_model-sh_param-disagreement_dwimap.nii.gz", values, fine.affine)
    again: Any = SimpleNamespace(lattice=fine.lattice, path=tmp_path / "b_dwi.nii.gz", b_value=None)
    (found,) = doubt_maps({"b": again}, comparison, "disagreement").values()
    np.testing.assert_array_equal(found, placed["b"])
    figure = draw(comparison, disagreement=placed)
    drawn = axes_of(figure, f"{C} · b · map").images[0].get_array()
    assert drawn.max() == pytest.approx(3)  # in 10⁻²
    # Outside the brain it is black, up to the edge of the picture.
    assert drawn.mask[0].all()
    assert drawn.mask[:, 0].all()


def test_the_slice_with_the_most_brain_near_the_middle(lattice):
    mask = np.zeros((22, 26, 12), dtype=bool)
    mask[4:18, 4:20, 1:11] = True
    mask[:, :, 8] = False
    mask[2:20, 2:24, 8] = True  # the largest
    assert choose_slice(mask, lattice("RAS")).index == 8
    mask[2:20, 2:24, 4:7] = True  # as large, nearer to the middle
    assert choose_slice(mask, lattice("RAS")).index in (5, 6)
    assert choose_slice(mask, lattice("RAS"), index=2).index == 2


def test_a_slice_without_brain_and_an_unknown_axis_are_refused(head):
    with pytest.raises(UserError, match="axial slice 40 shows no brain; give one from"):
        figure3(head(), {"a": head()}, slice_index=40)
    with pytest.raises(UserError, match=r"'oblique'.* axial"):
        figure3(head(), {"a": head()}, axis="oblique")
    with pytest.raises(UserError) as caught:
        figure3(head(), {})
    assert caught.value.field == "predictions"


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_the_scale_bar_is_as_long_as_it_says(head, axis):
    figure = figure3(head(), {"a": head()}, axis=axis)
    first = axes_of(figure, f"{A} · ground truth · image")
    (bar,) = first.patches
    columns = first.images[0].get_array().shape[1]
    box = bar.get_window_extent()
    voxel = first.get_window_extent().width / columns
    assert box.width / voxel * 2 == pytest.approx(10)
    assert "10 mm" in [text.get_text() for text in first.texts]
    image = render(figure)
    row = round(image.shape[0] - (box.y0 + box.y1) / 2)
    line = image[row, round(box.x0) - 3 : round(box.x1) + 4].min(-1)
    assert (line > 0.9).sum() == pytest.approx(box.width, abs=2)
    assert (line[[0, -1]] < 0.1).all()
    assert not axes_of(figure, f"{A} · a · image").patches


@pytest.mark.parametrize(
    ("most", "length"), [(38.5, 20), (50, 50), (9.99, 5), (1.0, 1), (0.7, 0.5), (190, 100)]
)
def test_round_lengths(most, length):
    assert round_length(most) == pytest.approx(length)


def test_long_names_do_not_run_into_each_other(pair):
    truth, predictions = pair
    names = [f"shresnet of the {which} half, width 0.2, 30 epochs {which}" for which in "ab"]
    figure = figure3(truth, dict(zip(names, predictions.values(), strict=True)))
    boxes = []
    for text in figure.texts:
        text_box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        boxes.append((text_box.x0, text_box.x1, text_box.y0, text_box.y1))
    for number, (x0, x1, y0, y1) in enumerate(boxes):
        for u0, u1, v0, v1 in boxes[number + 1 :]:
            assert x1 < u0 or u1 < x0 or y1 < v0 or v1 < y0
    shown = {text.replace("\n", " ") for text in texts(figure) if text.startswith("shresnet")}
    assert shown == set(names)  # whole, in two lines
    alone = figure3(None, {names[0]: truth}, disagreement={names[0]: np.full(truth.mask.shape, 2)})
    assert f"{names[0]} 2.00" in {text.replace("\n", " ") for text in texts(alone)}
    assert f"{A} · {names[0]} · image" in labels(figure)


def test_the_same_figure_is_the_same_file_with_the_figures_pixels(pair, tmp_path, monkeypatch):
    truth, predictions = pair
    for kind in ("pdf", "svg"):  # 600 takes seconds
        monkeypatch.setitem(FORMATS[kind], "dpi", 100)
    for name in ("a", "b"):
        figure = figure3(truth, {"DIQT": predictions["DIQT"]})
        for kind in ("png", "pdf", "svg"):
            write_figure(tmp_path / f"{name}.{kind}", figure)
    for kind in ("png", "pdf", "svg"):
        content = (tmp_path / f"a.{kind}").read_bytes()
        assert content == (tmp_path / f"b.{kind}").read_bytes()
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    np.testing.assert_allclose(image, render(figure), atol=0.01)
    assert image.shape[1] == pytest.approx(figure.get_size_inches()[0] * 200, abs=1)

    # Text is text, and pictures are inside.
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    words = {"".join(each.itertext()).strip() for each in root.iter(f"{SVG}text")}
    assert {A, B, "ground truth", "DIQT", "10 mm", "R", "A–P", "MSE 111 × 10⁻⁵"} <= words
    pictures = [each.get(f"{XLINK}href") for each in root.iter(f"{SVG}image")]
    assert len(pictures) >= sum(len(axes.images) for axes in figure.axes)
    assert all(each.startswith("data:image/png;base64,") for each in pictures)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/CIDFontType2" in content or b"/TrueType" in content  # fonts, not outlines of letters
    assert b"/Subtype /Type3" not in content
    assert b"/Subtype /Image" in content


def test_other_suffixes_are_refused_and_leave_nothing(pair, tmp_path):
    with pytest.raises(UserError, match=r"jpg: .* ends in \.png, \.pdf or \.svg"):
        write_figure(tmp_path / "a" / "figure3.jpg", figure3(*pair))
    assert list(tmp_path.iterdir()) == []


def test_pyplot_torch_and_qt_stay_out():
    code = (
        "import sys, napari_msp.evaluation.compare, napari_msp.evaluation.report.report, "
        "napari_msp.evaluation.baselines.alignment, napari_msp.evaluation.baselines.linear_rish, "
        "napari_msp.evaluation.baselines.patch_regression; "
        "print({'matplotlib.pyplot', 'torch', 'qtpy', 'napari'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_signed_differences_stand_in_place_of_squared_errors_and_a_caption_below(pair):
    truth, predictions = pair
    lower = replace(truth, coefficients=truth.coefficients * 0.9)
    words = "ground truth: sub-01 b · axial slice at S 2.0 mm · " + "for teaching only " * 20
    squared = figure3(truth, {"higher": predictions["MSP"], "lower": lower})
    figure = figure3(
        truth, {"higher": predictions["MSP"], "lower": lower}, signed=True, caption=words
    )
    for name, sign in (("higher", 1), ("lower", -1)):
        axes = axes_of(figure, f"{A} · {name} · map")
        (shown,) = axes.images
        values, (low, high) = shown.get_array(), shown.get_clim()
        assert (sign * values >= 0).all()
        assert low == -high
        pixels = pixels_of(without_marks(figure), f"{A} · {name} · map")
        wrong = np.abs(values) > 0.5 * high
        assert wrong.any()
        assert (sign * (pixels[wrong, 0] - pixels[wrong, 2]) > 0).all()  # orange above, blue below
        # Colours have no sign, and the numbers above stay those of the paper.
        assert axes_of(figure, f"{B} · {name} · map").images[0].get_array().min() >= 0
    bar = axes_of(figure, f"{A} · map · bar")
    assert bar.get_ylabel().startswith("minus truth")
    assert [each for each in texts(figure) if "MSE" in each] == [
        each for each in texts(squared) if "MSE" in each
    ]
    below = [each for each in texts(figure) if each not in texts(squared)]
    assert len(below) > 1
    assert " ".join(below) == words.strip()
    drawn = [each for each in figure.texts if each.get_text() in below]
    width, _ = figure.canvas.get_width_height()
    boxes = [each.get_window_extent() for each in drawn]
    assert all(min(box.x0, box.y0) > 0 and box.x1 < width for box in boxes)
    lowest = min(axes.get_window_extent().y0 for axes in figure.axes)
    assert all(box.y1 < lowest for box in boxes)
