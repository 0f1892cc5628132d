"""What each part of linear RISH brings, on heads that share nothing with this package's own.

    python benchmarks/rish.py [amber basalt cobalt]

Heads of the choosing sets of `benchmarks/far`, cut to 21³ voxels: four teach, two are measured, on
the first target. Once as they are, each with an anatomy of its own; once with the first head's
anatomy, displaced by some 2 mm in each, as in heads that were warped to a template but for what
warping leaves. One thing is changed at a time, from one scale an order for the whole brain.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import nibabel as nib
import numpy as np
from far import SETS, FarSet, Scan, make_head
from far.anatomy import ANATOMIES, Anatomy, Space
from far.changes import Change
from far.sets import BEYOND
from scipy.ndimage import map_coordinates

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.evaluation.baselines import linear_rish
from napari_msp.evaluation.baselines.base import WIDTH, Baseline, Interpolation
from napari_msp.evaluation.baselines.linear_rish import WIDTHS, LinearRISH
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage

EDGE, HEADS, TEACHING = 21, 6, 4

DISPLACED = (2.0, 8.0)
"""Deviation in mm of the displacement along each axis, and how far it reaches."""

NARROW = min(WIDTHS)
"""3 mm at half maximum."""

Heads = Sequence[linear_rish._RishHead]


class OneScale(LinearRISH):
    """No map: one scale an order."""

    def _best_width(self, heads: Heads) -> float:
        return WIDTH

    def _set(self, heads: Heads, width: float) -> None:
        super()._set(heads, width)
        self._log_changes = np.zeros_like(self._log_changes)


class Wide(LinearRISH):
    """A map in the common space, averaged over 4 mm (standard deviation)."""

    def _best_width(self, heads: Heads) -> float:
        return WIDTH


class Narrow(LinearRISH):
    """The same, averaged over 3 mm at half maximum."""

    def _best_width(self, heads: Heads) -> float:
        return NARROW


class RatioFirst(Narrow):
    """As in public tools: scales at each place, smoothed over 3 mm, between 1/2 and 2."""

    def _set(self, heads: Heads, width: float) -> None:
        super()._set(heads, width)
        source, target = (
            np.sum([getattr(head, name) for head in heads], axis=0)
            for name in ("source_rish", "target_rish")
        )
        inside = (source[..., :1] > 0.5) & (target[..., :1] > 0.5)
        scales = np.sqrt(np.maximum(target[..., 1:], 1e-9) / np.maximum(source[..., 1:], 1e-9))
        brought = np.concatenate([inside, np.where(inside, np.clip(scales, 0.5, 2), 0)], axis=-1)
        local = self._space.mean_around(brought.astype(np.float32), self._scales, width)
        self._log_changes = np.log(local / self._scales)


class Linear(Narrow):
    """RISH-GLM at each place: a mean for each platform, and one covariate of the head."""

    def _set(self, heads: Heads, width: float) -> None:
        super()._set(heads, width)
        both = [(head.source_rish, head.source_rish) for head in heads]
        both += [(head.target_rish, head.source_rish) for head in heads]
        overall = [brought[..., 1:].sum((0, 1, 2)) / brought[..., 0].sum() for brought, _ in both]
        local = np.stack(
            [
                self._space.mean_around(brought, mean, width)
                for (brought, _), mean in zip(both, overall, strict=True)
            ]
        )
        platform = np.repeat(np.eye(2), len(heads), axis=0)
        # How much signal the head's own input scan keeps, the same for both of its scans.
        covariate = np.array([of[..., 1].sum() / of[..., 0].sum() for _, of in both])
        design = np.column_stack([platform, (covariate - covariate.mean()) / covariate.std()])
        found = np.linalg.lstsq(design, local.reshape(len(local), -1), rcond=None)[0]
        source, target = (np.maximum(each, 1e-9) for each in found[:2].reshape(2, *local.shape[1:]))
        self._log_changes = np.clip(
            np.log(np.sqrt(target / source) / self._scales), -np.log(2), np.log(2)
        )


ROWS: dict[str, type[Baseline]] = {
    "no harmonization": Interpolation,
    "one scale an order": OneScale,
    "map, 4 mm": Wide,
    "map, 3 mm at half maximum": Narrow,
    "… scales smoothed, not RISH": RatioFirst,
    "… by a GLM with a covariate": Linear,
    "linear RISH (smoothing chosen)": LinearRISH,
}


def one_anatomy(which: FarSet, number: int) -> Change:
    """Put the first head's anatomy into every head, displaced smoothly."""

    def change(_: Anatomy, spacing: float) -> Anatomy:
        fine = 2 * EDGE - 1 + 2 * BEYOND
        first = Space((fine,) * 3, spacing, np.random.default_rng([which.seed, 2, 0]))
        anatomy = ANATOMIES[which.anatomy](first)
        own = Space((fine,) * 3, spacing, np.random.default_rng([which.seed, 3, number]))
        away = [DISPLACED[0] / spacing * own.field(DISPLACED[1]) for _ in range(3)]
        at = np.indices((fine,) * 3) + np.stack(away)

        def moved(volume: FloatArray) -> FloatArray:
            there: FloatArray = map_coordinates(volume, at, order=1, mode="nearest")
            return there

        bundles = [
            (moved(weight), np.stack([moved(each) for each in direction]))
            for weight, direction in anatomy.bundles
        ]
        return replace(
            anatomy,
            grey=moved(anatomy.grey),
            white=moved(anatomy.white),
            fluid=moved(anatomy.fluid),
            bundles=tuple((w, d / np.maximum(np.linalg.norm(d, axis=0), 1e-6)) for w, d in bundles),
        )

    return change


def fitted(scan: Scan, b_value: float) -> SHImage:
    """Fit what was measured."""
    image = nib.Nifti1Image(scan.dwi.astype(np.float32), scan.lattice.affine)
    return fit_sh(Acquisition(image, scan.table, given_mask=scan.mask), b_value=b_value, order=6)


def errors(which: FarSet, shared: bool) -> dict[str, tuple[float, str]]:
    """Give each row's SH MSE × 10⁵ over the measured heads, and the smoothing that was chosen."""
    pairs = []
    for number in range(HEADS):
        change = one_anatomy(which, number) if shared else None
        scans = islice(make_head(which, number, EDGE, change), 2)
        pairs.append([fitted(scan, which.b_value) for scan in scans])
    inputs, targets = zip(*pairs[:TEACHING], strict=True)
    found = {}
    for name, row in ROWS.items():
        rule = row().fit(inputs, targets)
        squares = []
        for scan, truth in pairs[TEACHING:]:
            predicted = rule.predict(scan, truth.lattice)
            both = predicted.mask & truth.mask
            squares.append(np.square((predicted.coefficients - truth.coefficients)[both]).mean())
        width = f"{rule.width:.1f} mm" if isinstance(rule, LinearRISH) else ""
        found[name] = (1e5 * float(np.mean(squares)), width)
    return found


def main() -> None:
    for name in sys.argv[1:] or ("amber", "basalt", "cobalt"):
        for shared in (False, True):
            print(f"{name}, {'one anatomy, displaced' if shared else 'own anatomies'}")
            for row, (error, width) in errors(SETS[name], shared).items():
                print(f"  {row:32s} {error:6.1f}  {width}", flush=True)


if __name__ == "__main__":
    main()
