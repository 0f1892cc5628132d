"""The Regions tab's numbers: labels where they lie, every image, truth's error, rows as copied."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.region_numbers import region_numbers
from napari_msp.evaluation.regions import Regions
from napari_msp.provenance import Provenance
from napari_msp.scan import Scan
from napari_msp.signal.maps import MAPS
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.compared import Question, read_and_line_up
from napari_msp.ui.compare.regions_tab import _texts, measurables, regions_of
from napari_msp.ui.layers import lattice_layer
from napari_msp.ui.viewer_axes import to_shown

SHAPE = (3, 4, 5)
TURN = np.array([[0, -2.0, 0], [2.0, 0, 0], [0, 0, 2.0]])
"""A stored order that is not RAS: rows run to the front, columns to the right's other side."""


def affine():
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = TURN, (10, -7, 3)
    return found


def scan(level, platform, made=False):
    values = np.zeros((*SHAPE, 28), np.float32)
    values[..., 0] = level + np.arange(60).reshape(SHAPE) / 100
    image = SHImage(values, affine(), np.ones(SHAPE, bool), 1000.0)
    provenance = Provenance(target="b", input="a", title="MSP") if made else None
    return Scan(
        given_sh=image, given_subject="sub-01", given_platform=platform, provenance=provenance
    )


@pytest.fixture
def compared():
    truth, source, made = scan(1.0, "b"), scan(3.0, "a"), scan(1.5, "b", made=True)
    return read_and_line_up(Question(truth, [made], source), lambda words: None)


def Labels(data, scale=(1, 1, 1), translate=(0, 0, 0), metadata=None):  # noqa: N802
    """As much of napari's layer as is asked for, which takes seconds to load."""
    return SimpleNamespace(
        name="x", data=data, scale=scale, translate=translate, rotate=np.eye(3), shear=np.zeros(3),
        affine=np.eye(4), metadata=metadata or {},
        data_to_world=lambda at: np.multiply(at, scale) + translate,
    )  # fmt: skip


def labelled():
    labels = np.zeros(SHAPE, np.int32)
    labels[0], labels[2, 1] = 1, 7
    return labels


def test_labels_lie_where_they_were_drawn():
    lattice = Lattice(SHAPE, affine())
    data, options, _ = lattice_layer(
        "x", "labels", labelled(), lattice, np.ones(SHAPE, bool), limits=(0, 1)
    )
    kept = {key: options[key] for key in ("scale", "translate", "metadata")}
    ours = regions_of(Labels(data, **kept), lattice)
    np.testing.assert_array_equal(ours.labels, labelled())
    # Whoever makes labels by napari's own button has no affine but the layer's place.
    kept.pop("metadata")
    foreign = regions_of(Labels(to_shown(labelled(), lattice), **kept), lattice)
    np.testing.assert_array_equal(foreign.on(lattice).labels, labelled())
    part = Labels(to_shown(labelled(), lattice)[1:], scale=kept["scale"],
                  translate=np.add(kept["translate"], (2.0, 0, 0)))  # fmt: skip
    cut = regions_of(part, lattice).on(lattice).labels
    np.testing.assert_array_equal(cut[..., 1:], labelled()[..., 1:])
    assert not cut[..., 0].any()
    for wrong in (np.zeros((3, 3), int), np.zeros((3, 3, 3), int)):
        with pytest.raises(UserError, match=r"axes|no label yet"):
            regions_of(Labels(wrong), lattice)


def test_every_image_is_measured_and_errs_against_truth(compared):
    regions = Regions(labelled(), {1: "wm", 7: "gm"}, affine())
    numbers = region_numbers(measurables(compared, MAPS["sh_average"], regions))
    assert [image for image, _ in numbers.tables] == ["truth b", "input a", "MSP"]
    means = {image: table.rows for (image, _), table in numbers.tables.items()}
    level = np.arange(60).reshape(SHAPE)[0].mean() / 100
    for image, base in (("truth b", 1.0), ("input a", 3.0), ("MSP", 1.5)):
        assert means[image][0].mean == pytest.approx((base + level) / 6, rel=1e-5)
    assert means["truth b"][0].error is None
    assert means["MSP"][0].error == pytest.approx(0.5 / 6, rel=1e-4)
    assert means["input a"][1].bias == pytest.approx(2 / 6, rel=1e-4)
    headers, rows = _texts(numbers)
    assert [text for text, _ in headers][0::4] == ["image", "error"]
    images = ["truth b", "input a", "MSP"]
    assert [row[0][0] for row in rows] == ["wm", *images, "gm", *images]
    assert len(rows[0]) == 1
    assert rows[1][1][0] == f"{20 * 8}"
    assert rows[1][4][0] == "–"


def test_maps_in_colours_are_measured_as_fa(compared):
    regions = Regions(labelled(), {1: "wm"}, affine())
    assert {each.map for each in measurables(compared, MAPS["colour_fa"], regions)} == {"FA"}
