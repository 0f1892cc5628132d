"""Everything that is wrong with a travelling-heads dataset, said at once.

`dataset` goes through the scans and `scan` through one of them; `gradients` looks at tables,
`comparisons` at scans side by side. `summary` is what is found, and what is kept of a scan, `table`
sets side by side what was measured.
"""
