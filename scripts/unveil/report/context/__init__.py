"""What the sections of the page say, one module a section, as plain data."""
