"""Square loss with isotropic noise: the score of α-rescaled ridge fine-tuning in closed form (theory.md §2, §4).

All formulas are written so that nothing cancels: they hold down to γ = 1e-15, at η = 1 and for n ≫ p.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.special import ndtr

from rmt._checks import BoolArray, FloatArray
from rmt.linear.forms import assemble
from rmt.resolvent import Resolvent, isotropic
from rmt.scores.quadratic import QuadraticScore, TransferScore
from rmt.scores.score import ratio
from rmt.settings.isotropic import Transfer, source_moments, source_products


class IsotropicScore(TransferScore):
    """The score for one source and C = I. Adds to :class:`rmt.QuadraticScore` the cancellation-free closed forms.

    With κ = 1 − 2ε, L = λ + M, D = MW − g² (theory.md §2, §4; κ = 1 without label noise)::

        c = (κM, θg)/L
        V₁₁ = [κ²(M+η)/L² + (1−κ²)η/λ²]/h,   V₁₂ = κγg/(hL²),   V₂₂ = θ²[W − g²(L + λψ)/L²]/(λ²h)
        α* = ηλg[κ + (1−κ²)L/(κλ)]/(θ[LD + ηg²]),   α_risk ∝ θg[κθ/h + (1−κ)L]/L²

    Attributes:
        setting, overlap (g), norm2 (W), m2 (M), resolvent: what it was computed from.
    """

    sources, vector_alpha = 1, False
    setting: Transfer

    def __init__(self, setting: Transfer) -> None:
        self.setting = setting

    @cached_property
    def m2(self) -> FloatArray:
        """M = ‖m‖²."""
        return self.setting.m2

    @cached_property
    def eta(self) -> FloatArray:
        """η = p/n."""
        return self.setting.eta

    @cached_property
    def _moments(self) -> tuple[FloatArray, FloatArray]:
        return source_moments(self.setting)

    @property
    def overlap(self) -> FloatArray:
        """g = ⟨w̃, m⟩."""
        return self._moments[0]

    @property
    def norm2(self) -> FloatArray:
        """W = E‖w̃‖²."""
        return self._moments[1]

    @cached_property
    def kappa(self) -> FloatArray:
        """κ = 1 − 2ε."""
        return np.asarray(1.0 - 2.0 * np.asarray(self.setting.label_noise, dtype=float))

    @cached_property
    def resolvent(self) -> Resolvent:
        """θ, λ, h of the target samples."""
        return isotropic(self.eta, np.asarray(self.setting.gamma, dtype=float))

    @property
    def _level(self) -> FloatArray:
        """L = λ + M."""
        return self.resolvent.lam + self.m2

    @cached_property
    def _gap(self) -> FloatArray:
        """D = MW − g² ≥ 0, how far the source is from the direction of the target mean."""
        return np.maximum(self.m2 * self.norm2 - self.overlap**2, 0.0)

    @property
    def _dead(self) -> BoolArray:
        """Where α has no effect: no source, or θ = 0."""
        return (self.resolvent.theta == 0) | (self.eta * self.norm2 == 0)

    @cached_property
    def c(self) -> FloatArray:
        """(…, 2) coefficients of the mean."""
        level = self._level
        return _stack(self.setting.shape, self.kappa * self.m2 / level, self.resolvent.theta * self.overlap / level)

    @cached_property
    def V(self) -> FloatArray:
        """(…, 2, 2) form of the variance."""
        r, g, level, kappa = self.resolvent, self.overlap, self._level, self.kappa
        flipped = (1.0 - kappa) * (1.0 + kappa) * self.eta / r.lam**2
        v11 = (kappa**2 * (self.m2 + self.eta) / level**2 + flipped) / r.h
        v12 = kappa * np.asarray(self.setting.gamma, dtype=float) * g / (r.h * level**2)
        v22 = (r.theta / r.lam) ** 2 * (self.norm2 - g**2 * (level + r.lam * r.psi) / level**2) / r.h
        return _stack(self.setting.shape, v11, v12, v12, np.maximum(v22, 0.0)).reshape(*self.setting.shape, 2, 2)

    @cached_property
    def scaled_star(self) -> FloatArray:
        """α*·θ, which stays finite as γ → 0 where α* itself does not."""
        r, g, kappa, level = self.resolvent, self.overlap, self.kappa, self._level
        boost = kappa + (1.0 - kappa) * (1.0 + kappa) * level / (kappa * r.lam)
        return self._shaped(ratio(self.eta * r.lam * g * boost, level * self._gap + self.eta * g**2))

    @cached_property
    def alpha_star(self) -> FloatArray:
        """The scale of the highest accuracy, with the sign of the overlap g; finite but where θ = 0.

        NaN where α has no effect: a zero source, or γ = 0 with n > p (θ = 0).
        """
        with np.errstate(over="ignore"):
            star = ratio(self.scaled_star, self.resolvent.theta)
        return np.where(self._dead, np.nan, star)

    @cached_property
    def alpha_risk(self) -> FloatArray:
        """The scale of the lowest squared risk; NaN where α has no effect."""
        r, g, kappa, level = self.resolvent, self.overlap, self.kappa, self._level
        right = (g / level**2) * (kappa * r.theta / r.h + (1.0 - kappa) * level)
        form = r.theta * (
            (self.norm2 - g**2 * (level + r.lam * r.psi) / level**2) / (r.lam**2 * r.h) + (g / level) ** 2
        )
        return self._shaped(np.where(form == 0, np.nan, ratio(right, form)))

    @cached_property
    def supremum_snr(self) -> FloatArray:
        """SNR at the best ratio of target to source, θ taken into α: the limit of SNR* where θ → 0.

        In (e, a = θα) the mean is (eM + ag)/λ and σ²λ²h = a²W + 2aeg + e²(M + η) + τ(eL + ag)², with
        τ = (1−κ²)η/(κλ)² from the flipped labels; so SNR*²/h = vᵀQ⁻¹v for v = (M, g), by Sherman–Morrison in τ.
        """
        r, g, kappa, level = self.resolvent, self.overlap, self.kappa, self._level
        tau = (1.0 - kappa) * (1.0 + kappa) * self.eta / (kappa * r.lam) ** 2
        det = self._gap + self.eta * self.norm2  # of [[M + η, g], [g, W]]
        plain = ratio(self.m2 * self._gap + self.eta * g**2, det)  # vᵀQ₀⁻¹v
        cross = ratio(level * self._gap + self.eta * g**2, det)  # uᵀQ₀⁻¹v, u = (L, g)
        adjugate = level**2 * self.norm2 + g**2 * (self.eta - self.m2 - 2.0 * r.lam)
        square = ratio(adjugate, np.where(det > 0, det, np.inf))  # uᵀQ₀⁻¹u
        return self._shaped(np.sqrt(r.h * np.maximum(plain - tau * cross**2 / (1.0 + tau * square), 0.0)))

    @cached_property
    def best_snr(self) -> FloatArray:
        """SNR* = s/σ at α*, ≥ 0; the target-only one where α has no effect."""
        return np.where(self._dead, self.snr(0.0), self.supremum_snr) if self._dead.any() else self.supremum_snr

    @property
    def best_accuracy(self) -> FloatArray:
        """Φ(SNR*), the highest accuracy any scale attains."""
        return ndtr(self.best_snr)

    @property
    def accuracy_source_only(self) -> FloatArray:
        """Φ(g/√W): the source used on the target as it is, without fine-tuning."""
        return self._shaped(ndtr(ratio(self.overlap, np.sqrt(self.norm2))))

    def _shaped(self, value: FloatArray) -> FloatArray:
        return np.broadcast_to(value, self.setting.shape).copy()


def _stack(shape: tuple[int, ...], *parts: FloatArray) -> FloatArray:
    out = np.empty((*shape, len(parts)))
    for index, part in enumerate(parts):
        out[..., index] = part
    return out


class SeveralSourcesScore(QuadraticScore, TransferScore):
    """The score for K fixed sources and C = I, in the matrix form of theory.md §2 (label noise included).

    Attributes:
        setting, overlap (…, K), gram (…, K, K): what it was computed from.
    """

    setting: Transfer

    def __init__(self, setting: Transfer) -> None:
        self.setting = setting
        self.overlap, self.gram = source_products(setting)
        r = isotropic(setting.eta, np.asarray(setting.gamma, dtype=float))
        shrink = r.theta / r.lam  # Z = θHW̃ with H = 1/λ
        c, V = assemble(
            gain=setting.m2 / r.lam,
            pull=shrink[..., None] * self.overlap,
            mean_form=setting.m2 / r.lam**2,
            cross_form=(shrink / r.lam)[..., None] * self.overlap,
            source_form=(shrink**2)[..., None, None] * self.gram,
            h=r.h,
            excess=r.excess,
            kappa=1.0 - 2.0 * np.asarray(setting.label_noise, dtype=float),
        )
        super().__init__(c, V, vector_alpha=True)

    @property
    def accuracy_source_only(self) -> FloatArray:
        """(…, K) Φ(g/√W) of each source, used on the target as it is."""
        return ndtr(ratio(self.overlap, np.sqrt(np.diagonal(self.gram, axis1=-2, axis2=-1))))
