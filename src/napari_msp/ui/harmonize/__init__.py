"""Harmonize: predict, from a scan that is loaded, what other platforms would have given."""
