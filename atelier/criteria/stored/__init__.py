"""Rows of JSONL files that stay on the disk, by their number or by their image."""
