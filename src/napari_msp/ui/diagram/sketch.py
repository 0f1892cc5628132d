"""How each kind of model is drawn; an MSP as in Fig. 1 of its paper."""

from napari_msp.ui.diagram.drawing import Drawing, Edge, Node, Symbol
from napari_msp.ui.diagram.parts import ModelParts

INPUT, FIRST, SECOND = "input", "first", "second"
"""Parts whose output can be shown: x, ŷ¹_T, and the prediction (of any kind of model)."""

Sketch = tuple[list[Node], list[Edge]]


def branch_part(platform: str) -> str:
    """Name the part N_iT(z_i) of platform i."""
    return f"branch:{platform}"


def sketch(parts: ModelParts) -> Drawing:
    """Draw a model."""
    draw = {"msp": _multi_stage, "cpm": _stages, "hned": _side_outputs}.get(parts.kind, _single)
    nodes, edges = draw(parts)
    says = f"Input: the scan on {parts.input}"
    x = Node("x", 0, None, "value", Symbol("x"), "input", says, parts.input, part=INPUT)
    lanes = tuple(platform for platform, _ in parts.networks) if parts.kind == "msp" else ()
    return Drawing(lanes, parts.target, {node.name: node for node in (x, *nodes)}, tuple(edges))


def _multi_stage(parts: ModelParts) -> Sketch:
    nodes: list[Node] = []
    edges: list[Edge] = []
    for lane, (platform, title) in enumerate(parts.networks):
        own = platform == parts.target
        index = "T" if own else str(lane + 1)
        network = _network(platform, title, lane, index)
        added, ways = _own_term(network) if own else _branch(network, index, platform, parts.target)
        nodes += [network, *added]
        edges += [Edge("x", network.name), *ways]
        edges.append(Edge(added[-1].name, "mean", weight_of=platform))
    mean = Node("mean", 4, None, "mean", Symbol("α"), "α", "Mean weighted by α")
    says = f"Second stage: {parts.target} predicted by the whole model"
    symbol, term = Symbol("ŷ", "2", "T"), "second stage"
    prediction = Node("prediction", 5, None, "value", symbol, term, says, part=SECOND)
    return [*nodes, mean, prediction], [*edges, Edge("mean", "prediction")]


def _network(platform: str, title: str, lane: int, index: str) -> Node:
    says = f"Single network of {platform}: {title}"
    symbol = Symbol("N", below=index)
    return Node(f"N {platform}", 1, lane, "network", symbol, "single network", says, title)


def _own_term(network: Node) -> Sketch:
    says = "First stage: the target predicted by its own network alone"
    symbol = Symbol("ŷ", "1", "T")
    first = Node("ŷ", 3, network.lane, "value", symbol, "first stage", says, part=FIRST)
    return [first], [Edge(network.name, first.name)]


def _branch(network: Node, index: str, platform: str, target: str) -> Sketch:
    output = Node(
        f"ŷ {platform}",
        2,
        network.lane,
        "text",
        Symbol("ŷ", "1", index),
        "single network",
        f"First stage of {platform}",
        level="upper",
    )
    z = Node(
        f"z {platform}",
        2,
        network.lane,
        "text",
        Symbol("z", below=index),
        "features",
        f"Features of the network of {platform}",
        level="lower",
    )
    branch = Node(
        f"branch {platform}",
        3,
        network.lane,
        "value",
        Symbol("N", below=f"{index}T", argument=z.symbol),
        "branch",
        f"Branch: {target} predicted from the features of {platform}",
        level="lower",
        part=branch_part(platform),
    )
    edges = [
        Edge(network.name, output.name),
        Edge(network.name, z.name),
        Edge(z.name, branch.name),
    ]
    return [output, z, branch], edges


def _prediction(column: int, lane: int | None, platform: str, term: str) -> Node:
    symbol, says = Symbol("ŷ", below="T"), f"Prediction: {platform}"
    return Node("prediction", column, lane, "value", symbol, term, says, platform, part=SECOND)


def _single(parts: ModelParts) -> Sketch:
    platform, title = parts.networks[-1]
    network = _network(platform, title, 0, "T")
    prediction = _prediction(2, 0, platform, "target")
    return [network, prediction], [Edge("x", network.name), Edge(network.name, "prediction")]


def _stages(parts: ModelParts) -> Sketch:
    """CPM: every stage reads the image features and the prediction of the stage before."""
    term, last = "CPM stage", len(parts.networks) - 1
    says = "Features of the image, read by every stage"
    nodes = [Node("image", 1, None, "network", None, term, says, "features")]
    edges = [Edge("x", "image")]
    for lane, (platform, _) in enumerate(parts.networks):
        name, says = f"stage {lane + 1}", f"Stage {lane + 1}: predicts {platform}"
        nodes.append(Node(name, 2, lane, "network", None, term, says, name))
        if lane == last:
            output = _prediction(3, lane, platform, term)
        else:
            symbol = Symbol("ŷ", below=str(lane + 1))
            says = f"Prediction: {platform}"
            output = Node(f"ŷ {platform}", 3, lane, "text", symbol, term, says, platform)
            edges.append(Edge(output.name, f"stage {lane + 2}", down=True))
        nodes.append(output)
        edges += [Edge("image", name), Edge(name, output.name)]
    return nodes, edges


def _side_outputs(parts: ModelParts) -> Sketch:
    """HNED: blocks one after the other, a side output of each, all fused."""
    term = "side output"
    nodes, edges = [], [Edge("x", "block 1")]
    for lane, (platform, _) in enumerate(parts.networks):
        name, side = f"block {lane + 1}", f"side {lane + 1}"
        says = f"Block {lane + 1} of the stream"
        nodes.append(Node(name, 1, lane, "network", None, term, says, name))
        symbol, says = Symbol("ŷ", below=str(lane + 1)), f"Side output: predicts {platform}"
        nodes.append(Node(side, 2, lane, "text", symbol, term, says, platform))
        edges += [Edge(name, side), Edge(side, "fusion")]
        if lane:
            edges.append(Edge(f"block {lane}", name, down=True))
    says = "Fusion of all side outputs by a 1×1×1 convolution"
    nodes.append(Node("fusion", 3, None, "network", None, term, says, "fusion"))
    nodes.append(_prediction(4, None, parts.target, term))
    return nodes, [*edges, Edge("fusion", "prediction")]
