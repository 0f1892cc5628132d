"""The form of Review: which folder, which rater, and whether names are hidden."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QLineEdit

from napari_msp.bids import plain_label
from napari_msp.ui.widgets.form import FormRows, on_enter, push_button, stacked
from napari_msp.ui.widgets.message import Notices
from napari_msp.ui.widgets.path_field import FileForm, PathField

LABELS = {"folder": "Fol&der", "rater": "&Rater", "blind": "Names"}
"""Labels of the rows, by the library's name of the parameter."""

TIPS = {
    "folder": "<p>The folder that <i>cohort</i> or <i>harmonize</i> wrote, or any folder above "
    "it. Review keeps ratings in it, in <tt>review/</tt>.</p>",
    "rater": "<p>Letters and digits. Each rater has a table of ratings, so that nobody overwrites "
    "those of others.</p>",
    "blind": "<p>Show predictions without names and numbers, in an order that gives nothing away. "
    "Order and code names stay the same for a rater.</p>",
}

ROLES_TIP = (
    "<p>Hide also which image is the input and which the prediction: they become A and B, in an "
    "order that differs between subjects. If their voxels differ in size, that may give them "
    "away.</p>"
)


@dataclass(frozen=True)
class Filled:
    """The form's answers.

    Attributes
    ----------
    folder, rater, blind
        Parameters of `Session.open`.
    hide_roles
        Whether to hide, too, which image is the input and which the prediction.
    """

    folder: Path | None
    rater: str
    blind: bool
    hide_roles: bool


class ReviewForm(FileForm):
    """The form: which folder is reviewed, by whom, and whether names are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.rater = PathField("Choose a folder of predictions"), QLineEdit()
        self.paths = (self.folder,)
        self.rater.setText(plain_label(_user()))
        self.blind = QCheckBox("hide whose the&y are")
        self.roles = QCheckBox("and which is the &input")
        self.roles.setToolTip(ROLES_TIP)
        self.roles.setEnabled(False)
        self.button = push_button("&Open", "<p>List the folder’s predictions (Enter).</p>")
        self.notices = Notices()
        self.rows = FormRows(self.notices)
        self.rows.add("folder", LABELS["folder"], self.folder, TIPS["folder"])
        self.rows.add("rater", LABELS["rater"], self.rater, TIPS["rater"])
        self.rows.add("blind", LABELS["blind"], self.blind, TIPS["blind"], self.roles)
        stacked(self, self.rows, self.button)
        self.blind.toggled.connect(self.roles.setEnabled)
        self.folder.changed.connect(self.check)
        self.rater.textChanged.connect(lambda _: self.check())
        self.button.clicked.connect(self.act)
        on_enter(self, self.act)
        self.check()

    @property
    def filled(self) -> Filled:
        """The answers now."""
        rater = self.rater.text().strip()
        blind = bool(self.blind.isChecked())
        return Filled(self.folder.path, rater, blind, blind and bool(self.roles.isChecked()))

    def fill(self, last: Filled) -> None:
        """Fill in earlier answers, except a folder that is gone."""
        if last.folder is not None and last.folder.is_dir():
            self.folder.choose(last.folder)
        self.rater.setText(last.rater)
        self.blind.setChecked(last.blind)
        self.roles.setChecked(last.hide_roles)

    def check(self) -> None:
        """Say what is wrong before Open is pressed."""
        for name in self.rows.names:
            self.rows.say(name)
        rater = self.rater.text().strip()
        plain = plain_label(rater)
        if rater and rater != plain:
            proposal = f", such as {plain}" if plain else ""
            self.rows.say("rater", f"Letters and digits only{proposal}.")
        self.button.setEnabled(self.folder.path is not None and bool(rater) and rater == plain)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return ""
