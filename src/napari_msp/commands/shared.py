"""Parts that commands share: options that mean the same everywhere, and their names in errors."""

import inspect
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from argparse import _ArgumentGroup as Section
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args, get_origin

from napari_msp.errors import Advice, UserError, Words
from napari_msp.options import DESCRIBED, Options, Topic
from napari_msp.packaged import model_path

if TYPE_CHECKING:
    from napari_msp.commands.console import Console

T = TypeVar("T")


class Command(Protocol):
    """Content of a file in this folder; an example has one line per command line."""

    SUMMARY: str
    EXAMPLE: str

    def add_options(self, command: ArgumentParser) -> None:
        """Add the options; `dest` is the parameter of the library call that an option sets."""

    def run(self, options: Namespace, console: "Console") -> int:
        """Do the job; return the exit status."""


def call(function: Callable[..., T], options: Namespace, /, **given: Any) -> T:
    """Call a function of the library with the options that are its parameters, by their `dest`.

    Parameters
    ----------
    **given
        Parameters that no option sets, or that differ from what was read.
    """
    names = inspect.signature(function).parameters
    known = {name: value for name, value in vars(options).items() if name in names}
    return function(**known | given)


# --- Words ------------------------------------------------------------------------------------

SYNONYMS = {"input_platform": "input", "targets": "target", "path": "dwi", "scan": "dwi"}
"""Other names that the library's parameters have for what options set."""


class OptionWords(Words):
    """The options of one command, by the library's parameters that they set.

    Parameters
    ----------
    command
        Parser of the command: each option's `dest` is the name of the parameter.
    """

    def __init__(self, command: ArgumentParser) -> None:
        self._actions: dict[str, Action] = {}
        for action in command._actions:
            self._actions.setdefault(action.dest, action)

    def offers(self, name: str) -> bool:
        """Return whether the command has an option for a parameter."""
        return self._action(name) is not None

    def parameter(self, name: str) -> str:
        """Return the option's name, or the parameter's if the command has no such option."""
        action = self._action(name)
        return name.replace("_", " ") if action is None else _option(action)

    def setting(self, name: str, value: Any) -> str:
        """Return the option as it is to be typed."""
        action = self._action(name)
        if action is None:
            return self.parameter(name)
        if value is True and (action.nargs == 0 or isinstance(action, BooleanOptionalAction)):
            return _option(action)
        if value is True and action.choices:
            value = next(iter(action.choices))
        return f"{_option(action)} {value}"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Return another command's name, with an option of it where one matters."""
        return as_typed(name, parameter, value)

    def _action(self, name: str) -> Action | None:
        return self._actions.get(name) or self._actions.get(SYNONYMS.get(name, ""))


def _option(action: Action) -> str:
    """Return an option's long form, or the help's name of an argument without one."""
    long = [each for each in action.option_strings if each.startswith("--")]
    return long[0] if long else str(action.metavar or action.dest.upper())


def as_typed(command: str, parameter: str = "", value: Any = True) -> str:
    """Return another command as it is typed; its options are named after what they set.

    >>> as_typed("import", "voxel_size", "auto")
    'napari-msp import --voxel-size auto'
    """
    option = f" --{parameter.replace('_', '-')}" if parameter else ""
    return f"napari-msp {command}{option}{f' {value}' if option and value is not True else ''}"


# --- Options ----------------------------------------------------------------------------------


def section(command: ArgumentParser, topic: Topic) -> Section:
    """Return a section of a command's help for options; one without options is not shown."""
    if not any(each.title == topic for each in command._action_groups):
        for each in Topic:
            command.add_argument_group(each)
    return next(each for each in command._action_groups if each.title == topic)


def add_console_options(command: ArgumentParser) -> None:
    """Add options for the amount of messages; every command has these."""
    group = command.add_argument_group("messages")
    group.add_argument("-q", "--quiet", action="store_true", help="Print results and errors only.")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="Print every step, and tracebacks."
    )
    add_path(group, "--log", "FILE", "Write all messages to this file, too.")


def add_scan(command: ArgumentParser) -> None:
    """Add the scan, its other files, and where the results go."""
    add_path(command, "dwi", "DWI", "DWI to read: 4-D .nii or .nii.gz.")
    scan = section(command, Topic.SCANS)
    for option, what in (("--bval", "b-values"), ("--bvec", "b-vectors")):
        add_path(
            scan, option, "FILE", f"Read {what} from this file. Default: the one beside the image."
        )
    add_path(
        scan,
        "--mask",
        "FILE",
        "Use this brain mask. Default: one that is found with the image, or else made.",
    )
    add_out(command)


def add_path(
    where: ArgumentParser | Section, name: str, metavar: str, what: str, **more: Any
) -> None:
    """Add a file or folder; `more` is as for `add_argument`."""
    where.add_argument(name, type=Path, metavar=metavar, help=what, **more)


def add_names(where: Section, option: str, metavar: str, what: str) -> None:
    """Add one name or several."""
    where.add_argument(option, nargs="+", default=(), metavar=metavar, help=what)


def add_out(
    command: ArgumentParser, metavar: str = "DIR", what: str = "Write everything to this folder."
) -> None:
    """Add where the results go."""
    add_path(section(command, Topic.OUTPUT), "--out", metavar, what, required=True)


def add_force(command: ArgumentParser, what: str = "existing files") -> None:
    """Add the option to replace existing files."""
    section(command, Topic.OUTPUT).add_argument(
        "--force", action="store_true", help=f"Replace {what}."
    )


def add_input(command: ArgumentParser) -> None:
    """Add the platform to predict from."""
    section(command, Topic.SCANS).add_argument(
        "--input",
        default="",
        metavar="PLATFORM",
        help="Take this platform as the one to predict from. Default: the one that the dataset "
        "marks.",
    )


def add_voxel_size(command: ArgumentParser, what: str) -> None:
    """Add the edge of cubes to interpolate to."""
    section(command, Topic.OUTPUT).add_argument(
        "--voxel-size", type=_voxel_size, metavar="MM|auto", help=what
    )


def _voxel_size(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # anything else is refused where it is used


FLAGS = {"b_value": "--shell", "rescale_b_value": "--b-value"}
"""Options whose names differ from their field's."""

METAVARS = {"b_value": "B", "b0_threshold": "B", "tile": "VOXELS", "memory": "GIB"}
"""Placeholders of their values in the help."""

RESCALE = "rescale"
"""Value of `--b-value` that allows rescaling."""


def add_option(command: ArgumentParser, name: str) -> None:
    """Add a field of `Options`: its help, type and choices are the field's."""
    about, kind = DESCRIBED[name], get_args(Options.__annotations__[name])[0]
    kinds, default, more = get_args(kind) or (kind,), getattr(Options, name), dict[str, Any]()
    if name == "rescale_b_value":
        default, more["choices"] = None, (RESCALE,)
    elif kind is bool:
        more["action"] = "store_true"
    elif get_origin(kind) is Literal:
        more["choices"] = kinds
    else:
        many = any(get_origin(each) is Sequence for each in kinds)
        more = {"type": kinds[0], "nargs": "+" if many else None, "metavar": METAVARS.get(name)}
    assert about.topic is not None
    section(command, about.topic).add_argument(
        FLAGS.get(name, "--" + name.replace("_", "-")),
        dest=name,
        default=default,
        help=f"{about.text} Default: {default}." if isinstance(default, str) else about.text,
        **more,
    )


def add_b0_threshold(command: ArgumentParser) -> None:
    """Add the largest b-value that counts as b=0."""
    add_option(command, "b0_threshold")


def add_shells(command: ArgumentParser, what: str, default: Sequence[float] | None = None) -> None:
    """Add one shell or several."""
    section(command, Topic.SCANS).add_argument(
        "--shell",
        dest="b_value",
        type=float,
        nargs="+",
        default=default,
        metavar="B",
        help=what,
    )


def add_run(command: ArgumentParser) -> None:
    """Add the number of the scan to use, where one was repeated."""
    section(command, Topic.SCANS).add_argument(
        "--run",
        type=int,
        metavar="N",
        help="Use the scan with this number (BIDS run-) if one was repeated.",
    )


def add_device(command: ArgumentParser) -> None:
    """Add the device to compute on."""
    add_option(command, "device")


def add_review_maps(command: ArgumentParser) -> None:
    """Add the option to write no maps for a review."""
    section(command, Topic.OUTPUT).add_argument(
        "--no-review-maps",
        dest="review_maps",
        action="store_false",
        help="Leave out the small maps that let a review open at once.",
    )


def add_regions(command: ArgumentParser, when: str) -> None:
    """Add the source of the regions for pages of proof."""
    section(command, Topic.MEASURED).add_argument(
        "--regions",
        metavar="LABELS|tissue",
        help="Write the pages of the site effect, by region: of a label image in the scans' space, "
        f"of a folder with one for each subject, or of tissue. {when}",
    )


def add_model(command: ArgumentParser, *, required: bool = True) -> None:
    """Add the model and the platforms to predict."""
    models = section(command, Topic.MODELS)
    models.add_argument(
        "--model",
        type=model_path,
        required=required,
        metavar="M.safetensors",
        help="Predict with this trained model, or with one that is packaged for teaching: "
        "msp-teaching or diqt-teaching.",
    )
    models.add_argument(
        "--target",
        required=required,
        metavar="PLATFORM",
        help="Predict this platform; all: every target of the model.",
    )


def add_inference_options(command: ArgumentParser) -> None:
    """Add the options for running a model: all fields of `Options` that have a topic."""
    for name, about in DESCRIBED.items():
        if about.topic is not None:
            add_option(command, name)
    section(command, Topic.OUTPUT).add_argument(
        "--gradients",
        default="target",
        help="Write the DWI with the gradient table of the target, of the input, or of a .bvec "
        "file. Default: target.",
    )


def inference_options(options: Namespace) -> Options:
    """Return the options that `add_inference_options` read."""
    return call(Options, options, rescale_b_value=options.rescale_b_value == RESCALE)


def pairs(texts: Sequence[str], field: str, form: str) -> dict[str, str]:
    """Split NAME=VALUE texts.

    Raises
    ------
    UserError
        When one is malformed, or a name is given twice.
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
