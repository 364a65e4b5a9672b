"""Shared by the training stages: encoded data, prompts, trainer, curves."""
