"""How good a prediction is: numbers, tests, tables, figures, baselines, and the benchmark.

No Qt; only the benchmark and calibration need torch.
"""
