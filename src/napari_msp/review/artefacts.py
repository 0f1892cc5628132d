"""What may be wrong with a prediction, in a word each: the list of tags that raters choose from.

A folder's own list is `review/tags.json`, an object of names and what they mean, in order.
"""

from collections.abc import Mapping
from pathlib import Path

from napari_msp.errors import Advice, UserError
from napari_msp.files import read_json, write_json
from napari_msp.review.predictions import FOLDER

TAGS_FILE = "tags.json"

DEFAULT_TAGS: Mapping[str, str] = {
    "ringing": "Lines along sharp edges (Gibbs)",
    "motion": "The head moved: blurred or doubled edges, volumes that do not fit",
    "signal dropout": "Dark slices or regions where there is tissue",
    "ghost": "A shifted, weaker copy of the head",
    "mask": "Brain is cut off, or the mask takes in what is no brain",
    "misalignment": "Input, prediction or truth do not lie on each other",
    "hallucinated structure": "The prediction shows anatomy that the input has not",
    "blurred": "Fine structure of the input is lost",
    "intensity": "Too bright, too dark, or a jump in brightness",
    "other": "See the note",
}
"""Artefacts of diffusion MRI, and of what is made of it by networks (our choice)."""


def tags_path(folder: str | Path) -> Path:
    """Give where a folder of predictions keeps its own list."""
    return Path(folder) / FOLDER / TAGS_FILE


def read_tags(folder: str | Path) -> dict[str, str]:
    """Give the tags to choose from, and what each means: the folder's own, else `DEFAULT_TAGS`.

    Raises
    ------
    UserError
        When its list is none.
    """
    path = tags_path(folder)
    if not path.is_file():
        return dict(DEFAULT_TAGS)
    tags = {
        " ".join(name.split()): " ".join(said.split()) if isinstance(said, str) else ""
        for name, said in read_json(path, foreign=True).items()
    }
    tags.pop("", None)
    if not tags:
        remedy = Advice('write an object such as {"ringing": "lines along edges"}, or remove it')
        raise UserError("names no tag", path, remedy=remedy)
    return tags


def write_tags(folder: str | Path, tags: Mapping[str, str]) -> None:
    """Keep a list of tags with a folder, for all of its raters."""
    write_json(tags_path(folder), tags)
