"""How the packaged base model was made: what it learns from, how, and how that was chosen."""
