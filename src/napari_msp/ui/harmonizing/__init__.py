"""Harmonize's parts: from what the form says to layers and files."""
