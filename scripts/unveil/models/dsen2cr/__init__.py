"""DSen2-CR: its network, the recipe of its data, its weights, and inference on OpenVINO."""
