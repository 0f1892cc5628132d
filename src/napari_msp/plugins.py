"""Networks and baselines, of this package and of others, by name.

Other packages add theirs by entry points. Ours are tables instead, because a checkout that is
imported without being installed has no entry points, or those of another version.
"""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from napari_msp.errors import Advice, UserError

Plugin = TypeVar("Plugin")

UPDATE = Advice("update or remove the package that it comes from")
"""Remedy if another package's class is not as it should be."""


def list_plugins(group: str, own: Mapping[str, str]) -> dict[str, EntryPoint]:
    """List the plugins by name: ours in our order, then others'. None is loaded.

    Parameters
    ----------
    own
        "module:class" of ours by name; others cannot replace them.
    """
    others = _entry_points(group, tuple(sys.path))
    return {name: EntryPoint(name, value, group) for name, value in own.items()} | {
        each.name: each for each in others if each.name not in own
    }


def load_plugin(entry: EntryPoint, base: type[Plugin]) -> type[Plugin]:
    """Load a plugin's class, which must be a subclass of `base`."""
    try:
        found = entry.load()
    except Exception as error:  # another package's code runs here
        raise UserError(
            f"cannot be loaded ({type(error).__name__}: {error})", entry.value, remedy=UPDATE
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"is not a {base.__name__}", entry.value, remedy=UPDATE)
    return found


@cache
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read entry points again only if the search path has changed, as it takes a while."""
    return tuple(sorted(entry_points(group=group), key=lambda each: each.name.lower()))
