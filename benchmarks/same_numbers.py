"""Show that two versions of this package give the same numbers, or where they differ.

    python benchmarks/same_numbers.py record NUMBERS.npz [--source SRC] [--only NAME] [--contest]
    python benchmarks/same_numbers.py compare BEFORE.npz AFTER.npz

`record` runs the commands on small simulated heads and keeps every array and number that they give.
It knows the command line alone, so that it runs on older versions too: SRC is the `src` folder of
one, without being installed. Texts, times, versions and digests are left out. `compare` says for
each array that is not equal to the last bit by how much it differs, and fails where that is more
than 1e-6 of the array's largest value.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from safetensors import safe_open

Arrays = dict[str, np.ndarray]

TOLERANCE = 1e-6
"""Largest difference that passes, relative to an array's largest absolute value."""

UNCOMPARED = re.compile(
    r"second|minute|version|digest|sha256|date|throughput|^path$|fingerprint", re.IGNORECASE
)
"""Numbers of this name depend on the machine or on the version."""

HELD_OUT = "sub-7"
"""The heads are renamed from sub-0…: the packaged models learned from subjects of such names."""

INPUT, TARGETS = "ge_st", ("prisma_st", "connectom_st", "connectom_sa")


@dataclass(frozen=True)
class Package:
    """A version of the package.

    Attributes
    ----------
    python
        Interpreter.
    source
        Folder that contains `napari_msp`.
    """

    python: str
    source: Path

    def model(self, kind: str) -> Path:
        """Find a packaged model, wherever that version keeps it."""
        return next(self.source.rglob(f"{kind}-teaching.safetensors"))

    def run(self, *arguments: object) -> str:
        """Run a command; give why it failed, or nothing."""
        environment = os.environ | {
            "PYTHONPATH": str(self.source),
            "OMP_NUM_THREADS": "1",  # the order of a sum depends on it
            "CUDA_VISIBLE_DEVICES": "",
        }
        done = subprocess.run(
            [self.python, "-m", "napari_msp", *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
        )
        # `check` gives 1 when it finds something wrong.
        wrong = done.returncode not in ((0, 1) if arguments[0] == "check" else (0,))
        return done.stderr.strip()[-2000:] if wrong else ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    keep = commands.add_parser("record")
    keep.add_argument("numbers", type=Path)
    keep.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src")
    keep.add_argument("--python", default=sys.executable)
    keep.add_argument("--only", default="", help="jobs whose names contain it")
    keep.add_argument("--contest", action="store_true", help="train methods too: some minutes")
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.before, options.after)
    package = Package(options.python, options.source.resolve())
    with tempfile.TemporaryDirectory() as folder:
        arrays, failed = record(package, Path(folder), options.contest, options.only)
    np.savez_compressed(options.numbers, **arrays)  # type: ignore[arg-type]
    print(f"{options.numbers}: {len(arrays)} arrays, {failed} commands failed")
    return 1 if failed else 0


def record(package: Package, folder: Path, contest: bool, only: str = "") -> tuple[Arrays, int]:
    """Run everything; give what was written, and how many commands failed."""
    arrays: Arrays = {}
    failed = 0
    for name, arguments, outputs in jobs(package, folder, contest):
        if only not in name and name != "simulate":
            continue
        why = package.run(*arguments)
        if why:
            failed += 1
            print(f"{name}: FAILED: {why}", file=sys.stderr)
            continue
        found = {
            f"{name}/{key}": value for path in outputs for key, value in numbers_in(path).items()
        }
        print(f"{name}: {len(found)} arrays", flush=True)
        arrays |= found
    return arrays, failed


def jobs(
    package: Package, folder: Path, contest: bool
) -> Iterator[tuple[str, list[object], list[Path]]]:
    """Give one by one a name, a command's arguments, and the files or folders that it writes."""
    heads = folder / "heads"
    yield (
        "simulate",
        ["simulate", heads, "--subjects", 3, "--size", "tiny", "--seed", 3, "--misalignment", 1],
        [heads],
    )
    rename_subjects(heads)
    first, last = f"{HELD_OUT}1", f"{HELD_OUT}3"
    scan = scan_of(heads, first, INPUT)
    models = {kind: package.model(kind) for kind in ("msp", "diqt")}

    out = folder / "check.json"
    yield "check", ["check", heads, "--input", INPUT, "--table", out], [out]

    for kind, model in models.items():
        for gradients in ("target", "input"):
            out = folder / f"{kind}-{gradients}"
            yield (
                f"harmonize {kind}, gradients of the {gradients}",
                harmonize(scan, model, out, "--gradients", gradients),
                [out],
            )
    out = folder / "tiles"
    yield "harmonize msp in tiles", harmonize(scan, models["msp"], out, "--tile", 16), [out]
    other, mask = other_scan(scan, folder / "other")
    out = folder / "other-harmonized"
    yield (
        "harmonize msp, other voxels and b-value",
        harmonize(other, models["msp"], out, "--mask", mask, "--resample", "--b-value", "rescale"),
        [out],
    )

    out = folder / "maps"
    yield "maps", ["maps", scan, "--out", out], [out]

    for target in TARGETS:
        predictions = [
            f"{kind.upper()}={predicted_sh(folder / f'{kind}-target', target, kind)}"
            for kind in models
        ]
        shown = [word for each in predictions for word in ("--prediction", each)]
        with_truth, without = folder / f"compared-{target}", folder / f"doubted-{target}"
        truth = ["--truth", scan_of(heads, first, target)]
        yield (
            f"compare {target}",
            ["compare", *truth, *shown, "--input", scan, "--out", with_truth],
            [with_truth],
        )
        yield (
            f"compare {target} without truth",
            ["compare", *shown, "--input", scan, "--out", without],
            [without],
        )

    out = folder / "evaluated"
    yield (
        "evaluate",
        ["evaluate", heads, "--models", *models.values(), "--device", "cpu", "--out", out],
        [out],
    )
    out = folder / "calibrated.safetensors"
    yield "calibrate", ["calibrate", models["msp"], heads, "--out", out], [out]

    length = ["--epochs", 1, "--steps-per-epoch", 3, "--width", 0.1, "--held-out", last]
    for kind, more in (("msp", ["--unison-epochs", 1]), ("shresnet", []), ("diqt", [])):
        out = folder / f"{kind}.safetensors"
        yield f"train {kind}", train(heads, out, kind, *length, *more), [out]
    paper = ["--preset", "paper", "--voxels-per-head", 24, "--epochs", 1, "--width", 0.1]
    out = folder / "paper.safetensors"
    yield "train cnn-rish, paper", train(heads, out, "cnn-rish", *paper), [out]

    if contest:
        out = folder / "contest"
        yield (
            "contest",
            [
                "evaluate", heads, "--methods", "alignment", "alignment by region",
                "alignment by voxel", "linear RISH", "IQT", "DIQT", "SHResNet", "MSP",
                "first stage alone", "--quick", "--input", INPUT,
                "--targets", "prisma_st", "connectom_sa",
                "--train", first, "--validation", f"{HELD_OUT}2", "--test", last,
                "--workers", 1, "--device", "cpu", "--out", out,
            ],
            [out],
        )  # fmt: skip


def harmonize(scan: Path, model: Path, out: Path, *more: object) -> list[object]:
    """Give the arguments that predict every target."""
    fixed = ["--target", "all", "--device", "cpu", "--out", out]
    return ["harmonize", scan, "--model", model, *fixed, *more]


def train(heads: Path, out: Path, kind: str, *more: object) -> list[object]:
    """Give the arguments of a short training."""
    fixed = ["--model", kind, "--input", INPUT, "--device", "cpu", "--seed", 5]
    return ["train", heads, out, *fixed, *more]


def scan_of(heads: Path, subject: str, platform: str) -> Path:
    """Give a head's DWI."""
    session, protocol = platform.split("_")
    name = f"{subject}_ses-{session}_acq-{protocol}_dwi.nii.gz"
    return heads / subject / f"ses-{session}" / "dwi" / name


def predicted_sh(folder: Path, target: str, kind: str) -> Path:
    """Give the SH image that `harmonize` wrote."""
    label = target.replace("_", "") + kind.capitalize()
    return folder / (
        f"{HELD_OUT}1_ses-ge_acq-st_desc-{label}_model-sh_param-coefficients_dwimap.nii.gz"
    )


def rename_subjects(heads: Path) -> None:
    """Call the heads something else, in folders' names, files' names and texts."""
    for path in sorted(heads.rglob("*"), reverse=True):  # what a folder contains, then the folder
        if path.is_file() and path.suffix in (".json", ".tsv"):
            path.write_text(path.read_text("utf-8").replace("sub-0", HELD_OUT), "utf-8")
        if "sub-0" in path.name:
            path.rename(path.with_name(path.name.replace("sub-0", HELD_OUT)))


def other_scan(scan: Path, folder: Path) -> tuple[Path, Path]:
    """Write a scan with larger voxels and a lower b-value; give it and its mask."""
    folder.mkdir()
    heads = scan.parents[3]
    stem = scan.name.removesuffix(".nii.gz")
    brain = f"{stem.removesuffix('_dwi')}_desc-brain_mask.nii.gz"
    mask = next((heads / "derivatives").rglob(brain))
    written = []
    for path in (scan, mask):
        image = nib.load(path)
        affine = image.affine @ np.diag([1.25, 1.25, 1.25, 1.0])
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), folder / path.name)
        written.append(folder / path.name)
    shutil.copyfile(scan.with_name(f"{stem}.bvec"), folder / f"{stem}.bvec")
    b_values = np.loadtxt(scan.with_name(f"{stem}.bval"), ndmin=1)
    np.savetxt(folder / f"{stem}.bval", 0.8 * b_values[None], fmt="%.1f")
    return written[0], written[1]


def numbers_in(path: Path) -> Arrays:
    """Read every number of a file, or of all in a folder."""
    if path.is_dir():
        return {
            f"{each.relative_to(path).as_posix()}{f': {key}' if key else ''}": value
            for each in sorted(path.rglob("*"))
            if each.is_file()
            and not any(part.startswith(".") for part in each.parts)
            # The provenance of an image is text; the rest of it is compared as the image.
            and not (each.suffix == ".json" and is_sidecar(each))
            for key, value in numbers_in(each).items()
        }
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return {"": np.asanyarray(image.dataobj), "affine": image.affine}
    if path.suffix in (".bval", ".bvec"):
        return {"": np.loadtxt(path, ndmin=2)}
    if path.suffix == ".csv":
        return csv_numbers(path)
    if path.suffix == ".json":
        return dict(json_numbers(json.loads(path.read_text("utf-8"))))
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            for key, text in (file.metadata() or {}).items():
                weights |= dict(json_numbers(json.loads(text), key))
        return weights
    return {}


def is_sidecar(path: Path) -> bool:
    """Tell whether a JSON file describes an image or a dataset, or is how a job was planned."""
    beside = path.with_suffix(".nii.gz").exists()
    return beside or path.name in ("dataset_description.json", "plan.json", "participants.json")


def csv_numbers(path: Path) -> Arrays:
    """Read a table's numbers, named by the texts of their row and by their column."""
    seen: Counter[str] = Counter()
    numbers: Arrays = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            name = " | ".join(text for text in row.values() if text and number(text) is None)
            seen[name] += 1
            for column, text in row.items():
                value = number(text)
                if value is not None and not UNCOMPARED.search(column):
                    numbers[f"{name} #{seen[name]}, {column}"] = np.array(value)
    return numbers


def number(text: str | None) -> float | None:
    """Read a number, if it is one."""
    try:
        return float(text or "")
    except ValueError:
        return None


def json_numbers(content: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Give every number of a JSON document with the path to it; lists of numbers as one array."""
    if UNCOMPARED.search(path.rpartition("/")[2]):
        return
    if isinstance(content, dict):
        for key, value in content.items():
            yield from json_numbers(value, f"{path}/{key}")
    elif isinstance(content, list) and not is_numeric(content):
        for index, value in enumerate(content):
            yield from json_numbers(value, f"{path}/{index}")
    elif is_numeric(content):
        yield path, np.array(content, dtype=float)


def is_numeric(content: Any) -> bool:
    """Tell whether it is a number, or lists of numbers, all of one length."""
    if isinstance(content, list):
        lengths = {len(each) if isinstance(each, list) else -1 for each in content}
        return len(lengths) == 1 and all(is_numeric(each) for each in content)
    return isinstance(content, int | float) and not isinstance(content, bool)


def compare(before: Path, after: Path) -> int:
    """Print what differs; give 1 when something does, or is missing."""
    counts: Counter[str] = Counter()
    with np.load(before) as first, np.load(after) as second:
        for name in dict.fromkeys([*first.files, *second.files]):
            if name not in first.files:
                verdict, said = "new", ""
            elif name not in second.files:
                verdict, said = "missing", ""
            else:
                verdict, said = difference(first[name], second[name])
            counts[verdict] += 1
            if verdict != "equal":
                print(f"{verdict:10}{name}{said and f': {said}'}")
    print(
        f"{counts['equal']} arrays equal to the last bit, {counts['rounding']} to {TOLERANCE:g}, "
        f"{counts['DIFFERS']} different, {counts['missing']} missing, {counts['new']} new"
    )
    return 1 if counts["DIFFERS"] or counts["missing"] else 0


def difference(first: np.ndarray, second: np.ndarray) -> tuple[str, str]:
    """Say whether two arrays are "equal", equal but for "rounding", or "DIFFERS", and how much."""
    if first.shape != second.shape:
        return "DIFFERS", f"shape {first.shape} became {second.shape}"
    if first.dtype != second.dtype:
        return "DIFFERS", f"{first.dtype} became {second.dtype}"
    if np.array_equal(first, second, equal_nan=True):
        return "equal", ""
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return "DIFFERS", "other values are not finite"
    a, b = first[finite].astype(float), second[finite].astype(float)
    absolute = float(np.abs(a - b).max())
    relative = absolute / max(float(np.abs(a).max()), 1e-300)
    verdict = "rounding" if relative <= TOLERANCE else "DIFFERS"
    return verdict, f"at most {absolute:.2e}, {relative:.2e} of the largest value"


if __name__ == "__main__":
    sys.exit(main())
