"""Theory of the square loss: scores in closed form."""
