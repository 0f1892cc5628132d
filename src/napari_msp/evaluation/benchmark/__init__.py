"""Table 1: methods trained on equal terms, measured on held-out heads and tested."""
