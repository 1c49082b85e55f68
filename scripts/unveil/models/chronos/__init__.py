"""Unveil's own time-series network: closed forms of the scene, the network, how it learns."""
