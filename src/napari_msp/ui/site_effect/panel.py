"""The site effect in a region: a row per method, a sentence, and a Bland-Altman plot."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle

import numpy as np
import pyqtgraph as pg
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QComboBox

from napari_msp.evaluation.proof.agreement import LIMITS
from napari_msp.evaluation.proof.pages import COMBAT_OF_REGIONS, MEAN_OF_OTHERS, REPEAT, SMOOTHED
from napari_msp.evaluation.proof.site_effect_files import effect_record
from napari_msp.evaluation.proof.site_effect_numbers import (
    ROLE_WORDS,
    SiteDifference,
    SiteEffects,
    effect_words,
    role_of,
)
from napari_msp.evaluation.proof.values import MEANS, QUANTITIES
from napari_msp.evaluation.statistics import Interval
from napari_msp.formatting import NumberFormat, counted, number, p_text
from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import FormRows, fit_into_form, offer, stacked
from napari_msp.ui.widgets.message import Notices, Sentences
from napari_msp.ui.widgets.plot import StillPlot
from napari_msp.ui.widgets.reading_table import ReadingTable, Text

HEADERS: tuple[Text, ...] = (
    ("compared", "<p>Each row is compared with the target’s scan of the same subject.</p>"),
    ("bias\n%", "<p>Mean difference from the target’s scan, in percent of its mean.</p>"),
    ("ICC", "<p>ICC(A,1): 1 where both scanners give everybody the same value.</p>"),
    ("Δ", "<p>Bias over the standard deviation between people (Glass’s Δ).</p>"),
    (
        "kept\n%",
        "<p>Variance between people, in percent of that on the target. A method that predicts the "
        "same for everybody has no bias, and keeps nothing.</p>",
    ),
    (
        "told\nright",
        "<p>Subjects whose own scan on the target is the nearest one, over all quantities and "
        "regions, with biases removed.</p>",
    ),
)
"""Headers of the table, with the meaning of each column."""

COPIED = (
    "row", "bias", "bias_percent", "limit_low", "limit_high", "cv_percent", "icc", "glass_delta",
    "variance_kept_percent", "p_corrected",
)  # fmt: skip
"""Columns that are copied, with the names of site_effect.csv."""

SHORTEST_NAME, LONGEST_NAME = "no harmonization", "no harmonization of it"

SHORT = {row: row.partition(" (")[0] for row in (REPEAT, SMOOTHED, MEAN_OF_OTHERS)}
"""Names of rows, without the part that the tooltip gives."""

POINT = 7
HIGH = 300
"""Size of a point and height of the plot, in pixels; beside text that wraps, Qt ignores a hint."""


class SiteEffectPanel(Themed):
    """The table and plot of the site effect."""

    def __init__(self) -> None:
        super().__init__()
        self._found: Sequence[SiteEffects] = ()
        self._effects: Sequence[SiteDifference] = ()
        self.scanners, self.quantities, self.regions = QComboBox(), QComboBox(), QComboBox()
        self.words = Sentences()
        self.table = ReadingTable("Site effect", (SHORTEST_NAME, LONGEST_NAME))
        self.plot = StillPlot()
        self.rows = FormRows(Notices())
        self.rows.add("target", "Targ&et", self.scanners, "<p>Target to show.</p>")
        self.rows.add("quantity", "&Quantity", self.quantities, "<p>Quantity to show.</p>")
        self.rows.add("region", "Reg&ion", self.regions, "<p>Region to show.</p>")
        fit_into_form(self.scanners, self.quantities, self.regions)
        self._lay_out()
        self.scanners.currentIndexChanged.connect(lambda _: self._offer_quantities())
        self.quantities.currentIndexChanged.connect(lambda _: self._offer_regions())
        self.regions.currentIndexChanged.connect(lambda _: self._show())
        self.table.itemSelectionChanged.connect(self._draw)
        self.show_found(())

    def show_found(self, found: Sequence[SiteEffects]) -> None:
        """Show the first target's FA in its first region; hide everything if nothing was found."""
        self._found = found
        several = len({each.dataset for each in found}) > 1
        names = [f"{each.dataset}, {each.column}" if several else each.column for each in found]
        offer(self.scanners, names)
        self.rows.show_row("target", len(found) > 1)
        self.setVisible(bool(found))
        self._offer_quantities()

    def restyle(self) -> None:
        """Draw in the theme's colours."""
        colours = colours_of(self)
        self.plot.paint_frame(colours)
        self._draw()

    @property
    def _shown(self) -> SiteEffects | None:
        at = self.scanners.currentIndex()
        return self._found[at] if 0 <= at < len(self._found) else None

    @property
    def _quantity(self) -> str:
        labels = {QUANTITIES[key].label: key for key in MEANS}
        return labels.get(self.quantities.currentText(), "")

    def _offer_quantities(self) -> None:
        shown = self._shown
        there = {effect.quantity for effect in shown.effects} if shown else set()
        offer(self.quantities, [QUANTITIES[key].label for key in MEANS if key in there])
        self._offer_regions()

    def _offer_regions(self) -> None:
        shown = self._shown
        effects = shown.effects if shown else ()
        there = dict.fromkeys(e.region for e in effects if e.quantity == self._quantity)
        offer(self.regions, list(there))
        self._show()

    def _show(self) -> None:
        shown, region = self._shown, self.regions.currentText()
        if shown is None or not region:
            self._effects = ()
            self.table.fill(HEADERS, (), ())
        else:
            self._effects = shown.of_place(region, self._quantity)
            self.words.setText(effect_words(shown, region, self._quantity))
            texts = [_texts(shown, effect) for effect in self._effects]
            records = map(effect_record, self._effects)
            lines = [[record[name] for name in COPIED] for record in records]
            self.table.fill(HEADERS, texts, [COPIED, *lines])
            self.table.clearSelection()
        self._draw()

    def _draw(self) -> None:
        """Draw a point per subject for the selected rows, else for all but the trivial ones."""
        self.plot.clear()
        shown = self._shown
        if shown is None or not self._effects:
            return
        chosen = self.table.chosen_rows()
        colours = self._colours()
        effect = self._effects[0]
        place = (effect.region, effect.quantity)
        every = [v for e in self._effects for pair in shown.pairs(e.row, place) for v in pair]
        display = NumberFormat.of(every)
        scale = 10.0**display.exponent
        self.plot.addItem(pg.InfiniteLine(0, angle=0, pen=pg.mkPen(colours_of(self).line)))
        for n, each in enumerate(self._effects):
            drawn = n in chosen if chosen else role_of(each.row) not in ("trivial", "noise-free")
            colour = colours[n]
            self.table.item(n, 0).setForeground(colour if drawn else colours_of(self).line)
            if not drawn:
                continue
            pairs = np.array(shown.pairs(each.row, place)) / scale
            self.plot.plot(
                pairs.mean(axis=1),
                pairs[:, 0] - pairs[:, 1],
                pen=None,
                symbol="o",
                symbolSize=POINT,
                symbolPen=None,
                symbolBrush=colour,
                name=each.row,
            )
            level = pg.mkPen(colour, width=1.6)
            self.plot.addItem(pg.InfiniteLine(each.agreement.bias / scale, angle=0, pen=level))
            limit = pg.mkPen(colour, width=1, dash=[4, 4])
            for end in each.agreement.limits or ():
                self.plot.addItem(pg.InfiniteLine(end / scale, angle=0, pen=limit))
        quantity = QUANTITIES[effect.quantity]
        unit = display.unit(quantity.unit)
        named = f"{quantity.label} [{unit}]" if unit else quantity.label
        self.plot.setLabel("bottom", f"mean of both: {named}")
        self.plot.setLabel("left", "difference from the target")

    def _colours(self) -> list[QColor]:
        """Return a colour for each row: greys for before and the floor, as in the report."""
        colours = colours_of(self)
        greys = {"before": colours.text, "floor": colours.faint}
        roles = [role_of(each.row) for each in self._effects]
        series = cycle(colours.series[1:])
        return [greys[role] if role in greys else next(series) for role in roles]

    def _lay_out(self) -> None:
        self.plot.setAccessibleName("Bland-Altman plot")
        self.plot.setToolTip(
            "<p>Bland-Altman plot, with one point per subject. Lines are the bias and, dashed, the "
            f"limits of agreement (bias ± {LIMITS:g} standard deviations of the differences). "
            "Choose rows of the table to see them alone.</p>"
        )
        self.plot.setFixedHeight(HIGH)
        stacked(self, self.rows, self.words, self.table, self.plot)
        self.restyle()


def _texts(each: SiteEffects, effect: SiteDifference) -> list[Text]:
    """Return a row of the table."""
    found, known = effect.agreement, each.identified.get(effect.row)
    unit = QUANTITIES[effect.quantity].unit
    p = "" if effect.test is None else p_text(effect.test.corrected_p_value)
    told = [
        f"{found.bias:+.4g} {unit}".strip(),
        _between("95 % interval", found.bias_interval),
        counted(found.subjects, "subject"),
        _between("limits of agreement", found.limits),
        p and f"{p}, corrected for regions and quantities",
        effect.note,
    ]
    right = "–" if known is None else f"{known.right_unbiased:.3g} of {known.subjects}"
    as_is = "" if known is None else f"as they are {known.right:.3g}"
    kept = found.variance_kept
    return [
        (SHORT.get(effect.row, effect.row), f"<b>{escape(effect.row)}</b>: {_meaning(effect.row)}"),
        (_written(found.bias_percent, 1, signed=True), "<br>".join(filter(None, told))),
        ("–", "It depends only on the number of people.")
        if effect.row == MEAN_OF_OTHERS
        else (_written(found.icc, 2), _between("95 % interval", found.icc_interval)),
        (_written(found.effect, 1, signed=True), ""),
        (_written(kept, 0), ""),
        (right, as_is),
    ]


def _meaning(row: str) -> str:
    words = "regions' means without the scanner" if row == COMBAT_OF_REGIONS else ""
    return escape(words or ROLE_WORDS[role_of(row)])


def _written(value: float | None, decimals: int, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    rounded = round(value, decimals) or 0.0  # 0 has no sign
    return number(rounded, decimals, signed=signed and rounded != 0)


def _between(what: str, ends: Interval | None) -> str:
    return "" if ends is None else f"{what} {ends[0]:.4g} to {ends[1]:.4g}"
