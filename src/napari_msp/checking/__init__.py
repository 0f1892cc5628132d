"""Everything that is wrong with a travelling-heads dataset, said at once.

`dataset` goes through the scans and `scan` through one of them; `gradients` looks at tables,
`alignment` at two scans of one subject, `outliers` at all subjects. `summary` is what is kept of a
scan for that. `report` lists what was found, `table` sets side by side what was measured.
"""
