"""Shared by all stages: paths, progress, resume folders, hardware, launching."""
