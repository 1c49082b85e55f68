"""The models: each removes clouds in its own way, all keep the contract of ``base``."""
