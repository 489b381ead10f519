"""What comes out: scores of the theory, and the estimates of a simulation under the same names."""
