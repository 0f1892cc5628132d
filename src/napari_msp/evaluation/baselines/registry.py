"""Which baselines there are, by name.

Another package adds one by an entry point whose name is the baseline's::

    [project.entry-points."napari_msp.baselines"]
    ComBat = "my_package:ComBat"

Its class is a `Baseline` of that name.
"""

from napari_msp.errors import Choose, UserError
from napari_msp.evaluation.baselines.base import Baseline
from napari_msp.plugins import UPDATE, listed, loaded

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
"""This package's own, in the order of a table."""


def baseline_names() -> tuple[str, ...]:
    """Give the names of all baselines: ours first, then other packages'."""
    return tuple(listed(GROUP, OWN))


def baseline_class(name: str) -> type[Baseline]:
    """Give the class of a baseline.

    Raises
    ------
    UserError
        When there is none of that name, or the package that it comes from is broken.
    """
    found = listed(GROUP, OWN).get(name)
    if found is None:
        raise UserError(
            "there is no such method", name, "methods", Choose("methods", baseline_names())
        )
    baseline = loaded(found, Baseline)  # type: ignore[type-abstract]
    if baseline.name != name:
        raise UserError(f"is called {baseline.name!r}, not {name!r}", found.value, remedy=UPDATE)
    return baseline
