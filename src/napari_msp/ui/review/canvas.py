"""The predictions in the viewer, one after the other: cells, their names and contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_msp.errors import UserError
from napari_msp.formatting import rounded
from napari_msp.review.predictions import Entry
from napari_msp.ui.compare.grid_cells import GridCells
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.grid_fit import SPACE, fit_legend
from napari_msp.ui.layers import LayerData
from napari_msp.ui.review.ahead import AHEAD, ReadAhead
from napari_msp.ui.review.keys import TakenKeys
from napari_msp.ui.review.pictures import (
    ROLES,
    TITLES,
    UNITS,
    Contrast,
    Pictures,
    ReviewLook,
    Worst,
    shell_words,
    worst_of,
)
from napari_msp.ui.review.session import Session
from napari_msp.ui.shared import shared_by

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

B0 = "b=0 with the mask"

SIDES = (0, 1)
"""Indices of the input's and the prediction's cells."""

NAMES: Mapping[str, str] = {
    "b0": B0,
    **{f"{title} error": "MSE" for title in TITLES.values()},
}
"""Names of quantities in cells, where they differ."""


class Canvas(QObject):
    """The cells of the prediction that a session looks at, shown as soon as it is read.

    Parameters
    ----------
    viewer
        Viewer that gets the cells.
    warn
        Called with a text for the user.
    act
        Called with a key of the canvas, and whether it was pressed or released.

    Attributes
    ----------
    seen : bool
        Emitted when the current prediction is visible; whether it is another one than before.
    waited : str
        Emitted with a text about what is not there yet.
    failed : Entry, UserError
        Emitted when the current prediction cannot be shown.
    look_changed
        Emitted when the look changed.
    shown
        The prediction that is visible; None while none is.
    pictures
        Its pictures.
    failure
        Why the current prediction cannot be shown; None otherwise.
    """

    seen = Signal(bool)
    waited = Signal(str)
    failed = Signal(object, object)
    look_changed = Signal()

    def __init__(
        self,
        viewer: napari.Viewer,
        warn: Callable[[str], object],
        act: Callable[[str, bool], object],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.grid = ViewerGrid(viewer, warn, "the review")
        self.ahead = ReadAhead(self)
        self.keys = TakenKeys(viewer, act)
        self.look = ReviewLook()
        self.session: Session | None = None
        self.shown: Entry | None = None
        self.pictures: Pictures | None = None
        self.failure: UserError | None = None
        self._swapped, self._showing = False, False
        self.ahead.ready.connect(lambda entry: self.draw() if entry is self.current else None)
        self.ahead.failed.connect(self.cannot_show)
        self.ahead.contrast_changed.connect(self._renew_contrast)
        self._shared = shared_by(viewer)
        self._shared.changed.connect(self._take_free, Qt.QueuedConnection)  # after it has left

    def open(self, session: Session) -> None:
        """Begin with another folder; nothing of the one before stays visible beside its names."""
        self.ahead.close()
        self._forget()
        self.session = session
        self.viewer.dims.events.order.connect(self._follow_plane)
        self.viewer.layers.selection.events.active.connect(self._selected)
        self.look = replace(self.look, shell=None)
        self.ahead.open(session.rows)

    def close(self) -> None:
        """Let go of the viewer."""
        self.ahead.close()
        self.keys.release()
        self._forget()

    def _forget(self) -> None:
        """Show nothing, and give the canvas back."""
        if self.session is not None:
            self.viewer.dims.events.order.disconnect(self._follow_plane)
            self.viewer.layers.selection.events.active.disconnect(self._selected)
        self.session, self.shown, self.pictures, self.failure = None, None, None, None
        if self.grid.active:
            self.grid.leave()

    @property
    def current(self) -> Entry | None:
        """The entry that the session looks at."""
        return None if self.session is None else self.session.current

    @property
    def is_seen(self) -> bool:
        """Whether the current entry is visible."""
        return self.current is not None and self.shown is self.current

    @property
    def judged(self) -> bool:
        """Whether the current entry may be judged: that it cannot be shown is a reason, too."""
        seen = self.is_seen and not self.grid.unseen(SIDES)
        return seen or (self.current is not None and self.failure is not None)

    # --- Showing ------------------------------------------------------------------------------

    def go_to_current(self) -> None:
        """Show the session's current entry, if it is another one."""
        self._swapped = False
        self.draw()

    def draw(self) -> None:
        """Show the current entry as soon as it is there."""
        session, entry = self.session, self.current
        assert session is not None
        assert entry is not None
        self.failure = None
        pictures = self.ahead.want(entry, session.ahead(AHEAD), self.look)
        if pictures is not None:
            self._show(pictures)
        elif entry is not self.shown and self.failure is None:
            self.shown, there = None, self.ahead.has_maps(entry)
            if not there:  # which takes a while
                self.grid.hide()
            doing = "Reading" if there else "Maps are being made of"
            self.tell(f"{doing} {session.name(entry)} …")

    def tell(self, words: str) -> None:
        """Say, also on the canvas, what is not shown there."""
        if self.grid.active:
            self.grid.write(words)
            fit_legend(self.viewer)
        self.waited.emit(words)

    def cannot_show(self, entry: Entry, error: UserError) -> None:
        """Say that a prediction cannot be shown, if it is the current one."""
        if self.session is None or entry is not self.current:
            return
        self.failure, self.shown, self.pictures = error, None, None
        self.grid.hide()  # the cells show another prediction
        self.tell(f"{self.session.name(entry)} cannot be shown")
        self.failed.emit(entry, error)

    def _show(self, pictures: Pictures) -> None:
        session, entry = self.session, self.current
        assert session is not None
        assert entry is not None
        contrast = self.ahead.contrast_at(pictures.look.shell)
        cells = cells_of(pictures, session, entry, contrast, swapped=self._swapped)
        if self.grid.refusal:
            self.shown = None
            self.waited.emit(self.grid.refusal)
            return
        self._showing = True  # layers that come and go change the axes for a moment
        layers = self.grid.show(cells, carry=True)
        self._showing = False
        if self.look.plane != self.grid.plane:
            self.grid.turn_to(self.look.plane)
        self.keys.take(layers)
        before = None if self.pictures is None else self.pictures.maps
        first = entry is not self.shown or pictures.maps is not before
        self.shown, self.pictures = entry, pictures
        self.seen.emit(first)

    def _selected(self, event: Any = None) -> None:
        """Keep a cell selected: keys would go to a hidden layer, and delete what is in it."""
        if self.grid.active and not self._showing:
            QTimer.singleShot(0, self._select_a_cell)

    def _select_a_cell(self) -> None:
        active = self.viewer.layers.selection.active
        if self.grid.active and active is not None and active not in self.grid.layers:
            self.grid.select()
            self.grid.lease.tell_hidden(active)

    def _take_free(self) -> None:
        """Show what waited until another widget left the canvas."""
        waits = self.current is not None and not self.is_seen and self.failure is None
        if waits and not self._shared.owner:
            self.draw()

    def _renew_contrast(self) -> None:
        if self.shown is not None and self.session is not None:
            self.draw()

    # --- Looking ------------------------------------------------------------------------------

    def look_at(self, **changes: Any) -> None:
        """Change the look: `changes` are fields of `ReviewLook`."""
        self.look = replace(self.look, **changes)
        self.look_changed.emit()
        if self.current is not None:
            self.draw()

    def next_map(self) -> None:
        """Look at the next map."""
        names = list(TITLES)
        self.look_at(shown=names[(names.index(self.look.shown) + 1) % len(names)])

    @property
    def shells(self) -> tuple[int | None, ...]:
        """Shells of the visible prediction; (None,) where there is one."""
        return (None,) if self.pictures is None else self.pictures.maps.shells

    @property
    def shell(self) -> int | None:
        """The shell that is visible; None where there is one."""
        return None if self.pictures is None else self.pictures.maps.shell

    def look_at_shell(self, place: int) -> None:
        """Look at another of the shells."""
        self.look_at(shell=self.shells[place] if place else None)

    def next_shell(self) -> bool:
        """Look at the next shell; return whether there is another one."""
        shells = self.shells
        if not self.is_seen or len(shells) < 2:
            return False
        self.look_at_shell((shells.index(self.shell) + 1) % len(shells))
        return True

    def swap(self, swapped: bool | None = None) -> None:
        """Let input and prediction change places; None: swap them."""
        if self.pictures is not None and self.is_seen:
            self._swapped = not self._swapped if swapped is None else swapped
            self._show(self.pictures)

    def turn(self, plane: str) -> None:
        """Look at another plane."""
        self.grid.turn_to(plane)
        self.look_at(plane=plane)

    def go_to_worst(self) -> Worst | None:
        """Put the crosshair where the largest doubt is; None where none is known."""
        worst = None
        if self.pictures is not None and self.is_seen:
            worst = worst_of(self.pictures.maps)
        if worst is not None:
            crosshair_of(self.viewer).put(worst.place)
        return worst

    def _follow_plane(self) -> None:
        """Draw the outline in the plane that napari's own buttons turned to."""
        if self.grid.active and not self._showing and self.grid.plane != self.look.plane:
            self.look_at(plane=self.grid.plane)


def titles_of(session: Session, entry: Entry) -> dict[str, str]:
    """Return the titles of the cells, by role, without what is hidden."""
    if session.blind is None:
        scanned = entry.session if session.several_sessions else ""
        who = " ".join(filter(None, (entry.subject, scanned)))
        scan, prediction = f"{who} {entry.platform}", f"{who} {entry.provenance.name}"
        return {
            "scan": scan,
            "prediction": prediction,
            "truth": f"{who} {entry.target}",
            "doubt": prediction,
            "error": prediction,
            "b0": scan,
        }
    who = session.subject(entry)
    if session.blind.hide_roles:
        first, second = session.sides(entry)
        names = {first: f"{who} A", second: f"{who} B", "truth": f"{who} ground truth"}
    else:
        names = {role: f"{who} {words}" for role, words in ROLES.items()}
    return names | {"doubt": who, "error": who, "b0": who}


def cells_of(
    pictures: Pictures, session: Session, entry: Entry, contrast: Contrast, *, swapped: bool = False
) -> GridCells:
    """Return the cells of a prediction with their names and the contrast of all predictions.

    Parameters
    ----------
    pictures
        Contents of the cells.
    session, entry
        Entry that they are of, and session that says what may be told about it.
    contrast
        Contrast of all predictions.
    swapped
        Whether the first two images change places.
    """
    titles, sides = titles_of(session, entry), session.sides(entry)
    by_role = {each.role: each for each in pictures.cells}
    order = [*(sides[::-1] if swapped else sides), *(each.role for each in pictures.cells[2:])]
    no_roles = session.blind is not None and session.blind.hide_roles
    shell = shell_words(pictures.maps)
    layers: list[LayerData] = []
    for role in order:
        picture = by_role[role]
        values, options, kind = picture.data
        parts = [titles[role], NAMES.get(picture.quantity, picture.quantity)]
        name = " · ".join([*parts, *([shell] if shell and role != "b0" else [])])
        if picture.missing:
            why = "no image" if no_roles and role in sides else picture.missing
            name = f"{titles[role]}: {why}"
        options = options | {"name": name}
        if not options.get("rgb") and picture.quantity != "b0":
            options["contrast_limits"] = contrast.limits(picture.quantity)
        layers.append((values, options, kind))
    # In the last column, where it leaves room for the legend, which gives the other scale.
    last = by_role[order[-1]]
    return GridCells(
        layers,
        pictures.columns,
        None if last.missing else len(order) - 1,
        pictures.maps.prediction,
        scales(pictures, contrast),
        unit=UNITS.get(last.quantity, ""),
    )


def scales(pictures: Pictures, contrast: Contrast) -> str:
    """Return what black and white mean, and of which predictions."""
    title = TITLES[pictures.look.shown]
    low, high = contrast.limits(title)
    told = [f"{title}: {low:.2g} to {high:.2g} {UNITS[title]}"]
    for each in pictures.cells:
        if each.role in ("doubt", "error") and not each.missing:
            name = each.quantity if each.role == "doubt" else "MSE"
            unit, most = UNITS[each.quantity], contrast.limits(each.quantity)[1]
            told.append(f"{name}: 0 to {rounded(most, unit)} {unit}")
    many = len(contrast.found)
    whose = f"contrast of {many} predictions" if many > 1 else "contrast of this one alone"
    of = [shell_words(pictures.maps), whose]
    return f"{SPACE.join(told)}\n{SPACE.join(filter(None, of))}"
