"""Quality of predictions: numbers, tests, tables, figures, baselines, and the benchmark.

`measures` is a pure library: images in, numbers out; its `catalogue` describes each number. No
Qt; only the benchmark and calibration need torch.
"""
