"""Readers of weight files; each gives named arrays and runs no code found in a file."""

from __future__ import annotations
