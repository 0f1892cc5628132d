"""Put errors into the window's words: labels of fields instead of parameters. No Qt."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_msp.commands.shared import as_typed
from napari_msp.errors import PYTHON, PlainWords, UserError, Words

LOAD_LABELS: Mapping[str, str] = {
    "path": "Sc&an",
    "series": "Se&ries",
    "subject": "S&ubject",
    "platform": "Platfo&rm",
    "run": "Ru&n",
    "b_value": "Sh&ell",
    "mask": "&Mask",
    "bval": "&b-values",
    "bvec": "b-vectors",
    "b0_threshold": "b=0 up &to",
}
"""Load acquisition's labels of fields, which are parameters of `load_acquisition`, too."""

HARMONIZE_LABELS: Mapping[str, str] = {
    "model": "Models",
    "target": "&Targets",
    "device": "Devic&e",
    "tile": "T&ile",
    "resample": "Interpolate to the model's vo&xel size",
    "rescale_b_value": "Rescale to the model's &b-value",
    "gradients": "&Gradients",
}
"""Harmonize's labels of parameters of `napari_msp.harmonize` and of saving."""


class CommandWords(PlainWords):
    """Words where there is no form: parameters by their names, jobs by their commands."""

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Return the command that runs a job."""
        return as_typed(name, parameter, value)


class FormWords(Words):
    """Words that call parameters by a form's labels.

    Parameters
    ----------
    labels
        Labels by the library's name of the parameter; may hold mnemonics.
    widget
        Name of the widget that has the form, if the words are read elsewhere.
    otherwise
        Words for parameters that this form lacks; None: those of Load acquisition.

    Examples
    --------
    >>> words = FormWords({"tile": "T&ile"})
    >>> words.setting("tile", 32), words.parameter("b_value")
    ('“Tile” 32', '“Shell” in Load acquisition')
    """

    def __init__(
        self, labels: Mapping[str, str], widget: str = "", otherwise: Words | None = None
    ) -> None:
        self._labels = {name: label.replace("&", "") for name, label in labels.items()}
        self._place = f" in {widget}" if widget else ""
        self._otherwise = otherwise or LOAD_ELSEWHERE

    def offers(self, name: str) -> bool:
        """Return whether this form, or the one of `otherwise`, has a field for a parameter."""
        return name in self._labels or self._otherwise.offers(name)

    def parameter(self, name: str) -> str:
        """Return a field's label, in quotation marks."""
        return self.setting(name, True)

    def setting(self, name: str, value: Any) -> str:
        """Return a box's label, or a field's with its value."""
        if name not in self._labels:
            return self._otherwise.setting(name, value)
        shown = "" if value is True else f" {value}"
        return f"“{self._labels[name]}”{shown}{self._place}"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        """Return the command of a job for which the window has no button."""
        return self._otherwise.job(name, parameter, value)


LOAD_ELSEWHERE = FormWords(LOAD_LABELS, "Load acquisition", CommandWords())
"""Words for problems of scans that are read where Load acquisition's form is not."""

LOAD_WORDS, HARMONIZE_WORDS = FormWords(LOAD_LABELS), FormWords(HARMONIZE_LABELS)


def without_folder(words: str, *folders: Path) -> str:
    """Return a text in which files are named by their paths below the folders.

    Examples
    --------
    >>> without_folder("/data/heads/sub-01/a.nii: odd; /b.nii", Path("/data/heads"))
    'sub-01/a.nii: odd; /b.nii'
    """
    for folder in sorted(folders, key=lambda each: len(str(each)), reverse=True):
        words = words.replace(f"{folder}{os.sep}", "")
    return words


def said(error: UserError, words: Words = PYTHON, *, remedy: bool = True) -> str:
    """Return what is wrong and what helps, with a file by its name without folders.

    Parameters
    ----------
    remedy
        Whether to say what helps; False where a button offers it.

    Examples
    --------
    >>> said(UserError("has several shells", "/data/a.nii"))
    'a.nii: has several shells'
    """
    subject = error.subject
    if subject is not None and os.sep in subject:
        subject = Path(subject).name
    if not remedy:
        error = UserError(error.problem, error.subject, error.field)
    return error.phrase(words, subject)


def for_toast(error: UserError) -> UserError:
    """Return the same error with its reason before the path: a toast shows little more.

    Examples
    --------
    >>> str(for_toast(UserError("is missing", "/data/a.bval")))
    'Is missing. File: /data/a.bval'
    """
    reason = sentence(UserError(error.problem, remedy=error.remedy).phrase(LOAD_ELSEWHERE))
    return UserError(reason if error.subject is None else f"{reason} File: {error.subject}")


@contextmanager
def reason_first() -> Iterator[None]:
    """Raise errors as napari's toasts show them well, see `for_toast`; also a decorator."""
    try:
        yield
    except UserError as error:
        raise for_toast(error) from error.__cause__


def sentence(text: str) -> str:
    """Return words, which may begin with a file's name, as a sentence.

    Examples
    --------
    >>> sentence("not enough memory"), sentence("a.nii: is missing")
    ('Not enough memory.', 'a.nii: is missing.')
    """
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    if first.isalpha():
        text = text[0].upper() + text[1:]
    return text.rstrip(".") + "." if text else ""
