"""Simulated travelling heads: one head, four scanners, a known truth.

Real anatomy (the ICBM 152 template), named bundles that fan, bend and cross, a compartment signal
model, subjects that differ in shape and tissue, and platforms that differ as scanners do.

Sources that the modules cite by author and year:

- Bammer 2003, Magn Reson Med 50:560 (gradient non-linearity in diffusion MRI)
- Blumberg 2019, MICCAI, arXiv 1907.11629 (the method and its platforms)
- Catani & Thiebaut de Schotten 2012, Atlas of Human Brain Connections
- Dhital 2019, NeuroImage 189:543 (intra-axonal diffusivity)
- Fonov 2011, NeuroImage 54:313 (the ICBM 152 2009 templates)
- Jones 1999, Magn Reson Med 42:515 (gradient directions by repulsion)
- Lu 2005, J Magn Reson Imaging 22:13 (T1 at 3 T)
- MacKay 1994, Magn Reson Med 31:673 (T2 components)
- McNab 2013, NeuroImage 69:87 (radial diffusion in cortex)
- Mezer 2013, Nat Med 19:1667 (proton density)
- Oishi 2011, MRI Atlas of Human White Matter
- Pierpaoli 1996, Radiology 201:637 (diffusivities of brain tissue)
- Setsompop 2013, NeuroImage 80:220 (the 300 mT/m scanner)
- Stanisz 2005, Magn Reson Med 54:507 (T1 and T2 at 3 T)
- Szafer 1995, Magn Reson Med 33:697 (tortuosity)
- Tax 2019, NeuroImage 195:285 (the travelling-heads benchmark and its protocols)
- Veraart 2018, NeuroImage 182:360 (T2 inside and outside axons)
- Wansapura 1999, J Magn Reson Imaging 9:531 (T2 at 3 T)
- Zhang 2012, NeuroImage 61:1000 (NODDI)
"""

from napari_msp.data.phantom.changes import (
    Change,
    Lesion,
    WeakerBundle,
    bundle_share,
    lesion_mask,
)
from napari_msp.data.phantom.grids import SIZES, lattice_for
from napari_msp.data.phantom.platforms import (
    INPUT_PLATFORM,
    PLATFORMS,
    Platform,
    platform_named,
)
from napari_msp.data.phantom.scan import SimulatedScan, simulate_scan, simulate_subject
from napari_msp.data.phantom.simulate import (
    DEMO_SEED,
    DEMO_SUBJECT,
    phantom_digest,
    simulate,
    write_scan,
)

__all__ = [
    "DEMO_SEED",
    "DEMO_SUBJECT",
    "INPUT_PLATFORM",
    "PLATFORMS",
    "SIZES",
    "Change",
    "Lesion",
    "Platform",
    "SimulatedScan",
    "WeakerBundle",
    "bundle_share",
    "lattice_for",
    "lesion_mask",
    "phantom_digest",
    "platform_named",
    "simulate",
    "simulate_scan",
    "simulate_subject",
    "write_scan",
]
