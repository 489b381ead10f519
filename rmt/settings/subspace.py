"""A setting whose adapter is confined to a subspace (theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmt import _checks
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Comparable, Numbers, Transfer


@dataclass(frozen=True, kw_only=True, eq=False)
class SubspaceTransfer(Comparable):
    """``base`` with an adapter that moves only within a subspace independent of the target samples.

    Args:
        base: a :class:`rmt.Transfer` for ``rank``, a :class:`rmt.GaussianTransfer` for ``basis``.
        rank: r, dimension(s) of a uniformly random subspace (broadcasts; square loss only).
        basis: (p, r) orthonormal columns U of a given subspace (any loss).

    Raises:
        ValueError: the wrong kind of base, r > p, or columns that are not orthonormal.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> small = rmt.SubspaceTransfer(base=setting, rank=100)
    >>> round(float(rmt.theory(small).accuracy(1.0)), 4)
    0.8547
    """

    base: Transfer | GaussianTransfer
    rank: Numbers = None
    basis: Numbers = None

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.basis is None):
            raise ValueError("give rank (random subspace) or basis (given subspace), exactly one of the two")
        if self.rank is not None:
            if not isinstance(self.base, Transfer):
                raise ValueError("rank needs base=Transfer(…): a random subspace is solved for isotropic noise only")
            rank = _checks.count("rank", self.rank)
            shape = _checks.broadcast(rank=rank, base=np.empty(self.base.shape))
            if (rank > np.asarray(self.base.p)).any():
                raise ValueError(f"rank must not exceed p, got {_checks.shown(self.rank)}")
            peak = (np.asarray(self.base.gamma) == 0) & (rank == np.asarray(self.base.n))
            if peak.any():
                raise ValueError("gamma = 0 with rank = n has infinite variance; give gamma > 0, however small")
        else:
            if not isinstance(self.base, GaussianTransfer):
                raise ValueError("basis needs base=GaussianTransfer(…), whose means are vectors")
            basis = _checks.finite("basis", self.basis)
            if basis.ndim != 2 or basis.shape[0] != self.base.p or not 0 < basis.shape[1] <= self.base.p:
                raise ValueError(f"basis must have shape (p, r) = ({self.base.p}, ≤ p), got {basis.shape}")
            if not np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-8):
                raise ValueError("basis must have orthonormal columns; take them from numpy.linalg.qr(basis)")
            shape = self.base.shape
        object.__setattr__(self, "_shape", shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of base and rank."""
        return self._shape
