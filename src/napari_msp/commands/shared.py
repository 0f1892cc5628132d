"""What several commands share: options, pairs, progress."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_msp.errors import UserError

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

Parsers = Any  # argparse gives its sub-parsers no public type


def add_scan_options(command: argparse.ArgumentParser) -> None:
    """Add the options that choose one scan and where its results go."""
    command.add_argument("dwi", type=Path, metavar="DWI", help="4-D .nii or .nii.gz")
    command.add_argument("--bval", type=Path, help="default: beside the image")
    command.add_argument("--bvec", type=Path, help="default: beside the image")
    command.add_argument("--mask", type=Path, help="default: found, else median_otsu")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--force", action="store_true", help="replace existing files")


def add_approximations(command: argparse.ArgumentParser) -> None:
    """Add the options that allow what is not exact."""
    command.add_argument(
        "--resample", action="store_true", help="interpolate to the model's voxel size"
    )
    command.add_argument(
        "--b-value",
        choices=("rescale",),
        help="rescale: bring the signal to the model's b-value (approximate)",
    )


def name_value_pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Split NAME=VALUE texts; a malformed or repeated one is a `UserError`."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value):
            raise UserError(f"{option} {text}: must read {form}")
        if name in pairs:
            raise UserError(f"{option} {text}: {name} was given twice; use another name")
        pairs[name] = value
    return pairs


def show_progress(text: str) -> None:
    """Write over the same line of a terminal; say nothing to a file."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
