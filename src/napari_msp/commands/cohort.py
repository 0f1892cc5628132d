"""`cohort`: harmonize a scan of every subject of a dataset, as a BIDS App does."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Harmonize every subject of a BIDS dataset"
EXAMPLE = (
    "napari-msp cohort heads harmonized participant --model msp.safetensors --target prisma_st"
)

SOME_FAILED = 1
"""Exit status if a subject failed; the table says why."""


def add_options(command: ArgumentParser) -> None:
    """Add the scans, the model, and the workers."""
    shared.section(command).path("bids_dir BIDS_DIR", "BIDS folder, which is only read.")
    shared.section(command).path("out_dir OUT_DIR", "Folder for the predictions.")
    shared.section(command).add(
        "level",
        "participant: harmonize; group: say which scans in OUT_DIR are done, and write "
        "review/report.html there (with --regions also proof/report.html).",
        choices=("participant", "group"),
    )
    scans, machine = shared.section(command, Topic.SCANS), shared.section(command, Topic.MACHINE)
    scans.add(  # also as BIDS Apps spell it
        "--participant-label --participant_label --participants SUBJECT ...",
        "Harmonize these subjects, written with or without sub-. Default: all.",
        dest="participants",
    )
    scans.add(
        "--session-label --session_label SESSION ...",
        "Harmonize scans of these sessions, written with or without ses-. Default: all.",
        dest="sessions",
    )
    platform = "Harmonize scans of this platform. Default: the model's input."
    scans.add("--platform PLATFORM", platform)
    shared.add_run(command)
    shared.add_model(command, required=False)  # the group level needs none
    shared.add_inference_options(command)
    shared.add_review_maps(command)
    shared.add_regions(command, "Only with group, and if BIDS_DIR has the target's scans.")
    machine.add("--workers N", "Work in this many processes on this machine.", 1)
    machine.add(
        "--scheduler ADDRESS",
        "Work through the Dask scheduler at this address, such as tcp://node:8786, in place of "
        "--workers.",
    )
    shared.add_force(command)


def run(options: Namespace, console: Console) -> int:
    """Harmonize the cohort, or report its results."""
    from napari_msp.cohort import CohortResult, run_cohort, summarise_cohort
    from napari_msp.errors import Advice, Give, UserError

    if options.level == "group":
        summary = summarise_cohort(options.out_dir)
        console.result(*summary.lines())
        someone = bool(summary.done or summary.skipped)
        written = not options.review_maps or _write_report(options.out_dir, someone, console)
        if options.regions is not None:
            _write_proof(options, console)
        return SOME_FAILED if summary.failed or not written else 0
    if options.regions is not None:
        remedy = Advice("give it with group")
        raise UserError("predictions are compared only once all are made", None, "regions", remedy)
    for parameter in ("model", "target"):
        if getattr(options, parameter) is None:
            raise UserError("no value is given", parameter, parameter, Give(parameter))
    words = shared.OptionWords(options.parser)

    def tell(result: CohortResult, done: int, total: int) -> None:
        if result.status == "done" and result.doubts:
            console.warn(f"warning: {result.scan}: {result.message(words)}")
        console.progress(result.scan, done, total)

    results = shared.call(
        run_cohort,
        options,
        options=shared.inference_options(options),
        progress=tell,
        tell=console.say,
    )
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        scan = f"{result.subject} {result.scan}".strip()
        console.warn(f"{scan}: {result.message(words)}")
    console.result(options.out_dir / "cohort.tsv")
    return SOME_FAILED if failed else 0


def _write_proof(options: Namespace, console: Console) -> None:
    """Compare the predictions with the targets' own scans, as `evaluate` does."""
    from napari_msp.evaluation.evaluate import prove

    for path in prove(
        options.bids_dir,
        options.out_dir,
        regions=options.regions,
        targets=() if options.target in (None, "all") else (options.target,),
        run=options.run,
        b0_threshold=options.b0_threshold,
        device=options.device,
        progress=lambda done: console.progress(done.job, round(100 * done.share), 100),
    ):
        console.result(path)


def _write_report(folder: Path, someone: bool, console: Console) -> bool:
    """Write the review's page; return whether it is made, or not due as nobody was harmonized."""
    from napari_msp.errors import UserError
    from napari_msp.review.predictions import NoPrediction, open_review
    from napari_msp.review.report import review_report

    try:
        review = open_review(folder)
    except UserError as error:
        if isinstance(error, NoPrediction) and not someone:  # as was just reported
            return True
        console.warn(error.phrase())
        return False
    for problem in review.problems:
        console.warn(problem.phrase())
    console.result(review_report(review, progress=console.progress))
    return True
