"""What a person gets who drops a file onto the window."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication, QRadioButton

from napari_msp.errors import UserError
from napari_msp.provenance import Provenance
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import colour_fa, sh_average
from napari_msp.signal.sh_image import write_sh
from napari_msp.ui import docks, reader
from napari_msp.ui.layers import REGION_NAMES, lattice_of, scans_of, shown_by, shown_in
from napari_msp.ui.reader import get_reader, read
from napari_msp.ui.viewer_axes import from_shown

TITLE = "MSP Harmonization"


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


def drop(viewer, path):
    """Drop a file as a file manager does, and choose us where napari asks who shall read it."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(QPointF(300, 300), Qt.CopyAction, mime, Qt.LeftButton, Qt.NoModifier)
    asked = []

    def choose():
        dialog = QApplication.activeModalWidget()
        if dialog is not None and dialog.windowTitle() == "Choose reader":
            asked[:] = [each.text() for each in dialog.findChildren(QRadioButton)]
            next(b for b in dialog.findChildren(QRadioButton) if b.text() == TITLE).click()
            dialog.accept()

    timer = QTimer()
    timer.timeout.connect(choose)
    timer.start(20)
    viewer.window._qt_viewer.dropEvent(event)
    timer.stop()
    assert asked.count(TITLE) == 1


def write_plain(path, shape=(5, 6, 7)):
    nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)).to_filename(path)
    return path


def test_a_dropped_scan_gives_three_layers_in_millimetres(viewer, heads):
    path = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    drop(viewer, path)
    assert [layer.name for layer in viewer.layers] == [
        "sub-01 ge_st · b0",
        "sub-01 ge_st · colour FA",
        "sub-01 ge_st · SH average",
    ]
    assert [layer.visible for layer in viewer.layers] == [False, False, True]
    image = nib.load(path)
    for layer in viewer.layers:
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.axis_labels == ("S", "P", "L")
        np.testing.assert_allclose(layer.scale, (2.4, 2.4, 2.4))
        np.testing.assert_array_equal(layer.metadata["affine"], image.affine)
    (record,) = scans_of(viewer.layers)
    assert set(record.siblings) == {"connectom_sa", "prisma_st"}
    assert record.acquisition is not None
    fitted = fit_sh(record.acquisition)
    for name, expected in (
        ("SH average", sh_average(fitted)),
        ("colour FA", colour_fa(fitted)),
        ("b0", np.asarray(image.dataobj)[..., :2].mean(-1)),
    ):
        shown = viewer.layers[f"sub-01 ge_st · {name}"].data
        np.testing.assert_allclose(from_shown(shown, fitted.lattice), expected, rtol=1e-6)


def test_the_same_file_dropped_twice_is_one_scan(viewer, heads, scan, tmp_path):
    path = heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    drop(viewer, path)
    first = list(viewer.layers)
    first[-1].visible = False
    drop(viewer, path)
    assert list(viewer.layers) == first
    assert first[-1].visible
    image = fit_sh(scan("oblique").load(tmp_path))
    written = tmp_path / "sh_dwimap.nii.gz"
    for factor, count in ((1, 2), (1, 2), (2, 4)):  # written anew, it is another
        write_sh(written, replace(image, coefficients=factor * image.coefficients))
        viewer.open(written, plugin="napari-msp")
        assert len(viewer.layers) == len(first) + count


def test_a_bright_corner_is_seen_where_the_patient_has_it(viewer, pixels, scan, tmp_path):
    """Anterior, left, superior: on top, on the right, in the last slice."""
    made = scan(np.diag([2.0, 2.0, 2.5, 1.0]), 30, shape=(12, 10, 8))  # stored RAS
    signal = np.full((*made.image.shape[:3], 32), 200, np.float32)
    signal[..., :2] = 1000
    signal[:4, 6:, 5:, 2:] = 900  # the nearer to b=0, the brighter is the SH average
    path = made.write(tmp_path)
    nib.Nifti1Image(signal, made.image.affine).to_filename(path)
    nib.Nifti1Image(np.ones(signal.shape[:3], np.uint8), made.image.affine).to_filename(
        tmp_path / "sub-01_mask.nii.gz"
    )
    viewer.open(path, plugin="napari-msp")
    viewer.reset_view()
    for step, seen in ((0, False), (4, False), (5, True), (7, True)):
        viewer.dims.set_current_step(0, step)
        canvas = pixels().mean(-1)[60:-60, 60:-60]  # inside the letters
        rows, columns = np.nonzero(canvas > 0.7)
        assert bool(len(rows)) is seen
    assert rows.max() < canvas.shape[0] / 2
    assert columns.min() > canvas.shape[1] / 2


def test_an_sh_image_is_shown_with_its_name(viewer, scan, tmp_path):
    image = fit_sh(scan("oblique").load(tmp_path))
    path = tmp_path / "sub-07_ses-ge_acq-st_desc-prismastMsp_dwimap.nii.gz"
    write_sh(path, image, Provenance("prisma_st", "ge_st", title="MSP").to_sidecar())
    viewer.open(path, plugin="napari-msp")
    assert [layer.name for layer in viewer.layers] == [
        "sub-07 MSP prisma_st · colour FA",
        "sub-07 MSP prisma_st · SH average",
    ]
    np.testing.assert_array_equal(shown_by(viewer.layers[0]).scan.sh.affine, image.affine)


@pytest.mark.parametrize("name", ["saved_dwi", "saved"])
def test_an_sh_image_is_none_of_a_dwi_that_lacks_a_table(name, scan, tmp_path):
    """As it is saved here under a scan's name, or beside b-values that were left there."""
    path = tmp_path / f"{name}.nii.gz"
    write_sh(path, fit_sh(scan().load(tmp_path)), Provenance("prisma_st", "ge_st").to_sidecar())
    (tmp_path / f"{name}.bval").write_text("0 1200")
    reader = get_reader(str(path))
    assert reader is not None
    assert [each[2] for each in reader(str(path))] == ["image", "image"]


def test_several_files_can_be_opened_or_stacked(viewer, heads):
    scans = [heads / f"sub-0{n}/ses-ge/dwi/sub-0{n}_ses-ge_acq-st_dwi.nii.gz" for n in (1, 2)]
    viewer.open(scans, plugin="napari-msp")
    assert len(viewer.layers) == 6
    viewer.layers.clear()
    viewer.open(scans, stack=True, plugin="napari-msp")
    assert [record.subject for record in scans_of(viewer.layers)] == ["sub-01", "sub-02"]


def test_of_several_shells_one_is_shown_and_it_is_said(viewer, scan, tmp_path):
    path = scan(b_values=(300.0, 1000.0, 2500.0), directions=30).write(tmp_path)
    with pytest.warns(UserWarning, match=r"b = 300 s/mm² is shown; Load acquisition offers"):
        viewer.open(path, plugin="napari-msp")
    (record,) = scans_of(viewer.layers)
    assert record.sh.b_value == 300


def test_a_series_that_is_no_scan_is_left_to_others(viewer, tmp_path, scan):
    scan().write(tmp_path)
    plain = write_plain(tmp_path / "bold.nii.gz", (5, 6, 7, 4))
    assert get_reader(str(plain)) is None
    series = write_plain(tmp_path / "series_DWI.nii.gz", (5, 6, 7, 4))
    assert get_reader(str(series)) is not None
    assert get_reader([str(tmp_path / "sub-01_dwi.nii.gz"), str(plain)]) is None
    for kind in (np.complex64, [(colour, "u1") for colour in "RGB"]):
        nib.Nifti1Image(np.zeros((5, 6, 7), kind), np.eye(4)).to_filename(plain)
        assert get_reader(str(plain)) is None
    write_plain(plain, (5, 6, 7, 4))
    assert get_reader("https://example.org/sub-01_dwi.nii.gz") is None
    with pytest.raises(ValueError, match=r"'napari-msp' was selected to open .* refused the file"):
        viewer.open(plain, plugin="napari-msp")


def test_a_volume_lies_where_its_affine_says(viewer, scan, tmp_path):
    """A T1-weighted image and labels, stored turned and oblique beside a scan."""
    made = scan("oblique")
    made.write(tmp_path)
    affine, shape = made.image.affine, made.image.shape[:3]
    values = np.arange(np.prod(shape)).reshape(shape)
    written = {
        "sub-01_T1w": values.astype(np.float32),
        "sub-01_desc-tissue_dseg": (3 * values // values.size).astype(np.uint8),
        "sub-01_desc-masked_T1w": (values * (values > 9)).astype(np.int16),  # nor is this
        "sub-01_probseg": values / values.max(),  # no labels, whatever it is called
        "trace_dwi": values.astype(np.int16),
    }
    for name, each in written.items():
        nib.Nifti1Image(each, affine).to_filename(tmp_path / f"{name}.nii.gz")
    (tmp_path / "sub-01_desc-tissue_dseg.tsv").write_text("index\tname\n1\twhite\n2\tgrey\n")
    drop(viewer, tmp_path / "sub-01_T1w.nii.gz")
    rest = [tmp_path / f"{name}.nii.gz" for name in list(written)[1:]]
    viewer.open([*rest, tmp_path / "sub-01_dwi.nii.gz"], plugin="napari-msp")
    kinds = [each._type_string for each in viewer.layers]
    assert kinds == ["image", "labels", *["image"] * 6]
    for name, each in written.items():
        layer = viewer.layers[name]
        lattice = lattice_of(layer)
        assert lattice is not None
        np.testing.assert_allclose(from_shown(layer.data, lattice), each, rtol=1e-6)
        np.testing.assert_allclose(lattice.affine, affine, rtol=1e-6)
        np.testing.assert_allclose(layer.translate, viewer.layers[-1].translate)
    assert viewer.layers["sub-01_desc-tissue_dseg"].metadata[REGION_NAMES][2] == "grey"


@pytest.mark.parametrize("missing", ["bval", "bvec"])
def test_of_a_scan_that_lacks_a_table_its_reader_says_so(viewer, missing, scan, tmp_path):
    path = scan().write(tmp_path)
    path.with_name(f"sub-01_dwi.{missing}").unlink()
    said = r"^Is missing; put it next to the image, or give it with .* in Load acquisition"
    with pytest.raises(UserError, match=said):
        viewer.open(path, plugin="napari-msp")
    assert not viewer.layers
    path.rename(tmp_path / "image.nii.gz")  # nothing says that it is a DWI
    assert get_reader(str(tmp_path / "image.nii.gz")) is None


@pytest.mark.parametrize("sidecar", ["", "{", "[]", '{"OrientationEncoding": {"Type": "sh"}}'])
def test_only_an_sh_image_that_says_so_is_claimed(sidecar, tmp_path):
    path = write_plain(tmp_path / "a_dwimap.nii.gz", (3, 3, 3, 28))
    if sidecar:
        (tmp_path / "a_dwimap.json").write_text(sidecar)
    assert get_reader(str(path)) is None


def test_what_is_wrong_is_shown_in_one_line_that_names_a_field(viewer, scan, tmp_path, qtbot):
    path = scan().write(tmp_path)
    (tmp_path / "derivatives").mkdir()
    path.with_name("sub-01_dwi.bval").write_text("0 1200")
    with pytest.raises(UserError, match=r"^Has 2 b-values but the image has 62 volumes") as caught:
        viewer.open(path, plugin="napari-msp")
    assert "\n" not in str(caught.value)
    assert not viewer.layers
    # The window is as usable as before.
    (tmp_path / "good").mkdir()
    viewer.open(scan().write(tmp_path / "good"), plugin="napari-msp")
    assert len(viewer.layers) == 3


def test_an_error_points_to_the_widget_and_not_to_the_command_line(viewer, scan, tmp_path):
    path = scan(directions=np.tile([[1.0, 0, 0]], (30, 1))).write(tmp_path)
    with pytest.raises(UserError) as caught:
        viewer.open(path, plugin="napari-msp")
    said = str(caught.value)
    assert "give the scan's own b-vectors with “b-vectors” in Load acquisition" in said
    # A toast shows the beginning: the reason, not the path.
    assert not said.startswith(("/", path.name))
    assert str(path) in said.split(". ")[-1]


def test_being_asked_costs_nothing(scan, tmp_path):
    path = scan().write(tmp_path)
    code = (
        "import sys; from napari_msp.ui.reader import get_reader; "
        f"assert get_reader({str(path)!r}); "
        "sys.exit(bool({'torch', 'numpy', 'nibabel', 'qtpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_of_ordinary_images_is_listed_once(monkeypatch, scan, tmp_path):
    listed: list[Path] = []

    def counted(real):
        def call(path):
            listed.append(Path(path))
            return real(path)

        return call

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for number in range(300):
        (tmp_path / f"sub-{number:03}_T1w.nii.gz").touch()
    assert get_reader(str(tmp_path)) is None
    assert listed == [tmp_path] * 2  # for scans, then for DICOM
    (tmp_path / "bvals").write_text("0 1000")  # of none of them
    (tmp_path / "bvecs").write_text("0 1")
    assert get_reader(str(tmp_path)) is None
    assert listed == [tmp_path] * 4
    scan().write(tmp_path, "slice")
    reads = get_reader(str(tmp_path))
    assert listed == [tmp_path] * 5
    assert reads is not None
    monkeypatch.delattr(reader, "scans_in")  # it is not looked through again
    assert len(reads(str(tmp_path))) == 3


def test_a_dataset_is_looked_through_until_it_is_known(monkeypatch, scan, tmp_path):
    for number in range(4):
        folder = tmp_path / f"sub-{number}" / "dwi"
        folder.mkdir(parents=True)
        path = scan().write(folder, f"sub-{number}")
        if number == 0:
            for each in ("bval", "bvec"):
                path.with_name(f"sub-0_dwi.{each}").rename(tmp_path / f"dwi.{each}")
        else:
            shutil.rmtree(folder)
            (tmp_path / f"sub-{number}" / "anat").mkdir()
    for dropped in (tmp_path, tmp_path / "sub-0", tmp_path / "sub-0" / "dwi"):
        assert get_reader(str(dropped)) is not None  # its table is inherited
    assert get_reader(str(tmp_path / "sub-1")) is None
    monkeypatch.setattr(reader, "MOST_ENTRIES", reader.ENTRIES_OF_A_FOLDER + 10)
    assert get_reader(str(tmp_path)) is None


def test_a_folder_is_read_where_it_holds_one_scan(monkeypatch, scan, tmp_path):
    assert get_reader(str(tmp_path)) is None
    path = scan().write(tmp_path)
    assert get_reader(str(tmp_path)) is not None
    layers = read(str(tmp_path))
    assert shown_in(layers[-1]).scan.path == path
    write_to = tmp_path / "sub-02" / "dwi"
    write_to.mkdir(parents=True)
    scan().write(write_to)
    monkeypatch.setattr(docks, "current_viewer", lambda: None)
    with pytest.raises(UserError, match="Holds several scans"):  # there is no window to choose in
        read(str(tmp_path))


def test_a_folder_that_offers_a_choice_opens_the_form_with_it(viewer, qtbot, scan, tmp_path):
    for name in ("sub-01", "sub-02"):
        (tmp_path / name / "dwi").mkdir(parents=True)
        scan().write(tmp_path / name / "dwi")
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    (dicom / "1").write_bytes(bytes(128) + b"DICM")
    for folder in (tmp_path, dicom):
        assert viewer.open(str(folder), plugin="napari-msp") == []
        form = docks.open_widget(viewer, reader.LOAD).form
        qtbot.waitUntil(lambda wanted=folder, form=form: form.choice.path == wanted)
