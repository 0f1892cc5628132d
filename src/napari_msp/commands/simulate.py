"""`simulate`: make travelling heads that were never scanned."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Write simulated travelling heads as a BIDS dataset"
EXAMPLE = "napari-msp simulate heads --subjects 4 --size tiny"


def add_options(command: ArgumentParser) -> None:
    """Add options of the simulation."""
    shared.add_path(command, "out", "OUT", "BIDS folder to make.")
    heads = shared.section(command, Topic.SCANS)
    heads.add_argument(
        "--subjects",
        type=int,
        default=6,
        metavar="N",
        help="Simulate this many subjects. Default: 6.",
    )
    heads.add_argument(
        "--size",
        choices=("tiny", "small", "full"),
        default="small",
        help="Simulate a block of each head (tiny), a slab (small), or the whole brain (full). "
        "Blocks and slabs train in minutes. Default: small.",
    )
    heads.add_argument(
        "--seed",
        type=int,
        default=0,
        help="Draw heads from this seed; another seed gives other heads. Default: 0.",
    )
    shared.add_shells(
        command, "Simulate these shells (b-values in s/mm²). Default: 1200.", (1200.0,)
    )
    heads.add_argument(
        "--misalignment",
        type=float,
        default=0.0,
        metavar="MM",
        help="Leave this misalignment between scans. Default: 0.",
    )
    heads.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="Scan each head this often on each target, as run-1 to run-N. Default: 1.",
    )
    heads.add_argument(
        "--no-noise", dest="noise", action="store_false", help="Simulate scans without noise."
    )
    heads.add_argument(
        "--no-twins",
        dest="noise_free",
        action="store_false",
        help="Leave out the noise-free twins.",
    )


def run(options: Namespace, console: Console) -> int:
    """Simulate heads, and write them as a dataset."""
    from napari_msp.data.phantom.simulate import simulate

    shared.call(simulate, options, progress=console.progress)
    console.result(options.out)
    return 0
