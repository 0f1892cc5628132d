"""What several commands share: options that mean the same everywhere, and how errors name them."""

import inspect
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from napari_msp.errors import Advice, UserError, Words

if TYPE_CHECKING:
    from napari_msp.commands.console import Console
    from napari_msp.options import Options

T = TypeVar("T")


class Command(Protocol):
    """What a file of this folder contains; several command lines of an example have their own."""

    SUMMARY: str
    EXAMPLE: str

    def add_options(self, command: ArgumentParser) -> None:
        """Add the options; `dest` is the parameter of the library call that an option sets."""

    def run(self, options: Namespace, console: "Console") -> int:
        """Do the job; give the exit status."""


def call(function: Callable[..., T], options: Namespace, /, **given: Any) -> T:
    """Make a call of the library with the options that are its parameters, by their `dest`.

    Parameters
    ----------
    **given
        Parameters that no option sets, or that are not as it was read.
    """
    names = inspect.signature(function).parameters
    known = {name: value for name, value in vars(options).items() if name in names}
    return function(**known | given)


# --- Words ------------------------------------------------------------------------------------

SYNONYMS = {"input_platform": "input", "targets": "target", "path": "dwi", "scan": "dwi"}
"""Other names that parameters of the library have for what options set."""


class OptionWords(Words):
    """The options of one command, by the parameters of the library that they set.

    Parameters
    ----------
    command
        Its parser: each option's `dest` is the name of the parameter.
    """

    def __init__(self, command: ArgumentParser) -> None:
        self._actions: dict[str, Action] = {}
        for action in command._actions:
            self._actions.setdefault(action.dest, action)

    def offers(self, name: str) -> bool:
        """Return whether the command has an option for a parameter."""
        return self._action(name) is not None

    def parameter(self, name: str) -> str:
        """Name the option; what the parameter is, where the command has none."""
        action = self._action(name)
        return name.replace("_", " ") if action is None else _option(action)

    def setting(self, name: str, value: Any) -> str:
        """Write the option as it is to be typed."""
        action = self._action(name)
        if action is None:
            return self.parameter(name)
        if value is True and (action.nargs == 0 or isinstance(action, BooleanOptionalAction)):
            return _option(action)
        if value is True and action.choices:
            value = next(iter(action.choices))
        return f"{_option(action)} {value}"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Name another command, with an option of it where one matters."""
        return as_typed(name, parameter, value)

    def _action(self, name: str) -> Action | None:
        return self._actions.get(name) or self._actions.get(SYNONYMS.get(name, ""))


def _option(action: Action) -> str:
    """Name an option by its long form, and an argument without one as the help does."""
    long = [each for each in action.option_strings if each.startswith("--")]
    return long[0] if long else str(action.metavar or action.dest.upper())


def as_typed(command: str, parameter: str = "", value: Any = True) -> str:
    """Write another command as it is typed; its options are called after what they set.

    >>> as_typed("import", "voxel_size", "auto")
    'napari-msp import --voxel-size auto'
    """
    option = f" --{parameter.replace('_', '-')}" if parameter else ""
    return f"napari-msp {command}{option}{f' {value}' if option and value is not True else ''}"


# --- Options ----------------------------------------------------------------------------------


def add_console_options(command: ArgumentParser) -> None:
    """Add how much is said while the command runs; every command has these."""
    group = command.add_argument_group("what is said while it runs")
    group.add_argument("-q", "--quiet", action="store_true", help="results and errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="every step; tracebacks")
    group.add_argument("--log", type=Path, metavar="FILE", help="keep all that is said in a file")


def add_scan(command: ArgumentParser) -> None:
    """Add the scan, what belongs to it, and where the results go."""
    command.add_argument("dwi", type=Path, metavar="DWI", help="4-D .nii or .nii.gz")
    command.add_argument("--bval", type=Path, metavar="FILE", help="default: beside the image")
    command.add_argument("--bvec", type=Path, metavar="FILE", help="default: beside the image")
    command.add_argument("--mask", type=Path, metavar="FILE", help="default: found, or made")
    add_b0_threshold(command)
    add_out(command, "DIR", "folder")


def add_names(command: ArgumentParser, option: str, metavar: str, what: str) -> None:
    """Add one name or several."""
    command.add_argument(option, nargs="+", default=(), metavar=metavar, help=what)


def add_out(command: ArgumentParser, metavar: str, what: str) -> None:
    """Add where the results go."""
    command.add_argument("--out", type=Path, required=True, metavar=metavar, help=what)


def add_force(command: ArgumentParser, what: str = "existing files") -> None:
    """Add that what is there may be replaced."""
    command.add_argument("--force", action="store_true", help=f"replace {what}")


def add_input(command: ArgumentParser) -> None:
    """Add the platform to predict from."""
    command.add_argument(
        "--input",
        default="",
        metavar="PLATFORM",
        help="to predict from (default: the one that the dataset marks)",
    )


def add_voxel_size(command: ArgumentParser, what: str) -> None:
    """Add the edge of cubes to interpolate to."""
    command.add_argument("--voxel-size", type=_voxel_size, metavar="MM|auto", help=what)


def _voxel_size(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # what is neither is refused where it is used


def add_b0_threshold(command: ArgumentParser) -> None:
    """Add what counts as b=0."""
    command.add_argument(
        "--b0-threshold",
        type=float,
        metavar="B",
        help="largest b-value in s/mm² that counts as b=0 (default: 50)",
    )


def add_shells(command: ArgumentParser, what: str, default: Sequence[float] | None = None) -> None:
    """Add one shell or several."""
    command.add_argument(
        "--shell",
        dest="b_value",
        type=float,
        nargs="+",
        default=default,
        metavar="B",
        help=f"b-values in s/mm² {what}",
    )


def add_run(command: ArgumentParser) -> None:
    """Add which scan is meant where one was repeated."""
    command.add_argument(
        "--run", type=int, metavar="N", help="which scan, where one was repeated (BIDS run-)"
    )


def add_device(command: ArgumentParser) -> None:
    """Add what is computed on."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def add_review_maps(command: ArgumentParser) -> None:
    """Add that a review needs no maps."""
    command.add_argument(
        "--no-review-maps",
        dest="review_maps",
        action="store_false",
        help="leave out the small maps that a review opens at once",
    )


def add_regions(command: ArgumentParser, when: str) -> None:
    """Add where pages of proof take their regions from."""
    command.add_argument(
        "--regions",
        metavar="LABELS|tissue",
        help="pages of proof by region: a label image in the scans' space, a folder with one of "
        f"each subject, or tissue ({when})",
    )


def add_model(command: ArgumentParser, *, required: bool = True) -> None:
    """Add the model and the platforms that it is to predict."""
    command.add_argument(
        "--model",
        type=model_file,
        required=required,
        metavar="M.safetensors",
        help="trained file; or a packaged one for teaching: msp-teaching, diqt-teaching",
    )
    command.add_argument(
        "--target", required=required, metavar="PLATFORM", help="to predict, or: all"
    )


def model_file(text: str) -> Path:
    """Give a model's file: what is named, or a packaged one by its name without suffix."""
    if Path(text).suffix or Path(text).exists():
        return Path(text)
    from napari_msp.packaged import packaged_models

    return {path.stem: path for path in packaged_models().values()}.get(text, Path(text))


def add_inference_options(command: ArgumentParser) -> None:
    """Add how a model is run, see `Options`."""
    add_device(command)
    command.add_argument(
        "--tile", type=int, metavar="VOXELS", help="edge of a tile (default: by memory)"
    )
    command.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="beside input and result; tiles keep within it (default: half of what is free)",
    )
    command.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="of the network (default: float32); float16 is quicker on GPUs, and rounds",
    )
    command.add_argument(
        "--gradients",
        default="target",
        help="of the written DWI: target (default), input or a .bvec file",
    )
    command.add_argument(
        "--resample",
        action="store_true",
        help="interpolate to the model's voxel size, and predictions back to the scan's voxels",
    )
    command.add_argument(
        "--lattice",
        choices=("scan", "model"),
        default="scan",
        help="after --resample; model: predictions stay on the model's voxels (default: scan)",
    )
    add_shells(command, "of the scan's shells to predict from (default: the model's)")
    command.add_argument(
        "--b-value",
        dest="rescale_b_value",
        choices=("rescale",),
        help="rescale: bring the signal to the model's b-value (approximate)",
    )


def inference_options(options: Namespace) -> "Options":
    """Give what `add_inference_options` read."""
    from napari_msp.options import Options

    return call(Options, options, rescale_b_value=options.rescale_b_value == "rescale")


def pairs(texts: Sequence[str], field: str, form: str) -> dict[str, str]:
    """Split NAME=VALUE texts.

    Raises
    ------
    UserError
        When one is malformed, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value):
            raise UserError(f"{text!r} must read {form}", field=field)
        if name in found:
            raise UserError(
                f"{name} was given twice", field=field, remedy=Advice("use another name")
            )
        found[name] = value
    return found
