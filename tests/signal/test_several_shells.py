"""SH of several shells: each as if it were alone, over one b=0, and what is no shell."""

import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.bids import read_sidecar
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.gradients import GradientTable, shell_name
from napari_msp.errors import UserError
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import LowerOrder, ShellLeftOut, fit_sh, normalise
from napari_msp.signal.maps import MAPS
from napari_msp.signal.sh_image import SHImage


def table_of(b_values, spread_out):
    """A gradient table of given b-values, each along a direction of its own."""
    b_values = np.asarray(b_values, dtype=float)
    directions = spread_out(len(b_values)) * (b_values > 50)[:, None]
    return GradientTable(b_values, directions)


def acquisition_of(b_values, spread_out):
    image = nib.Nifti1Image(np.ones((2, 2, 2, len(b_values)), np.float32), np.eye(4))
    return Acquisition(
        image, table_of(b_values, spread_out), given_mask=np.ones((2, 2, 2), dtype=bool)
    )


@pytest.fixture(scope="module")
def both(scan, tmp_path_factory):
    """An oblique scan of two shells, with noise."""
    folder = tmp_path_factory.mktemp("both")
    return scan("oblique", b_values=(1200.0, 3000.0), noise=8.0).load(folder)


def alone(acquisition, b_value):
    """The same scan without its other shells: b=0 volumes and those of one shell."""
    shell = acquisition.shell(b_value)
    kept = np.sort(np.concatenate([acquisition.gradients.b0_volumes, shell.volumes]))
    image = nib.Nifti1Image(
        np.asarray(acquisition.image.dataobj)[..., kept], acquisition.image.affine
    )
    table = GradientTable(
        acquisition.gradients.b_values[kept], acquisition.gradients.directions[kept]
    )
    return Acquisition(image, table, given_mask=acquisition.mask)


# --- Which shells there are -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b_value", "name"),
    [(1200, 1200), (1195.4, 1200), (1174, 1150), (1175, 1200), (2990, 3000), (998, 1000), (51, 50)],
)
def test_a_shell_is_called_after_its_b_value_rounded_to_50(b_value, name):
    assert shell_name(b_value) == name


@pytest.mark.parametrize(
    ("b_values", "names"),
    [
        ([0, *[1195, 1200, 1205] * 10], [1200]),
        ([0, *[990, 1000, 1010, 1990, 2005, 2980, 3010] * 5], [1000, 2000, 3000]),  # HCP
        (
            [0, *[500] * 6, *[1000] * 15, *[2000] * 15, *[3000] * 60],
            [500, 1000, 2000, 3000],
        ),  # ABCD
        ([0, *[950, 1000, 1050] * 10], [1000]),
        ([0, *[2900, 2950, 3000, 3050, 3100] * 6], [3000]),
    ],
)
def test_shells_as_scanners_write_them(spread_out, b_values, names):
    shells = acquisition_of(b_values, spread_out).shells()
    assert [shell.name for shell in shells] == names
    assert sum(len(shell.volumes) for shell in shells) == len(b_values) - 1


@pytest.mark.parametrize(
    "b_values",
    [
        [0, *range(500, 1501, 50)],
        [0, *range(500, 1501, 25)],
        [0, *np.linspace(100, 3000, 60)],
        [0, *[800, 860, 930, 1000, 1070, 1140, 1200] * 5],
    ],
)
def test_chained_b_values_are_no_shell(spread_out, b_values):
    acquisition = acquisition_of(b_values, spread_out)
    low, high = min(b_values[1:]), max(b_values)
    for ask in (acquisition.shells, acquisition.shell, lambda: fit_sh(acquisition)):
        with pytest.raises(UserError) as error:
            ask()
        assert f"run from {low:.0f} to {high:.0f}" in error.value.problem
        assert error.value.field == "bval"
        assert error.value.remedy is not None


def test_a_shell_beside_chained_b_values_can_be_chosen(spread_out):
    acquisition = acquisition_of([0, *range(500, 1501, 50), *[3000] * 30], spread_out)
    assert acquisition.shell(3000).name == 3000
    with pytest.raises(UserError, match="no shell"):
        acquisition.shells()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([1200, 2000], "no shell near b = 2000"),
        ([1200, 1210], "b = 1200 was given twice"),
        (2000, "no shell near b = 2000"),
        ([float("nan")], "no shell near"),
    ],
)
def test_shells_that_are_not_there(both, wanted, words):
    with pytest.raises(UserError, match=words) as error:
        fit_sh(both, b_value=wanted)
    assert error.value.field == "b_value"
    assert "1200" in str(error.value.remedy)


# --- The fit ----------------------------------------------------------------------------------


def test_each_shell_is_fitted_as_if_it_were_alone(both):
    images = fit_sh(both, b_value=[1200, 3000])
    assert fit_sh(both).keys() == images.keys()
    assert list(images) == [1200, 3000]
    for name, image in images.items():
        own = fit_sh(alone(both, name))
        assert isinstance(own, SHImage)
        np.testing.assert_array_equal(image.coefficients, own.coefficients)
        np.testing.assert_array_equal(image.coefficients, fit_sh(both, b_value=name).coefficients)
        assert image.b_value == name
    assert np.abs(images[1200].coefficients - images[3000].coefficients).max() > 0.1


@pytest.mark.parametrize("order_wanted", [(1200, 3000), (3000, 1200), [3000.0]])
def test_several_numbers_give_a_mapping_lowest_first(both, order_wanted):
    images = fit_sh(both, b_value=order_wanted)
    assert list(images) == sorted(int(each) for each in order_wanted)


@pytest.mark.reference("MRtrix amp2sh")
def test_each_shell_is_amp2sh_of_it(both, scan, mrtrix, tmp_path):
    path = scan("oblique", b_values=(1200.0, 3000.0), noise=8.0).write(tmp_path)
    acquisition = load_acquisition(path)
    normalised = np.ones(acquisition.image.shape, np.float32)
    for shell in acquisition.shells():
        normalised[..., shell.volumes] = normalise(
            acquisition.voxels[..., shell.volumes], acquisition.b0[..., None]
        )
    nib.Nifti1Image(normalised, acquisition.affine).to_filename(tmp_path / "n.nii.gz")
    gradients = (path.with_suffix("").with_suffix(end) for end in (".bvec", ".bval"))
    given = ["-fslgrad", *gradients, "-lmax", 6]
    for name, image in fit_sh(acquisition, regularisation=0).items():
        target = tmp_path / f"{name}.nii.gz"
        mrtrix("amp2sh", tmp_path / "n.nii.gz", target, *given, "-shells", name)
        reference = nib.load(target).get_fdata()[image.mask]
        off = np.linalg.norm(image.coefficients[image.mask] - reference, axis=-1)
        assert (off / np.linalg.norm(reference, axis=-1)).max() < 1e-5


def test_all_shells_are_over_one_b0(both):
    """Twice the b=0 halves every shell's signal."""
    volumes = np.asarray(both.image.dataobj).copy()
    volumes[..., both.gradients.b0_volumes] *= 2
    doubled = replace(both, image=nib.Nifti1Image(volumes, both.affine), given_mask=both.mask)
    for name, image in fit_sh(doubled).items():
        np.testing.assert_allclose(
            image.coefficients, fit_sh(both, b_value=name).coefficients / 2, atol=1e-6
        )


def of_two_counts(few, many, spread_out):
    """A scan of one fibre whose shells have different numbers of directions."""
    b_values = np.array([0.0, *[1000.0] * few, *[2000.0] * many])
    directions = np.concatenate([np.zeros((1, 3)), spread_out(few), spread_out(many)])
    decay = b_values * (0.3e-3 + 1.2e-3 * directions[:, 2] ** 2)
    image = nib.Nifti1Image(np.tile(1000 * np.exp(-decay), (3, 3, 3, 1)), np.diag([2, 2, 2, 1]))
    return Acquisition(
        image, GradientTable(b_values, directions), given_mask=np.ones((3, 3, 3), dtype=bool)
    )


@pytest.mark.parametrize(("count", "order"), [(60, 6), (32, 6), (27, 4), (15, 4), (14, 2), (6, 2)])
def test_each_shell_has_the_order_that_its_directions_support(spread_out, count, order):
    acquisition = of_two_counts(count, 45, spread_out)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", LowerOrder)
        images = fit_sh(acquisition)
    words = f"b = 1000 has {count} directions, so its SH have order {order}"
    assert [words in str(each.message) for each in said] == [True] * (order < 6)
    assert {name: image.order for name, image in images.items()} == {1000: order, 2000: 6}
    scan = Scan(acquisition=acquisition, given_subject="sub-01")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowerOrder)
        both = [each.maps("signal") for each in scan.by_shell().values()]
    for maps in both:
        assert maps["fa"].min() > 0.6
        np.testing.assert_allclose(np.abs(maps["direction"][..., 2]), 1, atol=1e-3)


def test_an_order_that_was_asked_for_is_not_lowered(spread_out):
    acquisition = of_two_counts(20, 45, spread_out)
    with pytest.raises(UserError, match="20 directions cannot determine") as error:
        fit_sh(acquisition, order=6)
    assert "28 directions or more" in str(error.value.remedy)


@pytest.mark.parametrize("few", [2, 5])
def test_a_shell_of_too_few_directions_is_left_out_and_said(spread_out, few, tmp_path):
    acquisition = replace(of_two_counts(few, 45, spread_out), path=tmp_path / "sub-01_dwi.nii.gz")
    why = f"b = 1000 has {few} directions, but maps need 6"
    with pytest.warns(ShellLeftOut, match=why):
        image = fit_sh(acquisition)
    np.testing.assert_array_equal(
        image.coefficients, fit_sh(acquisition, b_value=2000).coefficients
    )
    with pytest.raises(UserError, match=f"{few} direction"):
        fit_sh(acquisition, b_value=1000)
    scan = Scan(acquisition=acquisition, path=acquisition.path)
    with pytest.warns(ShellLeftOut, match=why):
        assert scan.shells == (2000,)
    (file, *_) = scan.save(tmp_path)
    assert load_scan(file).b_value == 2000
    assert why in str(read_sidecar(file)["Warnings"])
    assert why in scan.notes[0]


@pytest.mark.parametrize(
    ("few", "many", "words"),
    [(5, 4, "5 directions cannot determine the 6"), (2, 3, "2 directions cannot")],
)
def test_a_scan_of_such_shells_alone_is_refused(spread_out, few, many, words):
    with pytest.raises(UserError, match=words) as error:
        fit_sh(of_two_counts(few, many, spread_out))
    assert "6 directions or more" in str(error.value.remedy)


def test_chained_b_values_beside_a_shell_are_left_out_of_its_maps(spread_out):
    acquisition = acquisition_of([0, *range(500, 1501, 50), *[3000] * 30], spread_out)
    with pytest.warns(ShellLeftOut, match="b-values run from 500 to 1500 .* form no shell"):
        assert fit_sh(acquisition).b_value == 3000


# --- From load to save ------------------------------------------------------------------------


def test_a_scan_of_several_shells_is_made_of_scans_of_one(both):
    whole = Scan(acquisition=both, given_subject="sub-01")
    assert whole.shells == (1200, 3000)
    for ask in (lambda: whole.sh, whole.maps):
        with pytest.raises(UserError, match=r"has several shells \(b = 1200, 3000\)"):
            ask()
    for name, one in whole.by_shell().items():
        assert one.shells == (name,)
        assert one.b_value == name
        assert one.sh is whole.at_shell(name).sh
        assert one.by_shell() == {name: one}
        assert whole.at_shell(name * 1.02) is one
    parts = whole.by_shell().values()
    low, high = (each.maps()["sh_average"][both.mask].mean() for each in parts)
    assert low > high  # the more weighted shell has less signal


def test_files_of_shells_are_told_apart_and_read_again(scan, tmp_path):
    path = scan(b_values=(1200.0, 3000.0), noise=8.0).write(tmp_path, stem="sub-01_ses-ge_acq-st")
    whole = load_scan(path)
    files = whole.save(tmp_path / "maps")
    assert len(files) == 2 * (1 + len(MAPS)) == len(set(files))
    stem = "sub-01_ses-ge_acq-st_desc-b{}_model-sh_param-coefficients_dwimap.nii.gz"
    coefficients = [tmp_path / "maps" / stem.format(name) for name in (1200, 3000)]
    assert set(coefficients) <= set(files)
    assert load_scan(coefficients[1]).b_value == 3000
    again = load_scan(coefficients[::-1])
    assert again.shells == (1200, 3000)
    assert (again.subject, again.platform) == ("sub-01", "ge_st")
    for name, one in again.by_shell().items():
        before = whole.at_shell(name).sh
        np.testing.assert_array_equal(one.sh.coefficients, before.coefficients)
        np.testing.assert_array_equal(one.sh.affine, before.affine)
    with pytest.raises(UserError, match="exists already"):
        again.save(tmp_path / "maps")
    saved = again.save(tmp_path / "again")
    assert [each.name for each in saved] == [each.name for each in files]


def test_one_chosen_shell_keeps_the_names_of_one(scan, tmp_path):
    path = scan(b_values=(1200.0, 3000.0)).write(tmp_path)
    (file, *_) = load_scan(path, 3000).save(tmp_path / "maps")
    assert file.name == "sub-01_model-sh_param-coefficients_dwimap.nii.gz"
    assert load_scan(file).b_value == 3000


def test_shells_of_different_scans_are_not_joined(scan, tmp_path):
    files = {}
    for stem, kind, b_value in (
        ("sub-01", "LAS", 1200.0),
        ("sub-02", "LAS", 3000.0),
        ("sub-03", "RAS", 3000.0),
        ("sub-04", "LAS", 1210.0),
    ):
        folder = tmp_path / stem
        folder.mkdir()
        path = scan(kind, b_values=(b_value,)).write(folder, stem=stem)
        files[stem] = load_scan(path).save(folder)[0]
    for other, words in (
        ("sub-02", "not belong to the same scan"),
        ("sub-03", "not belong to the same scan"),
        ("sub-04", "like another of these"),
    ):
        with pytest.raises(UserError, match=words):
            load_scan([files["sub-01"], files[other]])
    with pytest.raises(UserError, match="is not an SH image"):
        load_scan([files["sub-01"], tmp_path / "sub-02" / "sub-02_dwi.nii.gz"])
