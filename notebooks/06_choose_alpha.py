# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Choosing α from the training sample
#
# The paper's $\alpha^\star$ needs the moments of the target task. With $n$ labelled target samples and nothing else,
# `rmt.AlphaRidgeClassifier` averages over $\alpha$ and $\gamma$ by the evidence for each, and says what accuracy to expect
# from what it would have said of every row without it. Bring your own features: replace the cell that makes `X`, `y` and `source`.

# %%
# %matplotlib inline
import os

import numpy as np
from IPython.display import Markdown, display
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeClassifier

import rmt
from paper_checks.core import COMMITTED, all_checks
from rmt.plot import COLOURS, dots, legend, line, name_axes, panels

FAST = os.environ.get("NOTEBOOK_FAST") == "1"
REPEATS = 3 if FAST else 40

# %% [markdown]
# ## Load
# A source task with 2,000 samples; a target whose mean has cosine 0.7 with it. Noise with a decaying spectrum, and rows of
# unequal length, as text features have.

# %%
p = 300
rng = np.random.default_rng(0)
spectrum = np.sqrt(p * np.arange(1, p + 1) ** -0.5 / np.sum(np.arange(1, p + 1) ** -0.5))
mu, other = np.linalg.qr(rng.standard_normal((p, 2)))[0].T * 1.2
mean = 0.7 * mu + np.sqrt(1 - 0.7**2) * other


def draw(n, mean, rng):
    y = np.where(np.arange(n) % 2 == 0, -1, 1)
    length = np.sqrt(rng.gamma(2.0, 0.5, n))
    return length[:, None] * (y[:, None] * mean + spectrum * rng.standard_normal((n, p))), y


source = FrozenEstimator(RidgeClassifier(alpha=2000.0).fit(*draw(2000, mu, rng)))
X, y = draw(60, mean, rng)
X_test, y_test = draw(4000, mean, rng)

# %% [markdown]
# ## Fit
# The interval is where the accuracy on new data should lie with probability 0.95; no test row was used.

# %%
model = rmt.AlphaRidgeClassifier(source=source).fit(X, y)
low, high = model.predicted_accuracy_interval_
print(f"α = {model.alpha_[0]:.3g}, γ = {model.gamma_:.3g}")
print(f"predicted accuracy {model.predicted_accuracy_:.3f}  ({low:.3f} to {high:.3f})")
print(f"test accuracy      {model.score(X_test, y_test):.3f}")
print(f"source untouched   {source.score(X_test, y_test):.3f}")
print(f"target only        {rmt.AlphaRidgeClassifier().fit(X, y).score(X_test, y_test):.3f}")

# %% [markdown]
# ## The path
# The scale at each penalty, before the average over penalties. At $\gamma=\infty$ the classifier is the source alone.

# %%
path = model.alpha_path_
finite = np.isfinite(path.gamma)
real = [
    rmt.AlphaRidgeClassifier(source=source, gamma=g, alpha=a).fit(X, y).score(X_test, y_test)
    for g, a in zip(path.gamma, path.alpha[:, 0], strict=True)
]
figure, axes = panels(2)
line(axes[0, 0], path.gamma[finite], path.alpha[finite, 0], label=None)
name_axes(axes[0, 0], "penalty γ", "scale α")
line(axes[0, 1], path.gamma[finite], path.accuracy[finite], label="predicted")
dots(axes[0, 1], path.gamma[finite], np.array(real)[finite], np.zeros(finite.sum()), label="test")
name_axes(axes[0, 1], "penalty γ", "accuracy")
legend(axes[0, 1])
for axis in axes[0]:
    axis.set_xscale("log")
display(figure)

# %% [markdown]
# ## Predicted against real accuracy, and against the source
# With few samples the untouched source is hard to beat. `caution` moves the prior towards it: 0, the default, lets the
# sample decide.

# %%
sizes = [10, 20, 40, 100, 200]
columns = {"auto": {}, "careful (caution=1)": {"caution": 1.0}, "leave-one-out": {"method": "loo"}}
found = {name: [] for name in columns}
predicted = []
for n in sizes:
    draws = [draw(n, mean, np.random.default_rng([n, k])) for k in range(REPEATS)]
    for name, options in columns.items():
        models = [rmt.AlphaRidgeClassifier(source=source, **options).fit(*one) for one in draws]
        found[name].append([one.score(X_test, y_test) for one in models])
        if name == "auto":
            predicted.append([one.predicted_accuracy_ for one in models])
figure, axes = panels(2)
for colour, (name, values) in zip(COLOURS, found.items(), strict=False):
    values = np.array(values)
    dots(axes[0, 0], sizes, values.mean(1), values.std(1) / np.sqrt(REPEATS), colour=colour, label=name)
axes[0, 0].axhline(source.score(X_test, y_test), color="#8d99a6", label="source untouched")
name_axes(axes[0, 0], "target samples n", "test accuracy")
axes[0, 0].set_xscale("log")
legend(axes[0, 0])
for colour, n, x, values in zip(COLOURS, sizes, predicted, found["auto"], strict=False):
    axes[0, 1].plot(x, values, ".", color=colour, label=f"n = {n}")
axes[0, 1].axline((0.7, 0.7), slope=1, color="#8d99a6", linewidth=0.8)
name_axes(axes[0, 1], "predicted accuracy", "test accuracy", "one dot a sample")
legend(axes[0, 1])
display(figure)

# %% [markdown]
# ## On real features
# From the committed results of two checks: twelve Amazon transfers, sentence features and image features.

# %%
for name in ("choose_alpha", "choose_alpha_held_out", "real_curves"):
    check = all_checks()[f"alpha_lora.{name}"]
    outcome = check.recall()
    display(Markdown(f"**{check.claim}** Verdict: **{outcome.verdict}**. {outcome.summary}"))
    if (figure := check.draw(check.finished(COMMITTED))) is not None:
        display(figure)
