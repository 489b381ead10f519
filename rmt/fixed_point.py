"""The resolvent scalars under their public name; they live in :mod:`rmt.resolvent`."""

from rmt.resolvent import Resolvent, gamma_of_theta, isotropic, spectral

__all__ = ["Resolvent", "gamma_of_theta", "isotropic", "spectral"]
