"""Metrics, statistics and comparison of generated images."""
