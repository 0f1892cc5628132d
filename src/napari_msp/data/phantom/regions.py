"""Where a bundle or a lesion lies, on any lattice: regions to measure in."""

from dataclasses import replace

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, resample
from napari_msp.data.phantom.bundles import BUNDLES
from napari_msp.data.phantom.changes import Lesion, bundle_named
from napari_msp.data.phantom.head import make_head
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.sampling import grid_of
from napari_msp.data.phantom.sizes import lattice_for
from napari_msp.data.phantom.subjects import Subject, aligned


def bundle_share(name: str, subject: Subject, lattice: Lattice, size: str = "small") -> FloatArray:
    """Give the share of the tissue that belongs to a bundle, in an aligned head.

    Its core, which is made of little else, is where the share is high. The finest platform's own
    voxels are looked at, and interpolated linearly to `lattice`.

    Parameters
    ----------
    name
        One of `BUNDLES`.
    subject
        Whose head, see `Scan.subject`.
    lattice
        Of any scan or prediction, in any stored order.
    size
        Of the simulated block; beyond it the share is 0.

    Returns
    -------
    (X, Y, Z) float32 in [0, 1].

    Raises
    ------
    UserError
        When there is no such bundle or size.
    """
    wanted = bundle_named(name)
    fine = lattice_for(size, platform_named("connectom_sa"))
    # Which populations are the bundle's is told by their coherence: 1 for its own, else 0.
    marked = tuple(replace(b, coherence=float(b is wanted)) for b in BUNDLES)
    head = make_head(subject, aligned(), grid_of(fine), marked)
    share = np.zeros(len(head.inside), np.float32)
    for fibres in head.fibres[:-1]:  # the last one is of no bundle
        share[fibres.index] += fibres.weight * fibres.coherence
    return resample(head.volume(share * head.white), fine, lattice)


def lesion_mask(lesion: Lesion, subject: Subject, lattice: Lattice) -> MaskArray:
    """Tell where half of the tissue's diseased share, or more, is reached.

    Parameters
    ----------
    lesion
        For the region that mirrors it, give `lesion.mirrored`.
    subject
        Whose head, see `Scan.subject`.
    lattice
        Of any scan or prediction, in any stored order.

    Returns
    -------
    (X, Y, Z).
    """
    voxels = np.indices(lattice.shape, dtype=float).reshape(3, -1)
    points = lattice.affine[:3, :3] @ voxels + lattice.affine[:3, 3:]
    share = lesion.share_at(subject.to_template(points))
    return np.asarray(share >= lesion.share / 2).reshape(lattice.shape)
