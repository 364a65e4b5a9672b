"""Settings: one frozen model for each section of ``params/<profile>.yaml``."""
