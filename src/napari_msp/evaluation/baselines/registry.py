"""Which baselines there are, by name.

Another package adds one by an entry point whose name is the baseline's::

    [project.entry-points."napari_msp.baselines"]
    ComBat = "my_package:ComBat"

Its class is a `Baseline` of that name.
"""

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.baselines.base import Baseline

GROUP = "napari_msp.baselines"
"""Entry points of other packages' baselines."""

_HERE = "napari_msp.evaluation.baselines"

OWN = {
    "no harmonization": f"{_HERE}.base:Interpolation",
    "alignment": f"{_HERE}.alignment:StatisticalAlignment",
    "alignment by region": f"{_HERE}.alignment:RegionalAlignment",
    "alignment by voxel": f"{_HERE}.alignment:VoxelAlignment",
    "linear RISH": f"{_HERE}.linear_rish:LinearRISH",
    "IQT": f"{_HERE}.patch_regression:PatchRegression",
}
"""This package's own, in the order of a table. They are listed here, not as entry points, because
a checkout that is imported without being installed has none, or those of another version."""


def baseline_names() -> tuple[str, ...]:
    """Give the names of all baselines: ours first, then other packages'."""
    return tuple(_baselines())


def baseline_class(name: str) -> type[Baseline]:
    """Give the class of a baseline.

    Raises
    ------
    UserError
        When there is none of that name, or the package that it comes from is broken.
    """
    found = _baselines().get(name)
    if found is None:
        raise UserError(
            "there is no such method", name, "methods", Choose("methods", baseline_names())
        )
    remedy = Advice("update or remove the package that it comes from")
    try:
        baseline = found.load()
    except Exception as error:  # another package's code runs here
        raise UserError(
            f"cannot be loaded ({type(error).__name__}: {error})", found.value, remedy=remedy
        ) from error
    if not (
        isinstance(baseline, type) and issubclass(baseline, Baseline) and baseline.name == name
    ):
        raise UserError(f"is no Baseline called {name!r}", found.value, remedy=remedy)
    return baseline


def _baselines() -> dict[str, EntryPoint]:
    """Give all baselines by name; none takes the place of one of ours."""
    return _listed(tuple(sys.path))


@cache
def _listed(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """List baselines anew only when packages are looked for elsewhere: it takes a while."""
    own = [EntryPoint(name, value, GROUP) for name, value in OWN.items()]
    others = sorted(entry_points(group=GROUP), key=lambda each: each.name.lower())
    listed: dict[str, EntryPoint] = {}
    for each in (*own, *others):
        listed.setdefault(each.name, each)
    return listed
