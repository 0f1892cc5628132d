"""What is drawn and written of a model; no Qt."""
