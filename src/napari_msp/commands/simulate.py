"""`simulate`: travelling heads that were never scanned."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_shells, call

SUMMARY = "write simulated travelling heads as BIDS"
EXAMPLE = "napari-msp simulate heads --subjects 4 --size tiny"


def add_options(command: ArgumentParser) -> None:
    """Add what is simulated."""
    command.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    command.add_argument(
        "--subjects", type=int, default=6, metavar="N", help="how many (default 6)"
    )
    command.add_argument(
        "--size",
        choices=("tiny", "small", "full"),
        default="small",
        help="of the heads: blocks to train on in minutes, or whole (default: small)",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="other seeds are other heads (default: 0)"
    )
    add_shells(command, "of the shells (default 1200)", default=(1200.0,))
    command.add_argument(
        "--misalignment", type=float, default=0.0, metavar="MM", help="left between scans"
    )
    command.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="scans of each head on each target, run-1 to run-N (default 1)",
    )
    command.add_argument(
        "--no-noise", dest="noise", action="store_false", help="scans without noise"
    )
    command.add_argument(
        "--no-twins", dest="noise_free", action="store_false", help="leave out noise-free twins"
    )


def run(options: Namespace, console: Console) -> int:
    """Simulate heads, and write them as a dataset."""
    from napari_msp.data.phantom import simulate

    call(simulate, options, progress=console.progress)
    console.result(options.out)
    return 0
