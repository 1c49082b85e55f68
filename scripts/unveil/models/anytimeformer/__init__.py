"""AnytimeFormer: its network, and what it is given of a scene."""
