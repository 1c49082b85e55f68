"""Deliveries: what somebody else's system is handed, and whether what it delivers fits."""
