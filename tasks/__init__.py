"""What each stage does to files."""
