"""The simulated head of the demo and of the viewer's sample; known without loading torch."""

SEED = 2026
"""Of the head; the packaged models were trained on heads of other seeds."""

SUBJECT = "sub-01"
INPUT = "ge_st"
"""Platform whose scan is harmonized."""
