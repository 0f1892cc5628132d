"""Load acquisition's parts: from a path to a record."""
