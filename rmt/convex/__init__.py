"""Theory of any convex loss: a scalar fixed point, found by damped iteration."""
