"""Parts that commands share: options that mean the same everywhere, and their names in errors."""

import inspect
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, Namespace
from argparse import _ArgumentGroup as Group
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


Kind = Callable[[str], Any]
"""Function that makes a value of an option's text."""


@dataclass(frozen=True)
class OptionGroup:
    """A section of a command's help, or the command itself, to which options are added."""

    where: ArgumentParser | Group

    def add(
        self, form: str, what: str, default: Any = None, kind: Kind | None = None, **more: Any
    ) -> None:
        """Add an option or argument.

        Parameters
        ----------
        form
            The option as the help shows it: its names, a placeholder if it takes a value, and "..."
            if it takes several, such as "--test --subjects SUBJECT ..."; or the name of an
            argument's parameter, and its placeholder.
        what
            Its help; a number, a text or a path that is the default is added.
        default, kind, **more
            As for `add_argument`; without `kind` it is that of the default.
        """
        *names, last = form.removesuffix(" ...").split()
        if names and not last.startswith("-"):
            more["metavar"] = last
        else:
            names.append(last)
            if last.startswith("-") and not more.keys() & {"action", "choices"}:
                more["action"] = "store_true"
        if form.endswith(" ..."):
            more["nargs"] = "+"
        if isinstance(default, int | float | str | Path) and default not in ("", SUPPRESS):
            shown = f"{default:g}" if isinstance(default, float) else default
            what += f" Default: {shown}."
            kind = kind or (None if isinstance(default, str) else type(default))
        if kind is not None:
            more["type"] = kind
        if default is not None:
            more["default"] = default
        self.where.add_argument(*names, help=what, **more)

    def path(self, form: str, what: str, default: Any = None, **more: Any) -> None:
        """Add a file or folder, see `add`."""
        self.add(form, what, default, Path, **more)


def section(command: ArgumentParser, topic: Topic | None = None) -> OptionGroup:
    """Return a section of a command's help, which is not shown without options; None: its top."""
    if topic is None:
        return OptionGroup(command)
    if not any(each.title == topic for each in command._action_groups):
        for each in Topic:
            command.add_argument_group(each)
    return OptionGroup(next(each for each in command._action_groups if each.title == topic))


def add_console_options(command: ArgumentParser) -> None:
    """Add options for the amount of messages; every command has these."""
    messages = OptionGroup(command.add_argument_group("messages"))
    messages.add("-q --quiet", "Print results and errors only.")
    messages.add("-v --verbose", "Print every step, and tracebacks.")
    messages.path("--log FILE", "Write all messages to this file, too.")


def add_scan(command: ArgumentParser) -> None:
    """Add the scan, its other files, and where the results go."""
    section(command).path("dwi DWI", "DWI to read: 4-D .nii or .nii.gz.")
    scan = section(command, Topic.SCANS)
    for option, what in (("--bval", "b-values"), ("--bvec", "b-vectors")):
        found = f"Read {what} from this file. Default: the one beside the image."
        scan.path(f"{option} FILE", found)
    scan.path(
        "--mask FILE",
        "Use this brain mask. Default: one that is found with the image, or else made.",
    )
    add_out(command)


def add_out(
    command: ArgumentParser, form: str = "DIR", what: str = "Write everything to this folder."
) -> None:
    """Add where the results go."""
    section(command, Topic.OUTPUT).path(f"--out {form}", what, required=True)


def add_force(command: ArgumentParser, what: str = "existing files") -> None:
    """Add the option to replace existing files."""
    section(command, Topic.OUTPUT).add("--force", f"Replace {what}.")


def add_input(command: ArgumentParser) -> None:
    """Add the platform to predict from."""
    section(command, Topic.SCANS).add(
        "--input PLATFORM",
        "Take this platform as the one to predict from. Default: the one that the dataset marks.",
        "",
    )


def add_voxel_size(command: ArgumentParser, what: str) -> None:
    """Add the edge of cubes to interpolate to."""
    section(command, Topic.OUTPUT).add("--voxel-size MM|auto", what, kind=_voxel_size)


def _voxel_size(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # anything else is refused where it is used


FLAGS = {"b_value": "--shell", "rescale_b_value": "--b-value", "kind": "--model"}
"""Options whose names differ from their setting's."""

METAVARS = {"b_value": "B", "b0_threshold": "B", "tile": "VOXELS", "memory": "GIB"}
"""Placeholders of their values in the help."""

RESCALE = "rescale"
"""Value of `--b-value` that allows rescaling."""


def flag(name: str) -> str:
    """Return the option of a setting."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def add_option(command: ArgumentParser, name: str) -> None:
    """Add a field of `Options`: its help, type and choices are the field's."""
    about, kind = DESCRIBED[name], get_args(Options.__annotations__[name])[0]
    kinds, default, more = get_args(kind) or (kind,), getattr(Options, name), dict[str, Any]()
    form = flag(name)
    if name == "rescale_b_value":
        default, more["choices"] = None, (RESCALE,)
    elif get_origin(kind) is Literal:
        more["choices"] = kinds
    elif kind is not bool:
        several = any(get_origin(each) is Sequence for each in kinds)
        form += f" {METAVARS.get(name, name.upper())}{' ...' if several else ''}"
        more["kind"] = kinds[0]
    assert about.topic is not None
    section(command, about.topic).add(form, about.text, default or None, dest=name, **more)


def add_shells(command: ArgumentParser, what: str, default: Sequence[float] | None = None) -> None:
    """Add one shell or several."""
    scans = section(command, Topic.SCANS)
    scans.add("--shell B ...", what, default, float, dest="b_value")


def add_run(command: ArgumentParser) -> None:
    """Add the number of the scan to use, where one was repeated."""
    what = "Use the scan with this number (BIDS run-) if one was repeated."
    section(command, Topic.SCANS).add("--run N", what, kind=int)


def add_review_maps(command: ArgumentParser) -> None:
    """Add the option to write no maps for a review."""
    section(command, Topic.OUTPUT).add(
        "--no-review-maps",
        "Leave out the small maps that let a review open at once.",
        dest="review_maps",
        action="store_false",
    )


def add_regions(command: ArgumentParser, when: str) -> None:
    """Add the source of the regions for pages of proof."""
    section(command, Topic.MEASURED).add(
        "--regions LABELS|tissue",
        "Write the pages of the site effect, by region: of a label image in the scans' space, "
        f"of a folder with one for each subject, or of tissue. {when}",
    )


def add_model(command: ArgumentParser, *, required: bool = True) -> None:
    """Add the model and the platforms to predict."""
    models = section(command, Topic.MODELS)
    models.add(
        "--model M.safetensors",
        "Predict with this trained model, or with one that is packaged for teaching: "
        "msp-teaching or diqt-teaching.",
        kind=model_path,
        required=required,
    )
    target = "Predict this platform; all: every target of the model."
    models.add("--target PLATFORM", target, required=required)


def add_inference_options(command: ArgumentParser) -> None:
    """Add the options for running a model: all fields of `Options` that have a topic."""
    for name, about in DESCRIBED.items():
        if about.topic is not None:
            add_option(command, name)
    section(command, Topic.OUTPUT).add(
        "--gradients GRADIENTS",
        "Write the DWI with the gradient table of the target, of the input, or of a .bvec file.",
        "target",
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
