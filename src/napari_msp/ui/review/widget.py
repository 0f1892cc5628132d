"""Review: look at many predictions one after the other, and rate whether each can be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QSizePolicy, QWidget
from superqt import QElidingLabel

from napari_msp.errors import UserError
from napari_msp.review.predictions import Entry
from napari_msp.review.predictions import Review as Predictions
from napari_msp.review.rating_table import VERDICTS, Verdict
from napari_msp.review.report import review_report
from napari_msp.ui.background import JobRow, Latest
from napari_msp.ui.docks import Docked, Pane, open_page, open_widget, reveal, with_messages
from napari_msp.ui.phrasing import FormWords, said, sentence
from napari_msp.ui.reading import Control, Report
from napari_msp.ui.review.canvas import SIDES, Canvas
from napari_msp.ui.review.entry_list import EntryList, headers_of, key_name, row_of, sorted_by
from napari_msp.ui.review.form import LABELS, ReviewForm
from napari_msp.ui.review.judging import Judging
from napari_msp.ui.review.keys import STEPS, WRITING, all_keys, sheet, tag_keys
from napari_msp.ui.review.pictures import TITLES
from napari_msp.ui.review.session import STATES, Filter, Session, without_names
from napari_msp.ui.shared import shared_by
from napari_msp.ui.viewer_axes import ORDERS
from napari_msp.ui.widgets.form import Section, on_keys, scrolled, stacked
from napari_msp.ui.widgets.message import MessageLine, readable
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import Sheet

if TYPE_CHECKING:
    import napari

EDGE = 6

KEY_SHEET = 560, 600
"""Width and height of the sheet of keys, in pixels."""

WORDS = FormWords(LABELS)

REPEATED = {"Up", "Down", "Left", "Right"}
"""Keys that repeat while they are held; repeating others would rate many predictions."""


class Review(Docked):
    """The widget in which predictions are looked through and rated.

    Parameters
    ----------
    napari_viewer
        Viewer that gets the cells, and whose keys are taken meanwhile.
    """

    page = "review"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form, self.message = ReviewForm(), MessageLine()
        self.progress, self.making = QElidingLabel(), ProgressRow()
        beside = self.progress, self.heading
        self.what = Section("What to review", self.form, *beside, unfolded=True)
        self.list, self.judging = EntryList(), Judging(TITLES, list(ORDERS))
        self.canvas = Canvas(napari_viewer, self._warn, self._act_on_key, self)
        self.reporting = JobRow(None, self.message)
        self.session: Session | None = None
        self._opening = Latest(self, self._begin, self._refuse)
        self._shared, self._refusal = shared_by(napari_viewer), ""
        if last := self._shared.last.get(self.page):
            self.form.fill(last)  # a different name would be a different rater
        self._lay_out()
        self._connect()
        self._enable()

    # --- Opening and closing ------------------------------------------------------------------

    def open(self) -> None:
        """List the predictions that the form asks for."""
        self.judging.finish_note()
        asked = self.form.filled
        assert asked.folder is not None
        folder = str(asked.folder)
        self._refusal = self.canvas.grid.refusal
        if self._refusal:
            self._warn(self._refusal)
            return
        self.message.clear()
        self.form.button.setEnabled(False)
        self._opening.ask(
            lambda control: Session.open(
                folder, asked.rater, blind=asked.blind, hide_roles=asked.hide_roles
            )
        )

    def leave(self) -> None:
        """Let go of the viewer; every rating is on the disk already."""
        self.judging.finish_note()
        super().leave()
        self.canvas.close()
        self.session = None
        self._enable()

    def _begin(self, session: Session) -> None:
        self.judging.finish_note()  # it belongs to the folder before
        self.session = session
        self.canvas.open(session)
        self._shared.last[self.page] = self.form.filled
        self.form.check()
        self.what.unfold(False)
        self.heading.hint.hide()
        self.list.offer(STATES, session.targets if session.blind is None else [])
        self.judging.offer_tags(session.tags)
        self._fill()
        self._enable()
        self.list.table.setFocus()
        if words := session.problems_words(WORDS):
            self._warn(words)
        if session.current is not None:
            self.go_to(session.current)

    def _take_free(self) -> None:
        """Clear the refusal once another widget has left the canvas."""
        if not self._shared.owner and self._refusal and self.message.text == self._refusal:
            self.message.clear()

    def _refuse(self, error: UserError) -> None:
        if self.form.blind.isChecked():
            error = without_names(error)
        self.form.say(error.field or "folder", sentence(said(error, WORDS)))
        self.what.unfold(True)

    # --- Looking ------------------------------------------------------------------------------

    def go_to(self, entry: Entry) -> None:
        """Look at an entry."""
        session = self._session
        self.judging.finish_note()
        session.go_to(entry)
        self.list.select(session.row)
        self._show_judging()
        reveal(self.judging.title)
        self.canvas.go_to_current()
        self._enable()

    def _see(self, another: bool) -> None:
        """Update the widget to what is visible now."""
        if another:
            self._show_judging()  # the reason for missing images is known now
        self.progress_words()
        self._show_look()

    def _cannot_show(self, entry: Entry, error: UserError) -> None:
        self._show_judging()
        self._say(error, entry)
        self._enable()

    def _show_look(self) -> None:
        look = self.canvas.look
        self.judging.show_look(look.shown, look.plane, look.outline)
        self.judging.show_shells(self.canvas.shells, self.canvas.shell)
        self._enable()

    def progress_words(self, more: str = "") -> None:
        """Show how far the review is."""
        session = self.session
        told = session.progress_words if session is not None else ""
        self.progress.setText(" · ".join(filter(None, (told, more))))

    # --- Judging ------------------------------------------------------------------------------

    def act(self, name: str) -> None:
        """Run a command of `keys.COMMANDS`."""
        if self.session is None:
            return
        if name in STEPS:
            self.message.clear()
        if name != "note":
            self.judging.finish_note()
        if name in VERDICTS:
            self._rate(next(each for each in VERDICTS if each == name))
        else:
            self._commands()[name]()

    def _commands(self) -> dict[str, Callable[[], object]]:
        canvas = self.canvas
        return {
            "next": partial(self._step, 1),
            "previous": partial(self._step, -1),
            "next unrated": lambda: self._go_on(self._session.next_unrated()),
            "find": self.list.text.setFocus,
            "note": self.judging.write_note,
            "undo": self._undo,
            "flicker": canvas.swap,
            "swap": canvas.swap,
            "map": canvas.next_map,
            "shell": self._next_shell,
            **{plane: partial(canvas.turn, plane) for plane in ORDERS},
            "slice up": partial(canvas.grid.step, 1),
            "slice down": partial(canvas.grid.step, -1),
            "worst": self._go_to_worst,
            "outline": lambda: canvas.look_at(outline=not canvas.look.outline),
            "keys": self.show_keys,
            "report": self.write_report,
            "site effect": self.show_site_effect,
        }

    def _rate(self, verdict: Verdict) -> None:
        session = self._session
        entry = session.current
        if entry is None or not self._seen("rated"):
            return
        if verdict == "pass" and self.canvas.failure is not None:
            self._warn(f"Not rated: {session.name(entry)} cannot be shown, so it cannot pass.")
            return
        following = session.next_unrated()
        if not self._said(lambda: session.rate(verdict)):
            return
        if self.judging.go_on.isChecked():
            self._go_on(following if following is not entry else None)

    def _go_on(self, following: Entry | None) -> None:
        """Look at the entry to rate next, or say that there is none."""
        if following is None:
            self.message.show_message("ok", "All listed predictions are rated.")
        else:
            self.go_to(following)

    def _said(self, say: Callable[[], object]) -> bool:
        """Record a rating, tag or note, and show it; return whether that went well."""
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
        # A written note is kept even if the pictures have gone meanwhile.
        if self.session is not None and (self.canvas.is_seen or self._seen("noted")):
            self._said(lambda: self._session.note(text))

    def _tag(self, tag: str) -> None:
        if self.session is not None and self._seen("tagged"):
            self._said(lambda: self._session.toggle_tag(tag))

    def _seen(self, done: str) -> bool:
        """Return whether the current entry is visible; else say that nothing is done.

        An entry that cannot be shown may be judged by that, too.
        """
        entry = self._session.current
        if entry is None:
            return False
        if self.canvas.judged:
            return True
        grid, name = self.canvas.grid, self._session.name(entry)
        why = f": {grid.unseen(SIDES)}" if self.canvas.is_seen else " yet"
        self._warn(f"Not {done}: {name} is not seen{why}.")
        if self.canvas.is_seen and not grid.holds(SIDES):
            self.canvas.draw()
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
        if self.canvas.failure is not None:
            known = session.disguised(self.canvas.failure, entry)
            warnings.insert(0, f"cannot be shown: {known.problem}")
        if session.blind is None and self.canvas.pictures is not None and self.canvas.is_seen:
            warnings += self.canvas.pictures.maps.notes
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

    def _choose(self, row: int) -> None:
        rows = self._session.rows
        if row < len(rows) and rows[row] is not self._session.current:
            self.message.clear()
            self.go_to(rows[row])

    def _narrow(self, state: str, target: str, text: str) -> None:
        if self.session is not None:
            self.session.show_only(Filter(state, target, text))
            self._fill()

    def _sort(self, column: int, descending: bool) -> None:
        if self.session is not None:
            self.session.sort(sorted_by(self.session, column), descending)
            self._fill()

    def _next_shell(self) -> None:
        if not self.canvas.next_shell():
            self._warn("There is one b-value.")

    def _go_to_worst(self) -> None:
        if not self.canvas.is_seen:
            return
        worst = self.canvas.go_to_worst()
        if worst is None:
            self._warn("Where it may be wrong is not known: no expected error, no truth.")
        else:
            self.message.show_message("ok", f"Largest {worst.words}.")

    def show_keys(self) -> None:
        """Show all keys."""
        if self.session is not None:
            words = readable(sheet(self.session.tags))
            words.setTextFormat(Qt.RichText)
            words.setMargin(EDGE)
            shown = Sheet(self, "Keys of Review", KEY_SHEET, scrolled(words))
            on_keys(shown, shown.reject, Qt.Key_F1, Qt.Key_Question)
            shown.show()

    def write_report(self) -> None:
        """Write the page of the review, which gives all names, and open it."""
        session = self._session
        if session.blind is not None:
            self._warn("A report shows names. Open the folder without hiding them first.")
            return
        work = partial(_write_report, session.review)
        self.reporting.run(work, "Writing the report", done=self._open_report, failed=self._say)

    def show_site_effect(self) -> None:
        """Open the widget of the site effect with this folder."""
        session = self._session
        if session.blind is not None:
            self._warn("The site effect reveals how good all are. Open the folder without hiding.")
            return
        open_widget(self.viewer, "Site effect").look_at(session.review.folder)

    def _open_report(self, page: Path) -> None:
        self.message.show_message("ok", f"Saved {page}.")
        open_page(page, self.message)

    # --- Keys ---------------------------------------------------------------------------------

    def _act_on_key(self, key: str, pressed: bool) -> None:
        """Do what a key of the canvas or of the list does."""
        name = all_keys()[key]
        if self.session is None:
            return
        if name in WRITING and self.come_forward():
            self._warn(f"{key} did nothing: the review was out of sight.")
        elif name == "tag":
            tag = tag_keys(list(self.session.tags)).get(key)
            if tag is not None:
                self.judging.finish_note()
                self._tag(tag)
        elif name == "flicker":
            self.canvas.swap(pressed)
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
        """Return the name of an event's key; empty if it is not the review's, as in the form."""
        focused = self.focusWidget()
        if self.session is None or (focused is not None and self.what.isAncestorOf(focused)):
            return ""
        key = key_name(event)
        return key if key in all_keys() else ""

    # --- The list -----------------------------------------------------------------------------

    def _fill(self) -> None:
        session = self._session
        session.show_only(session.filter)
        self.list.fill(headers_of(session), [row_of(session, each) for each in session.rows])
        self.list.select(session.row)
        self.progress_words()

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
            self.making.report(done, total, f"Making review maps: {done} of {total}")
        else:
            self.making.end()

    def _enable(self) -> None:
        judging = self.judging
        for part in (self.progress, self.list, judging.title, judging.known, judging):
            part.setVisible(self.session is not None)
        self.judging.allow(self.canvas.judged, self.canvas.failure is None)

    def _connect(self) -> None:
        self.form.act_wanted.connect(self.open)
        self._shared.changed.connect(self._take_free)
        self.canvas.seen.connect(self._see)
        self.canvas.waited.connect(self.progress_words)
        self.canvas.failed.connect(self._cannot_show)
        self.canvas.look_changed.connect(self._show_look)
        self.canvas.ahead.maps_made.connect(self._maps_made)
        self.making.cancel_wanted.connect(self.canvas.ahead.make_no_more)
        self.list.chosen.connect(self._choose)
        self.list.narrowed.connect(self._narrow)
        self.list.sorted.connect(self._sort)
        self.list.text.returnPressed.connect(self.list.table.setFocus)
        self.judging.command.connect(self.act)
        self.judging.tagged.connect(self._tag)
        self.judging.noted.connect(self._note)
        self.judging.note_left.connect(self.list.table.setFocus)
        maps, planes = self.judging.maps, self.judging.planes
        maps.activated.connect(lambda _: self.canvas.look_at(shown=maps.currentData()))
        self.judging.shells.activated.connect(self.canvas.look_at_shell)
        planes.activated.connect(lambda _: self.canvas.turn(planes.currentText()))

    def _lay_out(self) -> None:
        self.progress.setAccessibleName("Progress")
        wide = self.progress.sizePolicy()
        wide.setHorizontalStretch(1)  # else the heading takes half of the line for Help alone
        self.progress.setSizePolicy(wide)
        upper, buttons = QWidget(), Pane(self.judging)
        buttons.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Maximum)
        inside = stacked(upper, self.what, self.list)
        inside.setStretch(1, 1)
        inside.addStretch()
        facts = (self.judging.title, self.judging.known)
        said = (*facts, self.message, self.reporting, self.making, self.form.notices)
        column = with_messages(self, upper, *said)
        column.setContentsMargins(EDGE, EDGE, EDGE, EDGE)
        column.setStretch(1, 0)  # what is free goes to the list
        column.addWidget(buttons)


def _write_report(review: Predictions, control: Control) -> Path:
    def progress(*told: Any) -> None:
        control.report(Report(*told))

    return review_report(review, progress=progress, cancelled=control.cancelled)
