"""Layer data are right without a viewer: order, scale, units, names."""

import numpy as np
import pytest

from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import sh_average
from napari_msp.ui.layers import error_layer, sh_average_layer


@pytest.mark.parametrize("affine", ["LAS", "permuted", "oblique"])
def test_layers_are_canonical_with_a_diagonal_scale(affine, scan, tmp_path):
    image = fit_sh(scan(affine).load(tmp_path))
    data, options, kind = sh_average_layer("sub-01 ge_st", image, (0.0, 0.4))
    assert kind == "image"
    assert options["name"] == "sub-01 ge_st · SH average"
    assert options["units"] == ("mm",) * 3
    canonical = image.grid.to_canonical(sh_average(image))
    # Indices grow upwards, to the back and to the patient's left.
    np.testing.assert_array_equal(data, canonical.transpose(2, 1, 0)[:, ::-1, ::-1])
    sizes = np.linalg.norm(image.grid.affine[:3, :3], axis=0)
    np.testing.assert_allclose(options["scale"], sizes[::-1])
    np.testing.assert_array_equal(options["metadata"]["affine"], image.affine)
    assert "affine" not in options


def test_error_layer_is_the_squared_error_inside_the_mask(scan, tmp_path):
    image = fit_sh(scan().load(tmp_path))
    truth = sh_average(image)
    data, options, _ = error_layer("sub-01 MSP", truth + 0.1, truth, image, image.mask, 0.02)
    assert options["name"] == "sub-01 MSP · MSE"
    assert data.max() == pytest.approx(0.01, rel=1e-4)
    assert (data > 0).sum() == image.mask.sum()
