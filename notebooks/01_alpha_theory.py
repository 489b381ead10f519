# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # How far should the frozen weights be rescaled?
#
# A source classifier $\tilde w$ is frozen. On $n$ target samples we fit a ridge adapter $a$ on top of $\alpha\tilde w$ and
# use $w_\alpha = \alpha\tilde w + a$. In high dimension the test accuracy of $w_\alpha$ is a formula in seven numbers, so
# every question about $\alpha$ can be asked directly. This notebook asks them.

# %%
# %matplotlib inline
import os
from dataclasses import replace

import numpy as np
from IPython.display import Math, display

import rmt
from rmt import plot

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
DRAWS = 100 if FAST else 1000

# %% [markdown]
# ## One setting
# 5,000 source samples, 200 target samples, dimension 400; the target mean has alignment $\beta = 0.8$ with the source
# mean. A *setting* goes in, a *score* comes out.

# %%
setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
score = rmt.theory(setting)
for name in ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy", "accuracy_source_only"):
    print(f"{name:<22}{float(getattr(score, name)):8.4f}")
print(f"{'accuracy at α = 0, 1':<22}", score.accuracy([0.0, 1.0]).round(4))

# %% [markdown]
# Theory is the line, simulation the dots (bars: two standard errors). The dots come from the exact finite-size law of the
# experiment, so every α is read off the same draws.

# %%
alpha = np.linspace(-4, 8, 200)
simulation = rmt.simulate(setting, draws=DRAWS, seed=0)
display(plot.curve(setting, alpha, simulation=simulation))
print(simulation.compare(score, [0.0, 1.0, float(score.alpha_star)]))

# %% [markdown]
# ## Sliders
# Run this cell in Jupyter and drag. `γ` and `γ̃` are on a logarithmic scale.

# %%
import ipywidgets as widgets


def explore(
    p=400, n=200, log10_N=3.7, mu=1.5, mu_perp=1.0, beta=0.8, log10_gamma=0.0, log10_gamma_source=0.0, flipped=0.0
):
    """Accuracy against the scale, with the optimum and the two fixed baselines in the title."""
    chosen = rmt.Transfer(
        p=p, n=n, N=round(10**log10_N), mu=mu, mu_perp=mu_perp, beta=beta,
        gamma=10**log10_gamma, gamma_source=10**log10_gamma_source, label_noise=flipped,
    )  # fmt: skip
    found = rmt.theory(chosen)
    figure = plot.curve(chosen, alpha)
    figure.axes[0].set_title(
        f"α* = {float(found.alpha_star):.3g}: {float(found.best_accuracy):.3f}   α = 1: {float(found.accuracy(1.0)):.3f}   "
        f"source only: {float(found.accuracy_source_only):.3f}",
        fontsize=9,
    )
    display(figure)


widgets.interact(
    explore, p=(10, 2000), n=(5, 2000), log10_N=(1.0, 5.0), mu=(0.1, 3.0), mu_perp=(0.1, 3.0), beta=(-1.0, 1.0),
    log10_gamma=(-4.0, 3.0), log10_gamma_source=(-4.0, 3.0), flipped=(0.0, 0.45),
)  # fmt: skip

# %% [markdown]
# ## Where is α* above one?
# Exactly where $\gamma < \gamma_1$. The black line is α* = 1: red asks for amplifying the source, blue for shrinking it.
# A strongly shrunk source (large $\tilde\gamma$) wants to be amplified: α only undoes the shrinkage.

# %%
display(plot.star_map(setting, ("beta", np.linspace(0.05, 1, 200)), ("gamma", np.geomspace(1e-3, 1e3, 200))))
display(
    plot.star_map(
        setting,
        ("gamma_source", np.geomspace(1e-3, 1e2, 200)),
        ("n", np.unique(np.geomspace(5, 5000, 120).astype(int))),
    )
)
print("γ₁ =", float(rmt.gamma_one(setting)).__round__(4))

# %% [markdown]
# ## Is α worth tuning?
# With α free, accuracy grows with γ all the way: the joint optimum is $\gamma = \infty$ with $\alpha\gamma$ fixed, that is, the
# target mean direction plus a multiple of the source. The dashed line is that bound.

# %%
gammas = np.geomspace(1e-4, 1e3, 120)
scores = rmt.theory(replace(setting, gamma=gammas))
bound = rmt.joint_optimum(setting)
figure, grid = plot.panels(2)
for axes in grid[0]:
    axes.set_xscale("log")
    axes.set_xlabel("γ")
grid[0, 0].plot(gammas, scores.best_accuracy, label="α*")
grid[0, 0].plot(gammas, scores.accuracy(1.0), label="α = 1")
grid[0, 0].plot(gammas, scores.accuracy(0.0), label="α = 0 (target only)")
grid[0, 0].axhline(float(score.accuracy_source_only), color="0.6", label="source only")
grid[0, 0].axhline(float(bound.accuracy), color="k", linestyle="--", label="joint optimum")
grid[0, 0].set_ylabel("test accuracy")
grid[0, 0].legend(fontsize=8)
grid[0, 1].plot(gammas, scores.alpha_star)
grid[0, 1].set_yscale("log")
grid[0, 1].axhline(1, color="0.75")
grid[0, 1].set_ylabel("α*")
display(figure)

# %% [markdown]
# ## Double descent that no scale removes
# At $p = n$ without ridge the adapter interpolates and its noise explodes. α* grows, and does not help.

# %%
sizes = np.unique([*np.geomspace(20, 4000, 150).astype(int), 398, 399, 400, 401, 402])
figure, grid = plot.panels()
for gamma, colour in zip((1e-6, 1e-2, 1.0), plot.COLOURS, strict=False):
    line = rmt.theory(replace(setting, n=sizes, gamma=gamma))
    plot.line(grid[0, 0], sizes, line.best_accuracy, colour=colour, label=f"γ = {gamma:g}")
    for n in (50, 150, 400, 1000):
        estimate = rmt.simulate(replace(setting, n=n, gamma=gamma), draws=DRAWS // 5, seed=n)
        at = estimate.accuracy(float(rmt.theory(replace(setting, n=n, gamma=gamma)).alpha_star))
        plot.dots(grid[0, 0], n, at.value, at.stderr, colour=colour, label=None)
grid[0, 0].axvline(400, color="0.8")
grid[0, 0].set_xscale("log")
grid[0, 0].set_xlabel("target samples n  (p = 400)")
grid[0, 0].set_ylabel("accuracy at α*")
grid[0, 0].legend(fontsize=8)
display(figure)

# %% [markdown]
# ## How fast does simulation converge?
# `simulate_running` extends the same draws, so the running estimate and its error are one path.

# %%
figure, grid = plot.panels()
steps = [10, 30, 100, 300, 1000] if FAST else [10, 30, 100, 300, 1000, 3000, 10_000]
for result in rmt.simulate_running(setting, steps, seed=1):
    estimate = result.accuracy(1.0)
    plot.dots(grid[0, 0], result.draws, estimate.value, estimate.stderr, label=None)
grid[0, 0].axhline(float(score.accuracy(1.0)), color=plot.COLOURS[0], label="theory, p → ∞")
grid[0, 0].set_xscale("log")
grid[0, 0].set_xlabel("draws")
grid[0, 0].set_ylabel("accuracy at α = 1")
grid[0, 0].legend()
display(figure)

# %% [markdown]
# ## Do not take our word for it
# SymPy derives the optimal scales from the two moments of the score and proves them equal to the closed forms used above.

# %%
from rmt import symbolic

for derivation in symbolic.derivations():
    display(Math(derivation.latex))
    print("proved:", derivation.proved)
