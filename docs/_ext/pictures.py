"""Pictures of the window in the reader's theme: NAME.png, or NAME-light.png beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes


def add_light_pictures(app: Any, doctree: nodes.document) -> None:
    """Put the light picture beside each dark one; the page shows the one of its own theme."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for picture in list(doctree.findall(nodes.image)):
        uri = Path(picture["uri"])
        light = uri.with_name(f"{uri.stem}-light{uri.suffix}")
        if (folder / light).is_file():
            other = picture.copy()
            other["uri"] = light.as_posix()
            picture["classes"].append("only-dark")
            other["classes"] = [*other["classes"], "only-light"]
            picture.parent.insert(picture.parent.index(picture) + 1, other)


def setup(app: Any) -> dict[str, Any]:
    """Register it, before Sphinx collects the pictures of a page."""
    app.connect("doctree-read", add_light_pictures, priority=400)
    return {"parallel_read_safe": True}
