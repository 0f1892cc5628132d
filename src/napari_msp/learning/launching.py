"""What a launcher tells a process of those that it started together; known without torch."""

import os

LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Variables of the environment: which process, of how many, and where they meet."""


def is_launched() -> bool:
    """Tell whether a launcher started this process as one of several."""
    return os.environ.keys() >= LAUNCHED and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Tell whether it is the first of them, or was started by itself."""
    return not is_launched() or os.environ["RANK"] == "0"
