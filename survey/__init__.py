"""The user study: design, web application, analysis."""
