"""Unveil."""
