"""The document of a study: numbers, tables and figures."""
