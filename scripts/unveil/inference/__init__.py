"""Running models on scenes: tiles, devices, progress, records; no model is known by name."""
