"""The tensor fit and what is read from it, beside LAPACK called for each voxel."""

import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from napari_msp import arrays
from napari_msp.arrays import InMask, for_each_block
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.errors import UserError
from napari_msp.signal import maps
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import colour_fa, fractional_anisotropy, tensor_maps
from napari_msp.signal.spherical_harmonics import spread_directions
from napari_msp.signal.tensors import (
    anisotropy,
    first_eigenvectors,
    fit_tensors,
    mean_diffusivity,
    solve_symmetric,
)

B_VALUES = np.concatenate([[0.0], np.full(32, 1200.0)])
DIRECTIONS = np.concatenate([np.zeros((1, 3)), spread_directions(32)])
FULL = [0, 1, 2, 1, 3, 4, 2, 4, 5]


def by_lapack(signal, b_values=B_VALUES, directions=DIRECTIONS):
    """FA, mean diffusivity and eigenvectors of (V, N) signals, one system after the other."""
    x, y, z = directions.T
    parts = [x * x, 2 * x * y, 2 * x * z, y * y, 2 * y * z, z * z]
    design = np.stack([*(-b_values * part for part in parts), np.ones(len(b_values))], axis=1)
    tensors = np.empty((len(signal), 3, 3))
    for voxel, measured in enumerate(signal):
        scaled = np.maximum(measured / max(measured.max(), 1e-6), 1e-6)
        weights = np.square(scaled)
        for _ in range(3):
            right = design.T @ (weights * np.log(scaled))
            fitted = np.linalg.solve(design.T @ (weights[:, None] * design), right)
            weights = np.exp(2 * np.minimum(design @ fitted, 5))
        tensors[voxel] = fitted[:6][[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3)
    values, vectors = np.linalg.eigh(tensors)
    spread = np.square(values - values.mean(axis=1, keepdims=True)).sum(axis=1)
    fa = np.sqrt(1.5 * spread / np.square(values).sum(axis=1))
    return np.clip(fa, 0, 1), values.mean(axis=1), vectors[..., -1]


def made(count, snr=20.0, seed=0):
    """(count, 33) Rician signals of random tensors."""
    rng = np.random.default_rng(seed)
    fibre = rng.normal(size=(count, 3))
    fibre /= np.linalg.norm(fibre, axis=1, keepdims=True)
    across, more = rng.uniform(0.1e-3, 1e-3, (2, count, 1))
    clean = 900 * np.exp(-B_VALUES * (across + 1.5 * more * np.square(fibre @ DIRECTIONS.T)))
    noise = rng.normal(scale=900 / snr, size=(2, *clean.shape))
    return np.hypot(clean + noise[0], noise[1])


def acquisition_of(signal, shape, order="F"):
    """A scan in memory whose voxels all lie in the mask."""
    voxels = np.asarray(signal.reshape(*shape, -1), dtype=np.float32, order=order)
    table = GradientTable(B_VALUES, DIRECTIONS)
    image = nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
    return Acquisition(image, table, given_mask=np.ones(shape, dtype=bool), every_volume=True)


class TestFit:
    @pytest.mark.parametrize("snr", [5, 30, 1e6])
    def test_is_that_of_a_solver_of_one_system_after_the_other(self, snr):
        signal = made(300, snr)
        fa, md, direction = by_lapack(signal)
        tensors = fit_tensors(signal, B_VALUES, DIRECTIONS)
        np.testing.assert_allclose(anisotropy(tensors), fa, atol=1e-9)
        np.testing.assert_allclose(mean_diffusivity(tensors), md, atol=1e-13)
        cosine = np.abs((first_eigenvectors(tensors) * direction).sum(axis=1))
        np.testing.assert_allclose(cosine, 1, atol=1e-9)

    def test_of_the_slab_is_that_of_such_a_solver(self, slab_acquisition):
        scan = slab_acquisition
        (shell,) = scan.gradients.shells
        volumes = np.concatenate([scan.gradients.b0_volumes, shell.volumes])
        mask = scan.mask & (scan.b0 > 0)
        at = tuple(index[::23] for index in np.nonzero(mask))
        assert len(at[0]) > 1000
        signal = scan.voxels[at][:, volumes] / scan.b0[at][:, None].astype(float)
        table = scan.gradients
        fa, md, direction = by_lapack(signal, table.b_values[volumes], table.directions[volumes])
        gave = tensor_maps(scan)
        np.testing.assert_allclose(gave.fa[at], fa, atol=1e-6)
        np.testing.assert_allclose(gave.md[at], md, atol=1e-9)
        cosine = np.abs((gave.direction[at] * direction).sum(axis=1))
        np.testing.assert_allclose(cosine[fa > 0.05], 1, atol=1e-6)

    def test_gives_back_the_diffusivity_that_weighted_b0_volumes_lost(self):
        scan = acquisition_of(made(8), (2, 2, 2))
        table = GradientTable(np.where(B_VALUES > 0, 1200.0, 60.0), DIRECTIONS, b0_threshold=60)
        plain, back = tensor_maps(scan), tensor_maps(replace(scan, given_gradients=table))
        np.testing.assert_allclose(back.md, plain.md / (1 - 60 / 1200), rtol=1e-5)
        np.testing.assert_array_equal(back.direction, plain.direction)
        assert (back.fa < plain.fa).all()


class TestOddVoxels:
    @pytest.mark.parametrize(
        "odd",
        [
            np.zeros(33),
            np.full(33, -5.0),
            np.where(np.arange(33) % 2, -3.0, 40.0),
            np.eye(33)[0] * 700,
            np.eye(33)[4] * 700,
            np.ones(33),
            np.where(np.arange(33) == 3, 1e6, 1e-3),
            np.full(33, 1e-300),
        ],
        ids=["zeros", "negative", "some negative", "b=0 alone", "one", "flat", "huge", "tiny"],
    )
    def test_are_finite_and_leave_their_neighbours_alone(self, odd):
        signal = made(5)
        expected = fit_tensors(signal, B_VALUES, DIRECTIONS)
        tensors = fit_tensors(np.insert(signal, 2, odd, axis=0), B_VALUES, DIRECTIONS)
        np.testing.assert_allclose(np.delete(tensors, 2, axis=1), expected, rtol=1e-9, atol=1e-15)
        assert np.isfinite(tensors).all()
        assert 0 <= anisotropy(tensors)[2] <= 1
        np.testing.assert_allclose(np.linalg.norm(first_eigenvectors(tensors), axis=1), 1)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_that_are_not_finite_give_nan_there_alone(self, value):
        signal = made(5)
        expected = fit_tensors(signal, B_VALUES, DIRECTIONS)
        signal[2, 7] = value
        tensors = fit_tensors(signal, B_VALUES, DIRECTIONS)
        others = np.arange(5) != 2
        np.testing.assert_allclose(tensors[:, others], expected[:, others], rtol=1e-9, atol=1e-15)
        for what in (anisotropy(tensors), mean_diffusivity(tensors)):
            assert np.isnan(what[2]) and np.isfinite(what[others]).all()
        assert np.isnan(first_eigenvectors(tensors)[2]).all()

    def test_nan_in_an_sh_image_is_refused(self):
        image = fit_sh(acquisition_of(made(27), (3, 3, 3)))
        image.coefficients[1, 1, 1, 4] = np.nan
        with pytest.raises(
            UserError, match=r"infinite coefficients in 1 voxel \(the first is 1, 1, 1\)"
        ):
            fractional_anisotropy(image)

    def test_none_at_all_and_one_alone(self):
        scan = acquisition_of(made(8), (2, 2, 2))
        mask = np.zeros((2, 2, 2), dtype=bool)
        with pytest.raises(UserError, match="no voxel is inside"):
            tensor_maps(replace(scan, given_mask=mask))
        mask[1, 0, 1] = True
        alone, all_of_them = tensor_maps(replace(scan, given_mask=mask)), tensor_maps(scan)
        assert np.count_nonzero(alone.fa) == 1
        np.testing.assert_allclose(alone.fa[1, 0, 1], all_of_them.fa[1, 0, 1], rtol=1e-6)

    def test_directions_that_determine_no_tensor_are_refused(self):
        scan = acquisition_of(made(8), (2, 2, 2))
        flat = DIRECTIONS * [1, 1, 0] + [0, 1e-9, 0]
        flat[1:] /= np.linalg.norm(flat[1:], axis=1, keepdims=True)
        table = GradientTable(B_VALUES, np.where(B_VALUES[:, None] > 0, flat, 0))
        with pytest.raises(UserError, match="determine no tensor"):
            tensor_maps(replace(scan, given_gradients=table))


class TestEigenvectors:
    @pytest.mark.parametrize(
        "values",
        [
            (1, 1, 1),
            (0, 0, 0),
            (0.2, 0.2, 1.7),
            (0.2, 1.7, 1.7),
            (0.2, 1.7 - 1e-5, 1.7),
            (0.2, 1.7 - 1e-2, 1.7),
            (-1, 0, 1),
            (-2, -1, -0.5),
            (0.999999, 1, 1.000001),
        ],
    )
    def test_are_lapacks_where_they_are_determined(self, values):
        rng = np.random.default_rng(2)
        turns = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
        turns = np.concatenate([np.eye(3)[None], np.eye(3)[None, [2, 0, 1]], turns])
        whole = np.einsum("vij,j,vkj->vik", turns, np.array(values) * 1e-3, turns)
        whole = (whole + whole.transpose(0, 2, 1)) / 2
        ours = first_eigenvectors(whole.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]].T)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-12)
        # As good as can be: nothing of it lies off the largest eigenvalue's eigenspace.
        along = np.einsum("vi,vij,vj->v", ours, whole, ours)
        np.testing.assert_allclose(along, values[2] * 1e-3, atol=1e-15)
        if values[2] - values[1] > 1e-3:
            theirs = np.linalg.eigh(whole)[1][..., -1]
            np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=1)), 1, atol=1e-13)
        longest = np.take_along_axis(ours, np.abs(ours).argmax(axis=1)[:, None], axis=1)
        assert (longest > 0).all()


class TestSolver:
    def test_is_numpys(self):
        rng = np.random.default_rng(1)
        half = rng.normal(size=(40, 7, 9))
        matrices, right = half @ half.transpose(0, 2, 1), rng.normal(size=(40, 7))
        rows, columns = np.triu_indices(7)
        ours = solve_symmetric(matrices[:, rows, columns].T.copy(), right.T.copy())
        expected = np.linalg.solve(matrices, right[..., None])[..., 0]
        np.testing.assert_allclose(ours.T, expected, rtol=1e-8)

    def test_gives_the_shortest_solution_where_there_are_many(self):
        # x + y = 2, twice; z = 3.
        triangle = np.array([[1.0], [1], [0], [1], [0], [1]])
        with np.errstate(all="ignore"):
            found = solve_symmetric(triangle, np.array([[2.0], [2], [3]]))
        np.testing.assert_allclose(found.ravel(), [1, 1, 3])


class TestBlocks:
    @pytest.fixture
    def few_voxels(self, monkeypatch):
        monkeypatch.setattr(arrays, "VOXELS_AT_ONCE", 16)

    def test_any_number_of_threads_gives_the_same_bits(self, few_voxels):
        gave = []
        for threads in (1, 2, 5):
            with threadpool_limits(threads, user_api="blas"):
                scan = acquisition_of(made(343), (7, 7, 7))
                image = fit_sh(scan)
                gave.append((image.coefficients, *vars(tensor_maps(scan)).values()))
                gave[-1] += tuple(vars(tensor_maps(image)).values())
        for other in gave[1:]:
            for one, another in zip(gave[0], other, strict=True):
                np.testing.assert_array_equal(one, another)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_a_mask_is_read_in_any_memory_order(self, order, few_voxels):
        rng = np.random.default_rng(3)
        image = np.asarray(rng.normal(size=(3, 4, 5, 6)), order=order)
        mask = rng.random((3, 4, 5)) > 0.4
        inside = InMask(image, mask)
        out = np.zeros((60, 6))
        for_each_block(
            lambda block: out.__setitem__(inside.places[block], inside.take(block).T), len(inside)
        )
        np.testing.assert_array_equal(out.reshape(image.shape), np.where(mask[..., None], image, 0))

    def test_memory_beyond_the_results_does_not_grow_with_the_image(self):
        peaks = []
        for size in (40, 80):
            scan = acquisition_of(np.tile(made(40), (size * size // 2, 1)), (size, size, 20))
            assert len(scan.gradients) == 33
            _ = scan.b0, scan.mask
            with threadpool_limits(1, user_api="blas"):
                tracemalloc.start()
                gave = tensor_maps(scan)
                peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
                tracemalloc.stop()
            results = sum(each.nbytes for each in vars(gave).values()) / 2**20
        # Of four times the voxels: tensors in float64, indices and scale, beside the results;
        # the signals alone, in float64 as the fit needs them, would be 13 times as much.
        assert peaks[1] - peaks[0] < 5 * results

    def test_blas_has_its_threads_back_even_after_a_failure(self, few_voxels):
        def fail(block):
            raise RuntimeError("stop")

        def threads():
            return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

        with threadpool_limits(2, user_api="blas"):
            before = threads()
            with pytest.raises(RuntimeError, match="stop"):
                for_each_block(fail, 100)
            assert threads() == before


def test_a_scans_tensor_is_fitted_once(monkeypatch):
    calls = []

    def counted(*given):
        calls.append(given)
        return fit_tensors(*given)

    monkeypatch.setattr(maps, "fit_tensors", counted)
    scan = acquisition_of(made(8), (2, 2, 2))
    fa, colour = fractional_anisotropy(scan), colour_fa(scan)
    assert len(calls) == 1
    np.testing.assert_allclose(np.linalg.norm(colour, axis=-1), fa, rtol=1e-5)
    fa[:] = 0  # whoever gets a map may change it
    assert fractional_anisotropy(scan).all()
