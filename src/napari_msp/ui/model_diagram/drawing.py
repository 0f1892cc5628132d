"""A model as boxes and arrows, an MSP as in Fig. 1 of its paper: what to draw, not where.

No Qt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_msp.networks import registry
from napari_msp.networks.equation import weights
from napari_msp.networks.registry import MULTI_STAGE

if TYPE_CHECKING:
    from napari_msp.model_file import Model

SHARED_NOTE = "first stages shared by all targets"
"""Note on an MSP whose targets have one set of single networks."""

INPUT, FIRST, SECOND, BRANCH = "input", "first", "second", "branch:"
"""Parts whose output can be shown: x, ŷ¹_T, the prediction (of any kind of model), and the prefix
of branches, see `branch_part`."""


def branch_part(platform: str) -> str:
    """Return the name of the part N_iT(z_i) of platform i."""
    return f"{BRANCH}{platform}"


# --- What a model is made of -----------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """The structure of one target's network: names, no weights.

    Attributes
    ----------
    kind
        Kind of model, such as "msp".
    input, target
        Platforms that it reads and predicts.
    networks
        Platform and title of each single network of an MSP, of each stage or side output of a
        multi-task network, in their order, or of the one single network.
    shared
        Whether an MSP's single networks are those of all targets.
    """

    kind: str
    input: str
    target: str
    networks: tuple[tuple[str, str], ...]
    shared: bool = False

    @property
    def title(self) -> str:
        """Title of the kind, as in the papers."""
        return registry.title(self.kind)

    @property
    def branches(self) -> tuple[str, ...]:
        """Platforms i whose features z_i a branch N_iT reads; empty for all but an MSP."""
        if self.kind != MULTI_STAGE:
            return ()
        return tuple(platform for platform, _ in self.networks if platform != self.target)

    def weights(self, alpha: float) -> dict[str, float]:
        """Return the weight in equation (1) of each term, by platform; see `equation.weights`."""
        return weights(self.target, self.branches, alpha)


def outline_of(model: Model, target: str) -> Outline:
    """Return the outline of a model's network of one target.

    Raises
    ------
    KeyError
        If the model does not predict the target.
    """
    architecture = model.card.architectures[target]
    shared = model.card.first_stages == "shared"
    return Outline(model.kind, model.card.input, target, _networks(architecture), shared)


def _networks(architecture: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    kind = architecture["kind"]
    if kind == MULTI_STAGE:
        singles = architecture["singles"]
        return tuple((each["target"], registry.title(each["kind"])) for each in singles)
    # CPM and HNED predict every platform of `scales`, the target last.
    return tuple((platform, registry.title(kind)) for platform, _ in architecture["scales"])


# --- What a drawing is made of ---------------------------------------------------------------


@dataclass(frozen=True)
class Symbol:
    """A letter with a superscript, a subscript, and an argument in parentheses."""

    base: str
    above: str = ""
    below: str = ""
    argument: Symbol | None = None

    @property
    def html(self) -> str:
        """The symbol as rich text; letters in italics, numbers upright."""
        argument = "" if self.argument is None else f"({self.argument.html})"
        above = f"<sup>{self.above}</sup>" if self.above else ""
        below = "".join(f"<i>{each}</i>" if each.isalpha() else each for each in self.below)
        below = f"<sub>{below}</sub>" if below else ""
        return f"<i>{self.base}</i>{above}{below}{argument}"


@dataclass(frozen=True)
class Node:
    """A box of the diagram: a value, a network, a text or the mean.

    Attributes
    ----------
    name
        Name of the node within its drawing.
    column
        Column, counted from the left; arrows run to the right.
    lane
        Lane in which it lies; None: beside all of them.
    shape
        Kind of node: a value that is passed on, a network, a mere text, or the mean weighted by α.
    symbol, caption
        Symbol and text in the node.
    term
        Term of the glossary.
    description
        Description in words.
    level
        Height within the lane.
    part
        Part that a click asks for; "" where there is nothing to be shown.
    """

    name: str
    column: int
    lane: int | None
    shape: Literal["value", "network", "text", "mean"]
    symbol: Symbol | None
    term: str
    description: str
    caption: str = ""
    level: Literal["middle", "upper", "lower"] = "middle"
    part: str = ""


@dataclass(frozen=True)
class Edge:
    """An arrow of the diagram, from one box to another.

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
class ModelDrawing:
    """The drawing of one model.

    Attributes
    ----------
    outline
        Outline of the model.
    nodes
        Nodes by name.
    edges
        Arrows between the nodes.
    """

    outline: Outline
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]

    @property
    def lanes(self) -> tuple[str, ...]:
        """Platforms that lanes are marked with, from the top; empty where lanes are not marked."""
        marked = self.outline.kind == MULTI_STAGE
        return tuple(platform for platform, _ in self.outline.networks) if marked else ()

    @property
    def note(self) -> str:
        """Note on the networks, which then are framed; "" for none."""
        return SHARED_NOTE if self.outline.shared else ""

    @property
    def parts(self) -> dict[str, Node]:
        """Nodes whose output can be shown, by the part that a click on them asks for."""
        return {node.part: node for node in self.nodes.values() if node.part}

    def way_to(self, name: str) -> set[Edge]:
        """Return every arrow that leads to a node, directly or through others."""
        direct = {edge for edge in self.edges if edge.end == name}
        return direct.union(*(self.way_to(edge.start) for edge in direct))


# --- How each kind of model is drawn ---------------------------------------------------------

Sketch = tuple[list[Node], list[Edge]]


def draw(outline: Outline) -> ModelDrawing:
    """Return the drawing of a model; one of an unknown kind is drawn as a single network."""
    nodes, edges = _SKETCHES.get(outline.kind, _single)(outline)
    description = f"Input: the scan on {outline.input}"
    x = Node("x", 0, None, "value", Symbol("x"), "input", description, outline.input, part=INPUT)
    return ModelDrawing(outline, {node.name: node for node in (x, *nodes)}, tuple(edges))


def _multi_stage(outline: Outline) -> Sketch:
    nodes: list[Node] = []
    edges: list[Edge] = []
    for lane, (platform, title) in enumerate(outline.networks):
        own = platform == outline.target
        index = "T" if own else str(lane + 1)
        network = _network(platform, title, lane, index)
        added, ways = _first_stage(network) if own else _branch(network, index, platform, outline)
        nodes += [network, *added]
        edges += [Edge("x", network.name), *ways]
        edges.append(Edge(added[-1].name, "mean", weight_of=platform))
    mean = Node("mean", 4, None, "mean", Symbol("α"), "α", "Mean weighted by α")
    description = f"Second stage: {outline.target} predicted by the whole model"
    symbol, term = Symbol("ŷ", "2", "T"), "second stage"
    prediction = Node("prediction", 5, None, "value", symbol, term, description, part=SECOND)
    return [*nodes, mean, prediction], [*edges, Edge("mean", "prediction")]


def _network(platform: str, title: str, lane: int, index: str) -> Node:
    description = f"Single network of {platform}: {title}"
    symbol = Symbol("N", below=index)
    return Node(f"N {platform}", 1, lane, "network", symbol, "single network", description, title)


def _first_stage(network: Node) -> Sketch:
    description = "First stage: the target predicted by its own network alone"
    symbol = Symbol("ŷ", "1", "T")
    first = Node("ŷ", 3, network.lane, "value", symbol, "first stage", description, part=FIRST)
    return [first], [Edge(network.name, first.name)]


def _branch(network: Node, index: str, platform: str, outline: Outline) -> Sketch:
    lane, z = network.lane, Symbol("z", below=index)
    symbol, term = Symbol("ŷ", "1", index), "single network"
    description = f"First stage of {platform}"
    output = Node(f"ŷ {platform}", 2, lane, "text", symbol, term, description, level="upper")
    description = f"Features of the network of {platform}"
    features = Node(f"z {platform}", 2, lane, "text", z, "features", description, level="lower")
    symbol, part = Symbol("N", below=f"{index}T", argument=z), branch_part(platform)
    description = f"Branch: {outline.target} predicted from the features of {platform}"
    name = f"branch {platform}"
    branch = Node(name, 3, lane, "value", symbol, "branch", description, level="lower", part=part)
    edges = [Edge(network.name, each.name) for each in (output, features)]
    return [output, features, branch], [*edges, Edge(features.name, branch.name)]


def _prediction(column: int, lane: int | None, platform: str, term: str) -> Node:
    symbol, words = Symbol("ŷ", below="T"), f"Prediction: {platform}"
    return Node("prediction", column, lane, "value", symbol, term, words, platform, part=SECOND)


def _single(outline: Outline) -> Sketch:
    platform, title = outline.networks[-1]
    network = _network(platform, title, 0, "T")
    prediction = _prediction(2, 0, platform, "target")
    return [network, prediction], [Edge("x", network.name), Edge(network.name, "prediction")]


def _stages(outline: Outline) -> Sketch:
    """CPM: every stage reads the image features and the prediction of the stage before."""
    term, last = "CPM stage", len(outline.networks) - 1
    description = "Features of the image, read by every stage"
    nodes = [Node("image", 1, None, "network", None, term, description, "features")]
    edges = [Edge("x", "image")]
    for lane, (platform, _) in enumerate(outline.networks):
        name, description = f"stage {lane + 1}", f"Stage {lane + 1}: predicts {platform}"
        nodes.append(Node(name, 2, lane, "network", None, term, description, name))
        if lane == last:
            output = _prediction(3, lane, platform, term)
        else:
            symbol = Symbol("ŷ", below=str(lane + 1))
            description = f"Prediction: {platform}"
            output = Node(f"ŷ {platform}", 3, lane, "text", symbol, term, description, platform)
            edges.append(Edge(output.name, f"stage {lane + 2}", down=True))
        nodes.append(output)
        edges += [Edge("image", name), Edge(name, output.name)]
    return nodes, edges


def _side_outputs(outline: Outline) -> Sketch:
    """HNED: blocks one after the other, a side output of each, all fused."""
    term = "side output"
    nodes, edges = [], [Edge("x", "block 1")]
    for lane, (platform, _) in enumerate(outline.networks):
        name, side = f"block {lane + 1}", f"side {lane + 1}"
        description = f"Block {lane + 1} of the stream"
        nodes.append(Node(name, 1, lane, "network", None, term, description, name))
        symbol, description = Symbol("ŷ", below=str(lane + 1)), f"Side output: predicts {platform}"
        nodes.append(Node(side, 2, lane, "text", symbol, term, description, platform))
        edges += [Edge(name, side), Edge(side, "fusion")]
        if lane:
            edges.append(Edge(f"block {lane}", name, down=True))
    description = "Fusion of all side outputs by a 1×1×1 convolution"
    nodes.append(Node("fusion", 3, None, "network", None, term, description, "fusion"))
    nodes.append(_prediction(4, None, outline.target, term))
    return nodes, [*edges, Edge("fusion", "prediction")]


_SKETCHES = {MULTI_STAGE: _multi_stage, "cpm": _stages, "hned": _side_outputs}


# --- Equation (1) written out ----------------------------------------------------------------


def equation(outline: Outline, alpha: float) -> str:
    """Return ŷ²_T as the sum of its weighted terms, as rich text.

    ŷ²_T = 0.67 ŷ¹_T + 0.17 N_1T(z_1) + 0.17 N_2T(z_2) for P = 4 and α = 0.5.
    """
    parts, weights = draw(outline).parts, outline.weights(alpha)

    def symbol(part: str) -> str:
        written = parts[part].symbol
        assert written is not None
        return written.html

    named = {outline.target: FIRST} | {each: branch_part(each) for each in outline.branches}
    terms = [f"{weights[platform]:.2f}&nbsp;{symbol(part)}" for platform, part in named.items()]
    return f"{symbol(SECOND)} = " + " + ".join(terms)


def general_equation() -> str:
    """Return equation (1) as in the paper, as rich text."""
    first, second = Symbol("ŷ", "1", "T").html, Symbol("ŷ", "2", "T").html
    branch = Symbol("N", below="iT", argument=Symbol("z", below="i")).html
    return (
        f"{second} = (1−<i>α</i>)&nbsp;{first} + <i>α</i>/(<i>P</i>−1)&nbsp;·&nbsp;"
        f"({first} + Σ<sub><i>i</i>≠<i>T</i></sub>&nbsp;{branch})"
    )
