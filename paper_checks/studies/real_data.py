"""Fine-tuning on real features: the paper's moments and splits, every (α, γ) of a split at once; digits and Amazon."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import rmt
from paper_checks.core import Context, Figures, NotAvailable
from paper_checks.statistics.intervals import mean_and_error
from rmt.choosing.ridge_path import RidgePath
from rmt.datasets import Domain, load_amazon

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class DomainPair:
    """A transfer between two standardised domains and the moments the paper takes from all their rows."""

    source: Domain
    target: Domain

    @cached_property
    def mu(self) -> float:
        """The paper's ‖μ‖ = √|⟨μ̂₋, μ̂₊⟩| of the source."""
        negative, positive = self.source.class_means
        return float(np.sqrt(abs(negative @ positive)))

    @cached_property
    def beta(self) -> float:
        """β = ⟨μ̂, μ̂_β⟩/‖μ‖²."""
        return float(self.source.signed_mean @ self.target.signed_mean) / self.mu**2

    @cached_property
    def residual(self) -> float:
        """‖μ̂_β − β μ̂‖, which the paper's code uses as ‖μ_⊥‖ (theory.md §9, E4)."""
        return float(np.linalg.norm(self.target.signed_mean - self.beta * self.source.signed_mean))

    def setting(self, n: int, gamma: ArrayLike, *, N: int, gamma_source: float, as_in_code: bool) -> rmt.Transfer:
        """Isotropic setting with these moments.

        ``as_in_code`` multiplies the raw residual by √(1−β²) once more, as the paper's code does; otherwise
        ‖m‖² = β²‖μ‖² + residual².
        """
        common = {"N": N, "n": n, "p": self.target.features.shape[1], "mu": self.mu, "beta": self.beta}
        if as_in_code:
            return rmt.Transfer(**common, gamma=gamma, gamma_source=gamma_source, mu_perp=self.residual)
        norm = math.hypot(self.beta * self.mu, self.residual)
        return rmt.Transfer(**common, gamma=gamma, gamma_source=gamma_source, mu_target=norm)

    def measured_setting(self, n: int, gamma: ArrayLike, weights: Array) -> rmt.Transfer:
        """Isotropic setting with g and W of the actual source and the unbiased ‖m‖² (theory.md §6)."""
        u = self.target.labels[:, None] * self.target.features
        total = u.sum(axis=0)
        m2 = float(total @ total - np.sum(u * u)) / (len(u) * (len(u) - 1))
        overlap, norm2 = float(weights @ self.target.signed_mean), float(weights @ weights)
        m2 = max(m2, overlap**2 / norm2)
        source = rmt.FixedSource(overlap=overlap, norm2=norm2)
        return rmt.Transfer(p=u.shape[1], n=n, gamma=gamma, mu_target=math.sqrt(m2), source=source)


def ridge_weights(domain: Domain, gamma: float, rows: int) -> Array:
    """(p,) source classifier (XᵀX/N + γ̃)⁻¹Xᵀy/N on the first ``rows`` rows."""
    x, y = domain.features[:rows], domain.labels[:rows]
    gram = x.T @ x / len(y) + gamma * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ y / len(y))


def paper_splits(seed: int, size: int, n: int, count: int) -> Iterator[tuple[Array, Array]]:
    """The first ``count`` (train, test) row indices that the paper's code draws after seeding with ``seed``.

    It calls scikit-learn's ``train_test_split`` with ``train_size = n/size`` on NumPy's old global generator:
    a permutation, its tail the training rows.
    """
    generator = np.random.RandomState(seed)
    train = math.floor((n / size) * size)
    for _ in range(count):
        order = generator.permutation(size)
        yield order[size - train :], order[: size - train]


def fresh_splits(seed: int, size: int, n: int, count: int) -> Iterator[tuple[Array, Array]]:
    """``count`` independent random splits into ``n`` training rows and the rest."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        order = generator.permutation(size)
        yield order[:n], order[n:]


class Adaptation:
    """Fine-tuning of one source classifier to one standardised target, split after split.

    Args:
        target: the domain, standardised. weights: (p,) source classifier w̃.
    """

    def __init__(self, target: Domain, weights: Array) -> None:
        self._rows = target.labels[:, None] * target.features  # (size, p) signed rows u
        self._source = self._rows @ weights  # (size,) their source scores

    @property
    def size(self) -> int:
        """Rows of the target."""
        return len(self._rows)

    def split(self, train: Array, test: Array) -> SplitScores:
        """All fine-tuned classifiers of one split, given by row indices."""
        cross = self._rows @ self._rows[train].T / len(train)  # (size, n)
        return SplitScores(cross[train], self._source[train], cross[test], self._source[test])


class SplitScores:
    """All α-fine-tuned classifiers of one split, from one eigendecomposition of an n×n matrix.

    With signed training rows U (n, p), K = UUᵀ/n and T = (K + γ)⁻¹ (theory.md §6), the score of any row is
    affine in α: w_α = UᵀT1/n + α(w̃ − UᵀTUw̃/n).

    Args:
        gram: (n, n) K. source: (n,) Uw̃. cross: (n_test, n) signed test rows times Uᵀ/n.
        source_test: (n_test,) signed test rows times w̃.
    """

    def __init__(self, gram: Array, source: Array, cross: Array, source_test: Array) -> None:
        self.source_test = source_test
        self._values, self._basis = np.linalg.eigh(gram)
        self._values = np.maximum(self._values, 0.0)
        self._right = self._basis.T @ np.column_stack([np.ones(len(gram)), source])  # 1 and Uw̃
        self._cross = cross @ self._basis

    def test_scores(self, gamma: float) -> tuple[Array, Array]:
        """(n_test,) s⁰ and s¹: the signed test score at scale α is s⁰ + α s¹; correct where positive."""
        scores = self._cross @ (self._right / (self._values + gamma)[:, None])
        return scores[:, 0], self.source_test - scores[:, 1]

    def accuracy(self, alpha: ArrayLike, gamma: float) -> Array:
        """Share of test rows classified rightly at each scale, signed (not folded at 1/2)."""
        start, slope = self.test_scores(gamma)
        alpha = np.asarray(alpha, dtype=float)
        return (start + alpha[..., None] * slope > 0).mean(axis=-1)

    def leave_one_out(self, gamma: float) -> tuple[Array, Array]:
        """(n,) z⁰ and z¹: z⁰ + αz¹ is the score of each training row by the classifier fitted without it.

        Exact; the n−1 other rows keep the penalty nγ.
        """
        scaled = self._basis / (self._values + gamma)
        ones, source = (scaled @ self._right).T
        diagonal = np.sum(scaled * self._basis, axis=1)
        return 1.0 - ones / diagonal, source / diagonal


def choose_squared(split: SplitScores, gammas: Array) -> tuple[float, float]:
    """(α, γ) of the smallest leave-one-out squared error, from the training rows alone."""
    best = (math.inf, 0.0, 0.0)
    for gamma in gammas:
        start, slope = split.leave_one_out(gamma)
        alpha = float((1.0 - start) @ slope / (slope @ slope))
        best = min(best, (float(np.mean((1.0 - start - alpha * slope) ** 2)), alpha, float(gamma)))
    return best[1], best[2]


def choose_moment(split: SplitScores, gammas: Array, cap: float = 50.0) -> tuple[float, float]:
    """(α, γ) of the largest leave-one-out mean/deviation of the score, |α| ≤ cap (guard of theory.md §6)."""
    best = (math.inf, 0.0, 0.0)
    for gamma in gammas:
        z = np.stack(split.leave_one_out(gamma))  # (2, n)
        c, V = z.mean(axis=1), np.cov(z)
        head, tail = V[1, 1] * c[0] - V[0, 1] * c[1], V[0, 0] * c[1] - V[0, 1] * c[0]
        alpha = float(np.clip(tail / head, -cap, cap)) if head > 0 else math.copysign(cap, c[1])
        q = np.array([1.0, alpha])
        best = min(best, (-float(c @ q / math.sqrt(q @ V @ q)), alpha, float(gamma)))
    return best[1], best[2]


#: Source pair and target pair of digits; the first two are the paper's.
TRANSFERS = ("69-67", "69-07", "49-79", "38-35", "17-27")
DIGIT_SIZES = (10, 40)
DIGIT_GAMMA = 1.0
SCALES = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
LINE = np.linspace(0.0, 5.0, 101)


def digits_transfer(context: Context, cell: str) -> Figures:
    """Figures of the transfer from one pair of digits to another, at every number of samples.

    Raises:
        NotAvailable: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise NotAvailable("needs scikit-learn; pip install 'rescale-and-adapt[learn]'") from None
    images, digits = load_digits(return_X_y=True)
    source, target = (_pair(images, digits, name) for name in cell.split("-"))
    pair = DomainPair(source.standardised(), target.standardised())
    weights = ridge_weights(pair.source, DIGIT_GAMMA, len(source.labels))
    adaptation = Adaptation(pair.target, weights)
    sizes = []
    for n in DIGIT_SIZES:
        score = rmt.theory(pair.measured_setting(n, DIGIT_GAMMA, weights))
        star = float(score.alpha_star)
        scales = np.append(SCALES, star)
        seed = context.seed_for("alpha_lora.digits", cell, str(n))
        splits = fresh_splits(seed, adaptation.size, n, 60 if context.quick else 200)
        real = 100.0 * np.array([adaptation.split(*rows).accuracy(scales, DIGIT_GAMMA) for rows in splits])
        mean, error = mean_and_error(real)
        one = int(np.argmin(np.abs(SCALES - 1.0)))
        sizes.append(
            {
                "n": n,
                "alpha_star": star,
                "theory": 100.0 * score.accuracy(SCALES),
                "line": np.round(100.0 * score.accuracy(LINE), 3),
                "value": mean[:-1],
                "stderr": error[:-1],
                "best": [mean[-1], error[-1]],
                "gain": mean_and_error(real[:, -1] - real[:, one]),
                "splits": len(real),
            }
        )
    return {
        "beta": pair.beta,
        "source_only": {
            "theory": 100.0 * float(score.accuracy_source_only),
            "value": 100.0 * float(np.mean(pair.target.labels * (pair.target.features @ weights) > 0)),
        },
        "sizes": sizes,
    }


def case(cell: str, size: Figures) -> str:
    """A transfer and its number of samples in words."""
    return f"{' → '.join('/'.join(pair) for pair in cell.split('-'))}, n = {size['n']}"


def _pair(images: Any, digits: Any, name: str) -> Domain:
    """Images of two digits; the second has label +1."""
    first, second = int(name[0]), int(name[1])
    keep = np.isin(digits, (first, second))
    return Domain(name, images[keep], np.where(digits[keep] == second, 1.0, -1.0))


#: The pairs on which the rule was developed; each domain is once source and once target.
DEVELOPMENT = ("book-dvd", "dvd-elec", "elec-kitchen", "kitchen-book")


def amazon_pair(context: Context, source: str, target: str) -> DomainPair:
    """A transfer between two standardised Amazon domains."""
    domains = load_amazon(context.folder("data", "amazon_review"))
    return DomainPair(domains[source].standardised(), domains[target].standardised())


#: The grid that rivals search, at every penalty of the classifier's own grid.
ALPHAS = np.concatenate([[0.0], np.geomspace(0.1, 100.0, 24)])
FOLDS = 5


def cross_validate(rows: Any, weights: Any, gammas: Any) -> tuple[int, int]:
    """Indices (γ, α) of the highest 5-fold accuracy; among ties that of the smallest squared error, then the first."""
    folds = np.arange(len(rows)) % FOLDS  # the rows are in random order already
    right = np.zeros((len(gammas), len(ALPHAS)))
    error = np.zeros_like(right)
    for fold in range(FOLDS):
        kept, left = rows[folds != fold], rows[folds == fold]
        path = RidgePath(kept, weights)
        for index, gamma in enumerate(gammas):
            scores = grid_scores(left @ path.weights(gamma))
            right[index] += (scores > 0).sum(axis=0)
            error[index] += ((1.0 - scores) ** 2).sum(axis=0)
    ties = right == right.max()
    best = np.unravel_index(np.argmin(np.where(ties, error, np.inf)), right.shape)
    return int(best[0]), int(best[1])


def grid_scores(columns: Any) -> Any:
    """(rows, α) scores z⁰ + αz¹ on the grid of scales."""
    return columns[:, :1] + columns[:, 1:] * ALPHAS


def linear_source(classes: Any, weights: Any, X: Any, offsets: Any = None) -> Any:
    """A linear classifier of given weights; without offsets its scores are 0 at the mean of X."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import RidgeClassifier

    model = RidgeClassifier().fit(np.vstack([np.eye(len(classes)), -np.eye(len(classes))]), np.r_[classes, classes])
    model.coef_, model.n_features_in_ = weights, X.shape[1]
    model.intercept_ = -weights @ X.mean(axis=0) if offsets is None else offsets
    return FrozenEstimator(model)
