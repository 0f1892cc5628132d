"""A drawing of a model as boxes and arrows: what is drawn, not where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Shape = Literal["value", "network", "text", "mean"]
Level = Literal["middle", "upper", "lower"]


@dataclass(frozen=True)
class Symbol:
    """A letter with what stands above and below at its right, and in parentheses behind it."""

    base: str
    above: str = ""
    below: str = ""
    argument: Symbol | None = None

    @property
    def plain(self) -> str:
        """The symbol in one line, such as N_1T(z_1)."""
        argument = "" if self.argument is None else f"({self.argument.plain})"
        return self.base + self.above + (f"_{self.below}" if self.below else "") + argument


@dataclass(frozen=True)
class Node:
    """A box.

    Attributes
    ----------
    name
        Of the node within its drawing.
    column
        Counted from the left; arrows run to the right.
    lane
        Lane in which it lies; None: beside all of them.
    shape
        A value that is passed on, a network, a mere text, or the mean weighted by α.
    symbol, caption
        What is written in it.
    term
        Of the glossary.
    says
        The node in words.
    level
        Height within the lane.
    part
        What a click asks to see; "" where there is nothing to be shown.
    """

    name: str
    column: int
    lane: int | None
    shape: Shape
    symbol: Symbol | None
    term: str
    says: str
    caption: str = ""
    level: Level = "middle"
    part: str = ""


@dataclass(frozen=True)
class Edge:
    """An arrow.

    Attributes
    ----------
    start, end
        Names of nodes.
    weight_of
        Platform whose weight in equation (1) the arrow carries; "" where it has none.
    down
        True for an arrow from one lane to the next.
    """

    start: str
    end: str
    weight_of: str = ""
    down: bool = False


@dataclass(frozen=True)
class Drawing:
    """Everything that is drawn of one model.

    Attributes
    ----------
    lanes
        Platforms that lanes are marked with, from the top; empty where lanes are not marked.
    target
        Platform whose lane stands out.
    nodes
        By name.
    edges
        From and to these.
    """

    lanes: tuple[str, ...]
    target: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]

    def showing(self, part: str) -> Node | None:
        """Find the node whose output a part is; None when there is no such part."""
        return next((node for node in self.nodes.values() if part and node.part == part), None)

    def way_to(self, name: str) -> set[Edge]:
        """Give every arrow that leads to a node, directly or through others."""
        direct = {edge for edge in self.edges if edge.end == name}
        return direct.union(*(self.way_to(edge.start) for edge in direct))
