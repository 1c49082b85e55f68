"""What the sections of the page say, one module per section, as plain data."""
