"""Assembling scenes: which dates, which truth, which clouds."""
