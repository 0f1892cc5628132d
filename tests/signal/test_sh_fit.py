"""SH basis, fit and evaluation against MRtrix3, DIPY and float64."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dipy.core.sphere import Sphere
from dipy.reconst.shm import sf_to_sh

from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.gradients import scanner_to_image_axes
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import UserError
from napari_msp.evaluation.compare import compare
from napari_msp.scan import Scan
from napari_msp.scan_sources import as_scan, load_scan
from napari_msp.signal.fitting import (
    IllConditionedScheme,
    check_scheme,
    condition_number,
    evaluate_sh,
    fit_sh,
    normalise,
    supported_order,
)
from napari_msp.signal.maps import (
    colour_fa,
    fractional_anisotropy,
    sh_average,
    squared_error,
)
from napari_msp.signal.sh_image import SHImage, load_sh, with_coefficients, write_sh
from napari_msp.signal.spherical_harmonics import (
    coefficient_count,
    default_regularisation,
    design_matrix,
    fitting_matrix,
)


def relative(ours, reference):
    """Largest error of a voxel's series over its length."""
    return (np.linalg.norm(ours - reference, axis=-1) / np.linalg.norm(reference, axis=-1)).max()


def fit_quietly(acquisition, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IllConditionedScheme)
        return fit_sh(acquisition, **options)


def amp2sh(mrtrix, folder, acquisition, path):
    """MRtrix's fit of the signal normalised beforehand, with its own reading of the bvecs."""
    shell = acquisition.shell()
    # b=0 volumes of 1 are kept, so that the table still has as many rows as the image volumes.
    normalised = np.ones(acquisition.image.shape, np.float32)
    normalised[..., shell.volumes] = normalise(
        acquisition.voxels[..., shell.volumes], acquisition.b0[..., None]
    )
    nib.Nifti1Image(normalised, acquisition.affine).to_filename(folder / "n.nii.gz")
    stem = path.name.removesuffix(".nii.gz")
    gradients = (path.with_name(f"{stem}.bvec"), path.with_name(f"{stem}.bval"))
    target = folder / "mrtrix_sh.nii.gz"
    mrtrix("amp2sh", folder / "n.nii.gz", target, "-fslgrad", *gradients, "-lmax", 6)
    return nib.load(target).get_fdata()


@pytest.mark.reference("MRtrix sh2amp")
@pytest.mark.parametrize("order", [2, 6, 8])
def test_basis_functions_are_mrtrix_ones(tmp_path, mrtrix, spread_out, order):
    directions, count = spread_out(60), coefficient_count(order)
    one_each = np.eye(count, dtype=np.float32).reshape(count, 1, 1, count)
    nib.Nifti1Image(one_each, np.eye(4)).to_filename(tmp_path / "one_each.nii.gz")
    np.savetxt(tmp_path / "directions.txt", directions)
    mrtrix(
        "sh2amp", tmp_path / "one_each.nii.gz", tmp_path / "directions.txt", tmp_path / "a.nii.gz"
    )
    reference = nib.load(tmp_path / "a.nii.gz").get_fdata()[:, 0, 0].T
    np.testing.assert_allclose(design_matrix(directions, order), reference, atol=1e-6)


@pytest.mark.reference("MRtrix amp2sh")
@pytest.mark.parametrize("kind", ["RAS", "LAS", "permuted", "oblique"])
def test_unregularised_fit_is_amp2sh(tmp_path, scan, mrtrix, kind):
    path = scan(kind, noise=10).write(tmp_path)
    acquisition = load_acquisition(path)
    reference = amp2sh(mrtrix, tmp_path, acquisition, path)
    fitted = fit_sh(acquisition, regularisation=0)
    mask = fitted.mask
    assert relative(fitted.coefficients[mask], reference[mask]) < 1e-5


@pytest.mark.reference("MRtrix amp2sh")
def test_unregularised_fit_of_30_directions_at_order_4_is_amp2sh(tmp_path, scan, mrtrix):
    path = scan("oblique", directions=30, noise=10).write(tmp_path)
    acquisition = load_acquisition(path)
    reference = amp2sh(mrtrix, tmp_path, acquisition, path)
    fitted = fit_sh(acquisition, regularisation=0)
    assert relative(fitted.coefficients[fitted.mask], reference[fitted.mask]) < 1e-4


# The condition number near 1,000 multiplies noise, which both fits are given alike. Both solve in
# float64, where it costs three digits of sixteen, so they differ by the rounding of the stored
# result to float32 only. That the fit is mostly noise is another matter, and is warned of.
@pytest.mark.reference("MRtrix amp2sh")
def test_unregularised_fit_of_the_slab_is_amp2sh(tmp_path, slab, slab_acquisition, mrtrix):
    reference = amp2sh(mrtrix, tmp_path, slab_acquisition, slab)
    fitted = fit_quietly(slab_acquisition, regularisation=0)
    inside = fitted.mask & (slab_acquisition.b0 > 0)
    assert relative(fitted.coefficients[inside], reference[inside]) < 1e-6


@pytest.mark.reference("DIPY sf_to_sh")
@pytest.mark.parametrize("regularisation", [0.0, 0.006, 0.012, 0.1])
@pytest.mark.parametrize("directions", [30, 60])
def test_regularised_fit_is_dipys(tmp_path, scan, directions, regularisation):
    made = scan("oblique", directions=directions, noise=10)
    fitted = fit_sh(made.load(tmp_path), regularisation=regularisation)
    reference = sf_to_sh(
        made.normalised,
        Sphere(xyz=made.directions[made.weighted]),
        sh_order_max=6,
        basis_type="tournier07",
        legacy=False,
        smooth=regularisation,
    )
    assert relative(fitted.coefficients[fitted.mask], reference[fitted.mask]) < 1e-4


@pytest.mark.reference("DIPY sf_to_sh")
def test_regularised_fit_of_the_slab_is_dipys(slab_acquisition):
    shell = slab_acquisition.shell()
    fitted = fit_quietly(slab_acquisition)
    inside = fitted.mask & (slab_acquisition.b0 > 0)
    reference = sf_to_sh(
        normalise(slab_acquisition.voxels[..., shell.volumes], slab_acquisition.b0[..., None])[
            inside
        ].astype(float),
        Sphere(xyz=slab_acquisition.directions(shell)),
        sh_order_max=6,
        basis_type="tournier07",
        legacy=False,
        smooth=0.006 * 32 / 30,
    )
    assert relative(fitted.coefficients[inside], reference) < 1e-4


@pytest.mark.reference("float64 normal equations")
def test_fit_solves_the_stated_least_squares(spread_out):
    directions, weight = spread_out(40), 0.02
    signal = np.random.default_rng(0).random(40)
    basis = design_matrix(directions, 6)
    orders = np.repeat([0, 2, 4, 6], [1, 5, 9, 13])
    penalty = weight * np.diag((orders * (orders + 1.0)) ** 2)
    by_hand = np.linalg.solve(basis.T @ basis + penalty, basis.T @ signal)
    np.testing.assert_allclose(fitting_matrix(directions, 6, weight) @ signal, by_hand, atol=1e-10)


def test_default_regularisation_shrinks_30_and_60_directions_alike(spread_out):
    shrunk = []
    for count in (30, 60):
        directions = spread_out(count)
        through = fitting_matrix(directions, 6, default_regularisation(count)) @ design_matrix(
            directions, 6
        )
        kept = np.diag(through)
        shrunk.append([kept[1:6].mean(), kept[6:15].mean(), kept[15:].mean()])
    np.testing.assert_allclose(shrunk[0], shrunk[1], atol=0.03)
    fixed = fitting_matrix(spread_out(60), 6, 0.006) @ design_matrix(spread_out(60), 6)
    assert np.diag(fixed)[15:].mean() > shrunk[0][2] + 0.1


@pytest.mark.reference("MRtrix sh2amp")
@pytest.mark.parametrize("kind", ["LAS", "permuted", "oblique"])
def test_sh2amp_of_our_image_gives_the_signal_back(tmp_path, scan, mrtrix, kind):
    made = scan(kind)
    fitted = fit_sh(made.load(tmp_path), regularisation=0)
    write_sh(tmp_path / "sh.nii.gz", fitted)
    directions = made.directions[made.weighted]
    np.savetxt(tmp_path / "directions.txt", directions)
    files = tmp_path / "sh.nii.gz", tmp_path / "directions.txt", tmp_path / "a.nii.gz"
    mrtrix("sh2amp", *files)
    amplitudes = nib.load(files[2])
    reference, mask = amplitudes.get_fdata(), fitted.mask

    np.testing.assert_allclose(evaluate_sh(fitted, directions)[mask], reference[mask], atol=1e-6)
    np.testing.assert_allclose(reference[mask], made.normalised[mask], atol=0.01)
    np.testing.assert_allclose(amplitudes.affine, made.image.affine, atol=1e-5)


@pytest.mark.parametrize("kind", ["LAS", "RAS", "permuted", "oblique"])
@pytest.mark.parametrize("reference", ["ijk", "bvec"])
def test_coefficients_along_the_images_axes_are_turned(reference, kind, tmp_path, scan):
    """They are fitted to directions as they stand in the file, so that no turn of ours is used."""
    made = scan(kind)
    scanner = fit_sh(made.load(tmp_path), regularisation=0)
    directions = made.directions[made.weighted]
    if reference == "bvec":
        along = scanner_to_image_axes(directions, scanner.affine)
    else:
        along = directions @ direction_cosines(scanner.affine)
    signal = evaluate_sh(scanner, directions)
    turned = signal @ fitting_matrix(along, 6, 0.0).T
    encoding = {"Reference": reference, "SphericalHarmonicBasis": "MRtrix3"}
    image = with_coefficients(scanner, turned)
    write_sh(tmp_path / "sh.nii.gz", image, {"OrientationEncoding": encoding})
    found = load_sh(tmp_path / "sh.nii.gz").coefficients
    np.testing.assert_allclose(found, scanner.coefficients, atol=1e-5)


@pytest.mark.reference("MRtrix sh2amp")
def test_sh2amp_of_the_slabs_image_is_our_evaluation(tmp_path, slab_acquisition, mrtrix):
    fitted = fit_quietly(slab_acquisition)
    write_sh(tmp_path / "sh.nii.gz", fitted)
    directions = slab_acquisition.directions(slab_acquisition.shell())
    np.savetxt(tmp_path / "directions.txt", directions)
    files = tmp_path / "sh.nii.gz", tmp_path / "directions.txt", tmp_path / "a.nii.gz"
    mrtrix("sh2amp", *files)
    ours, mask = evaluate_sh(fitted, directions), fitted.mask
    np.testing.assert_allclose(nib.load(files[2]).get_fdata()[mask], ours[mask], atol=1e-5)


@pytest.mark.reference("MRtrix sh2amp")
def test_sh2amp_of_the_slabs_image_gives_what_a_series_can_of_the_signal(
    tmp_path, slab_acquisition, mrtrix
):
    """28 coefficients cannot hold 32 noisy values: what is left over is no series of order 6."""
    write_sh(tmp_path / "sh.nii.gz", fit_quietly(slab_acquisition, regularisation=0))
    directions = slab_acquisition.directions(slab_acquisition.shell())
    np.savetxt(tmp_path / "directions.txt", directions)
    files = tmp_path / "sh.nii.gz", tmp_path / "directions.txt", tmp_path / "a.nii.gz"
    mrtrix("sh2amp", *files)
    mask = slab_acquisition.mask
    measured = normalise(
        slab_acquisition.voxels[..., slab_acquisition.shell().volumes],
        slab_acquisition.b0[..., None],
    )[mask]
    left_over = measured - nib.load(files[2]).get_fdata()[mask]
    np.testing.assert_allclose(left_over @ design_matrix(directions, 6), 0, atol=1e-4)
    assert np.abs(left_over).mean() < 0.02


@pytest.mark.parametrize(
    ("directions", "why"),
    [
        ([(0.6, 0, 0.8)] * 30, "hardly differ"),
        ([*np.eye(3), *-np.eye(3)] * 5, "are only 3, each acquired several times"),
        ([(np.cos(a), np.sin(a), 0.01) for a in np.linspace(0, 3, 30)], "lie in one plane"),
        ([(np.cos(a), np.sin(a), 1) for a in np.linspace(0, 6, 30)], "are too similar"),
    ],
)
def test_in_what_directions_are_too_poor(directions, why):
    units = np.array(directions) / np.linalg.norm(directions, axis=1, keepdims=True)
    with pytest.raises(UserError, match=f"its gradient directions {why}, so they") as caught:
        check_scheme(units, 6, "scan")
    own = why == "hardly differ"
    assert ("own b-vectors" if own else "a scan of 28 directions or more") in str(caught.value)


def test_outside_the_mask_all_is_0(tmp_path, scan):
    fitted = fit_sh(scan().load(tmp_path))
    assert not fitted.mask.all()
    assert (fitted.coefficients[~fitted.mask] == 0).all()
    assert (evaluate_sh(fitted, np.eye(3))[~fitted.mask] == 0).all()
    assert fitted.coefficients.dtype == np.float32


def test_one_shell_of_several_is_fitted(tmp_path, scan):
    both = scan(b_values=(700.0, 1200.0)).load(tmp_path)
    (tmp_path / "alone").mkdir()
    alone = scan(b_values=(1200.0,)).load(tmp_path / "alone")
    chosen = fit_sh(both, b_value=1200)
    np.testing.assert_array_equal(chosen.coefficients, fit_sh(alone).coefficients)
    assert chosen.b_value == 1200


def test_rescaled_signal_is_exact_for_mono_exponential_decay(tmp_path, scan):
    made = scan("RAS", shape=(4, 4, 4))
    for b_value in (1000.0, 1200.0):
        decay = np.exp(-b_value * np.linspace(0.3e-3, 1.5e-3, 60))
        signal = np.full(made.image.shape, 1000.0)
        signal[..., 2:] *= decay
        image = nib.Nifti1Image(signal.astype(np.float32), made.image.affine)
        b_values = np.where(made.weighted, b_value, 0)
        (tmp_path / str(b_value)).mkdir()
        type(made)(image, made.mask, b_values, made.directions).write(tmp_path / str(b_value))
    low, high = (load_acquisition(tmp_path / f"{b}/sub-01_dwi.nii.gz") for b in (1000.0, 1200.0))
    rescaled = fit_sh(low, rescale_to=1200)
    np.testing.assert_allclose(rescaled.coefficients, fit_sh(high).coefficients, atol=1e-6)
    assert (rescaled.b_value, rescaled.rescaled_from) == (1200, 1000)
    assert fit_sh(low).rescaled_from is None


class TestScheme:
    @pytest.mark.parametrize(("count", "possible"), [(27, 4), (15, 4), (14, 2), (6, 2), (3, 0)])
    def test_too_few_directions_are_an_error_naming_the_order(
        self, tmp_path, scan, count, possible
    ):
        acquisition = scan(directions=count).load(tmp_path)
        says = rf"{count} directions cannot .* 28 .* highest possible order is {possible}"
        with pytest.raises(UserError, match=says):
            fit_sh(acquisition, order=6)

    @pytest.mark.parametrize(("count", "order"), [(6, 2), (15, 4), (28, 6)])
    def test_as_many_directions_as_coefficients_are_not_refused(self, tmp_path, scan, count, order):
        assert fit_quietly(scan(directions=count).load(tmp_path), order=order).order == order

    @pytest.mark.parametrize("count", [30, 60])
    def test_a_well_spread_scheme_is_fitted_in_silence(self, tmp_path, scan, spread_out, count):
        fit_sh(scan(directions=count).load(tmp_path))  # any warning is an error
        assert supported_order(spread_out(count), highest=6) == 6

    def test_near_duplicates_are_said_with_the_order_they_support(self, tmp_path, scan, spread_out):
        few = spread_out(16)
        nudged = few + 0.01 * np.random.default_rng(0).normal(size=few.shape)
        doubled = np.concatenate([few, nudged / np.linalg.norm(nudged, axis=1, keepdims=True)])
        acquisition = scan(directions=doubled).load(tmp_path)
        with pytest.warns(IllConditionedScheme, match=r"ill-conditioned at SH order 6 .* order 4"):
            fit_sh(acquisition)
        assert supported_order(doubled) == 4
        with pytest.warns(IllConditionedScheme):
            files = load_scan(acquisition.path).save(tmp_path / "maps")
        kept = json.loads(files[0].with_suffix("").with_suffix(".json").read_text())["Warnings"]
        assert [each.split(" (")[0] for each in kept] == [
            "the gradient scheme is ill-conditioned at SH order 6"
        ]

    def test_the_slabs_vendor_scheme_is_said_to_be_ill_conditioned(self, slab_acquisition):
        directions = slab_acquisition.directions(slab_acquisition.shell())
        supported = supported_order(directions)
        assert supported < 6 < len(directions)
        assert condition_number(directions, 6) > 500
        with pytest.warns(IllConditionedScheme, match=f"supports order {supported}"):
            fit_sh(slab_acquisition)


class TestFiles:
    def test_an_image_is_read_as_it_was_written(self, tmp_path, scan):
        fitted = fit_sh(scan("oblique").load(tmp_path), rescale_to=1000)
        write_sh(tmp_path / "sh.nii.gz", fitted, extra={"Note": "more"})
        again = load_sh(tmp_path / "sh.nii.gz")
        np.testing.assert_array_equal(again.coefficients, fitted.coefficients)
        np.testing.assert_array_equal(again.mask, fitted.mask)
        np.testing.assert_allclose(again.affine, fitted.affine, atol=1e-5)
        assert again.sidecar() == fitted.sidecar()
        assert again.regularisation == pytest.approx(0.012)

    @pytest.mark.reference("MRtrix amp2sh")
    def test_an_image_from_amp2sh_is_read_without_a_sidecar(self, tmp_path, scan, mrtrix):
        path = scan().write(tmp_path)
        acquisition = load_acquisition(path)
        reference = amp2sh(mrtrix, tmp_path, acquisition, path)
        image = load_sh(tmp_path / "mrtrix_sh.nii.gz")
        assert (image.order, image.b_value) == (6, None)
        np.testing.assert_allclose(image.coefficients, reference, rtol=1e-6)

    def test_another_basis_is_refused(self, tmp_path, scan):
        write_sh(
            tmp_path / "sh.nii.gz",
            fit_sh(scan().load(tmp_path)),
            extra={"OrientationEncoding": {"SphericalHarmonicBasis": "Descoteaux"}},
        )
        with pytest.raises(UserError, match="basis Descoteaux"):
            load_sh(tmp_path / "sh.nii.gz")

    def test_an_image_with_another_number_of_volumes_is_refused(self, tmp_path, scan):
        path = scan(directions=25).write(tmp_path)
        with pytest.raises(UserError, match="not that of an SH image"):
            load_sh(path)

    def test_a_mask_of_another_shape_cannot_be_put_together(self):
        with pytest.raises(ValueError, match="do not go with a mask"):
            SHImage(np.zeros((2, 2, 2, 28), np.float32), np.eye(4), np.ones((2, 2, 3), bool))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"affine": np.diag([2.4, 0, 2.4, 1])}, "the affine must be"),
            ({"affine": np.full((4, 4), np.nan)}, "the affine must be"),
            ({"affine": np.eye(3)}, "the affine must be"),
            ({"coefficients": np.zeros((2, 2, 2, 28), complex)}, "real numbers"),
            ({"coefficients": np.zeros((2, 2, 2, 27))}, "no number of coefficients"),
            ({"b_value": np.nan}, "b_value must be"),
            ({"b_value": "1200"}, "b_value must be"),
            ({"regularisation": -1.0}, "regularisation must be"),
        ],
    )
    def test_what_is_no_sh_image_cannot_be_put_together(self, changes, said):
        image = SHImage(np.zeros((2, 2, 2, 28), np.float32), np.eye(4), np.ones((2, 2, 2), bool))
        with pytest.raises(ValueError, match=said):
            replace(image, **changes)

    def test_any_kind_of_numbers_gives_the_same_maps(self, tmp_path, scan):
        image = fit_sh(scan().load(tmp_path))
        known = fractional_anisotropy(image)
        values = image.coefficients
        read_only = values.copy()
        read_only.setflags(write=False)
        for changed in (
            values.astype(">f4"),
            np.asfortranarray(values),
            read_only,
            values.tolist(),
        ):
            other = replace(image, coefficients=changed, mask=image.mask.astype(np.uint8))
            np.testing.assert_allclose(fractional_anisotropy(other), known, atol=1e-6)
            assert np.array_equal(evaluate_sh(other, np.eye(3)), evaluate_sh(image, np.eye(3)))
        assert replace(image, coefficients=values.round().astype(int)).coefficients.dtype == "f4"
        assert isinstance(replace(image, b_value=np.float32(1200)).b_value, float)

    @pytest.mark.parametrize(
        ("wrong", "said"), [(np.nan, "NaN or inf"), (np.inf, "NaN or inf"), (1e3, "up to 1e")]
    )
    def test_coefficients_that_nothing_follows_from_are_refused_wherever_one_is_taken(
        self, tmp_path, scan, wrong, said
    ):
        image = fit_sh(scan().load(tmp_path))
        broken = replace(image, coefficients=image.coefficients.copy())
        x, y, z = np.argwhere(image.mask)[3]
        broken.coefficients[x, y, z, 0] = wrong
        taken: dict[str, Callable[[], Any]] = {
            "MSP": lambda: compare(image, {"MSP": broken}),
            "truth": lambda: compare(broken, {"MSP": image}),
            str(tmp_path / "sh.nii"): lambda: broken.save(tmp_path / "sh.nii"),
        }
        functions: tuple[Callable[[Any], Any], ...] = (
            as_scan, sh_average, fractional_anisotropy, colour_fa,
            lambda each: evaluate_sh(each, np.eye(3)), lambda each: squared_error(each, image),
            lambda each: as_scan({1200: each}), lambda each: as_scan(Scan(given_sh=each)),
        )  # fmt: skip
        for function in functions:
            with pytest.raises(UserError, match=said) as error:
                function(broken)
            assert error.value.subject == "SH image"
        for name, job in taken.items():
            with pytest.raises(UserError, match=said) as error:
                job()
            assert error.value.subject == name
        assert not list(tmp_path.glob("sh*"))

    def test_what_means_nothing_outside_of_the_mask_is_0(self, tmp_path, scan):
        image = fit_sh(scan().load(tmp_path))
        outside = replace(image, coefficients=image.coefficients.copy())
        outside.coefficients[~image.mask] = np.nan
        assert np.array_equal(sh_average(outside), sh_average(image))
        assert not squared_error(image, outside, mask=np.ones_like(image.mask)).any()
        assert np.array_equal(fractional_anisotropy(outside), fractional_anisotropy(image))
        assert np.array_equal(evaluate_sh(outside, np.eye(3)), evaluate_sh(image, np.eye(3)))
        outside.save(tmp_path / "sh.nii")
        taken = as_scan(outside), as_scan({1200: outside}), as_scan(tmp_path / "sh.nii")
        for each in taken:
            assert np.array_equal(each.sh.coefficients, image.coefficients)
        write_sh(tmp_path / "whole.nii", outside)  # nobody knows a file's mask
        with pytest.raises(UserError, match="NaN or infinite"):
            load_sh(tmp_path / "whole.nii")


class TestRanges:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("rescale_to", -1200.0),
            ("rescale_to", 0.0),
            ("rescale_to", 1e6),
            ("rescale_to", np.nan),
            ("regularisation", -1.0),
            ("regularisation", np.inf),
            ("order", 5),
            ("order", -2),
        ],
    )
    def test_what_means_nothing_is_refused(self, tmp_path, scan, setting, value):
        with pytest.raises(ValueError, match={"rescale_to": "rescaled"}.get(setting, setting)):
            fit_sh(scan().load(tmp_path), **{setting: value})

    def test_directions_are_unit_vectors_in_rows(self, tmp_path, scan):
        image = fit_sh(scan().load(tmp_path))
        assert evaluate_sh(image, np.array([[0, 0, 1.0]])).shape == (*image.mask.shape, 1)
        columns = [[1.0, 0], [0, 1], [0, 0]]
        for wrong in map(
            np.array, ([[0.0, 0, 0]], [[np.nan, 0, 1]], [[0, 0, 2.0]], columns, [0.0])
        ):
            with pytest.raises(ValueError, match="directions must be"):
                evaluate_sh(image, wrong)

    def test_maps_are_of_acquisitions_sh_images_and_scans(self, tmp_path, scan):
        wrong: Any = scan().write(tmp_path)
        with pytest.raises(TypeError, match="neither a scan nor an SH image"):
            fractional_anisotropy(wrong)
        with pytest.raises(TypeError, match="is no acquisition"):
            fit_sh(wrong)
        with pytest.raises(TypeError, match="is no SH image"):
            sh_average(wrong)
        known = load_scan(wrong)
        acquisition, sh = known.acquisition, known.sh
        assert acquisition is not None
        for of_scan, of_part in (
            (fit_sh(known).coefficients, sh.coefficients),
            (fractional_anisotropy(known), fractional_anisotropy(acquisition)),
            (colour_fa(as_scan(sh)), colour_fa(sh)),
            (sh_average(known), sh_average(sh)),
            (squared_error(known, as_scan(sh)), squared_error(sh, sh)),
        ):
            np.testing.assert_array_equal(of_scan, of_part)
        with pytest.raises(TypeError, match="a scan of SH has its"):
            fit_sh(as_scan(sh))
