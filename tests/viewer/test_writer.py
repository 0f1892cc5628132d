"""Saving layers from the window's own dialog and from scripts."""

import nibabel as nib
import numpy as np
import pytest
from patterns import predicted
from qtpy.QtWidgets import QFileDialog

from napari_msp.errors import UserError
from napari_msp.signal.fitting import evaluate_sh, fit_sh
from napari_msp.signal.maps import colour_fa, sh_average
from napari_msp.signal.sh_image import load_sh
from napari_msp.ui.compare.choices import ImageChoices
from napari_msp.ui.layers import make_layer, map_layer, mask_layer, scans_of, shown_by
from napari_msp.ui.writer import write_map, write_sh_image

SH, MAP = "MSP Harmonization SH image (MRtrix3)", "MSP Harmonization Shown map"


@pytest.fixture
def askew(scan, tmp_path):
    """A scan that is stored askew, whose header says what its coordinates are."""
    made = scan("permuted")
    made.image.set_sform(made.image.affine, code=2)
    made.image.set_qform(made.image.affine, code=1)
    return made.write(tmp_path)


@pytest.fixture
def opened(model, askew):
    """The scan's layers as a script has them, without a window."""
    model.open(askew, plugin="napari-msp")
    return model


@pytest.fixture
def in_window(viewer, askew):
    """The scan's layers in a window."""
    viewer.open(askew, plugin="napari-msp")
    return viewer


@pytest.fixture
def save(monkeypatch, viewer):
    """Save the selected layers by File > Save Selected Layers, with a name and a file type."""

    def save_selected(path, kind):
        offered = []

        def choose(*_, filter, **__):
            offered.extend(filter.split(";;"))
            return str(path), next(each for each in offered if each.startswith(kind))

        monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
        viewer.window._qt_viewer._save_layers_dialog(selected=True)
        return offered

    return save_selected


def select(viewer, *quantities):
    viewer.layers.selection = [
        layer
        for layer in viewer.layers
        if (shown := shown_by(layer)) and shown.quantity in quantities
    ]


@pytest.mark.reference("MRtrix3")
@pytest.mark.parametrize("quantity", ["colour FA", "SH average"])
def test_the_sh_image_behind_any_map_is_read_by_mrtrix(
    opened, quantity, mrtrix, spread_out, tmp_path
):
    path = tmp_path / "saved.nii.gz"
    layer = next(each for each in opened.layers if shown_by(each).quantity == quantity)
    image = shown_by(layer).scan.sh
    written = layer.save(str(path), plugin="napari-msp")
    assert written == [str(path), str(tmp_path / "saved.json")]

    assert sorted(mrtrix("mrinfo", path, "-size").split()) == ["28", "6", "7", "8"]
    directions = spread_out(45)
    table = tmp_path / "directions.txt"
    np.savetxt(table, directions)
    mrtrix("sh2amp", path, table, tmp_path / "amplitudes.nii")
    amplitudes = nib.as_closest_canonical(nib.load(tmp_path / "amplitudes.nii"))
    expected = image.lattice.to_canonical(evaluate_sh(image, directions))
    np.testing.assert_allclose(amplitudes.get_fdata(), expected, atol=2e-6)
    np.testing.assert_allclose(amplitudes.affine, image.lattice.canonical.affine, atol=1e-5)


def test_the_header_keeps_what_it_says_of_coordinates(opened, tmp_path):
    path = tmp_path / "saved.nii.gz"
    opened.layers[-1].save(str(path), plugin="napari-msp")
    saved = nib.load(path)
    assert (int(saved.header["sform_code"]), int(saved.header["qform_code"])) == (2, 1)
    record = shown_by(opened.layers[0]).scan
    again = load_sh(path)
    np.testing.assert_array_equal(again.coefficients, record.sh.coefficients)
    assert again.b_value == 1200
    assert again.regularisation == record.sh.regularisation


def test_the_dialog_offers_both_and_saves_what_was_chosen(in_window, save, tmp_path):
    record = shown_by(in_window.layers[0]).scan
    select(in_window, "colour FA")
    offered = save(tmp_path / "colours.nii.gz", MAP)
    assert [each for each in offered if "MSP" in each] == [
        f"{SH} (*.nii.gz *.nii)",
        f"{MAP} (*.nii.gz *.nii)",
    ]
    image = nib.load(tmp_path / "colours.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), colour_fa(record.sh), atol=1e-7)
    np.testing.assert_allclose(image.affine, record.sh.affine, atol=1e-6)

    select(in_window, "SH average")
    save(tmp_path / "average.nii", MAP)
    image = nib.load(tmp_path / "average.nii")
    np.testing.assert_array_equal(image.get_fdata(), sh_average(record.sh))

    select(in_window, "b0", "SH average", "colour FA")
    save(tmp_path / "all.nii.gz", SH)
    assert load_sh(tmp_path / "all.nii.gz").order == 6


def test_a_forgotten_suffix_is_added_and_nothing_is_overwritten(in_window, save, tmp_path):
    select(in_window, "SH average")
    save(tmp_path / "sub-01 ge_st · SH average", SH)
    saved = tmp_path / "sub-01 ge_st · SH average.nii.gz"
    assert load_sh(saved).order == 6
    before = saved.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        save(tmp_path / "sub-01 ge_st · SH average", MAP)
    assert saved.read_bytes() == before


def test_a_prediction_that_is_saved_is_no_ground_truth_when_it_is_opened_again(model, tmp_path):
    made = predicted("MSP", "front right")
    layer = model.add_layer(make_layer(map_layer(made, "SH average", made.b0)))
    layer.save(str(tmp_path / "a.nii.gz"), plugin="napari-msp")
    model.layers.clear()
    model.open(tmp_path / "a.nii.gz", plugin="napari-msp")
    assert [each.name for each in model.layers] == [
        "a MSP prisma_st · colour FA",
        "a MSP prisma_st · SH average",
    ]
    choices = ImageChoices.of(scans_of(model.layers))
    assert (list(choices.truths), list(choices.predictions)) == ([], ["a MSP prisma_st"])


def test_a_mask_goes_with_its_scan(in_window, save, tmp_path):
    record = shown_by(in_window.layers[0]).scan
    in_window.add_layer(make_layer(mask_layer(record)))
    in_window.layers.select_all()
    save(tmp_path / "all.nii.gz", SH)
    assert load_sh(tmp_path / "all.nii.gz").order == 6


def test_layers_of_two_scans_are_refused(in_window, scan, save, tmp_path):
    (tmp_path / "other").mkdir()
    in_window.open(scan().write(tmp_path / "other", stem="sub-02"), plugin="napari-msp")
    select(in_window, "SH average")
    for kind, words in ((SH, r"different SH images \(sub-01, sub-02\)"), (MAP, "One map")):
        with pytest.raises(UserError, match=words):
            save(tmp_path / "both.nii.gz", kind)
    assert not (tmp_path / "both.nii.gz").exists()


def test_an_error_is_not_saved_as_the_image_that_it_is_of(opened, tmp_path):
    """`layer.save` takes the first of the writers, and cannot say which."""
    record = shown_by(opened.layers[0]).scan
    error = opened.add_layer(make_layer(map_layer(record, "SH MSE", sh_average(record.sh))))
    with pytest.raises(UserError, match=r"The SH MSE would not be saved, .* type Shown map"):
        error.save(str(tmp_path / "mse.nii.gz"), plugin="napari-msp")
    assert not (tmp_path / "mse.nii.gz").exists()
    write_map(str(tmp_path / "mse.nii.gz"), [error.as_layer_data_tuple()])
    np.testing.assert_allclose(
        nib.load(tmp_path / "mse.nii.gz").get_fdata(), sh_average(record.sh), atol=1e-7
    )
    opened.layers.save(str(tmp_path / "all.nii.gz"), plugin="napari-msp")
    assert load_sh(tmp_path / "all.nii.gz").order == 6


def test_an_edited_mask_and_b0_are_not_saved_as_an_image_that_has_neither(opened, tmp_path):
    b0 = next(each for each in opened.layers if shown_by(each).quantity == "b0")
    record = shown_by(b0).scan
    mask = make_layer(mask_layer(record))
    mask.data = 1 - mask.data
    with pytest.raises(UserError, match="The b0 would not be saved"):
        b0.save(str(tmp_path / "it.nii.gz"), plugin="napari-msp")
    with pytest.raises(UserError, match="The mask would not be saved"):
        write_sh_image(str(tmp_path / "it.nii.gz"), [mask.as_layer_data_tuple()])
    assert not (tmp_path / "it.nii.gz").exists()
    write_map(str(tmp_path / "mask.nii.gz"), [mask.as_layer_data_tuple()])
    np.testing.assert_array_equal(
        nib.load(tmp_path / "mask.nii.gz").get_fdata(), 1 - record.sh.mask.astype(int)
    )


@pytest.mark.parametrize("change", ["cropped", "moved", "scaled", "turned", "moved by hand"])
@pytest.mark.parametrize("quantity", ["SH average", "colour FA"])
def test_a_map_that_does_not_lie_where_it_was_made_is_refused(opened, tmp_path, change, quantity):
    layer = next(each for each in opened.layers if shown_by(each).quantity == quantity)
    if change == "cropped":  # at the far end, so that its corner stays
        layer.data = layer.data[:-1]
    elif change == "moved":
        layer.translate = np.add(layer.translate, (0, 2, 0))
    elif change == "scaled":
        layer.scale = np.multiply(layer.scale, 1.1)
    elif change == "turned":
        layer.rotate = (0, 0, 10)
    else:  # as napari's transform mode does
        layer.affine = [[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(UserError, match=f"{quantity} was cropped or moved"):
        write_map(str(tmp_path / "map.nii.gz"), [layer.as_layer_data_tuple()])
    assert not (tmp_path / "map.nii.gz").exists()


def test_a_layer_of_somebody_elses_is_refused_in_words(viewer, save, tmp_path):
    viewer.add_image(np.zeros((4, 5, 6)), name="plain")
    viewer.layers.select_all()
    for kind in (SH, MAP):
        with pytest.raises(UserError, match="The layer plain is not of MSP Harmonization"):
            save(tmp_path / "plain.nii.gz", kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a-first", "z-last"])
def test_an_ordinary_image_goes_to_whoever_else_writes_nifti(model, name, tmp_path):
    from npe2 import DynamicPlugin, PluginManager

    manager = PluginManager.instance()
    layer = model.add_image(np.zeros((4, 5, 6)), name="plain")
    ours = manager.get_manifest("napari-msp")
    with DynamicPlugin(name, plugin_manager=manager) as other:

        @other.contribute.writer(layer_types=["image"], filename_extensions=[".nii.gz"])
        def theirs(path, data, attributes):
            (tmp_path / "theirs").touch()
            return [path]

        if name == "z-last":  # come before them in the manager's list, and then after them
            manager.unregister(ours.name)
            manager.register(ours)
        layer.save(str(tmp_path / "plain.nii.gz"))
    assert (tmp_path / "theirs").exists()


def test_nothing_half_written_is_left(opened, tmp_path, monkeypatch):
    folder = tmp_path / "full"
    folder.mkdir()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", fail)
    with pytest.raises(OSError, match="no space"):
        opened.layers[-1].save(str(folder / "x.nii.gz"), plugin="napari-msp")
    assert list(folder.iterdir()) == []


def test_a_saved_image_can_be_opened_again(opened, tmp_path):
    acquisition = shown_by(opened.layers[0]).scan.acquisition
    assert acquisition is not None
    image = fit_sh(acquisition)
    path = tmp_path / "again.nii.gz"
    opened.layers[-1].save(str(path), plugin="napari-msp")
    opened.layers.clear()
    opened.open(path, plugin="napari-msp")
    assert [layer.name for layer in opened.layers] == ["again · colour FA", "again · SH average"]
    np.testing.assert_array_equal(
        shown_by(opened.layers[0]).scan.sh.coefficients, image.coefficients
    )
