"""What this package and others add to it by name: networks and baselines.

Another package adds one by an entry point. Ours are tables, not entry points, because a checkout
that is imported without being installed has no entry points, or those of another version.
"""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from napari_msp.errors import Advice, UserError

Plugin = TypeVar("Plugin")

UPDATE = Advice("update or remove the package that it comes from")
"""What helps where another package's class is not what it should be."""


def listed(group: str, own: Mapping[str, str]) -> dict[str, EntryPoint]:
    """List what there is by name: ours in our order, then others'. Loads none of them.

    Parameters
    ----------
    own
        "module:class" of ours by name; nothing takes their place.
    """
    others = _entry_points(group, tuple(sys.path))
    return {name: EntryPoint(name, value, group) for name, value in own.items()} | {
        each.name: each for each in others if each.name not in own
    }


def loaded(entry: EntryPoint, base: type[Plugin]) -> type[Plugin]:
    """Load a class that one of the packages has; it must be a kind of `base`."""
    try:
        found = entry.load()
    except Exception as error:  # another package's code runs here
        raise UserError(
            f"cannot be loaded ({type(error).__name__}: {error})", entry.value, remedy=UPDATE
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"is no {base.__name__}", entry.value, remedy=UPDATE)
    return found


@cache
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Look for entry points anew only when packages are looked for elsewhere: it takes a while."""
    return tuple(sorted(entry_points(group=group), key=lambda each: each.name.lower()))
