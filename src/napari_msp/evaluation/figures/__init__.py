"""The figures of the paper, and of an evaluation."""
