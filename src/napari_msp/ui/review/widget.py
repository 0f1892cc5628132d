"""Review: look at many predictions one after the other, and say of each whether it can be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QLabel

from napari_msp.errors import UserError
from napari_msp.formatting import counted
from napari_msp.review.measures import MEASURES
from napari_msp.review.predictions import Entry
from napari_msp.review.predictions import Review as Predictions
from napari_msp.review.rating_table import VERDICTS, Verdict
from napari_msp.review.report import review_report
from napari_msp.review.table import risk_text
from napari_msp.ui.background import Control, JobRow, Latest
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.docks import Docked, Pane
from napari_msp.ui.grid_fit import ORDERS, show_legend
from napari_msp.ui.phrasing import FormWords, said, sentence
from napari_msp.ui.review.ahead import AHEAD, ReadAhead
from napari_msp.ui.review.entry_list import MARK, Cell, EntryList
from napari_msp.ui.review.form import LABELS, ReviewForm
from napari_msp.ui.review.judging import TONES, Judging
from napari_msp.ui.review.key_sheet import KeySheet
from napari_msp.ui.review.keys import TakenKeys, all_keys, tag_keys
from napari_msp.ui.review.pictures import MAPS, ROLES, Look, Pictures, cells_of
from napari_msp.ui.review.session import STATES, Filter, Session, unusual_words
from napari_msp.ui.widgets.form import Section, stacked
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow, Step

if TYPE_CHECKING:
    import napari

EDGE = 6

WORDS = FormWords(LABELS)

REPEATED = {"Up", "Down", "Left", "Right"}
"""Keys that go on while they are held; others would rate many."""


class Review(Docked):
    """The widget.

    Parameters
    ----------
    napari_viewer
        Who gets the cells, and whose keys are used while there are any.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form, self.message = ReviewForm(), MessageLine()
        self.what = Section("What to review", self.form, unfolded=True)
        self.progress, self.making = QLabel(), ProgressRow()
        self.list, self.judging = EntryList(), Judging(MAPS, list(ORDERS))
        self.grid = ViewerGrid(napari_viewer, self._warn, "the review")
        self.ahead = ReadAhead(self)
        self.reporting = JobRow()
        self.keys = TakenKeys(napari_viewer, self._act_on_key)
        self.session: Session | None = None
        self.look = Look()
        self.shown: Entry | None = None
        self._pictures: Pictures | None = None
        self._swapped, self._showing = False, False
        self._failed: UserError | None = None
        self._opening = Latest(self)
        self._lay_out()
        self._connect()
        self._enable()

    # --- Opening and closing ------------------------------------------------------------------

    def open(self) -> None:
        """List what the form says."""
        self.judging.finish_note()
        folder = self.form.folder.path
        assert folder is not None
        rater, blind = self.form.rater.text().strip(), self.form.blind.isChecked()
        roles = self.form.hide_roles
        self.message.clear()
        self.form.button.setEnabled(False)
        self._opening.ask(
            lambda control: Session.open(str(folder), rater, blind=blind, hide_roles=roles)
        )

    def leave(self) -> None:
        """Let go of the viewer; every rating is on the disk already."""
        self.judging.finish_note()
        self._opening.stop()
        self.reporting.job.cancel()
        self.ahead.close()
        self.keys.release()
        self.making.end()
        if self.grid.active:
            self.grid.leave()
        self.session, self.shown, self._pictures = None, None, None
        self._enable()

    def _begin(self, session: Session) -> None:
        self.judging.finish_note()  # it is of the folder that was open while this one was read
        self.ahead.close()
        self.session, self.shown, self._failed = session, None, None
        self.form.check()
        self.what.unfold(False)
        hidden = session.blind is not None
        self.list.offer(dict(STATES), [] if hidden else session.targets)
        self.judging.offer_tags(session.tags)
        self.ahead.open(session.rows)
        self._fill()
        self._enable()
        self.list.table.setFocus()
        if words := session.problems_words(WORDS):
            self._warn(words)
        if session.current is not None:
            self.go_to(session.current)

    def _refuse(self, error: UserError) -> None:
        self.form.say(error.field or "folder", sentence(said(error, WORDS)))
        self.what.unfold(True)

    # --- Looking ------------------------------------------------------------------------------

    def go_to(self, entry: Entry) -> None:
        """Look at an entry."""
        session = self._session
        self.judging.finish_note()
        session.go_to(entry)
        self._swapped = False
        self.list.select(session.row)
        self._show_judging()
        self._draw()

    def _draw(self) -> None:
        """Show what is looked at as soon as it is there."""
        session = self._session
        entry = session.current
        assert entry is not None
        self._failed = None
        pictures = self.ahead.want(entry, session.ahead(AHEAD), self.look)
        if pictures is not None:
            self._show(pictures)
        elif entry is not self.shown and self._failed is None:
            self.shown = None
            doing = "Reading" if self.ahead.has_maps(entry) else "Maps are being made of"
            self._tell(f"{doing} {session.name(entry)} …")
        self._enable()

    def _show(self, pictures: Pictures) -> None:
        session = self._session
        entry = session.current
        assert entry is not None
        titles = self._titles(entry)
        sides = session.sides(entry)
        cells = cells_of(
            pictures,
            titles,
            self.ahead.contrast,
            sides=sides[::-1] if self._swapped else sides,
        )
        self._showing = True  # layers that come and go turn the axes for a moment
        layers = self.grid.show(cells, carry=True)
        self._showing = False
        if self.look.plane != self.grid.plane:
            self.grid.turn_to(self.look.plane)
        self.keys.take(layers)
        first = entry is not self.shown
        self.shown, self._pictures = entry, pictures
        if first:
            self._show_judging()  # why something is missing is known now
        self.progress_words()
        self.judging.show_look(self.look.shown, self.look.plane, self.look.outline)

    def _ready(self, entry: Entry) -> None:
        if self.session is not None and entry is self.session.current:
            self._draw()

    def _cannot_show(self, entry: Entry, error: UserError) -> None:
        if self.session is None or entry is not self.session.current:
            return
        self._failed = error
        self._tell(f"{self._session.name(entry)} cannot be shown")
        self._say(error, entry)
        self._enable()

    def _renew_contrast(self) -> None:
        if self.shown is not None and self.session is not None:
            self._draw()

    def _titles(self, entry: Entry) -> dict[str, str]:
        """Name whose image each cell shows."""
        session = self._session
        who = session.subject(entry)
        if session.blind is None:
            prediction = f"{entry.subject} {entry.provenance.name}"
            names = {
                "scan": f"{entry.subject} {entry.platform}",
                "prediction": prediction,
                "truth": f"{entry.subject} {entry.target}",
            }
        elif session.blind.hide_roles:
            first, second = session.sides(entry)
            names = {first: f"{who} A", second: f"{who} B", "truth": f"{who} ground truth"}
        else:
            names = {role: f"{who} {words}" for role, words in ROLES.items()}
        about = who if session.blind is not None else names["prediction"]
        scan = who if session.blind is not None else names["scan"]
        return names | {"doubt": about, "error": about, "b0": scan}

    def _tell(self, words: str) -> None:
        """Say on the canvas what is not seen there."""
        if self.grid.active:
            show_legend(self.viewer, words)
        self.progress_words(words)

    def progress_words(self, more: str = "") -> None:
        """Say how far the review is."""
        session = self.session
        told = session.progress_words if session is not None else ""
        self.progress.setText(" · ".join(filter(None, (told, more))))

    # --- Judging ------------------------------------------------------------------------------

    def act(self, name: str) -> None:
        """Do a command of `keys.COMMANDS`."""
        if self.session is None:
            return
        if name != "note":
            self.judging.finish_note()
        if name in VERDICTS:
            self._rate(next(each for each in VERDICTS if each == name))
        else:
            self._commands()[name]()

    def _commands(self) -> dict[str, Callable[[], object]]:
        return {
            "next": partial(self._step, 1),
            "previous": partial(self._step, -1),
            "next unrated": self._go_to_unrated,
            "find": self.list.text.setFocus,
            "note": self.judging.write_note,
            "undo": self._undo,
            "flicker": partial(self._swap, None),
            "swap": partial(self._swap, None),
            "map": self._next_map,
            **{plane: partial(self._turn, plane) for plane in ORDERS},
            "slice up": partial(self.grid.step, 1),
            "slice down": partial(self.grid.step, -1),
            "worst": self._go_to_worst,
            "outline": lambda: self._look_at(outline=not self.look.outline),
            "keys": self.show_keys,
            "report": self.write_report,
        }

    def _rate(self, verdict: Verdict) -> None:
        session = self._session
        entry = session.current
        if entry is None:
            return
        if not self._seen("rated"):
            return
        following = session.next_unrated()
        if not self._said(lambda: session.rate(verdict)):
            return
        if self.judging.go_on.isChecked():
            following = following if following is not entry else None
            if following is None:
                self.message.show_message("ok", "All that are listed are rated.")
            else:
                self.go_to(following)

    def _said(self, say: Callable[[], object]) -> bool:
        """Keep what is said, and show it; tell whether that went well."""
        self.message.clear()
        try:
            say()
        except UserError as error:
            self._say(error, self._session.current)
            return False
        finally:
            self._fill()
            self._show_judging()
        return True

    def _undo(self) -> None:
        session, found = self._session, []
        if self._said(lambda: found.append(session.undo())):
            entry = found[0]
            if entry is None:
                self._warn("There is nothing to take back.")
            else:
                self.go_to(entry)
                self.message.show_message("ok", f"Taken back: {session.name(entry)}.")

    def _note(self, text: str) -> None:
        if self.session is not None and self._seen("noted"):
            self._said(lambda: self._session.note(text))

    def _tag(self, tag: str) -> None:
        if self.session is not None and self._seen("tagged"):
            self._said(lambda: self._session.toggle_tag(tag))

    def _seen(self, done: str) -> bool:
        """Tell whether what is looked at is seen; else say that nothing is done.

        That it cannot be shown is something to judge by, too.
        """
        entry = self._session.current
        if entry is None:
            return False
        if entry is self.shown or self._failed is not None:
            return True
        self._warn(f"Not {done}: {self._session.name(entry)} is not seen yet.")
        self._show_judging()
        return False

    def _show_judging(self) -> None:
        session = self._session
        entry = session.current
        if entry is None:
            return
        rating, state = session.ratings.of(entry), session.state(entry)
        verdict = "" if rating is None or state in ("unrated", "remade") else rating.verdict or ""
        warnings = [] if session.blind is not None else list(entry.warnings)
        if session.blind is None and self._pictures is not None and entry is self.shown:
            warnings += self._pictures.subject.notes
        self.judging.show_entry(
            session.name(entry), STATES[state], session.numbers(entry), warnings
        )
        self.judging.show_rating(verdict, session.tags_of(entry), session.note_of(entry))
        self.progress_words()

    # --- What keys and buttons do -------------------------------------------------------------

    def _step(self, by: int) -> None:
        entry = self._session.step(by)
        if entry is not None:
            self.go_to(entry)

    def _go_to_unrated(self) -> None:
        entry = self._session.next_unrated()
        if entry is None:
            self.message.show_message("ok", "All that are listed are rated.")
        else:
            self.go_to(entry)

    def _choose(self, row: int) -> None:
        rows = self._session.rows
        if row < len(rows) and rows[row] is not self._session.current:
            self.go_to(rows[row])

    def _narrow(self, state: str, target: str, text: str) -> None:
        if self.session is not None:
            self.session.show_only(Filter(state, target, text))
            self._fill()

    def _sort(self, column: int, descending: bool) -> None:
        if self.session is not None:
            self.session.sort(self._sorted_by(column), descending)
            self._fill()

    def _sorted_by(self, column: int) -> Callable[[Entry], Any] | None:
        """Say what a column is sorted by; None: as at first."""
        session = self._session
        fixed: list[Callable[[Entry], Any]] = [
            lambda entry: list(STATES).index(session.state(entry)),
            session.subject,
            session.target,
            lambda entry: entry.risk,
            lambda entry: len(entry.outlying),
        ]
        if column < 0:
            return None
        if column < len(fixed):
            return fixed[column]
        key = list(MEASURES)[column - len(fixed)]
        return lambda entry: entry.numbers.get(key, float("-inf"))

    def _swap(self, swapped: bool | None) -> None:
        if self._pictures is not None and self.shown is self._session.current:
            self._swapped = not self._swapped if swapped is None else swapped
            self._show(self._pictures)

    def _next_map(self) -> None:
        names = list(MAPS)
        self._look_at(shown=names[(names.index(self.look.shown) + 1) % len(names)])

    def _turn(self, plane: str) -> None:
        self.grid.turn_to(plane)
        self._look_at(plane=plane)

    def _look_at(self, **changes: Any) -> None:
        self.look = replace(self.look, **changes)
        self.judging.show_look(self.look.shown, self.look.plane, self.look.outline)
        if self.session is not None and self.session.current is not None:
            self._draw()

    def _follow_plane(self) -> None:
        """Draw the outline in the plane that napari's own buttons turned to."""
        if self.grid.active and not self._showing and self.grid.plane != self.look.plane:
            self._look_at(plane=self.grid.plane)

    def _go_to_worst(self) -> None:
        if self._pictures is None or self.shown is not self._session.current:
            return
        worst = self._pictures.subject.worst()
        if worst is None:
            self._warn("Nothing says where it may be wrong: no expected error, no truth.")
            return
        crosshair_of(self.viewer).put(worst.place)
        self.message.show_message("ok", f"Largest {worst.name}: {worst.value:.3g}.")

    def show_keys(self) -> None:
        """Show all keys."""
        if self.session is not None:
            KeySheet(self, self.session.tags).show()

    def write_report(self) -> None:
        """Write the page of the review, which says whose everything is, and open it."""
        session = self._session
        if session.blind is not None:
            self._warn("A report tells names. Open the folder without hiding them first.")
            return
        self.reporting.run(partial(_write_report, session.review), "Writing the report")

    def _open_report(self, page: Path) -> None:
        self.reporting.end()
        opened = QDesktopServices.openUrl(QUrl.fromLocalFile(str(page.absolute())))
        more = "" if opened else " No program opens pages here."
        self.message.show_message("ok" if opened else "warning", f"Saved {page}.{more}")

    # --- Keys ---------------------------------------------------------------------------------

    def _act_on_key(self, key: str, pressed: bool) -> None:
        """Do what a key of the canvas or of the list does."""
        name = all_keys()[key]
        if self.session is None:
            return
        if name == "tag":
            tag = tag_keys(list(self.session.tags)).get(key)
            if tag is not None:
                self.judging.finish_note()
                self._tag(tag)
        elif name == "flicker":
            self._swap(pressed)
        elif pressed:
            self.act(name)

    def event(self, event: QEvent) -> bool:
        """Take our keys before the window's own shortcuts do."""
        if event.type() == QEvent.ShortcutOverride and self._key(event):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Do what keys do, wherever in this widget the focus is."""
        key = self._key(event)
        if not key:
            super().keyPressEvent(event)
        elif not event.isAutoRepeat() or key in REPEATED:
            self._act_on_key(key, True)

    def keyReleaseEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """End what is done while a key is held."""
        key = self._key(event)
        if key and not event.isAutoRepeat() and all_keys()[key] == "flicker":
            self._act_on_key(key, False)
        super().keyReleaseEvent(event)

    def _key(self, event: Any) -> str:
        """Name an event's key; empty where it is none of ours, as in the form."""
        focused = self.focusWidget()
        if self.session is None or (focused is not None and self.what.isAncestorOf(focused)):
            return ""
        key = key_name(event)
        return key if key in all_keys() else ""

    # --- The list -----------------------------------------------------------------------------

    def _fill(self) -> None:
        session = self._session
        session.show_only(session.filter)
        self.list.fill(_headers(session), [self._row(entry) for entry in session.rows])
        self.list.select(session.row)
        self.progress_words()

    def _row(self, entry: Entry) -> list[Cell]:
        session = self._session
        words = STATES[session.state(entry)]
        tone = TONES.get(words, "faint")
        cells = [
            Cell(f"{MARK[words]} {words}", session.note_of(entry), tone),
            Cell(session.subject(entry)),
        ]
        if session.blind is not None:
            return cells
        numbers = {each.key: each for each in session.numbers(entry)}
        unusual = unusual_words(list(numbers.values()))
        warned = f"{counted(len(entry.warnings), 'warning')}" if entry.warnings else ""
        told = ", ".join(filter(None, (unusual, warned)))
        risky = "warning" if told else ""
        cells += [
            Cell(session.target(entry)),
            Cell(risk_text(entry), told, risky, right=True),
            Cell(told, "\n".join((told, *entry.warnings)), risky),
        ]
        for key in MEASURES:
            known = numbers.get(key)
            if known is None:
                cells.append(Cell("–", "not known", "faint", right=True))
            else:
                marked = f"{known.value} {known.word}".strip()
                cells.append(Cell(marked, known.words, "warning" if known.word else "", right=True))
        return cells

    # --- Putting together ---------------------------------------------------------------------

    @property
    def _session(self) -> Session:
        assert self.session is not None
        return self.session

    def _say(self, error: UserError, entry: Entry | None = None) -> None:
        if self.session is not None:
            error = self.session.disguised(error, entry)
        self.message.show_message("error", sentence(said(error, WORDS)))

    def _warn(self, words: str) -> None:
        self.message.show_message("warning", words)

    def _maps_made(self, done: int, total: int) -> None:
        if done < total:
            if self.making.state != "running":
                self.making.start("")
            self.making.report(done, total, f"Review maps are made: {done} of {total}")
        else:
            self.making.end()

    def _enable(self) -> None:
        there = self.session is not None
        self.list.setEnabled(there)
        self.judging.setVisible(there)
        self.list.setVisible(there)
        self.progress.setVisible(there)
        self.judging.allow(there and (self.shown is not None or self._failed is not None))

    def _connect(self) -> None:
        self.form.open_wanted.connect(self.open)
        self._opening.done.connect(self._begin)
        self._opening.failed.connect(self._refuse)
        self.ahead.ready.connect(self._ready)
        self.ahead.failed.connect(self._cannot_show)
        self.ahead.contrast_changed.connect(self._renew_contrast)
        self.ahead.maps_made.connect(self._maps_made)
        self.making.cancel_wanted.connect(self.ahead.make_no_more)
        self.reporting.job.done.connect(self._open_report)
        self.reporting.job.failed.connect(self._say)
        self.reporting.job.ended.connect(lambda: self.reporting.end())
        self.list.chosen.connect(self._choose)
        self.list.narrowed.connect(self._narrow)
        self.list.sorted.connect(self._sort)
        self.list.text.returnPressed.connect(self.list.table.setFocus)
        self.judging.command.connect(self.act)
        self.judging.tagged.connect(self._tag)
        self.judging.noted.connect(self._note)
        self.judging.note_left.connect(self.list.table.setFocus)
        self.judging.map_chosen.connect(lambda name: self._look_at(shown=name))
        self.judging.plane_chosen.connect(self._turn)
        self.viewer.dims.events.order.connect(self._follow_plane)

    def _lay_out(self) -> None:
        self.progress.setAccessibleName("Progress")
        column = stacked(
            self,
            *(self.what, self.message, self.making, self.reporting, self.progress),
            *(self.list, Pane(self.judging)),
        )
        column.setContentsMargins(EDGE, EDGE, EDGE, EDGE)
        column.setStretch(5, 1)
        column.addStretch()


def _write_report(review: Predictions, control: Control) -> Path:
    def progress(words: str, done: int, total: int) -> None:
        control.report(Step(words, done, total))

    return review_report(review, progress=progress, cancelled=control.cancelled)


def _headers(session: Session) -> list[Cell]:
    headers = [Cell("state"), Cell("subject")]
    if session.blind is not None:
        return headers
    headers += [
        Cell("target"),
        Cell("risk", "<p>How unusual it is altogether; it sorts, and is no probability.</p>"),
        Cell("unusual", "<p>What lies far from the others’ median, on the bad side.</p>"),
    ]
    return headers + [
        Cell(each.title, f"<p>{each.described}{f' {each.unit}' if each.unit else ''}</p>")
        for each in MEASURES.values()
    ]


def key_name(event: Any) -> str:
    """Name a key event's key as `keys` does, such as "Shift+H"."""
    key, modifiers = int(event.key()), event.modifiers()
    if key in _NAMED:
        name = _NAMED[key]
    elif 0x21 <= key < 0x7F:
        name = chr(key)
    else:
        return ""
    shift = bool(modifiers & Qt.ShiftModifier) and (name.isalpha() or key in _NAMED)
    parts = [
        *(["Ctrl"] if modifiers & Qt.ControlModifier else []),
        *(["Alt"] if modifiers & Qt.AltModifier else []),
        *(["Meta"] if modifiers & Qt.MetaModifier else []),
        *(["Shift"] if shift else []),
    ]
    return "+".join([*parts, name])


_NAMED = {
    int(key): name
    for key, name in (
        (Qt.Key_Up, "Up"),
        (Qt.Key_Down, "Down"),
        (Qt.Key_Left, "Left"),
        (Qt.Key_Right, "Right"),
        (Qt.Key_Return, "Enter"),
        (Qt.Key_Enter, "Enter"),
        (Qt.Key_Backspace, "Backspace"),
        (Qt.Key_F1, "F1"),
    )
}
