"""The first tiny head, on one platform."""

from typing import Any

from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import SimulatedScan, simulate_subject


def scan_on(platform: str, seed: int = 0, **how: Any) -> SimulatedScan:
    """Scan it; `how` is as for `simulate_subject`."""
    return next(simulate_subject(0, (platform_named(platform),), "tiny", seed, **how))
