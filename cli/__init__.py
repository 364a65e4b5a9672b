"""The command line `atelier`: one module for each group of commands."""
