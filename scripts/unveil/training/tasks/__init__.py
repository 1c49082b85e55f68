"""What is learned: a network, its samples, its loss and its score, one module per task."""
