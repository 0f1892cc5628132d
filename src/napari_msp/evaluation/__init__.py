"""How good a prediction is: numbers, tests, tables, figures, baselines, and the benchmark of Table 1.

No Qt; only the benchmark, calibration and who was learned from need torch.
"""
