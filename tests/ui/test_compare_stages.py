"""What a prediction's cells show for another α, in every map that there is."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from napari_msp.data.gradients import GradientTable
from napari_msp.inference.prediction import Prediction
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.signal.maps import MAPS
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.compared import Part, Question, mixed, read_and_line_up
from napari_msp.ui.compare.grid_cells import comparison_cells
from napari_msp.ui.compare.stages import ModelOutputs, Stages, repaint_slice
from napari_msp.ui.layers import shown_in
from napari_msp.ui.viewer_axes import to_shown

SHAPE = (5, 6, 4)

AFFINE = np.array([[0, 2.0, 0, 1], [-2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
"""Stored in another order than it is shown in."""


def image(seed):
    """A head whose voxels all have other coefficients, of a signal that can be one."""
    random = np.random.default_rng(seed)
    coefficients = random.normal(0, 0.03, (*SHAPE, 28)).astype(np.float32)
    coefficients[..., 0] = random.uniform(1.0, 2.0, SHAPE)
    mask = np.ones(SHAPE, dtype=bool)
    mask[0] = False
    coefficients[~mask] = 0
    return SHImage(coefficients, AFFINE, mask, 1200.0)


@pytest.fixture
def prediction():
    first, branches = image(1), {"a": image(2), "b": image(3)}
    mean = np.mean([each.coefficients for each in (first, *branches.values())], axis=0)
    return Prediction(
        given_sh=SHImage(mean.astype(np.float32), AFFINE, first.mask, 1200.0),
        given_subject="sub-01",
        provenance=Provenance(target="t", input="i", title="MSP"),
        given_first_stage=first,
        b0=np.zeros(SHAPE, dtype=np.float32),
        target="t",
        gradients=GradientTable(np.full(1, 1200.0), np.array([[1.0, 0, 0]])),
        given_branches=branches,
    )


@pytest.fixture
def compared(prediction):
    truth = Scan(given_sh=image(0), given_subject="sub-01", given_platform="t")
    return read_and_line_up(Question(truth, [prediction], None), lambda words: None)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("axis", "index"), [(0, 1), (1, 2), (2, 3)])
def test_a_repainted_slice_is_that_of_the_whole(compared, prediction, name, axis, index):
    stages = Stages.of(prediction, compared.comparison.lattice)
    changed = compared.with_prediction("MSP", stages.image(0.3), mixed(0.3))
    whole = changed.cells(name)
    shown = compared.cells(name)
    new = repaint_slice(compared, shown, stages, 0.3, axis, index)
    cell = whole.images[1]
    values = shown.shades(cell.values, cell.shown) if shown.coloured else cell.values
    for seen, expected in ((new.image, values), (new.error, whole.maps[1].values)):
        assert seen is not None
        wanted = np.take(to_shown(expected, whole.lattice), index, axis=axis)
        np.testing.assert_allclose(seen, wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()))
    assert new.map is MAPS[name]


def test_branches_add_up(compared, prediction):
    stages = Stages.of(prediction, compared.comparison.lattice)
    for alpha in (0.0, 0.25, 1.0):
        added = sum(stages.contribution(each, alpha) for each in stages.branches)
        np.testing.assert_allclose(stages.contributions(alpha), added, atol=1e-6)


def test_what_stands_for_a_prediction_is_a_prediction_and_is_what_is_saved(compared, prediction):
    stages = Stages.of(prediction, compared.comparison.lattice)
    for part, name in ((Part("first stage"), "MSP t first stage"), (mixed(0.3), "MSP α=0.30 t")):
        changed = compared.with_prediction("MSP", stages.image(0.3), part)
        seen = comparison_cells(changed, changed.cells("sh_average"))
        scan = shown_in(seen.layers[seen.places["MSP"][0]]).scan
        assert (scan.name, scan.sh) == (name, changed.comparison.predictions["MSP"].image)
        assert scan.sidecar()["Target"] == "t"
        assert scan.sidecar()["Model"]["Alpha"] == part.alpha
    back = changed.with_prediction("MSP", prediction.sh, None)
    assert (back.title("MSP"), back.seen["MSP"]) == ("MSP", prediction)


def test_every_part_has_an_output_and_a_name(compared, prediction):
    lattice = compared.comparison.lattice
    scan = Scan(given_sh=image(4), given_subject="sub-01", given_platform="i")
    outputs = ModelOutputs(1.0, prediction.sh, scan, Stages.of(prediction, lattice))
    for part, expected, shown in (
        ("input", scan.sh, Part("input")),
        ("first", prediction.first_stage, Part("first stage")),
        ("branch:a", prediction.branches["a"], Part("branch a")),
        ("second", prediction.sh, None),
    ):
        found, what = outputs.of(part, 1.0)
        assert what == shown
        np.testing.assert_array_equal(found.coefficients, expected.coefficients)
    assert outputs.of("second", 0.5)[1] == Part("α=0.50", 0.5)
    # As long as stages are not there, the prediction is not called by their names.
    for part in ("first", "branch:a", "second"):
        assert replace(outputs, stages=None).of(part, 0.5) == (prediction.sh, None)


def test_a_saved_figure_says_whose_it_is_and_follows_the_errors(compared, tmp_path):
    made = replace(
        compared.predictions["MSP"],
        provenance=Provenance(target="t", input="i", title="MSP", label="For teaching only."),
    )
    compared = replace(compared, predictions={"MSP": made})
    for signed in (False, True):
        path = tmp_path / f"{signed}.svg"
        compared.save_figure(path, "fa", "axial", 3, signed=signed)
        found = ElementTree.fromstring(path.read_text()).iter("{http://www.w3.org/2000/svg}text")
        words = " ".join(each.text or "" for each in found)
        # Slices lie 2 mm from each other, the first at 3 mm.
        where = "ground truth: sub-01 t · b = 1200 s/mm² · axial slice at S 9.0 mm"
        assert where in words
        assert "MSP: For teaching only." in words
        assert words.count("minus truth") == (2 if signed else 0)  # SH average, FA; not colours
        assert words.count("squared error") == (1 if signed else 3)
