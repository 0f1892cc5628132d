"""All keys of a review on one sheet."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QScrollArea, QVBoxLayout, QWidget

from napari_msp.ui.review.keys import COMMANDS, REBOUND, tag_keys
from napari_msp.ui.widgets.form import on_keys
from napari_msp.ui.widgets.message import readable

SIZE = 560, 600
"""Pixels."""


class KeySheet(QDialog):
    """The sheet; Escape, ? and F1 close it.

    Parameters
    ----------
    parent
        Over which it stands.
    tags
        To choose from, and what each means.
    """

    def __init__(self, parent: QWidget, tags: Mapping[str, str]) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys of Review")
        self.setAttribute(Qt.WA_DeleteOnClose)
        self.words = readable(sheet(tags))
        self.words.setTextFormat(Qt.RichText)
        self.words.setMargin(6)
        area = QScrollArea()
        area.setWidget(self.words)
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.NoFrame)
        buttons = QDialogButtonBox(QDialogButtonBox.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(area, 1)
        layout.addWidget(buttons)
        self.resize(*SIZE)
        on_keys(self, self.reject, Qt.Key_F1, Qt.Key_Question)


def sheet(tags: Mapping[str, str]) -> str:
    """Give the sheet as HTML."""
    rows: list[str] = []
    for group in dict.fromkeys(command.group for command in COMMANDS):
        rows.append(_heading(group))
        rows += [_row(each.keys, each.words) for each in COMMANDS if each.group == group]
    rows.append(_heading("Tags: set, or take away"))
    rows += [_row((key,), _meaning(tag, tags[tag])) for key, tag in tag_keys(list(tags)).items()]
    rows.append(_heading("Keys of napari’s that do something else here"))
    rows += [_row((key,), why) for key, why in REBOUND.items()]
    return f"<table cellspacing='0' cellpadding='2'>{''.join(rows)}</table>"


def _meaning(tag: str, meaning: str) -> str:
    return f"{tag}: {meaning}" if meaning else tag


def _heading(text: str) -> str:
    return f"<tr><td colspan='2'><br><b>{escape(text)}</b></td></tr>"


def _row(keys: tuple[str, ...], words: str) -> str:
    shown = " or ".join(escape(key) for key in keys)
    key = f"<td style='white-space: nowrap'><b>{shown}</b>&nbsp;&nbsp;</td>"
    return f"<tr>{key}<td>{escape(words)}</td></tr>"
