"""The web application of the user study."""
