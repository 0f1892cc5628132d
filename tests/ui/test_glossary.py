"""Every word that is explained on the screen is in the glossary."""

import ast
from pathlib import Path

import pytest

import napari_msp
from napari_msp.signal.maps import MAPS
from napari_msp.ui.glossary import TERMS, tooltip

UI = Path(napari_msp.__file__).parent / "ui"


def asked_for(path):
    """Terms that a file asks the glossary for by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tooltip":
            yield from (each.value for each in node.args if isinstance(each, ast.Constant))


def test_every_tooltip_has_its_term():
    terms = {term: path.name for path in UI.rglob("*.py") for term in asked_for(path)}
    terms |= {term: "MAPS" for each in MAPS.values() for term in (each.title, each.error_title)}
    assert len(terms) > 10
    assert {term: name for term, name in terms.items() if term not in TERMS} == {}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_one_or_two_sentences(term):
    words = TERMS[term]
    assert words[0].isupper() or words[0] in "ŷz"
    assert words.endswith(".")
    assert len(words) < 300


def test_tooltips_set_indices_and_wrap():
    assert "<sub><i>iT</i></sub>(z<sub><i>i</i></sub>)" in tooltip("branch")
    assert "ge_st" in tooltip("platform")
    assert tooltip("α").startswith("<p>")  # rich text, which Qt breaks into lines
    with pytest.raises(KeyError):
        tooltip("no such term")
