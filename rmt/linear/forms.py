"""The square loss from the few numbers that a noise model enters by."""

from __future__ import annotations

import numpy as np

from rmt._checks import FloatArray


def assemble(
    *,
    gain: FloatArray,
    pull: FloatArray,
    mean_form: FloatArray,
    cross_form: FloatArray,
    source_form: FloatArray,
    h: FloatArray,
    excess: FloatArray,
    kappa: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """(c, V) of the square loss from the few numbers that a noise model enters by (theory.md §1, §3).

    The classifier is x + noise, x = Zα + e·Hm, with Z the shrunk sources (θHW̃ in the full space) and e = κ − s::

        c = (κA, ζ)/(1 + A),   ε = (κ, −ζ)/(1 + A),   A = mᵀHm,   ζ = Zᵀm
        V = [ẐᵀCẐ + ẐᵀCHm εᵀ + ε mᵀHCẐ + (mᵀHCHm) εεᵀ + (1−h)(εεᵀ + (1−κ²)E₁₁)]/h,   Ẑ = (0, Z)

    Args:
        gain: (…) A. pull: (…, K) ζ. mean_form: (…) mᵀHCHm. cross_form: (…, K) ZᵀCHm.
        source_form: (…, K, K) ZᵀCZ, the noise of random sources included. h, excess: (…) h and 1 − h.
        kappa: (…) κ = 1 − 2ε of the flipped target labels.
    """
    shape, size = np.broadcast_shapes(gain.shape, h.shape, kappa.shape), pull.shape[-1] + 1
    c, residual, shrunk = (np.zeros((*shape, size)) for _ in range(3))
    c[..., 0] = kappa * gain / (1.0 + gain)
    c[..., 1:] = pull / (1.0 + gain)[..., None]
    residual[..., 0] = kappa / (1.0 + gain)
    residual[..., 1:] = -c[..., 1:]
    shrunk[..., 1:] = cross_form
    cross = shrunk[..., :, None] * residual[..., None, :]
    V = cross + np.swapaxes(cross, -1, -2)
    V[..., 1:, 1:] += source_form
    V += np.asarray(mean_form + excess)[..., None, None] * residual[..., :, None] * residual[..., None, :]
    V[..., 0, 0] += (1.0 - kappa) * (1.0 + kappa) * excess
    return c, V / np.asarray(h)[..., None, None]
