"""`simulate`, `import` and `check`: datasets."""

import argparse
from pathlib import Path

from napari_msp.commands.shared import Parsers, show_progress


def add_simulate(commands: Parsers) -> None:
    """Add the command `simulate`."""
    command = commands.add_parser("simulate", help="write simulated travelling heads as BIDS")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    command.add_argument("--subjects", type=int, default=6, help="heads (default 6)")
    command.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--misalignment", type=float, default=0.0, metavar="MM", help="left between scans"
    )
    command.add_argument("--no-noise", action="store_true", help="scans without noise")
    command.add_argument("--no-twins", action="store_true", help="leave out noise-free twins")
    command.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from napari_msp.data.phantom import simulate

    simulate(
        options.out,
        options.subjects,
        options.size,
        options.seed,
        misalignment=options.misalignment,
        noise=not options.no_noise,
        noise_free=not options.no_twins,
        progress=lambda name, done, total: show_progress(f"{name} {done}/{total}"),
    )
    print(options.out)
    return 0


def add_import(commands: Parsers) -> None:
    """Add the command `import`."""
    command = commands.add_parser("import", help="bring someone's folder tree into BIDS")
    command.add_argument("source", type=Path, metavar="SOURCE")
    command.add_argument("out", type=Path, metavar="OUT", help="BIDS folder to make")
    command.add_argument(
        "--pattern",
        required=True,
        help="where images lie, such as "
        "'{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz'",
    )
    command.add_argument("--mask", help="pattern of the masks (default: found beside the images)")
    command.add_argument("--session", help="scanner label, where the tree names none")
    command.add_argument("--protocol", help="protocol label, where the tree names none")
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    command.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from napari_msp.data.importers import import_tree

    for scan in import_tree(
        options.source,
        options.out,
        options.pattern,
        mask=options.mask,
        session=options.session,
        protocol=options.protocol,
        dry_run=options.dry_run,
        progress=lambda text, done, total: show_progress(f"{text} {done}/{total}"),
    ):
        print(f"{scan.source} -> {options.out / scan.image}")
    return 0


def add_check(commands: Parsers) -> None:
    """Add the command `check`."""
    command = commands.add_parser("check", help="say everything that is wrong with a dataset")
    command.add_argument("dataset", type=Path, metavar="DATASET")
    command.add_argument("--input", default="ge_st", help="platform to predict from")
    command.add_argument(
        "--table", type=Path, metavar="FILE", help="write what was measured, as .csv or .json"
    )
    command.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from napari_msp.checking import (
        check_dataset,
        check_table_name,
        has_errors,
        report_text,
        table_text,
        write_table,
    )

    if options.table is not None:
        check_table_name(options.table)
    checked = check_dataset(
        options.dataset,
        input_platform=options.input,
        progress=lambda name, done, total: show_progress(f"{name} {done}/{total}"),
    )
    show_progress("")  # clears its line
    if checked.rows:
        print(table_text(checked.rows, checked.input_platform))
    print(report_text(checked.findings))
    if options.table is not None:
        write_table(options.table, checked.rows, checked.findings, checked.input_platform)
        print(options.table)
    return 1 if has_errors(checked.findings) else 0
