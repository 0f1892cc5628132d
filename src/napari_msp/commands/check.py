"""`check`: report everything that is wrong with a dataset."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared, train
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "List everything that is wrong with a dataset or a scan"
EXAMPLE = """\
napari-msp check heads --table check.csv --figures quality
napari-msp check sub-01_dwi.nii.gz --write-corrected corrected"""

FOUND_ERRORS = 1
"""Exit status if the dataset cannot be used as it is."""


def add_options(command: ArgumentParser) -> None:
    """Add the dataset and where the results go."""
    shared.section(command).path("dataset DATASET", "BIDS folder, or the image of one scan.")
    shared.add_input(command)
    shared.add_option(command, "b0_threshold")
    shared.add_run(command)
    output = shared.section(command, Topic.OUTPUT)
    output.path("--table FILE", "Write all measurements to this file, .csv or .json.")
    output.path("--figures DIR", "Draw the quality of each scan, one .png each, into this folder.")
    add_corrected(command)


def add_corrected(command: ArgumentParser) -> None:
    """Add where corrected gradient tables go."""
    shared.section(command, Topic.OUTPUT).path(
        "--write-corrected DIR",
        "Correct the gradient tables that are surely wrong, and write them into this new folder.",
        dest="corrected",
    )


def run(options: Namespace, console: Console) -> int:
    """Check the dataset, and report what is wrong."""
    from napari_msp.checking.dataset import check
    from napari_msp.checking.summary import has_errors, report_text
    from napari_msp.checking.table import WIDTH, check_table_name, table_text, write_table

    if options.table is not None:
        check_table_name(options.table)
    checked = shared.call(check, options, root=options.dataset, progress=console.progress)
    training = ArgumentParser()  # findings matter for it, and are worded for its options
    train.add_options(training)
    add_corrected(training)
    words = shared.OptionWords(training)
    if checked.rows:
        console.result(table_text(checked.rows, checked.input_platform, console.width or WIDTH))
    console.result(report_text(checked.findings, words))
    if options.figures is not None:
        from napari_msp.evaluation.figures.carpet import write_carpets

        console.result(*write_carpets(options.figures, checked.scans))
    if options.table is not None:
        write_table(options.table, checked.rows, checked.findings, checked.input_platform, words)
        console.result(options.table)
    if options.corrected is not None:
        written = options.corrected if checked.corrections else "No gradient table to correct."
        console.result(written)
    return FOUND_ERRORS if has_errors(checked.findings) else 0
