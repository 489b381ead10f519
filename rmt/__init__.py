"""Random-matrix theory of α-rescaled fine-tuning, and the simulators that check it.

A *setting* goes in, a *score* comes out::

    import rmt

    setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    score = rmt.theory(setting)
    score.accuracy(1.0), score.alpha_star, score.best_accuracy
    rmt.simulate(setting, draws=1000, seed=0).compare(score, alpha=[0.0, 1.0, 2.0])

Names are imported when first used, so that ``import rmt`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmt.classes import ClassScore, ClassTransfer
    from rmt.covariance import GaussianScore, GaussianTransfer, RidgeSource, Spectrum, with_penalty
    from rmt.datasets import load_amazon
    from rmt.direct import simulate_direct
    from rmt.elliptical import EllipticalTransfer
    from rmt.estimate import AlphaRidgeClassifier
    from rmt.experiment import FitSimulation, simulate_fits
    from rmt.filters import FilteredTransfer, GradientFlow, PrincipalComponents, RidgeFilter, SpectralFilter
    from rmt.losses import Loss
    from rmt.optimum import (
        JointOptimum,
        Limit,
        few_samples,
        gamma_one,
        joint_optimum,
        many_samples,
        many_source_samples,
        ridgeless,
    )
    from rmt.predict import theory
    from rmt.regression import Regression, RegressionRisk
    from rmt.result import Comparison, Estimate, RegressionSimulation, Simulation
    from rmt.ridge_path import RidgePath
    from rmt.score import QuadraticScore, Score
    from rmt.setting import FixedSource, Transfer
    from rmt.simulation import sample_exact, simulate, simulate_running
    from rmt.solved import ConvergenceError, SolvedScore
    from rmt.subspace import SubspaceTransfer
    from rmt.sweep import grid, run_sweep

_HOME = {
    "AlphaRidgeClassifier": "estimate",
    "ClassScore": "classes",
    "ClassTransfer": "classes",
    "Comparison": "result",
    "ConvergenceError": "solved",
    "EllipticalTransfer": "elliptical",
    "Estimate": "result",
    "FilteredTransfer": "filters",
    "FitSimulation": "experiment",
    "FixedSource": "setting",
    "GaussianScore": "covariance",
    "GaussianTransfer": "covariance",
    "GradientFlow": "filters",
    "JointOptimum": "optimum",
    "Limit": "optimum",
    "Loss": "losses",
    "PrincipalComponents": "filters",
    "QuadraticScore": "score",
    "Regression": "regression",
    "RegressionRisk": "regression",
    "RegressionSimulation": "result",
    "RidgeFilter": "filters",
    "RidgePath": "ridge_path",
    "RidgeSource": "covariance",
    "Score": "score",
    "Simulation": "result",
    "SolvedScore": "solved",
    "SpectralFilter": "filters",
    "Spectrum": "covariance",
    "SubspaceTransfer": "subspace",
    "Transfer": "setting",
    "few_samples": "optimum",
    "gamma_one": "optimum",
    "grid": "sweep",
    "joint_optimum": "optimum",
    "load_amazon": "datasets",
    "many_samples": "optimum",
    "many_source_samples": "optimum",
    "ridgeless": "optimum",
    "run_sweep": "sweep",
    "sample_exact": "simulation",
    "simulate": "simulation",
    "simulate_direct": "direct",
    "simulate_fits": "experiment",
    "simulate_running": "simulation",
    "theory": "predict",
    "with_penalty": "covariance",
}

__all__ = [
    "AlphaRidgeClassifier",
    "ClassScore",
    "ClassTransfer",
    "Comparison",
    "ConvergenceError",
    "EllipticalTransfer",
    "Estimate",
    "FilteredTransfer",
    "FitSimulation",
    "FixedSource",
    "GaussianScore",
    "GaussianTransfer",
    "GradientFlow",
    "JointOptimum",
    "Limit",
    "Loss",
    "PrincipalComponents",
    "QuadraticScore",
    "Regression",
    "RegressionRisk",
    "RegressionSimulation",
    "RidgeFilter",
    "RidgePath",
    "RidgeSource",
    "Score",
    "Simulation",
    "SolvedScore",
    "SpectralFilter",
    "Spectrum",
    "SubspaceTransfer",
    "Transfer",
    "few_samples",
    "gamma_one",
    "grid",
    "joint_optimum",
    "load_amazon",
    "many_samples",
    "many_source_samples",
    "ridgeless",
    "run_sweep",
    "sample_exact",
    "simulate",
    "simulate_direct",
    "simulate_fits",
    "simulate_running",
    "theory",
    "with_penalty",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"rmt.{_HOME[name]}"), name)
    try:  # submodules: rmt.symbolic, rmt.plot, …
        return importlib.import_module(f"rmt.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"rmt.{name}":
            raise
        raise AttributeError(f"module 'rmt' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
