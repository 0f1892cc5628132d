"""`compare`: draw Figure 3 and compute the numbers of one head."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Draw Figure 3 of one head, and measure errors"
EXAMPLE = (
    "napari-msp compare --truth prisma_dwi.nii.gz --prediction MSP=predicted_dwimap.nii.gz "
    "--input ge_dwi.nii.gz --out compared"
)


def add_options(command: ArgumentParser) -> None:
    """Add the images and options of the figure."""
    scans, output = shared.section(command, Topic.SCANS), shared.section(command, Topic.OUTPUT)
    scans.path(
        "--truth IMAGE ...",
        "Compare with this scan of the target, or its SH image. For several shells, give an "
        "SH image of each.",
    )
    scans.add(
        "--prediction --predictions NAME=IMAGE ...",
        "Compare these predictions; the option may be repeated. For several shells, give "
        "their SH images the same name.",
        dest="predictions",
        action="extend",
        required=True,
    )
    shown = "Show and measure the scan that was harmonized, too."
    scans.path("--input IMAGE ...", shown, dest="input_image")
    output.add("--axis", "Draw this plane.", "axial", choices=("axial", "coronal", "sagittal"))
    slices = "Draw this slice. Default: the one that shows most."
    output.add("--slice INDEX", slices, kind=int, dest="slice_index")
    output.add(
        "--maps MAP ...",
        "Draw these maps: sh_average, colour_fa, fa, md or direction. Default: the first two.",
        ("sh_average", "colour_fa"),
    )
    shared.add_shells(
        command,
        "Compare these shells (b-values in s/mm²). Default: all that truth and every prediction "
        "have.",
    )
    shared.add_option(command, "b0_threshold")
    formats = ("png", "pdf", "svg")
    output.add("--figure-format", "Write the figure in this format.", "png", choices=formats)
    shared.add_out(command)


def run(options: Namespace, console: Console) -> int:
    """Compare predictions with the truth, and write figure and numbers."""
    from napari_msp.evaluation.compare import compare
    from napari_msp.evaluation.line_up import doubts_of_truth

    result = shared.call(
        compare,
        options,
        truth=_one_or_several(options.truth),
        predictions=_predictions(options.predictions),
        input_image=_one_or_several(options.input_image),
        out=None,  # doubts are reported first
    )
    said: dict[str, None] = {}
    for one in result.values():
        compared = one.comparison
        doubts = [*compared.doubts, *doubts_of_truth(one.truth, compared)]
        said.update(dict.fromkeys([*compared.interpolated, *doubts]))
    said.update(dict.fromkeys(next(iter(result.values())).comparison.misplaced))
    for each in said:
        console.warn(f"warning: {each}")
    console.result(*result.save(options.out, options.figure_format))
    return 0


def _one_or_several(paths: Sequence[Path]) -> Path | Sequence[Path]:
    """Return a single image alone; None, if none was given, stays."""
    return paths[0] if paths and len(paths) == 1 else paths


def _predictions(texts: Sequence[str]) -> dict[str, Path | Sequence[Path]]:
    """Parse NAME=IMAGE; a repeated name has one image per shell."""
    files: dict[str, list[Path]] = {}
    for text in texts:
        for name, path in shared.pairs([text], "predictions", "NAME=IMAGE").items():
            files.setdefault(name, []).append(Path(path))
    return {name: _one_or_several(paths) for name, paths in files.items()}
