"""What this package does beside what others do at the same task: `make bench`.

A subject (one file each) declares comparisons, see `comparing`; `timing` times both sides in one
run, in turn; `keeping` compares with what was kept and writes `RESULTS.md`.
"""
