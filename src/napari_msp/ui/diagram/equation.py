"""Equation (1) of the MSP paper written out, with the numbers of one model and one α."""

from napari_msp.ui.diagram.drawing import Symbol
from napari_msp.ui.diagram.parts import ModelParts
from napari_msp.ui.diagram.sketch import FIRST, SECOND, branch_part, sketch


def equation(parts: ModelParts, alpha: float) -> str:
    """Write ŷ²_T as the sum of its weighted terms, as rich text.

    ŷ²_T = 0.67 ŷ¹_T + 0.17 N_1T(z_1) + 0.17 N_2T(z_2) for P = 4 and α = 0.5.
    """
    drawing, weights = sketch(parts), parts.weights(alpha)
    named = {parts.target: FIRST} | {each: branch_part(each) for each in parts.branches}
    terms = []
    for platform, part in named.items():
        node = drawing.showing(part)
        assert node is not None and node.symbol is not None
        terms.append(f"{weights[platform]:.2f}&nbsp;{_html(node.symbol)}")
    total = drawing.showing(SECOND)
    assert total is not None and total.symbol is not None
    return f"{_html(total.symbol)} = " + " + ".join(terms)


def general_equation() -> str:
    """Write equation (1) as the paper has it, as rich text."""
    first, second = Symbol("ŷ", "1", "T"), Symbol("ŷ", "2", "T")
    branch = Symbol("N", below="iT", argument=Symbol("z", below="i"))
    return (
        f"{_html(second)} = (1−<i>α</i>)&nbsp;{_html(first)} + "
        f"<i>α</i>/(<i>P</i>−1)&nbsp;·&nbsp;({_html(first)} + "
        f"Σ<sub><i>i</i>≠<i>T</i></sub>&nbsp;{_html(branch)})"
    )


def _html(symbol: Symbol) -> str:
    argument = "" if symbol.argument is None else f"({_html(symbol.argument)})"
    above = f"<sup>{symbol.above}</sup>" if symbol.above else ""
    below = f"<sub>{_italic(symbol.below)}</sub>" if symbol.below else ""
    return f"<i>{symbol.base}</i>{above}{below}{argument}"


def _italic(text: str) -> str:
    """Set letters in italics and leave numbers upright."""
    return "".join(f"<i>{each}</i>" if each.isalpha() else each for each in text)
