"""Alignment of one subject's heads to each other.

`registration` measures how two scans of one head lie, `moving` writes a scan at its place, `align`
processes a dataset, and `report` shows the result.
"""
