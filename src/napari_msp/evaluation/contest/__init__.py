"""Table 1 from nothing but a dataset: tune, train, predict and measure on equal terms."""
