"""Walk a DWI through the house: which files a harmonization passes, and how often it changes file.

    python benchmarks/walk.py HEADS [--source SRC]

HEADS are simulated heads (`napari-msp simulate HEADS --size tiny --subjects 1`); `--source` is the
source folder of another checkout, so that two states of the code can be compared. A move is a call
from one file of the package into another; generators that are resumed count each time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SCAN = "sub-01/ses-{0}/dwi/sub-01_ses-{0}_acq-st_dwi.nii.gz"


class Walk:
    """Files passed and moves made while it is watching."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.files: Counter[str] = Counter()
        self.moves: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def watching(self) -> Iterator[Walk]:
        """Watch every call while the block runs."""
        sys.setprofile(self._look)
        try:
            yield self
        finally:
            sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code.co_name == "<module>":
            return
        here = self._of_package(frame)
        if here is None:
            return
        self.files[here] += 1
        caller = frame.f_back
        while caller is not None and (there := self._of_package(caller)) is None:
            caller = caller.f_back
        if caller is not None and there != here:
            assert there is not None
            self.moves[there, here] += 1

    def _of_package(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        return name.removeprefix(self.root) if name.startswith(self.root) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src")
    options = parser.parse_args()
    sys.path.insert(0, str(options.source.resolve()))
    import napari_msp as msp

    root = Path(msp.__file__).parent
    model = msp.load_model(next(root.rglob("msp-teaching.safetensors")))
    dwi = options.heads / SCAN.format("ge")

    def harmonize() -> Any:
        return msp.harmonize(model, msp.load_acquisition(dwi), "prisma_st", device="cpu")

    def to_figure_3() -> None:
        compare = _compare(msp)
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder) / "p.nii.gz"
            msp.write_sh(image, harmonize().sh)
            compare(options.heads / SCAN.format("prisma"), {"MSP": image}, Path(folder) / "out")

    for name, job in (("harmonize", harmonize), ("DWI to Figure 3", to_figure_3)):
        job()  # what is imported or kept by the first run is not walked
        with Walk(root).watching() as walk:
            job()
        print(f"{name}: {len(walk.files)} files, {sum(walk.moves.values())} moves")
        for (start, end), count in walk.moves.most_common(8):
            print(f"  {count:6d}  {start} -> {end}")
        print("\n".join(f"    {f} {n}" for f, n in sorted(walk.files.items())))


def _compare(msp: Any) -> Callable[..., Any]:
    """Give the job of `napari-msp compare`, which was not public once."""
    if hasattr(msp, "compare"):
        job: Callable[..., Any] = msp.compare
        return job
    from napari_msp.evaluation.compare import compare

    return compare


if __name__ == "__main__":
    main()
