"""`review`: list predictions by risk, with raters' verdicts, and write a page of pictures."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console

SUMMARY = "List predictions by risk, with ratings; write a page with pictures"
EXAMPLE = """\
napari-msp review harmonized --report
napari-msp review harmonized --rater anna --table review.csv
napari-msp review harmonized --merge laptop/review/rater-anna_ratings.tsv"""

FOUND_DAMAGED = 1
"""Exit status if a prediction or a table of ratings cannot be read."""


def add_options(command: ArgumentParser) -> None:
    """Add the folder to review, and what to make of it."""
    where = shared.section(command)
    where.path("folder FOLDER", "Folder that cohort or harmonize wrote.")
    where.add(
        "--report",
        "Write review/report.html into the folder: pictures, distributions, ratings.",
    )
    where.path("--table FILE", "Write numbers and verdicts to this file, .csv or .json.")
    where.add("--rater LABEL ...", "Show ratings of these raters. Default: everybody's.")
    where.path(
        "--merge FILE ...",
        "Bring ratings that were made on a copy into the folder; of two, the later one counts.",
        (),
        dest="tables",
    )
    where.add(
        "--measure",
        "Compute what no sidecar says: SNR, and errors and alignment if the truth is there.",
    )


def run(options: Namespace, console: Console) -> int:
    """List the predictions, and write what is asked for."""
    from napari_msp.checking.table import WIDTH, check_table_name
    from napari_msp.review.missing_measures import measure, unmeasured
    from napari_msp.review.predictions import open_review
    from napari_msp.review.ratings import merge_ratings, of_raters, read_all_ratings
    from napari_msp.review.report import review_report
    from napari_msp.review.table import table_text, write_table

    if options.table is not None:
        check_table_name(options.table)
    review = open_review(options.folder)
    for merged in merge_ratings(options.folder, options.tables):
        console.report(
            f"{merged.rater}: {merged.new} new ratings, {merged.later} later ones; "
            f"{merged.older} left out, as newer ones exist"
        )
    ratings = of_raters(read_all_ratings(options.folder), options.rater)
    if options.measure:
        review = measure(review, progress=console.progress)
    console.result(table_text(review, ratings, console.width or WIDTH))
    words = shared.OptionWords(options.parser)
    for problem in (*review.problems, *ratings.problems):
        console.warn(problem.phrase(words))
    if missing := unmeasured(review):
        console.say(f"predictions without all numbers: {missing}; --measure computes them once")
    if options.table is not None:
        write_table(options.table, review, ratings)
        console.result(options.table)
    if options.report:
        console.result(review_report(review, ratings=ratings, progress=console.progress))
    return FOUND_DAMAGED if review.problems or ratings.problems else 0
