"""Load acquisition: choose a scan from a file or a BIDS folder, and show it."""
