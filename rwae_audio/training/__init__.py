"""A run: the loop, its checkpoints, what it shows."""
