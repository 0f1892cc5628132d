"""Simulated travelling heads: one head, four scanners, a known truth.

Real anatomy (the ICBM 152 template), named bundles that fan, bend and cross, a compartment signal
model, subjects that differ in shape and tissue, and platforms that differ as scanners do.

The works that the modules cite stand in docs/references.bib.
"""

from napari_msp.data.phantom.changes import (
    Ageing,
    Atrophy,
    Change,
    Lesion,
    WeakerBundle,
    bundle_share,
    fibre_populations,
    lesion_mask,
)
from napari_msp.data.phantom.platforms import (
    INPUT_PLATFORM,
    PLATFORMS,
    Platform,
    lattice_for,
    platform_named,
)
from napari_msp.data.phantom.scan import SimulatedScan, simulate_subject
from napari_msp.data.phantom.simulate import (
    DEMO_SEED,
    DEMO_SUBJECT,
    Recipe,
    phantom_digest,
    recipe_of,
    simulate,
    write_scan,
)

__all__ = [
    "DEMO_SEED",
    "DEMO_SUBJECT",
    "INPUT_PLATFORM",
    "PLATFORMS",
    "Ageing",
    "Atrophy",
    "Change",
    "Lesion",
    "Platform",
    "Recipe",
    "SimulatedScan",
    "WeakerBundle",
    "bundle_share",
    "fibre_populations",
    "lattice_for",
    "lesion_mask",
    "phantom_digest",
    "platform_named",
    "recipe_of",
    "simulate",
    "simulate_subject",
    "write_scan",
]
