"""How good a prediction is: numbers, tests, tables, figures, baselines, and the benchmark.

`measures` is a pure library: images in, numbers out; its `catalogue` says what each number is. No
Qt; only the benchmark and calibration need torch.
"""
