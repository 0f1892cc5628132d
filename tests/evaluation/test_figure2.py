"""Figure 2: the same place on every platform, in its own voxels, with one contrast."""

import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.paper import AVERAGE, figure2
from napari_msp.evaluation.figures.slices import choose_slice
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.maps import direction_average
from napari_msp.signal.spherical_harmonics import spread_directions


def pixels(figure, name):
    (axes,) = [a for a in figure.axes if a.get_label() == f"{AVERAGE} · {name} · image"]
    return np.asarray(axes.images[0].get_array())


def test_the_average_is_that_of_the_signal_over_the_sphere(head):
    image = head()
    signal = evaluate_sh(image, spread_directions(60))[image.mask].mean(axis=-1)
    np.testing.assert_allclose(direction_average(image)[image.mask], signal, atol=1e-3)


@pytest.mark.parametrize("storage", ["RAS", "LAS", "permuted"])
def test_the_stored_order_does_not_show(head, storage):
    figure = figure2({"one": head("RAS"), "other": head(storage)})
    one, other = pixels(figure, "one"), pixels(figure, "other")
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert one.min() == 0
    assert one.max() == 1


def test_a_finer_platform_lies_at_the_same_place(head, lattice):
    coarse = head()
    fine = head(lattice("RAS").refined(2))
    figure = figure2({"coarse": coarse, "fine": fine})
    one, other = pixels(figure, "coarse"), pixels(figure, "fine")
    assert one.shape == other.shape
    both = (one > 0) & (other > 0)
    assert both.sum() > 0.9 * (one > 0).sum()
    # The image is smooth: half a voxel of shift or another slice would show far more than this.
    assert abs(np.mean(one[both] - other[both])) < 0.01
    assert np.abs(one[both] - other[both]).mean() < 0.05
    assert len(np.unique(other[both])) > 2 * len(np.unique(one[both]))  # each its own voxels


def test_voxels_are_not_interpolated(head):
    image = head()
    figure = figure2({"scan": image})
    shown = choose_slice(image.mask, image.lattice).index
    values = np.unique(direction_average(image)[..., shown][image.mask[..., shown]])
    assert len(values) / 2 < len(np.unique(pixels(figure, "scan"))) <= len(values) + 1


def test_titles_name_platform_and_voxel_size(head):
    cube = head(Lattice((22, 26, 12), np.diag([2.0, 2.0, 2.0, 1.0])))
    texts = {text.get_text() for text in figure2({"flat": head(), "$cube": cube}).texts}
    assert {"flat · 2 × 3 mm", "$cube · 2 mm"} <= texts
