"""Training: patches, schedules, the loop, its events and its checkpoints."""
