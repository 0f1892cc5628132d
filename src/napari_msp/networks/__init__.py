"""The networks, one per file, and the registry that finds them by kind."""
