"""Simulated travelling heads: one head, four scanners, a known truth.

Real anatomy (the ICBM 152 template), named bundles that fan, bend and cross, a compartment signal
model, subjects that differ in shape and tissue, and platforms that differ as scanners do.
"""

from napari_msp.data.phantom.platforms import PLATFORMS, Platform, platform_named
from napari_msp.data.phantom.scan import Scan, simulate_scan, simulate_subject
from napari_msp.data.phantom.simulate import simulate, write_scan

__all__ = [
    "PLATFORMS",
    "Platform",
    "Scan",
    "platform_named",
    "simulate",
    "simulate_scan",
    "simulate_subject",
    "write_scan",
]
