"""Read the next predictions while the user looks at one, and keep a few of them.

They are read from the small maps beside predictions; missing maps are made, one after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from qtpy.QtCore import QObject, QTimer, Signal

from napari_msp.errors import UserError
from napari_msp.inference.review_making import open_review_maps
from napari_msp.inference.review_maps import (
    ReviewMaps,
    has_review_maps,
    shells_of_review_maps,
)
from napari_msp.review.predictions import Entry
from napari_msp.ui.background import BackgroundJob
from napari_msp.ui.reading import Control
from napari_msp.ui.review.pictures import (
    ENOUGH,
    Contrast,
    Limits,
    Pictures,
    ReviewLook,
    draw,
    memory_of,
    own_limits,
)

AHEAD = 2
"""Number of predictions that are read before they are wanted (our choice)."""

MOST_BYTES = 800_000_000
"""Memory limit of the cache, not counting the current and the next predictions (our choice)."""

PAUSE = 250
"""Milliseconds before the next ones are read: the current one is drawn first (our choice)."""


@dataclass(frozen=True, eq=False)
class Read:
    """A prediction as it was read.

    Attributes
    ----------
    entry, maps, pictures
        Prediction, its maps and its cells.
    limits
        Contrast limits that it would have for itself.
    made
        Whether its maps were made for it.
    """

    entry: Entry
    maps: ReviewMaps
    pictures: Pictures
    limits: Mapping[str, Limits]
    made: bool


class _Reader(BackgroundJob):
    """A job that reads one prediction after the other.

    Attributes
    ----------
    entry
        Prediction that is being read; None: none is.
    tried
        Keys of those that are not read again while what is looked at stays the same, even if
        reading failed.
    """

    def __init__(self, owner: ReadAhead) -> None:
        super().__init__(owner, owner.take, lambda error: owner.fail(self.entry, error))
        self.entry: Entry | None = None
        self.tried: set[str] = set()
        self.ended.connect(partial(owner.go_on, self))


class ReadAhead(QObject):
    """A cache of the prediction that is looked at, and of those probably looked at next.

    Attributes
    ----------
    ready : Entry
        Emitted when the wanted prediction is there.
    failed : Entry, UserError
        Emitted when a prediction cannot be shown.
    contrast_changed
        Emitted when one more prediction was read that determines the contrast of all.
    maps_made : int, int
        Emitted with the number of predictions that have maps and the number of all; both are the
        same when there are no more to make.
    """

    ready = Signal(object)
    failed = Signal(object, object)
    contrast_changed = Signal()
    maps_made = Signal(int, int)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._contrasts: dict[int | None, Contrast] = {}
        self._entries: Sequence[Entry] = ()
        self._look = ReviewLook()
        self._current: Entry | None = None
        self._wanted: list[Entry] = []
        # By entry: None if its small maps are there, else why it cannot be shown.
        self._found: dict[str, UserError | None] = {}
        self._unknown: list[Entry] = []  # whose small maps are still to be looked for, or made
        self._making = False
        # By entry, and by the shell that was wanted: None is the first.
        self._maps: OrderedDict[tuple[str, int | None], ReviewMaps] = OrderedDict()
        self._pictures: dict[str, Pictures] = {}
        self._soon = QTimer(self, singleShot=True, interval=PAUSE, timeout=self._read_ahead)
        self._urgent, self._ahead = _Reader(self), _Reader(self)

    @property
    def busy(self) -> bool:
        """Whether something is being read or made."""
        return self._soon.isActive() or self._urgent.running or self._ahead.running

    @property
    def bytes(self) -> int:
        """Memory that maps and pictures take, in bytes."""
        pictures = sum(each.bytes for each in self._pictures.values())
        return sum(map(memory_of, self._maps.values())) + pictures

    def open(self, entries: Sequence[Entry]) -> None:
        """Begin with the predictions of a folder."""
        self.close()
        self._entries, self._unknown = entries, list(entries)

    def close(self) -> None:
        """Drop everything, and stop what goes on."""
        self._current, self._wanted, self._entries = None, [], ()
        self._unknown = []
        for held in (self._maps, self._pictures, self._found, self._contrasts):
            held.clear()
        self._soon.stop()
        for reader in (self._urgent, self._ahead):
            reader.tried.clear()
            reader.cancel()
        self._tell_maps()

    def contrast_at(self, shell: int | None) -> Contrast:
        """Return the contrast of all predictions at a shell; None: at the first."""
        if shell not in self._contrasts:
            self._contrasts[shell] = Contrast(min(ENOUGH, len(self._entries)))
        return self._contrasts[shell]

    def want(self, entry: Entry, following: Sequence[Entry], look: ReviewLook) -> Pictures | None:
        """Return an entry's pictures; None if they have to be waited for until `ready` is emitted.

        Parameters
        ----------
        entry
            Entry to look at now.
        following
            Entries that are probably looked at next, in that order.
        look
            Settings of how predictions are looked at.
        """
        gain = self.contrast_at(look.shell).gain
        look = replace(look, gain=gain if look.shown == "colour" else 1.0)
        if entry is not self._current or look != self._look:
            self._urgent.tried.clear()
            self._ahead.tried.clear()
        if look != self._look:
            self._look = look
            self._pictures.clear()
        self._current, self._wanted = entry, list(following)[:AHEAD]
        self._drop()
        known, error = self._pictures.get(entry.key), self._found.get(entry.key)
        if known is None and error is not None:
            self.failed.emit(entry, error)
        elif known is None and not self._urgent.running:
            self._start(self._urgent)
        self._soon.start()
        return known

    def has_maps(self, entry: Entry) -> bool:
        """Return whether an entry's maps are there and only have to be read."""
        known = entry.key in self._found and self._found[entry.key] is None
        return known or has_review_maps(entry.made_from)

    def make_no_more(self) -> None:
        """Make maps only of the prediction that is looked at."""
        self._unknown = []
        self._ahead.cancel()
        self._tell_maps()

    def _start(self, reader: _Reader) -> None:
        entry = self._next(reader)
        if entry is None:
            return
        reader.entry = entry
        reader.tried.add(entry.key)
        known = self._maps.get((entry.key, self._look.shell))
        truths = any(each.truth is not None for each in self._entries)
        reader.run(partial(_read, entry, known, self._look, truths))

    def _next(self, reader: _Reader) -> Entry | None:
        """Return the entry that a reader is to read next; None where there is none."""
        if reader is self._urgent:
            other, wanted = self._ahead, [self._current] if self._current is not None else []
        else:
            other, wanted = self._urgent, [*self._wanted, *self._sampled(), *self._unmapped()]
        for entry in wanted:
            if entry is other.entry or entry.key in reader.tried or self._found.get(entry.key):
                continue
            needed = entry.key not in self._pictures or entry in self._sampled()
            if needed or entry in self._unmapped():
                return entry
        return None

    def _sampled(self) -> list[Entry]:
        """Return the entries that are still to determine the contrast of all."""
        contrast = self.contrast_at(self._look.shell)
        if contrast.settled:
            return []
        step = max(1, len(self._entries) // ENOUGH)
        sample = self._entries[::step][:ENOUGH]
        return [each for each in sample if each.key not in contrast.found]

    def _unmapped(self) -> list[Entry]:
        """Return the next entry that has no maps yet."""
        while self._unknown:
            entry = self._unknown[0]
            if entry.key in self._found:
                self._unknown.pop(0)
            elif has_review_maps(entry.made_from):
                self._found[entry.key] = None
            else:
                return [entry]
        return []

    def _tell_maps(self) -> None:
        """Emit how many have maps while some are made, and once when there are no more to make."""
        if self._making:
            self._making = bool(self._unmapped())
            total = len(self._entries)
            done = len(self._found) if self._making else total
            self.maps_made.emit(done, total)

    def take(self, read: Read) -> None:
        """Keep a prediction that was read, and emit what it changes."""
        key = read.entry.key
        if read.entry not in self._entries:
            return  # of a folder that was open before
        self._found[key] = None
        self._making |= read.made
        self._tell_maps()
        shell = read.pictures.look.shell
        self._maps[key, shell] = read.maps
        self._maps.move_to_end((key, shell))
        if read.pictures.look == self._look:
            self._pictures[key] = read.pictures
        changed = shell in (None, read.maps.shell) and self.contrast_at(shell).take(
            key, read.limits
        )
        self._drop()
        if self._current is not None and key == self._current.key and key in self._pictures:
            self.ready.emit(read.entry)
        elif changed and shell == self._look.shell:
            self.contrast_changed.emit()

    def fail(self, entry: Entry | None, error: UserError) -> None:
        """Keep why a prediction cannot be shown, and emit it if it is looked at."""
        if entry is None or entry not in self._entries:
            return  # of a folder that was open before
        self._found[entry.key] = error
        self._tell_maps()
        if entry is self._current:
            self.failed.emit(entry, error)

    def go_on(self, reader: _Reader) -> None:
        """Read what is wanted next, after a reader has ended."""
        reader.entry, current = None, self._current
        missing = current is not None and current.key not in self._pictures
        if missing and not self._urgent.running:
            self._start(self._urgent)
        elif not self._soon.isActive():
            self._read_ahead()

    def _read_ahead(self) -> None:
        """Read what is wanted next, once what is looked at is there."""
        current = self._current
        there = current is not None and (
            current.key in self._pictures or self._found.get(current.key) is not None
        )
        if there and not self._ahead.running:
            self._start(self._ahead)

    def _drop(self) -> None:
        """Keep to the memory limit: wanted entries stay, then those looked at last."""
        shell = self._look.shell
        wanted = [(each.key, shell) for each in (self._current, *self._wanted) if each is not None]
        for held in reversed(wanted):
            if held in self._maps:
                self._maps.move_to_end(held)
        kept = set(wanted)  # else the last of them would be read again and again
        for held in list(self._maps):
            if self.bytes <= MOST_BYTES:
                break
            if held not in kept:
                del self._maps[held]
                if held[1] == shell:
                    self._pictures.pop(held[0], None)


def _read(
    entry: Entry, known: ReviewMaps | None, look: ReviewLook, truths: bool, control: Control
) -> Read:
    """Read the maps of a prediction, made first where there are none, and draw its cells."""
    made = False
    if known is None:
        known, made = _open(entry, look.shell, control)
    control.check()
    return Read(entry, known, draw(known, look, truths=truths), own_limits(known), made)


def _open(entry: Entry, shell: int | None, control: Control) -> tuple[ReviewMaps, bool]:
    """Read the maps of a shell, or of the first one where a prediction lacks that shell."""
    made = not has_review_maps(entry.made_from)
    if made:
        _, made = open_review_maps(entry.made_from, cancelled=control.cancelled)
    there = shells_of_review_maps(entry.made_from)
    maps, _ = open_review_maps(entry.made_from, shell if shell in there else None)
    return maps, made
