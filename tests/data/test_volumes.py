"""Volumes that are not what the gradient table says: which are found, and what must raise nothing.

Simulated heads, their signal brought to other b-values and noise added anew.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.bids import read_sidecar
from napari_msp.data.acquisition import Acquisition, DoubtfulScan, load_acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.data.phantom.platforms import PLATFORMS
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.volumes import judge_volumes
from napari_msp.errors import CountAsB0, UserError
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy, tensor_maps
from napari_msp.signal.sh_image import load_sh
from napari_msp.signal.spherical_harmonics import spread_directions
from napari_msp.signal.tensors import anisotropy, fit_tensors


@dataclass(frozen=True)
class Made:
    """A made-up scan: signal, b-values, and directions in scanner axes."""

    signal: np.ndarray
    b_values: np.ndarray
    directions: np.ndarray

    @property
    def table(self) -> GradientTable:
        return GradientTable(self.b_values, self.directions)

    def with_volume(
        self,
        image: np.ndarray,
        b_value: float,
        direction: Sequence[float] = (0, 0, 0),
        at: int = 99,
    ) -> "Made":
        """Put a volume in front of another; at the end by default."""
        at = min(at, len(self.b_values))
        return Made(
            np.insert(self.signal, at, image, axis=3),
            np.insert(self.b_values, at, b_value),
            np.insert(self.directions, at, direction, axis=0),
        )

    def with_changed(self, volume: int, image: np.ndarray) -> "Made":
        signal = self.signal.copy()
        signal[..., volume] = image
        return replace(self, signal=signal)

    def labelled(self, volume: int, b_value: float, direction: Sequence[float]) -> "Made":
        b_values, directions = self.b_values.copy(), self.directions.copy()
        b_values[volume], directions[volume] = b_value, direction
        return replace(self, b_values=b_values, directions=directions)

    def acquisition(self) -> Acquisition:
        # `load_acquisition` wants b-vectors as FSL has them: here the image's x runs leftwards.
        image = nib.Nifti1Image(self.signal, np.diag([-2.0, 2, 2, 1]))
        mask = np.ones(image.shape[:3], dtype=bool)
        return load_acquisition(image, self.b_values, self.directions * [-1, 1, 1], mask)


@pytest.fixture(scope="module")
def heads():
    return {scan.platform.name: scan for scan in simulate_subject(1, PLATFORMS, "tiny", seed=5)}


@pytest.fixture(scope="module")
def make(heads) -> Callable[..., Made]:
    clean = heads["ge_st"]
    table, weighted = clean.table, clean.table.shells[0]
    b0 = clean.noise_free[..., table.b0_volumes].mean(axis=-1)
    ratio = np.clip(clean.noise_free[..., weighted.volumes] / np.maximum(b0, 1e-3)[..., None], 0, 1)

    def make(
        b_value: float = 1000, b0s: int = 2, snr: float = 20, directions: int = 30, seed: int = 1
    ) -> Made:
        """Take the decay as mono-exponential; SNR is of b=0 in tissue."""
        decayed = ratio[..., :directions] ** (b_value / weighted.b_value) * b0[..., None]
        signal = np.concatenate([np.repeat(b0[..., None], b0s, axis=-1), decayed], axis=-1)
        sigma = np.median(b0[clean.mask]) / snr
        noise = np.random.default_rng(seed).normal(scale=sigma, size=(2, *signal.shape))
        return Made(
            np.hypot(signal + noise[0], noise[1]).astype(np.float32),
            np.array([0.0] * b0s + [float(b_value)] * directions),
            np.concatenate([np.zeros((b0s, 3)), table.directions[weighted.volumes][:directions]]),
        )

    return make


def computed(made: Made, kind: str) -> np.ndarray:
    """Compute what a scanner or a converter would append."""
    weighted = made.b_values > 50
    signal, b0 = np.maximum(made.signal[..., weighted], 1), made.signal[..., ~weighted].mean(-1)
    trace = np.exp(np.log(signal).mean(axis=-1))
    if kind in ("trace", "trace at another scale"):
        return trace * (1 if kind == "trace" else 3)
    if kind == "mean":
        return signal.mean(axis=-1)
    brain = b0 > 0.1 * b0.max()
    if kind == "ADC":
        return np.where(brain, np.log(np.maximum(b0, 1) / trace) / made.b_values.max(), 0) * 1e6
    tensors = fit_tensors(
        np.concatenate([b0[brain, None], signal[brain]], axis=1).astype(float),
        np.concatenate([[0], made.b_values[weighted]]),
        np.concatenate([np.zeros((1, 3)), made.directions[weighted]]),
    )
    fa = np.zeros(b0.shape)
    fa[brain] = anisotropy(tensors)
    return fa * (1000 if kind == "FA in thousandths" else 1)


APPENDED = ("trace", "trace at another scale", "mean", "ADC", "FA", "FA in thousandths")


def found(made: Made) -> dict[int, str]:
    return {each.volume: each.kind for each in judge_volumes(made.signal, made.table).odd}


class TestFound:
    @pytest.mark.parametrize("b_value", [300, 1000, 3000])
    @pytest.mark.parametrize("b0s", [1, 3])
    @pytest.mark.parametrize("kind", APPENDED)
    def test_computed_images_called_b0(self, make, kind, b0s, b_value):
        made = make(b_value, b0s)
        count = len(made.b_values)
        image = computed(made, kind)
        assert found(made.with_volume(image, 0)) == {count: "derived"}
        assert found(made.with_volume(image, 0, at=0)) == {0: "derived"}

    @pytest.mark.parametrize("b_value", [300, 1000, 3000])
    def test_a_weighted_volume_called_b0(self, make, b_value):
        assert found(make(b_value).labelled(20, 0, (0, 0, 0))) == {20: "derived"}

    @pytest.mark.parametrize("b_value", [300, 1000, 3000])
    def test_b0_called_weighted(self, make, b_value):
        assert found(make(b_value, 3).labelled(1, b_value, (0.6, 0, 0.8))) == {1: "unweighted"}

    @pytest.mark.parametrize(("real", "says"), [(600, 1000), (2000, 1000), (1500, 3000)])
    def test_another_b_value(self, make, real, says):
        made = make(says).with_changed(9, make(real, seed=2).signal[..., 9])
        (odd,) = judge_volumes(made.signal, made.table).odd
        assert (odd.volume, odd.kind) == (9, "b-value")
        guess = float(odd.why.rsplit("b = ")[1])
        assert guess == pytest.approx(real, rel=0.35)

    @pytest.mark.parametrize(("value", "volume"), [(0, 7), (0, 0), (700, 1), (3, 7)])
    def test_blanks(self, make, value, volume):
        made = make()
        assert found(made.with_changed(volume, np.full_like(made.signal[..., 0], value))) == {
            volume: "blank"
        }

    def test_another_image_among_the_weighted(self, make):
        made = make()
        assert found(made.with_changed(9, computed(made, "FA in thousandths"))).keys() == {9}

    def test_copies(self, make):
        made = make()
        assert found(made.with_changed(9, made.signal[..., 5])) == {5: "copy", 9: "copy"}
        again = made.with_volume(made.signal[..., 5], 1000, made.directions[5])
        assert found(again) == {32: "copy"}

    @pytest.mark.filterwarnings("ignore::napari_msp.data.acquisition.DoubtfulScan")
    def test_a_map_that_is_not_finite_outside_the_brain(self, make):
        made = make()
        fa = computed(made, "FA")
        acquisition = made.with_volume(np.where(fa > 0, fa, np.nan), 0).acquisition()
        assert [each.volume for each in acquisition.left_out] == [32]
        assert np.isfinite(acquisition.voxels).all()

    def test_two_at_once(self, make):
        made = make()
        trace, adc = computed(made, "trace"), computed(made, "ADC")
        assert found(made.with_volume(trace, 0).with_volume(adc, 0)) == {
            32: "derived",
            33: "derived",
        }

    def test_whatever_the_lattice_and_the_scale(self, make):
        made = make()
        made = made.with_volume(computed(made, "trace"), 0)
        turned = np.ascontiguousarray(made.signal.transpose(2, 0, 1, 3)[:, ::-1]) * 1e-4
        assert found(replace(made, signal=turned)) == found(made)

    @pytest.mark.parametrize("factor", [1.1, 1.3, 2.0])
    def test_runs_of_different_scale(self, make, factor):
        made = make()
        made = made.with_changed(1, made.signal[..., 1] * factor)
        verdict = judge_volumes(made.signal, made.table)
        assert verdict.odd == ()
        (doubt,) = verdict.doubts
        assert doubt.startswith(f"b=0 volume 1 is {factor:.1f}")
        b_values = made.b_values.copy()
        b_values[0] = 50  # of which 10 % may be gone in blood and fluid
        verdict = judge_volumes(made.signal, replace(made, b_values=b_values).table)
        assert bool(verdict.doubts) == (factor > 1.2)


class TestNothingIsFound:
    @pytest.mark.parametrize("platform", [platform.name for platform in PLATFORMS])
    def test_in_simulated_heads(self, heads, platform):
        head = heads[platform]
        for signal in (head.dwi, head.noise_free):
            verdict = judge_volumes(signal, head.table)
            assert (verdict.odd, verdict.doubts) == ((), ())

    @pytest.mark.parametrize("snr", [5, 10, 40])
    @pytest.mark.parametrize("b_value", [300, 700, 1000, 2000, 3000])
    @pytest.mark.parametrize(("b0s", "directions"), [(1, 3), (1, 6), (1, 30), (2, 12), (5, 30)])
    def test_at_any_b_value_and_noise(self, make, b_value, snr, b0s, directions):
        made = make(b_value, b0s, snr, directions, seed=int(b_value + snr))
        verdict = judge_volumes(made.signal, made.table)
        assert (verdict.odd, verdict.doubts) == ((), ())

    def test_in_two_shells(self, make):
        low, high = make(700), make(2500, seed=3)
        both = Made(
            np.concatenate([low.signal, high.signal], axis=-1),
            np.concatenate([low.b_values, high.b_values]),
            np.concatenate([low.directions, high.directions]),
        )
        assert found(both) == {}

    def test_where_the_signal_drifts_and_the_first_volume_is_brighter(self, make):
        made = make(b0s=3)
        drift = np.linspace(1, 0.9, len(made.b_values))
        drift[0] = 1.1
        assert found(replace(made, signal=made.signal * drift.astype(np.float32))) == {}

    def test_where_the_head_moves(self, make):
        made = make(b0s=3)
        signal = made.signal.copy()
        for volume in (1, 10, 11, 25):
            signal[..., volume] = np.roll(signal[..., volume], 1, axis=volume % 3)
        assert found(replace(made, signal=signal)) == {}

    def test_where_slices_drop_out(self, make):
        made = make()
        signal = made.signal.copy()
        signal[:, :, 3:6, 12] *= 0.1  # the check of a scan's quality names these
        assert found(replace(made, signal=signal)) == {}

    def test_in_one_bundle_of_fibres(self, bundle):
        """All fibres run along z, as in a spinal cord: brightness depends on the direction."""
        noise = 10 * np.random.default_rng(4).normal(size=bundle.signal.shape)
        assert found(bundle) == {}
        assert found(replace(bundle, signal=bundle.signal + noise)) == {}

    def test_in_an_image_too_small_or_empty(self):
        b_values, directions = np.array([0.0, 1000, 1000]), np.eye(3)
        for signal in (np.ones((2, 2, 2, 3)), np.zeros((9, 9, 9, 3)), np.ones((9, 9, 9, 3))):
            assert found(Made(signal.astype(np.float32), b_values, directions)) == {}

    def test_in_a_real_slab(self, slab_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error", DoubtfulScan)
            assert load_acquisition(slab_path).doubts == ()


@pytest.fixture(scope="module")
def bundle(spread_out) -> Made:
    """One tensor whose FA is 0.707, one b=0 and 30 directions at b = 1000, without noise."""
    directions = np.asarray(spread_out(30))
    base = np.random.default_rng(3).uniform(600, 1400, size=(12, 12, 12, 1))
    # Axial diffusivity four times the radial one: FA = 0.75 / sqrt(1.125).
    attenuation = 1000 * (0.425e-3 + 1.275e-3 * directions[:, 2] ** 2)
    signal = np.concatenate([base, base * np.exp(-attenuation)], axis=-1)
    return Made(
        signal.astype(np.float32),
        np.array([0.0] + [1000.0] * 30),
        np.concatenate([np.zeros((1, 3)), directions]),
    )


class TestLeftOut:
    """What is found is in no number, and is told once."""

    @pytest.mark.parametrize("at", [0, 99])
    @pytest.mark.parametrize("b_value", [0, 1000])
    @pytest.mark.parametrize("kind", ["trace", "mean"])
    def test_numbers_are_those_without_the_volume(self, bundle, kind, b_value, at):
        trace = computed(bundle, kind)
        volume = 0 if at == 0 else 31
        acquisition = bundle.with_volume(trace, b_value, at=at).acquisition()
        with pytest.warns(DoubtfulScan, match=f"left out: volume {volume}, b = {b_value} but"):
            fa = fractional_anisotropy(acquisition)
        np.testing.assert_allclose(fa[acquisition.mask], 0.75 / np.sqrt(1.125), atol=1e-4)
        clean = bundle.acquisition()
        np.testing.assert_array_equal(acquisition.voxels, clean.voxels)
        np.testing.assert_array_equal(acquisition.gradients.b_values, clean.gradients.b_values)
        np.testing.assert_array_equal(fit_sh(acquisition).coefficients, fit_sh(clean).coefficients)
        assert [each.volume for each in acquisition.left_out] == [volume]
        assert len(acquisition.doubts) == 1

    def test_what_would_be_measured_with_it(self, bundle):
        """The example of a trace image that counts as b=0: FA is far too large."""
        wrong = bundle.with_volume(computed(bundle, "trace"), 0)
        signal = wrong.signal.reshape(-1, 32).astype(float)
        tensors = fit_tensors(signal, wrong.b_values, wrong.directions)
        assert anisotropy(tensors).mean() > 0.8

    @pytest.mark.filterwarnings("ignore::napari_msp.data.acquisition.DoubtfulScan")
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (
                lambda m: m.labelled(0, 1000, (0.6, 0, 0.8)).labelled(9, 0, (0, 0, 0)),
                "no b=0 volume is",
            ),
            (lambda m: m.with_changed(0, np.zeros_like(m.signal[..., 0])), "no value above 0"),
            (lambda m: m.with_changed(0, m.signal[..., 4]), "no brighter than the weighted"),
            (
                lambda m: (
                    m.with_volume(m.signal[..., 0], 0)
                    .with_volume(m.signal[..., 0] + 1, 1000, (0.6, 0, 0.8))
                    .labelled(9, 0, (0, 0, 0))
                ),
                "rows do not match the volumes",
            ),
            (
                lambda m: (
                    m.with_changed(3, 0 * m.signal[..., 3])
                    .with_changed(4, 0 * m.signal[..., 3])
                    .with_changed(5, 0 * m.signal[..., 3])
                ),
                "27 directions, but SH order 6 needs 28",
            ),
        ],
    )
    def test_too_little_is_left(self, make, change, says):
        made = change(make(b0s=1))
        with pytest.raises(UserError, match=says) as error:
            _ = made.acquisition().voxels
        assert error.value.field == "bval"
        assert error.value.remedy is not None
        assert "volume" in error.value.problem

    def test_many_b0_that_are_none(self, make):
        made = make(b0s=2, directions=30)
        b_values, directions = made.b_values.copy(), made.directions.copy()
        b_values[20:], directions[20:] = 0, 0
        with pytest.raises(UserError, match="12 of 14 volumes listed as b=0 are not"):
            _ = replace(made, b_values=b_values, directions=directions).acquisition().voxels

    def test_a_table_that_is_shifted_by_a_row(self, make):
        made = make(b0s=3)
        shifted = replace(
            made, b_values=np.roll(made.b_values, 1), directions=np.roll(made.directions, 1, axis=0)
        )
        with pytest.raises(UserError, match="volume 0, b = 1000 but as bright as b=0; volume 3"):
            _ = shifted.acquisition().voxels


class TestWhatCountsAsB0:
    """b=0 images at b = 60, as of a 7 T scanner."""

    @pytest.fixture
    def made(self, bundle):
        low = bundle.signal[..., :1] * np.exp(-60 * (0.425e-3 + 1.275e-3 / 3))
        b_values = bundle.b_values.copy()
        b_values[0] = 60
        return replace(
            bundle, signal=np.concatenate([low, bundle.signal[..., 1:]], -1), b_values=b_values
        )

    def load(self, made, threshold=None):
        image = nib.Nifti1Image(made.signal.astype(np.float32), np.diag([-2.0, 2, 2, 1]))
        directions = made.directions * [-1, 1, 1]
        mask = np.ones(image.shape[:3], dtype=bool)
        return load_acquisition(image, made.b_values, directions, mask, b0_threshold=threshold)

    def test_the_error_suggests_it(self, made):
        with pytest.raises(UserError, match="no volume has b ≤ 50, the lowest have b = 6") as error:
            self.load(made)
        assert error.value.remedy == CountAsB0(60.0)
        assert str(error.value).endswith("count them as b=0 with b0_threshold=60")

    def test_with_it_diffusivities_are_those_of_the_difference_in_b(self, made):
        with pytest.warns(DoubtfulScan, match="b = 60 counts as b=0") as warned:
            acquisition = self.load(made, 60)
            maps = tensor_maps(acquisition)
        assert len(warned) == 1
        inside = acquisition.mask
        np.testing.assert_allclose(maps.fa[inside], 0.75 / np.sqrt(1.125), atol=2e-3)
        np.testing.assert_allclose(maps.md[inside], 0.85e-3, rtol=2e-3)
        through_sh = tensor_maps(fit_sh(acquisition, regularisation=0))
        np.testing.assert_allclose(through_sh.md[inside], 0.85e-3, rtol=5e-3)
        np.testing.assert_allclose(through_sh.fa[inside], 0.75 / np.sqrt(1.125), atol=2e-2)
        rescaled = fit_sh(acquisition, b_value=1000, regularisation=0, rescale_to=1500)
        np.testing.assert_allclose(tensor_maps(rescaled).md[inside], 0.85e-3, rtol=5e-3)
        assert acquisition.gradients.b0_volumes.tolist() == [0]
        assert [shell.b_value for shell in acquisition.gradients.shells] == [1000]

    def test_files_keep_that_sh_are_over_a_weighted_b0(self, made, tmp_path):
        with pytest.warns(DoubtfulScan, match="b = 60 counts as b=0"):
            image = fit_sh(self.load(made, 60))
        image.save(tmp_path / "sh.nii.gz")
        assert read_sidecar(tmp_path / "sh.nii.gz")["BValueOfB0"] == 60
        again = load_sh(tmp_path / "sh.nii.gz")
        np.testing.assert_array_equal(tensor_maps(again).md, tensor_maps(image).md)
        replace(image, b0_weighting=0.0).save(tmp_path / "plain.nii.gz")
        assert "BValueOfB0" not in read_sidecar(tmp_path / "plain.nii.gz")

    @pytest.mark.parametrize("lowest", [300, 700])
    def test_what_is_no_b0_is_not_suggested(self, made, lowest):
        b_values = made.b_values.copy()
        b_values[0] = lowest
        directions = made.directions.copy()
        directions[0] = [0, 0, 1]
        with pytest.raises(UserError, match="no volume has b=0, and without one"):
            self.load(replace(made, b_values=b_values, directions=directions))

    @pytest.mark.parametrize("threshold", [-1, 201, float("nan")])
    def test_a_threshold_out_of_range_is_refused(self, made, threshold):
        with pytest.raises(UserError, match="between 0 and 200") as error:
            self.load(made, threshold)
        assert error.value.field == "b0_threshold"

    def test_0_leaves_none_but_0(self, bundle):
        b_values = bundle.b_values.copy()
        b_values[0] = 5
        with pytest.raises(UserError, match="the lowest have b = 5"):
            self.load(replace(bundle, b_values=b_values), 0)


def test_a_scan_in_which_nothing_decays_is_told_of():
    """As with gradients off, or b=0 images beside a DWI's table."""
    random = np.random.default_rng(0)
    image = 1000 * (1 + random.random((14, 14, 14)))
    b_values = np.array([0.0] * 2 + [1000.0] * 30)
    directions = np.zeros((32, 3))
    directions[2:] = spread_directions(30)
    noise = random.normal(0, 20, (*image.shape, 32))
    said = judge_volumes(image[..., None] + noise, GradientTable(b_values, directions)).doubts
    assert len(said) == 1
    assert said[0].startswith("no diffusion is seen at b = 1000: all volumes are as bright as b=0")
    weak = np.where(b_values > 0, 200.0, 0.0)  # at which little is to be seen
    assert not judge_volumes(image[..., None] + noise, GradientTable(weak, directions)).doubts
