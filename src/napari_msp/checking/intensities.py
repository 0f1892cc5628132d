"""Signal that diffusion cannot give."""

from collections.abc import Iterator

import numpy as np

from napari_msp.checking.findings import Finding
from napari_msp.data.acquisition import Acquisition

MOST_ABOVE_B0 = 0.02
"""Share of in-mask samples with S > S0 that is put down to noise (our choice)."""

MOST_WITHOUT_SIGNAL = 0.001
"""Share of in-mask voxels that may lack a b=0 signal (our choice)."""


def check_intensities(where: str, acquisition: Acquisition) -> Iterator[Finding]:
    """Compare the weighted signal inside the mask with that of b=0."""
    mask, b0 = acquisition.mask, acquisition.b0
    without = float((b0[mask] <= 0).mean())
    if without > MOST_WITHOUT_SIGNAL:
        yield Finding(
            "warning",
            where,
            f"{100 * without:.1f} % of the mask has no b=0 signal; make the mask tighter",
            flag="no b=0 signal",
        )
    inside = mask & (b0 > 0)
    if not inside.any():
        return
    for shell in acquisition.gradients.shells:
        # One volume at a time: a copy of the whole shell may not fit.
        above = np.mean(
            [
                (acquisition.voxels[..., volume][inside] > b0[inside]).mean()
                for volume in shell.volumes
            ]
        )
        if above > MOST_ABOVE_B0:
            yield Finding(
                "warning",
                where,
                f"{100 * above:.0f} % of the in-mask signal at b = {shell.b_value:.0f} is above "
                "b=0, more than noise explains; check the order of the b-values and the mask",
                flag="above b=0",
            )
