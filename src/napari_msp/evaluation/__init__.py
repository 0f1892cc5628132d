"""How good a prediction is: numbers, tests, tables, pictures, baselines. Needs no torch, no Qt."""
