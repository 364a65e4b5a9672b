"""What the report stage writes: the page, its tables, the data sheet, user studies."""
