"""What the training stages share: encoded data, prompts, trainer, curves."""
