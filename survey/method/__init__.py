"""Design and analysis of the user study, as pure functions."""
