"""Everything that is wrong with a travelling-heads dataset, said at once.

`dataset` goes through the scans and `scan` through one of them; `gradients` looks at tables,
`outliers` at all subjects. `summary` is what is kept of a scan for that, also of how it lies beside
the input's. `findings` is what was found, `table` sets side by side what was measured.
"""
