"""Metrics: how far a prediction is from the truth, where, and with what certainty."""
