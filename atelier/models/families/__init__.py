"""One file for each model family, with all its quirks inside."""
