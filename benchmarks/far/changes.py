"""What may differ in one head: a bundle that is weaker, a lesion, a structure that is not there.

Each changes an anatomy after it was drawn, so that the head is the same in all else, its noise too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from far.anatomy import Anatomy

Change = Callable[[Anatomy, float], Anatomy]
"""Gives the changed anatomy; the number is the distance of its voxels in mm."""

WEAKER = 0.89
"""Share of the first bundle's fibres that keep a direction: about 5 % of its FA are lost."""

LESION, WATER = 5.0, 0.2
"""Radius of a lesion in mm, and the share of its white matter that is free water."""

DEEP = 6.0
"""Millimetres under the surface from which fluid is a structure inside the brain."""


def weaker_bundle(anatomy: Anatomy, spacing: float) -> Anatomy:
    """Take their direction from some of the fibres of the first bundle."""
    (weight, direction), *others = anatomy.bundles
    return replace(anatomy, bundles=((WEAKER * weight, direction), *others))


def lesion(anatomy: Anatomy, spacing: float) -> Anatomy:
    """Put free water into a ball of white matter, where there is most of it around."""
    depth = distance_transform_edt(anatomy.white > 0.9) * spacing
    centre = np.unravel_index(np.argmax(depth), depth.shape)
    away = np.linalg.norm(np.indices(depth.shape).T - np.array(centre), axis=-1).T * spacing
    share = WATER / (1 + np.exp((away - LESION) / 0.5))
    water = (share * anatomy.white).astype(np.float32)
    return replace(anatomy, white=anatomy.white - water, fluid=anatomy.fluid + water)


def no_inner_fluid(anatomy: Anatomy, spacing: float) -> Anatomy:
    """Let white matter be where fluid was inside the brain."""
    depth = distance_transform_edt(anatomy.brain > 0.5) * spacing
    inner = np.where(depth > DEEP, anatomy.fluid, 0).astype(np.float32)
    return replace(anatomy, white=anatomy.white + inner, fluid=anatomy.fluid - inner)


CHANGES: Mapping[str, Change] = {
    "weaker bundle": weaker_bundle,
    "lesion": lesion,
    "no inner fluid": no_inner_fluid,
}
"""Every change by name."""
