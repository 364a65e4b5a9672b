"""Training: one loop for all objectives, data, checkpoints, exact resume."""
