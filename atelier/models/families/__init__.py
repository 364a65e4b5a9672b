"""Model families: one file each, which holds all that is specific to it."""
