"""Metrics that score one image at a time with a published network."""
