# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Questions people ask of a source
#
# How many samples do I need? Is my source harmful? Which penalty should the source be trained with? Each is one call of `rmt`,
# and each answer here has a picture. Lines are theory, dots are simulation with bars of two standard errors.

# %%
# %matplotlib inline
import os
from dataclasses import replace

import numpy as np
from IPython.display import Markdown, display

import rmt
from rmt.plot import COLOURS, GREY, dots, legend, line, name_axes, panels

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
DRAWS, SAMPLES = (10, 5) if FAST else (150, 40)

# %% [markdown]
# ## How many samples until fine-tuning beats the source as it is?
# A source trained on 5,000 samples, 400 features. `samples_needed` finds the smallest $n$ at which the fine-tuned classifier is
# better than the source alone: at the best scale $\alpha^\star$, and at the usual $\alpha = 1$. The curve has a flat start:
# few target samples move a good source very little, in either direction.

# %%
setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
needed = {"α*": rmt.samples_needed(setting), "α = 1": rmt.samples_needed(setting, alpha=1.0)}
display(setting, rmt.theory(setting))
display(Markdown(f"Samples to beat the source: **{needed['α*']}** at α*, **{needed['α = 1']}** at α = 1."))

figure, axes = panels()
axis = axes[0, 0]
n = np.unique(np.geomspace(20, 4000, 200).astype(int))
curves = {"α*": rmt.learning_curve(setting, n), "α = 1": rmt.learning_curve(setting, n, alpha=1.0)}
for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
    line(axis, n, curve.accuracy, colour=colour, label=f"fine-tuned, {name}")
    axis.axvline(needed[name], color=colour, linestyle=":", linewidth=1)
for size in (50, 200, 800, 2400):
    one = replace(setting, n=size)
    found = rmt.simulate(one, DRAWS, 1).accuracy(1.0)
    dots(axis, [size], [found.value], [found.stderr], colour=COLOURS[1], label=None)
axis.axhline(float(rmt.theory(setting).accuracy_source_only), color=GREY, label="source as it is")
axis.set_xscale("log")
name_axes(axis, "target samples n", "test accuracy", "dotted: where fine-tuning overtakes the source")
legend(axis)
display(figure)

# %% [markdown]
# ## How does what is lost shrink with $n$?
# For a power-law spectrum (covariance eigenvalues $j^{-a}$, signal $m_j^2/c_j \propto j^{-b}$) the lost SNR² falls like
# $n^{-\kappa}$; `learning_exponent` has the limit of $\kappa$ as $p \to \infty$. The local slopes approach it from below.

# %%
spectrum, mean = rmt.power_law(500 if FAST else 5000, 1.5, 2.0)
task = rmt.GaussianTransfer(n=1, gamma=0.01, mean=mean, covariance=spectrum, source=rmt.FixedSource(vector=0.0 * mean))
sizes = 100 * 2 ** np.arange(8)
figure, axes = panels(2)
best = rmt.learning_curve(task, sizes, alpha=0.0, gamma="best")
limit = rmt.learning_exponent(1.5, 2.0)
line(axes[0, 0], sizes, best.lost, label="best γ at each n")
line(axes[0, 0], sizes, best.lost[-1] * (sizes / sizes[-1]) ** -limit, colour=GREY, label=f"slope −{limit:.2f}")
axes[0, 0].set(xscale="log", yscale="log")
name_axes(axes[0, 0], "target samples n", "lost SNR²", "a = 1.5, b = 2")
legend(axes[0, 0])
line(axes[0, 1], np.sqrt(sizes[1:] * sizes[:-1]), best.exponents, label="local exponent")
axes[0, 1].axhline(limit, color=GREY, label="limit")
axes[0, 1].set_xscale("log")
name_axes(axes[0, 1], "target samples n", "exponent κ", "approach to the limit")
legend(axes[0, 1])
display(figure)

# %% [markdown]
# ## Is my source harmful?
# From one labelled sample and the source's weights, `transfer_evidence` gives an interval for $\alpha^\star$ and a test of
# negative transfer: is plain fine-tuning from the source worse than leaving it away? Below, sources from opposed to aligned,
# a fresh sample of 80 rows each. The covariance is known here; estimated from few rows, the intervals are too short.

# %%
p, rows = 100, 80
rng = np.random.default_rng(3)
index = np.arange(p)
noise = rmt.Spectrum.of(0.6 ** np.abs(np.subtract.outer(index, index)))
u, v = np.linalg.qr(rng.standard_normal((p, 2)))[0].T
target = 1.4 * u


def evidence(weights, seed):
    """One fresh sample, and what it says of the source."""
    own = np.random.default_rng(seed)
    y = np.where(np.arange(rows) % 2, 1.0, -1.0)
    X = y[:, None] * target + noise.colour(own.standard_normal((rows, p)))
    return rmt.transfer_evidence(X, y, weights, gamma=0.5, covariance=noise)


overlaps = np.linspace(-0.2, 0.8, 4 if FAST else 9)
found, truth, alarms = [], [], []
for k in overlaps:
    weights = k * u + 0.5 * v
    case = rmt.GaussianTransfer(
        n=rows, gamma=0.5, mean=target, covariance=noise, source=rmt.FixedSource(vector=weights)
    )
    truth.append(rmt.theory(case))
    many = [evidence(weights, seed) for seed in range(SAMPLES)]
    found.append(many[0])
    alarms.append(np.mean([one.harmful for one in many]))
print(found[0], found[-1], sep="\n")

figure, axes = panels(2)
left, right = axes[0]
low, high = np.array([one.interval for one in found]).T
middle = np.array([one.alpha_star for one in found])
left.errorbar(
    overlaps, middle, [middle - low, high - middle], fmt="o", ms=3, color=COLOURS[1], label="one sample, 95 %"
)
line(left, overlaps, [float(one.alpha_star) for one in truth])
left.axhline(0.0, color=GREY, linewidth=0.8)
name_axes(left, "overlap of the source with the target's direction", "α*", "intervals for the best scale")
legend(left)
harm = [100 * float(one.accuracy(0.0) - one.accuracy(1.0)) for one in truth]
dots(
    right, harm, alarms, np.sqrt(np.multiply(alarms, np.subtract(1, alarms)) / SAMPLES), label=f"{SAMPLES} samples each"
)
right.axhline(0.05, color=GREY, label="5 %")
right.axvline(0.0, color=GREY, linewidth=0.8)
name_axes(right, "accuracy that the source costs (points)", "share called harmful", "the test of negative transfer")
legend(right)
display(figure)

# %% [markdown]
# ## Which penalty for the source?
# The penalty that makes the best source need not make the best start (arXiv 2511.08401). `source_penalty` finds both. With
# noise of two scales, a weakly aligned source wants more penalty than its own task does, a well aligned one less; how much
# accuracy that is worth is in the right panel. The check `source_penalty.best_start` asks it of random settings.

# %%
scales = np.where(index < p // 2, 0.2, 1.8)
cosines = np.linspace(0.05, 1.0, 2 if FAST else 8)
answers = {}
for alpha in (1.0, None):
    answers[alpha] = []
    for cosine in cosines:
        source = rmt.RidgeSource(mean=1.5 * u, covariance=scales, N=150, gamma=1.0)
        mean = 1.5 * (cosine * u + np.sqrt(1 - cosine**2) * v)
        case = rmt.GaussianTransfer(n=40, gamma=1.0, mean=mean, covariance=scales, source=source)
        answers[alpha].append(rmt.source_penalty(case, alpha=alpha))
figure, axes = panels(2)
left, right = axes[0]
for colour, (alpha, found) in zip(COLOURS, answers.items(), strict=False):
    word = "α*" if alpha is None else "α = 1"
    line(left, cosines, [one.transfer for one in found], colour=colour, label=f"best after transfer, {word}")
    gains = [100 * (one.transfer_accuracies[1] - one.transfer_accuracies[0]) for one in found]
    line(right, cosines, gains, colour=colour, label=word)
line(left, cosines, [one.source for one in answers[1.0]], colour=GREY, label="best for the source's task")
left.set_yscale("log")
name_axes(left, "cosine of the two tasks' means", "γ̃", "the best penalty of the source")
legend(left)
name_axes(right, "cosine of the two tasks' means", "points of accuracy", "gained over the source's own best γ̃")
legend(right)
display(figure)

# %% [markdown]
# ## Is theory right at this size?
# Theory is a limit. `agreement` simulates the setting and one of twice the size, which has the same limit: the error must halve.
# A wrong number in the setting keeps its error and fails.

# %%
small = replace(setting, p=100, n=50, N=1250)
display(rmt.agreement(small, [0.0, 1.0, 3.0], 20 * DRAWS, 1))
