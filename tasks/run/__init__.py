"""What every stage shares: paths, progress, resume folders, the machine, launching."""
