"""Exact finite-size sampler for C = I: draws of (c, V) with the law of a full experiment, without its data.

Gaussian data are rotation invariant, so a draw of the n×p sample can be replaced by a banded matrix of chi and
normal variables with the same resolvent statistics (theory.md §8). The bandwidth is b = k + h, where k = K + 1
directions are special in ℝᵖ (the target mean and the K sources) and h in ℝⁿ (the all-ones vector and, with flipped
labels, the sign vector). The cost of a draw is O(b² min(n, p)) a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.isotropic import Transfer


def draw_block(setting: Transfer, draws: int, rng: Generator, gammas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Draw (c, V) of the fine-tuned classifier for every penalty in ``gammas``; every scale α is then free.

    Args:
        setting: one scalar isotropic setting (ridge source, one fixed source, or K of them).
        draws: number of independent draws D.
        rng: source of randomness.
        gammas: (G,) penalties, evaluated on the same draws.

    Returns:
        c (D, G, K+1) and V (D, G, K+1, K+1): the score mean is ``c @ q`` and its variance ``q @ V @ q`` with
        q = (1, α₁ … α_K).

    Raises:
        ValueError: an array setting, a size too small for the method (n ≥ b, N ≥ 2, p ≥ 3), or γ = 0 with n = p.
    """
    setting = single_setting(setting)
    n, p = int(setting.n), int(setting.p)
    special = 2 if setting.source_count is None else setting.source_count + 1
    flips = float(setting.label_noise)
    _check_sizes(n, p, special, 2 if flips else 1, gammas)
    sources = _source_coordinates(setting, rng, draws)  # (k, K, D)
    shift = _signal(rng, n, draws, flips, float(np.sqrt(setting.m2)))
    sample = _Sample.draw(rng, n, p, special, shift)
    solved = [sample.forms(float(value), sources) for value in gammas]
    c = np.stack([coordinates[0] for coordinates, _ in solved]) * np.sqrt(setting.m2)  # (G, K+1, D)
    V = np.stack([form for _, form in solved])
    return np.moveaxis(c, -1, 0), np.moveaxis(V, -1, 0)


def single_setting(setting: Transfer) -> Transfer:
    """``setting`` if it is one scalar isotropic setting, which is what a simulation takes."""
    if not isinstance(setting, Transfer):
        raise ValueError(
            f"this simulation takes an isotropic rmt.Transfer, got {type(setting).__name__}; "
            "rmt.simulate takes every setting, rmt.simulate_fits fits at given scales"
        )
    if setting.shape:
        raise ValueError(f"a simulation takes one setting, got arrays of shape {setting.shape}; use rmt.run_sweep")
    return setting


def check_draws(setting: Transfer, draws: int, penalties: int) -> None:
    """Raise ValueError if the results of so many draws do not fit into memory."""
    q = 1 + (setting.source_count or 1)
    _checks.fits_memory(f"draws={draws}", 2.0 * draws * penalties * (q + q * q), "give fewer draws")


def _check_sizes(n: int, p: int, special: int, heads: int, gammas: FloatArray) -> None:
    band = special + heads
    if n < band:
        raise ValueError(f"the exact sampler needs n ≥ {band} here, got {n}; use method='direct'")
    if p < special + 1:
        raise ValueError(f"the exact sampler needs p ≥ {special + 1} here, got {p}; use method='direct'")
    if (gammas == 0).any() and n == p:
        raise ValueError("gamma = 0 with p = n has infinite variance; give gamma > 0, however small")


def _signal(rng: Generator, n: int, draws: int, flips: float, norm: float) -> FloatArray:
    """(h, D) coordinates, in the head of ℝⁿ, of the signal that the target mean adds to the row along it.

    Without label noise it is ‖m‖√n along the all-ones direction. With flips the labels' agreement f ∈ {±1}ⁿ has
    ⟨f, 1⟩/√n along it and the rest along a second direction.
    """
    if not flips:
        return np.full((1, draws), norm * np.sqrt(n))
    along = (n - 2.0 * rng.binomial(n, flips, size=draws)) / np.sqrt(n)
    return norm * np.stack([along, np.sqrt(np.maximum(n - along**2, 0.0))])


def _source_coordinates(setting: Transfer, rng: Generator, draws: int) -> FloatArray:
    """(k, K, D): the sources in an orthonormal basis whose first vector is the direction of m."""
    m2 = float(setting.m2)
    if setting.source is None:
        return _ridge_source(setting, rng, draws, m2)
    coordinates = source_basis(setting)
    return np.broadcast_to(coordinates[..., None], (*coordinates.shape, draws))


def source_basis(setting: Transfer) -> FloatArray:
    """(K+1, K): fixed sources in an orthonormal basis whose first vector is the direction of m."""
    assert setting.source is not None
    m2 = float(setting.m2)
    overlap = np.atleast_1d(np.asarray(setting.source.overlap, dtype=float))
    gram = setting.source.norm2 if setting.source.gram is None else setting.source.gram
    along = overlap / np.sqrt(m2) if m2 > 0 else np.zeros_like(overlap)
    rest = np.reshape(np.asarray(gram, dtype=float), (len(overlap),) * 2) - np.outer(along, along)
    values, vectors = np.linalg.eigh(rest)  # a Cholesky that bears rank loss (a source along m)
    return np.vstack([along, (vectors * np.sqrt(np.maximum(values, 0.0))).T])


def _ridge_source(setting: Transfer, rng: Generator, draws: int, m2: float) -> FloatArray:
    """Coordinates of a ridge source fitted on N fresh samples: along m and orthogonal to it."""
    p, mu, beta = int(setting.p), float(setting.mu), float(setting.beta)
    gamma, flips = float(setting.gamma_source), float(setting.label_noise_source)
    if p < 3:
        raise ValueError(f"the exact sampler needs p ≥ 3 with a ridge source, got {p}; use method='direct'")
    if np.isinf(setting.N):
        along_mu = np.full(draws, (1.0 - 2.0 * flips) * mu / (mu**2 + 1.0 + gamma))
        rest = np.zeros(draws)
    else:
        N = int(setting.N)
        heads = 2 if flips else 1
        if heads + 1 > N:
            raise ValueError(f"the exact sampler needs N ≥ {heads + 1} here, got {N}; use method='direct'")
        sample = _Sample.draw(rng, N, p, 1, _signal(rng, N, draws, flips, mu))
        coordinates, form = sample.forms(gamma, np.zeros((1, 0, draws)))
        along_mu = coordinates[0, 0]
        rest = np.sqrt(np.maximum(form[0, 0] - along_mu**2, 0.0))
    # The remainder is uniformly distributed around μ: this is its component along μ_⊥.
    normal = rng.standard_normal(draws)
    turn = normal / np.sqrt(normal**2 + _chi(rng, p - 2, draws) ** 2)
    along_perp, rest2 = rest * turn, rest**2 * (1.0 - turn**2)
    m_mu = beta * mu
    m_perp = np.sqrt(max(m2 - m_mu**2, 0.0))
    norm = np.hypot(m_mu, m_perp)
    cos, sin = (m_mu / norm, m_perp / norm) if norm > 0 else (1.0, 0.0)
    along = cos * along_mu + sin * along_perp
    across = np.sqrt((sin * along_mu - cos * along_perp) ** 2 + rest2)
    return np.stack([along, across])[:, None]


def _chi(rng: Generator, freedom: int, draws: int) -> FloatArray:
    """(D,) chi variables; 0 degrees of freedom give 0."""
    return np.sqrt(2.0 * rng.standard_gamma(max(freedom, 0) / 2.0, draws))


@dataclass(frozen=True)
class _Sample:
    """D draws of a p×n sample in banded form. Draws are the last axis, so that every step runs over all of them."""

    n: int
    p: int
    rows: FloatArray  #: (k, b, D) special rows, of which row j has j + h + 1 entries
    band: FloatArray  #: (R, b+1, D) the other rows: ``band[i, o]`` is entry (i, i+o)

    @staticmethod
    def draw(rng: Generator, n: int, p: int, special: int, shift: FloatArray) -> _Sample:
        """Special rows (the first carries ``shift``) and the block Golub–Kahan form of the other p − k rows."""
        heads, draws = shift.shape
        b = special + heads
        rows = np.zeros((special, b, draws))
        for j in range(special):
            rows[j, : j + heads] = rng.standard_normal((j + heads, draws))
            rows[j, j + heads] = _chi(rng, n - heads - j, draws)
        rows[0, :heads] += shift
        count = min(p - special, n)
        band = np.empty((count, b + 1, draws))
        inside = max(min(count, n - b), 0)  # rows whose last entry lies within the n columns
        for i in range(count):  # one number of freedoms at a time, into its place: a quarter faster
            rng.standard_gamma((p - special - i) / 2.0, out=band[i, 0])
        for i in range(count):
            rng.standard_normal(out=band[i, 1:b])
        for i in range(inside):
            rng.standard_gamma((n - b - i) / 2.0, out=band[i, b])
        for chi in (band[:, 0], band[:inside, b]):
            chi *= 2.0
            np.sqrt(chi, out=chi)
        for offset in range(1, b + 1):
            band[max(n - offset, 0) :, offset] = 0.0
        return _Sample(n, p, rows, band)

    def forms(self, gamma: float, sources: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Special coordinates (k, K+1, D) and Gram matrix (K+1, K+1, D) of target-only ridge and γ(S+γ)⁻¹w̃ₖ.

        ``sources``: (k, K, D). The dual system (n ≤ p) has the size of the sample, the primal one (n > p) that
        of the dimension and stays stable down to γ = 0.
        """
        return self._dual(gamma, sources) if self.n <= self.p else self._primal(gamma, sources)

    def _dual(self, gamma: float, sources: FloatArray) -> tuple[FloatArray, FloatArray]:
        n, rows, band = self.n, self.rows, self.band
        count, width, draws = band.shape
        b = width - 1
        size = min(n, count + b)
        lower = np.empty((size, width, draws))
        for q in range(width):
            stop = min(count, size - q)
            lower[:q, q] = lower[q + stop :, q] = 0.0
            np.multiply(band[:stop, 0], band[:stop, q], out=lower[q : q + stop, q])
            for o in range(1, width - q):
                stop = min(count, size - o - q)
                lower[o + q : o + q + stop, q] += band[:stop, o] * band[:stop, o + q]
        head = np.einsum("jad,jcd->acd", rows, rows)
        for a in range(b):
            for q in range(a + 1):
                lower[a, q] += head[a, a - q]
        lower[:, 0] += n * gamma  # n(K + γ): the factor 1/n goes to the small results
        right = np.zeros((b, sources.shape[1] + 1, draws))
        right[0, 0] = np.sqrt(n)
        right[:, 1:] = -np.einsum("jad,jkd->akd", rows, sources)
        v, square = _solve(lower, right)
        v, square = n * v, n**2 * square
        energy = np.einsum("ajd,akd->jkd", right, v) - gamma * square
        added = np.einsum("jad,akd->jkd", rows, v) / n
        full = np.concatenate([np.zeros((rows.shape[0], 1, draws)), sources], axis=1)
        cross = np.einsum("sjd,skd->jkd", full, added)
        gram = np.einsum("sjd,skd->jkd", full, full) + cross + np.swapaxes(cross, 0, 1)
        return full + added, gram + (energy + np.swapaxes(energy, 0, 1)) / (2 * n)

    def _primal(self, gamma: float, sources: FloatArray) -> tuple[FloatArray, FloatArray]:
        n, rows, band = self.n, self.rows, self.band
        count, width, draws = band.shape
        b, k = width - 1, rows.shape[0]
        lower = np.empty((k + count, width, draws))
        for q in range(width):
            stop = max(count - q, 0)
            lower[: k + q, q] = 0.0
            np.multiply(band[:stop, q], band[q : q + stop, 0], out=lower[k + q :, q])
            for o in range(1, width - q):
                lower[k + q :, q] += band[:stop, o + q] * band[q : q + stop, o]
        for j in range(k):
            for i in range(j + 1):
                lower[j, j - i] += np.einsum("ad,ad->d", rows[j], rows[i])
            for i in range(min(count, b - k + j + 1)):  # row j and band row i share columns i … j + h
                lower[k + i, k + i - j] += np.einsum("ad,ad->d", rows[j, i:], band[i, : b - i])
        lower[:, 0] += n * gamma  # n(S + γ), and n times the right-hand sides
        right = np.zeros((min(b, k + count), sources.shape[1] + 1, draws))
        right[:k, 0] = rows[:, 0] * np.sqrt(n)
        right[k, 0] = band[0, 0] * np.sqrt(n)
        right[:k, 1:] = n * gamma * sources
        w, square = _solve(lower, right)
        return w[:k], square


def _solve(lower: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solve D banded positive definite systems Av = r whose right-hand sides live in the first rows.

    ``lower``: (T, b+1, D) with ``lower[t, q]`` = A[t, t−q] (overwritten). ``right``: (B, R, D), the first B ≤ b
    rows of r. Eliminating from the tail leaves the right-hand sides alone.

    Returns the first B rows of v, (B, R, D), and vᵀv, (R, R, D).
    """
    size, width, draws = lower.shape
    b, top = width - 1, right.shape[0]
    # The loops allocate nothing: their cost is that of the calls.
    ratio, update, products = (np.empty((b, *rest)) for rest in ((draws,), (draws,), (right.shape[1], draws)))
    for t in range(size - 1, top - 1, -1):
        row = lower[t]
        reach = min(b, t)
        np.divide(row[1 : reach + 1], row[0], out=ratio[:reach])
        for q in range(1, reach + 1):
            above = lower[t - q, : reach - q + 1]
            above -= np.multiply(row[q : reach + 1], ratio[q - 1], out=update[: reach - q + 1])
        np.negative(ratio[:reach], out=row[1 : reach + 1])
    head = np.zeros((draws, top, top))
    for a in range(top):
        for c in range(a + 1):
            head[:, a, c] = head[:, c, a] = lower[a, a - c]
    v = np.empty((size, right.shape[1], draws))
    v[:top] = np.moveaxis(np.linalg.solve(head, np.moveaxis(right, 2, 0)), 0, 2)
    for t in range(top, size):
        reach = min(b, t)
        np.multiply(lower[t, reach:0:-1, None], v[t - reach : t], out=products[:reach])
        np.add.reduce(products[:reach], axis=0, out=v[t])
    return v[:top], np.einsum("trd,tsd->rsd", v, v)
