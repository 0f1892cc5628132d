"""Ten against ten simulated heads: false alarms and effects found, before and after harmonization.

    python benchmarks/group_difference.py [--people 40]

A block of 12³ voxels of each simulated head is scanned on ge_st and on prisma_st. Four further
heads teach statistical alignment, and ComBat of the regional values; the packaged teaching MSP is
taken as it is (it learned from heads of another seed). FA and MD of white and grey matter, in front
and at the back, are compared by `evaluation.proof.two_groups_numbers`.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.phantom.platforms import SIZES, platform_named
from napari_msp.data.phantom.scan import SimulatedScan, simulate_subject
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.baselines.combat import learn_scanner_effect
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.evaluation.measures.pair import tissue_of
from napari_msp.evaluation.proof.pages import BEFORE, TARGET
from napari_msp.evaluation.proof.two_groups import LITERATURE, group_tables
from napari_msp.evaluation.proof.two_groups_numbers import group_difference
from napari_msp.inference.harmonize import harmonize
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import tensor_maps
from napari_msp.signal.sh_image import SHImage

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "src/napari_msp/models/msp-teaching.safetensors"

SIZES["block"] = ((12, 12, 12), (2.4, -34.0, 12.4))
SEED, TEACHING = 21, 4
REGIONS = ("white front", "white back", "grey front", "grey back")
B_VALUE = 1200.0
PLATFORMS = (platform_named("ge_st"), platform_named("prisma_st"))


def acquired(scan: SimulatedScan, voxels: FloatArray) -> Acquisition:
    """Take a scan as if it had been read from a file."""
    image = nib.Nifti1Image(voxels.astype(np.float32), scan.lattice.affine)
    return Acquisition(image, scan.table, given_mask=scan.mask)


def regional(image: SHImage, clear: SHImage) -> FloatArray:
    """(2, R) means of FA and MD; the regions are those of the target's noise-free twin."""
    tissue = tissue_of(tensor_maps(clear), clear.mask)
    front = np.zeros(clear.mask.shape, dtype=bool)
    front[:, clear.mask.shape[1] // 2 :] = True
    places = [kind & side for kind in (tissue.white, tissue.grey) for side in (front, ~front)]
    maps = tensor_maps(on_lattice(image, clear.lattice))
    return np.array([[each[place].mean() for place in places] for each in (maps.fa, maps.md)])


@dataclass(frozen=True, eq=False)
class Head:
    """One head on both platforms: its scan, both fitted, and the target without noise."""

    scan: Acquisition
    source: SHImage
    target: SHImage
    clear: SHImage

    @classmethod
    def of(cls, number: int) -> "Head":
        """Simulate one."""
        source, target = simulate_subject(number, PLATFORMS, "block", SEED)
        scan = acquired(source, source.dwi)
        fitted = [
            fit_sh(each, b_value=B_VALUE)
            for each in (
                scan,
                acquired(target, target.dwi),
                acquired(target, target.noise_free),
            )
        ]
        return cls(scan, *fitted)


def values_of(heads: Iterable[Head], taught: Sequence[Head]) -> dict[str, FloatArray]:
    """(S, 2, R) regional values of some heads, by row."""
    alignment = StatisticalAlignment().fit([h.source for h in taught], [h.target for h in taught])
    model = load_model(MODEL)
    rows: dict[str, list[FloatArray]] = {}
    for head in heads:
        images = {
            BEFORE: head.source,
            TARGET: head.target,
            "alignment": alignment.predict(head.source, head.target.lattice),
            "MSP (teaching)": harmonize(model, head.scan, "prisma_st", device="cpu").sh,
        }
        for row, image in images.items():
            rows.setdefault(row, []).append(regional(image, head.clear))
    return {row: np.array(values) for row, values in rows.items()}


def studied(people: Mapping[str, FloatArray], taught: Mapping[str, FloatArray]) -> None:
    """Print the tables."""
    for number, (quantity, below) in enumerate(LITERATURE.items()):
        of = {row: values[:, number] for row, values in people.items()}
        before, target = of.pop(BEFORE), of.pop(TARGET)
        teachers = (taught[BEFORE][:, number], taught[TARGET][:, number])
        of["ComBat of regional means"] = learn_scanner_effect(*teachers, paired=True).remove(before)
        found = group_difference(before, target, of, REGIONS)
        for table in group_tables(found, quantity.upper(), below):
            print("\n" + table.markdown())
        print(*found.notes, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=40)
    options = parser.parse_args()
    taught = [Head.of(number) for number in range(TEACHING)]
    people = map(Head.of, range(TEACHING, TEACHING + options.people))
    studied(values_of(people, taught), values_of(taught, taught))


if __name__ == "__main__":
    main()
