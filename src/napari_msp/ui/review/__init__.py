"""Review: many predictions looked at one after the other, and rated by keys."""
