"""What the theory says of a network: the scales it suggests."""
