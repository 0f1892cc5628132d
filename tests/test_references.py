"""One bibliography: what is cited is found in it, and what stands in it is cited."""

import re
from pathlib import Path

import napari_msp

REPOSITORY = Path(__file__).parents[1]
BIBLIOGRAPHY = REPOSITORY / "docs" / "references.bib"

CITATION = re.compile(r"\b([A-Z][A-Za-z]+(?: Karayumak)?) ((?:19|20)\d\d)\b")
"""Such as "Koppers 2018"."""

NO_WORKS = {
    "ICBM",
    "April",
    "May",
    "June",
    "July",
    "MICCAI",
    "CVPR",
    "ICCV",
    "NeurIPS",
    "Copyright",
}
"""Words that stand before a year and are no author."""


def keys() -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", BIBLIOGRAPHY.read_text(encoding="utf-8"), re.M)


def cited() -> set[str]:
    sources = sorted(Path(napari_msp.__file__).parent.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in sources]
    found = CITATION.findall(" ".join(" ".join(texts).replace("\n#", " ").split()))
    return {
        f"{author}{year}".lower().replace(" ", "")
        for author, year in found
        if author not in NO_WORKS
    }


def test_every_citation_is_found() -> None:
    assert cited() - set(keys()) == set()


def test_every_work_is_listed_once_and_cited() -> None:
    assert len(keys()) == len(set(keys())) > 20
    assert set(keys()) - cited() == set()


def test_no_other_form_of_citation() -> None:
    for path in Path(napari_msp.__file__).parent.rglob("*.py"):
        assert "et al." not in path.read_text(encoding="utf-8"), path
