"""The form of a training run, made from the parameter model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from magicgui.widgets import FileEdit
from pydantic import ValidationError
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import UserError
from napari_msp.files import refuse_occupied
from napari_msp.learning.settings import TrainingSettings
from napari_msp.ui.panels.entries import Choice, Entry, entry_for
from napari_msp.ui.panels.form_rows import FormRows
from napari_msp.ui.panels.section import Section
from napari_msp.ui.training_fields import (
    SHOWN_FIRST,
    TrainingRequest,
    applies,
    complaints,
    empty_means,
    form_fields,
    missing_scans,
    new_run_folder,
)

TYPING_PAUSE = 400
"""Milliseconds without a key after which a typed folder is looked at."""
