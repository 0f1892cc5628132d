"""Heads of one subject laid on each other.

`registration` measures how two scans of one head lie, `moving` writes a scan where it belongs,
`align` goes through a dataset, and `report` shows what was done.
"""
