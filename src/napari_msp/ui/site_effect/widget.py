"""Site effect: distance of predictions from the target's scans, before, after, on one scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msp.bids import linked_source
from napari_msp.errors import UserError, choice_in
from napari_msp.evaluation.proof.site_effect_files import read_site_effect, site_effect_in
from napari_msp.evaluation.proof.site_effect_numbers import SiteEffects
from napari_msp.ui.background import JobRow, Latest
from napari_msp.ui.docks import Docked, Pane, open_page, with_messages
from napari_msp.ui.phrasing import CommandWords, FormWords, said, sentence, without_folder
from napari_msp.ui.reading import Control, Report
from napari_msp.ui.site_effect.form import LABELS, SiteEffectForm
from napari_msp.ui.site_effect.panel import SiteEffectPanel
from napari_msp.ui.widgets.form import Section, push_button
from napari_msp.ui.widgets.message import MessageLine

if TYPE_CHECKING:
    import napari

    from napari_msp.processes import JobProgress

WORDS = FormWords(LABELS, otherwise=CommandWords())
"""Words without those of Load acquisition: scans are read as they lie, so it cannot help."""

MOST_TOLD = 3
"""Number of warnings that are shown; the report has all."""

BUSY = "A comparison is running. Cancel it to look at another folder."

NEWER = "There are newer predictions than this comparison: compare again."


class SiteEffect(Docked):
    """The Site effect widget.

    Parameters
    ----------
    napari_viewer
        Viewer in whose window it stands.
    """

    page = "site_effect"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form, self.panel = SiteEffectForm(), SiteEffectPanel()
        self.what = Section("What to compare", self.form, unfolded=True)
        self.message = MessageLine()
        self.progress = JobRow(self.form, self.message)
        self.report = push_button("Open &report", "<p>Show all tables and figures, as a page.</p>")
        self.written: Path | None = None
        self._looking = Latest(self, self._take, self._refuse)
        pane = Pane(self.heading, self.what, self.panel, self.report)
        with_messages(self, pane, self.message, self.progress, self.form.notices)
        self._connect()
        self._show(EarlierResults())

    @property
    def running(self) -> bool:
        """Whether anything is being read or compared."""
        return self._looking.running or self.progress.job.running

    def look_at(self, folder: Path) -> None:
        """Choose a folder from code, or look at it again if it is chosen already."""
        if self.progress.job.running:
            self.message.show_message("warning", BUSY)
        elif folder == self.form.folder.path:
            self._look()
        else:
            self.form.folder.choose(folder)

    def compare(self) -> None:
        """Compare as the form says, in place of what was compared before."""
        folder, heads = self.form.folder.path, self.form.heads.path
        assert folder is not None and heads is not None
        self.form.check()  # removes texts about questions that are answered
        self._looking.stop()
        self.progress.run(
            partial(_compare, folder, heads, self.form.chosen_regions, self.form.answers),
            "Looking at the predictions",
            done=self._take_compared,
            failed=self._refuse,
            cancelled=self._look_again,
        )

    def _look(self) -> None:
        self.message.clear()
        self.progress.end()
        self._show(EarlierResults())
        folder = self.form.folder.path
        if folder is not None:
            self._looking.ask(partial(_look, folder))

    def _take(self, known: EarlierResults) -> None:
        self.form.show_heads(known.heads)
        self._show(known)
        if known.doubt:  # else it may say that a comparison was cancelled
            self.message.show_message("warning", known.doubt)

    def _take_compared(self, known: EarlierResults) -> None:
        self._show(known)
        folder, heads = self.form.folder.path, self.form.heads.path
        opened = [name for each in (folder, heads) if each for name in (each, each.resolve())]
        warnings = dict.fromkeys(self.progress.warnings)
        told = [sentence(without_folder(each, *opened)) for each in warnings]
        more = len(told) - MOST_TOLD
        told = [*told[:MOST_TOLD], f"And {more} more: see the report."] if more > 0 else told
        self.message.show_message("warning", "\n".join(told))

    def _show(self, known: EarlierResults) -> None:
        self.written = known.written
        self.panel.show_found(known.found)
        self.what.unfold(not known.found)
        page = None if known.written is None else known.written / "report.html"
        self.report.setVisible(page is not None and page.is_file())

    def _refuse(self, error: UserError) -> None:
        self.message.clear()
        words = sentence(said(error, WORDS))
        if error.field in self.form.asked and (choice := choice_in(error.remedy)):
            self.what.unfold(True)
            self.form.ask(error.field, choice.choices)
        elif error.field in LABELS:
            self.form.say(error.field, words)
            self.what.unfold(True)
        else:
            self.message.show_message("error", words)

    def _look_again(self) -> str:
        self._look()
        return "Cancelled."

    def _open_report(self) -> None:
        assert self.written is not None
        open_page(self.written / "report.html", self.message)

    def _connect(self) -> None:
        self.form.folder_chosen.connect(self._look)
        self.form.act_wanted.connect(self.compare)
        self.report.clicked.connect(lambda _: self._open_report())
        self.on_escape(self.progress.request_cancel)


@dataclass(frozen=True)
class EarlierResults:
    """Earlier results in a folder.

    Attributes
    ----------
    heads
        BIDS folder of the heads that were predicted; None where the folder does not say.
    written
        Folder of the written site effect; None where there is none.
    found
        Site effects that were read from it.
    doubt
        Why they may no longer hold, in words.
    """

    heads: Path | None = None
    written: Path | None = None
    found: Sequence[SiteEffects] = ()
    doubt: str = ""


def _look(folder: Path, control: Control) -> EarlierResults:
    """Read what was compared before."""
    if not folder.is_dir():
        raise UserError("there is no such folder", folder, "predictions")
    linked, written = linked_source(folder), site_effect_in(folder)
    heads = None if linked is None else linked.resolve()
    if written is None:
        return EarlierResults(heads)
    control.check()
    try:
        found = read_site_effect(written)
    except UserError as error:  # as of an earlier version
        return EarlierResults(heads, doubt=sentence(said(error, WORDS)))
    return EarlierResults(heads, written, found, NEWER if _has_newer(folder, written) else "")


def _has_newer(folder: Path, written: Path) -> bool:
    """Return whether there are predictions newer than the report; False if there is none."""
    report = written / "report.html"
    if written == folder or not report.is_file():
        return False
    # In folders of subjects, as of cohorts, or side by side, as Harmonize saves them.
    patterns = ("sub-*.nii*", "sub-*/**/*.nii*")
    images = (each for pattern in patterns for each in folder.glob(pattern) if each.is_file())
    when = report.stat().st_mtime
    return any(each.stat().st_mtime > when for each in images)


def _compare(
    folder: Path, heads: Path, regions: str | Path, answers: Mapping[str, str], control: Control
) -> EarlierResults:
    from napari_msp.evaluation.evaluate import prove

    def tell(done: JobProgress) -> None:
        control.report(Report(done.job, round(100 * done.share), 100))

    run = int(answers["run"]) if "run" in answers else None
    source = answers.get("input", "")
    # A cancel waits for the next report: the work writes, so no other may run beside it.
    prove(
        heads,
        folder,
        regions=regions,
        run=run,
        input=source,
        progress=tell,
        cancelled=control.cancelled,
    )
    written = site_effect_in(folder)
    assert written is not None
    return EarlierResults(heads, written, read_site_effect(written))
