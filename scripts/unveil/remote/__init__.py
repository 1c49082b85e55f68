"""Files on servers: how they are asked for, kept, read in windows and signed."""
