"""Coregistration: how far frames lie off the target, and their move onto it."""
