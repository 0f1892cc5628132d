"""`simulate`: make travelling heads that were never scanned."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Write simulated travelling heads as a BIDS dataset"
EXAMPLE = "napari-msp simulate heads --subjects 4 --size tiny"


def add_options(command: ArgumentParser) -> None:
    """Add options of the simulation."""
    shared.section(command).path("out OUT", "BIDS folder to make.")
    heads = shared.section(command, Topic.SCANS)
    heads.add("--subjects N", "Simulate this many subjects.", 6)
    heads.add(
        "--size",
        "Simulate a block of each head (tiny), a slab (small), or the whole brain (full). "
        "Blocks and slabs train in minutes.",
        "small",
        choices=("tiny", "small", "full"),
    )
    heads.add("--seed SEED", "Draw heads from this seed; another seed gives other heads.", 0)
    shared.add_shells(
        command, "Simulate these shells (b-values in s/mm²). Default: 1200.", (1200.0,)
    )
    heads.add("--misalignment MM", "Leave this misalignment between scans.", 0.0)
    heads.add("--repeats N", "Scan each head this often on each target, as run-1 to run-N.", 1)
    noise = "Simulate scans without noise."
    heads.add("--no-noise", noise, dest="noise", action="store_false")
    twins = "Leave out the noise-free twins."
    heads.add("--no-twins", twins, dest="noise_free", action="store_false")


def run(options: Namespace, console: Console) -> int:
    """Simulate heads, and write them as a dataset."""
    from napari_msp.data.phantom.simulate import simulate

    shared.call(simulate, options, progress=console.progress)
    console.result(options.out)
    return 0
