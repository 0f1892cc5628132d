"""The Train window: from a form over a run in a process of its own to a model."""
