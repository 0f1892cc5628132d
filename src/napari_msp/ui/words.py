"""A window's words: for messages that speak of a command line's options."""

import re
from collections.abc import Mapping
from types import MappingProxyType

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "--shell": "Shell",
        "--mask": "Mask",
        "--bval": "b-values",
        "--bvec": "b-vectors",
    }
)
"""Fields of Load acquisition by the option that does the same."""


def in_words(message: str, fields: Mapping[str, str] = FIELDS, widget: str = "") -> str:
    """Name fields instead of options; an option that has no field is left as it is.

    Parameters
    ----------
    message
        Of a `UserError`.
    fields
        Labels of fields by option.
    widget
        Where the fields are, when the message is read elsewhere.

    Examples
    --------
    >>> in_words("a.nii: has several shells; choose one with --shell")
    'a.nii: has several shells; choose one with “Shell”'
    >>> in_words("a.bvec: is missing; give it with --bvec", widget="Load acquisition")
    'a.bvec: is missing; give it with “b-vectors” in Load acquisition'
    """
    place = f" in {widget}" if widget else ""

    def field(option: re.Match[str]) -> str:
        label = fields.get(option[0])
        return option[0] if label is None else f"“{label}”{place}"

    return re.sub(r"--[a-z][a-z-]*", field, message)
