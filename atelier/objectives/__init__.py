"""Training objectives: the losses and the training step of each."""
