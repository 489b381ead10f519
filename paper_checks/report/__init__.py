"""Stored results as the claims page, the README's table and notebook cells; computes no figures."""
