"""Evaluation shared by stages and commands: candidates, generation, scoring, results."""
