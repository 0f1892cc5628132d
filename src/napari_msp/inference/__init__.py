"""Whole-image prediction: exact tiling, cancelling, and the harmonize job."""
