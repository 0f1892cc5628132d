"""The networks, one a file, and the registry that knows them by kind."""
