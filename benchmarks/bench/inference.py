"""Prediction of a whole head beside the bare network, MONAI, TorchIO and a patch a voxel."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import beyond, fullsize
from bench.comparing import Comparison, Setting, Sides, Subject, Table
from bench.timing import seconds_of
from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.inference import harmonize as harmonizing
from napari_msp.inference.harmonize import predict_targets
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import PreparedInput, prepare_input
from napari_msp.model_file import Model
from napari_msp.networks.base import CHANNELS
from napari_msp.networks.msp import stages_of
from napari_msp.networks.registry import title
from napari_msp.options import Options
from napari_msp.scan import Scan

EDGE, QUICK_EDGE = 61, 25

ON_CPU = Options(device="cpu")

PATCH, OVERLAP = 32, 0.25
"""MONAI's window, as its users choose it; quick heads for windows are a voxel larger."""

MARGIN = 5
"""Voxels around the middle of the paper's patches of 11."""

KINDS = ("shresnet", "diqt", "cnn-rish", "cpm", "hned")

ABOUT = """\
A head of 61³ voxels of 2.4 mm, half of it in the mask, and untrained networks of full width; the
target connectom_sa has voxels of half the edge. *The bare network* is one call of it on the whole
volume as torch lays it out, channels standardised beforehand, nothing brought back: what no
prediction can do without. Ours is `predict_targets` on a fitted scan: standardising, the network
(in a quicker layout, a voxel's channels side by side), masks, lattices, axes, disagreement and
expected error. Half of what surrounds the network is the expected error, which describes every
voxel of the finer lattice; without a calibration it is not there. MONAI's
`sliding_window_inference` (32³, overlap 0.25) and TorchIO's GridSampler run the same network over
the same standardised channels. How far they are off is said below, in parts of the largest value:
MONAI averages windows, so no overlap makes it exact; TorchIO's is exact from an overlap of twice
the network's halo, 18 for SHResNet, but for the MSP with DIQT, which reads 26 voxels around, no
window of 32³ is. *A patch a voxel* is the paper's way: 11³ voxels are read for each. For a target
of half the edge half a second and more may lie around a network, as its image is eight times as
large: networks that take little longer than that may miss the goal.
"""


@dataclass(frozen=True)
class Made:
    """A head ready for a model."""

    model: Model
    prepared: PreparedInput
    targets: tuple[str, ...]

    @property
    def network(self) -> Callable[[Tensor], Mapping[str, Tensor]]:
        """The bare network: all targets in one call."""
        networks = self.model.together(self.targets)
        return lambda x: {
            name: stages.second
            for network in networks
            for name, stages in stages_of(network, x, 1.0).items()
        }

    @property
    def channels(self) -> Tensor:
        """(1, 28, X, Y, Z) what the network reads."""
        known = self.model.standardisation("ge_st").apply(self.prepared.image)
        return torch.from_numpy(np.moveaxis(known, -1, 0).copy())[None]

    def predicted(self) -> list[Prediction]:
        """Predict all targets."""
        return list(predict_targets(self.model, self.prepared, self.targets, ON_CPU))


@cache
def made(
    kind: str, targets: tuple[str, ...], quick: bool, shared: bool = True, edge: int = 0
) -> Made:
    model = fullsize.model(kind, targets, shared=shared)
    scan = named(fullsize.head(edge or (QUICK_EDGE if quick else EDGE)))
    return Made(model, prepare_input(model, scan), targets)


def named(head: Acquisition) -> Scan:
    """Give a head that lies in memory a name, which its predictions' files have too."""
    return Scan(acquisition=head, given_subject="sub-benchmark")


def bare(network: Callable[[Tensor], Any], x: Tensor) -> Any:
    with torch.inference_mode():
        return network(x)


@contextmanager
def beside_bare(
    kind: str, targets: tuple[str, ...], shared: bool, setting: Setting
) -> Iterator[Sides]:
    known = made(kind, targets, setting.quick, shared)
    yield Sides(known.predicted, partial(bare, known.network, known.channels))


# --- Windows ----------------------------------------------------------------------------------


def monai_windows(network: Callable[[Tensor], Tensor], x: Tensor, overlap: float) -> Tensor:
    """Predict a target on the input's lattice window by window, as MONAI does."""
    from monai.inferers.utils import sliding_window_inference

    with torch.inference_mode():
        found = sliding_window_inference(x, (PATCH,) * 3, 1, network, overlap=overlap)
    assert isinstance(found, Tensor)
    return found


def torchio_windows(network: Callable[[Tensor], Tensor], x: Tensor, overlap: int) -> Tensor:
    """Predict a target on the input's lattice window by window, as TorchIO does."""
    import torchio

    subject = torchio.Subject(image=torchio.ScalarImage(tensor=x[0]))
    sampler = torchio.GridSampler(subject, patch_size=PATCH, patch_overlap=overlap)
    together = torchio.GridAggregator(sampler, overlap_mode="crop" if overlap else "average")
    with torch.inference_mode():
        for patch in sampler:
            found = network(patch["image"]["data"][None])
            together.add_batch(found, torch.as_tensor(patch["location"])[None])
    whole: Tensor = together.get_output_tensor()
    return whole[None]


def off(gave: Tensor, exact: Tensor) -> str:
    return f"{float((gave - exact).abs().max() / exact.abs().max()):.1g}"


def one_target(known: Made) -> Callable[[Tensor], Tensor]:
    """Give the last stage of the target on the input's own lattice, which windows are put into."""
    name = next(each for each in known.targets if fullsize.SCALES[each] == 1)
    return lambda x: known.network(x)[name]


@contextmanager
def beside_windows(
    kind: str,
    targets: tuple[str, ...],
    windows: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    setting: Setting,
) -> Iterator[Sides]:
    known = made(kind, targets, setting.quick, edge=PATCH + 1 if setting.quick else 0)
    network, x = one_target(known), known.channels

    def figures(_: Any, gave: Tensor) -> Mapping[str, str]:
        return {"the peer is off by at most": off(gave, bare(network, x))}

    yield Sides(known.predicted, partial(windows, network, x), figures=figures)


EXACT = 18
"""Voxels by which SHResNet's windows have to overlap to be exact: twice its halo."""


def errors_by_overlap(setting: Setting) -> Sequence[Sequence[str]]:
    """Say how far both window methods are off, by overlap; on a smaller head, as it takes long."""
    rows = []
    for kind, targets, overlaps in (
        ("msp", fullsize.TWO, (8, 16)),
        ("shresnet", ("prisma_st",), (8, 16, EXACT)),
    ):
        known = made(kind, targets, setting.quick, edge=PATCH + 1 if setting.quick else 45)
        network, x = one_target(known), known.channels
        exact = bare(network, x)
        for overlap in overlaps:
            torchio = torchio_windows(network, x, overlap)
            found = monai_windows(network, x, overlap / PATCH)
            name = f"{kind}, {overlap} of {PATCH} voxels"
            rows.append([name, off(found, exact), off(torchio, exact)])
    return rows


# --- A patch a voxel --------------------------------------------------------------------------

PATCHES = 12
"""Patches that the paper's way is timed on: its batch."""


@contextmanager
def beside_patches(setting: Setting) -> Iterator[Sides]:
    known = made("msp", fullsize.TWO, setting.quick)
    edge = 2 * MARGIN + 1
    patches = torch.randn(PATCHES, CHANNELS, edge, edge, edge)
    inside = int(known.prepared.image.mask.sum())
    yield Sides(known.predicted, partial(bare, known.network, patches), work=(inside, PATCHES))


# --- Where the time goes -------------------------------------------------------------------------


@contextmanager
def timed(place: Any, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Count the seconds of a function while the block runs."""
    real = getattr(place, name)

    def counted(*given: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*given, **more)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    setattr(place, name, counted)
    try:
        yield
    finally:
        setattr(place, name, real)


def where_time_goes(setting: Setting) -> Sequence[Sequence[str]]:
    """Give seconds and parts of: fit, network, what is around it, files."""
    from napari_msp.inference import stages

    known = made("msp", fullsize.TWO, setting.quick)
    scan = named(fullsize.head(QUICK_EDGE if setting.quick else EDGE))
    network = known.network
    x = known.channels.contiguous(memory_format=torch.channels_last_3d)  # as it is run
    alone = quickest(partial(bare, network, x), 2)
    spent: dict[str, float] = {}
    out = Path(setting.folder) / "where"
    with (
        timed(stages, "run_whole_image", spent),
        timed(stages, "_disagreement", spent),
        timed(harmonizing, "expected_error", spent),
    ):
        began = time.perf_counter()
        prepared = prepare_input(known.model, scan)
        spent["prepare_input"] = time.perf_counter() - began
        gave = list(predict_targets(known.model, prepared, known.targets, ON_CPU))
        predicted = time.perf_counter() - began
        began = time.perf_counter()
        for each in gave:
            each.save(out, force=True, describe=False)
        files = time.perf_counter() - began
    spread = spent["_disagreement"]
    parts = {
        "SH fit and checks of the scan": spent["prepare_input"],
        "network, with its results copied": spent["run_whole_image"] - spread,
        "disagreement": spread,
        "expected error": spent["expected_error"],
    }
    parts["masks, lattices, b=0, axes"] = predicted - sum(parts.values())
    around = predicted - alone
    rows = [[name, f"{took:.2f}", f"{took / predicted:.1%}"] for name, took in parts.items()]
    rows.append(["all of it but files", f"{predicted:.2f}", "100.0%"])
    rows.append(
        ["the network alone, in the same layout", f"{alone:.2f}", f"{alone / predicted:.1%}"]
    )
    rows.append(["so around the network", f"{around:.2f}", f"{around / predicted:.1%}"])
    size = sum(each.stat().st_size for each in out.rglob("*") if each.is_file()) / 1e6
    rows.append([f"files ({size:.0f} MB)", f"{files:.2f}", f"{files / predicted:.1%}"])
    return rows


def rates(setting: Setting) -> Sequence[Sequence[str]]:
    """Give each network's arithmetic a second beside the machine's for a matrix product."""
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    fastest = 2 * size**3 / quickest(lambda: a @ b)
    rows = [["matrix product of 2,048²", f"{fastest / 1e9:.0f}", "1.00"]]
    for kind in KINDS:
        for target in fullsize.TWO:
            network = fullsize.single(kind, target, fullsize.SCALES, "paper")
            x = torch.randn(1, CHANNELS, *(QUICK_EDGE if setting.quick else 31,) * 3)
            x = x.contiguous(memory_format=torch.channels_last_3d)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(x)
            rate = counter.get_total_flops() / quickest(partial(bare, network, x), 3)
            name = f"{title(kind)}, {target}"
            rows.append([name, f"{rate / 1e9:.0f}", f"{rate / fastest:.2f}"])
    return rows


def quickest(call: Callable[[], Any], repeats: int = 5) -> float:
    return min(seconds_of(call, repeats))


# --- Files -----------------------------------------------------------------------------------


def compression(setting: Setting) -> Sequence[Sequence[str]]:
    """Give bytes and megabytes a second of what can compress an image; ours is isal's level 1."""
    import zlib

    from isal import isal_zlib

    known = made("msp", fullsize.TWO, setting.quick)
    sh: FloatArray = known.prepared.image.coefficients
    data = np.asarray(sh, order="F").tobytes(order="F")
    ways: list[tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = [
        (f"zlib, level {level}", partial(_with, zlib.compress, level), zlib.decompress)
        for level in (1, 6)
    ]
    ways += [
        (f"isal, level {level}", partial(_with, isal_zlib.compress, level), isal_zlib.decompress)
        for level in (1, 2, 3)
    ]
    rows = []
    for name, pack, unpack in ways:
        packed = pack(data)
        write, read = (
            quickest(partial(do, what), 3) for do, what in ((pack, data), (unpack, packed))
        )
        speeds = [f"{len(data) / seconds / 1e6:.0f}" for seconds in (write, read)]
        rows.append([name, f"{len(packed) / len(data):.3f}", *speeds])
    return rows


def _with(compress: Callable[[bytes, int], bytes], level: int, data: bytes) -> bytes:
    return compress(data, level)


# --- What is compared --------------------------------------------------------------------------


def _beside_bare(name: str, kind: str, targets: Sequence[str], shared: bool = True) -> Comparison:
    prepare = partial(beside_bare, kind, tuple(targets), shared)
    return Comparison(name=name, peer="the bare network", prepare=prepare, goal=0.9, repeats=3)


def _beside_windows(
    peer: str,
    needs: str,
    windows: Callable[..., Tensor],
    name: str = "MSP, 2 targets",
    kind: str = "msp",
    targets: tuple[str, ...] = fullsize.TWO,
    goal: float | None = None,
) -> Comparison:
    prepare = partial(beside_windows, kind, targets, windows)
    return Comparison(
        name=name, peer=peer, prepare=prepare, goal=goal, needs=(needs,), repeats=1, warm_ups=0
    )


SUBJECT = Subject(
    "inference",
    ABOUT,
    [
        _beside_bare("MSP, 2 targets", "msp", fullsize.TWO),
        _beside_bare("MSP, 3 targets", "msp", tuple(fullsize.SCALES)),
        _beside_bare("MSP, 2 targets, first stages of their own", "msp", fullsize.TWO, False),
        *(
            _beside_bare(f"{kind}, {target}", kind, (target,))
            for kind in KINDS
            for target in fullsize.TWO
        ),
        _beside_windows(
            "MONAI's sliding window, overlap 0.25",
            "monai",
            partial(monai_windows, overlap=OVERLAP),
            goal=5.0,
        ),
        _beside_windows(
            "TorchIO's grid, overlap 8", "torchio", partial(torchio_windows, overlap=8)
        ),
        _beside_windows(
            f"TorchIO's grid, overlap {EXACT}, as exact",
            "torchio",
            partial(torchio_windows, overlap=EXACT),
            "shresnet, prisma_st",
            "shresnet",
            ("prisma_st",),
        ),
        Comparison(
            name="MSP, 2 targets",
            peer="a patch a voxel",
            prepare=beside_patches,
            goal=500.0,
            unit="voxels",
            repeats=3,
        ),
    ],
    [
        Table(name="Where the time goes", columns=("", "s", "of it"), rows=where_time_goes),
        Table(
            name="Eight times the voxels in a budget of 2 GiB, networks of the packaged width",
            columns=(
                "",
                "processor s",
                "tiles",
                "MB taken",
                "MB of input and result",
                "beyond these and the budget",
            ),
            rows=beyond.table,
        ),
        Table(
            name="How far windows of 32³ are off, in parts of the largest value",
            columns=("network, overlap", "MONAI", "TorchIO"),
            rows=errors_by_overlap,
            needs=("monai", "torchio"),
        ),
        Table(name="Arithmetic", columns=("", "GFLOP/s", "of the product's"), rows=rates),
        Table(
            name="Compression of an SH image",
            columns=("", "bytes", "written, MB/s", "read, MB/s"),
            rows=compression,
            needs=("isal",),
        ),
    ],
)
