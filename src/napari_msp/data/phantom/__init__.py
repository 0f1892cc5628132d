"""Simulated travelling heads: one head, four scanners, a known truth.

Real anatomy (the ICBM 152 template), named bundles that fan, bend and cross, a compartment signal
model, subjects that differ in shape and tissue, and platforms that differ as scanners do.

The works that the modules cite are listed in docs/references.bib.
"""
