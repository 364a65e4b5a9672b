"""Measurements that a person starts; see docs/performance.md."""
