"""Search spaces and the engines that propose subnets of them: numpy alone, no model and no data."""
