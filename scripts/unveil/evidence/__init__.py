"""Evidence: what all methods reach on public places, and which of these they knew."""
