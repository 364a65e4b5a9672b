"""Sizes and costs of networks, computed without weights."""
