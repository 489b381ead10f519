"""Adapters confined to a subspace: a = Ub, with U random of rank r, or given (theory.md §5)."""

from __future__ import annotations

from functools import partial

import numpy as np

from rmt._checks import FloatArray, IntArray
from rmt.convex.fixed_point import check_convex, point_words, solve
from rmt.convex.mixture import flipped, plain_mixture
from rmt.linear.forms import assemble
from rmt.losses import SQUARE, Loss, Moments, find_loss
from rmt.resolvent import inverse_of, isotropic, spectral
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.score import Score
from rmt.scores.solved import FixedPoint, SolvedScore
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import Transfer, source_products
from rmt.settings.subspace import SubspaceTransfer


def subspace_score(setting: SubspaceTransfer, loss: Loss | str) -> Score:
    """The score of a confined adapter."""
    loss = find_loss(loss)
    if setting.basis is None:
        if loss is not SQUARE:
            raise ValueError(f"a random subspace is solved for loss='square' only, got {loss.name!r}; give basis")
        return _random_subspace(setting)
    return _FixedSubspace(setting).score(loss)


def _random_subspace(setting: SubspaceTransfer) -> QuadraticScore:
    """Random rank r, C = I: ridge within the subspace at η_r = r/n, f = r/p of every vector lies in it.

    s = [αg(1−f) + f(θαg + M)/λ]/(1 + fM/λ), and the part of the source outside the subspace passes unchanged.
    """
    base = setting.base
    assert isinstance(base, Transfer)
    shape = setting.shape
    rank, p, n, gamma = (np.asarray(x, dtype=float) for x in (setting.rank, base.p, base.n, base.gamma))
    share, r = rank / p, isotropic(rank / n, gamma)
    overlap, gram = source_products(base)
    shrink = r.theta / r.lam
    inside, outside = share[..., None] * overlap, (1.0 - share)[..., None] * overlap
    kept = (1.0 - share + share * shrink**2)[..., None, None]
    c, V = assemble(
        gain=share * base.m2 / r.lam,
        pull=outside + shrink[..., None] * inside,
        mean_form=share * base.m2 / r.lam**2,
        cross_form=(shrink / r.lam)[..., None] * inside,
        source_form=kept * gram,
        h=r.h,
        excess=r.excess,
        kappa=1.0 - 2.0 * np.asarray(base.label_noise, dtype=float),
    )
    size = c.shape[-1]
    return QuadraticScore(
        np.broadcast_to(c, (*shape, size)),
        np.broadcast_to(V, (*shape, size, size)),
        vector_alpha=base.source_count is not None,
    )


class _FixedSubspace:
    """A given subspace, in the eigenbasis of UᵀCU: eigenvalues d, UᵀM m and k = UᵀCw̃ there."""

    def __init__(self, setting: SubspaceTransfer) -> None:
        base = setting.base
        assert isinstance(base, GaussianTransfer)
        self.base = base
        values = np.asarray(base.spectrum.values, dtype=float)
        mean, weights, spread = base.in_eigenbasis
        basis = base.spectrum.rotate(np.asarray(setting.basis, dtype=float).T)  # (r, p), in C's eigenbasis
        compressed = (basis * values) @ basis.T
        self.values, vectors = np.linalg.eigh(0.5 * (compressed + compressed.T))
        self.values = np.maximum(self.values, 0.0)
        basis = vectors.T @ basis
        self.mean = basis @ mean  # (r,)
        self.cross = (weights * values) @ basis.T  # (K, r) k
        self.pairs = self.cross[:, None] * self.cross[None]  # (K, K, r)
        self.overlap = weights @ mean  # (K,)
        self.own = (weights * values) @ weights.T  # (K, K) w̃ᵀCw̃
        # The sources' own noise, diagonal in the average: Ω enters k kᵀ and w̃ᵀCw̃.
        seen = base.spectrum.restore(basis * values)  # (r, p) UᵀC in plain coordinates
        for k, source in enumerate(base.sources):
            if isinstance(source, RidgeSource):
                self.pairs[k, k] += source.spectrum.rotate(seen) ** 2 @ source.law[1]
                self.own[k, k] += spread[k] @ values

    def score(self, loss: Loss) -> Score:
        """Closed form for the square loss, fixed point for the others."""
        if loss is SQUARE:
            return self._square()
        check_convex(self.base, loss)
        with np.errstate(divide="ignore"):
            unit = 1.0 / np.sqrt(self.own[0, 0])
        return SolvedScore(
            partial(self._solve, loss=loss),
            shape=self.base.shape,
            unit=unit,
            describe=partial(point_words, self.base),
        )

    def _square(self) -> QuadraticScore:
        """Square loss: b = H(e·UᵀM − αk) + noise with H = (θ + d)⁻¹."""
        base, d = self.base, self.values
        count, shape = len(self.overlap), base.shape
        n, gamma = (np.broadcast_to(np.asarray(x, dtype=float), shape) for x in (base.n, base.gamma))
        r = spectral(d, n, gamma)
        inverse = inverse_of(d, r.theta, "gamma")  # (…, r)
        squared = inverse**2
        flat = self.pairs.reshape(count * count, -1)
        source_form = self.own.ravel() - (2.0 * inverse - d * squared) @ flat.T
        c, V = assemble(
            gain=inverse @ self.mean**2,
            pull=self.overlap - inverse @ (self.mean * self.cross).T,
            mean_form=squared @ (d * self.mean**2),
            cross_form=(r.theta[..., None] * squared) @ (self.mean * self.cross).T,
            source_form=source_form.reshape(*shape, count, count),
            h=r.h,
            excess=r.excess,
            kappa=1.0 - 2.0 * np.broadcast_to(np.asarray(base.label_noise, dtype=float), shape),
        )
        return QuadraticScore(c, V, vector_alpha=base.source_count is not None)

    def _solve(self, alpha: FloatArray, loss: Loss) -> FixedPoint:
        """Any loss, one source: (γ + τd)b = e·UᵀM − ατk + √v d^{1/2}z/√n, w = αw̃ + Ub."""
        base, d, shape = self.base, self.values, alpha.shape
        gamma, share, noise = (
            np.broadcast_to(np.asarray(x, dtype=float), shape).ravel()
            for x in (base.gamma, 1.0 / np.asarray(base.n, dtype=float), base.label_noise)
        )
        scale, pairs = alpha.ravel(), self.pairs[0, 0]
        mean2, cross = self.mean**2, self.mean * self.cross[0]

        def respond(at: IntArray, averages: Moments) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
            e, v, tau = averages
            a = scale[at]
            inverse = 1.0 / (gamma[at, None] + tau[:, None] * d)  # D
            squared = inverse**2 * d
            gain = inverse @ mean2
            s = a * self.overlap[0] + e * gain - a * tau * (inverse @ cross)
            s2 = e**2 * (squared @ mean2) + 2.0 * a * e * (inverse @ cross - tau * (squared @ cross))
            s2 += a**2 * (self.own[0, 0] - 2.0 * tau * (inverse @ pairs) + tau**2 * (squared @ pairs))
            return share[at] * (inverse @ d), s, s2 + v * share[at] * (squared @ d), gain

        return solve(respond, loss, alpha.size, flipped(plain_mixture(), noise)).reshape(shape)
