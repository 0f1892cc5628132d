"""Checks of a travelling-heads dataset, all reported at once.

`dataset` goes through the scans and `scan` through one of them; `gradients` checks tables,
`comparisons` compares scans. `summary` holds findings and what is kept of a scan, `table` tabulates
the measurements.
"""
