"""`harmonize`, `maps`, `cohort` and `demo`: scans in, images out."""

import argparse
import os
import sys
from pathlib import Path

from napari_msp.commands.shared import (
    Parsers,
    add_approximations,
    add_scan_options,
    show_progress,
)
from napari_msp.errors import UserError


def add_harmonize(commands: Parsers) -> None:
    """Add the command `harmonize`."""
    command = commands.add_parser("harmonize", help="predict another platform's image of a scan")
    add_scan_options(command)
    command.add_argument("--model", type=Path, required=True, metavar="M.safetensors")
    command.add_argument("--target", required=True, help="platform, or all")
    command.add_argument(
        "--gradients", default="target", help="of the written DWI: target, input or a .bvec file"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.add_argument("--tile", type=int, help="edge of a tile in voxels (default: by memory)")
    add_approximations(command)
    command.set_defaults(run=_harmonize)


def _harmonize(options: argparse.Namespace) -> int:
    from napari_msp.inference.outputs import harmonize_to_folder

    if options.tile is not None and options.tile < 1:
        raise UserError(f"--tile {options.tile}: must be at least 1 voxel")
    for path in harmonize_to_folder(
        options.dwi,
        options.model,
        [] if options.target == "all" else [options.target],
        options.out,
        bval=options.bval,
        bvec=options.bvec,
        mask=options.mask,
        gradients=options.gradients,
        device=options.device,
        tile=options.tile,
        resample=options.resample,
        rescale_b_value=options.b_value == "rescale",
        force=options.force,
        progress=lambda done, total: show_progress(f"tile {done}/{total}"),
    ):
        print(path)
    return 0


def add_maps(commands: Parsers) -> None:
    """Add the command `maps`."""
    command = commands.add_parser("maps", help="write SH image, SH average, FA and colour FA")
    add_scan_options(command)
    command.add_argument(
        "--shell", type=float, metavar="B", help="b-value, where there are several"
    )
    command.set_defaults(run=_maps)


def _maps(options: argparse.Namespace) -> int:
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.signal.map_files import write_maps

    acquisition = load_acquisition(options.dwi, options.bval, options.bvec, options.mask)
    for path in write_maps(acquisition, options.out, b_value=options.shell, force=options.force):
        print(path)
    return 0


def add_cohort(commands: Parsers) -> None:
    """Add the command `cohort`."""
    command = commands.add_parser("cohort", help="harmonize every scan of a BIDS dataset")
    command.add_argument("bids_dir", type=Path, metavar="BIDS_DIR")
    command.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    command.add_argument("level", choices=("participant",))
    command.add_argument("--model", type=Path, required=True, metavar="M.safetensors")
    command.add_argument("--target", required=True, help="platform, or all")
    command.add_argument("--participants", nargs="+", metavar="SUBJECT", help="default: all")
    command.add_argument("--platform", help="whose scans (default: the model's input)")
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler")
    command.add_argument("--device", default="auto")
    add_approximations(command)
    command.add_argument("--force", action="store_true", help="replace existing files")
    command.set_defaults(run=_cohort)


def _cohort(options: argparse.Namespace) -> int:
    from napari_msp.cohort import run_cohort

    results = run_cohort(
        options.bids_dir,
        options.out_dir,
        options.model,
        options.target,
        participants=options.participants,
        platform=options.platform,
        workers=options.workers,
        scheduler=options.scheduler,
        device=options.device,
        resample=options.resample,
        rescale_b_value=options.b_value == "rescale",
        force=options.force,
        progress=lambda result, done, total: show_progress(f"{result.scan} {done}/{total}"),
    )
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        print(f"napari-msp: {result.subject} {result.scan}: {result.message}", file=sys.stderr)
    print(options.out_dir / "cohort.tsv")
    return 1 if failed else 0


def add_demo(commands: Parsers) -> None:
    """Add the command `demo`."""
    command = commands.add_parser("demo", help="the main job on simulated heads, in a minute")
    command.add_argument("--headless", action="store_true", help="do not open napari")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    command.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from napari_msp.demo import run_demo

    result = run_demo(options.out, say=print)
    if not options.headless and has_display():
        from napari_msp.ui.show import show_demo

        show_demo(result)
    return 0


def has_display() -> bool:
    """Tell whether a window could be opened."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
