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
    from rmt.beyond.classes import ClassScore
    from rmt.beyond.many_classes import MulticlassScore
    from rmt.choosing.classifier import AlphaRidgeClassifier
    from rmt.choosing.ridge_path import RidgePath
    from rmt.datasets import load_amazon
    from rmt.evidence import TransferEvidence, transfer_evidence
    from rmt.features import RandomFeatures
    from rmt.learning import LearningCurve, learning_curve, learning_exponent, power_law
    from rmt.linear.gaussian import GaussianScore
    from rmt.linear.joint import JointOptimum, joint_optimum
    from rmt.linear.limits import Limit, few_samples, gamma_one, many_samples, many_source_samples, ridgeless
    from rmt.linear.regression import RegressionRisk
    from rmt.losses import Loss
    from rmt.predict import theory
    from rmt.questions import SourcePenalty, TwoScales, samples_needed, source_penalty, two_scales
    from rmt.scores.estimates import Comparison, Estimate, RegressionSimulation, Simulation
    from rmt.scores.quadratic import QuadraticScore
    from rmt.scores.score import Score
    from rmt.scores.solved import ConvergenceError, SolvedScore
    from rmt.settings.classes import ClassTransfer
    from rmt.settings.elliptical import EllipticalTransfer
    from rmt.settings.filters import FilteredTransfer, GradientFlow, PrincipalComponents, RidgeFilter, SpectralFilter
    from rmt.settings.gaussian import GaussianTransfer, RidgeSource, with_penalty
    from rmt.settings.isotropic import FixedSource, Transfer
    from rmt.settings.many_classes import MulticlassTransfer
    from rmt.settings.regression import Regression
    from rmt.settings.spectrum import Spectrum
    from rmt.settings.subspace import SubspaceTransfer
    from rmt.simulators.direct import simulate_direct
    from rmt.simulators.fits import FitSimulation, simulate_fits
    from rmt.simulators.many_classes import MulticlassSimulation
    from rmt.simulators.simulation import sample_exact, simulate, simulate_running
    from rmt.sizes import agreement, doubled
    from rmt.sweep import grid, run_sweep

_HOME = {
    "LearningCurve": "learning",
    "TransferEvidence": "evidence",
    "learning_curve": "learning",
    "learning_exponent": "learning",
    "power_law": "learning",
    "transfer_evidence": "evidence",
    "agreement": "sizes",
    "doubled": "sizes",
    "AlphaRidgeClassifier": "choosing.classifier",
    "ClassScore": "beyond.classes",
    "ClassTransfer": "settings.classes",
    "Comparison": "scores.estimates",
    "ConvergenceError": "scores.solved",
    "EllipticalTransfer": "settings.elliptical",
    "Estimate": "scores.estimates",
    "FilteredTransfer": "settings.filters",
    "FitSimulation": "simulators.fits",
    "FixedSource": "settings.isotropic",
    "GaussianScore": "linear.gaussian",
    "GaussianTransfer": "settings.gaussian",
    "GradientFlow": "settings.filters",
    "JointOptimum": "linear.joint",
    "Limit": "linear.limits",
    "Loss": "losses",
    "PrincipalComponents": "settings.filters",
    "QuadraticScore": "scores.quadratic",
    "RandomFeatures": "features",
    "Regression": "settings.regression",
    "RegressionRisk": "linear.regression",
    "RegressionSimulation": "scores.estimates",
    "MulticlassScore": "beyond.many_classes",
    "MulticlassSimulation": "simulators.many_classes",
    "MulticlassTransfer": "settings.many_classes",
    "RidgeFilter": "settings.filters",
    "RidgePath": "choosing.ridge_path",
    "RidgeSource": "settings.gaussian",
    "Score": "scores.score",
    "Simulation": "scores.estimates",
    "SolvedScore": "scores.solved",
    "SpectralFilter": "settings.filters",
    "Spectrum": "settings.spectrum",
    "SubspaceTransfer": "settings.subspace",
    "Transfer": "settings.isotropic",
    "few_samples": "linear.limits",
    "gamma_one": "linear.limits",
    "grid": "sweep",
    "joint_optimum": "linear.joint",
    "load_amazon": "datasets",
    "many_samples": "linear.limits",
    "many_source_samples": "linear.limits",
    "ridgeless": "linear.limits",
    "run_sweep": "sweep",
    "SourcePenalty": "questions",
    "TwoScales": "questions",
    "sample_exact": "simulators.simulation",
    "samples_needed": "questions",
    "source_penalty": "questions",
    "two_scales": "questions",
    "simulate": "simulators.simulation",
    "simulate_direct": "simulators.direct",
    "simulate_fits": "simulators.fits",
    "simulate_running": "simulators.simulation",
    "theory": "predict",
    "with_penalty": "settings.gaussian",
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
    "LearningCurve",
    "Limit",
    "Loss",
    "MulticlassScore",
    "MulticlassSimulation",
    "MulticlassTransfer",
    "PrincipalComponents",
    "QuadraticScore",
    "RandomFeatures",
    "Regression",
    "RegressionRisk",
    "RegressionSimulation",
    "RidgeFilter",
    "RidgePath",
    "RidgeSource",
    "Score",
    "Simulation",
    "SolvedScore",
    "SourcePenalty",
    "SpectralFilter",
    "Spectrum",
    "SubspaceTransfer",
    "Transfer",
    "TransferEvidence",
    "TwoScales",
    "agreement",
    "doubled",
    "few_samples",
    "gamma_one",
    "grid",
    "joint_optimum",
    "learning_curve",
    "learning_exponent",
    "load_amazon",
    "many_samples",
    "many_source_samples",
    "power_law",
    "ridgeless",
    "run_sweep",
    "sample_exact",
    "samples_needed",
    "simulate",
    "simulate_direct",
    "simulate_fits",
    "simulate_running",
    "source_penalty",
    "theory",
    "transfer_evidence",
    "two_scales",
    "with_penalty",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(importlib.import_module(f"rmt.{_HOME[name]}"), name)
    try:  # submodules: rmt.symbolic, rmt.plot, …
        return importlib.import_module(f"rmt.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"rmt.{name}":
            raise
        raise AttributeError(f"module 'rmt' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__, "plot", "symbolic"])


def _version() -> str:
    """Of the installed distribution; "unknown" where the source tree is not installed."""
    from importlib import metadata

    try:
        return metadata.version("rescale-and-adapt")
    except metadata.PackageNotFoundError:
        return "unknown"
