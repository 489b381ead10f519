"""Direct simulation: draw real data of any noise law, fit the classifiers, measure them. NumPy, or torch on a GPU.

One decomposition of each drawn sample serves every (α, γ); the dual form is used when n < p. Where the test law is
Gaussian the accuracy is exact given the draw, otherwise it is counted on fresh test points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt._parallel import check_jobs, run, stream
from rmt.scores.estimates import RegressionSimulation, Simulation
from rmt.settings.isotropic import Transfer
from rmt.settings.regression import Regression
from rmt.simulators.drawing import Drawing
from rmt.simulators.exact import check_draws, single_setting, source_basis
from rmt.simulators.noise import Noise, Sampler, noise_law

#: Numbers that torch may hold in the samples of one batch of draws (of at most 16).
BATCH_NUMBERS = 1e8


def simulate_direct(
    setting: Transfer,
    draws: int,
    seed: int = 0,
    *,
    gamma: ArrayLike | None = None,
    noise: str | Sampler | Noise = "gaussian",
    covariance: ArrayLike | None = None,
    direction: str = "random",
    test_points: int | None = None,
    backend: str = "numpy",
    device: str | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Simulation:
    """Simulate ``setting`` with real draws of data.

    Args:
        setting: one scalar :class:`rmt.Transfer`.
        draws: number of independent experiments.
        seed: same seed, same numbers, whatever ``n_jobs`` (the torch backend has streams of its own).
        gamma: penalties to evaluate on the same draws (G of them); the setting's own when None.
        noise: law of the entries of z (see :func:`rmt.simulators.noise.noise_law`).
        covariance: C of source and target noise, (p, p) or its diagonal (p,); identity when None.
        direction: ``"random"`` spreads the means over all coordinates, ``"axis"`` puts them on the first ones.
        test_points: count accuracy on this many fresh points a draw. None: exact accuracy for Gaussian noise,
            4,000 points otherwise.
        backend: ``"numpy"`` or ``"torch"`` (batched; ``device`` such as ``"cuda"``), float64 in both.
        n_jobs: worker processes.
        progress: show a bar.

    Returns:
        A :class:`rmt.Simulation`; with ``gamma`` its arrays have a G axis.

    Raises:
        ValueError: an option is unknown or does not fit the setting.

    >>> import rmt
    >>> setting = rmt.Transfer(p=40, n=20, N=50, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> rmt.simulate_direct(setting, 50, seed=0, noise="student-t:5").accuracy(1.0).value.shape
    ()
    """
    drawing = draw_direct(
        setting,
        draws,
        seed,
        gamma=gamma,
        noise=noise,
        covariance=covariance,
        direction=direction,
        test_points=test_points,
        backend=backend,
        device=device,
        n_jobs=n_jobs,
        progress=progress,
    )
    return drawing.finish(list(drawing.parts), _checks.whole("draws", draws))


def draw_direct(
    setting: Transfer,
    draws: int,
    seed: int,
    *,
    gamma: ArrayLike | None = None,
    noise: str | Sampler | Noise = "gaussian",
    covariance: ArrayLike | None = None,
    direction: str = "random",
    test_points: int | None = None,
    backend: str = "numpy",
    device: str | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Drawing:
    """The blocks of :func:`simulate_direct`, as they are made."""
    setting = single_setting(setting)
    draws = _checks.whole("draws", draws)
    gammas = _checks.line("gamma", _checks.at_least("gamma", setting.gamma if gamma is None else gamma, 0.0))
    p, n = int(setting.p), int(setting.n)
    if (gammas == 0).any() and n == p:
        raise ValueError("gamma = 0 with p = n has infinite variance; give gamma > 0, however small")
    needed = 2 if setting.source_count is None else setting.source_count + 1
    if p < needed:
        raise ValueError(f"p must be ≥ {needed} to hold the target mean and the source(s), got {p}")
    _checks.one_of("direction", direction, ("random", "axis"))
    _checks.one_of("backend", backend, ("numpy", "torch"))
    _checks.flag("progress", progress)
    law = noise_law(noise)
    if test_points is None and not law.gaussian:
        test_points = 4000
    test_points = 0 if test_points is None else _checks.whole("test_points", test_points)
    rows = n + test_points + (0 if setting.N is None or np.isinf(setting.N) else int(setting.N))
    size = float(p) * rows  # numbers a draw holds
    check_jobs("n_jobs", n_jobs)
    check_device(backend, device)
    check_draws(setting, draws, len(gammas))
    _checks.fits_memory(
        f"one draw of {rows} samples with p={p}",
        2.0 * size + 3.0 * float(min(n, p)) ** 2 + 3.0 * float(p) * needed,
        "lower p or n, or take the exact method",
    )
    plan = _Plan(
        setting=setting,
        gammas=gammas,
        law=law,
        root=_root(covariance, p),
        axis=direction == "axis",
        test_points=test_points,
        torch_device=None if backend == "numpy" else (device or "cpu"),
        seed=_checks.whole("seed", seed, low=0),
        batch=1 if backend == "numpy" else int(np.clip(BATCH_NUMBERS // size, 1, 16)),
    )
    count = -(-draws // plan.batch)
    chunk = int(np.clip(1e7 // (plan.batch * size), 1, 64))
    pieces = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]

    def finish(parts: Sequence[tuple[FloatArray, ...]], count: int) -> Simulation:
        c, V, points = (np.concatenate([part[i] for part in parts])[:count] for i in range(3))
        if gamma is None:
            c, V, points = c[:, 0], V[:, 0], points[:, 0]
        return Simulation(
            c=c,
            V=V,
            p=p,
            gamma=None if gamma is None else gammas,
            vector_alpha=setting.source_count is not None,
            points=points if plan.test_points else None,
        )

    return Drawing(run(plan.draw, pieces, n_jobs=n_jobs, progress="direct simulation" if progress else None), finish)


def check_device(backend: str, device: str | None) -> None:
    """Raise ValueError unless torch has the device (any backend but "torch" has none)."""
    if backend != "torch" or device in (None, "cpu"):
        return
    import torch

    try:
        torch.Generator(device)
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError(f"device={device!r} is not to be had here by torch; give cpu, or run where it is") from None


def simulate_regression(setting: Regression, draws: int, seed: int = 0, *, n_jobs: int = 1) -> RegressionSimulation:
    """Simulate a scalar :class:`rmt.Regression`: fit on fresh Gaussian inputs, exact risk of each fit."""
    if setting.shape:
        raise ValueError(f"a simulation takes one setting, got arrays of shape {setting.shape}; use rmt.run_sweep")
    draws = _checks.whole("draws", draws)
    seed = _checks.whole("seed", seed, low=0)
    pieces = [(setting, seed, range(start, min(start + 16, draws))) for start in range(0, draws, 16)]
    rows = np.concatenate(list(run(_regression_draws, pieces, n_jobs=n_jobs)))
    return RegressionSimulation(rows=rows, noise2=setting.outputs * float(setting.noise) ** 2)


def _regression_draws(piece: tuple[Regression, int, range]) -> FloatArray:
    from threadpoolctl import threadpool_limits

    setting, seed, indices = piece
    with threadpool_limits(limits=1, user_api="blas"):
        return np.stack([_regression_draw(setting, stream(seed, index)) for index in indices])


def _regression_draw(setting: Regression, rng: np.random.Generator) -> FloatArray:
    """(d, 3) coefficients of 1, α, α² of each output's excess risk."""
    target, source = np.asarray(setting.target, dtype=float), np.asarray(setting.source, dtype=float)
    n, d = int(setting.n), setting.outputs
    inputs = setting.spectrum.colour(rng.standard_normal((n, setting.p)))
    outputs = inputs @ target.T + float(setting.noise) * rng.standard_normal((n, d))
    weights = ridge_columns(np, inputs, outputs, source.T, np.array([float(setting.gamma)]))[0]
    fixed, moving = target.T - weights[:, :d], weights[:, d:]
    fixed, moving = (setting.spectrum.colour(part.T).T for part in (fixed, moving))  # ‖C^{1/2}·‖² is the excess risk
    return np.stack([np.sum(fixed**2, 0), -2.0 * np.sum(fixed * moving, 0), np.sum(moving**2, 0)], axis=1)


def ridge_columns(xp: Any, samples: Any, labels: Any, sources: Any, gammas: FloatArray) -> Any:
    """Columns of the fine-tuned weights: ``(S+γ)⁻¹Xᵀy/n`` of each label column and ``γ(S+γ)⁻¹w̃`` of each source.

    Args:
        xp: numpy or torch.
        samples: (…, n, p). labels: (…, n, t). sources: (…, p, K). gammas: (G,) NumPy array.

    Returns:
        (…, G, p, t+K). The fine-tuned weights for scales α are ``columns @ (1, …, α₁ … α_K)``.
    """
    join = np.concatenate if xp is np else xp.cat
    n, p = samples.shape[-2:]
    dual = n <= p
    if dual:  # (S+γ)⁻¹Xᵀy/n = Xᵀ(K+γ)⁻¹y/n and γ(S+γ)⁻¹w̃ = w̃ − Xᵀ(K+γ)⁻¹Xw̃/n with K = XXᵀ/n
        form = samples @ samples.mT / n
        right = join([labels, -(samples @ sources)], -1)
    else:
        form = samples.mT @ samples / n
        right = join([samples.mT @ labels / n, sources], -1)
    t = labels.shape[-1]

    def scaled(gamma: float, columns: Any) -> Any:
        return columns if dual else join([columns[..., :t], gamma * columns[..., t:]], -1)

    if len(gammas) == 1:
        gamma = float(gammas[0])
        identity = xp.eye(form.shape[-1], dtype=form.dtype, **({} if xp is np else {"device": form.device}))
        solved = xp.linalg.solve(form + gamma * identity, scaled(gamma, right))
        stacked = (samples.mT @ solved / n if dual else solved)[..., None, :, :]
    else:
        values, vectors = xp.linalg.eigh(form)
        rotated = vectors.mT @ right  # (…, rank, t+K)
        back = samples.mT @ vectors / n if dual else vectors  # (…, p, rank)
        each = [scaled(float(g), rotated) / (values + float(g))[..., None] for g in gammas]
        flat = back @ join(each, -1)  # one product for all penalties
        stacked = xp.stack([flat[..., i * right.shape[-1] : (i + 1) * right.shape[-1]] for i in range(len(gammas))], -3)
    if dual:
        stacked[..., t:] += sources[..., None, :, :]
    return stacked


def _root(covariance: ArrayLike | None, p: int) -> FloatArray | None:
    """A square root of C: (p,), or (p, p) R with C = RᵀR."""
    if covariance is None:
        return None
    matrix = _checks.finite("covariance", covariance)
    if matrix.shape == (p,):
        if (matrix < 0).any():
            raise ValueError("covariance has negative entries on its diagonal; give variances")
        return np.sqrt(matrix)
    if matrix.shape != (p, p) or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12):
        raise ValueError(f"covariance must be symmetric ({p}, {p}) or a diagonal ({p},), got shape {matrix.shape}")
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -1e-10 * max(values[-1], 1.0):
        raise ValueError(f"covariance must be positive semi-definite, but has the eigenvalue {values[0]:g}")
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


@dataclass(frozen=True)
class _Plan:
    """Everything a worker needs to draw its blocks; a block (a batch of draws) has a random stream of its own."""

    setting: Transfer
    gammas: FloatArray
    law: Noise
    root: FloatArray | None = field(repr=False)
    axis: bool
    test_points: int
    torch_device: str | None
    seed: int
    batch: int

    def draw(self, blocks: range) -> tuple[FloatArray, FloatArray, FloatArray]:
        """c (D, G, K+1), V (D, G, K+1, K+1), points (D, G, T, K+1) of the draws of these blocks."""
        from threadpoolctl import threadpool_limits

        # One BLAS thread whatever n_jobs is: sums in another order would change the last digits.
        with threadpool_limits(limits=1, user_api="blas"):
            parts = [self._block(_Engine(stream(self.seed, b), self.torch_device, self.law)) for b in blocks]
        c, V, points = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return c, V, points

    def _block(self, engine: _Engine) -> tuple[FloatArray, FloatArray, FloatArray]:
        setting = self.setting
        n, p = int(setting.n), int(setting.p)
        mean, sources = self._means(engine, p)
        samples = self._samples(engine, n, mean, float(setting.label_noise))
        ones = engine.array(np.ones((self.batch, n, 1)))
        weights = ridge_columns(engine.xp, samples, ones, sources, self.gammas)  # (B, G, p, K+1)
        c = engine.numpy((mean[:, None, None, :] @ weights)[..., 0, :])
        coloured = weights if self.root is None else self._colour(engine, weights.mT).mT
        V = engine.numpy(coloured.mT @ coloured)
        if not self.test_points:
            return c, V, np.zeros((self.batch, len(self.gammas), 0, c.shape[-1]))
        fresh = self._samples(engine, self.test_points, mean, 0.0)
        return c, V, engine.numpy(fresh[:, None] @ weights)

    def _means(self, engine: _Engine, p: int) -> tuple[Any, Any]:
        """Target mean (B, p) and source weights (B, p, K)."""
        setting = self.setting
        count = 2 if setting.source is None or setting.source.count is None else setting.source.count + 1
        if self.axis:
            basis = np.broadcast_to(np.eye(p, count), (self.batch, p, count))
        else:
            basis = np.linalg.qr(engine.rng.standard_normal((self.batch, p, count)))[0]
        m2 = float(setting.m2)
        if setting.source is not None:
            coordinates = source_basis(setting)  # (k, K), first row along m
            return engine.array(np.sqrt(m2) * basis[..., 0]), engine.array(basis @ coordinates)
        mu, along = float(setting.mu), float(setting.beta) * float(setting.mu)
        mean = along * basis[..., 0] + np.sqrt(max(m2 - along**2, 0.0)) * basis[..., 1]
        return engine.array(mean), self._ridge_source(engine, engine.array(mu * basis[..., 0]))[..., None]

    def _ridge_source(self, engine: _Engine, mean: Any) -> Any:
        """(B, p) ridge weights fitted on N fresh source samples (their limit for N = ∞)."""
        setting = self.setting
        gamma, flips = float(setting.gamma_source), float(setting.label_noise_source)
        if np.isinf(setting.N):
            mu = engine.numpy(mean)
            root = np.ones(mu.shape[1]) if self.root is None else self.root
            form = np.diag(root**2) if root.ndim == 1 else root.T @ root
            white = np.linalg.solve(form + gamma * np.eye(mu.shape[1]), mu.T).T
            return engine.array((1.0 - 2.0 * flips) * white / (1.0 + np.sum(mu * white, axis=1, keepdims=True)))
        samples = self._samples(engine, int(setting.N), mean, flips)
        ones = engine.array(np.ones((self.batch, samples.shape[1], 1)))
        nothing = engine.array(np.zeros((self.batch, samples.shape[2], 0)))
        return ridge_columns(engine.xp, samples, ones, nothing, np.array([gamma]))[:, 0, :, 0]

    def _samples(self, engine: _Engine, count: int, mean: Any, flips: float) -> Any:
        """(B, count, p) signed samples: label times (label's mean + noise), labels flipped with probability flips."""
        noise = engine.noise((self.batch, count, mean.shape[1]))
        if self.root is not None:
            noise = self._colour(engine, noise)
        noise += mean[:, None, :]
        if flips:
            signs = np.where(engine.rng.random((self.batch, count, 1)) < flips, -1.0, 1.0)
            noise *= engine.array(signs)
        return noise

    def _colour(self, engine: _Engine, rows: Any) -> Any:
        root = engine.array(self.root)
        return rows * root if root.ndim == 1 else rows @ root


class _Engine:
    """Random numbers and arrays of one block, in NumPy or in torch on a device."""

    def __init__(self, rng: np.random.Generator, device: str | None, law: Noise) -> None:
        self.rng, self.device, self.law = rng, device, law
        self.xp: Any = np
        if device is not None:
            import torch

            self.xp = torch
            self.generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))

    def noise(self, shape: tuple[int, ...]) -> Any:
        """Noise times a random label: y·z has the law of z only where that law is symmetric."""
        if self.device is not None and self.law.gaussian:
            return self.xp.randn(shape, generator=self.generator, device=self.device, dtype=self.xp.float64)
        noise = np.asarray(self.law.sample(self.rng, shape), dtype=float)
        if noise.shape != shape:
            raise ValueError(
                f"noise returned shape {noise.shape} where {shape} was asked for; honour the shape argument"
            )
        if not self.law.gaussian:
            noise = noise * (self.rng.integers(0, 2, size=(*shape[:-1], 1)) * 2.0 - 1.0)
        return self.array(noise)

    def array(self, values: Any) -> Any:
        """``values`` on the device."""
        return values if self.device is None else self.xp.as_tensor(np.ascontiguousarray(values), device=self.device)

    def numpy(self, values: Any) -> FloatArray:
        """``values`` as a NumPy array."""
        return values if self.device is None else values.cpu().numpy()
