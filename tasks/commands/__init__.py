"""Commands of ``atelier`` that are not stages."""
