# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Beyond the papers: any covariance, many sources, other losses
#
# Real features are not isotropic, there may be several sources to build on, and classifiers are rarely trained with the square
# loss. The theory covers all of that, through the same two calls: a *setting* goes into `rmt.theory`, a *score* comes out.
# Lines are theory; dots are simulated fits on drawn data, with bars of two standard errors.

# %%
# %matplotlib inline
import os
from dataclasses import replace

import numpy as np
from IPython.display import Markdown, display

import rmt
from rmt import plot

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
DRAWS = 20 if FAST else 200
P = 60 if FAST else 200
rng = np.random.default_rng(0)

# %% [markdown]
# ## Any covariance
# Correlated features $C_{ij} = 0.6^{|i-j|}$, a target mean $m$ and a source $\tilde w$ that is partly aligned with it. The
# covariance is decomposed once; every $n$, $\gamma$ and $\alpha$ then costs a sum over its eigenvalues. The isotropic formula
# fed with the same norms is shown beside it.

# %%
index = np.arange(P)
spectrum = rmt.Spectrum.of(0.6 ** np.abs(np.subtract.outer(index, index)))
directions = np.linalg.qr(rng.standard_normal((P, 3)))[0].T
mean, weights = 1.4 * directions[0], 0.42 * directions[0] + 0.5 * directions[1]
setting = rmt.GaussianTransfer(
    n=P // 2, gamma=0.3, mean=mean, covariance=spectrum, source=rmt.FixedSource(vector=weights)
)
norms = rmt.FixedSource(overlap=weights @ mean, norm2=weights @ weights)
isotropic = rmt.Transfer(p=P, n=P // 2, gamma=0.3, mu_target=1.4, source=norms)

alphas, few = np.linspace(-2, 6, 161), np.array([-1.0, 0.0, 1.0, 2.0, 4.0])


def compare(axes, setting, loss="square", label=None, draws=DRAWS, scales=few):
    """Theory as a line and simulated fits as dots."""
    colour = plot.COLOURS[len(axes.containers)]
    plot.line(axes, alphas, rmt.theory(setting, loss=loss).accuracy(alphas), colour=colour, label=label or loss)
    found = rmt.simulate_fits(setting, scales, draws, seed=1, loss=loss).accuracy
    plot.dots(axes, scales, found.value, found.stderr, colour=colour, label=None)
    plot.name_axes(axes, "scale α", "test accuracy")
    plot.legend(axes)


figure, axes = plot.panels(2)
compare(axes[0, 0], setting, label="with the covariance")
axes[0, 0].plot(alphas, rmt.theory(isotropic).accuracy(alphas), "--", color=plot.GREY, label="isotropic formula")
plot.legend(axes[0, 0])
gammas = np.geomspace(1e-3, 1e3, 150)
axes[0, 1].semilogx(gammas, rmt.theory(replace(setting, gamma=gammas)).best_accuracy, label="best α at each γ")
best = rmt.joint_optimum(setting)
axes[0, 1].plot(best.gamma, best.accuracy, "k*", label=f"joint optimum: γ = {best.gamma:.2f}, α = {best.alpha:.2f}")
plot.name_axes(axes[0, 1], "γ", "accuracy at the best α")
plot.legend(axes[0, 1])
display(figure)

# %% [markdown]
# With isotropic noise the joint optimum lies at $\gamma=\infty$; with a covariance it is finite.
#
# ## Many sources
# With $K$ sources the best scales are a vector. `marginal_value` says what accuracy each source adds to the others.

# %%
sources = [
    rmt.FixedSource(vector=weights),
    rmt.RidgeSource(mean=mean + directions[2], covariance=spectrum, N=2 * P, gamma=1.0),
    rmt.FixedSource(vector=0.5 * directions[2]),
]
score = rmt.theory(replace(setting, source=sources))
rows = ["| source | best scale | accuracy alone | adds to the others |", "| --- | --- | --- | --- |"]
for k, name in enumerate(("fixed", "ridge, related task", "fixed, unrelated")):
    alone, star, value = score.accuracy_source_only[k], score.alpha_star[k], score.marginal_value[k]
    rows.append(f"| {name} | {star:.3f} | {alone:.4f} | {value:.4f} |")
display(Markdown("\n".join(rows) + f"\n\nBest accuracy with all: **{score.best_accuracy:.4f}**"))

# %% [markdown]
# ## Other losses
# The logistic loss, the squared hinge, or any convex loss given by its two derivatives. The best scale depends on the loss, but
# no loss beats the bound at $\gamma = \infty$.

# %%
exponential = rmt.Loss(
    lambda x: -np.exp(-np.clip(x, -30, 30)) * (x < 30),
    lambda x: np.exp(-np.clip(x, -30, 30)) * (x < 30),
    inflection=-2.0,
    name="exponential",
)
figure, axes = plot.panels(2)
for loss in ("square", "logistic", "squared_hinge"):
    compare(axes[0, 0], setting, loss=loss, draws=DRAWS // 2)
penalties = np.geomspace(0.01, 30, 7 if FAST else 25)
for loss in ("square", "logistic", "squared_hinge"):
    line = rmt.theory(replace(isotropic, gamma=penalties), loss=loss)
    axes[0, 1].semilogx(penalties, line.best_accuracy, label=loss)
axes[0, 1].axhline(float(rmt.joint_optimum(isotropic).accuracy), color="k", linestyle="--", label="bound of every loss")
plot.name_axes(axes[0, 1], "γ (isotropic noise)", "accuracy at α*")
plot.legend(axes[0, 1])
display(figure)
print("exponential loss, accuracy at α = 1:", float(rmt.theory(setting, loss=exponential).accuracy(1.0)).__round__(4))

# %% [markdown]
# ## Classes that differ
# Classes with their own covariances and proportions 30 : 70. Here an intercept matters, and the logistic loss uses it better.

# %%
classes = rmt.ClassTransfer(
    n=P,
    gamma=0.1,
    means=[mean, -(0.6 * mean + 0.3 * directions[2])],
    covariances=[spectrum, np.where(index < P // 2, 2.0, 0.5)],
    proportions=(0.3, 0.7),
    source=rmt.FixedSource(vector=weights),
)
figure, axes = plot.panels()
alphas = np.linspace(-1, 5, 13 if FAST else 31)
for loss in ("square", "logistic"):
    for intercept in (False, True):
        words = f"{loss}, {'with' if intercept else 'no'} intercept"
        compare(axes[0, 0], replace(classes, intercept=intercept), loss, words, DRAWS // 2, np.array([0.0, 1.5, 4.0]))
display(figure)

# %% [markdown]
# ## Confined adapters and early stopping
# An adapter in a random subspace of rank $r$ (isotropic noise) has its own double descent at $r = n$. Gradient flow stopped early
# behaves much like a ridge penalty $\gamma = 1/t$.

# %%
figure, axes = plot.panels(2)
ranks = np.unique(np.geomspace(2, P, 60).astype(int))
for gamma in (1e-3, 0.3, 3.0):
    confined = rmt.SubspaceTransfer(base=replace(isotropic, gamma=gamma), rank=ranks)
    axes[0, 0].plot(ranks, rmt.theory(confined).best_accuracy, label=f"γ = {gamma:g}")
axes[0, 0].axvline(P // 2, color=plot.GREY)
plot.name_axes(axes[0, 0], "rank of the adapter", "accuracy at α*")
plot.legend(axes[0, 0])
times = np.geomspace(0.05, 100, 40)
stopped = [
    rmt.theory(rmt.FilteredTransfer(base=replace(isotropic, gamma=0.0), filter=rmt.GradientFlow(t))) for t in times
]
axes[0, 1].semilogx(times, [float(one.best_accuracy) for one in stopped], label="gradient flow stopped at t")
ridge = rmt.theory(replace(isotropic, gamma=1 / times))
axes[0, 1].semilogx(times, ridge.best_accuracy, "--", label="ridge with γ = 1/t")
plot.name_axes(axes[0, 1], "t", "accuracy at α*")
plot.legend(axes[0, 1])
display(figure)

# %% [markdown]
# ## Where it holds and where it does not
# Independent entries of any light-tailed law behave like Gaussian ones as long as the mean is spread over many coordinates.
# Heavy tails, sparse noise and localised means break that. Noise with a scale of its own for every sample (multivariate t) has
# a theory of its own.

# %%
heavy = rmt.EllipticalTransfer(base=isotropic, freedom=4.0)
alphas = np.linspace(-2, 6, 161)
figure, axes = plot.panels()
compare(axes[0, 0], heavy, label="elliptical theory, t₄")
axes[0, 0].plot(alphas, rmt.theory(isotropic).accuracy(alphas), "--", color=plot.GREY, label="Gaussian theory")
plot.legend(axes[0, 0])
display(figure)

# %%
from paper_checks.core import COMMITTED, all_checks

check = all_checks()["alpha_lora.universality"]
outcome, cells = check.recall(), check.finished(COMMITTED)
display(Markdown(f"**{check.claim}**  \nVerdict: **{outcome.verdict}**. {outcome.summary}"))
if cells:
    display(check.draw(cells))
