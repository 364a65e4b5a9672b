"""Annotation as the stage and commands share it: agent, shards, cost estimate."""
