"""Who judges: one file an annotator."""
