"""Prediction of whole images: exact tiling, cancelling, and the harmonize job."""
